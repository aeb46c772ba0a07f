"""Elastic tensors and Grüneisen parameters against finite strain, a crystal of every system."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.geometry import cellpar_to_cell
from ase.units import GPa
from conftest import small_config
from test_exact_elastic import relaxed_energy, strained
from test_gruneisen import at_rest, deformed, slope

import phonopy_equivariant as pe
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.structure import Structure, as_structure

FACES = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
DIAGONAL = [[0, 0, 0], [0.25] * 3, [0.5] * 3]
COLUMNS = [[0, 0, 0], [1 / 3, 2 / 3, 0.4], [2 / 3, 1 / 3, 0.6]]

# Lattice parameters (Å, degrees), primitive vectors in them, coordinates of O, Na and Cl in the
# primitive cell, number of the space group. Without inversion: atoms move with a strain.
CRYSTALS = {
    "cubic": ((5.515, 5.515, 5.515, 90, 90, 90), FACES, DIAGONAL, 216),
    "hexagonal": (
        (3.7, 3.7, 3.4, 90, 90, 120),
        np.eye(3),
        [[0, 0, 0], [1 / 3, 2 / 3, 0.5], [2 / 3, 1 / 3, 0.5]],
        187,
    ),
    "trigonal": ((3.7, 3.7, 3.9, 90, 90, 120), np.eye(3), COLUMNS, 156),
    "tetragonal": ((5.4, 5.4, 5.7, 90, 90, 90), FACES, DIAGONAL, 119),
    "orthorhombic": ((5.4, 5.5, 5.65, 90, 90, 90), FACES, DIAGONAL, 22),
    "monoclinic": ((5.4, 5.5, 5.65, 90, 94, 90), FACES, DIAGONAL, 5),
    "triclinic": (
        (3.4, 3.5, 3.7, 85, 100, 95),
        np.eye(3),
        [[0, 0, 0], [0.45, 0.55, 0.4], [0.5, 0.05, 0.6]],
        1,
    ),
}
QPOINTS = np.array([[0.25, 0.1, -0.3], [0.5, 0.5, 0.1]])


@pytest.fixture(scope="module")
def potential() -> Potential:
    config = small_config(num_interactions=1, cutoff=3.6, scale=20.0)
    return random_potential(config, seed=6)


@functools.cache
def rest(potential: Potential, name: str) -> Structure:
    """Return a crystal whose atoms feel no force, with its space group."""
    parameters, vectors, scaled, number = CRYSTALS[name]
    cell = vectors @ cellpar_to_cell(parameters)
    start = as_structure(Atoms("ONaCl", scaled_positions=scaled, cell=cell, pbc=True))
    structure = at_rest(potential, pe.relax(start, potential, 1e-6, cell=False), 4)
    fractional = structure.positions @ np.linalg.inv(structure.cell)
    dataset = spglib.get_symmetry_dataset((structure.cell, fractional, structure.numbers), 1e-5)
    assert dataset is not None and dataset.number == number
    return structure


@pytest.mark.parametrize("name", CRYSTALS)
def test_elastic_tensor_equals_finite_strain(name: str, potential: Potential) -> None:
    """Second differences of the relaxed energy along random strains, extrapolated."""
    crystal = rest(potential, name)
    tensor = pe.elastic_tensor(crystal, potential)
    centre, step = relaxed_energy(potential, crystal), 1e-3

    def curvature(direction: np.ndarray) -> float:
        ends = (relaxed_energy(potential, strained(crystal, s * direction)) for s in (1, -1))
        return (sum(ends) - 2 * centre) / crystal.volume / GPa

    largest = np.abs(tensor.relaxed).max()
    for direction in np.random.default_rng(0).normal(size=(2, 6)):
        coarse, fine = (curvature(h * direction) / h**2 for h in (step, step / 2))
        expected = direction @ tensor.relaxed @ direction
        assert abs((4 * fine - coarse) / 3 - expected) < 1e-4 * largest
    # the relaxation matters, or the test says nothing
    assert np.abs(tensor.relaxed - tensor.clamped).max() > 1e-3 * largest


@pytest.mark.parametrize("name", CRYSTALS)
def test_gruneisen_parameters_equal_finite_strain(name: str, potential: Potential) -> None:
    """Frequencies of relaxed cells of other volumes; the difference is extrapolated."""
    crystal = rest(potential, name)
    result = pe.gruneisen_parameters(crystal, potential, QPOINTS)

    def squares(eta: float) -> np.ndarray:
        cell = deformed(crystal, (np.exp(eta / 3) - 1) * np.eye(3))
        relaxed = at_rest(potential, cell, 4)
        return np.linalg.eigvalsh(pe.dynamical_matrices(potential, relaxed, QPOINTS))

    expected = slope(squares, 1e-3)
    found = -2 * result.parameters * squares(0.0)
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()

"""Elastic tensor by second derivatives against energies of strained, relaxed cells."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.units import GPa
from conftest import small_config

import phonopy_equivariant as pe
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.response.autodiff.hessian import hessian
from phonopy_equivariant.response.elastic import VOIGT, elastic_tensor
from phonopy_equivariant.structure import Structure, as_structure


@pytest.fixture(scope="module")
def potential() -> Potential:
    return random_potential(small_config(species=(6, 14), cutoff=3.5, scale=20.0), seed=3)


@pytest.fixture(scope="module")
def zincblende() -> Structure:
    """No forces by symmetry, but shear moves the two atoms against each other."""
    return as_structure(bulk("SiC", "zincblende", a=4.36))


def relaxed_energy(potential: Potential, structure: Structure) -> float:
    """Return the energy where forces vanish, by Newton's method from an analytic Hessian."""
    columns = 3 * len(structure.numbers)
    for _ in range(3):
        curvature = hessian(structure, potential).reshape(columns, columns)
        forces = potential.evaluate(structure).forces
        step = np.linalg.pinv(curvature, rcond=1e-9) @ forces.ravel()
        structure = structure._replace(positions=structure.positions + step.reshape(-1, 3))
    assert np.abs(potential.evaluate(structure).forces).max() < 1e-9
    return potential.evaluate(structure).energy


def strained(structure: Structure, voigt: np.ndarray) -> Structure:
    strain = np.zeros((3, 3))
    for value, (a, b) in zip(voigt, VOIGT, strict=True):
        strain[a, b] += value / 2
        strain[b, a] += value / 2
    deformation = np.eye(3) + strain
    return structure._replace(
        cell=structure.cell @ deformation, positions=structure.positions @ deformation
    )


def test_relaxed_tensor_equals_finite_strain(potential: Potential, zincblende: Structure) -> None:
    """Second differences at two steps, extrapolated: what is left is step⁴, and rounding."""
    tensor = elastic_tensor(zincblende, potential)
    centre, step = relaxed_energy(potential, zincblende), 1e-3

    def curvature(direction: np.ndarray) -> float:
        ends = (relaxed_energy(potential, strained(zincblende, s * direction)) for s in (1, -1))
        return (sum(ends) - 2 * centre) / zincblende.volume / GPa

    for direction in (np.eye(6)[3], np.random.default_rng(0).normal(size=6)):
        coarse, fine = (curvature(h * direction) / h**2 for h in (step, step / 2))
        expected = direction @ tensor.relaxed @ direction
        assert abs((4 * fine - coarse) / 3 - expected) < 1e-5 * abs(expected)
    # the relaxation matters, or the test says nothing
    assert abs(tensor.relaxed[3, 3] - tensor.clamped[3, 3]) > 1.0


def test_cubic_crystals_have_three_constants(potential: Potential, zincblende: Structure) -> None:
    """Textbook (Nye): C11, C12, C44 and nothing else."""
    found = elastic_tensor(zincblende, potential).relaxed
    expected = np.zeros((6, 6))
    expected[:3, :3] = found[0, 1]
    expected[range(3), range(3)] = found[0, 0]
    expected[range(3, 6), range(3, 6)] = found[3, 3]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(found).max())


def test_molecules_are_refused(potential: Potential, zincblende: Structure) -> None:
    molecule = zincblende._replace(pbc=np.zeros(3, bool))
    with pytest.raises(pe.PhonopyEquivariantError, match="three directions"):
        elastic_tensor(molecule, potential)

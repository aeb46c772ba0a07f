"""Three roads to the same force constants for MACE: see test_response.py."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from conftest import assert_close, three_atoms
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from test_mace import mace_config

import phonopy_equivariant as pe
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.response.autodiff.extended import extended_force_constants
from phonopy_equivariant.response.autodiff.hessian import hessian
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants

QPOINTS = np.array([[0.0, 0, 0], [0.5, 0, 0.5], [0.25, 0.1, -0.3]])

MODELS = {
    "residual, pair term, transform": {
        "interactions": ("residual",),
        "pair_repulsion": True,
        "distance_transform": "agnesi",
    },
    "density, nonlinear": {"interactions": ("density", "nonlinear"), "apply_cutoff": False},
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Potential:
    return random_potential(mace_config(**MODELS[request.param]), seed=1)


def test_bloch_response_equals_extended_graph(model, crystal):
    crystal = three_atoms(crystal)
    expected = extended_force_constants(model, crystal, QPOINTS)
    result = lattice_force_constants(model, crystal, QPOINTS)
    for got, want in zip(result, expected, strict=True):
        assert_close(got, want)
        assert_close(got, got.conj().T)
    size = 3 * len(crystal.numbers)
    assert np.abs(result[0].real.reshape(size, -1, 3).sum(axis=1)).max() < 1e-11


def test_hessian_equals_bloch_response_and_central_differences(model, crystal):
    size = 3 * len(crystal.numbers)
    matrix = hessian(crystal, model).reshape(size, size)
    # the points of the other test: the same compiled function
    assert_close(lattice_force_constants(model, crystal, QPOINTS)[0].real, matrix)
    # at this step truncation (4e-9) and rounding (1e-9) are far below 1e-7
    step, atom = 2e-5, 1
    for axis in range(3):
        forces = []
        for sign in (1, -1):
            positions = crystal.positions.copy()
            positions[atom, axis] += sign * step
            forces.append(model.evaluate(crystal._replace(positions=positions)).forces)
        difference = (forces[1] - forces[0]).ravel() / (2 * step)
        row = matrix[3 * atom + axis]
        np.testing.assert_allclose(row, difference, rtol=0, atol=1e-7 * np.abs(matrix).max())


def test_force_constants_by_symmetry_equal_automatic_differentiation():
    """The density is a message of its own, which the little group must leave alone."""
    atoms = bulk("GaN", "wurtzite", a=3.19, c=5.19)
    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
    )
    phonon = Phonopy(cell, supercell_matrix=np.diag([2, 2, 1]), primitive_matrix="P")
    config = mace_config(species=(7, 31), interactions=("density", "density-residual"))
    potential = random_potential(config, seed=6)
    expected = pe.force_constants(phonon, potential, method="autodiff")
    report = pe.set_force_constants(phonon, potential)
    assert_close(phonon.force_constants, expected)
    assert report.sum_rule < 1e-11 and report.permutation < 1e-11

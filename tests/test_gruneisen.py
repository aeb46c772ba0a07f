"""Grüneisen parameters from third derivatives, against finite strain and phonopy's own."""

from __future__ import annotations

import functools

import cli_helpers
import numpy as np
import pytest
from ase.build import bulk
from conftest import assert_close
from phonopy import Phonopy, PhonopyGruneisen
from phonopy.structure.atoms import PhonopyAtoms
from test_mace import mace_config

import phonopy_equivariant as pe
from phonopy_equivariant.phonons.cells import primitive_operations
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.response.autodiff.hessian import hessian
from phonopy_equivariant.response.bloch.lattice import (
    Motion,
    lattice_force_constants,
    lattice_response,
)
from phonopy_equivariant.response.gruneisen import gruneisen_parameters
from phonopy_equivariant.response.third.motion import motion_derivatives
from phonopy_equivariant.structure import Structure, as_structure

QPOINTS = np.array([[0.0, 0, 0], [0.25, 0.1, -0.3], [0.5, 0.5, 0.5], [0.5, 0.5, 0.0]])
UNIAXIAL = np.array([[0.1, 0.2, 0.0], [0.2, -0.3, 0.15], [0.0, 0.15, 1.0]])


@pytest.fixture(scope="module")
def rock_salt() -> Structure:
    """No internal freedom: forces vanish under any strain."""
    return as_structure(bulk("NaCl", "rocksalt", a=cli_helpers.LATTICE))


def deformed(structure: Structure, strain: np.ndarray) -> Structure:
    matrix = np.eye(3) + strain
    return structure._replace(cell=structure.cell @ matrix, positions=structure.positions @ matrix)


def at_rest(potential: Potential, structure: Structure, steps: int) -> Structure:
    """Return where forces vanish, minimum or not, by Newton's method from analytic Hessians."""
    columns = 3 * len(structure.numbers)
    for _ in range(steps):
        curvature = hessian(structure, potential).reshape(columns, columns)
        forces = potential.evaluate(structure).forces
        step = (np.linalg.pinv(curvature, rcond=1e-9) @ forces.ravel()).reshape(-1, 3)
        step *= min(1.0, 0.2 / max(np.abs(step).max(), 1e-100))
        structure = structure._replace(positions=structure.positions + step)
    assert np.abs(potential.evaluate(structure).forces).max() < 1e-11
    return structure


def slope(function, step: float):  # type: ignore[no-untyped-def]
    """Return a central difference, the error in step² extrapolated away."""
    coarse, fine = ((function(h) - function(-h)) / (2 * h) for h in (step, step / 2))
    return (4 * fine - coarse) / 3


def test_no_internal_freedom(rock_salt: Structure) -> None:
    """Frequencies of three volumes; left are step⁴ and rounding."""
    potential = cli_helpers.potential()
    result = gruneisen_parameters(rock_salt, potential, QPOINTS)

    def squares(eta: float) -> np.ndarray:
        cell = deformed(rock_salt, (np.exp(eta / 3) - 1) * np.eye(3))
        return np.linalg.eigvalsh(pe.dynamical_matrices(potential, cell, QPOINTS))

    at_rest = squares(0.0)
    at_rest[0, :3] = np.nan  # of acoustic modes at Γ rounding alone is left, or nothing
    expected = -slope(squares, 1e-3) / (2 * at_rest)
    assert np.isnan(result.parameters[0, :3]).all() and (result.frequencies[0, :3] == 0).all()
    assert np.isfinite(result.parameters).sum() == result.parameters.size - 3
    np.testing.assert_allclose(result.parameters[0, 3:], expected[0, 3:], rtol=1e-8)
    # the strain is isotropic: the order within a degenerate group does not matter
    np.testing.assert_allclose(result.parameters[1:], expected[1:], rtol=1e-8)
    np.testing.assert_allclose(result.displacements, 0, atol=1e-12)


def test_a_strain_splits_degenerate_modes(rock_salt: Structure) -> None:
    """Sorted eigenvalues have a kink there: the order of a group is reversed below zero."""
    potential = cli_helpers.potential()
    result = gruneisen_parameters(rock_salt, potential, QPOINTS, strain=UNIAXIAL)
    at_l = result.frequencies[2]
    doublets = np.flatnonzero(np.diff(at_l) < 1e-6)
    assert len(doublets) == 2

    def squares(eta: float) -> np.ndarray:
        return np.linalg.eigvalsh(
            pe.dynamical_matrices(potential, deformed(rock_salt, eta * UNIAXIAL), QPOINTS)
        )[2]

    def in_order(eta: float) -> np.ndarray:
        found = squares(eta)
        for first in doublets if eta < 0 else ():
            found[first : first + 2] = found[first + 1], found[first]
        return found

    expected = -slope(in_order, 1e-5) / (2 * squares(0.0))
    np.testing.assert_allclose(result.parameters[2], expected, rtol=1e-7)
    split = -np.diff(result.parameters[2])[doublets]
    assert (split > 0.05).all()  # or the test says nothing


@pytest.mark.slow
def test_internal_freedom_without_symmetry(crystal: Structure) -> None:
    """Five atoms that move with the strain: dΦ(q) as a matrix, and γ.

    Of MACE with a pair term, which has third derivatives of its own; the others are of NequIP.
    """
    config = mace_config(interactions=("residual",), pair_repulsion=True)
    potential = random_potential(config, seed=1)
    rest = at_rest(potential, crystal, 30)
    result = gruneisen_parameters(rest, potential, QPOINTS)
    assert np.abs(result.displacements).max() > 1e-2

    @functools.cache
    def volume(eta: float) -> Structure:
        return at_rest(potential, deformed(rest, (np.exp(eta / 3) - 1) * np.eye(3)), 4)

    def matrices(eta: float) -> np.ndarray:
        return lattice_force_constants(potential, volume(eta), QPOINTS)

    def squares(eta: float) -> np.ndarray:
        return np.linalg.eigvalsh(pe.dynamical_matrices(potential, volume(eta), QPOINTS))[1:]

    motion = Motion(result.strain, result.displacements)
    found = motion_derivatives(potential, rest, motion, QPOINTS)
    assert_close(found, slope(matrices, 1e-3), 1e-7)
    found = -2 * result.parameters[1:] * squares(0.0)
    assert_close(found, slope(squares, 1e-3), 1e-7)
    clamped = gruneisen_parameters(rest, potential, QPOINTS, relax=False)
    assert np.nanmax(np.abs(clamped.parameters - result.parameters)) > 0.05


@pytest.mark.slow
def test_symmetry_gives_the_derivative_too() -> None:
    """A motion that the space group keeps: one atom of an orbit as receiver, the same numbers."""
    atoms = bulk("NaCl", "wurtzite", a=4.0, c=6.5)
    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
    )
    phonon = Phonopy(cell, np.eye(3, dtype=int), primitive_matrix="P")
    along = np.where(phonon.primitive.numbers == 11, 0.3, -0.2)[:, None] * [0.0, 0.0, 1.0]
    motion = Motion(np.diag([0.5, 0.5, -0.2]), along)
    potential = cli_helpers.potential()
    symmetry = primitive_operations(phonon)
    expected = lattice_response(potential, phonon.primitive, QPOINTS, motion=motion).values
    found = lattice_response(
        potential, phonon.primitive, QPOINTS, symmetry=symmetry, motion=motion
    ).values
    for got, want in zip(found, expected, strict=True):
        assert_close(got, want)


def test_one_atom_has_only_acoustic_modes() -> None:
    """At Γ nothing is left; masses cancel elsewhere."""
    atoms = bulk("Na", "fcc", a=5.0)
    heavy = atoms.copy()
    heavy.set_masses([100.0])
    potential = cli_helpers.potential()
    light, other = (
        gruneisen_parameters(a, potential, QPOINTS[:2], relax=False) for a in (atoms, heavy)
    )
    assert np.isnan(light.parameters[0]).all() and not light.frequencies[0].any()
    np.testing.assert_allclose(light.parameters[1], other.parameters[1], rtol=1e-12)
    ratio = np.sqrt(atoms.get_masses()[0] / 100.0)
    np.testing.assert_allclose(light.frequencies[1] * ratio, other.frequencies[1], rtol=1e-12)


def test_bad_input_is_refused(rock_salt: Structure) -> None:
    potential = cli_helpers.potential()
    with pytest.raises(pe.PhonopyEquivariantError, match="three directions"):
        gruneisen_parameters(rock_salt._replace(pbc=np.zeros(3, bool)), potential, QPOINTS)
    with pytest.raises(pe.PhonopyEquivariantError, match=r"strain \+ strain.T"):
        gruneisen_parameters(rock_salt, potential, QPOINTS, strain=np.eye(3, k=1))


def test_three_volumes_in_phonopy(rock_salt: Structure) -> None:
    """q commensurate with 2×2×2, where phonopy's D(q) of a supercell is exact.

    The central difference of phonopy is in error by the square of the step.
    """
    potential = cli_helpers.potential()

    def phonon(dilation: float) -> Phonopy:
        cell = PhonopyAtoms(
            numbers=rock_salt.numbers,
            cell=rock_salt.cell * (1 + dilation) ** (1 / 3),
            scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]],
        )
        made = Phonopy(cell, 2 * np.eye(3, dtype=int), primitive_matrix="P")
        pe.set_force_constants(made, potential)
        return made

    twin = PhonopyGruneisen(phonon(0.0), phonon(5e-5), phonon(-5e-5))
    twin.set_mesh([2, 2, 2], is_gamma_center=True)
    qpoints, _, frequencies, _, expected = twin.get_mesh()
    result = gruneisen_parameters(twin.get_phonon().primitive, potential, qpoints)
    # phonopy's and ASE's masses differ by 2e-5
    np.testing.assert_allclose(result.frequencies, frequencies, rtol=0, atol=1e-4)
    assert np.abs(qpoints[0]).max() == 0
    np.testing.assert_allclose(result.parameters[0, 3:], expected[0, 3:], rtol=1e-6)
    np.testing.assert_allclose(np.sort(result.parameters[1:]), np.sort(expected[1:]), rtol=1e-6)

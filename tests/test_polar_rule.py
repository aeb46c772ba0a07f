"""The rule of exact mode with Born charges, on springs and point charges whose Hessian is known."""

from __future__ import annotations

from typing import Any

import cli_helpers
import numpy as np
from phonopy import Phonopy
from phonopy.harmonic.dynamical_matrix import DynamicalMatrix
from polar_helpers import QPOINTS, in_thz, rock_salt

from phonopy_equivariant.phonons.charges import Charges
from phonopy_equivariant.phonons.exact_range import converged_matrix
from phonopy_equivariant.phonons.nac import (
    NAC_RANGE,
    PolarDynamicalMatrix,
    PolarResponse,
    trusted_cells,
    window,
)
from phonopy_equivariant.response.dipole_dipole import Dipoles, dipole_dipole, long_range
from phonopy_equivariant.response.dynamical_matrix import mass_weighted


def springs(phonon: Phonopy, constant: float, qpoints: np.ndarray) -> np.ndarray:
    """Return Φ(q) of springs between neighbours of rock salt (lattice gauge), eV/Å²."""
    primitive = phonon.primitive
    values = np.zeros((len(qpoints), 2, 3, 2, 3), complex)
    half = cli_helpers.LATTICE / 2
    for axis in range(3):
        tensor = constant * np.outer(np.eye(3)[axis], np.eye(3)[axis])
        for sign in (1, -1):
            vector = sign * half * np.eye(3)[axis]
            offset = vector - (primitive.positions[1] - primitive.positions[0])
            shift = np.rint(offset @ np.linalg.inv(primitive.cell))
            phase = np.exp(2j * np.pi * qpoints @ shift)[:, None, None]
            values[:, 0, :, 1] -= phase * tensor
            values[:, 1, :, 0] -= phase.conj() * tensor
            values[:, 0, :, 0] += tensor
            values[:, 1, :, 1] += tensor
    return values.reshape(-1, 6, 6)


class RigidIons:
    """Springs and point charges in a vacuum, with the exact Hessian by Ewald's sum."""

    def __init__(self) -> None:
        self.phonon = rock_salt(1)
        primitive = self.phonon.primitive
        born = np.array([0.9 * np.eye(3), -0.9 * np.eye(3)])
        self.charges = Charges(born, np.eye(3), 14.4, 0.0, 0.0)
        self.dipoles = Dipoles(primitive.cell, primitive.positions, born, np.eye(3), 14.4)

    def lattice_gauge(self, qpoints: np.ndarray, values: np.ndarray) -> np.ndarray:
        phases = np.exp(2j * np.pi * qpoints @ self.phonon.primitive.scaled_positions.T)
        columns = np.repeat(phases, 3, axis=1)
        return columns[:, :, None] * values.reshape(-1, 6, 6) * columns.conj()[:, None, :]

    def hessian(self, qpoints: np.ndarray) -> np.ndarray:
        dipoles = dipole_dipole(self.dipoles, qpoints)
        return springs(self.phonon, 4.0, qpoints) + self.lattice_gauge(qpoints, dipoles)

    def frequencies(self, qpoints: np.ndarray) -> np.ndarray:
        values = mass_weighted(self.phonon.primitive, qpoints, self.hessian(qpoints))
        return in_thz(np.linalg.eigvalsh(values))

    def matrix(self, polar: PolarResponse, tolerance: float) -> DynamicalMatrix:
        return converged_matrix(
            self.phonon,
            polar.short_range,
            polar.dynamical_matrices,
            tolerance,
            np.inf,
            2**30,
            polar.kind,
        )[0]


def test_rigid_ions_are_recovered() -> None:
    """Nothing is counted twice: every q of springs and charges, after dipoles were taken off.

    With cells of 26 Å the short-range rest of Ewald's sum, erfc(1.8·13/3.5) = 1e-20 at their
    border, is interpolated to rounding, as the springs are.
    """
    ions = RigidIons()
    polar = PolarResponse(ions.phonon, ions.charges, 26.0, ions.hessian)
    matrix: Any = ions.matrix(polar, 1e-6)
    expected = ions.frequencies(QPOINTS)
    for q, levels in zip(QPOINTS, expected, strict=True):
        matrix.run(q)
        found = in_thz(np.linalg.eigvalsh(matrix.dynamical_matrix))
        np.testing.assert_allclose(found, levels, rtol=0, atol=1e-6)
    bare = mass_weighted(ions.phonon.primitive, QPOINTS, springs(ions.phonon, 4.0, QPOINTS))
    assert np.abs(in_thz(np.linalg.eigvalsh(bare)) - expected).max() > 1


def test_a_model_without_long_range_gets_it_back() -> None:
    """Charges screened beyond 17 Å, as trained potentials have them: exact mode has no dip.

    phonopy's scheme from a supercell of 26 Å trusts the model where it has no dipoles.
    """
    ions = RigidIons()
    screening = np.pi / (17 * np.sqrt(np.log(100)))

    def model(qpoints: np.ndarray) -> np.ndarray:
        nearest = qpoints - np.rint(qpoints)
        missing = long_range(ions.dipoles, nearest, screening)
        return ions.hessian(nearest) - ions.lattice_gauge(nearest, missing)

    line = np.linspace(0, 0.5, 26)[1:, None] * np.array([1.0, 1, 0])
    expected = ions.frequencies(line)[:, -1]

    def highest(nac_range: float, supercell: bool) -> np.ndarray:
        polar = PolarResponse(ions.phonon, ions.charges, nac_range, model)
        values = polar.interpolated(line) if supercell else polar.short_range(line)
        return in_thz(np.linalg.eigvalsh(polar.dynamical_matrices(line, values)))[:, -1]

    bare = mass_weighted(ions.phonon.primitive, line, model(line))
    lost = np.abs(in_thz(np.linalg.eigvalsh(bare))[:, -1] - expected).max()
    exact_error = np.abs(highest(NAC_RANGE, False) - expected).max()
    supercell_error = np.abs(highest(26.0, True) - expected).max()
    assert exact_error < 0.1 * lost
    assert exact_error < 0.5 * supercell_error


def test_the_window() -> None:
    """One at Γ to fourth order, periodic, nothing at the far end of a zone."""
    dipoles = RigidIons().dipoles

    def total(qpoints: np.ndarray, nac_range: float = 10.0) -> np.ndarray:
        return window(dipoles, qpoints, nac_range)[1].sum(axis=1)

    near = 1 - total(np.array([[1e-3, 0, 0], [2e-3, 0, 0]]), 30.0)
    np.testing.assert_allclose(near[1] / near[0], 16, rtol=1e-3)
    shifted = total(QPOINTS + [3, -1, 0])
    np.testing.assert_allclose(total(QPOINTS), shifted, rtol=0, atol=1e-14)
    assert total(np.array([[0.5, 0.5, 0.0]]), 40.0)[0] < 1e-12
    one = np.linalg.norm(dipoles.reciprocal[0])
    at_range = total(np.array([[2 * np.pi / 20 / one, 0, 0]]), 20.0)[0]
    np.testing.assert_allclose(at_range, np.exp(-1 / 4), atol=1e-6)


def test_overlapping_windows() -> None:
    """In a long cell several overlap: at Γ the one there has all the weight, between two half."""
    dipoles = RigidIons().dipoles
    long = dipoles._replace(cell=dipoles.cell * [[1], [1], [4]])
    waves, weights = window(long, np.array([[1e-4, 0, 0], [0, 0, 0.5], [0, 0, 0.5 + 1e-9]]), 10.0)
    central = np.linalg.norm(waves, axis=2).argmin(axis=1)
    np.testing.assert_allclose(weights[0, central[0]], 1, rtol=0, atol=1e-9)
    assert (weights.sum(axis=1) <= 1 + 1e-12).all() and weights.sum(axis=1)[1] > 0.9
    largest = np.sort(weights[1])[-2:]
    np.testing.assert_allclose(largest[0], largest[1], rtol=1e-9)
    np.testing.assert_allclose(
        np.sort(weights[1]), np.sort(weights[2]), rtol=0, atol=1e-7
    )  # continuous where the nearest G changes


def test_cells_of_a_range() -> None:
    cell = np.diag([3.0, 4.0, 12.0])
    assert trusted_cells(cell, 10.0).tolist() == [3, 2, 1]
    assert trusted_cells(cell, 12.0).tolist() == [4, 3, 1]
    assert trusted_cells(cell, 13.0).tolist() == [4, 3, 2]


def test_the_matrix_at_gamma_without_direction() -> None:
    """Called without a direction, Γ has no macroscopic field, whatever the screening."""
    ions = RigidIons()
    polar = PolarResponse(ions.phonon, ions.charges, 10.0, ions.hessian)
    matrix: Any = ions.matrix(polar, 1e-3)
    assert isinstance(matrix, PolarDynamicalMatrix)
    matrix.run([0, 0, 0])
    expected = mass_weighted(
        ions.phonon.primitive, np.zeros((1, 3)), ions.hessian(np.zeros((1, 3)))
    )
    np.testing.assert_allclose(matrix.dynamical_matrix, expected[0], rtol=0, atol=1e-10)

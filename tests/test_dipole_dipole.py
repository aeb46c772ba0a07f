"""Force constants of dipoles by Ewald's sum: against phonopy, Laplace and differences."""

from __future__ import annotations

import numpy as np
import pytest
from phonopy import Phonopy
from phonopy.harmonic.derivative_dynmat import DerivativeOfDynamicalMatrix
from phonopy.harmonic.dynamical_matrix import DynamicalMatrixGL
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.response.dipole_dipole import (
    Dipoles,
    balanced_screening,
    dipole_dipole,
    dipole_dipole_gradient,
    image_force_constants,
    long_range,
    long_range_gradient,
    short_range,
)

QPOINTS = np.random.default_rng(2).uniform(-0.5, 0.5, (5, 3))


def neutral(seed: int, atoms: int) -> np.ndarray:
    charges = np.random.default_rng(seed).normal(size=(atoms, 3, 3)) + 2 * np.eye(3)
    return charges - charges.mean(axis=0)


def rock_salt() -> Dipoles:
    cell = 2.8 * (1 - np.eye(3))
    positions = np.array([[0.0, 0, 0], [2.8, 2.8, 2.8]])
    charges = np.array([1.1 * np.eye(3), -1.1 * np.eye(3)])
    return Dipoles(cell, positions, charges, 2.4 * np.eye(3))


def triclinic() -> Dipoles:
    """Three atoms without symmetry, full charge tensors, an anisotropic medium."""
    cell = np.array([[4.1, 0.0, 0.3], [0.7, 4.6, 0.0], [-0.4, 0.9, 5.3]])
    fractions = np.array([[0.0, 0, 0], [0.52, 0.41, 0.48], [0.3, 0.8, 0.1]])
    dielectric = np.array([[3.1, 0.2, 0.1], [0.2, 2.4, -0.3], [0.1, -0.3, 4.0]])
    return Dipoles(cell, fractions @ cell, neutral(1, 3), dielectric)


CRYSTALS = {"rock salt": rock_salt, "triclinic": triclinic}


def phonopys(dipoles: Dipoles, screening: float) -> DynamicalMatrixGL:
    """Return phonopy's object with masses of 1, so that D(q) is the force constants."""
    atoms = PhonopyAtoms(
        numbers=np.arange(1, len(dipoles.positions) + 1),
        cell=dipoles.cell,
        positions=dipoles.positions,
        masses=np.ones(len(dipoles.positions)),
    )
    phonon = Phonopy(atoms, np.eye(3, dtype=int), primitive_matrix="P")
    parameters = {
        "born": dipoles.charges,
        "dielectric": dipoles.dielectric,
        "factor": dipoles.coulomb,
        "Lambda": screening / (2 * np.pi),
        "G_cutoff": 2.0,  # 1/Å, so that nothing is left out at this screening
    }
    zero = np.zeros((len(atoms), len(atoms), 3, 3))
    return DynamicalMatrixGL(phonon.supercell, phonon.primitive, zero, nac_params=parameters)


@pytest.mark.parametrize("name", CRYSTALS)
def test_long_range_part_is_phonopys(name: str) -> None:
    dipoles = CRYSTALS[name]()
    matrix = phonopys(dipoles, 1.0)
    matrix.make_Gonze_nac_dataset()
    for q, values in zip(QPOINTS, long_range(dipoles, QPOINTS, 1.0), strict=True):
        expected = matrix._get_Gonze_dipole_dipole(q, None).reshape(values.shape)
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-10)
        assert np.abs(expected).max() > 0.1
    gamma = np.zeros(3)
    for direction in ([1.0, 0, 0], [0.3, -1.0, 0.7]):
        toward = np.array(direction)
        expected = matrix._get_Gonze_dipole_dipole(gamma, toward)
        values = long_range(dipoles, gamma[None], 1.0, toward)
        np.testing.assert_allclose(values.reshape(expected.shape), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CRYSTALS)
def test_the_sum_does_not_depend_on_the_screening(name: str) -> None:
    dipoles = CRYSTALS[name]()
    expected = dipole_dipole(dipoles, QPOINTS)
    for factor in (0.7, 1.5):
        screening = factor * balanced_screening(dipoles)
        parts = long_range(dipoles, QPOINTS, screening), short_range(dipoles, QPOINTS, screening)
        np.testing.assert_allclose(parts[0] + parts[1], expected, rtol=0, atol=1e-11)
        assert np.abs(parts[1]).max() > 1e-3
    columns = 3 * len(dipoles.positions)
    matrices = expected.reshape(-1, columns, columns)
    np.testing.assert_allclose(matrices, matrices.conj().transpose(0, 2, 1), rtol=0, atol=1e-12)


def test_laplace() -> None:
    """Scalar charges in a vacuum: ∇²(1/r) = 0, the trace of every block vanishes off Γ."""
    plain = triclinic()
    sizes = np.array([1.3, -0.4, -0.9])
    dipoles = plain._replace(charges=sizes[:, None, None] * np.eye(3), dielectric=np.eye(3))
    traces = np.einsum("qiaja->qij", dipole_dipole(dipoles, QPOINTS))
    np.testing.assert_allclose(traces, 0, atol=1e-11)
    assert np.abs(dipole_dipole(dipoles, QPOINTS)).max() > 0.1


def test_lyddane_sachs_teller() -> None:
    """μ(ω_LO² - ω_TO²) = 4πe²Z²/(Vε) for two atoms of reduced mass μ, in any cubic direction."""
    dipoles = rock_salt()
    relative = np.array([1.0, -1.0]) / np.sqrt(2)
    for direction in ([1.0, 0, 0], [1.0, 1, 0], [0.2, 0.5, -0.1]):
        values = dipole_dipole(dipoles, np.zeros((1, 3)), np.array(direction))[0]
        block = np.einsum("i,iajb,j->ab", relative, values, relative).real
        levels = np.linalg.eigvalsh(block)
        split = 2 * 4 * np.pi * dipoles.coulomb * 1.1**2 / (2 * 2.8**3 * 2.4)
        np.testing.assert_allclose(levels - levels[0], [0, 0, split], rtol=0, atol=1e-11)


def test_unscreened_images_are_second_derivatives_of_coulombs_law() -> None:
    dipoles = triclinic()
    vectors = np.random.default_rng(3).normal(size=(4, 3)) + 2
    inverse = np.linalg.inv(dipoles.dielectric)
    determinant = np.linalg.det(dipoles.dielectric)

    def potential(points: np.ndarray) -> np.ndarray:
        return 1 / np.sqrt(np.einsum("ra,ab,rb->r", points, inverse, points) * determinant)

    step, expected = 1e-3, np.empty((4, 3, 3))
    for a, b in np.ndindex(3, 3):
        first, second = step * np.eye(3)[a], step * np.eye(3)[b]
        signs = [(s, t) for s in (1, -1) for t in (1, -1)]
        corners = [s * t * potential(vectors + s * first + t * second) for s, t in signs]
        expected[:, a, b] = -sum(corners) / (4 * step**2)
    found = image_force_constants(dipoles, vectors, 1e-8)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)  # step², 1e-6 of the values
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("name", CRYSTALS)
def test_gradient_is_the_slope(name: str) -> None:
    """Fourth-order differences of steps 1e-3/Å: error 3e-14/Å⁴ of fifth derivatives, 1e5."""
    dipoles = CRYSTALS[name]()
    found = dipole_dipole_gradient(dipoles, QPOINTS)
    for axis in range(3):
        step = 1e-3 * np.eye(3)[axis] @ np.linalg.inv(dipoles.reciprocal)
        near = dipole_dipole(dipoles, QPOINTS + step) - dipole_dipole(dipoles, QPOINTS - step)
        far = dipole_dipole(dipoles, QPOINTS + 2 * step)
        far -= dipole_dipole(dipoles, QPOINTS - 2 * step)
        expected = (8 * near - far) / (12 * 1e-3)
        np.testing.assert_allclose(found[:, axis], expected, rtol=0, atol=1e-7)
        assert np.abs(expected).max() > 1


def test_gradient_is_phonopys() -> None:
    """phonopy's derivative is by q without 2π."""
    dipoles = triclinic()
    matrix = phonopys(dipoles, 1.0)
    derivative = DerivativeOfDynamicalMatrix(matrix)
    if not hasattr(derivative, "_gonze_lee_d_recip_dipole_dipole_rust"):
        pytest.skip("this phonopy differentiates the dipoles by finite differences")
    matrix.make_Gonze_nac_dataset()
    for q, values in zip(QPOINTS, long_range_gradient(dipoles, QPOINTS, 1.0), strict=True):
        expected = derivative._gonze_lee_d_recip_dipole_dipole_rust(q, None) / (2 * np.pi)
        np.testing.assert_allclose(values.reshape(expected.shape), expected, rtol=0, atol=1e-10)

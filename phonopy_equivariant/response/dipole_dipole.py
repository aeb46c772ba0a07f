"""Force constants of dipoles in a dielectric, Φ(q) by Ewald's sum, with their derivative by q.

A displaced atom carries the dipole Z_i·u_i (Born charges). With V the volume of the primitive cell,
K = q + G and e² in eV·Å, the interaction of two sublattices of dipoles in a medium ε is the sum of

    long range:   4πe²/V sum_K (Z_i^T K)(K^T Z_j)/(K·ε·K) exp(-K·ε·K/4κ²) e^{iG·(x_i - x_j)}
    short range:  e² sum_R Z_i^T [-∇∇ erfc(κ D)/(D √det ε)] Z_j e^{iq·d},   D = √(d·ε⁻¹·d)

over reciprocal vectors G and over images at d = x_j + R - x_i. Their sum does not depend on the
screening κ: κ only says how far the second one reaches. Each part obeys the acoustic sum rule by
itself: sum_j Φ_ij(q = 0) is taken off Φ_ii.

Only the term K = 0 of the long-range part depends on the direction of approach. It is left out at
q = 0, as in a periodic cell without macroscopic field, unless a direction is given.

X. Gonze and C. Lee, Phys. Rev. B 55, 10355 (1997), doi:10.1103/PhysRevB.55.10355, eqs. 60 to 75.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray
from phonopy.physical_units import get_physical_units
from scipy.special import erfc

# Terms below this share of the leading one are left out of either sum.
NEGLIGIBLE = 1e-17
COULOMB = get_physical_units().Hartree * get_physical_units().Bohr  # e², eV·Å
AT_GAMMA = 1e-5  # 1/Å without 2π: phonopy takes a shorter q for Γ
_BLOCK = 2**21  # complex numbers of a block of q


class Dipoles(NamedTuple):
    """Atoms of a primitive cell with Born charges, in a dielectric."""

    cell: Float[ndarray, "3 3"]  # Å, vectors as rows
    positions: Float[ndarray, "atoms 3"]  # Å
    charges: Float[ndarray, "atoms 3 3"]  # e; first index: dipole, second: displacement
    dielectric: Float[ndarray, "3 3"]
    coulomb: float = COULOMB  # e², eV·Å

    @property
    def reciprocal(self) -> Float[ndarray, "3 3"]:
        """Reciprocal vectors as rows, 1/Å with 2π."""
        return 2 * np.pi * np.linalg.inv(self.cell).T

    @property
    def strength(self) -> float:
        """Return 4πe²/V, eV/Å²."""
        return float(4 * np.pi * self.coulomb / abs(np.linalg.det(self.cell)))


def balanced_screening(dipoles: Dipoles) -> float:
    """Return a κ (1/Å) at which both sums take about equally many terms."""
    mean = np.trace(dipoles.dielectric) / 3
    return float(np.sqrt(np.pi * mean) / abs(np.linalg.det(dipoles.cell)) ** (1 / 3))


def dipole_dipole(
    dipoles: Dipoles,
    qpoints: Float[ndarray, "q 3"],
    direction: Float[ndarray, "3"] | None = None,
) -> Complex[ndarray, "q atoms 3 atoms 3"]:
    """Return the force constants of interacting dipoles, both parts together, eV/Å².

    Parameters
    ----------
    dipoles, qpoints
        The crystal; q in units of its reciprocal vectors.
    direction
        From where q = 0 is approached, in the same units.

    Returns
    -------
    ndarray, shape=(n_q, n, 3, n, 3), complex
        In phonopy's gauge, e^{iq·(x_j - x_i)}, without masses.

    """
    screening = balanced_screening(dipoles)
    return long_range(dipoles, qpoints, screening, direction) + short_range(
        dipoles, qpoints, screening
    )


def dipole_dipole_gradient(
    dipoles: Dipoles, qpoints: Float[ndarray, "q 3"]
) -> Complex[ndarray, "q 3 atoms 3 atoms 3"]:
    """Return the derivative of :func:`dipole_dipole` by q (Cartesian, 1/Å with 2π), eV/Å.

    At q = 0 the derivative of the part that depends on the direction does not exist and is left
    out.
    """
    screening = balanced_screening(dipoles)
    return long_range_gradient(dipoles, qpoints, screening) + short_range_gradient(
        dipoles, qpoints, screening
    )


def long_range(
    dipoles: Dipoles,
    qpoints: Float[ndarray, "q 3"],
    screening: float,
    direction: Float[ndarray, "3"] | None = None,
) -> Complex[ndarray, "q atoms 3 atoms 3"]:
    """Return the part that is a sum over reciprocal vectors; κ = ``screening`` in 1/Å.

    The other parameters and the result are those of :func:`dipole_dipole`.
    """
    sums = _reciprocal_sum(dipoles, qpoints, screening, direction)
    return _obey_sum_rule(sums, _reciprocal_sum(dipoles, np.zeros((1, 3)), screening)[0])


def short_range(
    dipoles: Dipoles, qpoints: Float[ndarray, "q 3"], screening: float
) -> Complex[ndarray, "q atoms 3 atoms 3"]:
    """Return the part that is a sum over images; κ = ``screening`` in 1/Å.

    The other parameters and the result are those of :func:`dipole_dipole`.
    """
    sums = _real_sum(dipoles, qpoints, screening)[:, 0]
    return _obey_sum_rule(sums, _real_sum(dipoles, np.zeros((1, 3)), screening)[0, 0])


def long_range_gradient(
    dipoles: Dipoles, qpoints: Float[ndarray, "q 3"], screening: float
) -> Complex[ndarray, "q 3 atoms 3 atoms 3"]:
    """Return the derivative of :func:`long_range` by q (Cartesian, 1/Å with 2π), eV/Å."""
    atoms = len(dipoles.positions)
    gradients = np.empty((len(qpoints), 3, 3 * atoms, 3 * atoms), complex)
    reciprocal = _reciprocal_vectors(dipoles, qpoints, screening)
    for index, q in enumerate(qpoints):
        wave, root = _waves(dipoles, q, reciprocal, screening)
        square = np.einsum("ka,ab,kb->k", wave, dipoles.dielectric, wave)
        at_zero = root == 0
        square[at_zero] = 1.0
        # ∂√f of f = exp(-s/4κ²)/s, s = K·ε·K
        slope = -(root * (0.25 / screening**2 + 1 / square))[:, None] * (wave @ dipoles.dielectric)
        phases = np.exp(1j * reciprocal @ dipoles.positions.T)
        along = np.einsum("ka,iab->kib", wave, dipoles.charges)
        amplitude = (phases[:, :, None] * along * root[:, None, None]).reshape(len(wave), -1)
        for axis in range(3):
            change = root[:, None, None] * dipoles.charges[:, axis] + slope[:, axis, None, None] * (
                along
            )
            derivative = (phases[:, :, None] * change).reshape(len(wave), -1)
            half = derivative.T @ amplitude.conj()
            gradients[index, axis] = dipoles.strength * (half + half.conj().T)
    return gradients.reshape(len(qpoints), 3, atoms, 3, atoms, 3)


def short_range_gradient(
    dipoles: Dipoles, qpoints: Float[ndarray, "q 3"], screening: float
) -> Complex[ndarray, "q 3 atoms 3 atoms 3"]:
    """Return the derivative of :func:`short_range` by q (Cartesian, 1/Å with 2π), eV/Å."""
    return _real_sum(dipoles, qpoints, screening, gradient=True)[:, 1:]


def image_force_constants(
    dipoles: Dipoles, vectors: Float[ndarray, "images 3"], screening: float
) -> Float[ndarray, "images 3 3"]:
    """Return -∇∇ erfc(κD)/(D√det ε) at some vectors (Å, none zero), 1/Å³: without charges."""
    inverse = np.linalg.inv(dipoles.dielectric)
    weighted = vectors @ inverse
    distance = np.sqrt(np.einsum("ra,ra->r", weighted, vectors))
    x = screening * distance
    gauss = 2 / np.sqrt(np.pi) * x * np.exp(-(x**2))
    first = (erfc(x) + gauss) / distance**3
    second = (3 * (erfc(x) + gauss) + 2 * x**2 * gauss) / distance**5
    tensors = first[:, None, None] * inverse
    tensors = tensors - second[:, None, None] * weighted[:, :, None] * weighted[:, None, :]
    return tensors / np.sqrt(np.linalg.det(dipoles.dielectric))


def _obey_sum_rule(sums: ndarray, at_gamma: ndarray) -> ndarray:
    """Take sum_j Φ_ij(0), made Hermitian, off Φ_ii."""
    drift = at_gamma.sum(axis=2)
    drift = (drift + drift.conj().transpose(0, 2, 1)) / 2
    for atom in range(len(drift)):
        sums[:, atom, :, atom] -= drift[atom]
    return sums


def _reciprocal_vectors(
    dipoles: Dipoles, qpoints: Float[ndarray, "q 3"], screening: float
) -> Float[ndarray, "G 3"]:
    """Return all G with a term that counts at any of the q."""
    longest = 2 * screening * np.sqrt(-np.log(NEGLIGIBLE))
    longest /= np.sqrt(np.linalg.eigvalsh(dipoles.dielectric)[0])
    longest += np.linalg.norm(qpoints @ dipoles.reciprocal, axis=1).max(initial=0.0)
    return lattice_vectors(dipoles.reciprocal, longest)


def lattice_vectors(cell: Float[ndarray, "3 3"], longest: float) -> Float[ndarray, "vectors 3"]:
    """Return the vectors of a lattice up to a length."""
    counts = np.floor(longest * np.linalg.norm(np.linalg.inv(cell), axis=0) + 1e-9).astype(int)
    ranges = [np.arange(-count, count + 1) for count in counts]
    vectors = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3) @ cell
    return vectors[np.linalg.norm(vectors, axis=1) <= longest + 1e-9]


def _waves(
    dipoles: Dipoles,
    q: Float[ndarray, "3"],
    reciprocal: Float[ndarray, "G 3"],
    screening: float,
    direction: Float[ndarray, "3"] | None = None,
) -> tuple[Float[ndarray, "G 3"], Float[ndarray, " G"]]:
    """Return K = q + G and √f(K), f = exp(-K·ε·K/4κ²)/(K·ε·K)."""
    wave = q @ dipoles.reciprocal + reciprocal
    at_zero = np.linalg.norm(wave, axis=1) < 2 * np.pi * AT_GAMMA
    square = np.einsum("ka,ab,kb->k", wave, dipoles.dielectric, wave)
    square[at_zero] = 1.0
    root = np.exp(-square / (8 * screening**2)) / np.sqrt(square)
    root[at_zero] = 0.0
    if direction is not None and at_zero.any():
        along = direction @ dipoles.reciprocal
        along = along / np.sqrt(along @ dipoles.dielectric @ along)
        wave[at_zero], root[at_zero] = along, 1.0
    return wave, root


def _reciprocal_sum(
    dipoles: Dipoles,
    qpoints: Float[ndarray, "q 3"],
    screening: float,
    direction: Float[ndarray, "3"] | None = None,
) -> Complex[ndarray, "q atoms 3 atoms 3"]:
    atoms = len(dipoles.positions)
    sums = np.empty((len(qpoints), 3 * atoms, 3 * atoms), complex)
    reciprocal = _reciprocal_vectors(dipoles, qpoints, screening)
    phases = np.exp(1j * reciprocal @ dipoles.positions.T)
    for index, q in enumerate(qpoints):
        wave, root = _waves(dipoles, q, reciprocal, screening, direction)
        along = np.einsum("ka,iab->kib", wave * root[:, None], dipoles.charges)
        amplitude = (phases[:, :, None] * along).reshape(len(wave), -1)
        sums[index] = dipoles.strength * amplitude.T @ amplitude.conj()
    return sums.reshape(len(qpoints), atoms, 3, atoms, 3)


def _real_sum(
    dipoles: Dipoles,
    qpoints: Float[ndarray, "q 3"],
    screening: float,
    gradient: bool = False,
) -> Complex[ndarray, "q orders atoms 3 atoms 3"]:
    """Return the sum over images, followed by its three derivatives if they are asked for."""
    atoms, orders = len(dipoles.positions), 4 if gradient else 1
    sums = np.zeros((len(qpoints), orders, atoms, 3, atoms, 3), complex)
    reach = np.sqrt(-np.log(NEGLIGIBLE) * np.linalg.eigvalsh(dipoles.dielectric)[-1]) / screening
    offsets = dipoles.positions[None, :] - dipoles.positions[:, None]
    lattice = lattice_vectors(dipoles.cell, reach + np.linalg.norm(offsets, axis=2).max())
    waves = qpoints @ dipoles.reciprocal
    for i in range(atoms):
        for j in range(atoms):
            vectors = lattice + offsets[i, j]
            length = np.linalg.norm(vectors, axis=1)
            vectors = vectors[(length > 1e-6) & (length <= reach)]
            tensors = image_force_constants(dipoles, vectors, screening)
            tensors = dipoles.charges[i].T @ tensors @ dipoles.charges[j] * dipoles.coulomb
            phases = np.exp(1j * waves @ vectors.T)
            flat = tensors.reshape(-1, 9)
            sums[:, 0, i, :, j] = (phases @ flat).reshape(-1, 3, 3)
            for axis in range(orders - 1):
                slope = (phases * 1j * vectors[:, axis]) @ flat
                sums[:, 1 + axis, i, :, j] = slope.reshape(-1, 3, 3)
    return sums

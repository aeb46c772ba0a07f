"""Normal modes of a molecule from its Hessian; translations and rotations removed by projection."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import units
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.frequencies import signed_root

# √(eV/Å²/amu) as a wavenumber, cm⁻¹
_PLANCK = units._hplanck / units._e  # eV s
_PER_SECOND = np.sqrt(units._e * 1e20 / units._amu) / (2 * np.pi)
WAVENUMBER = float(_PER_SECOND / (100 * units._c))
# energy of a quantum of 1 cm⁻¹, eV
QUANTUM = float(_PLANCK * 100 * units._c)

# A molecule is linear where the smallest moment of inertia is below this part of the largest: atoms
# are off the axis by less than a hundredth of the length.
_LINEAR = 1e-4


class NormalModes(NamedTuple):
    """Vibrations of a molecule, translations and rotations removed, sorted by frequency.

    With D = M^(-1/2) H M^(-1/2), P the projector on the complement of translations and rotations,
    and P D P v = ω² v: ``vectors`` holds the orthonormal v.
    """

    frequencies: Float[ndarray, " modes"]  # cm⁻¹, an imaginary one is negative
    vectors: Float[ndarray, "modes atoms 3"]
    masses: Float[ndarray, " atoms"]  # amu
    external: Float[ndarray, " external"]  # cm⁻¹, raw translations and rotations, before projection

    @property
    def displacements(self) -> Float[ndarray, "modes atoms 3"]:
        """Cartesian displacement per unit of the normal coordinate Q, 1/√amu."""
        return self.vectors / np.sqrt(self.masses)[:, None]

    @property
    def reduced_masses(self) -> Float[ndarray, " modes"]:
        """1 / Σ_i x_i·x_i of the displacements x = v/√m, amu."""
        return 1 / np.einsum("kia,kia->k", self.displacements, self.displacements)

    @property
    def zero_point_energy(self) -> float:
        """Half the sum of the quanta of real frequencies, eV."""
        return float(0.5 * QUANTUM * self.frequencies[self.frequencies > 0].sum())


def normal_modes(
    positions: Float[ndarray, "atoms 3"],
    masses: Float[ndarray, " atoms"],
    hessian: Float[ndarray, "..."],
) -> NormalModes:
    """Return the vibrations of a molecule.

    Translations and infinitesimal rotations about the centre of mass span six dimensions of
    mass-weighted displacements (five for a linear molecule, three for an atom). The mass-weighted
    Hessian is diagonalised in the complement (E. B. Wilson, J. C. Decius, P. C. Cross, Molecular
    Vibrations, 1955, chapter 2), so that residual forces and noise of the Hessian mix into no
    vibration.

    Parameters
    ----------
    positions, masses
        Å, amu.
    hessian
        eV/Å², shape=(atoms, 3, atoms, 3).

    Raises
    ------
    PhonopyEquivariantError
        A Hessian of another shape, with numbers that are not finite, or far from symmetric.

    """
    dynamical = _dynamical_matrix(hessian, masses)
    external = external_motions(positions, masses)
    # the complement is spanned by the remaining left singular vectors
    complement = np.linalg.svd(external)[0][:, external.shape[1] :]
    values, vectors = np.linalg.eigh(complement.T @ dynamical @ complement)
    return NormalModes(
        _wavenumbers(values),
        (complement @ vectors).T.reshape(-1, len(masses), 3),
        np.asarray(masses, float),
        _raw_external(dynamical, external),
    )


def external_motions(
    positions: Float[ndarray, "atoms 3"], masses: Float[ndarray, " atoms"]
) -> Float[ndarray, "coordinates external"]:
    """Return orthonormal mass-weighted translations and rotations about the centre of mass.

    Six columns, five for a linear molecule, three for an atom.
    """
    roots = np.sqrt(masses)
    centred = positions - center_of_mass(positions, masses)
    translations = np.kron(roots[:, None], np.eye(3))
    if len(masses) == 1:
        return translations
    rotations = np.stack([np.cross(axis, centred) for axis in np.eye(3)], axis=-1)
    rotations = (roots[:, None, None] * rotations).reshape(3 * len(masses), 3)
    _, moments, axes = np.linalg.svd(rotations, full_matrices=False)
    num_rotations = 2 if is_linear(positions, masses) else 3
    basis = np.hstack(
        [translations, (rotations @ axes.T)[:, :num_rotations] / moments[:num_rotations]]
    )
    return np.asarray(np.linalg.qr(basis)[0])


def is_linear(positions: Float[ndarray, "atoms 3"], masses: Float[ndarray, " atoms"]) -> bool:
    """Tell whether all atoms lie on a line; one atom does not make a linear molecule."""
    if len(masses) < 3:
        return len(masses) == 2
    centred = positions - center_of_mass(positions, masses)
    # singular values of the coordinates are lengths: along the line, and off it
    spread = np.linalg.svd(centred, compute_uv=False)
    return bool(spread[1] ** 2 < _LINEAR * spread[0] ** 2)


def center_of_mass(
    positions: Float[ndarray, "atoms 3"], masses: Float[ndarray, " atoms"]
) -> Float[ndarray, "3"]:
    """Return the centre of mass, Å."""
    return np.asarray(masses @ positions / masses.sum())


def _dynamical_matrix(hessian: ndarray, masses: ndarray) -> ndarray:
    count = len(masses)
    if hessian.shape != (count, 3, count, 3):
        raise PhonopyEquivariantError(
            f"The Hessian has shape {hessian.shape}; {count} atoms need {(count, 3, count, 3)}."
        )
    flat = np.asarray(hessian, float).reshape(3 * count, 3 * count)
    if not np.isfinite(flat).all():
        raise PhonopyEquivariantError(
            "The Hessian has entries that are not finite numbers; check the structure or the file."
        )
    scale, skew = np.abs(flat).max(), np.abs(flat - flat.T).max()
    if skew > 0.05 * scale:
        raise PhonopyEquivariantError(
            f"The Hessian is not symmetric: |H - H^T| reaches {skew:.2g} eV/Å², the largest "
            f"element is {scale:.2g} eV/Å²; its indices are (atom, axis, atom, axis)."
        )
    roots = np.repeat(np.sqrt(masses), 3)
    return np.asarray((flat + flat.T) / 2 / np.outer(roots, roots))


def _raw_external(dynamical: ndarray, external: ndarray) -> ndarray:
    """Return the raw frequencies of the modes that are most like translations and rotations."""
    values, vectors = np.linalg.eigh(dynamical)
    overlap = np.linalg.norm(external.T @ vectors, axis=0)
    external_modes = np.sort(np.argsort(-overlap)[: external.shape[1]])
    return _wavenumbers(values[external_modes])


def _wavenumbers(eigenvalues: ndarray) -> ndarray:
    """Return cm⁻¹ from eV/Å²/amu; negative for imaginary."""
    return signed_root(eigenvalues) * WAVENUMBER

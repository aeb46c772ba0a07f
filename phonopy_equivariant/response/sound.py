"""What an elastic tensor says of sound: stability, velocities, the Debye temperature.

A plane wave of direction n has the velocities v with ρ v² = eigenvalues of c_ijkl n_j n_l
(Christoffel). The mean velocity v_m is that of Debye's theory, 3/v_m³ = ∫ dΩ/4π Σ_s 1/v_s³, and
Θ = (ħ/k_B) (6π² N/V)^(1/3) v_m (Anderson, J. Phys. Chem. Solids 24, 909 (1963),
doi:10.1016/0022-3697(63)90067-2). A crystal is stable against strain if its tensor is positive
definite (Born; Mouhat and Coudert, Phys. Rev. B 90, 224104 (2014), arXiv:1410.0065).
"""

from __future__ import annotations

import numpy as np
from ase import units
from jaxtyping import Float
from numpy import ndarray
from numpy.polynomial.legendre import leggauss

# Points of the mean over directions, in cos θ; twice as many in φ.
_POINTS = 24
_INDEX = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])  # Voigt's index of ij


def christoffel_matrices(
    voigt: Float[ndarray, "6 6"], unit: Float[ndarray, "n 3"]
) -> Float[ndarray, "n 3 3"]:
    """Return c_ijkl n_j n_l for unit vectors n, in the unit of the elastic constants."""
    return np.einsum("ijkl,nj,nl->nik", voigt[_INDEX][:, :, _INDEX], unit, unit)


def sound_velocities(
    voigt: Float[ndarray, "6 6"], density: float, directions: Float[ndarray, "n 3"]
) -> Float[ndarray, "n 3"]:
    """Return the three velocities (km/s, ascending) of waves along some directions.

    Parameters
    ----------
    voigt
        Relaxed elastic tensor, GPa.
    density
        g/cm³.
    directions
        Cartesian vectors of any length.

    Returns
    -------
    ndarray, shape=(n, 3)
        nan where the crystal is unstable against such a wave.

    """
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    # GPa/(g/cm³) is (km/s)²
    squares = np.linalg.eigvalsh(christoffel_matrices(voigt, unit)) / density
    return np.sqrt(np.where(squares >= 0, squares, np.nan))


def mean_sound_velocity(voigt: Float[ndarray, "6 6"], density: float) -> float:
    """Return Debye's mean velocity (km/s), over all directions; nan for an unstable crystal."""
    cosines, weights = leggauss(_POINTS)
    angles = np.pi * (np.arange(2 * _POINTS) + 0.5) / _POINTS
    sines = np.sqrt(1 - cosines**2)[:, None]
    directions = np.stack(
        np.broadcast_arrays(sines * np.cos(angles), sines * np.sin(angles), cosines[:, None]),
        axis=-1,
    )
    velocities = sound_velocities(voigt, density, directions.reshape(-1, 3))
    inverse = (velocities.reshape(len(cosines), -1, 3) ** -3.0).mean(axis=(1, 2))
    return float((weights @ inverse / 2) ** (-1 / 3))


def debye_temperature(velocity: float, number_density: float) -> float:
    """Return Debye's temperature (K) of a mean velocity (km/s) and atoms per Å³."""
    wave_number = (6 * np.pi**2 * number_density) ** (1 / 3)  # 1/Å
    # ħ in eV·s, km/s in 1e13 Å/s
    hbar = units._hbar / units._e
    return float(hbar * wave_number * velocity * 1e13 / units.kB)


def is_born_stable(voigt: Float[ndarray, "6 6"]) -> bool:
    """Tell whether every strain costs energy."""
    return bool(np.linalg.eigvalsh((voigt + voigt.T) / 2).min() > 0)

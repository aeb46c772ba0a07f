"""Infrared intensities and Raman activities in the double-harmonic approximation.

Equations and units: J. Neugebauer, M. Reiher, C. Kind, B. A. Hess, J. Comput. Chem. 23, 895 (2002),
doi:10.1002/jcc.10089; D. Porezag, M. R. Pederson, Phys. Rev. B 54, 7830 (1996).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import units
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.response.dipoles import dipole_gradients

# A [km/mol] = N_A / (12 ε0 c²) |∂μ/∂Q|², for ∂μ/∂Q in e/√amu: 974.88
KM_PER_MOL = float(units._Nav * units._e**2 / units._amu / (12 * units._eps0 * units._c**2) / 1000)

# Part of the largest intensity below which only rounding and noise are left.
_NO_RATIO = 1e-6


class RamanActivities(NamedTuple):
    """Raman scattering of modes, averaged over orientations."""

    activities: Float[ndarray, " modes"]  # 45 a'² + 7 γ'², Å⁴/amu
    depolarization: Float[ndarray, " modes"]  # 3 γ'² / (45 a'² + 4 γ'²), polarized light; 0 to 3/4


def infrared_intensities(
    displacements: Float[ndarray, "modes atoms 3"],
    dipole_derivatives: Float[ndarray, "atoms 3 3"],
) -> Float[ndarray, " modes"]:
    """Return integrated infrared intensities A_k = N_A/(12 ε0 c²) |∂μ/∂Q_k|², km/mol.

    Parameters as in :func:`dipole_gradients`. Degenerate modes have an intensity each; what a
    spectrum shows is their sum.
    """
    gradients = dipole_gradients(displacements, dipole_derivatives)
    return np.asarray(KM_PER_MOL * (gradients**2).sum(axis=1))


def raman_activities(
    displacements: Float[ndarray, "modes atoms 3"],
    polarizability_derivatives: Float[ndarray, "atoms 3 3 3"],
) -> RamanActivities:
    """Return Raman activities S_k = 45 a'² + 7 γ'² and depolarization ratios.

    With α' = ∂α/∂Q_k: a' = tr α' / 3 and
    γ'² = ½[(α'xx - α'yy)² + (α'yy - α'zz)² + (α'zz - α'xx)² + 6(α'xy² + α'yz² + α'zx²)].

    Parameters
    ----------
    displacements
        As in :func:`dipole_gradients`.
    polarizability_derivatives
        ∂α_ab/∂x_ic, Å² (α as a volume, Å³), indices atom, a, b, c.

    """
    alpha = np.einsum("iabc,kic->kab", polarizability_derivatives, displacements)
    alpha = (alpha + alpha.transpose(0, 2, 1)) / 2
    mean = np.trace(alpha, axis1=1, axis2=2) / 3
    traceless = alpha - mean[:, None, None] * np.eye(3)
    # the bracket above is 3/2 of the squared norm of the traceless part
    anisotropy = 1.5 * (traceless**2).sum(axis=(1, 2))
    scattered = 45 * mean**2 + 4 * anisotropy
    # a mode without intensity has no ratio
    has_intensity = scattered > _NO_RATIO * scattered.max(initial=0.0)
    ratio = np.divide(3 * anisotropy, scattered, out=np.zeros_like(mean), where=has_intensity)
    return RamanActivities(45 * mean**2 + 7 * anisotropy, ratio)

"""Dipole moments of modes from Born charges."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def dipole_gradients(
    displacements: Float[ndarray, "modes atoms 3"],
    dipole_derivatives: Float[ndarray, "atoms 3 3"],
) -> Float[ndarray, "modes 3"]:
    """Return ∂μ/∂Q_k = Σ_i Z_i x_ki, e/√amu.

    Parameters
    ----------
    displacements
        Cartesian displacement per unit of the normal coordinate, 1/√amu.
    dipole_derivatives
        Z_i,ab = ∂μ_a/∂x_ib, e: atomic polar tensors, which are Born effective charges; the first
        Cartesian index is that of the dipole (of the field), as in phonopy's BORN file.

    """
    return np.einsum("iab,kib->ka", dipole_derivatives, displacements)

"""What rounding leaves of force constants.

Eigenvalues of Φ(q) and D(q) are sums in which the stiffness of all bonds of an atom cancels. The
rounding of such a sum is relative to the largest eigenvalue of the crystal, not to the result:
ω² of an acoustic mode, which falls with |q|², ends in it near Γ. Compared in double and single
precision at q from 1e-8 to 0.1, on random and published models, eigenvalues of acoustic modes were
off by up to 8 units in the last place of the largest one, optical modes in single precision by up
to 12.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Complex
from numpy import ndarray

# Error of an eigenvalue over the largest eigenvalue of the crystal, above all that were measured.
ROUNDING = {name: 16 * float(np.finfo(name).eps) for name in ("float64", "float32")}

# Atoms that interact with images of themselves have a restoring force at one of these q at least:
# a vector to an image is odd along some axis, or its half leads to a nearer image. At Γ alone a
# crystal with one atom in the cell would have no largest eigenvalue but rounding.
ZONE_BOUNDARY = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.5]])


def rounding_of(dtype: str, matrices: Complex[ndarray, "4 columns columns"]) -> float:
    """Return the error that rounding may leave in eigenvalues of a crystal's Φ(q) or D(q).

    Parameters
    ----------
    dtype
        Of the potential.
    matrices
        Those at :data:`ZONE_BOUNDARY`, which give the largest eigenvalue.

    """
    return ROUNDING[dtype] * float(np.abs(np.linalg.eigvalsh(matrices)).max())

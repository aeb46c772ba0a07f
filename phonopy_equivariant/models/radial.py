"""Radial functions of an edge: Bessel basis times a smooth envelope."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def bessel_basis(
    distance: Float[Array, " edges"], num_basis: int, cutoff: float
) -> Float[Array, "edges basis"]:
    r"""Return :math:`\frac{2}{c} \sin(k \pi r / c) / r` for k = 1..num_basis.

    The basis of arXiv:2003.03123, eq. 7, with the prefactor of Nequix, 2/c, where the paper has
    its square root. ``distance`` must not be zero.
    """
    order = jnp.arange(1, num_basis + 1, dtype=distance.dtype)
    argument = jnp.pi * order * (distance[:, None] / cutoff)
    return 2 / cutoff * jnp.sin(argument) / distance[:, None]


def polynomial_envelope(
    distance: Float[Array, " edges"], cutoff: float, exponent: float
) -> Float[Array, " edges"]:
    r"""Return the envelope of arXiv:2003.03123, eq. 8: 1 at zero, C² at the cutoff, 0 beyond.

    .. math:: 1 - \frac{(p+1)(p+2)}{2} x^p + p(p+2) x^{p+1} - \frac{p(p+1)}{2} x^{p+2},
              \quad x = r / c
    """
    p = float(exponent)
    power = int(p) if p.is_integer() else p
    x = jnp.minimum(distance / cutoff, 1.0)
    bracket = (p + 1) * (p + 2) / 2 - p * (p + 2) * x + p * (p + 1) / 2 * x**2
    return jnp.where(distance < cutoff, 1 - x**power * bracket, 0.0)

"""Derivatives along a vector of functions of its length times harmonics, to third order.

Harmonics times r^l are harmonic polynomials P_l, and the gradient of one is a sum of those of
degree l - 1:

    ∂_z P_lm = sqrt(l (2l + 1)) sum_n C[z, n, m] P_{l-1,n}

with C the orthonormal coefficients that couple a vector and degree l - 1 to degree l. The factor
follows from Euler's theorem, r·∂P_l = l P_l, and from the norm: the squares of a degree sum to
2l + 1 on the unit sphere, those of the coupled product of r and P_{l-1} to l. No automatic
differentiation of harmonics is compiled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from phonopy_equivariant.models.irreps import harmonics
from phonopy_equivariant.models.representations import coupling_with_vector

# The six different pairs of axes, and the position of every pair among them.
PAIRS_OF_AXES = np.array([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)])
POSITION_OF_PAIR = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])


def on_pairs_of_axes(rotations: Float[ndarray, "... 3 3"]) -> Float[ndarray, "... 6 6"]:
    """Return R ⊗ R as it acts on the six different elements of symmetric matrices."""
    upper, lower = PAIRS_OF_AXES.T
    result = np.zeros((*rotations.shape[:-2], 6, 6))
    for (z, w), place in np.ndenumerate(POSITION_OF_PAIR):
        result[..., place] += rotations[..., upper, z] * rotations[..., lower, w]
    return result


class HarmonicDerivatives(NamedTuple):
    """Harmonics of the direction of every vector, and their derivatives along the vector."""

    value: Float[Array, "edges m"]
    first: Float[Array, "edges 3 m"]
    second: Float[Array, "edges 3 3 m"]
    third: Float[Array, "edges 3 3 3 m"]


@functools.cache
def gradient_matrices(l_max: int) -> Float[ndarray, "3 m m"]:
    """Return D with ∂_z P_m = sum_n D[z, m, n] P_n for the harmonic polynomials up to l_max."""
    result = np.zeros((3, (l_max + 1) ** 2, (l_max + 1) ** 2))
    for degree in range(1, l_max + 1):
        upper = slice(degree**2, (degree + 1) ** 2)
        lower = slice((degree - 1) ** 2, degree**2)
        factor = (degree * (2 * degree + 1)) ** 0.5
        result[:, upper, lower] = factor * coupling_with_vector(degree).transpose(0, 2, 1)
    return result


def harmonic_derivatives(
    unit: Float[Array, "edges 3"], distance: Float[Array, " edges"], l_max: int
) -> HarmonicDerivatives:
    """Return the harmonics of unit vectors, and three derivatives along r = unit·distance."""
    matrices = gradient_matrices(l_max).astype(unit.dtype)
    value = harmonics(unit, l_max)
    first = jnp.einsum("zmn,en->ezm", matrices, value)
    second = jnp.einsum("zmn,ewn->ezwm", matrices, first)
    third = jnp.einsum("zmn,ewvn->ezwvm", matrices, second)
    # Y = r^-l P; derivatives of r^-l at r = 1
    degree = np.concatenate([np.full(2 * k + 1, float(k)) for k in range(l_max + 1)])
    radial = [(-degree).astype(unit.dtype), (degree * (degree + 1)).astype(unit.dtype)]
    radial.append((-degree * (degree + 1) * (degree + 2)).astype(unit.dtype))
    one = jnp.ones_like(distance)
    terms = ProductTerms(
        first_first=first * radial[0],
        first_second=second * radial[0],
        second_first=first * radial[1],
        value_derivatives=(value * radial[0], value * radial[1], value * radial[2]),
    )
    inverse = 1 / distance[:, None]
    gradient = first + unit[:, :, None] * terms.value_derivatives[0][:, None]
    curvature = second + second_of_product(unit, one, terms)
    return HarmonicDerivatives(
        value,
        gradient * inverse[..., None],
        curvature * inverse[..., None, None] ** 2,
        (third + third_of_product(unit, one, terms)) * inverse[..., None, None, None] ** 3,
    )


class ProductTerms(NamedTuple):
    """Products of derivatives of f(|r|) and of X(r): ``first_second`` is f'·∂∂X and so on.

    The axes of derivatives come after the edges; others after those.
    """

    first_first: Float[Array, "edges 3 ..."]
    first_second: Float[Array, "edges 3 3 ..."]
    second_first: Float[Array, "edges 3 ..."]
    value_derivatives: tuple[Array, Array, Array]  # f'·X, f''·X, f'''·X


def second_of_product(
    unit: Float[Array, "edges 3"], distance: Float[Array, " edges"], terms: ProductTerms
) -> Float[Array, "edges 3 3 ..."]:
    """Return the second derivative of f·X without f·∂∂X."""
    mixed = jnp.einsum("ez,ew...->ezw...", unit, terms.first_first)
    along, across = _projectors(unit, distance)
    slope, bend, _ = terms.value_derivatives
    central = jnp.einsum("ezw,e...->ezw...", along, bend)
    central = central + jnp.einsum("ezw,e...->ezw...", across, slope)
    return mixed + jnp.swapaxes(mixed, 1, 2) + central


def third_of_product(
    unit: Float[Array, "edges 3"], distance: Float[Array, " edges"], terms: ProductTerms
) -> Float[Array, "edges 3 3 3 ..."]:
    """Return the third derivative of f·X without f·∂∂∂X.

    ∂f = f' n, ∂∂f = f'' nn + f'/r (1 - nn),
    ∂∂∂f = f''' nnn + (f'' - f'/r)/r times the symmetric sum of n (1 - nn).
    """
    along, across = _projectors(unit, distance)
    curvature = jnp.einsum("ez,ewv...->ezwv...", unit, terms.first_second)
    bent = jnp.einsum("ezw,ev...->ezwv...", along, terms.second_first)
    bent = bent + jnp.einsum("ezw,ev...->ezwv...", across, terms.first_first)
    slope, bend, third = terms.value_derivatives
    radial = jnp.einsum("ez,ewv,e...->ezwv...", unit, along, third)
    turning = jnp.einsum("ez,ewv,e...->ezwv...", unit, across, bend)
    turning = turning - jnp.einsum("ez,ewv,e,e...->ezwv...", unit, across, 1 / distance, slope)
    # every sum over the three places of the index that stands alone
    last = jnp.moveaxis(bent, 3, 1)
    return radial + _three_places(curvature + turning + last)


def _projectors(
    unit: Float[Array, "edges 3"], distance: Float[Array, " edges"]
) -> tuple[Float[Array, "edges 3 3"], Float[Array, "edges 3 3"]]:
    """Return nn and (1 - nn)/r."""
    along = unit[:, :, None] * unit[:, None, :]
    return along, (jnp.eye(3, dtype=unit.dtype) - along) / distance[:, None, None]


def _three_places(values: Float[Array, "edges 3 3 3 ..."]) -> Array:
    """Return x_zwv + x_wzv + x_vzw of x symmetric in its last two axes."""
    return values + jnp.swapaxes(values, 1, 2) + jnp.moveaxis(values, 1, 3)


def three_derivatives(
    function: Callable[[Array], Array], r: Float[Array, " edges"]
) -> Float[Array, "edges 4 ..."]:
    """Return a function of each distance and its first three derivatives on a new axis."""
    one = jnp.ones_like(r)

    def first(x: Array) -> tuple[Array, Array]:
        return jax.jvp(function, (x,), (one,))

    def second(x: Array) -> tuple[Array, Array, Array]:
        (value, slope), (_, bend) = jax.jvp(first, (x,), (one,))
        return value, slope, bend

    (value, slope, bend), (_, _, third) = jax.jvp(second, (r,), (one,))
    return jnp.stack([value, slope, bend, third], axis=1)

"""The nonlinear part of a layer, local to an atom, as the Bloch response needs it.

φ(y) = readout(h') + ν·h' with h' = activate(y) weighs later layers by ν. Where activate has a
product that acts on each channel by itself (MACE), it is expanded once for a structure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phonopy_equivariant.models.irreps import Features
from phonopy_equivariant.models.layered import Layer, Params


class ProductExpansion(NamedTuple):
    """A channelwise product B(x) to second order about x0, for every atom and channel.

    Changes of B and of φ along δx are then products with small matrices, however many
    polynomials B is made of.
    """

    point: Float[Array, "receivers m u"]  # x0
    value: Float[Array, "receivers k u"]  # B(x0)
    slope: Float[Array, "receivers k m u"]  # ∂B/∂x
    curvature: Float[Array, "receivers m m u"]  # ∂φ/∂B · ∂²B/∂x∂x


def node_function(
    layer: Layer,
    params: Params,
    later: Features,
    species: Int[Array, " atoms"],
    product: ProductExpansion | None = None,
) -> Callable[[Features], Array]:
    """Return φ(y) = readout(activate(y)) + ν·activate(y), whose curvature enters Φ.

    With a product's expansion the function is φ to second order in that product.
    """

    def function(mixed: Features) -> Array:
        value = _node_energy(layer, params, later, species)(
            activation(layer, params, species, product)(mixed)
        )
        if product is None or layer.channelwise is None:
            return value
        moved = layer.channelwise.before(params, mixed, species) - product.point
        return value + jnp.einsum("imu,imnu,inu->", moved, product.curvature, moved) / 2

    return function


def activation(
    layer: Layer,
    params: Params,
    species: Int[Array, " atoms"],
    product: ProductExpansion | None = None,
) -> Callable[[Features], Features]:
    """Return activate(y); with a product's expansion, to first order in that product."""

    def function(mixed: Features) -> Features:
        if product is None or layer.channelwise is None:
            return layer.activate(params, mixed, species)
        moved = layer.channelwise.before(params, mixed, species) - product.point
        value = product.value + jnp.einsum("ikmu,imu->iku", product.slope, moved)
        return layer.channelwise.after(params, value, mixed, species)

    return function


def _node_energy(
    layer: Layer, params: Params, later: Features, species: Int[Array, " atoms"]
) -> Callable[[Features], Array]:
    """Return readout(h') + ν·h' as a function of h'."""

    def function(updated: Features) -> Array:
        value = jnp.sum(jnp.stack([jnp.sum(later[key] * updated[key]) for key in later]))
        if layer.readout is not None:
            value = value + layer.readout(params, updated, species).sum()
        return value

    return function


def expand_product(
    layer: Layer, params: Params, later: Features, mixed: Features, species: Int[Array, " atoms"]
) -> ProductExpansion | None:
    """Return the derivatives of a layer's channelwise product, all channels at once."""
    parts = layer.channelwise
    if parts is None:
        return None
    point = parts.before(params, mixed, species)
    energy = _node_energy(layer, params, later, species)

    def product(x: Array) -> Array:
        return parts.product(params, x, species)

    value = product(point)
    weight = jax.grad(lambda b: energy(parts.after(params, b, mixed, species)))(value)
    slope_of = jax.grad(lambda x: jnp.sum(weight * product(x)))

    def along(direction: Array) -> tuple[Array, Array]:
        change = jnp.broadcast_to(direction[:, None], point.shape)
        return jax.jvp(lambda x: (product(x), slope_of(x)), (point,), (change,))[1]

    slope, curvature = jax.lax.map(along, jnp.eye(point.shape[1], dtype=point.dtype))
    return ProductExpansion(point, value, jnp.moveaxis(slope, 0, 2), jnp.moveaxis(curvature, 0, 2))

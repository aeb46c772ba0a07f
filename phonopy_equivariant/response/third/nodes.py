"""Changes of adjoints and third derivatives at one atom: compiled once for a kind of layer.

With φ(y; ν) = readout(h') + ν·h', h' = activate(y), the adjoint η = ∂φ/∂y of an atom changes by

    δη = φ''·δy + activate'^T·δν

with the atom's features, and the atom's part of a third derivative of the energy is

    φ'''[δ1y, δ2y, δ3y] + sum over three choices of s of δ_sν·activate''[δy, δy].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from phonopy_equivariant.models.irreps import Features
from phonopy_equivariant.models.layered import Params
from phonopy_equivariant.response.bloch.local import Kind, Point
from phonopy_equivariant.response.bloch.node import (
    ProductExpansion,
    activation,
    node_function,
)

# δy and δν of one displacement, or changes of η and h'
Change = tuple[Features, Features]


def respond_adjoint(
    kind: Kind,
    params: Params,
    next_params: Params,
    point: Point,
    product: ProductExpansion | None,
    species: Int[Array, "1"],
    rows: tuple[Features, Features, Features],
) -> tuple[Features, Features, Features, Features]:
    """Return δν of h', δη of y, δμ of A, and the part of δν of h that goes through no message.

    A row has φ''·δy, that part of the next layer and δκ of the next layer's messages (both empty
    after the last layer).
    """
    layer, following = kind.layer, kind.following
    curved, direct, returned = rows
    # message and mix are affine: their transposes need shapes, not values
    template = {key: jnp.zeros_like(x) for key, x in point.updated.items()}
    activate = activation(layer, params, species, product)

    def one(
        row: tuple[Features, Features, Features],
    ) -> tuple[Features, Features, Features, Features]:
        curved, direct, returned = jax.tree.map(lambda x: x[None], row)
        eta, later = curved, {}
        if following is not None:
            message, pull = jax.vjp(lambda h: following.message(next_params, h, species), template)
            missing = {key: jnp.zeros_like(x) for key, x in message.items()}
            later = jax.tree.map(jnp.add, direct, pull(missing | returned)[0])
            change = jax.vjp(activate, point.mixed)[1](later)[0]
            eta = jax.tree.map(jnp.add, curved, change)
        sums = {
            key: jnp.zeros(
                (1, layer.layout.num_components(key), layer.layout.inputs[key]),
                next(iter(eta.values())).dtype,
            )
            for key in layer.layout.groups
        }
        _, pull_mix = jax.vjp(lambda a, h: layer.mix(params, a, h, species), sums, point.features)
        mu, nu = pull_mix(eta)
        later, eta, mu, nu = jax.tree.map(lambda x: x[0], (later, eta, mu, nu))
        return later, eta, mu, nu

    return jax.vmap(one)((curved, direct, returned))


def readout_slope(
    kind: Kind, params: Params, updated: Features, species: Int[Array, " atoms"]
) -> Features:
    """Return the derivative of the readout by h'."""
    readout = kind.layer.readout
    assert readout is not None
    return jax.grad(lambda h: readout(params, h, species).sum())(updated)


def mix_rows(kind: Kind, params: Params, species: Int[Array, "1"], sums: Features) -> Features:
    """Return mix of rows of sums at one atom."""
    count = len(next(iter(sums.values())))
    return kind.layer.mix(params, sums, None, jnp.broadcast_to(species, (count,)))


def second_change(
    kind: Kind,
    params: Params,
    point: Point,
    species: Int[Array, "1"],
    rows: tuple[Change, Change],
) -> Change:
    """Return the second-order change of η and of h' along two changes (δy, δν) for every row.

    Contracted with a third δy and δν, the two make up the atom's part of the third derivative.
    After the last layer δν is empty, and h' is left out.
    """
    layer = kind.layer

    def function(y: Features, later: Features) -> tuple[Features, Features]:
        slope = jax.grad(node_function(layer, params, later, species))(y)
        updated = {} if kind.following is None else activation(layer, params, species)(y)
        return slope, updated

    def one(row: tuple[Change, Change]) -> Change:
        (y_1, nu_1), (y_2, nu_2) = jax.tree.map(lambda x: x[None], row)
        if kind.following is None:
            nu_1 = nu_2 = jax.tree.map(jnp.zeros_like, point.later)

        def along(y: Features, later: Features) -> tuple[Features, Features]:
            return jax.jvp(function, (y, later), (y_1, nu_1))[1]

        change = jax.jvp(along, (point.mixed, point.later), (y_2, nu_2))[1]
        slope, updated = jax.tree.map(lambda x: x[0], change)
        return slope, updated

    return jax.vmap(one)(rows)

"""The parts of the response that are local to an edge or to an atom: all that has to be compiled.

Every function takes arrays whose first axis counts edges, atoms or rows, and returns arrays with
the same first axis. Nothing in it knows how many atoms the crystal has.

Notation of the models: A_i = sum_e K(r_e) g_j, y = mix(A, h), h' = activate(y), g' = message'(h')
the message of the next layer. η = ∂E/∂y, μ = ∂E/∂A and ν = ∂E/∂h are adjoints.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phonopy_equivariant.models.convolution import couple
from phonopy_equivariant.models.irreps import (
    Features,
    angular_factors,
    coupling,
    expand_paths,
    harmonics,
    split_radial,
)
from phonopy_equivariant.models.layered import Layer, LayeredModel, Params
from phonopy_equivariant.response.bloch.node import (
    ProductExpansion,
    activation,
    expand_product,
    node_function,
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A layer and the next one, whose messages it prepares.

    Layers of equal kind share their programs: equal are those of one model whose functions are.
    """

    layer: Layer = dataclasses.field(compare=False)
    following: Layer | None = dataclasses.field(compare=False)
    model: LayeredModel
    same_as: tuple[int, int]  # first layers with the functions of this one and of the next

    @property
    def key(self) -> str:
        """What programs kept on disk are filed under; empty: they are not kept."""
        return f"{self.model.key} {self.same_as}" if self.model.key else ""


def kinds(model: LayeredModel) -> list[Kind]:
    """Return the kind of every layer."""
    layers = model.layers
    same = [next(k for k, x in enumerate(layers) if x.is_like(layer)) for layer in layers]
    sent = [next(k for k, x in enumerate(layers) if x.sends_like(layer)) for layer in layers]
    return [
        Kind(layer, following, model, (same[t], sent[t + 1] if following else -1))
        for t, (layer, following) in enumerate(zip(layers, [*layers[1:], None], strict=True))
    ]


class Geometry(NamedTuple):
    """Functions of an edge vector that all layers share, with their derivatives along it."""

    unit: Float[Array, "edges 3"]
    distance: Float[Array, " edges"]
    harmonics: Float[Array, "edges m"]
    gradient: Float[Array, "edges 3 m"]
    second: Float[Array, "edges 3 3 m"]
    # radial basis, its first and second derivative along the distance
    basis: Float[Array, "edges 3 k"]


class EdgeTerms(NamedTuple):
    """What one layer makes of each edge."""

    radial: Features  # R (edges, paths, u)
    angular: Features  # G (edges, a, b)
    source: Features  # mix(∂K·g_j) (edges, 3, 2l+1, w)
    adjoint: Features  # μ_i·∂K (edges, 3, b, u)
    returned: Features  # K^T μ_i (edges, b, u)
    bond: Float[Array, "edges 3 3"]  # μ_i·∂²K·g_j
    gradient: Float[Array, "edges 3"]  # μ_i·∂K·g_j


class Point(NamedTuple):
    """The state of a layer at atoms: where its functions are linearised."""

    features: Features  # h before the layer
    mixed: Features  # y
    updated: Features  # h'
    later: Features  # ν of h': what later layers make of the layer's features


def start(
    model: LayeredModel, params: Params, species: Int[Array, " atoms"]
) -> tuple[Features, Features]:
    """Return the features of atoms before the first layer, and its messages."""
    features = model.embed(params["global"], species)
    return features, model.layers[0].message(params["layers"][0], features, species)


def geometry(
    model: LayeredModel,
    shared: Params,
    vectors: Float[Array, "edges 3"],
    z_i: Int[Array, " edges"],
    z_j: Int[Array, " edges"],
) -> Geometry:
    """Return harmonics and radial basis of every edge with two derivatives."""

    def values(vector: Array) -> Array:
        return harmonics((vector / jnp.sqrt(jnp.sum(vector**2)))[None], model.l_max)[0]

    def basis(r: Array) -> Array:
        return model.basis(shared, r, z_i, z_j)

    distance = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    # derivatives are moved in front of the harmonics: (edges, 3, m) and (edges, 3, 3, m)
    gradient = jax.vmap(jax.jacfwd(values))(vectors).transpose(0, 2, 1)
    second = jax.vmap(jax.jacfwd(jax.jacfwd(values)))(vectors).transpose(0, 2, 3, 1)
    return Geometry(
        vectors / distance[:, None],
        distance,
        jax.vmap(values)(vectors),
        gradient,
        second,
        jnp.stack(_two_derivatives(basis, distance), axis=1),
    )


def pair_terms(
    model: LayeredModel,
    shared: Params,
    edges: Geometry,
    z_i: Int[Array, " edges"],
    z_j: Int[Array, " edges"],
) -> tuple[Float[Array, "edges 3 3"], Float[Array, "edges 3"]]:
    """Return second and first derivative of the pair term of each edge."""
    pair = model.pair
    assert pair is not None
    _, first, second = _two_derivatives(lambda r: pair(shared, r, z_i, z_j), edges.distance)
    return _central_second_derivative(edges, first, second), first[:, None] * edges.unit


def _two_derivatives(function: Any, r: Float[Array, " edges"]) -> tuple[Array, Array, Array]:
    """Return a function of each distance, its first and second derivative."""

    def slope(x: Array) -> tuple[Array, Array]:
        return jax.jvp(function, (x,), (jnp.ones_like(x),))

    (value, first), (_, second) = jax.jvp(slope, (r,), (jnp.ones_like(r),))
    return value, first, second


def convolution(
    kind: Kind,
    params: Params,
    harmonics_of: Float[Array, "edges m"],
    basis: Float[Array, "edges k"],
    z_i: Int[Array, " edges"],
    z_j: Int[Array, " edges"],
    sent: Features,
) -> Features:
    """Return K(r_e) g_j of every edge, {input irrep: (edges, a, u)}."""
    layout = kind.layer.layout
    radial = split_radial(layout, kind.layer.radial(params, basis, z_i, z_j))
    angular = angular_factors(layout, harmonics_of)
    return {
        key: couple(angular[key], sent[key]) * expand_paths(groups, radial[key])
        for key, groups in layout.groups.items()
    }


def forward(
    kind: Kind,
    params: Params,
    next_params: Params,
    sums: Features,
    features: Features,
    species: Int[Array, " atoms"],
) -> tuple[Features, Features, Features]:
    """Return y, h' and the messages of the next layer (none after the last)."""
    mixed = kind.layer.mix(params, sums, features, species)
    updated = kind.layer.activate(params, mixed, species)
    if kind.following is None:
        return mixed, updated, {}
    return mixed, updated, kind.following.message(next_params, updated, species)


def backward(
    kind: Kind,
    params: Params,
    next_params: Params,
    features: Features,
    mixed: Features,
    updated: Features,
    adjoints: tuple[Features, Features],
    species: Int[Array, " atoms"],
) -> tuple[Features, Features, Features, ProductExpansion | None]:
    """Return ν of h', then μ and the part of ν of h that does not go through messages.

    ``adjoints`` are that part of the next layer and ∂E/∂g' of its messages; both empty after the
    last layer. Last comes the expansion of the layer's channelwise product, if it has one.
    """
    layer, following = kind.layer, kind.following
    if following is None:
        later = jax.tree.map(jnp.zeros_like, updated)
    else:
        direct, returned = adjoints
        message, pull = jax.vjp(lambda h: following.message(next_params, h, species), updated)
        missing = {key: jnp.zeros_like(x) for key, x in message.items()}
        later = jax.tree.map(jnp.add, direct, pull(missing | returned)[0])
    eta = jax.grad(node_function(layer, params, later, species))(mixed)
    product = expand_product(layer, params, later, mixed, species)
    _, pull_mix = jax.vjp(
        lambda sums, h: layer.mix(params, sums, h, species), _zero_sums(layer, mixed), features
    )
    mu, nu = pull_mix(eta)
    return later, mu, nu, product


def _zero_sums(layer: Layer, mixed: Features) -> Features:
    """Return zeros of the shape of A: mix is linear, so its transpose needs no values."""
    layout, some = layer.layout, next(iter(mixed.values()))
    return {
        key: jnp.zeros((len(some), layout.num_components(key), layout.inputs[key]), some.dtype)
        for key in layout.groups
    }


def edge_terms(
    kind: Kind,
    params: Params,
    edges: Geometry,
    z_i: Int[Array, " edges"],
    z_j: Int[Array, " edges"],
    sent: Features,
    received: Features,
) -> EdgeTerms:
    """Return the expansion of one layer in the vectors of edges.

    ``sent`` are messages g_j of the senders, ``received`` adjoints μ_i of the receivers. μ·∂²K·g
    is made of μ·R^(k)·G·g, k = 0, 1, 2, as linear functions of the harmonics.
    """
    layer, layout = kind.layer, kind.layer.layout
    split = [
        split_radial(layout, x) for x in _radial_derivatives(layer, params, edges.basis, z_i, z_j)
    ]
    angular = angular_factors(layout, edges.harmonics)
    changes, adjoint, returned = {}, {}, {}
    weights = jnp.zeros((len(edges.unit), 3, edges.harmonics.shape[1]), edges.unit.dtype)
    for key, groups in layout.groups.items():
        constant = (layout.scale * coupling(key, groups, layout.l_max)).astype(weights.dtype)
        slopes = jnp.tensordot(edges.gradient, constant, 1)  # ∂G (edges, 3, a, b)
        radials = jnp.stack([expand_paths(groups, some[key]) for some in split], axis=1)
        weighted = radials * received[key][:, None]  # (edges, derivative, a, u)
        overlap = jnp.einsum("ekau,ebu->ekab", weighted, sent[key])
        weights = weights + jnp.einsum("ekab,mab->ekm", overlap, constant)
        radial_part = couple(angular[key], sent[key]) * radials[:, 1]
        changes[key] = radials[:, 0, None] * jnp.einsum(
            "ezab,ebu->ezau", slopes, sent[key]
        ) + jnp.einsum("ez,eau->ezau", edges.unit, radial_part)
        back = jnp.einsum("ekau,eab->ekbu", weighted[:, :2], angular[key])
        returned[key] = back[:, 0]
        adjoint[key] = jnp.einsum("eau,ezab->ezbu", weighted[:, 0], slopes) + jnp.einsum(
            "ez,ebu->ezbu", edges.unit, back[:, 1]
        )
    count = len(edges.unit)
    flat = {key: x.reshape(3 * count, *x.shape[2:]) for key, x in changes.items()}
    mixed = layer.mix(params, flat, None, jnp.repeat(z_i, 3))
    source = {key: x.reshape(count, 3, *x.shape[1:]) for key, x in mixed.items()}
    bond, gradient = _bond_term(edges, weights), _bond_gradient(edges, weights)
    return EdgeTerms(split[0], angular, source, adjoint, returned, bond, gradient)


def _radial_derivatives(
    layer: Layer,
    params: Params,
    basis: Float[Array, "edges 3 k"],
    z_i: Int[Array, " edges"],
    z_j: Int[Array, " edges"],
) -> tuple[Array, Array, Array]:
    """Return the radial functions and two derivatives, from those of the basis."""
    value, first, second = (basis[:, k] for k in range(3))

    def along(step: Array) -> Array:
        moved = value + step[:, None] * (first + step[:, None] * second / 2)
        return layer.radial(params, moved, z_i, z_j)

    return _two_derivatives(along, jnp.zeros_like(value[:, 0]))


def respond(
    kind: Kind,
    params: Params,
    next_params: Params,
    point: Point,
    product: ProductExpansion | None,
    species: Int[Array, "1"],
    rows: tuple[Features, Features, Features],
) -> tuple[Features, Features, Features, Features]:
    """Return δy, φ''·δy, δh' and δg' of one atom for every row.

    ``point`` is of one atom, (1, m, u). A row has the change δA of its sums and δh of its
    features (both empty for the first layer), and source_e·δr_e summed over its edges.
    """
    layer, following = kind.layer, kind.following
    sums, features, source = rows
    changed = dict(source)
    if sums:
        count = len(next(iter(sums.values())))
        mixed = layer.mix(params, sums, features, jnp.broadcast_to(species, (count,)))
        changed = {key: changed[key] + x if key in changed else x for key, x in mixed.items()}
    count = len(next(iter(changed.values())))
    for key, value in point.mixed.items():  # parts of y that no edge of this layer reaches
        changed.setdefault(key, jnp.zeros((count, *value.shape[1:]), value.dtype))
    changed = {key: changed[key] for key in point.mixed}
    activate = activation(layer, params, species, product)
    slope = jax.grad(node_function(layer, params, point.later, species, product))

    def function(y: Features) -> tuple[Features, Features, Features]:
        updated = activate(y)
        sent = {} if following is None else following.message(next_params, updated, species)
        return slope(y), updated, sent

    def tangent(change: Features) -> tuple[Features, Features, Features]:
        one = {key: x[None] for key, x in change.items()}
        found = jax.jvp(function, (point.mixed,), (one,))[1]
        return jax.tree.map(lambda x: x[0], found)

    curved, updated, sent = jax.vmap(tangent)(changed)
    return changed, curved, updated, sent


def _bond_gradient(
    edges: Geometry, weights: Float[Array, "edges derivative m"]
) -> Float[Array, "edges 3"]:
    """Return the derivative of sum_m f_m(|r|) Y_m(r), given f, f', f'' as weights."""
    value, first = weights[:, 0], weights[:, 1]
    slope = jnp.sum(first * edges.harmonics, axis=-1)
    return slope[:, None] * edges.unit + jnp.einsum("em,evm->ev", value, edges.gradient)


def _bond_term(
    edges: Geometry, weights: Float[Array, "edges derivative m"]
) -> Float[Array, "edges 3 3"]:
    """Return the second derivative of sum_m f_m(|r|) Y_m(r), given f, f', f'' as weights."""
    value, first, second = (weights[:, k] for k in range(3))
    curvature = jnp.einsum("em,evwm->evw", value, edges.second)
    mixed = jnp.einsum("ev,em,ewm->evw", edges.unit, first, edges.gradient)
    slope = jnp.sum(first * edges.harmonics, axis=-1)
    bend = jnp.sum(second * edges.harmonics, axis=-1)
    central = _central_second_derivative(edges, slope, bend)
    return curvature + mixed + jnp.swapaxes(mixed, 1, 2) + central


def _central_second_derivative(
    edges: Geometry, slope: Float[Array, " edges"], bend: Float[Array, " edges"]
) -> Float[Array, "edges 3 3"]:
    """Return f''·nn + f'/r·(1 - nn), the second derivative of a function of the distance."""
    radial = jnp.einsum("ev,ew->evw", edges.unit, edges.unit)
    transverse = jnp.eye(3, dtype=radial.dtype) - radial
    return bend[:, None, None] * radial + (slope / edges.distance)[:, None, None] * transverse

"""What the Bloch response needs of a structure once, whatever q: the energy expanded in its edges.

Notation of the models: A_i = sum_e K(r_e) g_j, y = mix(A, h), h' = activate(y). With the adjoints
η = ∂E/∂y, μ = ∂E/∂A and ν = ∂E/∂h of the ordinary gradient pass, an edge e = (j, S) -> i
contributes per layer

    source_e  = mix(∂K·g_j)        change of y_i with the edge vector
    adjoint_e = μ_i·∂K             what a change of g_j weighs in the force on the edge
    bond_e    = μ_i·∂²K·g_j        3×3 second derivative at fixed features (summed over layers)

Radial functions enter through value, first and second derivative along the distance, once for
each pair of mutually reverse edges; harmonics through their derivatives along the vector.

With :class:`.little_group.Orbits` only edges into some of the atoms are given, the receivers.
Features of the other atoms follow by rotation, sums over all edges by a mean over the group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phonopy_equivariant.models.convolution import Edges, convolve, couple, edge_blocks, pick
from phonopy_equivariant.models.irreps import (
    Features,
    LayerLayout,
    angular_factors,
    coupling,
    expand_paths,
    harmonics,
    split_radial,
)
from phonopy_equivariant.models.layered import Layer, LayeredModel, Params, bind_radial
from phonopy_equivariant.response.bloch.node import ProductExpansion, expand_product, node_function
from phonopy_equivariant.response.symmetry.little_group import Orbits, irrep_of
from phonopy_equivariant.runtime.programs import record


class Network(NamedTuple):
    """Edges of a structure without padding atoms; padding edges lie beyond the cutoff.

    Without ``orbits`` all atoms are receivers, and edges come in pairs of mutual reverses.
    """

    vectors: Float[Array, "edges 3"]
    senders: Int[Array, " edges"]  # atoms
    receivers: Int[Array, " edges"]  # positions among the receivers
    species: Int[Array, " atoms"]
    orbits: Orbits | None = None

    @property
    def own_species(self) -> Int[Array, " receivers"]:
        """Species of the receivers."""
        return self.own(self.species)

    def own(self, values: Array) -> Array:
        """Return the rows of the receivers."""
        return values if self.orbits is None else values[self.orbits.receivers]

    def radial_species(self) -> tuple[Int[Array, " edges"], Int[Array, " edges"]]:
        """Return the species (z_i, z_j) of every edge."""
        return self.own_species[self.receivers], self.species[self.senders]


@record
class LayerExpansion(NamedTuple):
    """Expansion of one layer at the receivers.

    ``radial``, ``angular``, ``adjoint`` are empty for the first.
    """

    features: Features  # h before the layer
    mixed: Features  # y
    later: Features  # ν of h': what later layers make of the layer's features
    radial: Features  # R (edges, paths, u)
    angular: Features  # G (edges, a, b)
    source: Features  # (edges, 3, 2l+1, w)
    adjoint: Features  # (edges, 3, b, u)
    product: ProductExpansion | None


@record
class Expansion(NamedTuple):
    """Expansion of the energy: layers in order, and what each edge has of its own."""

    layers: tuple[LayerExpansion, ...]
    bond: Float[Array, "edges 3 3"]  # eV/Å²
    gradient: Float[Array, "edges 3"]  # ∂E/∂r_e, eV/Å
    scalars: Float[Array, "receivers features"]  # of all layers, as in models.layered


class _Geometry(NamedTuple):
    """Edge vectors and harmonics with their derivatives along the vector."""

    unit: Float[Array, "edges 3"]
    distance: Float[Array, " edges"]
    harmonics: Float[Array, "edges m"]
    gradient: Float[Array, "edges 3 m"]
    second: Float[Array, "edges 3 3 m"]


def expand(model: LayeredModel, params: Params, network: Network) -> Expansion:
    """Return the expansion of the energy of a periodic structure in its edge vectors."""
    geometry = _geometry(network.vectors, model.l_max)
    radials = [
        _radial_derivatives(model, params, layer, layer_params, network, geometry.distance)
        for layer, layer_params in zip(model.layers, params["layers"], strict=True)
    ]
    states = _forward(model, params, network, geometry)
    later: Features = jax.tree.map(jnp.zeros_like, states[-1][2])  # at the receivers
    weights = jnp.zeros((3, *geometry.harmonics.shape), network.vectors.dtype)
    layers: list[LayerExpansion] = []
    for t in reversed(range(len(model.layers))):
        layer, layer_params = model.layers[t], params["layers"][t]
        features, mixed, _ = states[t]
        own = {key: network.own(x) for key, x in features.items()}
        species = network.own_species
        eta = jax.grad(node_function(layer, layer_params, later, species))(mixed)
        product = expand_product(layer, layer_params, later, mixed, species)
        sums_of = _sums_shape(layer.layout, network)
        _, pull = jax.vjp(
            lambda sums, h, layer=layer, p=layer_params, z=species: layer.mix(p, sums, h, z),
            sums_of,
            own,
        )
        mu, nu = pull(eta)
        messages = layer.message(layer_params, features, network.species)
        _, pull_message = jax.vjp(
            lambda h, layer=layer, p=layer_params, z=species: layer.message(p, h, z), own
        )
        split = [split_radial(layer.layout, values) for values in radials[t]]
        per_edge = _edge_terms(layer, layer_params, network, geometry, split, mu, messages)
        source, adjoint, returned, layer_weights = per_edge
        weights = weights + jnp.moveaxis(layer_weights, 1, 0)
        first = t == 0
        layers.append(
            LayerExpansion(
                own,
                mixed,
                later,
                {} if first else split[0],
                {} if first else angular_factors(layer.layout, geometry.harmonics),
                source,
                {} if first else adjoint,
                product,
            )
        )
        if not first:
            kappa = {key: _sum_at_receivers(key, x, network) for key, x in returned.items()}
            kappa = {
                key: kappa.get(key, jnp.zeros_like(network.own(x))) for key, x in messages.items()
            }
            later = jax.tree.map(jnp.add, nu, pull_message(kappa)[0])
    bond, gradient = _bond_term(geometry, weights), _bond_gradient(geometry, weights)
    if model.pair is not None:
        pair_bond, pair_gradient = _pair_terms(model.pair, params, network, geometry)
        bond, gradient = bond + pair_bond, gradient + pair_gradient
    scalars = jnp.concatenate([updated["0e"][:, 0] for _, _, updated in states], axis=1)
    return Expansion(tuple(reversed(layers)), bond, gradient, scalars)


def _geometry(vectors: Float[Array, "edges 3"], l_max: int) -> _Geometry:
    def values(vector: Array) -> Array:
        return harmonics((vector / jnp.sqrt(jnp.sum(vector**2)))[None], l_max)[0]

    distance = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    # derivatives are moved in front of the harmonics: (edges, 3, m) and (edges, 3, 3, m)
    gradient = jax.vmap(jax.jacfwd(values))(vectors).transpose(0, 2, 1)
    second = jax.vmap(jax.jacfwd(jax.jacfwd(values)))(vectors).transpose(0, 2, 3, 1)
    return _Geometry(
        vectors / distance[:, None], distance, jax.vmap(values)(vectors), gradient, second
    )


def _radial_derivatives(
    model: LayeredModel,
    params: Params,
    layer: Layer,
    layer_params: Params,
    network: Network,
    distance: Float[Array, " edges"],
) -> list[Float[Array, "edges functions"]]:
    """Return the radial functions of every edge and their two derivatives along the distance."""
    stride = _stride(model, network)
    z_i, z_j = (z[::stride] for z in network.radial_species())

    def values(r: Array) -> Array:
        basis = model.basis(params["global"], r, z_i, z_j)
        return layer.radial(layer_params, basis, z_i, z_j)

    def slope(r: Array) -> tuple[Array, Array]:
        return jax.jvp(values, (r,), (jnp.ones_like(r),))

    once = distance[::stride]
    (value, first), (_, second) = jax.jvp(slope, (once,), (jnp.ones_like(once),))
    return [jnp.repeat(x, stride, axis=0) for x in (value, first, second)]


def _forward(
    model: LayeredModel, params: Params, network: Network, geometry: _Geometry
) -> list[tuple[Features, Features, Features]]:
    """Return h of all atoms, y and h' of the receivers, for every layer."""
    species, own_species = network.species, network.own_species
    stride = _stride(model, network)
    z_i, z_j = (z[::stride] for z in network.radial_species())
    basis = model.basis(params["global"], geometry.distance[::stride], z_i, z_j)
    orbits = network.orbits
    receivers = network.receivers if orbits is None else orbits.receivers[network.receivers]
    edges = Edges(basis, geometry.harmonics, network.senders, receivers)
    features = model.embed(params["global"], species)
    states = []
    for layer, layer_params in zip(model.layers, params["layers"], strict=True):
        messages = layer.message(layer_params, features, species)
        sums = convolve(layer.layout, bind_radial(layer, layer_params), messages, edges, species)
        own_sums, own = ({key: network.own(x) for key, x in y.items()} for y in (sums, features))
        mixed = layer.mix(layer_params, own_sums, own, own_species)
        updated = layer.activate(layer_params, mixed, own_species)
        states.append((features, mixed, updated))
        features = {key: _all_atoms(key, x, network) for key, x in updated.items()}
    return states


def _stride(model: LayeredModel, network: Network) -> int:
    """Return 2 where mutually reverse edges share one evaluation of the radial functions."""
    return 2 if model.symmetric_radial and network.orbits is None else 1


def _all_atoms(key: str, values: Array, network: Network) -> Array:
    """Return features of all atoms from those of the receivers."""
    if network.orbits is None:
        return values
    turn = network.orbits.turn[irrep_of(key)].astype(values.dtype)
    return jnp.einsum("imn,inu->imu", turn, values[network.orbits.source])


def _sum_at_receivers(key: str, values: Array, network: Network) -> Array:
    """Return sums over all edges that a receiver sends, from those into receivers alone."""
    orbits = network.orbits
    if orbits is not None:
        values = values * orbits.weight.astype(values.dtype)[network.receivers][:, None, None]
    sums = jax.ops.segment_sum(values, network.senders, len(network.species))
    if orbits is None:
        return sums
    return jnp.einsum("jimn,inu->jmu", orbits.collect[irrep_of(key)].astype(sums.dtype), sums)


def _sums_shape(layout: LayerLayout, network: Network) -> Features:
    """Return zeros of the shape of A: mix is linear, so its transpose needs no values."""
    atoms, dtype = len(network.own_species), network.vectors.dtype
    return {
        key: jnp.zeros((atoms, layout.num_components(key), layout.inputs[key]), dtype)
        for key in layout.groups
    }


def _edge_terms(
    layer: Layer,
    params: Params,
    network: Network,
    geometry: _Geometry,
    split: list[Features],
    mu: Features,
    messages: Features,
) -> tuple[Features, Features, Features, Float[Array, "edges 3 m"]]:
    """Return source, adjoint, K^T μ and harmonic weights of all edges, block by block."""
    inputs = (geometry, split, network.senders, network.receivers)

    def terms(block: tuple[Any, ...]) -> tuple[Features, Features, Features, Array]:
        return _block_terms(layer, params, network.own_species, mu, messages, block)

    count = edge_blocks(len(network.senders))
    if count == 1:
        return terms(inputs)
    blocks = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), inputs)
    mapped = jax.lax.map(terms, blocks)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), mapped)


def _block_terms(
    layer: Layer,
    params: Params,
    species: Int[Array, " atoms"],
    mu: Features,
    messages: Features,
    block: tuple[Any, ...],
) -> tuple[Features, Features, Features, Float[Array, "edges 3 m"]]:
    geometry, split, senders, receivers = block
    layout = layer.layout
    angular = angular_factors(layout, geometry.harmonics)
    changes, adjoint, returned = {}, {}, {}
    weights = jnp.zeros((*geometry.gradient.shape[:2], geometry.harmonics.shape[1]))
    weights = weights.astype(geometry.unit.dtype)
    for key, groups in layout.groups.items():
        constant = (layout.scale * coupling(key, groups, layout.l_max)).astype(weights.dtype)
        slopes = jnp.tensordot(geometry.gradient, constant, 1)  # ∂G (edges, 3, a, b)
        radials = jnp.stack([expand_paths(groups, some[key]) for some in split], axis=1)
        sent, received = pick(messages[key], senders), pick(mu[key], receivers)
        weighted = radials * received[:, None]  # (edges, derivative, a, u)
        # μ·R^(k)·G·g as linear functions of the harmonics, k = 0, 1, 2
        overlap = jnp.einsum("ekau,ebu->ekab", weighted, sent)
        weights = weights + jnp.einsum("ekab,mab->ekm", overlap, constant)
        radial_part = couple(angular[key], sent) * radials[:, 1]
        changes[key] = radials[:, 0, None] * jnp.einsum(
            "ezab,ebu->ezau", slopes, sent
        ) + jnp.einsum("ez,eau->ezau", geometry.unit, radial_part)
        back = jnp.einsum("ekau,eab->ekbu", weighted[:, :2], angular[key])
        returned[key] = back[:, 0]
        adjoint[key] = jnp.einsum("eau,ezab->ezbu", weighted[:, 0], slopes) + jnp.einsum(
            "ez,ebu->ezbu", geometry.unit, back[:, 1]
        )
    count = len(senders)
    flat = {key: x.reshape(3 * count, *x.shape[2:]) for key, x in changes.items()}
    mixed = layer.mix(params, flat, None, jnp.repeat(pick(species, receivers), 3))
    source = {key: x.reshape(count, 3, *x.shape[1:]) for key, x in mixed.items()}
    return source, adjoint, returned, weights


def _bond_gradient(
    geometry: _Geometry, weights: Float[Array, "derivative edges m"]
) -> Float[Array, "edges 3"]:
    """Return the derivative of sum_m f_m(|r|) Y_m(r), given f, f', f'' as weights."""
    value, first, _ = weights
    slope = jnp.sum(first * geometry.harmonics, axis=-1)
    return slope[:, None] * geometry.unit + jnp.einsum("em,evm->ev", value, geometry.gradient)


def _bond_term(
    geometry: _Geometry, weights: Float[Array, "derivative edges m"]
) -> Float[Array, "edges 3 3"]:
    """Return the second derivative of sum_m f_m(|r|) Y_m(r), given f, f', f'' as weights."""
    value, first, second = weights
    curvature = jnp.einsum("em,evwm->evw", value, geometry.second)
    mixed = jnp.einsum("ev,em,ewm->evw", geometry.unit, first, geometry.gradient)
    slope = jnp.sum(first * geometry.harmonics, axis=-1)
    bend = jnp.sum(second * geometry.harmonics, axis=-1)
    central = _central_second_derivative(geometry, slope, bend)
    return curvature + mixed + jnp.swapaxes(mixed, 1, 2) + central


def _central_second_derivative(
    geometry: _Geometry, slope: Float[Array, " edges"], bend: Float[Array, " edges"]
) -> Float[Array, "edges 3 3"]:
    """Return f''·nn + f'/r·(1 - nn), the second derivative of a function of the distance."""
    radial = jnp.einsum("ev,ew->evw", geometry.unit, geometry.unit)
    transverse = jnp.eye(3, dtype=radial.dtype) - radial
    return bend[:, None, None] * radial + (slope / geometry.distance)[:, None, None] * transverse


def _pair_terms(
    pair: Callable[[Params, Array, Array, Array], Array],
    params: Params,
    network: Network,
    geometry: _Geometry,
) -> tuple[Float[Array, "edges 3 3"], Float[Array, "edges 3"]]:
    """Return second and first derivative of the pair term of each edge."""
    z_i, z_j = network.radial_species()

    def slope(r: Array) -> tuple[Array, Array]:
        return jax.jvp(lambda d: pair(params["global"], d, z_i, z_j), (r,), (jnp.ones_like(r),))

    distance = geometry.distance
    (_, first), (_, second) = jax.jvp(slope, (distance,), (jnp.ones_like(distance),))
    return _central_second_derivative(geometry, first, second), first[:, None] * geometry.unit

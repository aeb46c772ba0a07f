"""The layered form every potential here has, and its energy as a composition of the layers.

For layers t = 1..T, atoms i of species z_i, edges e = (j, S) -> i with r_e = x_j + S·L - x_i:

    g^t_j = message^t(h_j^{t-1})                         affine in h, local to an atom
    A^t_i = sum_e K^t(r_e; z_i, z_j) · g^t_j             equivariant convolution
    y^t_i = mix^t(A^t_i, h_i^{t-1}, z_i)                 linear, local to an atom
    h^t_i = activate^t(y^t_i, z_i)                       nonlinear, local to an atom
    E_i   = offset(z_i) + sum_t readout^t(h^t_i) + sum_e pair(|r_e|; z_i, z_j)

with K[a, b, u] = R_{p(a), u}(|r|) · G[a, b](r^) (see :mod:`.irreps`). A constant channel (plain
sums over edges) is a message that does not depend on h.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phonopy_equivariant.models.convolution import Edges, convolve, pick
from phonopy_equivariant.models.irreps import Features, LayerLayout, harmonics
from phonopy_equivariant.models.weights import Draw

# {"global": haiku parameters, "layers": (haiku parameters of layer 0, ...)}
Params = dict[str, Any]


class Channelwise(NamedTuple):
    """An ``activate`` whose costly part acts on each channel by itself.

    activate(y, z) = after(product(before(y, z), z), y, z) with x = before(y, z) of shape
    (atoms, m, u) and B = product(x, z) of shape (atoms, k, u), where B[i, :, u] is a function of
    x[i, :, u] alone. The derivatives of the product are then small matrices for each atom and
    channel, which the response computes once; ``before`` and ``after`` are cheap.
    """

    before: Callable[[Params, Features, Array], Array]
    product: Callable[[Params, Array, Array], Array]
    after: Callable[[Params, Array, Features, Array], Features]


class Gated(NamedTuple):
    """An ``activate`` that is a gate of features, which a norm may come before.

    activate(y) = gate(norm(y + bias)) with the nonlinearities of :mod:`.activation`: SiLU on even
    scalars and on gates, the last channels of ``0e`` in the order of ``outputs``, and tanh on odd
    scalars. The readout, if there is one, is linear. Its derivatives are then products of
    few numbers for each channel.
    """

    outputs: dict[str, int]
    # modules whose weights are those of the norm and of the bias; empty: none
    norm: str
    bias: str
    # beside the mean square in the norm
    epsilon: float


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """Pure functions of one interaction.

    Features are ``{irrep: (atoms, 2l+1, u)}``; ``basis`` (edges, k) are the radial basis
    functions all layers share; ``radial`` returns (edges, functions) in the order of
    :func:`~.irreps.split_radial`; ``mix`` takes None for sums or features that are zero;
    ``readout`` (atoms,) eV, or None.
    """

    layout: LayerLayout
    init: Callable[[Draw], Params]
    message: Callable[[Params, Features, Array], Features]
    radial: Callable[[Params, Array, Array, Array], Array]
    mix: Callable[[Params, Features | None, Features | None, Array], Features]
    activate: Callable[[Params, Features, Array], Features]
    readout: Callable[[Params, Features, Array], Array] | None
    # the parts of activate, where it has this form
    channelwise: Channelwise | None = None
    gated: Gated | None = None
    # what the functions depend on beside the model's configuration, and the message alone;
    # empty: equal to those of no other layer
    key: str = ""
    message_key: str = ""
    # the module whose parameters are all that the message reads; empty: any may be
    message_module: str = ""

    def message_params(self, params: Params) -> Params:
        """Return the parameters of the layer that its message reads."""
        if not self.message_module:
            return params
        return {self.message_module: params[self.message_module]}

    def is_like(self, layer: Layer) -> bool:
        """Tell whether all functions are those of another layer of the same model."""
        return self is layer or self.key == layer.key != ""

    def sends_like(self, layer: Layer) -> bool:
        """Tell whether the message is that of another layer of the same model."""
        return self is layer or self.message_key == layer.message_key != ""


@dataclasses.dataclass(frozen=True, eq=False)
class LayeredModel:
    """Pure functions of a layered potential, ``species`` (atoms,) being indices.

    Hashed by identity, so that it can be a static argument of a compiled function.
    """

    layers: tuple[Layer, ...]
    cutoff: float
    init: Callable[[Draw], Params]
    embed: Callable[[Params, Array], Features]
    # (params, distance, z_i, z_j) -> (edges, k); all that depends on the distance
    basis: Callable[[Params, Array, Array, Array], Array]
    # (params, species) -> (atoms,) eV
    offset: Callable[[Params, Array], Array]
    # (params, distance, z_i, z_j) -> (edges,) eV, half a bond each; None: no pair term
    pair: Callable[[Params, Array, Array, Array], Array] | None = None
    # whether basis and radial are symmetric in (z_i, z_j): one evaluation serves both directions
    symmetric_radial: bool = True
    # what distinguishes the model from all others, for programs kept on disk; empty: none are
    key: str = ""

    @property
    def l_max(self) -> int:
        """Highest degree of the spherical harmonics."""
        return self.layers[0].layout.l_max


def site_outputs(
    model: LayeredModel,
    params: Params,
    vectors: Float[Array, "edges 3"],
    species: Int[Array, " atoms"],
    senders: Int[Array, " edges"],
    receivers: Int[Array, " edges"],
) -> tuple[Float[Array, " atoms"], Float[Array, "atoms features"]]:
    """Return the energy of each atom (eV) and its invariant features.

    Energies have all readouts and the pair term included; features are the scalars (0e) of all
    layers side by side. Edges come in pairs of mutual reverses (see
    :mod:`phonopy_equivariant.graph`).
    """
    shared = params["global"]
    distance = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    z_i, z_j = pick(species, receivers), pick(species, senders)
    stride = 2 if model.symmetric_radial else 1
    edges = Edges(
        model.basis(shared, distance[::stride], z_i[::stride], z_j[::stride]),
        harmonics(vectors / distance[:, None], model.l_max),
        senders,
        receivers,
    )
    energies = model.offset(shared, species)
    if model.pair is not None:
        bonds = model.pair(shared, distance, z_i, z_j)
        energies = energies + jax.ops.segment_sum(bonds, receivers, len(species))
    features, scalars = model.embed(shared, species), []
    # no scan over equal layers: measured, it compiles half as long again as the layers written out
    for layer, layer_params in zip(model.layers, params["layers"], strict=True):
        features = interaction(layer, layer_params, features, edges, species)
        if layer.readout is not None:
            energies = energies + layer.readout(layer_params, features, species)
        scalars.append(features["0e"][:, 0])
    return energies, jnp.concatenate(scalars, axis=1)


def interaction(
    layer: Layer, params: Params, features: Features, edges: Edges, species: Int[Array, " atoms"]
) -> Features:
    """Return the features of the atoms after one layer."""
    messages = layer.message(params, features, species)

    sums = convolve(layer.layout, bind_radial(layer, params), messages, edges, species)
    return layer.activate(params, layer.mix(params, sums, features, species), species)


def bind_radial(layer: Layer, params: Params) -> Callable[[Array, Array, Array], Array]:
    """Return the layer's radial functions of (basis, z_i, z_j) for given parameters."""

    def radial(basis: Array, z_i: Array, z_j: Array) -> Array:
        return layer.radial(params, basis, z_i, z_j)

    return radial

"""The layered form every potential here has, and its energy as a composition of the layers.

For layers t = 1..T, atoms i of species z_i, edges e = (j, S) -> i with r_e = x_j + S·L - x_i:

    g^t_j = message^t(h_j^{t-1})                         affine in h, local to an atom
    A^t_i = sum_e K^t(r_e; z_i, z_j) · g^t_j             equivariant convolution
    h^t_i = node_update^t(A^t_i, h_i^{t-1}, z_i)         local to an atom
    E_i   = offset(z_i) + sum_t readout^t(h^t_i) + sum_e pair(|r_e|; z_i, z_j)

A constant channel (plain sums over edges) is a message that does not depend on h.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from phonopy_equivariant.models.irreps import (
    Features,
    LayerLayout,
    angular_factors,
    expand_paths,
    harmonics,
    split_radial,
)

Params = PyTree[Array]


@dataclasses.dataclass(frozen=True, eq=False)
class LayeredModel:
    """Pure functions of a layered potential; ``t`` counts layers from 0.

    Hashed by identity, so that it can be a static argument of a compiled function.

    Shapes: ``species`` (atoms,), features ``{irrep: (atoms, 2l+1, u)}``, ``distance`` (edges,).
    """

    layouts: tuple[LayerLayout, ...]
    cutoff: float
    init: Callable[[Array], Params]
    embed: Callable[[Params, Array], Features]
    message: Callable[[Params, int, Features, Array], Features]
    # (params, t, distance, z_i, z_j) -> (edges, functions), ordered as split_radial expects
    radial: Callable[[Params, int, Array, Array, Array], Array]
    node_update: Callable[[Params, int, Features, Features, Array], Features]
    # (params, t, h, species) -> (atoms,) eV
    readout: Callable[[Params, int, Features, Array], Array]
    # (params, species) -> (atoms,) eV
    offset: Callable[[Params, Array], Array]
    # (params, distance, z_i, z_j) -> (edges,) eV, half a bond each; None: no pair term
    pair: Callable[[Params, Array, Array, Array], Array] | None = None
    # whether radial(z_i, z_j) = radial(z_j, z_i), so that one evaluation serves both directions
    symmetric_radial: bool = True

    @property
    def num_layers(self) -> int:
        """Number of interactions T."""
        return len(self.layouts)


class EdgeKernel(NamedTuple):
    """Factors of K[a, b, u] = radial[p(a), u] · angular[a, b] for every edge and input irrep."""

    radial: dict[str, Array]
    angular: dict[str, Array]


def edge_kernel(
    model: LayeredModel,
    params: Params,
    vectors: Float[Array, "edges 3"],
    z_i: Int[Array, " edges"],
    z_j: Int[Array, " edges"],
) -> tuple[EdgeKernel, ...]:
    """Return the kernels of all layers for edges that come in pairs of mutual reverses."""
    distance = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    sphericals = harmonics(vectors / distance[:, None], model.layouts[0].l_max)
    kernels = []
    for t, layout in enumerate(model.layouts):
        if model.symmetric_radial:
            once = model.radial(params, t, distance[::2], z_i[::2], z_j[::2])
            functions = jnp.repeat(once, 2, axis=0)
        else:
            functions = model.radial(params, t, distance, z_i, z_j)
        kernels.append(
            EdgeKernel(split_radial(layout, functions), angular_factors(layout, sphericals))
        )
    return tuple(kernels)


def convolve(
    layout: LayerLayout,
    kernel: EdgeKernel,
    messages: Features,
    senders: Int[Array, " edges"],
    receivers: Int[Array, " edges"],
) -> Features:
    """Return A_i = sum_{e -> i} K(r_e) · g_{j(e)}, ``{input irrep: (atoms, a, u)}``."""
    sums = {}
    for key, paths in layout.paths.items():
        if not paths:
            continue
        message, angular = messages[key], kernel.angular[key]
        sent = message[senders]
        # a sum of outer products, not a batched matrix product: this one XLA fuses
        coupled = sum(
            angular[:, :, b, None] * sent[:, b, None, :] for b in range(message.shape[1])
        )
        weighted = coupled * expand_paths(paths, kernel.radial[key])
        sums[key] = jax.ops.segment_sum(weighted, receivers, message.shape[0])
    return sums


def site_energies(
    model: LayeredModel,
    params: Params,
    vectors: Float[Array, "edges 3"],
    species: Int[Array, " atoms"],
    senders: Int[Array, " edges"],
    receivers: Int[Array, " edges"],
) -> Float[Array, " atoms"]:
    """Return the energy of each atom (eV), all readouts and the pair term included."""
    z_i, z_j = species[receivers], species[senders]
    energies = model.offset(params, species)
    features = model.embed(params, species)
    kernels = edge_kernel(model, params, vectors, z_i, z_j)
    for t, layout in enumerate(model.layouts):
        messages = model.message(params, t, features, species)
        sums = convolve(layout, kernels[t], messages, senders, receivers)
        features = model.node_update(params, t, sums, features, species)
        energies = energies + model.readout(params, t, features, species)
    if model.pair is not None:
        distance = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
        bonds = model.pair(params, distance, z_i, z_j)
        energies = energies + jax.ops.segment_sum(bonds, receivers, species.shape[0])
    return energies


def parameter_count(params: Params) -> int:
    """Return the number of scalars in a tree of parameters."""
    leaves: list[Any] = jax.tree.leaves(params)
    return sum(leaf.size for leaf in leaves)

"""The equivariant convolution A_i = sum_{e -> i} K(r_e) · g_{j(e)}, dense and channels last."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phonopy_equivariant.models.irreps import (
    Features,
    LayerLayout,
    angular_factors,
    expand_paths,
    split_radial,
)

# Most edges handled at a time. A block's intermediates (22 kB an edge for 128x0e+64x1o+32x2e+32x3o
# in float32) then stay in cache and are never stored for the backward pass; measured: 64 atoms
# of NaCl 135 ms in one piece, 78 ms in blocks of 512.
EDGE_BLOCK = 512


def edge_blocks(count: int) -> int:
    """Return the number of equal blocks that edges are handled in, each of at most EDGE_BLOCK.

    Pairs of mutual reverses stay together. One where the edges do not divide into blocks:
    :func:`phonopy_equivariant.graph.edge_bucket` gives numbers that do.
    """
    blocks = max(1, -(-count // EDGE_BLOCK))
    return 1 if count % (2 * blocks) else blocks


class Edges(NamedTuple):
    """What all layers need of the edges, in pairs of mutual reverses.

    ``basis`` has one row for each edge, or one for each pair if radial functions do not depend
    on the direction of an edge.
    """

    basis: Float[Array, "rows k"]
    sphericals: Float[Array, "edges m"]
    senders: Int[Array, " edges"]
    receivers: Int[Array, " edges"]


def convolve(
    layout: LayerLayout,
    radial: Callable[[Array, Array, Array], Array],
    messages: Features,
    edges: Edges,
    species: Int[Array, " atoms"],
) -> Features:
    """Return the sums over neighbours, ``{input irrep: (atoms, a, u)}``.

    ``radial(basis, z_i, z_j)`` gives the radial functions of a block of edges.
    """

    def contribution(block: Edges) -> Features:
        return _edge_sum(layout, radial, messages, block, species)

    count = edge_blocks(len(edges.senders))
    if count == 1:
        return contribution(edges)
    blocks = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), edges)
    contribution = jax.checkpoint(contribution, prevent_cse=False)
    shapes = jax.eval_shape(contribution, jax.tree.map(lambda x: x[0], blocks))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(
        lambda sums, block: (jax.tree.map(jnp.add, sums, contribution(block)), None),
        zeros,
        blocks,
    )[0]


def _edge_sum(
    layout: LayerLayout,
    radial: Callable[[Array, Array, Array], Array],
    messages: Features,
    edges: Edges,
    species: Int[Array, " atoms"],
) -> Features:
    stride = len(edges.senders) // max(len(edges.basis), 1) or 1
    z_i = pick(species, edges.receivers[::stride])
    z_j = pick(species, edges.senders[::stride])
    functions = jnp.repeat(radial(edges.basis, z_i, z_j), stride, axis=0)
    radials = split_radial(layout, functions)
    angulars = angular_factors(layout, edges.sphericals)
    sums = {}
    for key, groups in layout.groups.items():
        sent = pick(messages[key], edges.senders)
        weighted = couple(angulars[key], sent) * expand_paths(groups, radials[key])
        sums[key] = jax.ops.segment_sum(
            weighted, edges.receivers, len(species), mode="promise_in_bounds"
        )
    return sums


def pick(values: Array, index: Int[Array, " edges"]) -> Array:
    """Return values[index] without the code that guards against indices out of bounds."""
    return values.at[index].get(mode="promise_in_bounds")


@jax.custom_jvp
def couple(
    angular: Float[Array, "edges a b"], sent: Float[Array, "edges b u"]
) -> Float[Array, "edges a u"]:
    """Return sum_b G[e, a, b] g[e, b, u].

    Written as a sum of outer products, which XLA fuses on the CPU. The derivative is written so
    that its transpose contracts channels by a batched matrix product (14 times faster than what
    the transpose of the sum compiles to) and components by one fused reduction.
    """
    return jnp.sum(angular[..., None] * sent[:, None], axis=2)


@couple.defjvp
def _couple_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (angular, sent), (angular_dot, sent_dot) = primals, tangents
    tangent = jnp.einsum("eab,ebu->eau", angular_dot, sent) + couple(angular, sent_dot)
    return couple(angular, sent), tangent

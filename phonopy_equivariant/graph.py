"""Neighbour lists and jraph graphs of periodic structures.

Edges come in consecutive pairs: edge 2k and edge 2k+1 are each other's reverse. Functions of
the distance alone are therefore evaluated once per pair. Padding keeps the order.
"""

from __future__ import annotations

import jraph
import numpy as np
from jaxtyping import Int
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.convolution import EDGE_BLOCK
from phonopy_equivariant.structure import Structure, neighbours

# Numbers of edges of small graphs.
_SMALL = (32, 64, 96, 144, 216, 344, EDGE_BLOCK)

# Atoms closer than this (Å) are taken for a mistake in the input: H2 has 0.74 Å.
OVERLAP = 0.3


def neighbour_pairs(
    structure: Structure, cutoff: float
) -> tuple[Int[ndarray, " pairs"], Int[ndarray, " pairs"], Int[ndarray, "pairs 3"]]:
    """Return each unordered pair (i; j, S) with |x_j + S·L - x_i| < cutoff once.

    An atom pairs with its own images too, once for S and -S together.

    Raises
    ------
    PhonopyEquivariantError
        Two atoms lie closer than 0.3 Å.

    """
    i, j, shifts, distances = neighbours(structure, cutoff)
    if len(distances) and distances.min() < OVERLAP:
        closest = int(distances.argmin())
        raise PhonopyEquivariantError(
            f"Atoms {i[closest] + 1} and {j[closest] + 1} are {distances[closest]:.3f} Å apart: "
            "the structure has overlapping atoms; remove the duplicate or check the units."
        )
    # vesin's order depends on its cell list; ours on the structure alone
    order = np.lexsort((shifts[:, 2], shifts[:, 1], shifts[:, 0], j, i))
    return i[order].astype(np.int32), j[order].astype(np.int32), shifts[order].astype(np.int32)


def build_graph(
    structure: Structure, cutoff: float, species: Int[ndarray, " atoms"]
) -> jraph.GraphsTuple:
    """Return the graph of one structure, without padding.

    Edge e = (j, S) -> i has sender j, receiver i and vector r_e = x_j + S·L - x_i.

    Returns
    -------
    jraph.GraphsTuple
        nodes: ``positions`` (atoms, 3) Å, ``species`` (atoms,) index into the model's table;
        edges: ``shifts`` (edges, 3) integers S; globals: ``cell`` (1, 3, 3) Å.

    """
    i, j, shifts = neighbour_pairs(structure, cutoff)
    return jraph.GraphsTuple(
        nodes={"positions": structure.positions, "species": species.astype(np.int32)},
        edges={"shifts": _interleave(shifts, -shifts)},
        senders=_interleave(j, i),
        receivers=_interleave(i, j),
        globals={"cell": structure.cell[None]},
        n_node=np.array([len(structure.numbers)], np.int32),
        n_edge=np.array([2 * len(i)], np.int32),
    )


def bucket_size(count: int, minimum: int = 16) -> int:
    """Return the smallest bucket that holds ``count``: 16 · 2^(k/4), rounded up to even.

    The ratio 1.19 keeps wasted work below 19 % (8 % on average), with four sizes an octave.
    """
    steps = max(0, int(4 * np.log2(max(count, 1) / minimum)))
    while (size := 2 * int(np.ceil(minimum * 2 ** (steps / 4) / 2))) < count:
        steps += 1
    return size


def edge_bucket(count: int) -> int:
    """Return the bucket for a number of edges: equal blocks where there is more than one."""
    size = bucket_size(count)
    blocks = -(-size // EDGE_BLOCK)
    # blocks of a multiple of 8 edges: whole vectors of the processor
    return size if blocks == 1 else blocks * 8 * -(-size // (8 * blocks))


def graph_sizes(atoms: int, edges: int) -> tuple[int, int]:
    """Return numbers of nodes and edges that hold a graph and its padding, few for all crystals.

    Up to one block of edges the ratio of sizes is 1.5 to 2: what is wasted costs a millisecond,
    a program seconds. Beyond, sizes are those of :func:`edge_bucket`. The number of nodes is the
    number of edges divided by a power of two: an atom costs as much as a few edges.
    """
    n_edge = next((size for size in _SMALL if size >= edges), 0) or edge_bucket(edges)
    halvings = int(np.floor(np.log2(n_edge / (atoms + 1))))
    return int(np.ceil(n_edge / 2.0**halvings)), n_edge


def pad_graph(
    graph: jraph.GraphsTuple, n_node: int | None = None, n_edge: int | None = None
) -> jraph.GraphsTuple:
    """Pad with one graph of isolated atoms, to :func:`graph_sizes` unless sizes are given.

    The padding atoms have no edges but those of the padding graph, which all join its first
    atom to itself; :func:`edge_mask` marks them.
    """
    real_nodes, real_edges = int(graph.n_node.sum()), int(graph.n_edge.sum())
    room = graph_sizes(real_nodes, real_edges)
    n_node = room[0] if n_node is None else n_node
    n_edge = room[1] if n_edge is None else n_edge
    return jraph.pad_with_graphs(graph, n_node, n_edge, len(graph.n_node) + 1)


def extended_graph(
    structure: Structure, cutoff: float, num_interactions: int, species: Int[ndarray, " atoms"]
) -> tuple[jraph.GraphsTuple, Int[ndarray, " nodes"], Int[ndarray, "nodes 3"]]:
    """Return the explicit extended graph of the unit cell (arXiv:2403.11347).

    Its nodes are the home cell's atoms, first and in order, and every image within
    ``num_interactions * cutoff`` of a home atom: all that the home site energies depend on.
    Its edges need no shifts.

    Returns
    -------
    graph, owner, image
        The graph, the home atom that each node is an image of, and the integer cell vector it
        is displaced by.

    """
    reach = num_interactions * cutoff
    i, j, shifts = neighbour_pairs(structure, reach)
    atoms = len(structure.numbers)
    home = np.column_stack([np.arange(atoms), np.zeros((atoms, 3), int)])
    reached = np.vstack([np.column_stack([j, shifts]), np.column_stack([i, -shifts])])
    images = np.unique(reached[np.any(reached[:, 1:] != 0, axis=1)], axis=0)
    nodes = np.vstack([home, images]).astype(np.int32)
    owner, image = nodes[:, 0], nodes[:, 1:]
    cluster = Structure(
        structure.numbers[owner],
        structure.positions[owner] + image @ structure.cell,
        np.zeros((3, 3)),
        np.zeros(3, bool),
    )
    return build_graph(cluster, cutoff, species[owner]), owner, image


def _interleave(forward: ndarray, backward: ndarray) -> ndarray:
    return np.stack([forward, backward], axis=1).reshape(-1, *forward.shape[1:])

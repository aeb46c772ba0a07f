"""Batches of structures: one padded graph of one size per set, so that little compiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import jax
import jraph
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from phonopy_equivariant.data.record import Record
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.graph import bucket_size, edge_bucket, pad_graph
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.training.config import HessianTerm

GRAPH_TERMS = ("energy", "forces", "stress", "hessian")

# A batch has room for this many times the mean structure: few leave a hole, little is padding.
_ROOM = 1.25


# Bytes of graphs, or of cells, of one set that stay in memory.
_CACHE_BYTES = 2**27
# Bytes of an array beside its numbers; graphs of a few atoms have more of them than of numbers.
_BESIDE = 250

Sizes = Int[ndarray, "structures 2"]  # atoms and edges
Value = TypeVar("Value")


class Budget(NamedTuple):
    """Size of a padded batch: atoms, edges and structures, padding not counted."""

    nodes: int
    edges: int
    graphs: int


def labelled_graph(potential: Potential, record: Record) -> jraph.GraphsTuple:
    """Return a record's graph with its labels; its ``share`` is 1 for each label the record has.

    A label that the record lacks is zero in the graph, and so is its share.

    Raises
    ------
    PhonopyEquivariantError
        Atoms overlap, or the potential does not know an element; the message gives the file and
        the index of the record.

    """
    try:
        graph = potential.graph(record.structure)
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{record.source or 'A record'}: {error}") from error
    atoms = len(record.structure.numbers)
    periodic = bool(record.structure.pbc.all())
    forces = np.zeros((atoms, 3)) if record.forces is None else record.forces
    stress = np.zeros((3, 3)) if record.stress is None else record.stress
    has_label = {
        "energy": record.energy is not None,
        "forces": record.forces is not None,
        "stress": record.stress is not None and periodic,
        "hessian": is_gamma(record),
    }
    return graph._replace(
        nodes=graph.nodes | {"forces": forces},
        globals=graph.globals
        | {
            "volume": np.array([record.structure.volume or 1.0]),
            "energy": np.array([0.0 if record.energy is None else record.energy]),
            "stress": stress[None],
            "share": {name: np.array([float(value)]) for name, value in has_label.items()},
        },
    )


def is_gamma(record: Record) -> bool:
    """Tell whether a record has a Hessian of its own cell, q = 0 and no other."""
    constants = record.force_constants
    return constants is not None and len(constants.qpoints) == 1 and not np.any(constants.qpoints)


class ValueCache(Generic[Value]):
    """Values of a function of places, kept in memory as far as there is room.

    Values that do not fit are made anew each time. No value is thrown out for another: an epoch
    comes to every place once, so that exchanging values would save nothing.
    """

    def __init__(self, make: Callable[[int], Value], room: int = _CACHE_BYTES):
        self._make, self._room = make, room
        self._values: dict[int, Value] = {}

    def __getitem__(self, place: int) -> Value:
        if place in self._values:
            return self._values[place]
        return self.store(place, self._make(place))

    def store(self, place: int, value: Value) -> Value:
        """Return the value of a place, and keep it if there is room."""
        size = sum(np.asarray(leaf).nbytes + _BESIDE for leaf in jax.tree.leaves(value))
        if size <= self._room:
            self._room -= size
            self._values[place] = value
        return value


class Graphs:
    """The graphs of records with their labels, made when they are asked for.

    Attributes
    ----------
    sizes
        Atoms and edges of each.
    has
        Whether each has the data of a term: "energy", "forces", "stress", "hessian" (at Γ).

    """

    def __init__(self, potential: Potential, records: Sequence[Record]):
        self._graphs = ValueCache(lambda place: labelled_graph(potential, records[place]))
        sizes, shares = [], []
        for place, record in enumerate(records):
            graph = self._graphs.store(place, labelled_graph(potential, record))
            sizes.append([int(graph.n_node[0]), int(graph.n_edge[0])])
            shares.append([bool(graph.globals["share"][name][0]) for name in GRAPH_TERMS])
        self.sizes: Sizes = np.array(sizes, int).reshape(-1, 2)
        columns = np.array(shares, bool).reshape(-1, len(GRAPH_TERMS)).T
        self.has = dict(zip(GRAPH_TERMS, columns, strict=True))

    def __getitem__(self, place: int) -> jraph.GraphsTuple:
        return self._graphs[place]


def budget(sizes: Sizes, batch_size: int) -> Budget:
    """Return the size that batches of ``batch_size`` of these structures are padded to."""

    def room(counts: ndarray) -> int:
        return int(max(counts.max(), batch_size * min(counts.max(), _ROOM * counts.mean())))

    nodes, edges = sizes.T
    return Budget(bucket_size(room(nodes) + 1, 4), edge_bucket(room(edges)), batch_size)


def fill(order: Sequence[int], sizes: Sizes, size: Budget) -> list[ndarray]:
    """Split an order of structures into batches that fit, without reordering."""
    batches: list[list[int]] = [[]]
    nodes = edges = 0
    for index in order:
        n, e = sizes[index].tolist()
        is_full = len(batches[-1]) == size.graphs
        if batches[-1] and (is_full or nodes + n >= size.nodes or edges + e > size.edges):
            batches.append([])
            nodes = edges = 0
        batches[-1].append(index)
        nodes, edges = nodes + n, edges + e
    return [np.array(batch) for batch in batches]


def pack(
    graphs: Sequence[jraph.GraphsTuple], size: Budget, like: jraph.GraphsTuple
) -> jraph.GraphsTuple:
    """Return structures as one graph, padded to ``size``.

    Missing structures are empty graphs with the keys of ``like``; padding atoms and edges belong
    to one last graph. Edges stay in pairs of mutual reverses, as
    :mod:`phonopy_equivariant.graph` wants them.
    """
    empty = [_empty_like(like)] * (size.graphs - len(graphs))
    joined = jraph.batch_np([*graphs, *empty])
    return pad_graph(joined, size.nodes, size.edges)


def with_shares(graph: jraph.GraphsTuple, factors: Mapping[str, float]) -> jraph.GraphsTuple:
    """Return a structure whose shares in the means of the terms are times a factor each."""
    share = {name: factor * graph.globals["share"][name] for name, factor in factors.items()}
    return graph._replace(globals=graph.globals | {"share": share})


def with_samples(
    graph: jraph.GraphsTuple,
    hessian: Float[ndarray, "columns columns"] | None,
    term: HessianTerm,
    generator: np.random.Generator,
) -> jraph.GraphsTuple:
    """Return a structure with random directions and the Hessian's values along them.

    The estimator of the term decides the values: u·H·v of pairs of directions, or H·v.
    """
    atoms = int(graph.n_node[0])
    matrix = np.zeros((3 * atoms, 3 * atoms)) if hessian is None else hessian
    if term.estimator == "pairs":
        left, right = (
            _single_atom_directions(atoms, generator.integers(atoms, size=term.samples), directions)
            for directions in (_unit(generator, term.samples), _unit(generator, term.samples))
        )
        values = np.einsum("xk,xy,yk->k", _flat(left), matrix, _flat(right))
        return graph._replace(
            nodes=graph.nodes | {"left": left, "right": right},
            globals=graph.globals | {"pairs": values[None]},
        )
    if term.estimator == "probes":
        right = generator.choice([-1.0, 1.0], (atoms, term.samples, 3))
    else:
        sampled_atoms = generator.choice(atoms, term.samples, replace=term.samples > atoms)
        right = _single_atom_directions(
            atoms, np.repeat(sampled_atoms, 3), np.tile(np.eye(3), (term.samples, 1))
        )
    products = (matrix @ _flat(right)).reshape(atoms, 3, -1).transpose(0, 2, 1)
    return graph._replace(nodes=graph.nodes | {"right": right, "products": products})


def _flat(directions: Float[ndarray, "atoms samples 3"]) -> Float[ndarray, "columns samples"]:
    return directions.transpose(0, 2, 1).reshape(-1, directions.shape[1])


def _single_atom_directions(
    atoms: int, atom_indices: ndarray, vectors: ndarray
) -> Float[ndarray, "atoms samples 3"]:
    """Return displacement patterns that move one atom each, by one of ``vectors``."""
    result = np.zeros((atoms, len(atom_indices), 3))
    result[atom_indices, np.arange(len(atom_indices))] = vectors
    return result


def _unit(generator: np.random.Generator, count: int) -> Float[ndarray, "count 3"]:
    vectors = generator.normal(size=(count, 3))
    unit: ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _empty_like(graph: jraph.GraphsTuple) -> jraph.GraphsTuple:
    def empty(arrays: dict[str, ndarray]) -> dict[str, ndarray]:
        return {name: array[:0] for name, array in arrays.items()}

    return graph._replace(
        nodes=empty(graph.nodes),
        edges=empty(graph.edges),
        senders=graph.senders[:0],
        receivers=graph.receivers[:0],
        globals=jax.tree.map(np.zeros_like, graph.globals),
        n_node=np.zeros_like(graph.n_node),
        n_edge=np.zeros_like(graph.n_edge),
    )

"""Φ(q) of a crystal for any list of q: network, expansion once, then blocks of q."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Complex, Float, Int
from numpy import ndarray

from phonopy_equivariant.compilation import compiled
from phonopy_equivariant.graph import edge_bucket
from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch import PairTable, bloch_force_constants
from phonopy_equivariant.response.expansion import Expansion, Network, expand

# Bytes that one block of q may take unless the caller says otherwise.
MAX_MEMORY = 4 * 2**30

# Up to this many atoms real and complex q share one program.
SMALL_CELL = 4


class Lattice(NamedTuple):
    """A structure expanded for the Bloch response: everything that does not depend on q."""

    expansion: Expansion
    species: Int[ndarray, " atoms"]
    shifts: Int[ndarray, "edges 3"]
    slots: Int[ndarray, "pairs m"]
    filled: Float[ndarray, "pairs m"]


def lattice_force_constants(
    potential: Potential,
    primitive: Any,
    qpoints: Float[ndarray, "q 3"],
    max_memory: int = MAX_MEMORY,
) -> Complex[ndarray, "q columns columns"]:
    """Return Φ(q) in the lattice gauge, (n_q, 3n, 3n), eV/Å².

    Φ_ij(q) = sum_S Φ(0i, Sj) e^{2πi q·S}, S the integer cell vectors of ``primitive`` and q in
    units of its reciprocal vectors. Exact at every q; no supercell is involved.

    Parameters
    ----------
    potential, primitive
        A layered potential; an ASE, phonopy or own structure, periodic in three directions
        (others need q = 0 along their open directions).
    qpoints
        Points in units of the reciprocal lattice vectors.
    max_memory
        Bytes that a block of q may take; more q at once are faster.

    """
    lattice = prepare(potential, primitive)
    qpoints = np.asarray(qpoints, float).reshape(-1, 3)
    columns = 3 * len(lattice.species)
    result = np.empty((len(qpoints), columns, columns), complex)
    for parts, chosen in _real_and_complex(qpoints, len(lattice.species)):
        size = block_size(potential, lattice, parts, len(chosen), max_memory)
        for start in range(0, len(chosen), size):
            block = chosen[start : start + size]
            result[block] = _block(potential, lattice, qpoints[block], parts, size)
    return result


def prepare(potential: Potential, primitive: Any) -> Lattice:
    """Expand the energy of a structure in its edges: the part of the work that is free of q."""
    graph = potential.graph(primitive)
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    shifts = np.asarray(graph.edges["shifts"])
    positions, cell = graph.nodes["positions"], graph.globals["cell"][0]
    species = graph.nodes["species"]
    vectors = positions[senders] + shifts @ cell - positions[receivers]
    # padding edges join atom 0 to itself far beyond the cutoff, where all kernels vanish
    padding = edge_bucket(len(senders)) - len(senders)
    padded_vectors = np.concatenate([vectors, np.tile([1e3, 0.0, 0.0], (padding, 1))])
    zeros = np.zeros(padding, np.int32)
    slots, filled = _pair_slots(senders, receivers, len(species))
    expansion = _expand(
        potential.model,
        potential.params,
        padded_vectors.astype(potential.dtype),
        np.concatenate([senders, zeros]),
        np.concatenate([receivers, zeros]),
        species,
    )
    return Lattice(expansion, species, shifts, slots, filled.astype(potential.dtype))


def block_size(
    potential: Potential, lattice: Lattice, parts: int, count: int, max_memory: int
) -> int:
    """Return how many q go into one block: all, in equal blocks that fit the memory."""
    atoms, slots = len(lattice.species), lattice.slots.shape[1]
    width = max(
        layer.layout.num_components(key) * layer.layout.inputs[key] * (3 if key != "0e" else 1)
        for layer in potential.model.layers
        for key in layer.layout.groups
    )
    itemsize = np.dtype(potential.dtype).itemsize
    operator = 3 * parts * atoms**2 * width
    columns = 8 * parts * 3 * atoms * atoms * width
    fixed = 2 * atoms**2 * slots * width
    fitting = (max_memory / itemsize - fixed) / (operator + columns)
    blocks = -(-count // max(1, int(fitting)))
    return -(-count // blocks)


def _real_and_complex(qpoints: ndarray, atoms: int) -> list[tuple[int, ndarray]]:
    """Return (number of parts, indices of q) of what is computed together.

    Where 2q is a reciprocal lattice vector everything is real. In a small cell a program of its
    own for these q costs more, compiled or run, than it saves.
    """
    doubled = 2 * qpoints
    real = np.abs(doubled - np.rint(doubled)).max(axis=1, initial=0) < 1e-12
    if atoms <= SMALL_CELL and not real.all():
        return [(2, np.arange(len(qpoints)))]
    groups = [(1, np.flatnonzero(real)), (2, np.flatnonzero(~real))]
    return [(parts, chosen) for parts, chosen in groups if len(chosen)]


def _block(
    potential: Potential, lattice: Lattice, qpoints: ndarray, parts: int, size: int
) -> ndarray:
    """Return Φ(q) of one block, padded with q = 0 to the block's size."""
    padded = np.zeros((size, 3))
    padded[: len(qpoints)] = qpoints
    angles = 2 * np.pi * (padded @ lattice.shifts.T)
    phases = np.stack([np.cos(angles), np.sin(angles)][:parts], axis=1)[:, :, lattice.slots]
    values = _bloch(
        potential.model,
        potential.params,
        lattice.expansion,
        lattice.species,
        lattice.slots,
        lattice.filled,
        (phases * lattice.filled).astype(potential.dtype),
    )
    found = np.asarray(values, float)[: len(qpoints)]
    return found[:, 0] if parts == 1 else found[:, 0] + 1j * found[:, 1]


def _pair_slots(senders: ndarray, receivers: ndarray, atoms: int) -> tuple[ndarray, ndarray]:
    """Return the edges of every pair (i, j) = (receiver, sender), and which slots are filled."""
    pair = receivers.astype(int) * atoms + senders
    counts = np.bincount(pair, minlength=atoms**2)
    order = np.argsort(pair, kind="stable")
    rank = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    slots = np.zeros((atoms**2, max(1, counts.max(initial=0))), np.int32)
    filled = np.zeros(slots.shape)
    slots[pair[order], rank] = order
    filled[pair[order], rank] = 1.0
    return slots, filled


@compiled(static_argnums=(0,))
def _expand(
    model: LayeredModel,
    params: Params,
    vectors: Array,
    senders: Array,
    receivers: Array,
    species: Array,
) -> Expansion:
    return expand(model, params, Network(vectors, senders, receivers, species))


@compiled(static_argnums=(0,))
def _bloch(
    model: LayeredModel,
    params: Params,
    expansion: Expansion,
    species: Array,
    slots: Array,
    filled: Array,
    phases: Array,
) -> Array:
    table = PairTable(slots, filled, phases)
    return bloch_force_constants(model, params, expansion, species, table)

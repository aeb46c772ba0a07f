"""A crystal expanded for the Bloch response: network, expansion, pairs of atoms."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from numpy import ndarray

from phonopy_equivariant.graph import edge_bucket
from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.arrays import on_host
from phonopy_equivariant.response.bloch.equilibrium import (
    Equilibrium,
    WeightedEdges,
    sums_over_edges,
)
from phonopy_equivariant.response.bloch.execution import Host, Traced, host_driven
from phonopy_equivariant.response.bloch.expansion import Expansion, expand
from phonopy_equivariant.response.bloch.network import Network
from phonopy_equivariant.response.bloch.rehearsal import begin_programs
from phonopy_equivariant.response.symmetry.little_group import Orbits
from phonopy_equivariant.response.symmetry.operations import Operations
from phonopy_equivariant.runtime.blas import one_blas_thread
from phonopy_equivariant.runtime.compilation import compiled, x64_mode


class Motion(NamedTuple):
    """How edges move with a parameter η: dr_e/dη = r_e·strain + displacement_j - displacement_i."""

    strain: Float[ndarray, "3 3"]
    displacements: Float[ndarray, "atoms 3"]  # Å


class Lattice(NamedTuple):
    """A structure expanded for the Bloch response: everything that does not depend on q."""

    expansion: Expansion
    slope: Expansion | None  # its derivative along a motion
    cell: Float[ndarray, "3 3"]
    edges: WeightedEdges
    species: Int[ndarray, " atoms"]
    receivers: Int[ndarray, " receivers"]  # atoms
    shifts: Int[ndarray, "edges 3"]
    slots: Int[ndarray, "receivers atoms m"]
    filled: Float[ndarray, "receivers atoms m"]

    @property
    def on_host(self) -> bool:
        """Whether blocks are driven from the host, so that no program depends on the crystal."""
        return on_host(self.expansion.bond)


def prepare(
    potential: Potential,
    primitive: Any,
    symmetry: Orbits | None = None,
    motion: Motion | None = None,
) -> Lattice:
    """Expand the energy of a structure in its edges: the part of the work that is free of q.

    With ``symmetry`` only edges into its receivers are computed; with ``motion`` the derivative
    of the expansion as well.
    """
    graph = potential.graph(primitive)
    species, cell = graph.nodes["species"], graph.globals["cell"][0]
    atoms = len(species)
    chosen = np.arange(atoms) if symmetry is None else symmetry.receivers
    place = np.full(atoms, -1)
    place[chosen] = np.arange(len(chosen))
    kept = place[np.asarray(graph.receivers)] >= 0
    senders, into = np.asarray(graph.senders)[kept], np.asarray(graph.receivers)[kept]
    shifts, positions = np.asarray(graph.edges["shifts"])[kept], graph.nodes["positions"]
    vectors = positions[senders] + shifts @ cell - positions[into]
    # the edges of a receiver stand together: their sums need no other order
    order = np.lexsort((senders, into))
    senders, into, shifts, vectors = senders[order], into[order], shifts[order], vectors[order]
    receivers = place[into].astype(np.int32)
    host = motion is None and host_driven()
    # padding edges join atom 0 to itself far beyond the cutoff, where all kernels vanish
    count = max(1, len(senders)) if host else edge_bucket(len(senders))
    padding = count - len(senders)
    padded_vectors = np.concatenate([vectors, np.tile([1e3, 0.0, 0.0], (padding, 1))])
    tangent = None
    if motion is not None:
        displaced = motion.displacements[senders] - motion.displacements[into]
        moved = vectors @ motion.strain + displaced
        tangent = np.pad(moved, ((0, padding), (0, 0))).astype(potential.dtype)
    zeros = np.zeros(padding, np.int32)
    shifts = np.concatenate([shifts, np.zeros((padding, 3), shifts.dtype)])
    weight = np.ones(len(into)) if symmetry is None else symmetry.weight[receivers]
    edges = WeightedEdges(vectors, senders, into, weight)
    slots, filled = pair_slots(senders, receivers, atoms, len(chosen))
    network = Network(
        padded_vectors.astype(potential.dtype),
        np.concatenate([senders, zeros]),
        np.concatenate([receivers, zeros]),
        species,
        symmetry,
    )
    if host:
        begin_programs(potential)
        with x64_mode(), one_blas_thread():
            expansion, slope = expand(Host(potential.model, potential.params), network), None
    else:
        expansion, slope = _expand(
            potential.model, potential.params, *network[:4], symmetry, tangent
        )
    shape = (len(chosen), atoms, -1)
    filled = filled.astype(potential.dtype).reshape(shape)
    slots = slots.reshape(shape)
    return Lattice(expansion, slope, cell, edges, species, chosen, shifts, slots, filled)


def equilibrium_of(lattice: Lattice, symmetry: Operations | None = None) -> Equilibrium:
    """Return forces, stress and features; ``symmetry`` if it chose the receivers."""
    count = len(lattice.edges.vectors)
    gradient = np.asarray(lattice.expansion.gradient, float)[:count]
    forces, stress = sums_over_edges(
        lattice.edges, gradient, lattice.cell, len(lattice.species), symmetry
    )
    features = np.asarray(lattice.expansion.scalars, float)
    return Equilibrium(forces, stress, features, lattice.receivers)


def pair_slots(
    senders: ndarray, receivers: ndarray, atoms: int, num_receivers: int | None = None
) -> tuple[ndarray, ndarray]:
    """Return the edges of every pair (i, j) = (receiver, sender), and which slots are filled."""
    pairs = atoms * (atoms if num_receivers is None else num_receivers)
    pair = receivers.astype(int) * atoms + senders
    counts = np.bincount(pair, minlength=pairs)
    order = np.argsort(pair, kind="stable")
    rank = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    slots = np.zeros((pairs, max(1, counts.max(initial=0))), np.int32)
    filled = np.zeros(slots.shape)
    slots[pair[order], rank] = order
    filled[pair[order], rank] = 1.0
    return slots, filled


@compiled(static_argnums=(0,), keep=True)
def _expand(
    model: LayeredModel,
    params: Params,
    vectors: Array,
    senders: Array,
    receivers: Array,
    species: Array,
    symmetry: Orbits | None,
    tangent: Array | None,
) -> tuple[Expansion, Expansion | None]:
    def function(moved: Array) -> Expansion:
        network = Network(moved, senders, receivers, species, symmetry)
        return expand(Traced(model, params), network)

    if tangent is None:
        return function(vectors), None
    return jax.jvp(function, (vectors,), (tangent,))

"""The energy of a crystal expanded in its edges to third order: all that is free of q."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch import local
from phonopy_equivariant.response.bloch.arrays import Features
from phonopy_equivariant.response.bloch.execution import PROGRAMS, Host
from phonopy_equivariant.response.bloch.local import Point
from phonopy_equivariant.response.bloch.network import Network
from phonopy_equivariant.response.bloch.node import ProductExpansion
from phonopy_equivariant.response.bloch.prepare import pair_slots
from phonopy_equivariant.response.symmetry.operations import Operations
from phonopy_equivariant.response.third.edge_orbits import (
    EdgeOrbits,
    angular_derivatives,
    edge_orbits,
    turned,
)
from phonopy_equivariant.response.third.edges import (
    ThirdEdgeTerms,
    ThirdGeometry,
    third_edge_terms,
    third_geometry,
    third_pair_term,
)
from phonopy_equivariant.response.third.flat import Shapes, known_irreps, pack, shapes_of
from phonopy_equivariant.response.third.gates import GateExpansion, expand_gates
from phonopy_equivariant.response.third.nodes import (
    mix_rows,
    readout_slope,
    respond_adjoint,
    second_change,
)
from phonopy_equivariant.runtime.compilation import compiled, x64_mode

PROGRAMS.update(
    {
        function: compiled(static_argnums=(0,), keep=True, once_for="all crystals")(function)
        for function in (
            third_geometry,
            third_pair_term,
            third_edge_terms,
            respond_adjoint,
            mix_rows,
            readout_slope,
            second_change,
        )
    }
)

# Rows of one block of second_change: a call costs as much as some hundred rows.
CHANGES = 192

# Edges of one block of third_edge_terms, which are twice as fast where they stay in the cache.
EDGES = 16


class ThirdHost(Host):
    """Host-driven blocks: fewer edges at once, and more pairs of changes."""

    def edges(self, function: Callable[..., Any], static: Any, shared: Any, items: Any) -> Any:
        """Return a function of all edges."""
        if function is third_edge_terms:
            return self._in_blocks(function, EDGES, static, shared, items)
        return super().edges(function, static, shared, items)

    def rows(
        self, function: Callable[..., Any], static: Any, shared: Any, items: Any, zero: Any
    ) -> Any:
        """Return a function of all rows."""
        return super().rows(function, static, shared, self.typed(items), zero)

    def changes(self, function: Callable[..., Any], static: Any, shared: Any, items: Any) -> Any:
        """Return a function of all pairs of changes."""
        return self._in_blocks(function, CHANGES, static, shared, self.typed(items))

    def typed(self, items: Any) -> Any:
        """Return items in the model's precision: phases and rotations are in double precision."""
        return jax.tree.map(lambda x: x.astype(self.dtype, copy=False), items)


class ThirdLayer(NamedTuple):
    """Expansion of one layer at the atoms and on the edges; features of edges are flat.

    ``radial`` and ``angular`` are the factors of K and its gradient.
    """

    point: Point
    product: ProductExpansion | None
    radial: Features  # (edges, 2, paths, u)
    angular: Features  # (edges, 4, a, b)
    source: Float[ndarray, "edges 3 y"]
    second_source: Float[ndarray, "edges 6 y"]
    adjoint: Float[ndarray, "edges 3 g"]
    second_adjoint: Float[ndarray, "edges 6 g"]
    mixed: Shapes  # shapes of y, of messages and of h'
    messages: Shapes
    updated: Shapes
    gates: GateExpansion | None  # of layers that are gates, which need no program


class MovedLayer(NamedTuple):
    """Derivatives of the terms of a layer's edges along a motion.

    ``second_source`` and ``second_adjoint`` are those of ``source`` and ``adjoint`` of a
    :class:`ThirdLayer`, of which messages and adjoints change too.
    """

    source: Float[ndarray, "edges y"]
    second_source: Float[ndarray, "edges 3 y"]
    adjoint: Float[ndarray, "edges g"]
    second_adjoint: Float[ndarray, "edges 3 g"]


class Moved(NamedTuple):
    """A motion of the crystal, and derivatives along it."""

    tangents: Float[ndarray, "edges 3"]  # dr/dη of every edge
    layers: tuple[MovedLayer, ...]
    bond: Float[ndarray, "edges 3 3"]


class ThirdExpansion(NamedTuple):
    """A crystal expanded to third order; edges stand receiver by receiver."""

    run: ThirdHost
    layers: tuple[ThirdLayer, ...]
    bond: Float[ndarray, "edges 3 3 3"]  # eV/Å³
    species: Int[ndarray, " atoms"]
    vectors: Float[ndarray, "edges 3"]
    unit: Float[ndarray, "edges 3"]
    senders: Int[ndarray, " edges"]
    receivers: Int[ndarray, " edges"]
    shifts: Int[ndarray, "edges 3"]
    slots: Int[ndarray, "atoms atoms m"]  # edges of every pair (i, j)
    filled: Float[ndarray, "atoms atoms m"]  # 1, or 0 where a slot is empty
    moved: Moved | None = None


def expand_to_third_order(
    potential: Potential, primitive: Any, symmetry: Operations | None = None
) -> ThirdExpansion:
    """Expand the energy of a structure in its edge vectors to third order.

    Of edges that operations relate, which structure and potential obey, one is computed.
    """
    graph = potential.graph(primitive)
    species, cell = np.asarray(graph.nodes["species"]), graph.globals["cell"][0]
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    shifts, positions = np.asarray(graph.edges["shifts"]), graph.nodes["positions"]
    vectors = positions[senders] + shifts @ cell - positions[receivers]
    if not len(senders):  # an edge far beyond the cutoff, where all kernels vanish
        senders = receivers = np.zeros(1, int)
        shifts, vectors = np.zeros((1, 3), int), np.array([[1e3, 0.0, 0.0]])
    order = np.lexsort((senders, receivers))
    network = Network(
        vectors[order].astype(potential.dtype), senders[order], receivers[order], species
    )
    with x64_mode():
        run = ThirdHost(potential.model, potential.params)
        return crystal_of_network(run, network, shifts[order], symmetry)


def crystal_of_network(
    run: ThirdHost,
    network: Network,
    shifts: Int[ndarray, "edges 3"],
    symmetry: Operations | None = None,
) -> ThirdExpansion:
    """Expand the energy of a network of atoms; to be called in 64-bit mode.

    Edges stand receiver by receiver; ``shifts`` are the cell vectors to their senders.
    """
    layers, bond = _expand(run, network, shifts, symmetry)
    atoms = len(network.species)
    slots, filled = pair_slots(network.senders, network.receivers, atoms)
    return ThirdExpansion(
        run,
        layers,
        bond,
        network.species,
        network.vectors,
        network.vectors / np.linalg.norm(network.vectors, axis=1)[:, None],
        network.senders,
        network.receivers,
        shifts,
        slots.reshape(atoms, atoms, -1),
        filled.reshape(atoms, atoms, -1),
    )


def _expand(
    run: ThirdHost,
    network: Network,
    shifts: Int[ndarray, "edges 3"],
    symmetry: Operations | None,
) -> tuple[tuple[ThirdLayer, ...], ndarray]:
    ends = network.edge_species()
    edges = run.edges(third_geometry, run.model, (run.shared,), (network.vectors, *ends))
    states = _forward(run, network, edges)
    orbits = _orbits(states, network, shifts, symmetry)
    bond: Any = 0.0
    if run.model.pair is not None:
        bond = run.edges(third_pair_term, run.model, (run.shared,), (edges, *ends))
    adjoints: tuple[Features, Features] = ({}, {})
    layers = []
    for t in reversed(range(len(states))):
        messages, features, mixed, updated = states[t]
        items = (features, mixed, updated, adjoints, network.species)
        later, mu, nu, product = run.atoms(local.backward, run.kinds[t], run.of_layer(t), items)
        terms = _edge_terms(run, t, network, (edges, *ends), (messages, mu), orbits)
        adjoints = (nu, run.typed(network.sum_at_senders(terms.returned)))
        bond = bond + terms.bond
        point = Point(features, mixed, updated, later)
        gates = _gates(run, t, point, network.species)
        layers.append(_layer(terms, point, product, messages, gates))
    return tuple(reversed(layers)), bond


def _orbits(
    states: list[tuple[Features, Features, Features, Features]],
    network: Network,
    shifts: Int[ndarray, "edges 3"],
    symmetry: Operations | None,
) -> EdgeOrbits | None:
    """Return what symmetry makes of the edges."""
    irreps = known_irreps(shapes_of(x) for state in states for x in (state[0], state[2]))
    if symmetry is None or irreps is None or len(shifts) == 0:
        return None
    return edge_orbits(symmetry, network, shifts, irreps)


def _edge_terms(
    run: ThirdHost,
    t: int,
    network: Network,
    edges: tuple[ThirdGeometry, ndarray, ndarray],
    ends: tuple[Features, Features],
    orbits: EdgeOrbits | None,
) -> ThirdEdgeTerms:
    """Return what a layer makes of all edges, from messages and adjoints μ of the atoms."""
    index = slice(None) if orbits is None else orbits.representatives
    messages, mu = ends
    sent = {key: messages[key][network.senders[index]] for key in mu}
    received = {key: x[network.receivers[index]] for key, x in mu.items()}
    items = (*jax.tree.map(lambda x: x[index], edges), sent, received)
    terms: ThirdEdgeTerms = run.edges(third_edge_terms, run.kinds[t], (run.layers[t],), items)
    if orbits is None:
        return terms
    angular = angular_derivatives(run.kinds[t].layer.layout, edges[0])
    return turned(orbits, terms)._replace(angular=angular)


def _gates(
    run: ThirdHost, t: int, point: Point, species: Int[ndarray, " atoms"]
) -> GateExpansion | None:
    """Return the expansion of a layer that is a gate."""
    kind, params = run.kinds[t], run.layers[t]
    gated = kind.layer.gated
    if gated is None:
        return None
    mixed, later = shapes_of(point.mixed), point.later
    if kind.layer.readout is not None:
        slope = run.atoms(readout_slope, kind, (params,), (point.updated, species))
        later = {key: x + slope[key] for key, x in later.items()}
    updated = shapes_of(later)
    shifted = dict(point.mixed)
    if gated.bias:
        shifted["0e"] = shifted["0e"] + np.asarray(params[gated.bias]["bias"])
    flat = pack(shifted, mixed), pack(later, updated)
    return expand_gates(gated, params, (mixed, updated), *flat)


def _layer(
    terms: Any,
    point: Point,
    product: ProductExpansion | None,
    messages: Features,
    gates: GateExpansion | None,
) -> ThirdLayer:
    mixed, sent = shapes_of(point.mixed), shapes_of(messages)
    return ThirdLayer(
        point,
        product,
        terms.radial,
        terms.angular,
        pack(terms.source, mixed),
        pack(terms.second_source, mixed),
        pack(terms.adjoint, sent),
        pack(terms.second_adjoint, sent),
        mixed,
        sent,
        shapes_of(point.updated),
        gates,
    )


def _forward(
    run: ThirdHost, network: Network, edges: Any
) -> list[tuple[Features, Features, Features, Features]]:
    """Return messages, h, y and h' of every layer."""
    features, messages = run.atoms(local.start, run.model, (run.params,), (network.species,))
    states = []
    for t, kind in enumerate(run.kinds):
        sums = run.convolve(t, network, edges, messages)
        mixed, updated, sent = run.atoms(
            local.forward, kind, run.of_layer(t), (sums, features, network.species)
        )
        states.append((messages, features, mixed, updated))
        features, messages = updated, sent
    return states

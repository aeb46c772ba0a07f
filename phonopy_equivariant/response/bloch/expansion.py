"""What the Bloch response needs of a structure once, whatever q: the energy expanded in its edges.

Notation of the models: A_i = sum_e K(r_e) g_j, y = mix(A, h), h' = activate(y). With the adjoints
η = ∂E/∂y, μ = ∂E/∂A and ν = ∂E/∂h of the ordinary gradient pass, an edge e = (j, S) -> i
contributes per layer

    source_e  = mix(∂K·g_j)        change of y_i with the edge vector
    adjoint_e = μ_i·∂K             what a change of g_j weighs in the force on the edge
    bond_e    = μ_i·∂²K·g_j        3×3 second derivative at fixed features (summed over layers)

Radial functions enter through value, first and second derivative along the distance, harmonics
through their derivatives along the vector (see :mod:`.local`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Float

from phonopy_equivariant.response.bloch import local
from phonopy_equivariant.response.bloch.arrays import Array, Features, concatenate
from phonopy_equivariant.response.bloch.execution import Execution
from phonopy_equivariant.response.bloch.local import Geometry, Point
from phonopy_equivariant.response.bloch.network import Network
from phonopy_equivariant.response.bloch.node import ProductExpansion


class LayerExpansion(NamedTuple):
    """Expansion of one layer: its state at the receivers, and terms of all edges.

    ``radial``, ``angular``, ``adjoint`` are empty for the first layer.
    """

    point: Point
    radial: Features  # R (edges, paths, u)
    angular: Features  # G (edges, a, b)
    source: Features  # (edges, 3, 2l+1, w)
    adjoint: Features  # (edges, 3, b, u)
    product: ProductExpansion | None


class Expansion(NamedTuple):
    """Expansion of the energy: layers in order, and what each edge has of its own."""

    layers: tuple[LayerExpansion, ...]
    bond: Float[Array, "edges 3 3"]  # eV/Å²
    gradient: Float[Array, "edges 3"]  # ∂E/∂r_e, eV/Å
    scalars: Float[Array, "receivers features"]  # of all layers, as in models.layered


class _State(NamedTuple):
    """One layer after the forward pass."""

    messages: Features  # g of all atoms
    features: Features  # h of the receivers
    mixed: Features  # y
    updated: Features  # h'


def expand(run: Execution, network: Network) -> Expansion:
    """Return the expansion of the energy of a periodic structure in its edge vectors."""
    ends = network.edge_species()
    edges = run.edges(local.geometry, run.model, (run.shared,), (network.vectors, *ends))
    states = _forward(run, network, edges)
    bond: Any = 0.0
    gradient: Any = 0.0
    if run.model.pair is not None:
        bond, gradient = run.edges(local.pair_terms, run.model, (run.shared,), (edges, *ends))
    adjoints: tuple[Features, Features] = ({}, {})
    layers: list[LayerExpansion] = []
    for t in reversed(range(len(states))):
        messages, features, mixed, updated = states[t]
        items = (features, mixed, updated, adjoints, network.own_species)
        later, mu, nu, product = run.atoms(local.backward, run.kinds[t], run.of_layer(t), items)
        sent = {key: run.pick(messages[key], network.senders) for key in mu}
        received = {key: run.pick(x, network.receivers) for key, x in mu.items()}
        terms = run.edges(
            local.edge_terms, run.kinds[t], (run.layers[t],), (edges, *ends, sent, received)
        )
        adjoints = (nu, network.sum_at_senders(terms.returned))
        bond, gradient = bond + terms.bond, gradient + terms.gradient
        point = Point(features, mixed, updated, later)
        layer = LayerExpansion(point, {}, {}, terms.source, {}, product)
        if t:
            layer = layer._replace(
                radial=terms.radial, angular=terms.angular, adjoint=terms.adjoint
            )
        layers.append(layer)
    scalars = concatenate([state.updated["0e"][:, 0] for state in states], axis=1)
    return Expansion(tuple(reversed(layers)), bond, gradient, scalars)


def _forward(run: Execution, network: Network, edges: Geometry) -> list[_State]:
    """Return the state of every layer."""
    features, messages = run.atoms(local.start, run.model, (run.params,), (network.species,))
    features = {key: network.own(x) for key, x in features.items()}
    states = []
    for t, kind in enumerate(run.kinds):
        sums = run.convolve(t, network, edges, messages)
        mixed, updated, sent = run.atoms(
            local.forward, kind, run.of_layer(t), (sums, features, network.own_species)
        )
        states.append(_State(messages, features, mixed, updated))
        features, messages = updated, network.at_all_atoms(sent)
    return states

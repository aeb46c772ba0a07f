"""Losses on energies, forces, stresses and Hessian samples of a batch of structures.

Every term is a mean over structures (energies, stresses, Hessians) or atoms (forces) of
w·ρ(‖residual‖), ρ as in :class:`~phonopy_equivariant.training.config.Term`. Norms are those of
vectors and tensors, so that the loss does not depend on the orientation of a structure. The
Hessian H is never formed; what a batch holds of it is a sample (:mod:`.hessian`):

    columns   (1/n) sum_ij ρ(‖ΔH_ij‖) = E_j sum_i ρ(‖ΔH_ij‖)    three columns of a random atom j
    probes    ‖ΔH‖²/n = E_z ‖ΔH z‖²/n                            z = ±1 at random
    pairs     ‖ΔH‖²/n = 9n E_{i,j,u,v} (u·ΔH_ij v)²              u, v uniform on the sphere

The 9 is 1/E[(u·a)²] = 3 for a unit vector a, once for each direction. Columns and probes are
Hessian-vector products, the forward derivative of the gradient; pairs are two nested forward
derivatives of the energy, and no gradient is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
from jaxtyping import Array, Float, Int

from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import graph_of_node, node_energies
from phonopy_equivariant.training.config import HessianTerm, LossConfig, Term

# name -> (sum of |residuals| or of squares, number of residuals)
Metrics = dict[str, Float[Array, "2"]]


def rho(term: Term | HessianTerm, square: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return ρ(x) of residuals given as x²; its derivative at zero is finite."""
    if term.kind == "squared":
        return square
    norm = safe_norm(square)
    if term.kind == "mae":
        return norm
    return jnp.where(norm < term.delta, square / 2, term.delta * (norm - term.delta / 2))


def safe_norm(square: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the square root, with derivative zero at zero."""
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def graph_loss(
    model: LayeredModel, loss: LossConfig, params: Params, graph: jraph.GraphsTuple
) -> tuple[Float[Array, ""], Metrics]:
    """Return the loss of a padded batch and the sums its metrics are made of.

    Parameters
    ----------
    model, loss
        Static: the functions of the potential, and the terms this batch has data for.
    params
        Of the model.
    graph
        As :func:`~phonopy_equivariant.training.batches.pack` makes it. Its shares, one for each
        structure and term, are the weights in the mean; they are zero where a structure lacks
        the data.

    """
    evaluated = _evaluate(model, loss, params, graph)
    total, metrics = jnp.zeros(()), {}
    for name, function in _TERMS.items():
        term = getattr(loss, name)
        if term is not None:
            share = graph.globals["share"][name]
            value, metrics[name] = function(term, evaluated, graph, share)
            total = total + term.weight * value
    return total, metrics


class Evaluated(NamedTuple):
    """What the terms of a loss are made of; None where no term asks for it."""

    owner: Int[Array, " nodes"]  # graph of each node
    energies: Float[Array, " graphs"] | None
    gradient: Float[Array, "nodes 3"] | None = None
    virial: Float[Array, "graphs 3 3"] | None = None
    samples: Float[Array, "..."] | None = None  # of the Hessian


def _evaluate(
    model: LayeredModel, loss: LossConfig, params: Params, graph: jraph.GraphsTuple
) -> Evaluated:
    owner, positions = graph_of_node(graph), graph.nodes["positions"]
    strain = None if loss.stress is None else jnp.zeros_like(graph.globals["cell"])

    def energies(positions: Array, strain: Array | None = None) -> Array:
        site = node_energies(model, params, graph, positions, strain)
        return jax.ops.segment_sum(site, owner, len(graph.n_node))

    def gradient(positions: Array) -> tuple[Array, tuple[Array | None, Array]]:
        def total(positions: Array, strain: Array | None) -> tuple[Array, Array]:
            values = energies(positions, strain)
            return values.sum(), values

        argument_numbers = (0,) if strain is None else (0, 1)
        slopes, values = jax.grad(total, argument_numbers, has_aux=True)(positions, strain)
        return slopes[0], (None if strain is None else slopes[1], values)

    estimator = None if loss.hessian is None else ESTIMATORS[loss.hessian.estimator]
    if isinstance(estimator, Products):
        # the gradient of the other terms comes with the products
        slopes, products, (virial, values) = _products(gradient, positions, graph.nodes["right"])
        return Evaluated(owner, values, slopes, virial, products)
    samples = None
    if estimator is not None:
        left, right = graph.nodes["left"], graph.nodes["right"]
        samples = _second_derivatives(energies, positions, left, right)
    if loss.forces is None and loss.stress is None:
        alone = energies(positions) if loss.energy is not None else None
        return Evaluated(owner, alone, samples=samples)
    slopes, (virial, values) = gradient(positions)
    return Evaluated(owner, values, slopes, virial, samples)


def _products(
    gradient: Callable[[Array], tuple[Array, tuple[Array | None, Array]]],
    positions: Float[Array, "nodes 3"],
    directions: Float[Array, "nodes samples 3"],
) -> tuple[Array, Float[Array, "nodes samples 3"], tuple[Array | None, Array]]:
    """Return the gradient, Hessian-vector products, and the auxiliary values of the gradient."""

    def product(direction: Array) -> tuple[Array, Array, tuple[Array | None, Array]]:
        return jax.jvp(gradient, (positions,), (direction,), has_aux=True)

    slopes, products, auxiliary = jax.vmap(product, in_axes=1, out_axes=(None, 1, None))(directions)
    return slopes, products, auxiliary


def _second_derivatives(
    energies: Callable[[Array], Array],
    positions: Float[Array, "nodes 3"],
    left: Float[Array, "nodes samples 3"],
    right: Float[Array, "nodes samples 3"],
) -> Float[Array, "graphs samples"]:
    """Return u·H·v of every structure, two forward derivatives of its energy."""

    def sample(u: Array, v: Array) -> Array:
        def slope(x: Array) -> Array:
            return jax.jvp(energies, (x,), (v,))[1]

        return jax.jvp(slope, (positions,), (u,))[1]

    return jax.vmap(sample, in_axes=1, out_axes=1)(left, right)


def _energy_term(
    term: Term, evaluated: Evaluated, graph: jraph.GraphsTuple, share: Array
) -> tuple[Array, Array]:
    atoms = jnp.maximum(graph.n_node, 1).astype(share.dtype)
    residual = (evaluated.energies - graph.globals["energy"]) / atoms
    value = jnp.sum(share * rho(term, residual**2))
    return value, sums(jnp.abs(residual), share > 0)


def _forces_term(
    term: Term, evaluated: Evaluated, graph: jraph.GraphsTuple, share: Array
) -> tuple[Array, Array]:
    residual = evaluated.gradient + graph.nodes["forces"]
    weights = share[evaluated.owner]
    value = jnp.sum(weights * rho(term, jnp.sum(residual**2, axis=-1)))
    return value, sums(jnp.mean(jnp.abs(residual), axis=-1), weights > 0)


def _stress_term(
    term: Term, evaluated: Evaluated, graph: jraph.GraphsTuple, share: Array
) -> tuple[Array, Array]:
    volume = graph.globals["volume"]
    volume = jnp.where(volume > 0, volume, 1.0)[:, None, None]  # zero on padding
    assert evaluated.virial is not None  # asked for by this term
    residual = evaluated.virial / volume - graph.globals["stress"]
    value = jnp.sum(share * rho(term, jnp.sum(residual**2, axis=(1, 2))))
    return value, sums(jnp.mean(jnp.abs(residual), axis=(1, 2)), share > 0)


class Pairs:
    """u·H·v of random pairs of atoms."""

    def costs(
        self, _term: HessianTerm, evaluated: Evaluated, graph: jraph.GraphsTuple
    ) -> tuple[Float[Array, " graphs"], Float[Array, " graphs"]]:
        """Return the cost of each structure, and an estimate of ‖ΔH‖²/n for the metric."""
        squares = (evaluated.samples - graph.globals["pairs"]) ** 2
        squares_norm = 9 * graph.n_node.astype(squares.dtype) * jnp.mean(squares, axis=1)
        return squares_norm, squares_norm


class Products:
    """Hessian-vector products: a base of :class:`Columns` and :class:`Probes`."""

    def residual(self, evaluated: Evaluated, graph: jraph.GraphsTuple) -> Array:
        """Return ΔH times each direction."""
        return evaluated.samples - graph.nodes["products"]


class Probes(Products):
    """H·z with random signs z."""

    def costs(
        self, _term: HessianTerm, evaluated: Evaluated, graph: jraph.GraphsTuple
    ) -> tuple[Float[Array, " graphs"], Float[Array, " graphs"]]:
        """Return the cost of each structure, and an estimate of ‖ΔH‖²/n for the metric."""
        square = jnp.mean(jnp.sum(self.residual(evaluated, graph) ** 2, axis=-1), axis=-1)
        summed = jax.ops.segment_sum(square, evaluated.owner, len(graph.n_node))
        squares_norm = summed / jnp.maximum(graph.n_node.astype(square.dtype), 1)
        return squares_norm, squares_norm


class Columns(Products):
    """Three columns of H that belong to a random atom."""

    def costs(
        self, term: HessianTerm, evaluated: Evaluated, graph: jraph.GraphsTuple
    ) -> tuple[Float[Array, " graphs"], Float[Array, " graphs"]]:
        """Return the cost of each structure, and an estimate of ‖ΔH‖²/n for the metric."""
        residual, graphs = self.residual(evaluated, graph), len(graph.n_node)
        split = residual.reshape(len(residual), -1, 3, 3)  # (nodes, samples, column, row)
        blocks = jnp.sum(split**2, axis=(2, 3))
        columns = jax.ops.segment_sum(blocks, evaluated.owner, graphs)
        if term.over == "block":
            costs = jax.ops.segment_sum(rho(term, blocks), evaluated.owner, graphs)
        else:
            costs = rho(term, columns)
        return jnp.mean(costs, axis=1), jnp.mean(columns, axis=1)


ESTIMATORS: dict[str, Columns | Probes | Pairs] = {
    "columns": Columns(),
    "probes": Probes(),
    "pairs": Pairs(),
}


def _hessian_term(
    term: HessianTerm, evaluated: Evaluated, graph: jraph.GraphsTuple, share: Array
) -> tuple[Array, Array]:
    costs, squares_norm = ESTIMATORS[term.estimator].costs(term, evaluated, graph)
    # the metric is ‖ΔH‖²/n whatever the loss
    return jnp.sum(share * costs), sums(squares_norm, share > 0)


def sums(values: Float[Array, " n"], counted: Array) -> Float[Array, "2"]:
    """Return the sum of the values that count, and their number."""
    mask = counted.astype(values.dtype)
    return jnp.stack([jnp.sum(values * mask), jnp.sum(mask)])


_TERMS: dict[str, Callable[..., tuple[Array, Array]]] = {
    "energy": _energy_term,
    "forces": _forces_term,
    "stress": _stress_term,
    "hessian": _hessian_term,
}

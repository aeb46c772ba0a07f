"""Rows of the Hessian by plain automatic differentiation: the twin of the Bloch response."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Float, Int
from numpy import ndarray

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.graph import pad_graph
from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import Potential, node_energies
from phonopy_equivariant.runtime.compilation import compiled
from phonopy_equivariant.structure import StructureLike

# Rows differentiated side by side: they share one evaluation of the forces.
ROW_BATCH = 6


def hessian_rows(
    energy_fn: Callable[[Array], Array],
    positions: Float[Array, "atoms 3"],
    rows: Int[Array, " rows"],
    batch_size: int = ROW_BATCH,
) -> Float[Array, "rows atoms 3"]:
    """Return rows of the Hessian of ``energy_fn``, eV/Å².

    Row k is the derivative of the gradient along coordinate ``rows[k]`` = 3·atom + axis,
    forward over reverse: one evaluation of the gradient serves ``batch_size`` rows.
    """
    gradient = jax.grad(energy_fn)

    def row(index: Array) -> Array:
        flat = jnp.zeros(positions.size, positions.dtype).at[index].set(1.0)
        return jax.jvp(gradient, (positions,), (flat.reshape(positions.shape),))[1]

    return jax.lax.map(row, rows, batch_size=batch_size)


def structure_hessian_rows(
    potential: Potential, structure: StructureLike, atoms: Int[ndarray, " selected"]
) -> Float[ndarray, "selected atoms 3 3"]:
    """Return the blocks ∂²E/∂x_i∂x_J for selected atoms i and all atoms J, eV/Å².

    In a periodic structure every periodic image of an atom moves with it.

    Returns
    -------
    ndarray, shape=(selected, atoms, 3, 3), indices (i, J, axis of i, axis of J)

    Raises
    ------
    PhonopyEquivariantError
        Numbers that are not finite.

    """
    return _blocks(potential, potential.graph(structure), np.asarray(atoms))


def hessian(
    structure: StructureLike, potential: PotentialLike
) -> Float[ndarray, "atoms 3 atoms 3"]:
    """Return the Hessian of a molecule or a cell, ∂²E/∂x_i∂x_j.

    In a periodic structure every periodic image of an atom moves with it: the Hessian is that of
    modes at Γ.

    Parameters
    ----------
    structure
        A molecule or a cell.
    potential
        A potential, or the name of a model.

    Returns
    -------
    ndarray, shape=(N, 3, N, 3), eV/Å², as in ``ase.vibrations.VibrationsData``

    Raises
    ------
    PhonopyEquivariantError
        An element the potential does not know, overlapping atoms, or numbers that are not finite.

    """
    potential = as_potential(potential)
    return graph_hessian(potential, potential.graph(structure))


def graph_hessian(
    potential: Potential, graph: jraph.GraphsTuple
) -> Float[ndarray, "atoms 3 atoms 3"]:
    """Return the Hessian (eV/Å²) of a structure whose unpadded graph is there already.

    Raises
    ------
    PhonopyEquivariantError
        Numbers that are not finite.

    """
    return _blocks(potential, graph, np.arange(int(graph.n_node[0]))).transpose(0, 2, 1, 3)


def directional_derivative(
    potential: Potential, structure: StructureLike, direction: Float[ndarray, "atoms 3"]
) -> Float[ndarray, "atoms 3"]:
    """Return the Hessian times a displacement of all atoms, eV/Å² times its unit.

    The cost is that of about three force calls; the Hessian is not formed.
    """
    graph = pad_graph(potential.graph(structure))
    padded = np.zeros(graph.nodes["positions"].shape)
    padded[: len(direction)] = direction
    product = _product(potential.model, potential.params, graph, padded)
    return np.asarray(product, float)[: len(direction)]


def _blocks(
    potential: Potential, graph: jraph.GraphsTuple, atoms: Int[ndarray, " selected"]
) -> Float[ndarray, "selected atoms 3 3"]:
    count = int(graph.n_node[0])
    rows = (3 * atoms[:, None] + np.arange(3)).ravel()
    padding = -len(rows) % ROW_BATCH
    padded_rows = np.concatenate([rows, np.full(padding, rows[-1])])
    hessian_values = _rows(potential.model, potential.params, pad_graph(graph), padded_rows)
    blocks = np.asarray(hessian_values, float)[: len(rows), :count]
    rows_of_atoms = blocks.reshape(len(atoms), 3, count, 3).transpose(0, 2, 1, 3)
    return potential.require_finite(rows_of_atoms)


@compiled(static_argnums=(0,), keep=True)
def _rows(model: LayeredModel, params: Params, graph: jraph.GraphsTuple, rows: Array) -> Array:
    def energy(positions: Array) -> Array:
        return node_energies(model, params, graph, positions).sum()

    return hessian_rows(energy, jnp.asarray(graph.nodes["positions"]), rows)


@compiled(static_argnums=(0,), keep=True)
def _product(
    model: LayeredModel, params: Params, graph: jraph.GraphsTuple, direction: Array
) -> Array:
    def energy(positions: Array) -> Array:
        return node_energies(model, params, graph, positions).sum()

    positions = jnp.asarray(graph.nodes["positions"])
    return jax.jvp(jax.grad(energy), (positions,), (direction,))[1]

"""Φ(q) from the explicit extended graph: the paper's construction, brute force, exact.

The graph holds the home cell and every image its site energies depend on. With E_home the sum
of the home atoms' site energies,

    Φ_ij(q) = sum_{b,c} ∂²E_home / ∂x_{bi} ∂x_{cj} · e^{2πi q·(c-b)}

over all pairs of images b of i and c of j: by translation symmetry this collects every force
constant, those between 1 and 2 receptive fields apart included.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Complex, Float
from numpy import ndarray

from phonopy_equivariant.graph import extended_graph, pad_graph
from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import Potential, node_energies
from phonopy_equivariant.response.autodiff.hessian import ROW_BATCH
from phonopy_equivariant.runtime.compilation import compiled
from phonopy_equivariant.structure import StructureLike, as_structure


def extended_force_constants(
    potential: Potential, primitive: StructureLike, qpoints: Float[ndarray, "q 3"]
) -> Complex[ndarray, "q rows columns"]:
    """Return Φ(q) in the lattice gauge, (n_q, 3n, 3n), eV/Å².

    ``qpoints`` are in units of the reciprocal vectors of ``primitive``. The cost grows with the
    cube of the receptive field: meant for small models and for checking.
    """
    structure = as_structure(primitive)
    graph, owner, image = extended_graph(
        structure,
        potential.cutoff,
        potential.num_interactions,
        potential.species_index(structure.numbers),
    )
    atoms = len(structure.numbers)
    padded = pad_graph(graph)
    nodes = len(padded.nodes["species"])
    home = np.arange(nodes) < atoms
    result = np.empty((len(qpoints), 3 * atoms, 3 * atoms), complex)
    for index, q in enumerate(np.asarray(qpoints, float)):
        phase = np.exp(2j * np.pi * image @ q)
        columns = np.zeros((atoms, 3, nodes, 3), complex)
        for axis in range(3):
            columns[owner, axis, np.arange(len(owner)), axis] = phase
        flat = columns.reshape(3 * atoms, nodes, 3)
        directions = np.concatenate([flat.real, flat.imag])
        products = _home_products(potential.model, potential.params, padded, home, directions)
        derivatives = np.asarray(products[: 3 * atoms]) + 1j * np.asarray(products[3 * atoms :])
        result[index] = np.einsum("anv,bnv->ab", flat.conj(), derivatives)
    return result


@compiled(static_argnums=(0,), keep=True)
def _home_products(
    model: LayeredModel,
    params: Params,
    graph: jraph.GraphsTuple,
    home: Array,
    directions: Float[Array, "columns nodes 3"],
) -> Float[Array, "columns nodes 3"]:
    """Return the Hessian of the home atoms' energy times each direction."""

    def energy(positions: Array) -> Array:
        return jnp.where(home, node_energies(model, params, graph, positions), 0.0).sum()

    def product(direction: Array) -> Array:
        return jax.jvp(jax.grad(energy), (positions,), (direction,))[1]

    positions = jnp.asarray(graph.nodes["positions"])
    return jax.lax.map(product, directions, batch_size=ROW_BATCH)

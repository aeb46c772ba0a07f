"""Elastic tensor with internal relaxation, from second derivatives alone: no finite strain.

With u the displacements of the atoms and ε the strain that takes every vector r to (1 + ε) r,

    C = 1/V [ ∂²E/∂ε∂ε - (∂²E/∂u∂ε)^T · Φ(0)^+ · ∂²E/∂u∂ε ]

Φ(0) being the force constants at q = 0 and Φ^+ their pseudo-inverse without the three
translations: atoms follow the strain to where forces vanish (Born and Huang, Dynamical Theory of
Crystal Lattices, 1954; Wu, Vanderbilt and Hamann, Phys. Rev. B 72, 035105 (2005)).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from ase.units import GPa
from jaxtyping import Array, Float
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.graph import pad_graph
from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import Potential, node_energies
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
from phonopy_equivariant.runtime.compilation import compiled
from phonopy_equivariant.structure import Structure, as_structure

# xx, yy, zz, yz, xz, xy; shear strains are γ = 2ε
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_STRAINS = np.array(
    [(np.eye(3)[[a]].T @ np.eye(3)[[b]] + np.eye(3)[[b]].T @ np.eye(3)[[a]]) / 2 for a, b in VOIGT]
)


class StrainResponse(NamedTuple):
    """Second derivatives of the energy by Voigt's six strains, and how atoms follow them."""

    clamped: Float[ndarray, "6 6"]  # ∂²E/∂ε∂ε, eV
    internal: Float[ndarray, "columns 6"]  # ∂²E/∂u∂ε, eV/Å
    displacements: Float[ndarray, "columns 6"]  # du/dε = -Φ(0)^+·∂²E/∂u∂ε, Å


class ElasticTensor(NamedTuple):
    """Elastic constants in GPa, Voigt's order xx, yy, zz, yz, xz, xy."""

    clamped: Float[ndarray, "6 6"]  # atoms move with the cell
    relaxed: Float[ndarray, "6 6"]  # atoms move to where forces vanish
    internal_strain: Float[ndarray, "columns 6"]  # ∂²E/∂u∂ε, eV/Å


def elastic_tensor(potential: Potential, primitive: Any) -> ElasticTensor:
    """Return the elastic tensor of a crystal at rest.

    Second derivatives of the energy by strain. Under a residual stress these are not the
    stress-strain coefficients: relax first (:func:`phonopy_equivariant.relax`).

    Parameters
    ----------
    potential, primitive
        A layered potential; a crystal, ASE's or phonopy's, without forces on its atoms.

    Raises
    ------
    PhonopyEquivariantError
        The structure is not periodic in three directions.

    """
    structure = as_structure(primitive)
    response = strain_response(potential, structure)
    relaxed = response.clamped + response.internal.T @ response.displacements
    scale = structure.volume * GPa
    return ElasticTensor(response.clamped / scale, relaxed / scale, response.internal)


def strain_response(potential: Potential, primitive: Any) -> StrainResponse:
    """Return what strain does to the energy and to the atoms of a crystal at rest.

    u moves the atoms of the unstrained crystal: vectors are (1 + ε)(r + u_j - u_i).

    Raises
    ------
    PhonopyEquivariantError
        The structure is not periodic in three directions.

    """
    structure = crystal_of(primitive)
    atoms = len(structure.numbers)
    padded = pad_graph(potential.graph(structure))
    mixed, clamped = _strain_derivatives(potential.model, potential.params, padded, np.eye(6))
    internal = np.asarray(mixed, float)[:, :atoms].reshape(6, 3 * atoms).T
    gamma = lattice_force_constants(potential, structure, np.zeros((1, 3)))[0].real
    displacements = -_without_translations(gamma) @ internal
    return StrainResponse(np.asarray(clamped, float), internal, displacements)


def crystal_of(primitive: Any) -> Structure:
    """Return the structure of a crystal; anything else raises."""
    structure = as_structure(primitive)
    if not structure.pbc.all():
        raise PhonopyEquivariantError(
            "The response to strain needs a structure that is periodic in three directions."
        )
    return structure


def as_voigt(strain: Float[ndarray, "3 3"]) -> Float[ndarray, "6"]:
    """Return a symmetric strain as Voigt's six: xx, yy, zz, 2yz, 2xz, 2xy."""
    return np.array([strain[a, b] + (strain[b, a] if a != b else 0.0) for a, b in VOIGT])


def _without_translations(gamma: Float[ndarray, "columns columns"]) -> ndarray:
    """Return the inverse of Φ(0) on displacements that keep the centre of all atoms."""
    columns = len(gamma)
    shift = np.tile(np.eye(3), (columns // 3, 1)) / np.sqrt(columns / 3)
    # translations get the eigenvalue one for the inversion and are projected out afterwards
    inverse = np.linalg.inv(gamma + shift @ shift.T)
    return inverse - shift @ shift.T


@compiled(static_argnums=(0,), keep=True)
def _strain_derivatives(
    model: LayeredModel,
    params: Params,
    graph: jraph.GraphsTuple,
    directions: Float[Array, "6 6"],
) -> tuple[Float[Array, "6 nodes 3"], Float[Array, "6 6"]]:
    """Return ∂²E/∂ε∂u and ∂²E/∂ε∂ε, forward over reverse along Voigt's six strains."""
    positions = jnp.asarray(graph.nodes["positions"])
    graphs = len(graph.n_node)

    def energy(moved: Array, voigt: Array) -> Array:
        strain = jnp.tensordot(voigt, jnp.asarray(_STRAINS, voigt.dtype), 1)
        repeated = jnp.broadcast_to(strain, (graphs, 3, 3))
        return node_energies(model, params, graph, moved, repeated).sum()

    slope = jax.grad(energy, (0, 1))

    def product(direction: Array) -> tuple[Array, Array]:
        zero = jnp.zeros(6, positions.dtype)
        return jax.jvp(lambda voigt: slope(positions, voigt), (zero,), (direction,))[1]

    mixed, clamped = jax.lax.map(product, directions)
    return mixed, clamped

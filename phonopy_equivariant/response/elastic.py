"""Elastic tensor with internal relaxation, from second derivatives alone: no finite strain.

With u the displacements of the atoms and ε the strain that takes every vector r to (1 + ε) r,

    C = 1/V [ ∂²E/∂ε∂ε - (∂²E/∂u∂ε)^T · Φ(0)^+ · ∂²E/∂u∂ε ]

Φ(0) being the force constants at q = 0 and Φ^+ their pseudo-inverse: atoms follow the strain to
where forces vanish (Born and Huang, Dynamical Theory of Crystal Lattices, 1954; Wu, Vanderbilt and
Hamann, Phys. Rev. B 72, 035105 (2005)). Modes without restoring force are left out of Φ^+. These
are the three translations, and translations and rotations of parts of the crystal that do not
interact; a strain does not act on any of them. Where it does act on one, C diverges.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from ase.units import GPa, _amu
from jaxtyping import Array, Float
from numpy import ndarray

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.graph import pad_graph
from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import Potential, node_energies
from phonopy_equivariant.response.bloch.equilibrium import Equilibrium
from phonopy_equivariant.response.bloch.execution import host_driven
from phonopy_equivariant.response.bloch.lattice import lattice_response
from phonopy_equivariant.response.elasticity import ElasticTensor
from phonopy_equivariant.response.rounding import ROUNDING, ZONE_BOUNDARY, rounding_of
from phonopy_equivariant.response.third.strain import strain_derivatives
from phonopy_equivariant.runtime.compilation import compiled
from phonopy_equivariant.structure import Structure, StructureLike, as_structure, masses_of

# xx, yy, zz, yz, xz, xy; shear strains are γ = 2ε
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
_STRAINS = np.array(
    [(np.eye(3)[[a]].T @ np.eye(3)[[b]] + np.eye(3)[[b]].T @ np.eye(3)[[a]]) / 2 for a, b in VOIGT]
)


# Pull of a strain on a free mode, in units of (rounding of Φ)·(cutoff), that rounding may leave.
PULL_MARGIN = 10.0
GRAM_PER_CM3 = _amu * 1e27  # amu/Å³ in g/cm³

# Part of ∂²E/∂ε∂ε that rounding of weak modes may change.
UNCERTAIN = 1e-3


class StrainResponse(NamedTuple):
    """Second derivatives of the energy by Voigt's six strains, and how atoms follow strains."""

    clamped: Float[ndarray, "6 6"]  # ∂²E/∂ε∂ε, eV
    internal: Float[ndarray, "columns 6"]  # ∂²E/∂u∂ε, eV/Å
    displacements: Float[ndarray, "columns strains"]  # -Φ(0)^+·∂²E/∂u∂ε·strain, Å
    equilibrium: Equilibrium


def elastic_tensor(structure: StructureLike, potential: PotentialLike) -> ElasticTensor:
    """Return the elastic tensor of a crystal at rest.

    Second derivatives of the energy by strain. Under a residual stress these are not the
    stress-strain coefficients: relax first (:func:`phonopy_equivariant.relax`). The result holds
    the residual force and stress, and :meth:`ElasticTensor.remarks` says whether they matter.

    Parts of the crystal that do not interact (layers, molecules or atoms farther apart than the
    cutoff) move and turn freely against each other. No strain acts on such motions, and they are
    left out: layers at rest, normal to z, have C33 = C44 = C55 = 0, and molecules at rest no
    relaxed constants at all.

    Parameters
    ----------
    structure
        A crystal without forces on its atoms.
    potential
        A potential, or the name of a model.

    Raises
    ------
    PhonopyEquivariantError
        The structure is not periodic in three directions; a mode at Γ without restoring force
        couples to strain, so that elastic constants diverge; the relaxed tensor is not symmetric.

    """
    potential, crystal = as_potential(potential), crystal_of(structure)
    response = strain_response(potential, crystal, np.eye(6))
    relaxed = response.clamped + response.internal.T @ response.displacements
    _check_symmetry(relaxed, response.clamped, potential.dtype)
    scale = crystal.volume * GPa
    return ElasticTensor(
        response.clamped / scale,
        relaxed / scale,
        response.internal,
        float(np.linalg.norm(response.equilibrium.forces, axis=1).max()),
        float(np.abs(response.equilibrium.stress).max() / GPa),
        float(masses_of(crystal).sum() / crystal.volume) * GRAM_PER_CM3,
        len(crystal.numbers) / crystal.volume,
    )


def strain_response(
    potential: Potential, structure: Structure, strains: Float[ndarray, "6 strains"]
) -> StrainResponse:
    """Return what strain does to the energy and to the atoms of a crystal at rest.

    u moves the atoms of the unstrained crystal: vectors are (1 + ε)(r + u_j - u_i).

    Parameters
    ----------
    potential, structure
        From :func:`crystal_of`.
    strains
        Those that atoms are to follow, each a column of Voigt's six.

    Raises
    ------
    PhonopyEquivariantError
        A mode at Γ without restoring force couples to one of the strains.

    """
    atoms = len(structure.numbers)
    if host_driven():
        mixed, clamped = strain_derivatives(potential, structure, _STRAINS)
    else:
        padded = pad_graph(potential.graph(structure))
        traced = _strain_derivatives(potential.model, potential.params, padded, np.eye(6))
        mixed, clamped = (np.asarray(x, float) for x in traced)
    internal = mixed[:, :atoms].reshape(6, 3 * atoms).T
    response = lattice_response(potential, structure, ZONE_BOUNDARY)
    noise = rounding_of(potential.dtype, response.values[0])
    curvature, pull = response.values[0, 0].real, internal @ strains
    stiffness = float(np.abs(clamped).max())
    displacements = _follow(curvature, pull, noise, potential.cutoff, stiffness)
    return StrainResponse(clamped, internal, displacements, response.equilibrium)


def crystal_of(primitive: StructureLike) -> Structure:
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


def _follow(
    curvature: Float[ndarray, "columns columns"],
    pull: Float[ndarray, "columns strains"],
    noise: float,
    cutoff: float,
    stiffness: float,
) -> Float[ndarray, "columns strains"]:
    """Return -Φ(0)^+ · pull, Φ(0)^+ without the modes that have no restoring force.

    The three translations of the crystal are such modes, and so are translations and rotations of
    parts that do not interact. No strain pulls at them.

    Parameters
    ----------
    curvature, noise
        Φ(0); rounding of its eigenvalues λ, eV/Å².
    pull
        ∂²E/∂u∂ε·strain, eV/Å; a mode on which it acts with p lowers the energy by p²/2λ.
    cutoff
        Å; the pull is a sum of force constants times vectors of this length.
    stiffness
        Largest ∂²E/∂ε∂ε, eV.

    Raises
    ------
    PhonopyEquivariantError
        A mode without restoring force is pulled at, or rounding of a weak one changes ∂²E/∂ε∂ε
        by more than a thousandth.

    """
    columns = len(curvature)
    translations = np.tile(np.eye(3), (columns // 3, 1))
    basis = np.linalg.qr(translations, mode="complete")[0][:, 3:]
    values, vectors = np.linalg.eigh(basis.T @ curvature @ basis)
    modes = basis @ vectors
    free = np.abs(values) <= noise
    pulled = modes.T @ pull
    moved = pulled[~free] / values[~free, None]
    pulled_free = np.abs(pulled[free]).max(initial=0.0) > PULL_MARGIN * noise * cutoff
    if pulled_free or (moved**2 * noise).max(initial=0.0) > UNCERTAIN * stiffness:
        raise PhonopyEquivariantError(
            "A mode at Γ without restoring force couples to strain: the crystal is at an "
            "instability, where its elastic constants diverge. Change its volume, or relax it "
            "after a step along that mode into a lower symmetry."
        )
    displacements: ndarray = -modes[:, ~free] @ moved
    return displacements


def _check_symmetry(
    relaxed: Float[ndarray, "6 6"], clamped: Float[ndarray, "6 6"], dtype: str
) -> None:
    """Raise if rounding has taken more than half of the digits of a relaxed tensor."""
    skew = np.abs(relaxed - relaxed.T).max()
    largest = np.abs(clamped).max()
    if skew > ROUNDING[dtype] ** 0.5 * largest:
        raise PhonopyEquivariantError(
            f"The relaxed elastic tensor is not symmetric, by {skew / largest:.1e} of its largest "
            "component: rounding is divided by the small restoring force of a soft mode. Use "
            "double precision (dtype='float64'), or relax the crystal first (pe.relax)."
        )


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

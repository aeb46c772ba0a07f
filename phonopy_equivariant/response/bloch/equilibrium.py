"""Forces, stress and features of a crystal from its expansion, with no program of their own.

With g_e = ∂E/∂r_e of every edge e = (j, S) -> i, whose vector is r_e = x_j + S·L - x_i,

    F_i = sum_{e into i} g_e - sum_{e from i} g_e,        stress = 1/V sum_e r_e ⊗ g_e.

Where only the edges into some receivers are known, each counts for as many as its receiver stands
for, and the mean over the space group gives the sums over all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from phonopy_equivariant.response.symmetry.operations import Operations


class Equilibrium(NamedTuple):
    """What a crystal is like at rest, and how far from rest it is."""

    forces: Float[ndarray, "atoms 3"]  # eV/Å
    stress: Float[ndarray, "3 3"]  # eV/Å³, dE/dε / V
    features: Float[ndarray, "receivers features"]  # scalars of all layers
    receivers: Int[ndarray, " receivers"]  # atoms, one of each orbit at least


class WeightedEdges(NamedTuple):
    """Edges, and how many each of them counts for."""

    vectors: Float[ndarray, "edges 3"]  # Å
    senders: Int[ndarray, " edges"]  # atoms
    receivers: Int[ndarray, " edges"]  # atoms
    weight: Float[ndarray, " edges"]


def sums_over_edges(
    edges: WeightedEdges,
    gradient: Float[ndarray, "edges 3"],
    cell: Float[ndarray, "3 3"],
    atoms: int,
    symmetry: Operations | None,
) -> tuple[Float[ndarray, "atoms 3"], Float[ndarray, "3 3"]]:
    """Return forces and stress; with ``symmetry`` their means over the space group."""
    weighted = gradient * edges.weight[:, None]
    forces = np.zeros((atoms, 3))
    np.add.at(forces, edges.receivers, weighted)
    np.add.at(forces, edges.senders, -weighted)
    volume = abs(np.linalg.det(cell)) or 1.0  # no meaning, but no error, without a cell
    virial = edges.vectors.T @ weighted
    stress = (virial + virial.T) / (2 * volume)
    if symmetry is None:
        return forces, stress
    turn = symmetry.cartesian
    before = np.argsort(symmetry.image, axis=1)  # j of j'
    mean_forces = np.einsum("oab,ojb->ja", turn, forces[before]) / len(turn)
    return mean_forces, np.mean(turn @ stress @ turn.transpose(0, 2, 1), axis=0)

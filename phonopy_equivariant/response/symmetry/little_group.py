"""Atoms that symmetry relates, in a crystal as a whole and at each q.

An operation {R|τ} of the space group maps atom j to j' + T_j (see :mod:`.star`). Where
R^{-T} q = q + G it belongs to the little group of q; where R^{-T} q = -q + G it does together with
time reversal (complex conjugation). Either relates responses at q. With D(R) the rotation of an
irrep and δx_i[j, z] the change of x_i when atom j moves along z,

    δx_{i'}[j', w] = e^{2πi q·(T_j - T_i)} sum_z R_wz D(R) δx_i[j, z]^(*)

so that only one atom of every orbit has to be a receiver, for all columns. The force constants are
sums over receivers, Φ = sum_i X_i, and the X_i of an orbit follow from one another like Φ itself:

    Φ = 1/|G| sum_g g[ sum_{i computed} |orbit of i| X_i ]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from numpy import ndarray

from phonopy_equivariant.models.representations import coupling_with_vector
from phonopy_equivariant.response.symmetry.operations import Operations
from phonopy_equivariant.response.symmetry.star import equivalent_q

# {irrep: (..., 2l+1, 2l+1)}
Turns = dict[str, ndarray]


class Orbits(NamedTuple):
    """Receivers that are computed, and what the space group makes of them.

    ``turn`` takes the features of an atom's source to its own. ``weight`` and ``collect`` give
    sums over all edges at the receivers from sums over the edges into receivers alone.
    """

    receivers: Int[ndarray, " receivers"]  # atoms
    source: Int[ndarray, " atoms"]  # position in ``receivers``
    turn: Turns  # (atoms, m, m)
    weight: Float[ndarray, " receivers"]
    collect: Turns  # (receivers, atoms, m, m)


class LittleGroup(NamedTuple):
    """The operations that keep one q, some with time reversal, and the orbits of atoms."""

    members: Int[ndarray, " members"]  # indices of operations
    conjugate: Bool[ndarray, " members"]
    first: Int[ndarray, " atoms"]  # least atom of the orbit an atom belongs to

    @property
    def representatives(self) -> Int[ndarray, " orbits"]:
        """One atom of every orbit."""
        return np.unique(self.first)


class Completion(NamedTuple):
    """How responses of all atoms follow from those of the receivers, for a block of q."""

    rows: Int[ndarray, " receivers"]  # positions among the receivers of the expansion
    receivers: Int[ndarray, " receivers"]  # atoms
    weight: Float[ndarray, "q receivers"]  # |orbit|, zero where another atom stands for it
    source: Int[ndarray, "q atoms"]  # i, position in ``receivers``
    column: Int[ndarray, "q atoms atoms"]  # j of each i', j'
    rotation: Float[ndarray, "q atoms 3 3"]
    turn: Turns  # (q, atoms, m, m)
    phase: Float[ndarray, "q s atoms atoms"]  # of i', j'
    sign: Float[ndarray, "q atoms"]  # of the imaginary part before the phase


def irrep_of(key: str) -> str:
    """Return the irrep of a key of features, which may carry a tag: ``"1o:density"``."""
    return key.split(":")[0]


def rotations_of_irreps(
    rotations: Float[ndarray, "ops 3 3"], irreps: Sequence[str]
) -> dict[str, Float[ndarray, "ops m m"]]:
    """Return D(R) in the basis of the harmonics the models use: Y(Rx) = D(R) Y(x).

    The harmonics of degree 1 are x, y, z. Those of degree l follow from degrees 1 and l-1 by
    Clebsch-Gordan coefficients, and D_l = C^T (D_1 ⊗ D_{l-1}) C.
    """
    signs = np.sign(np.linalg.det(rotations))
    proper = rotations * signs[:, None, None]
    degrees = [np.ones((len(rotations), 1, 1)), proper]
    for degree in range(2, 1 + max(int(irrep[:-1]) for irrep in irreps)):
        step = coupling_with_vector(degree)
        left = np.tensordot(proper, step, (2, 0))  # (o, a, d, n)
        both = np.einsum("ocd,oadn->oacn", degrees[-1], left)
        degrees.append(np.einsum("acm,oacn->omn", step, both))
    found = {}
    for irrep in irreps:
        parity = signs if irrep[-1] == "o" else np.ones(len(rotations))
        found[irrep] = degrees[int(irrep[:-1])] * parity[:, None, None]
    return found


def little_groups(symmetry: Operations, qpoints: Float[ndarray, "q 3"]) -> list[LittleGroup]:
    """Return the little group of every q, time reversal included."""
    inverse_transposed = np.linalg.inv(symmetry.rotations).transpose(0, 2, 1)
    images = np.einsum("oab,qb->qoa", inverse_transposed, qpoints)
    groups = []
    for q, moved in zip(qpoints, images, strict=True):
        kept, reversed_ = equivalent_q(moved, q), equivalent_q(moved, -q)
        members = np.concatenate([np.flatnonzero(kept), np.flatnonzero(reversed_)])
        conjugate = np.arange(len(members)) >= kept.sum()
        # members form a group: the images of an atom are its whole orbit
        groups.append(LittleGroup(members, conjugate, symmetry.image[members].min(axis=0)))
    return groups


def orbits(
    symmetry: Operations, receivers: Int[ndarray, " receivers"], irreps: Sequence[str]
) -> Orbits:
    """Return what the space group makes of receivers, one at least of every orbit of atoms."""
    turns = rotations_of_irreps(symmetry.cartesian, irreps)
    count, atoms = symmetry.image.shape
    # an operation that takes a receiver to each atom
    reached = symmetry.image[:, receivers]  # (ops, receivers)
    operation, source = np.zeros(atoms, int), np.zeros(atoms, int)
    for atom in range(atoms):
        operation[atom], source[atom] = np.argwhere(reached == atom)[0]
    least = symmetry.image.min(axis=0)
    size = np.bincount(least, minlength=atoms)
    present = np.bincount(least[receivers], minlength=atoms)
    before = np.argsort(symmetry.image, axis=1)[:, receivers]  # g^-1 j, (ops, receivers)
    collect = {}
    for irrep, turn in turns.items():
        sums = np.zeros((len(receivers), atoms, *turn.shape[1:]))
        rows = np.broadcast_to(np.arange(len(receivers)), before.shape)
        np.add.at(sums, (rows, before), turn[:, None] / count)
        collect[irrep] = sums
    return Orbits(
        receivers,
        source,
        {irrep: turn[operation] for irrep, turn in turns.items()},
        (size / np.maximum(present, 1))[least[receivers]],
        collect,
    )


def completion(
    symmetry: Operations,
    qpoints: Float[ndarray, "q 3"],
    groups: Sequence[LittleGroup],
    known: Int[ndarray, " known"],
    irreps: Sequence[str],
    parts: int,
) -> Completion:
    """Return how the responses at some q follow from those of the atoms their orbits need.

    ``known`` are the receivers of the expansion, ``parts`` 1 where 2q = G for all q, else 2.
    """
    turns = rotations_of_irreps(symmetry.cartesian, irreps)
    receivers = np.unique(np.concatenate([group.representatives for group in groups]))
    atoms = symmetry.image.shape[1]
    weight = np.zeros((len(qpoints), len(receivers)))
    chosen = np.zeros((len(qpoints), atoms), int)  # member of the little group for each atom
    for q, group in enumerate(groups):
        sizes = np.bincount(group.first, minlength=atoms)
        weight[q] = np.where(group.first[receivers] == receivers, sizes[receivers], 0)
        for atom in range(atoms):
            chosen[q, atom] = np.flatnonzero(
                symmetry.image[group.members, group.first[atom]] == atom
            )[0]
    operation = np.stack([g.members[c] for g, c in zip(groups, chosen, strict=True)])
    conjugate = np.stack([g.conjugate[c] for g, c in zip(groups, chosen, strict=True)])
    first = np.stack([group.first for group in groups])
    column = np.argsort(symmetry.image, axis=1)[operation]
    shift = symmetry.translation[operation]  # (q, i', j, 3)
    # T_j at the place of j', and T_i
    moved = np.take_along_axis(shift, column[..., None], axis=2)
    own = np.take_along_axis(shift, first[:, :, None, None], axis=2)
    angle = 2 * np.pi * np.einsum("qa,qija->qij", qpoints, moved - own)
    phase = np.stack([np.cos(angle), np.sin(angle)][:parts], axis=1)
    return Completion(
        np.searchsorted(known, receivers),
        receivers,
        weight,
        np.searchsorted(receivers, first),
        column,
        symmetry.cartesian[operation],
        {irrep: turn[operation] for irrep, turn in turns.items()},
        phase,
        np.where(conjugate, -1.0, 1.0),
    )


def pick_q(full: Completion | None, block: Int[ndarray, " q"]) -> Completion | None:
    """Return the completion of some of its q."""
    if full is None:
        return None
    of_q = ("weight", "source", "column", "rotation", "phase", "sign")
    turn = {irrep: x[block] for irrep, x in full.turn.items()}
    return full._replace(turn=turn, **{name: getattr(full, name)[block] for name in of_q})


def sum_over_group(
    symmetry: Operations,
    q: Float[ndarray, "3"],
    group: LittleGroup,
    values: Complex[ndarray, "columns columns"],
) -> Complex[ndarray, "columns columns"]:
    """Return 1/|G| sum_g g[X], Φ of all receivers from the weighted sum over those computed."""
    atoms = symmetry.image.shape[1]
    blocks = values.reshape(atoms, 3, atoms, 3)
    before = np.argsort(symmetry.image[group.members], axis=1)  # j of j'
    picked = blocks.transpose(0, 2, 1, 3)[before[:, :, None], before[:, None, :]]
    picked = np.where(group.conjugate[:, None, None, None, None], picked.conj(), picked)
    turn = symmetry.cartesian[group.members]
    angle = np.einsum("a,oja->oj", q, symmetry.translation[group.members])
    phase = np.exp(2j * np.pi * np.take_along_axis(angle, before, axis=1))
    picked = picked * (phase.conj()[:, :, None] * phase[:, None, :])[..., None, None]
    turned = turn[:, None, None] @ picked @ turn.transpose(0, 2, 1)[:, None, None]
    return turned.mean(axis=0).transpose(0, 2, 1, 3).reshape(values.shape)

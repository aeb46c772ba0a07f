"""Symmetry of third-order force constants at triplets of q, and their inverse transform.

Triplets (q_1, q_2, q_3) with q_1 + q_2 + q_3 = G on a commensurate grid are counted by pairs
(q_1, q_2). In the lattice gauge, with an operation {R|τ} that takes atom j to x_j' + T_j and q to
q' = R^{-T} q (see :mod:`.star`), R_c being R in Cartesian axes,

    Φ3_{i'j'k'}(q_1', q_2', q_3') = e^{2πi (q_1'·T_i + q_2'·T_j + q_3'·T_k)} R_c R_c R_c Φ3_ijk,

a permutation of the three displacements permutes q and columns, and Φ3(-q..) = Φ3(q..)^*.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from numpy import ndarray

from phonopy_equivariant.response.symmetry.operations import Operations
from phonopy_equivariant.response.symmetry.star import Grid, commensurate_grid

PERMUTATIONS = np.array(list(itertools.permutations(range(3))))


class Triplets(NamedTuple):
    """All pairs of commensurate q, and how to get each triplet from an irreducible one.

    A triplet is the image of its source under the operation, then the conjugate of that where
    ``conjugate``; its displacement p is the source's displacement PERMUTATIONS[permutation][p].
    """

    qpoints: Float[ndarray, "q 3"]
    third: Int[ndarray, "q q"]  # index of -q_1 - q_2
    irreducible: Int[ndarray, "irreducible 2"]  # indices into qpoints
    source: Int[ndarray, "q q"]  # position in ``irreducible``
    operation: Int[ndarray, "q q"]
    permutation: Int[ndarray, "q q"]
    conjugate: Bool[ndarray, "q q"]


def commensurate_triplets(matrix: Int[ndarray, "3 3"], symmetry: Operations) -> Triplets:
    """Return the triplets of q commensurate with a supercell, reduced by symmetry.

    Space group, permutations of the three displacements and time reversal relate triplets.
    ``matrix`` has the supercell's vectors as columns, in units of the primitive ones. Operations
    that do not map the set of q onto itself are left out.
    """
    grid = commensurate_grid(matrix, symmetry)
    index = _Index(grid)
    third = index.find(-(index.points[:, None] + index.points))
    inverse_transposed = np.rint(np.linalg.inv(symmetry.rotations)).astype(int).transpose(0, 2, 1)
    images = index.find(np.einsum("oab,qb->oqa", inverse_transposed, index.points))
    allowed = np.flatnonzero((images >= 0).all(axis=1))
    images, negative = images[allowed], index.find(-index.points)
    count = len(index.points)
    source = np.full(count**2, -1)
    operation, permutation = (np.zeros(count**2, int) for _ in range(2))
    conjugate = np.zeros(count**2, bool)
    # (conjugate, operation, permutation) of every image of one triplet; later ones stand
    flips, ops, perms = (
        x.ravel()
        for x in np.meshgrid(
            [True, False], np.arange(len(allowed))[::-1], np.arange(6)[::-1], indexing="ij"
        )
    )
    irreducible: list[int] = []
    for pair in range(count**2):
        if source[pair] >= 0:
            continue
        first, second = divmod(pair, count)
        moved = images[:, [first, second, third[first, second]]]
        both = np.stack([moved, negative[moved]])[flips.astype(int), ops]
        permuted = np.take_along_axis(both, PERMUTATIONS[perms], axis=1)
        reached = permuted[:, 0] * count + permuted[:, 1]
        source[reached] = len(irreducible)
        operation[reached], permutation[reached] = allowed[ops], perms
        conjugate[reached] = flips
        irreducible.append(pair)
    shape = (count, count)
    return Triplets(
        grid.qpoints,
        third,
        np.stack(np.divmod(np.array(irreducible), count), axis=1),
        source.reshape(shape),
        operation.reshape(shape),
        permutation.reshape(shape),
        conjugate.reshape(shape),
    )


class _Index:
    """Positions of commensurate q by their integer coordinates in units of 1/N."""

    def __init__(self, grid: Grid):
        self.size = len(grid.qpoints)
        self.points = np.rint(grid.qpoints * self.size).astype(int)
        self._code = np.array([self.size**2, self.size, 1])
        codes = self.points % self.size @ self._code
        self._order = np.argsort(codes)
        self._codes = codes[self._order]

    def find(self, points: Int[ndarray, "... 3"]) -> Int[ndarray, ...]:
        """Return the positions of points, -1 for those that are not in the set."""
        wanted = (points % self.size) @ self._code
        place = np.minimum(np.searchsorted(self._codes, wanted), self.size - 1)
        return np.where(self._codes[place] == wanted, self._order[place], -1)


def fill_triplets(
    triplets: Triplets,
    symmetry: Operations,
    values: Complex[ndarray, "irreducible columns columns columns"],
) -> Complex[ndarray, "q q atoms 3 atoms 3 atoms 3"]:
    """Return Φ3 of all pairs of q from its values at the irreducible ones."""
    count, atoms = len(triplets.qpoints), symmetry.image.shape[1]
    result = np.empty((count**2, atoms, 3, atoms, 3, atoms, 3), complex)
    blocks = values.reshape(len(values), atoms, 3, atoms, 3, atoms, 3)
    kind = triplets.operation * 6 + triplets.permutation
    kind = (2 * kind + triplets.conjugate).reshape(-1)
    source = triplets.source.reshape(-1)
    order = np.argsort(kind, kind="stable")
    starts = np.flatnonzero(np.diff(kind[order], prepend=-1))
    for pairs in np.split(order, starts[1:]):
        rest, conjugate = divmod(int(kind[pairs[0]]), 2)
        operation, permutation = divmod(rest, 6)
        sources = source[pairs]
        turned = _moved(triplets, symmetry, operation, sources, blocks[sources])
        if conjugate:
            turned = turned.conj()
        axes = [1 + 2 * p + axis for p in PERMUTATIONS[permutation] for axis in (0, 1)]
        result[pairs] = turned.transpose(0, *axes)
    return result.reshape(count, count, *result.shape[1:])


def _moved(
    triplets: Triplets,
    symmetry: Operations,
    operation: int,
    sources: Int[ndarray, " pairs"],
    values: Complex[ndarray, "pairs atoms 3 atoms 3 atoms 3"],
) -> Complex[ndarray, "pairs atoms 3 atoms 3 atoms 3"]:
    """Return the images of Φ3 of irreducible triplets under one operation."""
    rotation, shift = symmetry.cartesian[operation], symmetry.translation[operation]
    before = np.argsort(symmetry.image[operation])  # j of j'
    inverse_transposed = np.rint(np.linalg.inv(symmetry.rotations[operation])).astype(int).T
    first, second = triplets.irreducible[sources].T
    q = triplets.qpoints[np.stack([first, second, triplets.third[first, second]])]
    q[2] = -q[0] - q[1]  # the three add up to zero: T are integers, and no phase is lost
    phases = np.exp(2j * np.pi * (q @ inverse_transposed.T @ shift[before].T))  # (3, pairs, j')
    count = values.shape[1]
    turned = values[:, before][:, :, :, before][:, :, :, :, :, before]
    for _ in range(3):  # the last axis turns and comes to the front of the displacements
        turned = np.moveaxis(turned @ rotation.T, (-2, -1), (1, 2))
    shape = (-1, count, 1, 1, 1, 1, 1)
    turned = turned * phases[0].reshape(shape)
    turned = turned * phases[1].reshape(-1, 1, 1, count, 1, 1, 1)
    return turned * phases[2].reshape(-1, 1, 1, 1, 1, count, 1)


def compact_third_order(
    triplets: Triplets,
    values: Complex[ndarray, "q q atoms 3 atoms 3 atoms 3"],
    cells: Int[ndarray, "super 3"],
    owner: Int[ndarray, " super"],
    rows: Int[ndarray, " atoms"],
) -> Float[ndarray, "atoms super super 3 3 3"]:
    """Return Φ(i, J, K) = N^-2 sum over q_2, q_3 of Φ3_ijk e^{-2πi (q_2·S_J + q_3·S_K)}, eV/Å³.

    S are counted from the cell of atom i. ``cells`` are the integer cell vectors S of the
    supercell's atoms, ``owner`` the primitive atom each is an image of, ``rows`` the supercell
    atom of each primitive atom.
    """
    count, atoms = len(triplets.qpoints), values.shape[2]
    # axes (q_2, q_3) in place of (q_1, q_2): q_1 = -q_2 - q_3
    first = triplets.third
    second = np.broadcast_to(np.arange(count)[:, None], first.shape)
    phase = np.exp(-2j * np.pi * triplets.qpoints @ cells.T)  # (q, super)
    result = np.empty((atoms, len(cells), len(cells), 3, 3, 3))
    images = [np.flatnonzero(owner == j) for j in range(atoms)]
    for i in range(atoms):
        relative = phase * phase[:, rows[i]].conj()[:, None] / count
        for j, k in itertools.product(range(atoms), repeat=2):
            block = values[:, :, i, :, j, :, k][first, second]  # (q_2, q_3, 3, 3, 3)
            half = relative[:, images[j]].T @ block.reshape(count, -1)  # (J, q_3 · 27)
            half = half.reshape(-1, count, 27).transpose(1, 0, 2).reshape(count, -1)
            left = relative[:, images[k]].T
            whole = left.real @ half.real - left.imag @ half.imag  # (K, J · 27)
            whole = whole.reshape(len(images[k]), len(images[j]), 3, 3, 3)
            result[i, images[j][:, None], images[k]] = whole.transpose(1, 0, 2, 3, 4)
    return result

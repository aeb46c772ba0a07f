"""Symmetry of q and the transform from Φ(q) on a commensurate grid to force constants.

An operation {R|τ} takes atom j to x_j' + T_j (see :mod:`.operations`) and q to q' = R^{-T} q
(fractional coordinates). In the lattice gauge, R_c being R in Cartesian axes,

    Φ_{i'j'}(q') = e^{2πi q'·(T_j - T_i)} R_c Φ_ij(q) R_c^T,    Φ(-q) = Φ(q)^*.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from numpy import ndarray
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

from phonopy_equivariant.response.symmetry.operations import Operations

# Difference of fractional coordinates of q that is rounding: 2π times the number of cells that
# force constants reach times this is what Φ(q) changes by, relative to itself.
Q_ROUNDING = 1e-12


class Grid(NamedTuple):
    """The q commensurate with a supercell, and how to get each from an irreducible one."""

    qpoints: Float[ndarray, "q 3"]
    irreducible: Int[ndarray, " irreducible"]  # indices into qpoints
    source: Int[ndarray, " q"]  # position in ``irreducible``
    operation: Int[ndarray, " q"]
    conjugate: ndarray  # (q,) bool: time reversal after the operation


def equivalent_q(
    first: Float[ndarray, "... 3"], second: Float[ndarray, "... 3"]
) -> Bool[ndarray, "..."]:
    """Tell whether two q differ by a reciprocal lattice vector; Φ is the same there."""
    difference = np.asarray(first) - second
    return np.asarray(np.abs(difference - np.rint(difference)).max(axis=-1) < Q_ROUNDING)


def real_q(qpoints: Float[ndarray, "... 3"]) -> Bool[ndarray, "..."]:
    """Tell where 2q is a reciprocal lattice vector: there Φ(q) is real."""
    return equivalent_q(qpoints, -qpoints)


def commensurate_grid(matrix: Int[ndarray, "3 3"], symmetry: Operations) -> Grid:
    """Return the q commensurate with a supercell, reduced by symmetry and time reversal.

    ``matrix`` has the supercell's vectors as columns, in units of the primitive ones. Operations
    that do not map the set of q onto itself are left out: a supercell may break the point group.
    """
    size = abs(round(float(np.linalg.det(matrix))))
    points = np.rint(get_commensurate_points(matrix) * size).astype(int) % size
    code = np.array([size**2, size, 1])
    order = np.argsort(points @ code)
    codes = (points @ code)[order]

    def find(some: Int[ndarray, "... 3"]) -> Int[ndarray, ...]:
        wanted = (some % size) @ code
        place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        return np.where(codes[place] == wanted, order[place], -1)

    inverse_transposed = np.rint(np.linalg.inv(symmetry.rotations)).astype(int).transpose(0, 2, 1)
    images = find(np.einsum("oab,qb->oqa", inverse_transposed, points))
    allowed = np.flatnonzero((images >= 0).all(axis=1))
    negative = find(-points)
    source, operation = np.full(len(points), -1), np.zeros(len(points), int)
    conjugate = np.zeros(len(points), bool)
    irreducible: list[int] = []
    for q in range(len(points)):
        if source[q] >= 0:
            continue
        for flip in (True, False):  # without time reversal where that is enough
            reached = negative[images[allowed, q]] if flip else images[allowed, q]
            fresh = (source[reached] < 0) | (source[reached] == len(irreducible))
            source[reached[fresh]] = len(irreducible)
            operation[reached[fresh]] = allowed[fresh]
            conjugate[reached[fresh]] = flip
        irreducible.append(q)
    return Grid(points / size, np.array(irreducible), source, operation, conjugate)


def fill_star(
    grid: Grid, symmetry: Operations, values: Complex[ndarray, "irreducible columns columns"]
) -> Complex[ndarray, "q atoms 3 atoms 3"]:
    """Return Φ(q) on the whole grid from its values at the irreducible points."""
    atoms = symmetry.image.shape[1]
    blocks = values.reshape(-1, atoms, 3, atoms, 3)[grid.source]
    turn = symmetry.cartesian[grid.operation]
    turned = np.einsum("qab,qibjc,qdc->qiajd", turn, blocks, turn, optimize=True)
    # before time reversal the point is -q where ``conjugate``
    signed = np.where(grid.conjugate[:, None], -grid.qpoints, grid.qpoints)
    phase = np.exp(
        2j * np.pi * np.einsum("qa,qja->qj", signed, symmetry.translation[grid.operation])
    )
    turned *= phase.conj()[:, :, None, None, None] * phase[:, None, None, :, None]
    turned = np.where(grid.conjugate[:, None, None, None, None], turned.conj(), turned)
    image = symmetry.image[grid.operation]
    result = np.empty_like(turned)
    rows = np.arange(len(turned))[:, None, None]
    result[rows, image[:, :, None], :, image[:, None, :]] = turned.transpose(0, 1, 3, 2, 4)
    return result


def compact_force_constants(
    grid: Grid,
    values: Complex[ndarray, "q atoms 3 atoms 3"],
    cells: Int[ndarray, "super 3"],
    owner: Int[ndarray, " super"],
    rows: Int[ndarray, " atoms"],
) -> Float[ndarray, "atoms super 3 3"]:
    """Return Φ(i, J) = 1/N sum_q Φ_ij(q) e^{-2πi q·(S_J - S_i)}, eV/Å².

    ``cells`` are the integer cell vectors S of the supercell's atoms, ``owner`` the primitive
    atom each is an image of, ``rows`` the supercell atom of each primitive atom.
    """
    phase = np.exp(-2j * np.pi * grid.qpoints @ cells.T)  # (q, super)
    atoms = values.shape[1]
    result = np.empty((atoms, len(cells), 3, 3))
    for j in range(atoms):
        images = np.flatnonzero(owner == j)
        column = values[:, :, :, j] * phase[:, rows].conj()[:, :, None, None]
        flat = phase[:, images].T @ column.reshape(len(column), -1)
        blocks = flat.real.reshape(len(images), atoms, 3, 3) / len(grid.qpoints)
        result[:, images] = blocks.transpose(1, 0, 2, 3)
    return result

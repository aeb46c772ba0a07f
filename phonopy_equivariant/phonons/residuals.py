"""Laws that force constants obey, checked on the compact array: O(n·N) memory for N atoms.

Row i of compact force constants belongs to a primitive atom, and translations give the others:
Φ(j at cell S, i at cell S_i) = Φ(j at S_j, i at S_i + S_j - S), S_j being the cell of the atom that
row j belongs to.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


def sum_rule_residual(
    compact: Float[ndarray, "prim super 3 3"], owner: Int[ndarray, " super"]
) -> float:
    """Return the largest |sum_J Φ(i, J)| and |sum_I Φ(I, j)|, eV/Å²: zero by translations."""
    columns = np.zeros((len(compact), 3, 3))
    np.add.at(columns, owner, compact.sum(axis=0))
    return float(max(np.abs(compact.sum(axis=1)).max(), np.abs(columns).max()))


def permutation_residual(
    compact: Float[ndarray, "prim super 3 3"],
    cells: Int[ndarray, "super 3"],
    owner: Int[ndarray, " super"],
    rows: Int[ndarray, " prim"],
    matrix: Int[ndarray, "3 3"],
) -> float:
    """Return the largest |Φ(i, J) - Φ(J, i)^T|, eV/Å²: zero for a second derivative.

    Parameters
    ----------
    compact
        Force constants, eV/Å².
    cells, owner, rows
        Cell vector and primitive atom of every atom of the supercell, and the supercell's atom of
        each row.
    matrix
        The supercell's vectors as columns, in units of the primitive ones.

    """
    home, keys = cells[rows], _keys(cells, owner, matrix)
    order = np.argsort(keys)
    worst = 0.0
    for i, row in enumerate(compact):
        partner_keys = _keys(home[i] + home[owner] - cells, np.full(len(owner), i), matrix)
        place = order[np.searchsorted(keys, partner_keys, sorter=order)]
        back = compact[owner, place].transpose(0, 2, 1)
        worst = max(worst, float(np.abs(row - back).max()))
    return worst


def third_sum_rule_residual(
    compact: Float[ndarray, "prim super super 3 3 3"], owner: Int[ndarray, " super"]
) -> float:
    """Return the largest sum over one atom of Φ(i, J, K), eV/Å³: zero by translations."""
    first = np.zeros((len(compact), *compact.shape[2:]))
    # the sum over I of Φ(I, J, K) is the same for all images of J: here it is summed over K too
    np.add.at(first, owner, compact.sum(axis=0))
    sums = (compact.sum(axis=1), compact.sum(axis=2), first.sum(axis=1))
    return float(max(np.abs(x).max() for x in sums))


def third_permutation_residual(
    compact: Float[ndarray, "prim super super 3 3 3"],
    cells: Int[ndarray, "super 3"],
    owner: Int[ndarray, " super"],
    rows: Int[ndarray, " prim"],
    matrix: Int[ndarray, "3 3"],
) -> float:
    """Return the largest |Φ(i, J, K) - Φ(J, i, K)| and |Φ(i, J, K) - Φ(i, K, J)|, eV/Å³.

    Both are zero for a third derivative. Parameters are those of :func:`permutation_residual`.
    """
    home, keys = cells[rows], _keys(cells, owner, matrix)
    order = np.argsort(keys)
    worst = float(np.abs(compact - compact.transpose(0, 2, 1, 3, 5, 4)).max())
    for j in range(len(owner)):
        # the translation that takes J to the atom of its row
        moved = cells + home[owner[j]] - cells[j]
        place = order[np.searchsorted(keys, _keys(moved, owner, matrix), sorter=order)]
        back = compact[owner[j]][place[rows]][:, place]  # Φ(J, i, K)
        worst = max(worst, float(np.abs(compact[:, j] - back.transpose(0, 1, 3, 2, 4)).max()))
    return worst


def _keys(
    cells: Int[ndarray, "listed 3"], owner: Int[ndarray, " listed"], matrix: Int[ndarray, "3 3"]
) -> Int[ndarray, " listed"]:
    """Return a number for every atom; images by a vector of the supercell have the same."""
    size = abs(round(float(np.linalg.det(matrix))))
    adjugate = np.rint(size * np.linalg.inv(matrix)).astype(int)
    code = (cells @ adjugate.T) % size
    return ((owner * size + code[:, 0]) * size + code[:, 1]) * size + code[:, 2]

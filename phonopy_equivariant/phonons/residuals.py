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


def _keys(
    cells: Int[ndarray, "listed 3"], owner: Int[ndarray, " listed"], matrix: Int[ndarray, "3 3"]
) -> Int[ndarray, " listed"]:
    """Return a number for every atom; images by a vector of the supercell have the same."""
    size = abs(round(float(np.linalg.det(matrix))))
    adjugate = np.rint(size * np.linalg.inv(matrix)).astype(int)
    code = (cells @ adjugate.T) % size
    return ((owner * size + code[:, 0]) * size + code[:, 1]) * size + code[:, 2]

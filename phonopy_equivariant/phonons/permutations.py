"""How symmetry operations permute the atoms of a large supercell, in a fraction of the time.

phonopy matches positions for every operation of a supercell, pure translations times rotations:
12288 for 512 atoms of rock salt, which takes seconds, twice in one run. But an operation {R|t + τ}
is {R|t} followed by the pure translation τ, so that positions have to be matched for each rotation
and each translation only, and the permutations of the others are products:

    x[p[i]] = R·x[i] + t + τ,   p = p_τ[p_R]
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from phonopy.structure import symmetry

# Fractions of the cell within which two translations are the same; those of a lattice differ by far
# more.
_SAME = 1e-4
# Fewer operations than this are left to phonopy.
_MANY = 500


@contextlib.contextmanager
def composed_permutations() -> Iterator[None]:
    """Let phonopy find the permutations of its supercells by composition inside the context.

    It puts :func:`permutations` and :func:`unique_rotations` in the place of two functions of
    phonopy (4.7 to 4.10) that return the same arrays. A phonopy without them is left as it is.
    """
    replacements = {
        "compute_all_sg_permutations": permutations,
        "collect_unique_rotations": unique_rotations,
    }
    originals = {name: getattr(symmetry, name) for name in replacements if hasattr(symmetry, name)}
    try:
        for name, original in originals.items():
            setattr(symmetry, name, replacements[name](original))
        yield
    finally:
        for name, original in originals.items():
            setattr(symmetry, name, original)


def permutations(matched: Callable[..., Any]) -> Callable[..., Any]:
    """Return a faster ``compute_all_sg_permutations`` for phonopy.

    Only the factors of operations are matched with phonopy's function; the permutations of all
    other operations are products of these.
    """

    def composed(
        positions: Float[ndarray, "atoms 3"],
        rotations: Int[ndarray, "operations 3 3"],
        translations: Float[ndarray, "operations 3"],
        *cell: Any,
        **options: Any,
    ) -> Int[ndarray, "operations atoms"]:
        if len(rotations) < _MANY:
            return np.asarray(matched(positions, rotations, translations, *cell, **options))
        parts = _factors(np.asarray(rotations), np.asarray(translations))
        if parts is None:
            return np.asarray(matched(positions, rotations, translations, *cell, **options))
        first, pure, rotation, translation = parts
        factor_indices = np.concatenate([first, pure])
        factor_permutations = np.asarray(
            matched(
                positions, rotations[factor_indices], translations[factor_indices], *cell, **options
            )
        )
        of_rotation, of_translation = np.split(factor_permutations, [len(first)])
        result = np.empty((len(rotations), len(positions)), dtype="int64")
        for index, permutation in enumerate(of_rotation):
            rows = np.flatnonzero(rotation == index)
            result[rows] = of_translation[translation[rows]][:, permutation]
        return result

    return composed


def unique_rotations(_original: Callable[..., Any]) -> Callable[..., Any]:
    """Return phonopy's ``collect_unique_rotations``: each rotation once, in order."""

    def unique(rotations: Int[ndarray, "operations 3 3"]) -> Int[ndarray, "rotations 3 3"]:
        first = np.unique(np.asarray(rotations), axis=0, return_index=True)[1]
        return np.array(np.asarray(rotations)[np.sort(first)], dtype="int64", order="C")

    return unique


def _factors(
    rotations: Int[ndarray, "operations 3 3"], translations: Float[ndarray, "operations 3"]
) -> tuple[ndarray, ndarray, ndarray, ndarray] | None:
    """Return the operations whose products are all operations, and the factors of each.

    The four arrays are: the index of the first operation of each rotation; the indices of the pure
    translations; and, for every operation, its factor among the former and among the latter.
    Return None if an operation is no such product.
    """
    from scipy.spatial import cKDTree  # a tenth of a second of imports

    first, rotation = np.unique(rotations, axis=0, return_index=True, return_inverse=True)[1:]
    rotation = rotation.ravel()
    pure = np.flatnonzero((rotations == np.eye(3, dtype=int)).all(axis=(1, 2)))
    offsets = translations - translations[first][rotation]
    tree = cKDTree(translations[pure] % 1.0 % 1.0, boxsize=1.0)
    distance, translation = tree.query(offsets % 1.0 % 1.0)
    if len(pure) == 0 or distance.max() > _SAME:
        return None
    return first, pure, rotation, translation

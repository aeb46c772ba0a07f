"""Symmetry operations of a molecule, found from its atoms, and the name of their group.

Every operation maps a pair of atoms, not on one line with the centre of mass, onto another pair of
the same kind at the same distances. All such pairs are tried: there are few, so the search is
complete and takes milliseconds.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.spatial.distance import cdist

from phonopy_equivariant.defaults import SYMMETRY_TOLERANCE
from phonopy_equivariant.molecules.modes import center_of_mass, is_linear

# Isotopes differ by more than half a unit of mass; rounded masses of one element by less.
_SAME_MASS = 0.3  # amu


class Operation(NamedTuple):
    """An orthogonal matrix about the centre of mass and the atom that takes each atom's place."""

    matrix: Float[ndarray, "3 3"]
    permutation: Int[ndarray, " atoms"]  # matrix · x_i lies at x_permutation[i]
    deviation: float  # Å, the largest distance between the two

    @property
    def proper(self) -> bool:
        """Whether it is a rotation, not one with a reflection."""
        return bool(np.linalg.det(self.matrix) > 0)


class Symmetry(NamedTuple):
    """The point group of a molecule.

    The first of ``operations`` is the identity. There are none for a linear molecule, which has
    infinitely many, and none for a single atom.
    """

    group: str  # Schoenflies; D*h and C*v of linear molecules as Dinfh, Cinfv; Kh for an atom
    operations: tuple[Operation, ...]
    axis: Float[ndarray, "3"]  # of a linear molecule; else zero
    deviation: float  # Å

    @property
    def rotations(self) -> int:
        """Symmetry number, the count of rotations that bring the molecule onto itself."""
        if self.operations:
            return sum(operation.proper for operation in self.operations)
        return 2 if self.group == "Dinfh" else 1


def find_symmetry(
    numbers: Int[ndarray, " atoms"],
    positions: Float[ndarray, "atoms 3"],
    masses: Float[ndarray, " atoms"],
    tolerance: float = SYMMETRY_TOLERANCE,
) -> Symmetry:
    """Return the point group within ``tolerance``, the largest distance (Å) an atom may be off.

    Isotopes count as different atoms. Where operations within the tolerance form no group, those
    with the largest deviations are dropped until they do.
    """
    centred = np.asarray(positions - center_of_mass(positions, masses), float)
    kinds = _kinds(numbers, masses)
    if len(numbers) == 1:
        return Symmetry("Kh", (), np.zeros(3), 0.0)
    if is_linear(positions, masses):
        return _linear(kinds, centred, tolerance)
    operations = next(nested_groups(_candidates(kinds, centred, tolerance)))
    deviation = max(operation.deviation for operation in operations)
    return Symmetry(group_name(operations), operations, np.zeros(3), deviation)


def axial_subgroups(symmetry: Symmetry) -> Iterator[Symmetry]:
    """Yield subgroups whose main axis has a lower order, the highest order first."""
    operations = symmetry.operations
    orders = [rotation_order(o.matrix) if o.proper else 0 for o in operations]
    fold = max(orders, default=1)
    main = rotation_axis(operations[orders.index(fold)].matrix) if fold > 1 else np.zeros(3)
    axes = [rotation_axis(o.matrix if o.proper else -o.matrix) for o in operations]
    along = [abs(axis @ main) > 0.9 for axis in axes]
    mirrors = [_is_mirror(o.matrix) for o in operations]
    across = [k for k, order in enumerate(orders) if order == 2 and not along[k]]
    vertical = [k for k, mirror in enumerate(mirrors) if mirror and not along[k]]
    horizontal = [k for k, mirror in enumerate(mirrors) if mirror and along[k]]
    for order in range(fold - 1, 0, -1):
        if fold % order:
            continue
        turn = [k for k, n in enumerate(orders) if n == order and (along[k] or n == 1)]
        generators = [turn[0], *(across or vertical)[:1], *horizontal[:1]]
        subgroup = _generated([operations[k] for k in generators], operations)
        yield symmetry._replace(group=group_name(subgroup), operations=subgroup)


def group_name(operations: tuple[Operation, ...]) -> str:
    """Return the Schoenflies symbol of a finite group, from the orders of its operations."""
    proper = Counter(rotation_order(o.matrix) for o in operations if o.proper)
    mirrors = sum(_is_mirror(o.matrix) for o in operations)
    rotations, order = sum(proper.values()), len(operations)
    inversion = any(np.allclose(o.matrix, -np.eye(3), atol=0.1) for o in operations)
    if proper[5] >= 24:
        return "Ih" if order == 120 else "I"
    if proper[3] == 8:  # four axes
        if proper[4] == 6:
            return "Oh" if order == 48 else "O"
        return "T" if order == 12 else "Th" if inversion else "Td"
    fold = max(proper)
    improper = order > rotations
    if rotations == 2 * fold:  # axes perpendicular to the main axis
        if not improper:
            return f"D{fold}"
        return f"D{fold}h" if mirrors == fold + 1 else f"D{fold}d"
    if not improper:
        return f"C{fold}"
    if fold == 1:
        return "Cs" if mirrors else "Ci"
    if mirrors == fold:
        return f"C{fold}v"
    return f"C{fold}h" if mirrors == 1 else f"S{2 * fold}"


def rotation_order(matrix: Float[ndarray, "3 3"]) -> int:
    """Return n of a rotation by 2πk/n, k and n without a common factor."""
    turn = rotation_angle(matrix) / (2 * np.pi)
    # angles within a tolerance of 0.01 Å are good to about a degree
    errors = [abs(turn * n - round(turn * n)) / n for n in range(1, 25)]
    return 1 + next(k for k, error in enumerate(errors) if error < 0.004)


def rotation_angle(matrix: Float[ndarray, "3 3"]) -> float:
    """Return the angle of a rotation, 0 to π."""
    return float(np.arccos(np.clip((np.trace(matrix) - 1) / 2, -1, 1)))


def rotation_axis(matrix: Float[ndarray, "3 3"]) -> Float[ndarray, "3"]:
    """Return the axis of a rotation, zero for the identity."""
    if rotation_order(matrix) == 1:
        return np.zeros(3)
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray(vectors[:, values.argmax()])


def _is_mirror(matrix: ndarray) -> bool:
    # the rotation by π about its normal, times the inversion
    return bool(np.linalg.det(matrix) < 0) and rotation_order(-matrix) == 2


def _kinds(numbers: ndarray, masses: ndarray) -> ndarray:
    """Return an integer for every atom; atoms of one element and isotope have the same."""
    kinds: list[tuple[int, float]] = []
    result = []
    for number, mass in zip(numbers.tolist(), masses.tolist(), strict=True):
        matches = [
            k for k, (z, m) in enumerate(kinds) if z == number and abs(m - mass) < _SAME_MASS
        ]
        if not matches:
            kinds.append((number, mass))
        result.append(matches[0] if matches else len(kinds) - 1)
    return np.array(result)


def _linear(kinds: ndarray, centred: ndarray, tolerance: float) -> Symmetry:
    axis = np.linalg.svd(centred)[2][0]
    heights = centred @ axis
    off_axis = float(np.linalg.norm(centred - np.outer(heights, axis), axis=1).max())
    order, reverse = np.lexsort((kinds, heights)), np.lexsort((kinds, -heights))
    asymmetry = float(np.abs(heights[order] + heights[reverse]).max())
    if (kinds[order] == kinds[reverse]).all() and asymmetry <= tolerance:
        return Symmetry("Dinfh", (), axis, max(off_axis, asymmetry))
    return Symmetry("Cinfv", (), axis, off_axis)


def _candidates(kinds: ndarray, centred: ndarray, tolerance: float) -> list[Operation]:
    """Return the operations that map the atoms on each other within the tolerance."""
    first, second, images = _reference_pair(kinds, centred, tolerance)
    frame = orthonormal_frame(centred[first], centred[second])
    product = centred[first] @ centred[second]
    reach = np.linalg.norm(centred[[first, second]], axis=1).sum()
    operations: dict[tuple[bytes, bool], Operation] = {}
    for a, b in itertools.product(*images):
        if a == b or abs(centred[a] @ centred[b] - product) > 2 * tolerance * reach:
            continue
        target = orthonormal_frame(centred[a], centred[b])
        for hand in (1.0, -1.0):
            guess = (target * [1.0, 1.0, hand]) @ frame.T
            operation = _refined(guess, kinds, centred)
            if operation is not None and operation.deviation <= tolerance:
                operations.setdefault(_key(operation), operation)
    return list(operations.values())


def _reference_pair(
    kinds: ndarray, centred: ndarray, tolerance: float
) -> tuple[int, int, tuple[ndarray, ndarray]]:
    """Return two atoms with few equivalents, well off one line, and their possible images."""
    radii = np.linalg.norm(centred, axis=1)
    alike = (kinds[:, None] == kinds) & (np.abs(radii[:, None] - radii) <= 2 * tolerance)
    far = radii > 0.1 * radii.max()
    first = min(np.flatnonzero(far), key=lambda i: (alike[i].sum(), -radii[i]))
    height = np.linalg.norm(np.cross(centred, centred[first] / radii[first]), axis=1)
    off = np.flatnonzero(height > 0.3 * height.max())
    second = min(off, key=lambda i: (alike[i].sum(), -height[i]))
    return int(first), int(second), (np.flatnonzero(alike[first]), np.flatnonzero(alike[second]))


def orthonormal_frame(
    along: Float[ndarray, "3"], beside: Float[ndarray, "3"]
) -> Float[ndarray, "3 3"]:
    """Return a right-handed frame as columns: x ``along`` a vector, y in the plane with another."""
    x = along / np.linalg.norm(along)
    y = beside - (beside @ x) * x
    y /= np.linalg.norm(y)
    return np.column_stack([x, y, np.cross(x, y)])


def _refined(guess: ndarray, kinds: ndarray, centred: ndarray) -> Operation | None:
    """Return the operation that fits the guess's permutation of atoms best (Kabsch).

    Return None if the guess maps two atoms on one.
    """
    distances = cdist(centred @ guess.T, centred)
    distances[kinds[:, None] != kinds] = np.inf
    permutation = distances.argmin(axis=1)
    if len(set(permutation.tolist())) < len(kinds):
        return None
    u, _, vt = np.linalg.svd(centred[permutation].T @ centred)
    # a plane leaves the third direction open: keep the handedness of the guess
    hand = np.sign(np.linalg.det(guess) * np.linalg.det(u @ vt))
    matrix = (u * [1.0, 1.0, hand]) @ vt
    moved = np.linalg.norm(centred @ matrix.T - centred[permutation], axis=1)
    return Operation(matrix, permutation, float(moved.max()))


def _key(operation: Operation) -> tuple[bytes, bool]:
    # a planar molecule's reflection permutes nothing, so the permutation alone does not tell
    return operation.permutation.tobytes(), operation.proper


def nested_groups(operations: Sequence[Operation]) -> Iterator[tuple[Operation, ...]]:
    """Yield the groups among operations, the largest first.

    Each next group lacks the operations with the largest deviation. In a group the identity comes
    first, and rotations come before improper operations.
    """
    remaining = sorted(operations, key=lambda operation: operation.deviation)
    while remaining:
        if _is_closed(remaining):
            yield tuple(
                sorted(
                    remaining, key=lambda o: (not o.proper, round(float(3 - np.trace(o.matrix)), 3))
                )
            )
        worst = remaining[-1].deviation
        remaining = [operation for operation in remaining if operation.deviation < worst]


def _generated(
    generators: list[Operation], operations: tuple[Operation, ...]
) -> tuple[Operation, ...]:
    """Return the operations that products of the generators make, in the order given."""
    by_key = {_key(operation): operation for operation in operations}
    generated = {_key(operations[0]): operations[0]}
    latest = list(generated.values())
    while latest:
        products = [_product(a, b) for a in latest for b in generators]
        latest = [by_key[key] for key in dict.fromkeys(products) if key not in generated]
        generated |= {_key(operation): operation for operation in latest}
    return tuple(operation for operation in operations if _key(operation) in generated)


def _product(first: Operation, second: Operation) -> tuple[bytes, bool]:
    """Return the key of one operation after another."""
    permutation = second.permutation[first.permutation]
    return permutation.tobytes(), first.proper == second.proper


def _is_closed(operations: Sequence[Operation]) -> bool:
    keys = {_key(operation) for operation in operations}
    return all(_product(a, b) in keys for a, b in itertools.product(operations, repeat=2))

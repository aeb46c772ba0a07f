"""Irreducible representations of a molecule's point group: characters of each of its operations.

The tables are those of posym, for a molecule in a standard orientation. Here they are brought onto
the operations found. Where the orientation is a matter of convention, so that B1 and B2 change
places, R. S. Mulliken's recommendations hold (J. Chem. Phys. 23, 1997 (1955)).
"""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.molecules.operations import (
    Operation,
    Symmetry,
    axial_subgroups,
    orthonormal_frame,
    rotation_angle,
    rotation_axis,
    rotation_order,
)

# A finite subgroup stands for the infinite one: up to E3 = Φ its irreps are those of the molecule.
_FINITE = {"Cinfv": "C8v", "Dinfh": "D8h"}
_GREEK = {"E1": "Π", "E2": "Δ", "E3": "Φ"}
_HIGHEST = 10
# posym 1.3.2 calls the totally symmetric irrep of D2 as in other D_n
_RENAMED = {("D2", "A1"): "A"}
# Cartesian elements of matched operations differ by rounding and by the tolerance over the size
_MATCH = 0.1


class CharacterTable(NamedTuple):
    """Characters of every operation, not of every class.

    A pair of complex conjugate irreps counts as one of dimension two, E, as frequencies do.
    """

    group: str
    labels: tuple[str, ...]
    characters: Float[ndarray, "irreps operations"]
    operations: tuple[Operation, ...]

    @property
    def dimensions(self) -> ndarray:
        """Dimension of each irrep."""
        return np.rint(self.characters[:, 0]).astype(int)

    def multiplicities(self, characters: ndarray) -> ndarray:
        """Return how often each irrep is contained in a representation, m = Σ χ_i χ / Σ χ_i²."""
        overlap = self.characters @ characters
        return np.asarray(overlap / (self.characters**2).sum(axis=1))

    @property
    def vector(self) -> ndarray:
        """How often each irrep occurs in the vector (translations, the dipole)."""
        return self.multiplicities(np.array([np.trace(o.matrix) for o in self.operations]))

    @property
    def symmetric_tensor(self) -> ndarray:
        """How often each irrep occurs in the symmetric square of the vector (polarizability)."""
        matrices = [o.matrix for o in self.operations]
        return self.multiplicities(
            np.array([(np.trace(r) ** 2 + np.trace(r @ r)) / 2 for r in matrices])
        )

    @property
    def infrared(self) -> ndarray:
        """Whether each irrep is infrared active, that is, part of the vector representation."""
        return np.asarray(self.vector > 0.5)

    @property
    def raman(self) -> ndarray:
        """Whether each irrep is Raman active, that is, occurs in :attr:`symmetric_tensor`."""
        return np.asarray(self.symmetric_tensor > 0.5)


class _Standard(NamedTuple):
    """A point group in standard orientation."""

    matrices: list[ndarray]  # one of each class
    classes: list[str]
    labels: list[str]
    characters: ndarray  # (irreps, classes)


def character_table(
    symmetry: Symmetry, positions: Float[ndarray, "atoms 3"], masses: Float[ndarray, " atoms"]
) -> CharacterTable:
    """Return the characters of a molecule's operations.

    ``positions`` (Å) are relative to the centre of mass. For a linear molecule the operations of
    C8v or D8h stand for the infinitely many. Where posym has no sound table (an axis of more than
    tenfold symmetry, D7d) it is that of the largest subgroup with a lower axis.

    Raises
    ------
    PhonopyEquivariantError
        Operations that match no table.

    """
    try:
        return _table(symmetry, positions, masses)
    except PhonopyEquivariantError:
        for subgroup in axial_subgroups(symmetry):
            with contextlib.suppress(PhonopyEquivariantError):
                return _table(subgroup, positions, masses)
        raise


def _table(
    symmetry: Symmetry, positions: Float[ndarray, "atoms 3"], masses: Float[ndarray, " atoms"]
) -> CharacterTable:
    if symmetry.group == "C1":
        return CharacterTable("C1", ("A",), np.ones((1, 1)), symmetry.operations)
    standard = _standard(_FINITE.get(symmetry.group, symmetry.group))
    operations = symmetry.operations or _operations_of_a_line(standard, symmetry, positions)
    choices = _assignments(standard, operations)
    if symmetry.group[0] in "TOI":  # no two kinds of elements could change places
        choices = itertools.islice(choices, 1)
    best_classes = max(
        choices,
        key=lambda classes: _merit(symmetry.group, classes, operations, masses),
        default=None,
    )
    if best_classes is None:
        raise PhonopyEquivariantError(
            f"The operations found do not match the table of {symmetry.group}; "
            "choose another symmetry_tolerance=."
        )
    columns = [standard.classes.index(name) for name in best_classes]
    characters = standard.characters[:, columns]
    table = CharacterTable(symmetry.group, tuple(standard.labels), characters, operations)
    _check(table)
    if symmetry.group in _FINITE:
        labels = [_linear_label(label) for label in table.labels]
        return table._replace(labels=tuple(labels))
    return table


def _standard(group: str) -> _Standard:
    # posym ends the process on axes of higher order
    if int("".join(filter(str.isdigit, group)) or 0) > _HIGHEST:
        raise PhonopyEquivariantError(f"posym has no character table of the point group {group}.")
    # loaded when needed: it brings pandas; it prints where it fails
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            from posym import PointGroup  # type: ignore[import-untyped]

            table = PointGroup(group)
            characters = table.ir_table.T.to_numpy(float)
            matrices = [np.asarray(o.matrix_representation, float) for o in table.operations]
        except (Exception, SystemExit) as error:
            raise PhonopyEquivariantError(
                f"posym has no character table of the point group {group}."
            ) from error
    labels = [_RENAMED.get((group, str(label)), str(label)) for label in table.ir_labels]
    return _Standard(matrices, [o.label for o in table.operations], labels, characters)


def _assignments(
    standard: _Standard, operations: tuple[Operation, ...]
) -> Iterator[tuple[str, ...]]:
    """Yield the classes of the molecule's operations for each orientation of the standard group.

    An orientation turns the standard group so that its operations are those of the molecule.
    """
    matrices = np.array([o.matrix for o in operations])
    yielded = set()
    for orientation in _orientations(standard, matrices):
        turned = [orientation @ m @ orientation.T for m in standard.matrices]
        distance = np.abs(matrices[None] - np.array(turned)[:, None]).max(axis=(2, 3))
        matched = distance.argmin(axis=1)
        if distance.min(axis=1).max() > _MATCH or len(set(matched.tolist())) < len(matched):
            continue
        classes = _classes(matrices, dict(zip(matched.tolist(), standard.classes, strict=True)))
        if classes is not None and classes not in yielded:
            yielded.add(classes)
            yield classes


def _orientations(standard: _Standard, matrices: ndarray) -> Iterator[ndarray]:
    """Yield rotations that map two axes of the standard group on axes of the molecule's group.

    An axis is mapped only on an axis of its own kind.
    """
    standard_axes = [_axis(m) for m in standard.matrices]
    with_axis = [k for k, axis in enumerate(standard_axes) if axis.any()]
    if not with_axis:
        yield np.eye(3)
        return
    main = max(with_axis, key=lambda k: _kind(standard.matrices[k])[1])
    across = [
        k
        for k in with_axis
        if np.linalg.norm(np.cross(standard_axes[k], standard_axes[main])) > 0.1
    ]
    axes = [_axis(m) for m in matrices]
    kinds = [_kind(m) for m in matrices]
    main_images = [axes[k] for k in range(len(axes)) if kinds[k] == _kind(standard.matrices[main])]
    if not across:  # all axes are parallel: any second direction will do
        beside = np.eye(3)[np.abs(standard_axes[main]).argmin()]
        for image in main_images:
            yield _rotation(standard_axes[main], beside, image, np.eye(3)[np.abs(image).argmin()])
        return
    second = across[0]
    second_images = [
        axes[k] for k in range(len(axes)) if kinds[k] == _kind(standard.matrices[second])
    ]
    angle = standard_axes[main] @ standard_axes[second]
    for a, b, sign, side in itertools.product(main_images, second_images, (1, -1), (1, -1)):
        if abs(side * (sign * a) @ b - angle) < _MATCH:
            yield _rotation(standard_axes[main], standard_axes[second], sign * a, side * b)


def _classes(matrices: ndarray, representatives: dict[int, str]) -> tuple[str, ...] | None:
    """Return the class of every operation, given the class of some operation of each class.

    Return None if an operation would be in two classes. An operation and its inverse are of one
    class, because characters here are real.
    """
    classes: list[str | None] = [None] * len(matrices)
    for member, name in representatives.items():
        conjugates = matrices @ matrices[member] @ matrices.transpose(0, 2, 1)
        for image in (conjugates, conjugates.transpose(0, 2, 1)):
            distance = np.abs(matrices[:, None] - image[None]).max(axis=(2, 3))
            for k in set(distance.argmin(axis=0).tolist()):
                if classes[k] not in (None, name):
                    return None
                classes[k] = name
    return None if None in classes else tuple(str(name) for name in classes)


# what Mulliken wants to hold as many atoms as possible, first to last: the plane yz of a planar
# molecule, the axis z, else the axes C2' or the planes sigma_v
_FAVOURED = {"C2v": ("sd_yz",), "D2": ("C2",), "D2h": ("sd", "C2")}


def _merit(
    group: str, classes: tuple[str, ...], operations: tuple[Operation, ...], masses: ndarray
) -> tuple[float, ...]:
    """Return how many atoms lie on favoured elements, then their mass; larger is better."""
    merits: list[float] = []
    for name in _FAVOURED.get(group, ("C2'", "sv_xz")):
        fixed = np.zeros(len(masses), int)
        for operation, class_name in zip(operations, classes, strict=True):
            if class_name == name:
                fixed += operation.permutation == np.arange(len(masses))
        merits += [float(fixed.sum()), round(float(masses @ fixed), 3)]
    return tuple(merits)


def _operations_of_a_line(
    standard: _Standard, symmetry: Symmetry, positions: ndarray
) -> tuple[Operation, ...]:
    """Return the operations of the finite group that stands for a linear molecule's."""
    z = symmetry.axis
    x = np.cross(z, np.eye(3)[np.abs(z).argmin()])
    turn = np.column_stack([x / np.linalg.norm(x), np.cross(z, x / np.linalg.norm(x)), z])
    matrices = [np.eye(3)]
    generators = [turn @ m @ turn.T for m in standard.matrices]
    while True:
        products = [m @ g for m in matrices for g in generators]
        unlisted = [p for p in products if all(np.abs(p - m).max() > 1e-6 for m in matrices)]
        if not unlisted:
            break
        matrices.append(unlisted[0])
    operations = []
    for matrix in matrices:
        permutation = np.linalg.norm(
            (positions @ matrix.T)[:, None] - positions[None], axis=-1
        ).argmin(axis=1)
        operations.append(Operation(matrix, permutation, symmetry.deviation))
    return tuple(operations)


def _linear_label(label: str) -> str:
    """Return Σ, Π, Δ, Φ for A, E1, E2, E3; B irreps are those of higher angular momenta.

    The sign is the character of a plane through the axis: + for A1 and A1g, but for A2u as well.
    """
    parity = label[-1] if label[-1] in "gu" else ""
    name = label.removesuffix(parity)
    if name in ("A1", "A2"):
        return f"Σ{parity}{'+' if (name == 'A1') != (parity == 'u') else '-'}"
    return _GREEK.get(name, name) + parity


def _check(table: CharacterTable) -> None:
    """Raise unless the irreps are orthogonal and complete: posym's tables are not all sound."""
    products = table.characters @ table.characters.T / len(table.operations)
    norms = np.diag(products)
    complete = abs((table.dimensions**2 / norms).sum() - len(table.operations)) < 1e-6
    if not complete or np.abs(products - np.diag(norms)).max() > 1e-3:
        raise PhonopyEquivariantError(
            f"posym has no sound character table of the point group {table.group}."
        )


def _axis(matrix: ndarray) -> ndarray:
    """Return the axis of the rotation in an operation, zero for identity and inversion."""
    return rotation_axis(matrix * np.sign(np.linalg.det(matrix)))


def _kind(matrix: ndarray) -> tuple[bool, int, int]:
    """Return handedness, order and angle (steps of 1/360), which conjugate operations share."""
    hand = bool(np.linalg.det(matrix) > 0)
    proper = matrix if hand else -matrix
    order = rotation_order(proper)
    steps = round(rotation_angle(proper) / (2 * np.pi) * order)
    return hand, order, steps * 360 // order


def _rotation(a: ndarray, b: ndarray, c: ndarray, d: ndarray) -> ndarray:
    """Return the rotation that takes the directions a, b to c, d, which enclose the same angle."""
    return np.asarray(orthonormal_frame(c, d) @ orthonormal_frame(a, b).T)

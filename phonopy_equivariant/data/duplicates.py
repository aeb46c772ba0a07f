"""Equal structures in a set, or in two, and labels of theirs that contradict each other.

A structure is known by projections of its positions and cell vectors on three fixed random
directions of the space of all coordinates: equal structures have equal projections, others by
chance only. So a set of any size is compared without being kept. Of a periodic structure the
positions are phases, the same for an atom and its images.
"""

from __future__ import annotations

import functools
import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from phonopy_equivariant.data.record import Record

# Å: a file with eight decimals leaves 1e-7 in the projection of a hundred atoms.
_EQUAL = 1e-6
# What is kept of labels, how many numbers of each, and by how much those of one structure may
# differ, as convergence makes them: eV/atom; projections of eV/Å and of eV/Å³.
_TOLERANCES = {
    "its energy differs by {:.2g} eV/atom": (1, 2e-3),
    "its forces differ by about {:.2g} eV/Å": (3, 0.05),
    "its stress differs by about {:.2g} eV/Å³": (3, 3e-3),
}
_WIDTH = 3 + sum(count for count, _ in _TOLERANCES.values())


class Marks(NamedTuple):
    """What is kept of records to compare them."""

    kinds: Int[ndarray, " records"]  # of the elements, in order, and the periodicity
    projections: Float[ndarray, "records 3"]  # Å
    levels: Int[ndarray, " records"]  # of theory
    labels: Float[ndarray, "records numbers"]  # as _TOLERANCES has them

    def take(self, places: Sequence[int] | ndarray) -> Marks:
        """Return the marks of some records."""
        return Marks(*(values[places] for values in self))


class Copy(NamedTuple):
    """A structure that two sets have."""

    first: int  # its place in the first set
    second: int  # and in the second
    difference: str  # of their labels; empty where they agree


class MarkTable:
    """Marks of records, and of their labels; the records are seen once and not kept."""

    def __init__(self) -> None:
        self._kinds, self._numbers, self._levels = array("q"), array("d"), array("q")

    def add(self, record: Record | None) -> None:
        """Take in a record; None stands for one that equals no other."""
        if record is None:
            self._kinds.append(0)
            self._levels.append(0)
            self._numbers.extend([np.nan] * _WIDTH)
            return
        numbers, positions, cell, pbc, _ = record.structure
        self._kinds.append(_hash(numbers.tobytes() + pbc.tobytes()))
        self._levels.append(_hash(record.level.encode()))
        places = _places(positions, cell, bool(pbc.all()))
        self._numbers.extend(_projected(np.vstack([places, cell])))
        energy, atoms = record.energy, len(numbers)
        self._numbers.append(np.nan if energy is None else energy / atoms)
        for label in (record.forces, record.stress):
            self._numbers.extend([np.nan] * 3 if label is None else _projected(label))

    @property
    def marks(self) -> Marks:
        """The marks of all records so far."""
        table = np.array(self._numbers).reshape(-1, _WIDTH)
        return Marks(np.array(self._kinds), table[:, :3], np.array(self._levels), table[:, 3:])

    def contradictions(self) -> dict[int, tuple[int, str]]:
        """Return, for each record that contradicts one of the same structure, that one and how."""
        marks = self.marks
        contradictions: dict[int, tuple[int, str]] = {}
        for group in _groups(marks):
            for level in np.unique(marks.levels[group]):
                places = group[marks.levels[group] == level]
                for text, columns, tolerance in _columns():
                    values = marks.labels[places, columns]
                    for place, twin, off in _far_apart(places, values, tolerance):
                        contradictions.setdefault(place, (twin, text.format(off)))
        return dict(sorted(contradictions.items()))


def shared_structures(first: Marks, second: Marks) -> list[Copy]:
    """Return the structures that two sets share; each of the second set appears once."""
    merged = Marks(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))
    border = len(first.kinds)
    copies = []
    for group in _groups(merged):
        place = int(group[0])
        if place < border <= group[-1]:
            copies += [
                Copy(place, int(k) - border, _difference(merged, place, int(k)))
                for k in group
                if k >= border
            ]
    return sorted(copies, key=lambda copy: copy.second)


def _difference(marks: Marks, first: int, second: int) -> str:
    """Return how the labels of two records of one structure differ; "" if they agree."""
    if marks.levels[first] != marks.levels[second]:
        return ""
    off = np.abs(marks.labels[first] - marks.labels[second])
    for text, columns, tolerance in _columns():
        if off[columns].max() > tolerance:  # NaN, a label that one of them lacks, is not
            return text.format(off[columns].max())
    return ""


def _columns() -> Iterator[tuple[str, slice, float]]:
    """Yield the columns of each label in :class:`Marks`, what to say of it, and the tolerance."""
    start = 0
    for text, (count, tolerance) in _TOLERANCES.items():
        yield text, slice(start, start + count), tolerance
        start += count


def _places(
    positions: Float[ndarray, "atoms 3"], cell: Float[ndarray, "3 3"], periodic: bool
) -> Float[ndarray, "rows 3"]:
    """Return positions (Å), or numbers as large that are the same for all images of an atom."""
    if not periodic:
        return positions
    angles = 2 * np.pi * positions @ np.linalg.inv(cell)
    lengths = np.linalg.norm(cell, axis=1) / (2 * np.pi)
    return np.vstack([np.cos(angles) * lengths, np.sin(angles) * lengths])


def _groups(marks: Marks) -> Iterator[ndarray]:
    """Yield the places, ascending, of structures that are equal."""
    order = np.lexsort((marks.projections[:, 0], marks.kinds))
    first, kinds = marks.projections[order, 0], marks.kinds[order]
    apart = (np.diff(kinds) != 0) | (np.diff(first) > _EQUAL)
    for run in np.split(order, 1 + np.flatnonzero(apart)):
        while len(run) > 1:
            away = np.abs(marks.projections[run] - marks.projections[run[0]]).max(axis=1)
            if np.count_nonzero(away < _EQUAL) > 1:
                yield np.sort(run[away < _EQUAL])
            run = run[away >= _EQUAL]


def _far_apart(
    places: Int[ndarray, " records"], values: Float[ndarray, "records marks"], tolerance: float
) -> Iterator[tuple[int, int, float]]:
    """Yield each record that is further than the tolerance from another, and the furthest."""
    labelled = ~np.isnan(values).any(axis=1)
    places, values = places[labelled], values[labelled]
    if len(values) < 2:
        return
    ends = np.concatenate([values.argmin(axis=0), values.argmax(axis=0)])
    for place, row in zip(places, values, strict=True):
        off = np.abs(values[ends] - row).max(axis=1)
        if off.max() > tolerance:
            yield int(place), int(places[ends[off.argmax()]]), float(off.max())


def _hash(content: bytes) -> int:
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _projected(vectors: Float[ndarray, "rows 3"]) -> Float[ndarray, "3"]:
    projected: ndarray = _directions(vectors.size) @ vectors.ravel()
    return projected


@functools.lru_cache(maxsize=256)
def _directions(size: int) -> Float[ndarray, "3 size"]:
    return np.random.default_rng(size).normal(size=(3, size))

"""Choosing from a set: by force and element, and the split into training and validation."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase.data import atomic_numbers

from phonopy_equivariant.data.record import Record
from phonopy_equivariant.defaults import MAX_FORCE, TRAINING_FRACTION
from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of

PARTS = ("train", "valid", "test")


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which records stay.

    Parameters
    ----------
    max_force
        Largest length of a force (eV/Å); None keeps all. Records without forces stay.
    elements
        Symbols: all atoms must be of these; none given keeps all.
    max_atoms
        Largest number of atoms; None keeps all.
    labels
        Data that a record must have, such as "energy" or "force_constants".

    """

    max_force: float | None = MAX_FORCE
    elements: tuple[str, ...] = ()
    max_atoms: int | None = None
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [symbol for symbol in self.elements if symbol not in atomic_numbers]
        if unknown:
            raise PhonopyEquivariantError(
                f"{unknown[0]!r} is no element; give symbols such as Si or Na."
            )
        fields = {field.name for field in dataclasses.fields(Record)}
        for name in self.labels:
            if name not in fields:
                raise PhonopyEquivariantError(
                    f"{name!r} is no label; choose of energy, forces, stress, force_constants, "
                    "spectrum."
                )

    def reason(self, record: Record) -> str:
        """Return why a record goes, or "" where it stays."""
        if self.max_force is not None and record.forces is not None:
            largest = float(np.linalg.norm(record.forces, axis=1).max())
            if not largest <= self.max_force:
                return f"a force of {largest:.3g} eV/Å"
        allowed = {atomic_numbers[symbol] for symbol in self.elements}
        if allowed and not set(record.structure.numbers.tolist()) <= allowed:
            return "other elements"
        if self.max_atoms is not None and len(record.structure.numbers) > self.max_atoms:
            return f"{len(record.structure.numbers)} atoms"
        missing = [name for name in self.labels if name not in record.labels]
        return f"no {missing[0]}" if missing else ""


def filter_records(
    records: Iterable[Record],
    options: Filter = Filter(),
    report: Callable[[Record, str], None] = lambda record, reason: None,
) -> Iterator[Record]:
    """Yield the records that stay; ``report`` is told of each that goes, and why."""
    for record in records:
        reason = options.reason(record)
        if reason:
            report(record, reason)
        else:
            yield record


def split_indices(
    count: int, fraction: float = TRAINING_FRACTION, seed: int = 0
) -> dict[str, list[int]]:
    """Return a random split, ``{"train": [...], "valid": [...]}``, ascending, the same for a seed.

    At least one record goes to each part.

    Raises
    ------
    PhonopyEquivariantError
        Fewer than two records, or a fraction that is not between 0 and 1.

    """
    if count < 2 or not 0 < fraction < 1:
        raise PhonopyEquivariantError(
            f"{count} records cannot be split {fraction:g} to {1 - fraction:g}; give two or more "
            "records and a fraction between 0 and 1."
        )
    training = min(max(round(fraction * count), 1), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    return {
        "train": sorted(order[:training].tolist()),
        "valid": sorted(order[training:].tolist()),
    }


def read_split(path: str | os.PathLike[str], count: int) -> dict[str, list[int]]:
    """Return the split of a YAML or JSON file: lists of indices, from 0, under the names in PARTS.

    A record may be in no part; none may be in two parts.

    Raises
    ------
    PhonopyEquivariantError
        The file has another content, an index that no record has, or one index twice.

    """
    path = Path(path).expanduser()
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PhonopyEquivariantError(
            f"{path}: cannot be read ({reason_of(error, 100)}); "
            "give lists of indices under train: and valid:."
        ) from error
    if not isinstance(content, Mapping) or not set(content) <= set(PARTS) or not content:
        raise PhonopyEquivariantError(
            f"{path}: give lists of indices under {', '.join(f'{part}:' for part in PARTS)}."
        )
    split = {part: content[part] for part in PARTS if part in content}
    assigned: set[int] = set()
    for part, indices in split.items():
        if not isinstance(indices, list):
            raise PhonopyEquivariantError(
                f"{path}: {part} is {indices!r}; give a list of indices such as [0, 4, 7]."
            )
        for index in indices:
            if type(index) is not int or not 0 <= index < count:
                raise PhonopyEquivariantError(
                    f"{path}: {part} has {index!r}, but there are {count} records, 0 to "
                    f"{count - 1}."
                )
            if index in assigned:
                raise PhonopyEquivariantError(f"{path}: {index} is given twice; take one out.")
            assigned.add(index)
    return split


def write_split(split: Mapping[str, list[int]], path: str | os.PathLike[str]) -> None:
    """Write a split as :func:`read_split` reads it."""
    from phonopy_equivariant.files import replacing

    lines = [f"{part}: [{', '.join(map(str, indices))}]\n" for part, indices in split.items()]
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")

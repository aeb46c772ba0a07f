"""The sets of a training: what is read, what is held out, what they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phonopy_equivariant.data import Record, read_records
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.training.config import SetConfig
from phonopy_equivariant.training.samples import SPLIT, random_generator, split


def read_set(options: SetConfig, seed: int, stream: int) -> tuple[list[Record], list[Record]]:
    """Return the records of a set for training and for validation."""
    records = _read(options.path, options.options)
    if options.valid_path:
        order = random_generator(seed, stream, SPLIT).permutation(len(records))
        held = _read(options.valid_path, options.options)
        training = [records[k] for k in order]
    else:
        chosen, others = split(len(records), options.valid, seed, stream)
        training, held = [records[k] for k in chosen], [records[k] for k in others]
    return training[: options.limit or None], held


def _read(path: str, options: Mapping[str, Any]) -> list[Record]:
    records = read_records(path, **options)
    if not records:
        raise PhonopyEquivariantError(f"{path}: no records; give a file with structures.")
    return records


def set_names(sets: Sequence[SetConfig]) -> list[str]:
    """Return a name for every set, its file's without suffixes, numbered where they repeat."""
    stems = [Path(some.path).name.split(".")[0] for some in sets]
    return [f"{s}_{k + 1}" if stems.count(s) > 1 else s for k, s in enumerate(stems)]

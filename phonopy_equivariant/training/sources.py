"""The sets of a training: what is read, what is held out, what they are called."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phonopy_equivariant.data import Record
from phonopy_equivariant.data.checks import overlap
from phonopy_equivariant.data.files import iter_records
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.training.config import SetConfig
from phonopy_equivariant.training.samples import SPLIT, random_generator, split


def read_set(
    options: SetConfig, seed: int, stream: int, report: Callable[[str], None] = lambda line: None
) -> tuple[list[Record], list[Record]]:
    """Return the records of a set for training and for validation.

    Parameters
    ----------
    options
        Of the set. With ``options: {unsound: skip}`` records that no model can use and those
        with overlapping atoms are left out.
    seed, stream
        Key of the generator.
    report
        Is told of each record that is left out, in one line.

    Raises
    ------
    PhonopyEquivariantError
        A file that cannot be read, or a record that cannot be used, by file and index.

    """
    records = _read(options.path, options.options, report)
    if options.valid_path:
        order = random_generator(seed, stream, SPLIT).permutation(len(records))
        held = _read(options.valid_path, options.options, report)
        training = [records[k] for k in order]
    else:
        chosen, others = split(len(records), options.valid, seed, stream)
        training, held = [records[k] for k in chosen], [records[k] for k in others]
    return training[: options.limit or None], held


def fingerprint(*parts: Iterable[Record]) -> str:
    """Return the SHA-256 of structures and labels, in order; levels and sources do not count."""
    found = hashlib.sha256()
    for part in parts:
        found.update(b"part")
        for record in part:
            for name, value in _arrays(record).items():
                array = np.ascontiguousarray(value)
                found.update(f"{name} {array.dtype.str} {array.shape}".encode())
                found.update(array.tobytes())
    return found.hexdigest()


def _arrays(record: Record) -> dict[str, Any]:
    """Return all that is known of a record by name, the structure first."""
    arrays: dict[str, Any] = record.structure._asdict()
    arrays |= {"energy": record.energy, "forces": record.forces, "stress": record.stress}
    if record.force_constants is not None:
        arrays |= {
            "constants_qpoints": record.force_constants.qpoints,
            "constants": record.force_constants.values,
        }
    if record.spectrum is not None:
        arrays |= {
            "spectrum_qpoints": record.spectrum.qpoints,
            "frequencies": record.spectrum.frequencies,
        }
    return {name: value for name, value in arrays.items() if value is not None}


def _read(path: str, options: Mapping[str, Any], report: Callable[[str], None]) -> list[Record]:
    records = []
    for record in iter_records(path, report=report, **options):
        problem = overlap(record)
        if not problem:
            records.append(record)
        elif options.get("unsound") == "skip":
            report(f"{record.source}: {problem}; left out.")
        else:
            raise PhonopyEquivariantError(
                f"{record.source}: {problem}: overlapping atoms; mend it, or leave such records "
                "out by options: {unsound: skip} of the set."
            )
    if not records:
        raise PhonopyEquivariantError(f"{path}: no records; give a file with structures.")
    return records


def set_names(sets: Sequence[SetConfig]) -> list[str]:
    """Return a name for every set, its file's without suffixes, numbered where they repeat."""
    stems = [Path(some.path).name.split(".")[0] for some in sets]
    return [f"{s}_{k + 1}" if stems.count(s) > 1 else s for k, s in enumerate(stems)]

"""Read the sets of a training, check their records, and draw the validation records.

A file is read through once, record by record, and only what :class:`.Survey` and the fingerprint
need is kept. Records of HDF5 are read again when they are used; all others stay in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from phonopy_equivariant.data import Record
from phonopy_equivariant.data.checks import Problem, Survey
from phonopy_equivariant.data.duplicates import Marks, shared_structures
from phonopy_equivariant.data.formats import open_records
from phonopy_equivariant.data.selection import Selection
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.training.config import SetConfig
from phonopy_equivariant.training.samples import SPLIT, random_generator, split

Report = Callable[[str], None]

# Records that are odd of which a set names as many.
_NAMED = 3


class RecordSet(NamedTuple):
    """The records of one set."""

    training: Selection
    validation: Selection
    fingerprint: str  # SHA-256 of both, see :func:`fingerprint`


class _Checked(NamedTuple):
    """The usable records of a file, with the fingerprint and the mark of each."""

    records: Selection
    digests: ndarray  # (records, 32)
    marks: Marks

    def in_order(self) -> _Checked:
        """Return the same records in the order of the file, in which they are read fastest."""
        return self.take(np.argsort(self.records.places))

    def take(self, places: ndarray) -> _Checked:
        return _Checked(
            Selection(self.records, places), self.digests[places], self.marks.take(places)
        )


def read_set(
    options: SetConfig,
    terms: Sequence[str],
    seed: int,
    stream: int,
    report: Report = lambda line: None,
) -> RecordSet:
    """Return the records of a set for training and for validation.

    Parameters
    ----------
    options
        Options of the set. With ``options: {unsound: skip}`` a record is left out if no model can
        use it or its own data are wrong.
    terms
        Terms of the loss. Labels that no term of the set uses are not looked at.
    seed, stream
        Key of the random generator that draws the validation records.
    report
        Called with one line for each record that is left out and each oddity of the data.

    Raises
    ------
    PhonopyEquivariantError
        A file cannot be read; a record cannot be used (the message gives its file and index); or
        the set is inconsistent as a whole, unless ``check: warn``.

    """
    labels = {"force_constants" if t == "hessian" else t for t in options.terms or terms}
    checked = _checked(options.path, options, labels, report)
    if options.valid_path:
        order = random_generator(seed, stream, SPLIT).permutation(len(checked.records))
        training, validation = (
            checked.take(order),
            _checked(options.valid_path, options, labels, report),
        )
    else:
        training_indices, validation_indices = split(
            len(checked.records), options.valid, seed, stream
        )
        training, validation = checked.take(training_indices), checked.take(validation_indices)
    if options.limit:
        training = training.take(np.arange(min(options.limit, len(training.records))))
    training, validation = training.in_order(), validation.in_order()
    _warn_of_copies(training, validation, options.valid_path or options.path, report)
    name = _combined(map(bytes, training.digests), map(bytes, validation.digests))
    return RecordSet(training.records, validation.records, name)


def fingerprint(*record_lists: Iterable[Record]) -> str:
    """Return the SHA-256 of structures and labels, in order; levels and sources do not count."""
    return _combined(*(map(_digest, records) for records in record_lists))


def _combined(*digest_lists: Iterable[bytes]) -> str:
    hasher = hashlib.sha256()
    for digests in digest_lists:
        hasher.update(b"part")
        for digest in digests:
            hasher.update(digest)
    return hasher.hexdigest()


def _digest(record: Record) -> bytes:
    hasher = hashlib.sha256()
    for name, value in _arrays(record).items():
        array = np.ascontiguousarray(value)
        hasher.update(f"{name} {array.dtype.str} {array.shape}".encode())
        hasher.update(array.tobytes())
    return hasher.digest()


def _arrays(record: Record) -> dict[str, ndarray | float]:
    """Return all that is known of a record by name, the structure first."""
    arrays: dict[str, ndarray | float | None] = record.structure._asdict()
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


def _checked(path: str, options: SetConfig, labels: set[str], report: Report) -> _Checked:
    """Read a file through and return its usable records."""
    reader_options = dict(options.options)
    skip = _skips(path, reader_options.pop("unsound", "raise"))
    records = open_records(path, **reader_options)
    survey, digests = Survey(require=()), bytearray()
    for record in records:
        used = record.only(labels)
        survey.add(used)
        digests += _digest(used)
    problems = survey.problems()
    _judge_set(path, [p for p in problems if p.place is None], options.check == "warn", report)
    unusable = [p for p in problems if p.place is not None and p.certain]
    for problem in unusable:
        if not skip:
            raise PhonopyEquivariantError(
                f"{problem.source}: {problem.text}; mend it, or leave such records out by options: "
                "{unsound: skip} of the set."
            )
        report(f"{problem.source}: {problem.text}; left out.")
    odd = [p for p in problems if not p.certain]
    for problem in odd[:_NAMED]:
        report(f"{problem.source}: {problem.text}.")
    if len(odd) > _NAMED:
        report(f"{path}: {len(odd) - _NAMED} more records are odd like this; see dataset check.")
    left_out = {problem.place for problem in unusable}
    places = np.array([k for k in range(len(records)) if k not in left_out], int)
    if not len(places):
        raise PhonopyEquivariantError(f"{path}: no record is left; mend the file.")
    all_digests = np.frombuffer(bytes(digests), np.uint8).reshape(-1, 32)
    return _Checked(
        Selection(records, places, labels), all_digests[places], survey.marks.take(places)
    )


def _skips(path: str, unsound: str) -> bool:
    if unsound not in ("raise", "skip"):
        raise PhonopyEquivariantError(
            f"options of {path}: unsound: {unsound!r} is for looking at data; a training takes "
            "raise or skip."
        )
    return unsound == "skip"


def _judge_set(path: str, problems: Sequence[Problem], go_on: bool, report: Report) -> None:
    for problem in problems:
        if not go_on:
            raise PhonopyEquivariantError(
                f"{path}: {problem.text}; convert the data, or set check: warn of the set if they "
                "are right."
            )
        report(f"{path}: {problem.text}.")


def _warn_of_copies(training: _Checked, validation: _Checked, path: str, report: Report) -> None:
    copies = shared_structures(training.marks, validation.marks)
    if copies:
        worst = max(copies, key=lambda copy: bool(copy.difference))  # one with other labels first
        trained, held_out = training.records[worst.first], validation.records[worst.second]
        but = f" (but {worst.difference})" if worst.difference else ""
        report(
            f"{path}: {len(copies)} of {len(validation.records)} structures held out are in the "
            f"training data too, such as {held_out.source} and {trained.source}{but}: the "
            "validation loss does not test them; take them out."
        )


def set_names(sets: Sequence[SetConfig]) -> list[str]:
    """Return a name for every set: its file's name without suffixes, numbered if it repeats."""
    stems = [Path(set_config.path).name.split(".")[0] for set_config in sets]
    return [f"{s}_{k + 1}" if stems.count(s) > 1 else s for k, s in enumerate(stems)]

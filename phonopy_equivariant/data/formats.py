"""Which reader a file needs, by its name and its content; and the two formats written here."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from phonopy_equivariant.data.compressed import DAMAGED, open_text, plain_name
from phonopy_equivariant.data.record import Record
from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of

# format -> module of this package with ``read(path, **options) -> Iterator[Record]``
READERS = {
    "extxyz": "extxyz",
    "hdf5": "hdf5",
    "ase": "asefiles",
    "phonopy": "phonopyfiles",
    "vasp": "vasp",
    "espresso": "espresso",
    "mptrj": "mptrj",
    "mpf": "mpf",
    "npz": "npz",
}
WRITERS = {".extxyz": "extxyz", ".xyz": "extxyz", ".h5": "hdf5", ".hdf5": "hdf5"}

# What to do with a record that no model can use.
UNSOUND = ("raise", "skip", "keep")

_NAMES = (  # patterns of names without the suffix of a compression, in order
    (r".*\.(ext)?xyz", "extxyz"),
    (r"force_constants.*\.(h5|hdf5)|fc2.*\.hdf5", "phonopy"),
    (r".*\.(h5|hdf5)", "hdf5"),
    (r".*\.(yaml|yml)|force_sets.*|force_constants.*", "phonopy"),
    (r".*vasprun.*|.*\.xml", "vasp"),
    (r".*\.npz", "npz"),
    (r".*\.(p|pkl|pickle)", "mpf"),
    (r".*\.(db|traj)|outcar.*|.*\.pwo|.*\.log|.*\.castep", "ase"),
)


def read_records(path: str | os.PathLike[str], **options: Any) -> list[Record]:
    """Return all records of a file.

    Parameters
    ----------
    path
        A file of any format in READERS, recognised by name and content.
    options
        ``format``, where it is not recognised; ``unsound`` as in :func:`iter_records`; and what
        the format's own ``read`` takes, ``level`` in all of them.

    Raises
    ------
    PhonopyEquivariantError
        No such file, a format that is not known, an option that the format does not take, content
        that cannot be read, by its index, or no record at all.

    """
    return list(iter_records(path, **options))


def open_records(path: str | os.PathLike[str], **options: Any) -> Sequence[Record]:
    """Return the records of a file as a sequence, whatever is wrong with them.

    Those of HDF5 stay in the file and are read when they are asked for; all others are in memory.

    Parameters
    ----------
    path, options
        As in :func:`read_records`, without ``unsound``.

    """
    path, read = _prepared(path, options)
    if read.__module__.endswith(".hdf5"):
        from phonopy_equivariant.data.hdf5 import RecordFile

        return RecordFile(path, **options)
    return list(_intact(read(path, **options), path))


def iter_records(
    path: str | os.PathLike[str],
    unsound: str = "raise",
    report: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Iterator[Record]:
    """Yield the records of a file one at a time.

    Parameters
    ----------
    path, options
        As in :func:`read_records`.
    unsound
        What becomes of a record with numbers that are not finite, labels of a wrong shape or that
        contradict each other, or a structure without atoms or volume: ``"raise"``, ``"skip"`` or
        ``"keep"``.
    report
        Is told of each record that is skipped, in one line.

    """
    from phonopy_equivariant.data.checks import unsoundness

    if unsound not in UNSOUND:
        raise PhonopyEquivariantError(f"unsound={unsound!r}: choose one of {', '.join(UNSOUND)}.")
    path, read = _prepared(path, options)
    for record in _intact(read(path, **options), path):
        problem = unsoundness(record) if unsound != "keep" else ""
        if not problem:
            yield record
        elif unsound == "skip":
            report(f"{record.source}: {problem}; left out.")
        else:
            raise PhonopyEquivariantError(
                f"{record.source}: {problem}; mend it, or leave such records out."
            )


def write_records(
    records: Iterable[Record], path: str | os.PathLike[str], check: bool = True
) -> int:
    """Write records as extended XYZ or HDF5, by the file's name; return how many.

    The file appears whole or not at all. Everything is read back to the bit, but the source.

    Parameters
    ----------
    records
        Any iterable; HDF5 takes one block of them at a time.
    path
        ``.extxyz`` or ``.xyz``, also with ``.gz``, ``.bz2`` or ``.xz``; ``.h5`` or ``.hdf5``.
    check
        Whether to check that the file can be written before the first record is asked for.

    Raises
    ------
    PhonopyEquivariantError
        Another name, a file that cannot be written, or no records.

    """
    from phonopy_equivariant.files import replacing
    from phonopy_equivariant.io.outputs import check_output

    path = Path(path).expanduser()
    file_format = output_format(path)
    if check:
        check_output(path)
    counted = _Counted(records)
    module = importlib.import_module(f"phonopy_equivariant.data.{file_format}")
    with replacing(path) as temporary:
        if file_format == "hdf5":
            module.write(counted, temporary)
        else:
            with open_text(temporary, "wt", compression=path.suffix.lower()) as file:
                module.write(counted, file)
        if not counted.count:
            raise PhonopyEquivariantError(
                f"{path}: no record is left to write; nothing was written."
            )
    return counted.count


def output_format(path: Path) -> str:
    """Return the format that a file's name stands for.

    Raises
    ------
    PhonopyEquivariantError
        None that is written here.

    """
    suffix = Path(plain_name(path)).suffix.lower()
    if suffix not in WRITERS or (WRITERS[suffix] == "hdf5" and plain_name(path) != path.name):
        raise PhonopyEquivariantError(
            f"{path}: name the file .extxyz (also .extxyz.xz or .extxyz.gz) or .h5."
        )
    return WRITERS[suffix]


def detect_format(path: Path) -> str:
    """Return the name of a file's format.

    Raises
    ------
    PhonopyEquivariantError
        None is recognised.

    """
    name = plain_name(path).lower()
    for pattern, file_format in _NAMES:
        if re.fullmatch(pattern, name):
            return file_format
    start = _start(path)
    if "ynamical matrix file" in start or re.match(r"\s*\d+\s+\d+\s+-?\d+(\s+\S+){6}\s*\n", start):
        return "espresso"
    if name.endswith(".json"):
        return "ase" if '"ids"' in start or '"cell"' in start else "mptrj"
    raise PhonopyEquivariantError(
        f"{path}: the format is not recognised; name it, as one of {', '.join(READERS)}."
    )


def data_names(path: str | os.PathLike[str], **options: Any) -> list[str]:
    """Return what the first record of a file calls its data, where its format has names."""
    path, read = _prepared(path, options)
    module = importlib.import_module(read.__module__)
    if not hasattr(module, "frames"):
        return []
    return next((frame.names for frame in module.frames(path)), [])


def _prepared(
    path: str | os.PathLike[str], options: dict[str, Any]
) -> tuple[Path, Callable[..., Iterator[Record]]]:
    """Return the file and its reader; ``options`` loses ``format`` and keeps the reader's."""
    path = Path(path).expanduser()
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else "does not exist"
        raise PhonopyEquivariantError(f"{path} {fault}; give an existing file.")
    return path, _reader(options.pop("format", None) or detect_format(path), options)


def _intact(records: Iterator[Record], path: Path) -> Iterator[Record]:
    counted = _Counted(records)
    try:
        yield from counted
    except DAMAGED as error:
        raise PhonopyEquivariantError(
            f"{path}: cannot be read ({reason_of(error)}); the file is damaged or not what its "
            "name says."
        ) from error
    if not counted.count:
        raise PhonopyEquivariantError(f"{path}: has no records; give a file with structures.")


class _Counted:
    """An iterable that counts what it gave."""

    def __init__(self, records: Iterable[Record]):
        self.records, self.count = records, 0

    def __iter__(self) -> Iterator[Record]:
        for record in self.records:
            self.count += 1
            yield record


def _start(path: Path) -> str:
    try:
        with open_text(path) as file:
            return file.read(4096)
    except DAMAGED:
        return ""


def _reader(file_format: str, options: dict[str, Any]) -> Callable[..., Iterator[Record]]:
    if file_format not in READERS:
        raise PhonopyEquivariantError(
            f"format={file_format!r} is not known; choose one of {', '.join(READERS)}."
        )
    module = importlib.import_module(f"phonopy_equivariant.data.{READERS[file_format]}")
    read: Callable[..., Iterator[Record]] = module.read
    option_names = list(inspect.signature(read).parameters)[1:]
    for name in options:
        if name not in option_names:
            raise PhonopyEquivariantError(
                f"The format {file_format} takes no option {name!r}; it takes "
                f"{', '.join(option_names)}."
            )
    return read

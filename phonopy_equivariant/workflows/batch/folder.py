"""The folder of a run over many crystals: manifest, records appended one by one, files."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from phonopy_equivariant._version import __version__
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.files import cannot_write, write_atomically
from phonopy_equivariant.results import plain
from phonopy_equivariant.workflows.batch.records import Outcome, Setup

try:
    import fcntl
except ImportError:  # Windows has none; two runs in one folder are not noticed there
    fcntl = None  # type: ignore[assignment]

_MANIFEST, _RECORDS, _LOCK = "manifest.json", "records.jsonl", ".lock"
# What numbers depend on.
_PACKAGES = ("phonopy", "spglib", "jax", "jaxlib", "numpy", "ase")


def manifest_of(setup: Setup) -> dict[str, Any]:
    """Return what a repetition needs: potential and hash, versions, all options, seed."""
    versions = {name: version(name) for name in _PACKAGES}
    values: dict[str, Any] = plain(
        {
            "model": setup.model,
            "sha256": setup.sha256,
            "dtype": setup.dtype,
            "versions": {"phonopy_equivariant": __version__} | versions,
            "options": setup.options,
            "seed": "none: no random numbers are drawn",
        }
    )
    return values


class BatchFolder:
    """Manifest, records and files of a run; open one with :func:`opened`."""

    def __init__(self, path: Path):
        self.path = path

    def check_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, or raise if the folder has another one.

        Raises
        ------
        PhonopyEquivariantError
            With the names of what differs.

        """
        place = self.path / _MANIFEST
        if not place.exists():
            write_atomically(place, (json.dumps(manifest, indent=1) + "\n").encode())
            return
        try:
            before = json.loads(place.read_text("utf-8"))
        except ValueError as error:
            raise PhonopyEquivariantError(
                f"{place} is damaged; give another folder, or remove this one."
            ) from error
        # the name of a model may change, its content tells
        old, new = (flat_entries({**entries, "model": ""}) for entries in (before, manifest))
        differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        if differing:
            changes = ", ".join(f"{k} {old.get(k)} -> {new.get(k)}" for k in differing)
            raise PhonopyEquivariantError(
                f"{self.path} has results of a run with other options ({changes}); give another "
                "folder, or the options of that run."
            )

    def manifest(self) -> dict[str, Any]:
        """Return the manifest."""
        values: dict[str, Any] = json.loads((self.path / _MANIFEST).read_text("utf-8"))
        return values

    def mend(self) -> None:
        """Remove what a crash has left of the last line of the records."""
        place = self.path / _RECORDS
        if not place.exists():
            return
        with open(place, "rb+") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)

    def records(self) -> list[dict[str, Any]]:
        """Return the last record of each name, in the order of the first.

        Raises
        ------
        PhonopyEquivariantError
            A line is no record: somebody has edited the file.

        """
        place = self.path / _RECORDS
        latest: dict[str, dict[str, Any]] = {}
        if not place.exists():
            return []
        with open(place, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = json.loads(line)
                    latest[record["name"]] = record
                except (ValueError, KeyError, TypeError) as error:
                    raise PhonopyEquivariantError(
                        f"{place}: line {number} is no record; remove the line."
                    ) from error
        return list(latest.values())

    def append(self, outcome: Outcome) -> dict[str, Any]:
        """Write the files of a structure, then its record; return the record.

        The record is on the disk when this returns. What is interrupted leaves a line without its
        end at most, which :meth:`mend` removes.

        Raises
        ------
        PhonopyEquivariantError
            A file cannot be written: the disk is full, say. The record is not there then.

        """
        record = dict(outcome.record)
        if outcome.files:
            place = Path("crystals", record["key"])
            (self.path / place).mkdir(parents=True, exist_ok=True)
            for name, content in outcome.files.items():
                write_atomically(self.path / place / name, content)
            record["files"] = [str(place / name) for name in outcome.files]
        line = (json.dumps(record, ensure_ascii=False) + "\n").encode()
        place = self.path / _RECORDS
        try:
            handle = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                _write_whole(handle, line)
            finally:
                os.close(handle)
        except OSError as error:
            raise cannot_write(place, error) from error
        return record


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BatchFolder]:
    """Make a folder if there is none, and keep other runs out of it.

    The lock goes with the process, however it ends.

    Raises
    ------
    PhonopyEquivariantError
        The folder cannot be made or written, or another run is in it.

    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise PhonopyEquivariantError(
                    f"Another run is writing into {folder}; wait for it, or give another folder."
                ) from error
        yield BatchFolder(folder)
    finally:
        os.close(handle)


def _write_whole(handle: int, line: bytes) -> None:
    """Append a line and wait for the disk; a line that does not fit is taken back."""
    size = os.fstat(handle).st_size
    try:
        written = 0
        while written < len(line):
            written += os.write(handle, line[written:])
        os.fsync(handle)
    except BaseException:
        os.ftruncate(handle, size)
        raise


def flat_entries(entries: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in entries.items():
        inner = isinstance(value, Mapping)
        flat |= flat_entries(value, f"{path}{key}.") if inner else {f"{path}{key}": value}
    return flat

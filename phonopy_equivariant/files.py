"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from phonopy_equivariant.errors import PhonopyEquivariantError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file to write, and put it in the place of ``path`` when it is complete.

    If anything interrupts, an older file stays as it was and the temporary file goes. Content and
    name are on the disk at the end, so that a power cut later leaves the whole new file. Several
    threads, processes or computers may write one path at the same time: the last one wins. The
    file gets the permissions of the one it replaces, or else those of any new file.

    Yields
    ------
    Path
        The temporary file: of the same name, in a new folder beside ``path``.

    Raises
    ------
    PhonopyEquivariantError
        The file cannot be written.

    """
    path = _resolved(Path(path).expanduser())  # behind a link, the file and not the link
    with _beside(path) as temporary:
        yield temporary
        _write_through(temporary)
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # not every system can do this with a folder
            _write_through(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file; it always is either the old one or the whole new one."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def check_writable(path: Path) -> None:
    """Raise if :func:`replacing` could not write a file."""
    with _beside(path) as temporary:
        temporary.touch()


def cannot_write(path: Path, error: OSError) -> PhonopyEquivariantError:
    """Return what to raise where a file cannot be written."""
    reason = error.strerror or type(error).__name__
    return PhonopyEquivariantError(
        f"Cannot write {path}: {reason}; free space, check the permissions, "
        "or work in another folder."
    )


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield the file's name in a new folder beside it, which goes in the end."""
    folder: str | None = None
    try:
        folder = tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=_resolved(path).parent)
        yield Path(folder) / path.name
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # Python 3.11 and 3.12 raise RuntimeError
        raise PhonopyEquivariantError(
            f"Cannot write {path}: it is a link to itself; remove the link."
        ) from error


def _write_through(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk and not only in memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from phonopy_equivariant.errors import PhonopyEquivariantError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside ``path`` and put what was written there in its place.

    If anything interrupts, an older file stays as it was and the temporary file goes.

    Raises
    ------
    PhonopyEquivariantError
        The file cannot be written.

    """
    path = Path(path).expanduser().resolve()  # behind a link, the file and not the link
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")  # suffixes tell ASE the format
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file; it always is either the old one or the whole new one."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def cannot_write(path: Path, error: OSError) -> PhonopyEquivariantError:
    """Return what to raise where a file cannot be written."""
    reason = error.strerror or type(error).__name__
    return PhonopyEquivariantError(
        f"Cannot write {path}: {reason}; free space, check the permissions, "
        "or work in another folder."
    )

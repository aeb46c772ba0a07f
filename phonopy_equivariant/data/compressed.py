"""Text files, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import Any, cast

from phonopy_equivariant.errors import PhonopyEquivariantError

# What reading a file may raise that is damaged, or not what its name says.
DAMAGED = (OSError, EOFError, UnicodeDecodeError, lzma.LZMAError, zlib.error)

_OPENERS: dict[str, Any] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".lzma": lzma.open,
}


def plain_name(path: Path) -> str:
    """Return the file's name without the suffix of a compression."""
    return path.stem if path.suffix.lower() in _OPENERS else path.name


def open_text(path: Path, mode: str = "rt", compression: str | None = None) -> io.TextIOWrapper:
    """Open a text file by the compression that its name (or ``compression``) stands for.

    A byte order mark is no part of what is read; letters of names and titles that are not UTF-8 are
    replaced.

    Raises
    ------
    PhonopyEquivariantError
        There is no such file, or it may not be read.

    """
    suffix = path.suffix.lower() if compression is None else compression
    reading = "r" in mode
    encoding, errors = ("utf-8-sig", "replace") if reading else ("utf-8", "strict")
    try:
        opener = _OPENERS.get(suffix, open)
        return cast(io.TextIOWrapper, opener(path, mode, encoding=encoding, errors=errors))
    except OSError as error:
        raise PhonopyEquivariantError(
            f"{path}: {error.strerror or type(error).__name__}; give a file that can be opened."
        ) from error

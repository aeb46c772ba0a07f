"""Files that are either whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from phonopy_equivariant.errors import PhonopyEquivariantError


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file; it always is either the old one or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise PhonopyEquivariantError(
            f"Cannot write {path}: {error.strerror}; choose another folder or free space."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)

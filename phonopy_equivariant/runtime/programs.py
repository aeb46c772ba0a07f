"""Compiled programs kept on disk: a later run neither traces nor compiles.

JAX's own cache spares the compilation of a program but not the tracing that leads to it, which
takes longer than anything else once the programs are kept. Here the machine code is filed under
everything that it depends on: the function, the architecture, structure and shapes of all
arguments, settings of the compiler, the processor, the versions of the packages and the source of
this one, all of them as they were imported. A file is used only if its content has the hash that
stands in front of it. It holds machine code, as JAX's own files do, and JAX reads it as a pickle:
whoever writes such a file runs code in this process. Files and folders that anybody but this user
or the administrator may write to are therefore not read.

The folder has a size limit: the files that were not used for the longest time go first.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import pickle
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.runtime.cache import processor
from phonopy_equivariant.runtime.source import imported_source

# Bytes that all files together may take: programs of some hundred models.
SIZE_LIMIT = 512 * 2**20

# module: what is installed under another name
_TRACED_BY = {
    "jax": "jax",
    "jaxlib": "jaxlib",
    "haiku": "dm-haiku",
    "e3nn_jax": "e3nn-jax",
    "jraph": "jraph",
}
_FOLDER = "phonopy_equivariant"
_HASH = 32  # bytes of SHA-256
_OTHERS_WRITE = 0o022  # group and others


class Stored(NamedTuple):
    """Size of the folder of programs."""

    files: int
    size: int  # bytes


def folder() -> Path | None:
    """Return where programs are kept: in JAX's compilation cache; None where it is off.

    Only on the CPU: it was measured nowhere else.
    """
    config: Any = jax.config
    chosen = config.jax_compilation_cache_dir
    if not chosen or not config.jax_enable_compilation_cache or jax.default_backend() != "cpu":
        return None
    return Path(chosen) / _FOLDER


def place_of(name: str, structure: Any, options: Any) -> Path | None:
    """Return the file of a program; None where it cannot be kept.

    Parameters
    ----------
    name
        Of the function and of all in it that is no argument.
    structure
        Structure, shapes and dtypes of the arguments.
    options
        Of the compiler.

    """
    where, source = folder(), imported_source()
    if where is None or source is None:
        return None
    return where / _file_name(name, structure, options, source)


def load(path: Path) -> Any | None:
    """Return the executable of a program from its file, if the file is there and sound."""
    content = _read(path)
    if content is None:
        return None
    from jax.experimental import serialize_executable

    try:
        payload, inputs, outputs = pickle.loads(content)
        return serialize_executable.deserialize_and_load(
            payload, inputs, outputs, execution_devices=jax.devices()[:1]
        )
    except Exception:  # of another kind of processor, say: it is compiled anew
        return None


def keep(path: Path, executable: Any) -> None:
    """Write a compiled program to its file, if it can be written and is fit for it.

    Without the file the next run compiles again.
    """
    from jax.experimental import serialize_executable

    try:
        content = pickle.dumps(serialize_executable.serialize(executable))
    except Exception:  # programs that call back into Python, say
        return
    if not path.name.endswith(str(imported_source())[:16]):
        return  # the source has changed while it was traced
    _write(path, content)
    trim(path.parent)


def stored() -> Stored:
    """Return how many programs are kept, and their size."""
    where = folder()
    states = [] if where is None else _states(where)
    return Stored(len(states), sum(size for _, size, _ in states))


def clear() -> Stored:
    """Delete all kept programs; return what there was."""
    before, where = stored(), folder()
    if where is not None:
        trim(where, limit=0)
    return before


def trim(where: Path, limit: int | None = None) -> None:
    """Delete the files that were not used for the longest time until the others fit a limit."""
    limit = SIZE_LIMIT if limit is None else limit
    states = sorted(_states(where))
    excess = sum(size for _, size, _ in states) - limit
    for _, size, path in states:
        if excess <= 0:
            return
        try:
            os.unlink(path)
        except OSError:  # another process was faster
            continue
        excess -= size


def _states(where: Path) -> list[tuple[float, int, str]]:
    """Return (time of last use, size, path) of all files."""
    states = []
    try:
        with os.scandir(where) as entries:
            for entry in entries:
                try:
                    state = entry.stat()
                except OSError:
                    continue
                states.append((state.st_mtime, state.st_size, entry.path))
    except OSError:
        return []
    return states


def _file_name(name: str, structure: Any, options: Any, source: str) -> str:
    config: Any = jax.config
    words = [
        name,
        str(structure),
        repr(options),
        repr(config.jax_default_matmul_precision),
        os.environ.get("XLA_FLAGS", ""),
        processor(),
        source,
        *_versions(),
    ]
    digest = hashlib.sha256(chr(10).join(words).encode()).hexdigest()
    return f"{name.split(' ')[0]}-{digest}-{source[:16]}"


@functools.cache
def _versions() -> tuple[str, ...]:
    return tuple(f"{module} {_version(module)}" for module in _TRACED_BY)


def _version(module: str) -> str:
    """Return the version of a module, without the imports of one that only tracing needs."""
    imported = sys.modules.get(module)
    if imported is None:
        return importlib.metadata.version(_TRACED_BY[module])
    return str(imported.__version__)


def _read(path: Path) -> bytes | None:
    """Return the content of a sound file, and note that it was used."""
    try:
        if not _is_private(path):
            return None
        raw = path.read_bytes()
    except OSError:
        return None
    content = raw[_HASH:]
    if hashlib.sha256(content).digest() != raw[:_HASH]:
        return None
    with contextlib.suppress(OSError):  # of another user: read only
        os.utime(path)
    return content


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _close_to_others(path.parent)
        write_atomically(path, hashlib.sha256(content).digest() + content)
        _close_to_others(path)
    except (OSError, PhonopyEquivariantError):
        return


def _is_private(path: Path) -> bool:
    """Tell whether only this user or the administrator can have written a file."""
    if not hasattr(os, "getuid"):  # Windows: user folders are private
        return True
    states = [os.stat(place) for place in (path, path.parent)]
    return all(s.st_uid in (0, os.getuid()) and not s.st_mode & _OTHERS_WRITE for s in states)


def _close_to_others(path: Path) -> None:
    """Take the right to write from everybody else, whatever the umask of this process."""
    mode = os.stat(path).st_mode
    if mode & _OTHERS_WRITE:
        os.chmod(path, mode & ~_OTHERS_WRITE)

"""Traced programs kept beside JAX's compiled ones: a later run neither traces nor compiles.

JAX's cache spares the compilation of a program but not the tracing that leads to it, which takes
a second for each program of a usual potential. Here the traced program itself, StableHLO from
``jax.export``, is filed under everything that it depends on: the function, the architecture, the
shapes of all arguments, the versions of the packages and the source of this one, all of them as
they were imported. A file is used only if its content has the hash that stands in front of it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.runtime.source import imported_source

_TRACED_BY = ("jax", "jaxlib", "haiku", "e3nn_jax", "jraph")
_FOLDER = "phonopy_equivariant"
_HASH = 32  # bytes of SHA-256

T = TypeVar("T", bound=type)
_records: dict[str, type] = {}
_registered: set[str] = set()


def record(kind: T) -> T:
    """Let a NamedTuple be argument or result of a kept program; decorates its class."""
    _records[f"{kind.__module__}.{kind.__qualname__}"] = kind
    return kind


def folder() -> Path | None:
    """Return where programs are kept: in JAX's compilation cache; None where it is off.

    Only on the CPU: it was measured nowhere else.
    """
    config: Any = jax.config
    chosen = config.jax_compilation_cache_dir
    if not chosen or not config.jax_enable_compilation_cache or jax.default_backend() != "cpu":
        return None
    return Path(chosen) / _FOLDER


def load_or_trace(where: Path, jitted: Any, name: str, args: Sequence[Any]) -> Any:
    """Return the result of a program from its file, or trace the program and write the file.

    Called while JAX traces, so that the program becomes part of what is traced.

    Parameters
    ----------
    where
        The :func:`folder` of files.
    jitted
        From ``jax.jit``, of array arguments alone.
    name
        Of the function and of all in it that is no argument.
    args
        Arguments of the shapes wanted.

    """
    from jax import export

    source = imported_source()
    if source is None:
        return jitted(*args)
    _register(export)
    path = where / _file_name(name, args, source)
    content = _read(path)
    if content is None:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tuple(args))
        exported = export.export(jitted)(*shapes)
        if imported_source() == source:  # tracing may have imported more of the source
            _write(path, bytes(exported.serialize()))
    else:
        exported = export.deserialize(bytearray(content))
    return exported.call(*args)


def _signature(args: Sequence[Any]) -> tuple[Any, ...]:
    """Return structure, shapes and dtypes of arguments."""
    leaves, structure = jax.tree.flatten(args)
    return structure, tuple((leaf.shape, leaf.dtype.str) for leaf in leaves)


def _register(export: Any) -> None:
    for name, kind in _records.items():
        if name not in _registered:
            export.register_namedtuple_serialization(kind, serialized_name=name)
            _registered.add(name)


def _file_name(name: str, args: Sequence[Any], source: str) -> str:
    words = [name, *(str(part) for part in _signature(args)), source, *_versions()]
    return f"{name.split(' ')[0]}-{hashlib.sha256(chr(10).join(words).encode()).hexdigest()}"


@functools.cache
def _versions() -> tuple[str, ...]:
    modules = [importlib.import_module(name) for name in _TRACED_BY]
    return tuple(f"{module.__name__} {module.__version__}" for module in modules)


def _read(path: Path) -> bytes | None:
    """Return the content of a sound file."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    content = raw[_HASH:]
    return content if hashlib.sha256(content).digest() == raw[:_HASH] else None


def _write(path: Path, content: bytes) -> None:
    """Write a file, if it can be written: without it the next run traces again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, hashlib.sha256(content).digest() + content)
    except (OSError, PhonopyEquivariantError):
        return

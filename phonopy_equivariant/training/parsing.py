"""From plain values, as YAML gives them, to frozen dataclasses with annotated types."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from phonopy_equivariant.errors import PhonopyEquivariantError, require_known_keys


def build(kind: Any, value: Any, key_path: str) -> Any:
    """Return ``value`` as the annotated type ``kind``; ``key_path`` names it in errors."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, key_path)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # X | None
        return None if value is None else build(arguments[0], value, key_path)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise PhonopyEquivariantError(f"{key_path}: must be a list.")
        return tuple(build(arguments[0], item, f"{key_path}[{k}]") for k, item in enumerate(value))
    if origin is Literal:
        if value not in arguments:
            choices = ", ".join(map(str, arguments))
            raise PhonopyEquivariantError(f"{key_path}: {value!r} is not one of {choices}.")
        return value
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise PhonopyEquivariantError(f"{key_path}: must be a mapping of keys to values.")
        return dict(value)
    return _build_scalar(kind, value, key_path)


def _build_dataclass(kind: type, value: Any, key_path: str) -> Any:
    if not isinstance(value, Mapping):
        raise PhonopyEquivariantError(
            f"{key_path or 'the file'}: must be a mapping of keys to values."
        )
    hints = typing.get_type_hints(kind)
    require_known_keys(value, hints, path=f"{key_path}." if key_path else "")
    for field in dataclasses.fields(kind):
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in value:
            raise PhonopyEquivariantError(f"the key {_join(key_path, field.name)!r} is missing.")
    return kind(
        **{key: build(hints[key], item, _join(key_path, key)) for key, item in value.items()}
    )


def _build_scalar(kind: type, value: Any, key_path: str) -> Any:
    """Return a number, text or switch; YAML reads 1e-3 as text, which is meant as a number."""
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise PhonopyEquivariantError(f"{key_path}: {value!r} is not of type {kind.__name__}.")


def _join(key_path: str, key: Any) -> str:
    return f"{key_path}.{key}" if key_path else str(key)

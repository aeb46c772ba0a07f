"""From plain values, as YAML gives them, to frozen dataclasses with annotated types."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from phonopy_equivariant.errors import PhonopyEquivariantError, nearest


def build(kind: Any, value: Any, where: str) -> Any:
    """Return ``value`` as the annotated type ``kind``; ``where`` names it in errors."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):  # X | None
        return None if value is None else build(arguments[0], value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise PhonopyEquivariantError(f"{where}: must be a list.")
        return tuple(build(arguments[0], item, f"{where}[{k}]") for k, item in enumerate(value))
    if origin is Literal:
        if value not in arguments:
            choices = ", ".join(map(str, arguments))
            raise PhonopyEquivariantError(f"{where}: {value!r} is not one of {choices}.")
        return value
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise PhonopyEquivariantError(f"{where}: must be a mapping of keys to values.")
        return dict(value)
    return _build_scalar(kind, value, where)


def _build_dataclass(kind: type, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        raise PhonopyEquivariantError(
            f"{where or 'the file'}: must be a mapping of keys to values."
        )
    hints = typing.get_type_hints(kind)
    for key in value:
        if key not in hints:
            near = nearest(key, hints)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(hints)}."
            raise PhonopyEquivariantError(f"unknown key {_join(where, key)!r}; {hint}")
    for field in dataclasses.fields(kind):
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in value:
            raise PhonopyEquivariantError(f"the key {_join(where, field.name)!r} is missing.")
    return kind(**{key: build(hints[key], item, _join(where, key)) for key, item in value.items()})


def _build_scalar(kind: type, value: Any, where: str) -> Any:
    """Return a number, text or switch; YAML reads 1e-3 as text, which is meant as a number."""
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise PhonopyEquivariantError(f"{where}: {value!r} is not of type {kind.__name__}.")


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)

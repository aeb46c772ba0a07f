"""Entries of a foreign state dictionary by name, and which of them have been read.

What is left when a reader says it is done is refused by name: an entry that nobody read could
change the energies.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError


class Entries:
    """Arrays by name in double precision."""

    def __init__(self, arrays: Mapping[str, Any]):
        self._arrays = dict(arrays)
        self._read: set[str] = set()

    def has(self, name: str) -> bool:
        """Tell whether there is an entry of this name."""
        return name in self._arrays

    def named(self, prefix: str) -> list[str]:
        """Return the names that begin so, in the order of the file."""
        return [name for name in self._arrays if name.startswith(prefix)]

    def take(self, name: str, shape: tuple[int, ...] | None = None) -> ndarray:
        """Return an entry; one that is missing, not of numbers or of another shape raises."""
        if name not in self._arrays:
            raise PhonopyEquivariantError(f"the entry {name} is missing; is the file whole?")
        array = self._arrays[name]
        self._read.add(name)
        if not isinstance(array, np.ndarray) or not np.isfinite(array).all():
            raise PhonopyEquivariantError(f"the entry {name} is not an array of finite numbers.")
        if shape is not None and array.shape != shape:
            raise PhonopyEquivariantError(
                f"the entry {name} has the shape {array.shape} where {shape} belongs."
            )
        return array.astype(float) if np.issubdtype(array.dtype, np.floating) else array

    def close(self, constants: Collection[str]) -> None:
        """Refuse entries that were not read and hold numbers.

        ``constants`` are ends of names whose entries energies do not depend on.
        """
        for name, array in self._arrays.items():
            empty = isinstance(array, np.ndarray) and array.size == 0
            if name in self._read or empty or name.endswith(tuple(constants)):
                continue
            raise PhonopyEquivariantError(
                f"the entry {name} is not known to this version; the model may have parts that "
                "would be left out."
            )

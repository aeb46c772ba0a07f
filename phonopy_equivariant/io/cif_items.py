"""The items of a block of a CIF, by their names in lower case and in the older form."""

from __future__ import annotations

import re
from typing import Any

import gemmi

from phonopy_equivariant.errors import PhonopyEquivariantError


class Items:
    """Values of a block; ``?`` and ``.`` are None.

    Names of newer dictionaries (``_atom_site.fract_x``) stand for the older ones
    (``_atom_site_fract_x``).
    """

    def __init__(self, block: gemmi.cif.Block):
        self.name: str = block.name
        self._columns: dict[str, list[str | None]] = {}
        item: Any
        for item in block:
            if item.pair is not None:
                self._add(item.pair[0], [item.pair[1]])
            elif item.loop is not None:
                tags, values = item.loop.tags, item.loop.values
                for k, tag in enumerate(tags):
                    self._add(tag, values[k :: len(tags)])

    def column(self, tag: str) -> list[str | None]:
        """Return all values of an item; none if it is absent."""
        return self._columns.get(tag, [])

    def first(self, *tags: str) -> str | None:
        """Return the first value that one of the items has."""
        for tag in tags:
            for value in self.column(tag)[:1]:
                if value is not None and value.strip():
                    return value.strip()
        return None

    def _add(self, tag: str, values: list[str]) -> None:
        self._columns[tag.lower().replace(".", "_")] = [
            None if gemmi.cif.is_null(value) else gemmi.cif.as_string(value) for value in values
        ]


def read_blocks(text: str) -> list[Items]:
    """Return the blocks of a CIF that list atoms.

    Raises
    ------
    PhonopyEquivariantError
        The text is no CIF, or lists no atoms.

    """
    try:
        # CIF is ASCII; other characters stand in names of people, and gemmi refuses them
        document = gemmi.cif.read_string(re.sub(r"[^\x00-\x7f]", "_", text))
    except (RuntimeError, ValueError) as error:
        reason = str(error).removeprefix("string:")
        raise PhonopyEquivariantError(f"is no CIF (line {reason}); mend it.") from error
    blocks = [Items(block) for block in document]
    with_atoms = [items for items in blocks if items.column("_atom_site_fract_x")]
    if not with_atoms:
        raise PhonopyEquivariantError(
            "lists no atoms with fractional coordinates (_atom_site_fract_x); add them."
        )
    return with_atoms

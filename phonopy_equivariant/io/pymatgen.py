"""Structures that pymatgen wrote as JSON: one, a list, or one a line; read without pymatgen."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from ase import Atoms

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.species import element_of, make_atoms

# Keys of a record around a structure that may name it.
_NAMES = ("material_id", "id", "name")


def looks_like_pymatgen(text: str) -> bool:
    """Tell by its beginning whether a text holds pymatgen's structures."""
    is_json = text.lstrip()[:1] in ("{", "[")
    return is_json and bool(re.search(r'"lattice"\s*:', text) and re.search(r'"sites"\s*:', text))


def pymatgen_records(text: str) -> list[Any]:
    """Return the records of a text: of one JSON document, or of one a line.

    Raises
    ------
    PhonopyEquivariantError
        The text is not JSON.

    """
    try:
        document = json.loads(text)
        return document if isinstance(document, list) else [document]
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
    return [_parsed(line) for line in lines]


def _parsed(line: str) -> Any:
    """Return a line's record; a line that is not JSON stands for itself and is refused later."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def pymatgen_atoms(record: Any) -> Atoms:
    """Return the structure of a record: a structure, or a record with one under ``structure``.

    Sites are ordered: one element each. The record's name stands in ``info["name"]``.

    Raises
    ------
    PhonopyEquivariantError
        The record is none of pymatgen's structures, or its sites are partly occupied.

    """
    structure: Any = record.get("structure", record) if isinstance(record, dict) else None
    try:
        lattice = np.asarray(structure["lattice"]["matrix"], float)
        symbols = [_symbol(site["species"]) for site in structure["sites"]]
        fractions = np.asarray([site["abc"] for site in structure["sites"]], float)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, PhonopyEquivariantError):
            raise
        raise PhonopyEquivariantError(
            "is no structure of pymatgen with lattice and sites; write it with as_dict()."
        ) from error
    atoms = make_atoms(symbols, cell=lattice, scaled_positions=fractions, pbc=True)
    name = next((str(record[key]) for key in _NAMES if record.get(key)), None)
    atoms.info = {} if name is None else {"name": name}
    return atoms


def _symbol(species: list[dict[str, Any]]) -> str:
    """Return the element of a site; ``Fe3+`` and ``Fe`` are both iron."""
    if len(species) != 1 or abs(float(species[0].get("occu", 1)) - 1) > 1e-8:
        raise PhonopyEquivariantError(
            "has partly occupied sites; a potential knows whole atoms only."
        )
    symbol = element_of(str(species[0]["element"]))
    if symbol is None:
        raise PhonopyEquivariantError(f"has a site of {species[0]['element']}, no element.")
    return symbol

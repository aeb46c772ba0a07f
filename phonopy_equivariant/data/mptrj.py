"""MPtrj (Deng et al., CHGNet, doi:10.1038/s42256-023-00716-3): JSON, read piece by piece.

``{material: {frame: {"structure": pymatgen's dictionary, "uncorrected_total_energy",
"corrected_total_energy", "force", "stress", ...}}}``; energies in eV, forces in eV/Å, stress in
kbar with VASP's sign, as the data set's description says.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ijson
import numpy as np
from ase.data import atomic_numbers
from ase.units import GPa

from phonopy_equivariant.data.compressed import open_text
from phonopy_equivariant.data.labels import full_stress
from phonopy_equivariant.data.record import Record
from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.structure import Structure

# VASP's stress in kbar, positive under compression, to ASE's in eV/Å³.
KBAR = -0.1 * GPa
ENERGIES = {"uncorrected": "uncorrected_total_energy", "corrected": "corrected_total_energy"}


def read(path: Path, energy: str = "uncorrected", level: str = "PBE(+U)") -> Iterator[Record]:
    """Yield the records of MPtrj, one material in memory at a time.

    Parameters
    ----------
    path
        The JSON file, compressed or not.
    energy
        ``"uncorrected"``, VASP's own, which forces and stress derive from; or ``"corrected"``,
        with the MP2020 shifts by composition that join GGA and GGA+U.
    level
        Level of theory.

    Raises
    ------
    PhonopyEquivariantError
        JSON of another kind, or a frame that cannot be read, by its index.

    """
    if energy not in ENERGIES:
        raise PhonopyEquivariantError(f"energy={energy!r}: choose one of {', '.join(ENERGIES)}.")
    index = 0
    with open_text(path) as file:
        for material, frames in _items(file, path):
            for name, frame in frames.items():
                source = f"{path}:{index}"
                try:
                    record = _record(frame, ENERGIES[energy], level, source)
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise PhonopyEquivariantError(
                        f"{source}: frame {name} of {material} cannot be read "
                        f"({type(error).__name__}: {error}); is this MPtrj?"
                    ) from error
                yield record
                index += 1


def pymatgen_structure(content: Mapping[str, Any]) -> Structure:
    """Return the structure of pymatgen's ``Structure.as_dict()``.

    Raises
    ------
    PhonopyEquivariantError
        Partly occupied sites.
    KeyError, TypeError, ValueError
        Another kind of dictionary.

    """
    cell = np.array(content["lattice"]["matrix"], float)
    numbers, fractions = [], []
    for site in content["sites"]:
        species = site["species"]
        if len(species) != 1 or abs(species[0]["occu"] - 1) > 1e-6:
            raise PhonopyEquivariantError("has partly occupied sites; leave the frame out.")
        symbol = "".join(c for c in species[0]["element"] if c.isalpha())  # "Fe3+" too
        numbers.append(atomic_numbers[symbol])
        fractions.append(site["abc"])
    pbc = np.array(content["lattice"].get("pbc", (True, True, True)), bool)
    return Structure(np.array(numbers), np.array(fractions, float) @ cell, cell, pbc)


def _record(frame: Mapping[str, Any], key: str, level: str, source: str) -> Record:
    try:
        structure = pymatgen_structure(frame["structure"])
        forces, stress = frame.get("force"), frame.get("stress")
        return Record(
            structure,
            energy=float(frame[key]),
            forces=None if forces is None else np.array(forces, float),
            stress=None if stress is None else full_stress(stress) * KBAR,
            level=level,
            source=source,
        )
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{source}: {error}") from error


def _items(file: io.TextIOWrapper, path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the items of a JSON object that is too large for memory."""
    content: Any = file.buffer
    if content.peek(3).startswith(codecs.BOM_UTF8):
        content.read(3)
    try:
        for key, value in ijson.kvitems(content, "", use_float=True):
            if not isinstance(value, dict):
                raise PhonopyEquivariantError(f"{path}: is JSON, but not MPtrj's; name its format.")
            yield key, value
    except ijson.JSONError as error:
        raise PhonopyEquivariantError(
            f"{path}: the JSON is damaged or cut short ({reason_of(error)}); download it again."
        ) from error

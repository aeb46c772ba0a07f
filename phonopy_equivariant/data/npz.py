"""NumPy archives of molecular data: sGDML and (r)MD17, read without pickle."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from ase import units
from numpy import ndarray

from phonopy_equivariant.data.record import ForceConstantsData, Record
from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.structure import Structure

ENERGY_UNITS = {
    "ev": 1.0,
    "kcal/mol": units.kcal / units.mol,
    "kj/mol": units.kJ / units.mol,
    "hartree": units.Hartree,
    "ha": units.Hartree,
    "ry": units.Rydberg,
    "mev": 1e-3,
}
LENGTH_UNITS = {"ang": 1.0, "angstrom": 1.0, "å": 1.0, "a": 1.0, "bohr": units.Bohr, "nm": 10.0}

# names in sGDML, in rMD17 and in our own archives
_NUMBERS = ("z", "nuclear_charges", "numbers")
_POSITIONS = ("R", "coords", "positions")
_ENERGIES = ("E", "energies", "energy")
_FORCES = ("F", "forces")
_HESSIANS = ("hessians", "hessian", "H")


def read(
    path: Path,
    energy_unit: str | None = None,
    length_unit: str | None = None,
    level: str | None = None,
) -> Iterator[Record]:
    """Yield the records of an ``.npz`` archive: one molecule, many positions.

    Arrays: ``z`` or ``nuclear_charges`` (atoms,), ``R`` or ``coords`` (n, atoms, 3), ``E`` or
    ``energies`` (n,), ``F`` or ``forces`` (n, atoms, 3), optionally ``hessians`` (n, 3 atoms,
    3 atoms) and, for crystals, ``lattice`` (3, 3) with the vectors as columns as in sGDML.

    Parameters
    ----------
    path
        The archive.
    energy_unit, length_unit
        By default the archive's ``e_unit`` and ``r_unit``. An archive without them is read in
        kcal/mol and Å, the units of sGDML and (r)MD17. Forces are in energy_unit / length_unit.
    level
        Level of theory; by default the archive's ``theory``.

    Raises
    ------
    PhonopyEquivariantError
        The file cannot be read, needs pickle, or has arrays that do not fit together.

    """
    arrays = _load(path)
    energy = _unit(path, arrays, "e_unit", energy_unit, "kcal/mol", ENERGY_UNITS)
    length = _unit(path, arrays, "r_unit", length_unit, "Ang", LENGTH_UNITS)
    numbers, positions = _first_present(arrays, _NUMBERS), _first_present(arrays, _POSITIONS)
    if numbers is None or positions is None:
        raise PhonopyEquivariantError(
            f"{path}: no atomic numbers (z, nuclear_charges) or positions (R, coords) among "
            f"{', '.join(arrays) or 'no arrays'}."
        )
    numbers = numbers.astype(int)
    atoms = len(numbers)
    if positions.size % (3 * atoms) == 0:
        positions = positions.reshape(-1, atoms, 3)
    energies, forces, hessians = _labels(path, arrays, positions, atoms)
    cell = arrays["lattice"].T * length if "lattice" in arrays else np.zeros((3, 3))
    theory = level if level is not None else str(arrays.get("theory", ""))
    for k in range(len(positions)):
        yield Record(
            Structure(numbers, positions[k] * length, cell, np.full(3, bool(cell.any()))),
            energy=None if energies is None else float(energies[k]) * energy,
            forces=None if forces is None else forces[k] * (energy / length),
            force_constants=None
            if hessians is None
            else ForceConstantsData(
                np.zeros((1, 3)), hessians[k][None] * (energy / length**2) + 0j
            ),
            level=theory,
            source=f"{path}:{k}",
        )


def _labels(
    path: Path, arrays: Mapping[str, ndarray], positions: ndarray, atoms: int
) -> tuple[ndarray | None, ndarray | None, ndarray | None]:
    """Return energies, forces and Hessians in their shapes; an array of another size raises."""
    count, columns = len(positions), 3 * atoms
    _shaped(path, "positions", positions, (count, atoms, 3))
    return (
        _shaped(path, "energies", _first_present(arrays, _ENERGIES), (count,)),
        _shaped(path, "forces", _first_present(arrays, _FORCES), (count, atoms, 3)),
        _shaped(path, "hessians", _first_present(arrays, _HESSIANS), (count, columns, columns)),
    )


def _load(path: Path) -> dict[str, ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            # arrays of Python objects would need pickle; only those are left out
            arrays = [name for name in archive.files if f"{name}.npy" in archive.zip.namelist()]
            names = [name for name in arrays if _is_numeric(archive.zip, name)]
            return {name: archive[name] for name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PhonopyEquivariantError(
            f"{path}: cannot be read as .npz ({reason_of(error)}); download it again."
        ) from error


def _is_numeric(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        reader = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        return not reader(file)[2].hasobject


def _unit(
    path: Path,
    arrays: Mapping[str, ndarray],
    name: str,
    unit_name: str | None,
    default: str,
    table: Mapping[str, float],
) -> float:
    word = unit_name or str(arrays.get(name, default))
    if word.lower() not in table:
        raise PhonopyEquivariantError(
            f"{path}: the unit {word!r} is not known; say one of {', '.join(table)}."
        )
    return table[word.lower()]


def _first_present(arrays: Mapping[str, ndarray], names: tuple[str, ...]) -> ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _shaped(path: Path, name: str, array: ndarray | None, shape: tuple[int, ...]) -> ndarray | None:
    if array is None:
        return None
    if array.size != np.prod(shape):
        raise PhonopyEquivariantError(
            f"{path}: {name} have the shape {array.shape} where {shape} is needed."
        )
    return array.reshape(shape).astype(float)

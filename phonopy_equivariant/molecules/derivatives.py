"""Hessians, dipole and polarizability derivatives from files.

npz files hold, each if wanted, ``hessian`` (N, 3, N, 3) or (3N, 3N) in eV/Å²,
``dipole_derivatives`` (N, 3, 3) in e [atom, dipole, displacement], ``polarizability_derivatives``
(N, 3, 3, 3) in Å² [atom, α, α, displacement], and ``numbers`` and ``positions`` in Å to check
against.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray
from numpy.lib.npyio import NpzFile
from phonopy.physical_units import get_calculator_physical_units
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.io.crystals import looks_like_yaml, read_crystal
from phonopy_equivariant.molecules.structure import as_molecule

# A Hessian belongs to the structure it was computed at: positions agree to this, Å.
_POSITION_TOLERANCE = 1e-3


def read_hessian(path: str | os.PathLike[str], atoms: Atoms) -> Float[ndarray, "atoms 3 atoms 3"]:
    """Return the Hessian of a file, eV/Å².

    By the name of the file: ``.json`` is ASE's ``VibrationsData``; ``.npz`` as above; ``.yaml``
    (compressed or not) is phonopy's, with force constants or with displacements and forces;
    ``.hdf5`` and all others are phonopy's force constants. phonopy's files are those of the 1×1×1
    supercell, atoms in the order of the structure, in the units that the file names; text
    (``FORCE_CONSTANTS``) names none and is in eV/Å².

    Raises
    ------
    PhonopyEquivariantError
        No such file, another number of atoms, other atoms or positions.

    """
    path = _existing(path)
    if path.suffix == ".json":
        reader: Callable[[Path, Atoms], ndarray] = _from_ase
    elif path.suffix == ".npz":
        reader = _from_npz
    elif looks_like_yaml(path):
        reader = _from_phonopy_yaml
    else:
        reader = _from_force_constants
    values = _guarded(reader, path, atoms)
    count = len(atoms)
    if values.shape != (count, 3, count, 3):
        raise PhonopyEquivariantError(
            f"{path}: the Hessian is one of {values.shape[0]} atoms, the structure has {count}; "
            "give the file that belongs to it (phonopy: supercell 1 1 1)."
        )
    return values


def read_dipole_derivatives(
    path: str | os.PathLike[str], atoms: Atoms
) -> Float[ndarray, "atoms 3 3"]:
    """Return atomic polar tensors of a file, e: npz as above, or phonopy's BORN.

    A BORN file names all atoms, or, for a molecule in a box, those that the space group of the box
    leaves independent.

    Raises
    ------
    PhonopyEquivariantError
        No such file, or one for other atoms.

    """
    path = _existing(path)
    if path.suffix == ".npz":
        return _array(path, "dipole_derivatives", (len(atoms), 3, 3), atoms)
    return _guarded(_from_born, path, atoms)


def read_polarizability_derivatives(
    path: str | os.PathLike[str], atoms: Atoms
) -> Float[ndarray, "atoms 3 3 3"]:
    """Return derivatives of the polarizability from an npz file, Å².

    Raises
    ------
    PhonopyEquivariantError
        No such file, or one for other atoms.

    """
    return _array(_existing(path), "polarizability_derivatives", (len(atoms), 3, 3, 3), atoms)


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path).expanduser()
    if not path.is_file():
        raise PhonopyEquivariantError(f"The file {path} does not exist; give an existing file.")
    return path


def _guarded(reader: Callable[[Path, Atoms], ndarray], path: Path, atoms: Atoms) -> ndarray:
    try:
        return np.asarray(reader(path, atoms), float)
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:  # whatever a damaged file makes a parser raise
        raise PhonopyEquivariantError(f"{path}: cannot be read ({reason_of(error)}).") from error


def _from_ase(path: Path, atoms: Atoms) -> ndarray:
    from ase.vibrations import VibrationsData

    vibrations = VibrationsData.read(path)  # type: ignore[attr-defined]
    _check_atoms(vibrations.get_atoms().numbers, vibrations.get_atoms().positions, atoms)
    if len(vibrations.get_indices()) != len(atoms):
        raise PhonopyEquivariantError("leaves atoms out of the Hessian; all are needed.")
    return np.asarray(vibrations.get_hessian())


def _from_npz(path: Path, atoms: Atoms) -> ndarray:
    count = len(atoms)
    with _archive(path) as archive:
        flat = "hessian" in archive and archive["hessian"].ndim == 2
    shape = (3 * count, 3 * count) if flat else (count, 3, count, 3)
    return _array(path, "hessian", shape, atoms).reshape(count, 3, count, 3)


def _from_phonopy_yaml(path: Path, atoms: Atoms) -> ndarray:
    import phonopy

    crystal = read_crystal(path)
    phonon = phonopy.load(path, is_nac=False, primitive_matrix="P", log_level=0)
    if phonon.force_constants is None:
        raise PhonopyEquivariantError("holds neither force constants nor forces.")
    if len(phonon.supercell) != len(atoms):
        raise PhonopyEquivariantError(
            f"belongs to a supercell of {len(phonon.supercell)} atoms, the structure has "
            f"{len(atoms)}; a molecule needs the supercell 1 1 1."
        )
    positions = phonon.supercell.positions * crystal.length_unit
    _check_atoms(phonon.supercell.numbers, positions, atoms)
    values = np.asarray(phonon.force_constants) * crystal.force_constants_unit
    return values.transpose(0, 2, 1, 3)


def _from_force_constants(path: Path, _atoms: Atoms) -> ndarray:
    from phonopy.file_IO import parse_FORCE_CONSTANTS, read_force_constants_hdf5

    if path.suffix in (".hdf5", ".h5"):
        values, name = read_force_constants_hdf5(path, return_physical_unit=True)
        values = values * _force_constants_unit(name)
    else:
        values = parse_FORCE_CONSTANTS(path)
    return np.asarray(values).transpose(0, 2, 1, 3)


def _force_constants_unit(name: str | None) -> float:
    """Return one of phonopy's units of force constants in eV/Å², which no name stands for."""
    from phonopy.interface.calculator import calculator_info

    for calculator in (None, *calculator_info):
        units = get_calculator_physical_units(calculator)
        if name in (None, units.force_constants_unit):
            return float(units.force_to_eVperA / units.distance_to_A)
    raise PhonopyEquivariantError(f"has force constants in {name}, a unit phonopy does not have.")


def _from_born(path: Path, atoms: Atoms) -> ndarray:
    from phonopy.file_IO import parse_BORN

    # the first line is a factor or a comment, of any number of words
    rows = [line for line in path.read_text().splitlines()[1:] if len(line.split()) == 9]
    complete = len(rows) == len(atoms) + 1  # the first row is the dielectric tensor
    periodic = bool(atoms.pbc.all())
    if not complete and not periodic:
        raise PhonopyEquivariantError(
            f"has charges of {max(len(rows) - 1, 0)} atoms, the structure has {len(atoms)}; give "
            "all, or the structure in its box."
        )
    box = atoms.cell.array if periodic else 100.0 * np.eye(3)
    cell = PhonopyAtoms(numbers=atoms.numbers, positions=atoms.positions, cell=box)
    return np.asarray(parse_BORN(cell, is_symmetry=not complete, filename=path)["born"])


def _array(path: Path, key: str, shape: tuple[int, ...], atoms: Atoms) -> ndarray:
    with _archive(path) as archive:
        if key not in archive:
            raise PhonopyEquivariantError(
                f"{path}: holds no array {key}, only {', '.join(archive) or 'nothing'}."
            )
        values = np.asarray(archive[key], float)
        if values.shape != shape:
            raise PhonopyEquivariantError(
                f"{path}: {key} has shape {values.shape}, the structure needs {shape}."
            )
        if "numbers" in archive and "positions" in archive:
            try:
                _check_atoms(archive["numbers"], archive["positions"], atoms)
            except PhonopyEquivariantError as error:
                raise PhonopyEquivariantError(f"{path}: {error}") from error
    return values


def _archive(path: Path) -> NpzFile:
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise PhonopyEquivariantError(
            f"{path}: is no npz archive of plain arrays; write it with numpy.savez."
        ) from error
    if not isinstance(archive, NpzFile):
        raise PhonopyEquivariantError(f"{path}: is a single array; write it with numpy.savez.")
    return archive


def _check_atoms(numbers: ndarray, positions: ndarray, atoms: Atoms) -> None:
    if not np.array_equal(numbers, atoms.numbers):
        raise PhonopyEquivariantError("is of other atoms than the structure, or in another order.")
    # positions may differ by a translation, and molecules that cross their box are made whole
    of_file = atoms.copy()
    of_file.positions = positions
    shift = as_molecule(of_file).positions - as_molecule(atoms).positions
    distance = np.abs(shift - shift.mean(axis=0)).max()
    if distance > _POSITION_TOLERANCE:
        raise PhonopyEquivariantError(
            f"belongs to other positions (up to {distance:.2g} Å away): a Hessian is one of the "
            "structure it was computed at; give that structure."
        )

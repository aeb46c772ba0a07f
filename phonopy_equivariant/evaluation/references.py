"""Reference phonons: files of phonopy with forces or force constants."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import phonopy
from phonopy import Phonopy
from phonopy.physical_units import get_calculator_physical_units

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.io.crystals import scaled
from phonopy_equivariant.io.foreign import quietly

# What phonopy writes, in the order of preference inside one folder.
_NAMES = ("phonopy_params.yaml", "phonopy.yaml", "phonopy_disp.yaml")
_COMPRESSED = ("", ".xz", ".gz", ".bz2")


class Reference(NamedTuple):
    """A file of reference phonons and the name that tables give it."""

    name: str
    path: Path


def find_references(paths: Iterable[str | os.PathLike[str]]) -> list[Reference]:
    """Return the reference files that paths name: files, folders with one, folders of folders.

    Raises
    ------
    PhonopyEquivariantError
        A path does not exist, or is a folder without any.

    """
    references: list[Reference] = []
    for given in paths:
        path = Path(given).expanduser()
        if path.is_file():
            references.append(Reference(_name_of(path), path))
            continue
        if not path.is_dir():
            raise PhonopyEquivariantError(f"{path}: no such file or folder.")
        inside = [folder for folder in (path, *sorted(path.iterdir())) if folder.is_dir()]
        files = [file for folder in inside if (file := _file_in(folder)) is not None]
        if not files:
            raise PhonopyEquivariantError(
                f"{path}: has no {_NAMES[0]} (or .xz), nor do its folders; name the files."
            )
        references += [Reference(file.parent.resolve().name, file) for file in files]
    return references


def _file_in(folder: Path) -> Path | None:
    for name in _NAMES:
        for ending in _COMPRESSED:
            if (folder / f"{name}{ending}").is_file():
                return folder / f"{name}{ending}"
    return None


def _name_of(path: Path) -> str:
    """Return the folder's name for a file with phonopy's own name, else that of the file."""
    plain = path.name
    for ending in _COMPRESSED[1:]:
        plain = plain.removesuffix(ending)
    return path.resolve().parent.name if plain in _NAMES else plain.removesuffix(".yaml")


def read_reference(path: Path) -> Phonopy:
    """Return phonopy with the force constants of a file, fitted to its forces if it has none.

    It is in Å and eV, whatever the calculator.

    ``FORCE_SETS`` and ``FORCE_CONSTANTS`` count if they lie beside the file.

    No non-analytical term correction: a potential of finite range has none to compare with.

    Raises
    ------
    PhonopyEquivariantError
        phonopy cannot read the file, or finds neither forces nor force constants.

    """
    try:
        # phonopy looks for FORCE_SETS and FORCE_CONSTANTS in the current folder
        with contextlib.chdir(path.parent), quietly():
            phonon = phonopy.load(path.name, is_nac=False, symmetrize_fc=True, log_level=0)
    except Exception as error:  # phonopy's reader raises anything on garbage
        raise PhonopyEquivariantError(
            f"{path}: phonopy cannot read it ({reason_of(error)})."
        ) from error
    if phonon.force_constants is None:
        raise PhonopyEquivariantError(
            f"{path}: has neither forces nor force constants; put FORCE_SETS beside it, or write "
            "phonopy_params.yaml with them."
        )
    return _in_angstrom(phonon)


def _in_angstrom(phonon: Phonopy) -> Phonopy:
    units = get_calculator_physical_units(phonon.calculator)
    length, force = float(units.distance_to_A), float(units.force_to_eVperA)
    if length == force == 1:
        return phonon
    converted = Phonopy(
        scaled(phonon.unitcell, length), phonon.supercell_matrix, phonon.primitive_matrix
    )
    converted.force_constants = np.asarray(phonon.force_constants) * (force / length)
    return converted

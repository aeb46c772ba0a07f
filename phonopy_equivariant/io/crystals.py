"""Crystals from files: phonopy's YAML, and structures of any format."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Int
from numpy import ndarray
from phonopy.file_IO import is_file_phonopy_yaml
from phonopy.interface.phonopy_yaml import PhonopyYaml
from phonopy.physical_units import get_calculator_physical_units
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.io.frames import take_frame
from phonopy_equivariant.io.species import unusual_masses
from phonopy_equivariant.io.structures import COMPRESSED, read_structure
from phonopy_equivariant.structure import StructureLike, as_structure, to_phonopy

# What to do about messages of phonopy's parser.
_REMEDIES = {
    "len(masses)": "give all atoms a mass, or none",
    "Invalid symbol: D": "write H with its mass, 2.014",
    "Invalid symbol: T": "write H with its mass, 3.016",
}
_YAML_SUFFIXES = (".yaml", ".yml")

# Stands for the file of a structure that comes from none.
IN_MEMORY = Path("the structure")


@dataclasses.dataclass(frozen=True)
class Crystal:
    """What a file says of a crystal; all but the unit cell only from phonopy's own files.

    Parameters
    ----------
    path
        The file, or :data:`IN_MEMORY`.
    unitcell
        Å, whatever the units of the calculator that phonopy's file belongs to.
    supercell_matrix, primitive_matrix
        As in phonopy.
    nac_params
        Born charges and dielectric tensor with the factor for eV and Å.
    dataset
        Displacements, in the file's own unit of length.
    calculator
        The calculator whose units the file has; None stands for eV and Å.
    constraints
        ASE's constraints of atoms that the file holds fixed.

    """

    path: Path
    unitcell: PhonopyAtoms
    supercell_matrix: Int[ndarray, "3 3"] | None = None
    primitive_matrix: ndarray | None = None
    nac_params: Mapping[str, Any] | None = None
    dataset: Mapping[str, Any] | None = None
    calculator: str | None = None
    constraints: tuple[Any, ...] = ()

    @property
    def length_unit(self) -> float:
        """The file's unit of length in Å."""
        return float(get_calculator_physical_units(self.calculator).distance_to_A)

    @property
    def force_unit(self) -> float:
        """The calculator's unit of force in eV/Å."""
        return float(get_calculator_physical_units(self.calculator).force_to_eVperA)

    @property
    def energy_unit(self) -> float:
        """The calculator's unit of energy in eV."""
        return float(get_calculator_physical_units(self.calculator).energy_to_eV)

    @property
    def force_constants_unit(self) -> float:
        """The calculator's unit of force constants in eV/Å²: force over displacement."""
        return self.force_unit / self.length_unit


def read_crystal(
    path: str | os.PathLike[str],
    index: int | None = None,
    report: Callable[[str], None] = lambda _line: None,
) -> Crystal:
    """Read a crystal from phonopy's YAML, CIF, POSCAR, inputs of other codes, or with ASE.

    Parameters
    ----------
    path
        The file; its format is told by its content where that can be.
    index
        Which structure of a file with several, from 0, or from the end if negative; None is the
        last one.
    report
        Called with a line for every choice that was made: the structure taken from several, the
        space group that rounded coordinates stand for, vectors turned round.

    Raises
    ------
    PhonopyEquivariantError
        No such file, a file that cannot be read or contradicts itself, or no sound crystal inside:
        without atoms, volume or three periodic directions, with coordinates that are not numbers,
        or with partly occupied sites.

    """
    path = existing_file(path)
    try:
        if looks_like_yaml(path):
            take_frame([path], index, report)
            crystal = _read_yaml(path)
        else:
            crystal = _as_crystal(path, read_structure(path, index, report), report)
        as_structure(crystal.unitcell)
        if crystal.unitcell.volume < 0:  # phonopy's files name atoms of supercells by their order
            raise PhonopyEquivariantError(
                "has left-handed lattice vectors, which phonopy refuses; exchange two of them and "
                "make the file again."
            )
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{path}: {error}") from error
    return crystal


def read_atoms(
    path: str | os.PathLike[str],
    index: int | None = None,
    report: Callable[[str], None] = lambda _line: None,
) -> Atoms:
    """Read a crystal as :func:`read_crystal` does, as ``ase.Atoms`` with its constraints."""
    return crystal_atoms(read_crystal(path, index, report))


def as_crystal(structure: StructureLike | Crystal | str | os.PathLike[str]) -> Crystal:
    """Return the crystal of a structure in memory or in a file.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`read_crystal`; or the structure is not periodic in three directions.

    """
    if isinstance(structure, Crystal):
        return structure
    if isinstance(structure, str | os.PathLike):
        return read_crystal(structure)
    if isinstance(structure, Atoms):
        return _as_crystal(IN_MEMORY, structure, lambda _line: None)
    return Crystal(IN_MEMORY, to_phonopy(as_structure(structure)))


def crystal_atoms(crystal: Crystal) -> Atoms:
    """Return the unit cell as ``ase.Atoms`` with the constraints of the file."""
    cell = crystal.unitcell
    return Atoms(
        numbers=cell.numbers,
        scaled_positions=cell.scaled_positions,
        cell=cell.cell,
        masses=cell.masses,
        pbc=True,
        constraint=list(crystal.constraints),
    )


def existing_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a structure file.

    Raises
    ------
    PhonopyEquivariantError
        The path is a folder or does not exist.

    """
    path = Path(path).expanduser()
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else "does not exist"
        remedy = "give an existing file"
        name, _, index = path.name.rpartition("@")
        if name and path.with_name(name).is_file():
            remedy = f"for a structure of {name} say {name} index={index}"
        raise PhonopyEquivariantError(f"The structure file {path} {fault}; {remedy}.")
    return path


def looks_like_yaml(path: Path) -> bool:
    """Tell by its name whether a file is YAML, compressed or not."""
    suffixes = path.suffixes
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in _YAML_SUFFIXES


def _read_yaml(path: Path) -> Crystal:
    content = PhonopyYaml()
    try:
        sound = is_file_phonopy_yaml(path)
        if sound:
            content.read(path)
    except PermissionError as error:
        raise PhonopyEquivariantError("cannot be read; check its permissions.") from error
    except Exception as error:  # whatever a damaged file makes the parser raise
        reason = reason_of(error)
        remedy = next(
            (text for phrase, text in _REMEDIES.items() if phrase in reason), "write it again"
        )
        raise PhonopyEquivariantError(f"cannot be read ({reason}); {remedy}.") from error
    if not sound or content.unitcell is None:
        raise PhonopyEquivariantError(
            "is no phonopy YAML file with unit_cell and supercell_matrix; "
            "give phonopy_disp.yaml, phonopy_params.yaml or a structure file."
        )
    calculator = content.calculator
    units = get_calculator_physical_units(calculator)
    nac: Any = content.nac_params
    if nac is not None:  # the factor of the calculator's units, not of ours
        nac = dict(nac) | {"factor": get_calculator_physical_units(None).nac_factor}
    return Crystal(
        path,
        scaled(content.unitcell, float(units.distance_to_A)),
        content.supercell_matrix,
        content.primitive_matrix,
        nac,
        content.dataset,
        calculator,
    )


def _as_crystal(path: Path, atoms: Atoms, report: Callable[[str], None]) -> Crystal:
    as_structure(atoms)
    if atoms.pbc.all() and np.linalg.det(atoms.cell.array) < 0:
        # phonopy wants a right-handed cell; turned round, the axes keep their order for a supercell
        report("The lattice vectors are left-handed: all three are turned round.")
        atoms.set_cell(0.0 - atoms.cell.array)
    cell = to_phonopy(as_structure(atoms)._replace(masses=None))
    isotopes = unusual_masses(atoms)
    cell.masses = np.where(np.isnan(isotopes), cell.masses, isotopes)
    return Crystal(path, cell, constraints=tuple(atoms.constraints))


def scaled(cell: PhonopyAtoms, factor: float) -> PhonopyAtoms:
    """Return a cell with its vectors multiplied by a factor: in another unit of length."""
    if getattr(cell, "has_mixtures", False):
        raise PhonopyEquivariantError("has mixed sites; a potential knows whole atoms only.")
    if factor == 1.0:
        return cell
    return PhonopyAtoms(
        symbols=cell.symbols,
        cell=cell.cell * factor,
        scaled_positions=cell.scaled_positions,
        masses=cell.masses,
        magnetic_moments=cell.magnetic_moments,
    )

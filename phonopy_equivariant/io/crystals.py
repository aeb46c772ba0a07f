"""Crystals from files of any format: phonopy's YAML, and all that ASE reads."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from jaxtyping import Int
from numpy import ndarray
from phonopy.file_IO import is_file_phonopy_yaml
from phonopy.interface.phonopy_yaml import PhonopyYaml
from phonopy.physical_units import get_calculator_physical_units
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.structure import as_structure, to_phonopy

_YAML_SUFFIXES = (".yaml", ".yml")
_COMPRESSED = (".xz", ".lzma", ".gz", ".bz2")


@dataclasses.dataclass(frozen=True)
class Crystal:
    """What a file says of a crystal; all but the unit cell only from phonopy's own files.

    Parameters
    ----------
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


def read_crystal(path: str | os.PathLike[str]) -> Crystal:
    """Read a crystal from a file of any format that ASE reads, or from phonopy's YAML.

    Raises
    ------
    PhonopyEquivariantError
        No such file, a file that cannot be read, or no sound crystal inside: without atoms,
        volume or three periodic directions, with coordinates that are not numbers, or with
        partly occupied sites.

    """
    path = Path(path).expanduser()
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise PhonopyEquivariantError(f"The structure file {path} {what}; give an existing file.")
    try:
        crystal = _read_yaml(path) if looks_like_yaml(path) else _read_ase(path)
        as_structure(crystal.unitcell)
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{path}: {error}") from error
    return crystal


def read_atoms(path: str | os.PathLike[str]) -> Atoms:
    """Read a crystal as :func:`read_crystal` does, as ``ase.Atoms`` with its constraints."""
    crystal = read_crystal(path)
    cell = crystal.unitcell
    return Atoms(
        numbers=cell.numbers,
        scaled_positions=cell.scaled_positions,
        cell=cell.cell,
        masses=cell.masses,
        pbc=True,
        constraint=list(crystal.constraints),
    )


def looks_like_yaml(path: Path) -> bool:
    """Tell by its name whether a file is YAML, compressed or not."""
    suffixes = path.suffixes
    if suffixes and suffixes[-1] in _COMPRESSED:
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
        raise PhonopyEquivariantError(
            f"cannot be read ({_short(error)}); write it again."
        ) from error
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
        _scaled(content.unitcell, float(units.distance_to_A)),
        content.supercell_matrix,
        content.primitive_matrix,
        nac,
        content.dataset,
        calculator,
    )


def _read_ase(path: Path) -> Crystal:
    try:
        atoms: Any = ase.io.read(path)
    except PermissionError as error:
        raise PhonopyEquivariantError("cannot be read; check its permissions.") from error
    except Exception as error:  # ASE's readers raise anything on garbage
        raise PhonopyEquivariantError(
            f"cannot be read as a structure ({_short(error)}); give a file that ASE reads "
            "(POSCAR, .cif, .extxyz, ...) or phonopy's YAML."
        ) from error
    occupancies = (atoms.info.get("occupancy") or {}).values()
    if any(len(site) > 1 or min(site.values()) < 1 - 1e-6 for site in occupancies):
        raise PhonopyEquivariantError("has partly occupied sites; give an ordered structure.")
    cell = to_phonopy(as_structure(atoms))
    if atoms.has("masses"):
        cell.masses = atoms.get_masses()
    return Crystal(path, cell, constraints=tuple(atoms.constraints))


def _scaled(cell: PhonopyAtoms, factor: float) -> PhonopyAtoms:
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


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."

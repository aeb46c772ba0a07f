"""Files of phonopy and ASE, each of them written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from phonopy import Phonopy
from phonopy.file_IO import (
    get_io_module_to_decompress,
    write_FORCE_CONSTANTS,
    write_force_constants_to_hdf5,
)
from phonopy.physical_units import get_calculator_physical_units

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.files import check_writable, replacing
from phonopy_equivariant.io.crystals import Crystal, looks_like_yaml

PARAMS_FILE = "phonopy_params.yaml"
FIGURE_FILE, PAGE_FILE = "phonons.png", "report.html"  # of the command run
PROVENANCE = "analytic, phonopy_equivariant"  # stands in the file with our force constants


def check_output(path: str | os.PathLike[str]) -> None:
    """Raise before any work is done if ``path`` cannot be written, or holds others' results.

    Forces and force constants from a first-principles code are too dear to be replaced without a
    word; force constants of this package are not.

    Raises
    ------
    PhonopyEquivariantError
        The path is not a file, cannot be written, or holds results of another program.

    """
    path = Path(path).expanduser()
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device"
        raise PhonopyEquivariantError(f"{path} is {kind}; give the name of a file.")
    check_writable(path)
    results = _foreign_results(path) if path.is_file() and looks_like_yaml(path) else ""
    if results:
        raise PhonopyEquivariantError(
            f"{path} contains {results}, which writing it would lose; rename it, "
            "or work in another folder."
        )


def keep_existing(path: str | os.PathLike[str]) -> None:
    """Raise if a file exists: it may hold what a first-principles code computed.

    Raises
    ------
    PhonopyEquivariantError
        As said.

    """
    if Path(path).exists():
        raise PhonopyEquivariantError(
            f"{path} exists and may be of a first-principles code; rename it, "
            f"or say -o {path} to replace it."
        )


def write_params(
    phonon: Phonopy, path: str | os.PathLike[str], configuration: Mapping[str, str]
) -> None:
    """Write ``phonopy_params.yaml`` with force constants and, if set, Born charges.

    ``configuration`` (say, which potential) stands in the file for the record.
    """
    settings = {"force_constants": True, "force_sets": False, "displacements": False}
    yaml = phonon.to_phonopy_yaml(configuration=dict(configuration), settings=settings)
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(str(yaml))


def write_force_constants(
    phonon: Phonopy, path: str | os.PathLike[str], file_format: str, crystal: Crystal
) -> None:
    """Write ``FORCE_CONSTANTS`` or ``force_constants.hdf5`` in the units of the calculator."""
    values = np.asarray(phonon.force_constants) / crystal.force_constants_unit
    rows = phonon.primitive.p2s_map
    with replacing(path) as temporary:
        if file_format == "hdf5":
            unit = get_calculator_physical_units(crystal.calculator).force_constants_unit
            write_force_constants_to_hdf5(
                values, filename=str(temporary), p2s_map=rows, physical_unit=unit
            )
        else:
            write_FORCE_CONSTANTS(values, filename=temporary, p2s_map=rows)


def write_atoms(atoms: Atoms, path: str | os.PathLike[str]) -> None:
    """Write a structure in the format that ASE derives from the name.

    Raises
    ------
    PhonopyEquivariantError
        ASE writes no such format, or the file cannot be written.

    """
    import ase.io  # half a second of imports: only where it is needed

    path = Path(path).expanduser()
    file_format = output_format(path)
    options: dict[str, Any] = {}
    if file_format == "extxyz" and atoms.constraints:  # ASE leaves move_mask out by itself
        extra_columns = [name for name in atoms.arrays if name not in ("numbers", "positions")]
        options["columns"] = ["symbols", "positions", *extra_columns, "move_mask"]
    with replacing(path) as temporary:
        ase.io.write(temporary, atoms, format=file_format, **options)


def check_constraints(atoms: Atoms, path: str | os.PathLike[str]) -> None:
    """Raise before any work is done if the constraints of atoms would be lost in a file.

    Raises
    ------
    PhonopyEquivariantError
        The structure that ASE reads back from such a file allows other motions.

    """
    if not atoms.constraints:
        return
    import ase.io

    from phonopy_equivariant.calculators.constraints import allowed_motions

    preserved = False
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / Path(path).name
        with contextlib.suppress(Exception):  # ASE's writers and readers raise anything
            write_atoms(atoms, trial)
            reread: Any = ase.io.read(trial)
            motions, reread_motions = (
                allowed_motions(structure, structure.constraints) for structure in (atoms, reread)
            )
            preserved = bool(np.abs(reread_motions - motions).max() < 1e-4)
    if not preserved:
        names = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
        raise PhonopyEquivariantError(
            f"{path}: this format does not keep the constraints of the structure ({names}); "
            "choose POSCAR or name.extxyz, or remove them from the structure file."
        )


def output_format(path: str | os.PathLike[str]) -> str:
    """Return the format that a file's name stands for in ASE, if ASE can write it.

    Raises
    ------
    PhonopyEquivariantError
        The name stands for no format that ASE writes.

    """
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    try:
        file_format = filetype(str(path), read=False)
        writable = ioformats[file_format].can_write
    except (UnknownFileTypeError, KeyError):
        writable = False
    if not writable:
        raise PhonopyEquivariantError(
            f"{path}: the name stands for no format that ASE writes; "
            "choose one such as POSCAR, name.vasp, name.cif or name.extxyz."
        )
    return str(file_format)


def _foreign_results(path: Path) -> str:
    """Name the results in a YAML file that this package did not compute; "" if there are none."""
    opener = get_io_module_to_decompress(path)
    ours = foreign = False
    with opener.open(path, "rt", encoding="utf-8", errors="replace") as file:
        for line in file:
            if re.match(r"\s*(- )?forces?:", line):
                return "forces"
            ours |= bool(re.match(rf"\s+force_constants: .*{PROVENANCE}", line))
            foreign |= line.startswith("force_constants:")
    return "force constants of another origin" if foreign and not ours else ""

"""Databases, trajectories and outputs that ASE reads, if it reads them without pickle."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.db
import ase.io
from ase import Atoms

from phonopy_equivariant.data.labels import Frame, Keys, atoms_values, labelled_records
from phonopy_equivariant.data.record import Record
from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.io.foreign import guarded
from phonopy_equivariant.structure import unchecked_structure

# ASE's formats that execute nothing; others can be converted to extended XYZ with ASE.
SAFE = ("traj", "vasp-out", "espresso-out", "aims-output", "castep-castep", "cp2k-restart")


def read(
    path: Path,
    selection: str = "",
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    level: str = "",
) -> Iterator[Record]:
    """Yield the records of an ASE database (``.db``, ``.json``) or trajectory, or of an output.

    In a database second-order data are looked for in a row's ``data``, under the names of
    :mod:`phonopy_equivariant.data.extxyz`, and ``level`` among its key-value pairs. Names of labels
    are those of :mod:`phonopy_equivariant.data.labels`.

    Parameters
    ----------
    path
        ``.db`` and ``.json`` are databases; all else must be one of ASE's formats in SAFE.
    selection
        ASE's query for a database, such as ``"Si,energy<0"``.
    energy_key, forces_key, stress_key
        Names among the calculator's results, in ``info`` or, in a database, in a row's ``data`` or
        key-value pairs. A stress_key with "virial" in it names a virial.
    level
        Level of theory of records that name none.

    Raises
    ------
    PhonopyEquivariantError
        A file or configuration that cannot be read; a name given here is not there.

    """
    keys = Keys(energy_key, forces_key, stress_key)
    return labelled_records(frames(path, selection), keys, level)


def frames(path: Path, selection: str = "") -> Iterator[Frame]:
    """Yield the rows or configurations of a file with all that stands beside them.

    Raises
    ------
    PhonopyEquivariantError
        A file or configuration that cannot be read.

    """

    def refusal(error: Exception, index: int) -> PhonopyEquivariantError:
        return _refusal(f"{path}:{index}", error)

    images = _rows(path, selection) if path.suffix in (".db", ".json") else _images(path)
    for index, (atoms, values) in enumerate(guarded(images, refusal)):
        source = f"{path}:{index}"
        yield Frame(unchecked_structure(atoms), atoms_values(atoms) | values, source)


def _images(path: Path) -> Iterator[tuple[Atoms, dict[str, Any]]]:
    file_format = ase.io.formats.filetype(str(path))
    if file_format not in SAFE:
        raise PhonopyEquivariantError(
            f"ASE takes it for {file_format!r}, which is not read here; convert it with "
            "ASE to extended XYZ."
        )
    for atoms in ase.io.iread(str(path), index=":", format=file_format):
        yield atoms, {}


def _rows(path: Path, selection: str) -> Iterator[tuple[Atoms, dict[str, Any]]]:
    if path.suffix == ".db":
        _check_sqlite(path)
    for row in ase.db.connect(path, append=True).select(selection):
        yield row.toatoms(), dict(row.data) | dict(row.key_value_pairs)


def _check_sqlite(path: Path) -> None:
    """Refuse what is no database of ASE, whose reader would make its tables in it."""
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'systems'").fetchone():
            raise PhonopyEquivariantError("no database of ASE: it has no table 'systems'.")


def _refusal(source: str, error: Exception) -> PhonopyEquivariantError:
    text = reason_of(error)
    if isinstance(error, PhonopyEquivariantError):
        return PhonopyEquivariantError(f"{source}: {text}")
    return PhonopyEquivariantError(
        f"{source}: ASE cannot read it ({text}); check the file with ase.io.read."
    )

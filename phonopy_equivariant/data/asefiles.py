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

from phonopy_equivariant.data.labels import Keys, atoms_structure, chosen_keys, labelled_record
from phonopy_equivariant.data.record import Record
from phonopy_equivariant.errors import PhonopyEquivariantError

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
    :mod:`phonopy_equivariant.data.extxyz`, and ``level`` among its key-value pairs. Where the
    calculator gives a free energy, which is what forces derive from, it is taken as the energy.

    Parameters
    ----------
    path
        ``.db`` and ``.json`` are databases; all else must be one of ASE's formats in SAFE.
    selection
        ASE's query for a database, such as ``"Si,energy<0"``.
    energy_key, forces_key, stress_key
        Names in a row's ``data`` or key-value pairs, in place of the calculator's results.
    level
        Level of theory of records that name none.

    Raises
    ------
    PhonopyEquivariantError
        A file or configuration that cannot be read; a name given here is not there.

    """
    keys = chosen_keys(energy_key, forces_key, stress_key)
    if path.suffix in (".db", ".json"):
        yield from _rows(path, selection, keys, level)
        return
    source = f"{path}:0"
    try:
        file_format = ase.io.formats.filetype(str(path))
        if file_format not in SAFE:
            raise PhonopyEquivariantError(
                f"ASE takes it for {file_format!r}, which is not read here; convert it with "
                "ASE to extended XYZ."
            )
        for index, atoms in enumerate(ase.io.iread(str(path), index=":", format=file_format)):
            source = f"{path}:{index}"
            known = atoms_labels(atoms)
            yield labelled_record(atoms_structure(atoms), known, keys, level, source)
    except GeneratorExit:
        raise
    except Exception as error:  # ASE's readers raise anything on garbage
        raise _refusal(source, error) from error


def atoms_labels(atoms: Atoms) -> dict[str, Any]:
    """Return what an ``Atoms`` knows, the free energy in place of the energy."""
    known: dict[str, Any] = dict(atoms.info)
    if atoms.calc is not None:
        known |= atoms.calc.results
        if known.get("free_energy") is not None:
            known["energy"] = known["free_energy"]
    return known


def _rows(path: Path, selection: str, keys: Keys, level: str) -> Iterator[Record]:
    source = f"{path}:0"
    try:
        if path.suffix == ".db":
            _check_sqlite(path)
        rows = ase.db.connect(path, append=True).select(selection)
        for index, row in enumerate(rows):
            source = f"{path}:{index}"
            atoms: Any = row.toatoms()
            known = atoms_labels(atoms) | dict(row.data) | dict(row.key_value_pairs)
            yield labelled_record(atoms_structure(atoms), known, keys, level, source)
    except GeneratorExit:
        raise
    except Exception as error:  # ASE's databases raise anything on garbage
        raise _refusal(source, error) from error


def _check_sqlite(path: Path) -> None:
    """Refuse what is no database of ASE, whose reader would make its tables in it."""
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'systems'").fetchone():
            raise PhonopyEquivariantError("no database of ASE: it has no table 'systems'.")


def _refusal(source: str, error: Exception) -> PhonopyEquivariantError:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, PhonopyEquivariantError):
        return PhonopyEquivariantError(f"{source}: {text}")
    return PhonopyEquivariantError(
        f"{source}: ASE cannot read it ({text[:120]}); check the file with ase.io.read."
    )

"""VASP's vasprun.xml: every ionic step with ASE, the Hessian with phonopy's parser."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.io.vasp import read_vasp_xml
from phonopy.file_IO import get_io_module_to_decompress
from phonopy.interface.vasp import Vasprun

from phonopy_equivariant.data.labels import Frame, Keys, atoms_values, labelled_record
from phonopy_equivariant.data.record import ForceConstantsData, Record
from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.io.foreign import guarded
from phonopy_equivariant.structure import unchecked_structure

# The tags GGA and METAGGA of INCAR, as far as they name a functional.
_GGA = {"PE": "PBE", "PS": "PBEsol", "91": "PW91", "CA": "LDA", "RE": "revPBE", "RP": "RPBE"}


def read(path: Path, level: str | None = None) -> Iterator[Record]:
    """Yield one record per ionic step of a vasprun.xml, compressed or not.

    The energy is VASP's free energy, from which the forces derive (without the PV term). Where
    the run has a Hessian (IBRION = 5 to 8), the first record has it as Φ at q = 0 of the cell
    that was computed.

    Parameters
    ----------
    path
        ``vasprun.xml``, also with ``.gz``, ``.bz2`` or ``.xz``.
    level
        Level of theory; by default as GGA, METAGGA and LDAU say, or "" where the POTCAR decides.

    Raises
    ------
    PhonopyEquivariantError
        A file that cannot be read, or without a finished step.

    """
    hessian = _hessian(path)

    def refusal(error: Exception, index: int) -> PhonopyEquivariantError:
        return PhonopyEquivariantError(
            f"{path}:{index}: cannot be read as vasprun.xml ({reason_of(error)}); "
            "the run may have been cut short."
        )

    count = 0
    with get_io_module_to_decompress(path).open(path, "rb") as file:
        for atoms in guarded(read_vasp_xml(file, index=slice(None)), refusal):
            if atoms.calc is None:
                break
            theory = _level(atoms.calc.parameters) if level is None else level
            frame = Frame(unchecked_structure(atoms), atoms_values(atoms), f"{path}:{count}")
            record = labelled_record(frame, Keys(), theory)
            if count == 0 and hessian is not None:
                record = dataclasses.replace(record, force_constants=hessian)
            yield record
            count += 1
    if not count:
        raise PhonopyEquivariantError(f"{path}: has no finished ionic step; complete the run.")


def _hessian(path: Path) -> ForceConstantsData | None:
    opener = get_io_module_to_decompress(path)
    with opener.open(path, "rb") as file:
        if not any(b"<dynmat>" in line for line in file):
            return None
    try:
        with opener.open(path, "rb") as file:
            values = Vasprun(file).read_force_constants()[0]
    except Exception as error:  # phonopy's parser raises anything on garbage
        raise PhonopyEquivariantError(
            f"{path}: its Hessian cannot be read ({reason_of(error)}); complete the run."
        ) from error
    columns = 3 * len(values)
    flat = values.transpose(0, 2, 1, 3).reshape(1, columns, columns)
    return ForceConstantsData(np.zeros((1, 3)), flat.astype(complex))


def _level(parameters: Mapping[str, Any]) -> str:
    meta = str(parameters.get("metagga") or "").strip(" -")
    name = (
        meta
        if meta.lower() not in ("", "none")
        else _GGA.get(str(parameters.get("gga") or "").strip().upper(), "")
    )
    return f"{name}+U" if name and parameters.get("ldau") is True else name

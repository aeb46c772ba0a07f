"""Quantum ESPRESSO: dynamical matrices of ph.x, and force constants of q2r.x.

What ph.x calls the dynamical matrix is Φ(q) in Ry/bohr², not divided by masses, with phases of
cell vectors: the lattice gauge of this package, counted from the positions in the file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
from ase import units
from ase.data import atomic_numbers
from jaxtyping import Float
from numpy import ndarray
from phonopy import Phonopy
from phonopy.interface.qe import PH_Q2R
from phonopy.physical_units import get_calculator_physical_units, get_physical_units
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.data.compressed import open_text
from phonopy_equivariant.data.phonopyfiles import commensurate_force_constants
from phonopy_equivariant.data.record import ForceConstantsData, Record
from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.structure import Structure, to_phonopy

# amu per Rydberg unit of mass, which is twice the electron's
_MASS = 2 * units._me / units._amu
_NUMBER = r"[-+]?\d+\.\d*(?:[DEde][-+]?\d+)?"


class _Header(NamedTuple):
    structure: Structure
    alat: float  # Å


def read(path: Path, level: str = "") -> Iterator[Record]:
    """Yield the record of a file that ph.x (``fildyn``) or q2r.x (``flfrc``) wrote.

    Parameters
    ----------
    path
        A dynamical matrix in text form, with all q of a star; or force constants of q2r.x,
        which become Φ(q) at the q of its grid.
    level
        Level of theory.

    Raises
    ------
    PhonopyEquivariantError
        A file that cannot be read, in XML, without matrices, or force constants from which the
        dipole-dipole part has been taken out.

    """
    try:
        with open_text(path) as file:
            first_line = file.readline()
            if first_line.lstrip().startswith("<"):
                raise PhonopyEquivariantError(
                    "is XML; run ph.x with a fildyn that does not end in .xml, or q2r.x."
                )
            if "dynamical matrix file" in first_line.lower():
                file.readline()
                header, constants = _dynamical_matrices(file)
            else:
                file.seek(0)
                header, constants = _q2r(file)
    except Exception as error:  # garbage makes the parsers raise anything
        text = reason_of(error)
        if not isinstance(error, PhonopyEquivariantError):
            text = f"cannot be read as a file of ph.x or q2r.x ({text}); write it again."
        raise PhonopyEquivariantError(f"{path}: {text}") from error
    yield Record(header.structure, force_constants=constants, level=level, source=f"{path}:0")


def _dynamical_matrices(file: io.TextIOBase) -> tuple[_Header, ForceConstantsData]:
    header = _header(file)
    atoms = len(header.structure.numbers)
    unit = get_calculator_physical_units("qe")
    scale = unit.force_to_eVperA / unit.distance_to_A  # Ry/bohr² in eV/Å²
    qpoints, matrices = [], []
    for line in file:
        match = re.match(rf"\s*q\s*=\s*\(\s*({_NUMBER})\s*({_NUMBER})\s*({_NUMBER})", line)
        if "iagonalizing" in line or "Dielectric" in line:
            break  # eigenvectors, or fields; the matrices are before
        if match is None:
            continue
        cartesian = np.array([float(word) for word in match.groups()])  # 2π/alat
        qpoints.append(header.structure.cell @ cartesian / header.alat)
        matrices.append(_matrix(file, atoms) * scale)
    if not matrices:
        raise PhonopyEquivariantError("has no dynamical matrix; complete the run of ph.x.")
    columns = 3 * atoms
    values = np.array(matrices).reshape(len(matrices), columns, columns)
    return header, ForceConstantsData(np.array(qpoints), values)


def _matrix(file: io.TextIOBase, atoms: int) -> ndarray:
    """Return (atoms, 3, atoms, 3): blocks "i j" and three lines of complex numbers each."""
    matrix = np.empty((atoms, 3, atoms, 3), complex)
    file.readline()
    for _ in range(atoms**2):
        i, j = (int(word) - 1 for word in file.readline().split())
        rows = np.array([_floats(file.readline()) for _ in range(3)])
        matrix[i, :, j] = rows[:, 0::2] + 1j * rows[:, 1::2]
    return matrix


def _q2r(file: io.TextIOBase) -> tuple[_Header, ForceConstantsData]:
    start = file.tell()
    header = _header(file)
    if file.readline().strip().upper().startswith("T"):
        raise PhonopyEquivariantError(
            "the dipole-dipole part has been taken out of these force constants (the file has "
            "Born charges); run q2r.x without them, or give the dynamical matrices of ph.x."
        )
    file.seek(start)
    reader = PH_Q2R(cast(IO[str], file))
    reader.run(to_phonopy(header.structure))
    cell: PhonopyAtoms = to_phonopy(header.structure)
    phonon = Phonopy(cell, reader.dimension, primitive_matrix="P", log_level=0)
    unit = get_calculator_physical_units("qe")
    values = np.asarray(reader.fc) * (unit.force_to_eVperA / unit.distance_to_A)
    return header, commensurate_force_constants(phonon, values)


def _header(file: io.TextIOBase) -> _Header:
    """Read the types, the lattice and the atoms, which both kinds of file begin with."""
    words = file.readline().split()
    types, atoms, ibrav = (int(word) for word in words[:3])
    celldm = [float(word) for word in words[3:9]]
    bohr = get_physical_units().Bohr
    line = file.readline()
    if ibrav == 0:
        if "asis" in line:
            line = file.readline()
        rows = [_floats(line), _floats(file.readline()), _floats(file.readline())]
        alat = celldm[0] * bohr
        cell = np.array(rows) * alat
        line = file.readline()
    else:
        alat = celldm[0] * bohr
        cell = _lattice(ibrav, celldm) * alat
    symbols, masses = [], []
    for k in range(types):
        _, symbol, mass = line.split("'")
        symbols.append(symbol.strip())
        masses.append(_floats(mass)[0] * _MASS)
        line = file.readline() if k + 1 < types else ""
    table = [_floats(file.readline()) for _ in range(atoms)]
    structure = _structure(table, symbols, masses, np.asarray(cell, float), float(alat))
    return _Header(structure, float(alat))


def _lattice(ibrav: int, celldm: list[float]) -> Float[ndarray, "3 3"]:
    """Return the cell in units of alat, as in the description of pw.x's input."""
    b, c, cosine = celldm[1], celldm[2], celldm[3]
    x, y, z = np.sqrt([(1 - cosine) / 2, (1 - cosine) / 6, (1 + 2 * cosine) / 3])
    vectors: dict[int, list[list[float]]] = {
        1: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        2: [[-0.5, 0, 0.5], [0, 0.5, 0.5], [-0.5, 0.5, 0]],
        3: [[0.5, 0.5, 0.5], [-0.5, 0.5, 0.5], [-0.5, -0.5, 0.5]],
        -3: [[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]],
        4: [[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, c]],
        5: [[x, -y, z], [0, 2 * y, z], [-x, -y, z]],
        6: [[1, 0, 0], [0, 1, 0], [0, 0, c]],
        7: [[0.5, -0.5, c / 2], [0.5, 0.5, c / 2], [-0.5, -0.5, c / 2]],
        8: [[1, 0, 0], [0, b, 0], [0, 0, c]],
    }
    if ibrav not in vectors:
        raise PhonopyEquivariantError(
            f"ibrav = {ibrav} is not known here; run pw.x with ibrav = 0 and CELL_PARAMETERS."
        )
    return np.array(vectors[ibrav], float)


def _structure(
    table: list[list[float]],
    symbols: list[str],
    masses: list[float],
    cell: Float[ndarray, "3 3"],
    alat: float,
) -> Structure:
    rows = np.array(table)
    kinds = rows[:, 1].astype(int) - 1
    labels = [re.split(r"[^A-Za-z]", symbols[kind])[0] for kind in kinds]
    numbers = np.array([atomic_numbers[label.capitalize()] for label in labels])
    positions = rows[:, 2:5] * alat
    return Structure(numbers, positions, cell, np.ones(3, bool), np.array(masses)[kinds])


def _floats(line: str) -> list[float]:
    return [float(word.replace("D", "E")) for word in line.split()]

"""Extended XYZ: read with ASE, written here with every digit.

Per configuration, in the comment line: ``energy`` (eV), ``stress`` (9 numbers, or 6 in ASE's
order, eV/Å³) or ``virial`` (eV, -V times the stress), ``level``. Per atom: ``forces`` (eV/Å),
``masses`` (amu). Names of the lattice and of the columns may be in any case, as NEP's files have
them; names of labels are those of :mod:`phonopy_equivariant.data.labels`. Second-order data, all of
them JSON arrays in the comment line (``name="_JSON [[...], ...]"``):

``hessian``
    (3n, 3n), eV/Å²: second derivatives at Γ, or of a molecule.
``fc_qpoints``, ``fc_real``, ``fc_imag``
    (q, 3), (q, 3n, 3n), (q, 3n, 3n): Φ(q) in the lattice gauge, eV/Å².
``spectrum_qpoints``, ``spectrum``
    (q, 3), (q, 3n): frequencies in THz.
"""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.extxyz import key_val_str_to_dict, read_xyz
from numpy import ndarray

from phonopy_equivariant.data.compressed import open_text
from phonopy_equivariant.data.labels import (
    Frame,
    Keys,
    atoms_values,
    labelled_records,
    second_order,
)
from phonopy_equivariant.data.record import Record
from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.structure import unchecked_structure

# Words of the comment line, and names of columns, as ASE wants them.
_STRUCTURAL = {"lattice": "Lattice", "properties": "Properties", "pbc": "pbc"}
_COLUMNS = {"species": "species", "pos": "pos", "z": "Z", "mass": "masses", "masses": "masses"}
_PLAIN_COLUMNS = "species:S:1:pos:R:3"
# ASE refuses these with other than nine numbers; under another name they are numbers like others.
_NINE = re.compile(r"(?<!\S)(stress|virial)(?=\s*=)")


def read(
    path: Path,
    energy_key: str | None = None,
    forces_key: str | None = None,
    stress_key: str | None = None,
    level: str = "",
) -> Iterator[Record]:
    """Yield the records of an extended XYZ file, which may be compressed.

    Parameters
    ----------
    path
        ``.extxyz`` or ``.xyz``, also with ``.gz``, ``.bz2`` or ``.xz``.
    energy_key, forces_key, stress_key
        Names of the data in the file; by default the usual ones are tried. A stress_key with
        "virial" in it names a virial.
    level
        Level of theory of records that name none.

    Raises
    ------
    PhonopyEquivariantError
        A configuration that cannot be read, by its index; a name given here is not in the file.

    """
    return labelled_records(frames(path), Keys(energy_key, forces_key, stress_key), level)


def frames(path: Path) -> Iterator[Frame]:
    """Yield the configurations of a file with all that stands beside them.

    Raises
    ------
    PhonopyEquivariantError
        A configuration that cannot be read, by its index.

    """
    with open_text(path) as file:
        for index in itertools.count():
            source = f"{path}:{index}"
            try:
                text = _next_frame(file)
                if not text:
                    return
                atoms, values = _read_frame(text)
            except Exception as error:  # ASE's parser raises anything on garbage
                raise PhonopyEquivariantError(f"{source}: {_reason(error)}") from error
            yield Frame(unchecked_structure(atoms), atoms_values(atoms) | values, source)


def write(records: Iterable[Record], file: io.TextIOBase) -> None:
    """Write records to an open text file; every number is read back to the bit."""
    for record in records:
        structure = record.structure
        columns = [structure.positions]
        properties = _PLAIN_COLUMNS
        if structure.masses is not None:
            columns.append(structure.masses[:, None])
            properties += ":masses:R:1"
        if record.forces is not None:
            columns.append(record.forces)
            properties += ":forces:R:3"
        file.write(f"{len(structure.numbers)}\n{_comment(record, properties)}\n")
        for number, row in zip(structure.numbers, np.hstack(columns), strict=True):
            file.write(f"{chemical_symbols[number]} {_numbers(row)}\n")


def _next_frame(file: io.TextIOBase) -> str:
    """Return the lines of one configuration: ASE, given the file, would seek in it."""
    count_line = file.readline()
    while count_line and not count_line.strip():  # empty lines between configurations
        count_line = file.readline()
    if not count_line:
        return ""
    count = int(count_line)
    lines = [count_line, *itertools.islice(file, count + 1)]
    if len(lines) < count + 2:
        raise PhonopyEquivariantError(
            f"the file ends after {max(0, len(lines) - 2)} of {count} atoms; it is cut short."
        )
    return "".join(lines)


def _read_frame(text: str) -> tuple[Atoms, dict[str, Any]]:
    """Return a configuration as ASE reads it, and the values of its comment line.

    ASE sees the lattice and the columns only: of labels it would refuse some and change others.
    """
    count_line, comment, *rows = text.rstrip("\n").split("\n")
    values: dict[str, Any] = {}
    parsed = key_val_str_to_dict(_NINE.sub(r"\1__", comment)) if comment.strip() else {}
    for name, value in parsed.items():
        in_columns = name in ("stress__", "virial__") and np.size(value) == 9
        name = _STRUCTURAL.get(name.lower(), name.removesuffix("__"))
        values[name] = np.reshape(value, (3, 3), order="F") if in_columns else value
    layout = {name: values.pop(name) for name in _STRUCTURAL.values() if name in values}
    if "Lattice" in layout:
        layout["Lattice"] = np.reshape(np.array(layout["Lattice"], float), (3, 3), order="F")
    layout["Properties"] = _columns(str(layout.get("Properties", _PLAIN_COLUMNS)))
    width = sum(int(count) for count in layout["Properties"].split(":")[2::3])
    if rows and len(rows[0].split()) != width:
        raise PhonopyEquivariantError(
            f"an atom has {len(rows[0].split())} columns where Properties="
            f"{layout['Properties']} names {width}; name every column there."
        )
    # without a word in the comment line ASE would not ask for the layout
    frame = "\n".join([count_line, "layout", *rows])
    reader = read_xyz(io.StringIO(frame), slice(None), properties_parser=lambda _: dict(layout))
    return next(reader), values


def _columns(properties: str) -> str:
    """Return a description of columns with ASE's names for species, positions and masses."""
    words = properties.split(":")
    return ":".join(
        _COLUMNS.get(word.lower(), word) if k % 3 == 0 else word for k, word in enumerate(words)
    )


def _comment(record: Record, properties: str) -> str:
    structure = record.structure
    words = [f"Properties={properties}"]
    if structure.cell.any():
        words.insert(0, f'Lattice="{_numbers(structure.cell.ravel())}"')
    if record.energy is not None:
        words.append(f"energy={record.energy!r}")
    if record.stress is not None:
        words.append(f'stress="{_numbers(record.stress.T.ravel())}"')  # in Fortran order
    words += [
        f'{name}="_JSON {json.dumps(array.tolist())}"'
        for name, array in second_order(record).items()
    ]
    if record.level:
        words.append(_level(record.level))
    flags = " ".join("T" if periodic else "F" for periodic in structure.pbc)
    return " ".join([*words, f'pbc="{flags}"'])


def _numbers(values: ndarray) -> str:
    return " ".join(repr(float(value)) for value in values)


def _level(level: str) -> str:
    """Return the word for a level; as JSON where ASE would read a number or a truth value."""
    text = _quoted(level)
    word = f'level="{text}"'
    if isinstance(key_val_str_to_dict(word)["level"], str):
        return word
    return f'level="_JSON \\"{text}\\""'


def _quoted(text: str) -> str:
    return " ".join(text.split()).replace("\\", "").replace('"', "'")


def _reason(error: Exception) -> str:
    if isinstance(error, PhonopyEquivariantError):
        return str(error)
    if isinstance(error, KeyError):  # of the table of elements
        return f"has atoms {reason_of(error)}, no element; write the symbols of elements, H for D."
    return f"cannot be read as extended XYZ ({reason_of(error)}); mend or cut the file there."

"""Files of rock salt, and what is read from them or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

import phonopy_equivariant as pe
from phonopy_equivariant.io.crystals import Crystal, read_crystal

SALT = """\
{title}
1.0
5.64 0 0
0 5.64 0
0 0 5.64
{species}
4 4
Direct
0 0 0
0 .5 .5
.5 0 .5
.5 .5 0
.5 .5 .5
.5 0 0
0 .5 0
0 0 .5
"""
LITHIUM, HYDROGEN, DEUTERIUM = 6.941, 1.00794, 2.014101778  # phonopy's, and AME2020


def salt(species: str = "Na Cl", title: str = "salt") -> str:
    text = SALT.format(title=title, species=species)
    return text if species else text.replace("\n\n", "\n")


def read(folder: Path, text: str | bytes, name: str = "POSCAR") -> tuple[Crystal, list[str]]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    notes: list[str] = []
    return read_crystal(path, report=notes.append), notes


def refused(folder: Path, text: str | bytes, name: str = "POSCAR", **options: int) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(pe.PhonopyEquivariantError) as caught:
        read_crystal(path, **options)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def assert_salt(crystal: Crystal, length: float = 5.64) -> None:
    cell = crystal.unitcell
    assert sorted(cell.symbols) == ["Cl"] * 4 + ["Na"] * 4
    assert abs(cell.volume - length**3) < 1e-6 * length**3
    expected = bulk("NaCl", "rocksalt", a=length, cubic=True)
    for symbol in ("Na", "Cl"):
        places = cell.positions[np.array(cell.symbols) == symbol]
        others = expected.positions[expected.symbols == symbol]
        apart = (places[:, None] - others) / length
        assert (np.abs(apart - np.rint(apart)).max(axis=2).min(axis=1) < 1e-6).all()

"""POSCAR and CONTCAR of VASP 4 and later, in any encoding, with the digits of their numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.rounded import Digits, as_meant, half_unit
from phonopy_equivariant.io.species import element_of, is_symbol, make_atoms
from phonopy_equivariant.structure import as_structure


class _Layout(NamedTuple):
    """What stands where."""

    names: list[str] | None
    counts: list[int]
    selective: bool
    cartesian: bool
    first: int  # line of the first position, from 0


def looks_like_poscar(lines: Sequence[str]) -> bool:
    """Tell by the scale, three vectors and the line of counts; XDATCAR begins like a POSCAR."""
    head = [_words(line) for line in lines[1:8]]
    if len(head) < 6 or len(head[0]) not in (1, 3) or not head[4]:
        return False
    counts = head[4] if head[4][0].isdigit() else head[5]
    whole = bool(counts) and counts[0].isdigit()
    vectors = all(len(row) >= 3 and _are_numbers(row[:3]) for row in head[1:4])
    steps = any("configuration=" in line for line in lines[5:8])
    return _are_numbers(head[0]) and vectors and whole and not steps


def read_poscar(lines: Sequence[str], folder: Path, report: Callable[[str], None]) -> Atoms:
    """Return the crystal with its constraints; ``folder`` is where a POTCAR may name the species.

    Raises
    ------
    PhonopyEquivariantError
        Too few or malformed lines, or no species.

    """
    scale = _numbers(lines, 1, len(_words(lines[1])))
    vectors = np.array([_numbers(lines, row, 3) for row in (2, 3, 4)])
    if not scale.all() or (len(scale) == 3 and scale.min() < 0):
        raise PhonopyEquivariantError(
            "has a scale in line 2 that is zero, or one of three that is negative; write a "
            "positive factor, three of them, or minus the volume."
        )
    if scale[0] < 0:  # the volume
        scale = np.cbrt(-scale / abs(np.linalg.det(vectors)))
    layout = _layout(lines)
    count = sum(layout.counts)
    body = [_words(line) for line in lines[layout.first : layout.first + count]]
    if not count or len(body) < count:
        raise PhonopyEquivariantError(
            f"cannot be read as a structure (it has {len(body)} of the {count} positions that it "
            "announces); complete the file."
        )
    beyond = [_words(line)[:3] for line in lines[layout.first + count :][:1]]
    if any(len(row) == 3 and _are_numbers(row) for row in beyond):  # velocities have a line before
        raise PhonopyEquivariantError(
            f"has more positions than the {count} that it announces; correct the numbers of atoms."
        )
    coordinates = np.array([_numbers(lines, layout.first + k, 3) for k in range(count)])
    half = np.array([[half_unit(word) for word in words[:3]] for words in body])
    lattice = vectors * scale
    atoms = make_atoms(_symbols(lines, layout, body, folder, report), cell=lattice, pbc=True)
    as_structure(atoms)  # a lattice without volume has no fractions
    if layout.cartesian:
        atoms.set_positions(coordinates * scale)
        half = half * scale @ np.abs(np.linalg.inv(lattice))
    else:
        atoms.set_scaled_positions(coordinates)
    if layout.selective:
        from ase.io.vasp import set_constraints  # half a second of imports

        set_constraints(atoms, _fixed(body, layout.first))
    rounding = [[half_unit(word) for word in _words(lines[row])[:3]] for row in (2, 3, 4)]
    return as_meant(atoms, Digits(half, np.array(rounding) * scale), report)


def _layout(lines: Sequence[str]) -> _Layout:
    rows = [_words(line) for line in lines[5:9]] + [[], []]
    names = None if rows[0][:1] and rows[0][0].isdigit() else rows.pop(0)
    counts = [int(word) for word in rows[0] if word.isdigit()]
    first = 7 if names is None else 8
    selective = bool(rows[1]) and rows[1][0].lower().startswith("s")
    mode = rows[1 + selective]
    cartesian = bool(mode) and mode[0][0].lower() in "ck"
    return _Layout(names, counts, selective, cartesian, first + selective)


def _fixed(body: list[list[str]], first: int) -> Bool[ndarray, "atoms 3"]:
    """Return which fractions selective dynamics hold fixed."""
    flags = [[word.strip(".")[:1].upper() for word in words[3:6]] for words in body]
    for row, of_atom in enumerate(flags, first + 1):
        if len(of_atom) < 3 or not set(of_atom) <= {"T", "F"}:
            raise PhonopyEquivariantError(
                f"lacks three flags T or F of selective dynamics in line {row}; mend it."
            )
    return np.array(flags) == "F"


def _symbols(
    lines: Sequence[str],
    layout: _Layout,
    body: list[list[str]],
    folder: Path,
    report: Callable[[str], None],
) -> list[str]:
    """Return the symbol of each atom: from the line of species, the labels, POTCAR or the title."""
    labels = [words[6 if layout.selective else 3 :][:1] for words in body]
    of_rows = [label[0] if label and is_symbol(label[0]) else None for label in labels]
    names, counts = layout.names, layout.counts
    if names is None and None not in of_rows:
        return [str(symbol) for symbol in of_rows]
    if names is None:
        names = _of_potcar(folder, len(counts), report) or _of_title(lines[0], len(counts), report)
    symbols = [element_of(name) for name in names]
    if None in symbols:
        raise PhonopyEquivariantError(
            f"has {names[symbols.index(None)]!r} in the line of species, no element; mend it."
        )
    if len(symbols) != len(counts):
        raise PhonopyEquivariantError(
            f"has {len(symbols)} species for {len(counts)} numbers of atoms; mend one of the lines."
        )
    result = [str(s) for s, count in zip(symbols, counts, strict=True) for _ in range(count)]
    for number, (symbol, label) in enumerate(zip(result, of_rows, strict=True), 1):
        if label not in (None, symbol):
            raise PhonopyEquivariantError(
                f"calls atom {number} {symbol} in the line of species and {label} beside its "
                "position; mend one of them."
            )
    return result


def _of_potcar(folder: Path, kinds: int, report: Callable[[str], None]) -> list[str]:
    potcar = folder / "POTCAR"
    if not potcar.is_file():
        return []
    names = re.findall(r"VRHFIN\s*=\s*([A-Z][a-z]?)\s*:", potcar.read_text("latin-1"))
    if len(names) != kinds:
        return []
    report(f"The species are those of POTCAR beside the file: {' '.join(names)}.")
    return names


def _of_title(title: str, kinds: int, report: Callable[[str], None]) -> list[str]:
    """Return the species of the first line where it has nothing but a symbol for each count."""
    names = title.split()
    if len(names) != kinds or not all(map(is_symbol, names)):
        raise PhonopyEquivariantError(
            "names no species, as files of VASP 4 do; write a line with the symbols, one for each "
            "number of atoms, above the line of these numbers."
        )
    report(f"The species are those of the first line: {' '.join(names)}.")
    return names


def _words(line: str) -> list[str]:
    return re.split("[!#]", line)[0].split()


def _numbers(lines: Sequence[str], row: int, count: int) -> Float[ndarray, " numbers"]:
    words = _words(lines[row])[:count]
    if len(words) < count or not _are_numbers(words):
        raise PhonopyEquivariantError(f"lacks {count} numbers in line {row + 1}; mend it.")
    return np.array([float(word.lower().replace("d", "e")) for word in words])


def _are_numbers(words: Sequence[str]) -> bool:
    number = r"[+-]?(\d+\.?\d*|\.\d+)([ed][+-]?\d+)?|nan|[+-]?inf"
    return bool(words) and all(re.fullmatch(number, word, re.IGNORECASE) for word in words)

"""XYZ files with what ASE does not know: deuterium and tritium, words in the lower case of NEP."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
from ase import Atoms

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.io.foreign import quietly
from phonopy_equivariant.io.frames import take_frame
from phonopy_equivariant.io.species import ISOTOPES

# Words of the comment line that ASE reads with a capital only.
LOWER_CASE = r"(?<!\S)(?:lattice|properties)(?=\s*=)"


def read_xyz_with_isotopes(
    text: str, file_format: str, index: int | None, report: Callable[[str], None]
) -> Atoms:
    """Return one frame of an XYZ file; D and T become hydrogen with their masses.

    Raises
    ------
    PhonopyEquivariantError
        The text is no XYZ file, or has no such frame.

    """
    lines = take_frame(_split(text.splitlines()), index, report)
    lines[1] = re.sub(LOWER_CASE, lambda word: word[0].capitalize(), lines[1])
    column = _species_column(lines[1])
    isotopes = {}
    for atom, line in enumerate(lines[2:]):
        words = line.split()
        if len(words) > column and words[column] in ISOTOPES:
            isotopes[atom] = ISOTOPES[words[column]]
            words[column] = "H"
            lines[atom + 2] = " ".join(words)
    import ase.io  # half a second of imports

    try:
        with quietly():
            atoms = ase.io.read(io.StringIO("\n".join(lines) + "\n"), format=file_format)
    except Exception as error:  # ASE's readers raise anything on garbage
        raise PhonopyEquivariantError(f"is no XYZ file ({reason_of(error)}); mend it.") from error
    assert isinstance(atoms, Atoms)
    if isotopes and not atoms.has("masses"):
        masses = atoms.get_masses()
        masses[list(isotopes)] = np.array(list(isotopes.values()))
        atoms.set_masses(masses)
    return atoms


def count_frames(text: str) -> int:
    """Return the number of frames of an XYZ file."""
    return len(_split(text.splitlines()))


def _split(lines: list[str]) -> list[list[str]]:
    """Return the lines of each frame."""
    frames: list[list[str]] = []
    while lines and lines[0].strip():
        count = int(lines[0]) if lines[0].strip().isdigit() else len(lines)
        if len(lines) < count + 2:
            raise PhonopyEquivariantError(
                f"is no XYZ file (frame {len(frames)} ends before its last atom); complete it."
            )
        frames.append(lines[: count + 2])
        lines = lines[count + 2 :]
    if not frames:
        raise PhonopyEquivariantError("is no XYZ file (its first line is empty); mend it.")
    return frames


def _species_column(comment: str) -> int:
    """Return the column of the symbols that extended XYZ names, the first one otherwise."""
    properties = re.search(r"""properties=["']?([\w:]+)""", comment, re.IGNORECASE)
    column = 0
    triples = properties[1].split(":") if properties else []
    for name, _, width in zip(triples[::3], triples[1::3], triples[2::3], strict=False):
        if name.lower() == "species":
            return column
        column += int(width) if width.isdigit() else 1
    return 0

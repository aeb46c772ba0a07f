"""Inputs of first-principles codes, told by their content and read by ASE or phonopy.

Neither knows all of a code's language. What a reader would pass over without a word is looked for
first, and where both read a file they must agree.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from phonopy.interface.calculator import calculator_info, read_crystal_structure
from phonopy.physical_units import get_calculator_physical_units

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.io.foreign import quietly
from phonopy_equivariant.io.species import element_of

# Outputs repeat the input; the structure at the end of the run may be another one.
_OUTPUT = r"siesta: |outvars: |\bof abinit\b|program pwscf|invoking fhi-aims|cp2k\||castep version"
# Lattice vectors and positions (Å) of two readers agree to this.
_AGREE = 1e-4


class InputFormat(NamedTuple):
    """How the input of a code is told and read; patterns are of lower-case text."""

    name: str
    calculator: str  # phonopy's name of the code
    marks: tuple[str, ...]  # all of them occur
    ase: str = ""  # ASE's name of the format, if ASE reads it
    comment: str = r"[!#].*"
    needs: tuple[str, ...] = ()  # statements without which a reader guesses
    unread: str = r"(?!)"  # statements that a reader passes over
    fixed: str = r"(?!)"  # statements that hold atoms fixed, which some readers pass over
    hint: str = "give lattice vectors and positions plainly"
    options: Mapping[str, object] = {}  # of ASE's reader


FORMATS = (
    InputFormat(
        "Quantum ESPRESSO",
        "qe",
        (r"^\s*&system", r"^\s*atomic_positions"),
        ase="espresso-in",
        unread=r"crystal_sg|space_group|\bibrav\s*=\s*-?[1-9]\d*",
        hint="write ibrav = 0 with CELL_PARAMETERS",
    ),
    InputFormat(
        "ABINIT",
        "abinit",
        (r"\bznucl\b", r"\btypat\b", r"\bntypat\b"),
        ase="abinit-in",
        unread=r"\b(angdeg|ndtset|spgroup|natrd|nimage|include|structure|amu|(acell|xred|xcart)\d)\b"
        r"|\b(xred|xcart)[-+\d.*/de\s]+\b(ang|nm|bohr)",
        fixed=r"\b[in]atfix",
    ),
    InputFormat(
        "SIESTA",
        "siesta",
        (r"^\s*%block\s+(chemical[-_.]?species[-_.]?label|lattice[-_.]?vectors)",),
        comment=r"#.*",
        needs=(
            r"^\s*latticeconstant\s+\S+\s+(ang|bohr)\b",
            r"^\s*%block\s+latticevectors",
            r"^\s*atomiccoordinatesformat\s",
        ),
        hint="write LatticeConstant, LatticeVectors and AtomicCoordinatesFormat by these names",
        unread=r"%include|<|(?<!%end)block\s+(atomic[-_.]?mass|supercell|z[-_.]?matrix)"
        r"|atomiccoordinatesorigin",
        fixed=r"%block\s+geometry[-_.]?constraints",
    ),
    InputFormat(
        "ABACUS",
        "abacus",
        (r"^\s*atomic_species", r"^\s*lattice_constant", r"^\s*atomic_positions"),
        comment=r"(#|//).*",
    ),
    InputFormat(
        "CP2K",
        "cp2k",
        (r"^\s*&subsys", r"^\s*&coord"),
        ase="cp2k-restart",
        hint="write the vectors A, B, C and positions in Å",
        unread=r"^\s*(scaled|unit|abc|multiple_unit_cell|mass|@\w+)\b|\$|\[",
        fixed=r"^\s*&fixed_atoms",
    ),
    InputFormat(
        "FHI-aims",
        "aims",
        (r"^\s*lattice_vector\s", r"^\s*atom(_frac)?\s"),
        ase="aims",
        comment=r"#.*",
        fixed=r"^\s*constrain_relaxation\s+(?!\.?f)",
    ),
    InputFormat(
        "CASTEP",
        "castep",
        (r"^\s*%block\s+lattice_(cart|abc)", r"^\s*%block\s+positions_(frac|abs)"),
        ase="castep-cell",
        unread=r"%block\s+species_mass",
        fixed=r"^\s*fix_all_ions\s*[:=]?\s*\.?t|%block\s+ionic_constraints",
        options={"calculator_args": {"keyword_tolerance": 3}},  # or ASE runs CASTEP
    ),
    InputFormat(
        "Elk",
        "elk",
        (r"^\s*avec\b", r"^\s*atoms\b"),
        comment=r"[!:].*",
        unread=r"^\s*atposc\b|^\s*scale\s[^~]*^\s*scale[123]|^\s*scale[123]\s[^~]*^\s*scale\s",
    ),
    InputFormat("exciting", "exciting", (r"<structure\b", r"<basevect\b"), comment=r"(?!)"),
    InputFormat(
        "Octopus",
        "octopus",
        (r"^\s*%\s*latticevectors", r"^\s*%\s*reducedcoordinates"),
        comment=r"#.*",
    ),
    InputFormat("PWmat", "pwmat", (r"^\s*lattice vector", r"^\s*position.*move"), comment=r"(?!)"),
    InputFormat("Questaal", "qlm", (r"^\s*%\s*site-data\b",), comment=r"(?!)"),
    InputFormat(
        "LAMMPS", "lammps", (r"\bxlo\s+xhi\b", r"\batom types\b", r"^\s*atoms\b"), comment=r"(?!)"
    ),
    InputFormat("DFTB+", "dftbp", (r"\A\s*\d+\s+[sf]\s",), ase="gen", comment=r"#.*"),
)


def input_format(text: str) -> InputFormat | None:
    """Return the code whose input a text is; None for outputs and for anything else."""
    lower = text.lower()
    if re.search(_OUTPUT, lower):
        return None
    for input_format in FORMATS:
        if all(re.search(mark, lower, re.MULTILINE) for mark in input_format.marks):
            return input_format
    return None


def read_input(text: str, kind: InputFormat, name: str, report: Callable[[str], None]) -> Atoms:
    """Return the structure of an input; ``name`` is that of its file.

    Raises
    ------
    PhonopyEquivariantError
        Neither ASE nor phonopy reads it, they read different structures, or it has statements
        that they do not know.

    """
    plain = re.sub(kind.comment, "", text)
    unread = re.search(kind.unread, plain.lower(), re.MULTILINE)
    lacking = [need for need in kind.needs if not re.search(need, plain.lower(), re.MULTILINE)]
    if unread or lacking:
        statement = " ".join(unread.group().split())[:40] if unread else ""
        cause = repr(statement) if statement else "its way of giving the cell"
        raise _refusal(kind, name, f"{cause} is understood neither by ASE nor by phonopy")
    structures: list[Atoms] = []
    reasons: list[str] = []
    for reader in (_read_ase, _read_phonopy):
        with quietly():
            try:
                structures += reader(plain, kind, name)
            except (Exception, SystemExit) as error:  # these readers raise anything
                reasons.append(reason_of(error))
    if not structures:
        raise _refusal(kind, name, next((r for r in reasons if " " in r), reasons[0]))
    if len(structures) > 1 and not _agree(*structures):
        raise _refusal(kind, name, "ASE and phonopy read it differently")
    fixed = re.search(kind.fixed, plain.lower(), re.MULTILINE)
    if fixed and not structures[0].constraints:
        raise _refusal(kind, name, f"{fixed.group().strip()!r} would be lost")
    if kind.calculator == "qe":
        _mention_masses(plain, report)
    return structures[0]


def _read_ase(text: str, kind: InputFormat, name: str) -> list[Atoms]:
    if not kind.ase:
        return []
    import ase.io  # half a second of imports

    options: Any = kind.options
    with tempfile.TemporaryDirectory() as folder:  # not all of ASE's readers take an open file
        path = Path(folder, name)
        path.write_text(text, "utf-8")
        atoms = ase.io.read(path, format=kind.ase, do_not_split_by_at_sign=True, **options)
    assert isinstance(atoms, Atoms)
    atoms.calc = None
    return [atoms]


def _read_phonopy(text: str, kind: InputFormat, name: str) -> list[Atoms]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(text, "utf-8")
        cell, _ = read_crystal_structure(path, interface_mode=kind.calculator)
    assert cell is not None
    length = get_calculator_physical_units(kind.calculator).distance_to_A
    fractions = cell.scaled_positions
    return [Atoms(cell.numbers, cell=cell.cell * length, scaled_positions=fractions, pbc=True)]


def _agree(first: Atoms, second: Atoms) -> bool:
    if len(first) != len(second) or (first.numbers != second.numbers).any():
        return False
    apart = first.get_scaled_positions(wrap=False) - second.get_scaled_positions(wrap=False)
    apart = (apart - np.rint(apart)) @ first.cell.array
    differences = np.vstack([first.cell.array - second.cell.array, apart])
    return bool(np.abs(differences).max() < _AGREE)


def _mention_masses(text: str, report: Callable[[str], None]) -> None:
    """Say that masses of ATOMIC_SPECIES are not taken: most are placeholders, a few isotopes."""
    card = re.search(
        r"atomic_species[^\n]*\n((?:[ \t]*\S+[ \t]+[\d.]+[ \t]+\S+[^\n]*\n)+)", text, re.I
    )
    unusual = []
    for label, mass in re.findall(r"(\S+)[ \t]+([\d.]+)[ \t]+\S+[^\n]*\n", card[1] if card else ""):
        standard = atomic_masses[atomic_numbers.get(element_of(label) or "", 0)]
        if abs(float(mass) / standard - 1) > 0.01:
            unusual.append(f"{label} {mass}")
    if unusual:
        report(
            f"The masses in ATOMIC_SPECIES ({', '.join(unusual)}) are not taken; isotopes are "
            "given with masses=."
        )


def _refusal(kind: InputFormat, name: str, cause: str) -> PhonopyEquivariantError:
    flag = calculator_info[kind.calculator]["option"]["name"]
    return PhonopyEquivariantError(
        f"is an input of {kind.name} that cannot be read ({cause}); {kind.hint}, or give POSCAR, "
        f"CIF, extended XYZ, or the phonopy_disp.yaml of phonopy-init {flag} -d -c {name}."
    )

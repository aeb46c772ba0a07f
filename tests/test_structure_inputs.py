"""Inputs of other codes: told by content, read by ASE and phonopy alike, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from phonopy.interface.calculator import (
    ElkStructureInfo,
    QeStructureInfo,
    write_crystal_structure,
)
from phonopy.physical_units import get_calculator_physical_units
from phonopy.structure.atoms import PhonopyAtoms
from structure_helpers import (
    HYDROGEN,
    read,
    refused,
)

from phonopy_equivariant.io.crystals import read_crystal
from phonopy_equivariant.io.foreign import quietly
from phonopy_equivariant.io.inputs import FORMATS, input_format

CODES = [f.calculator for f in FORMATS if f.calculator not in ("qe", "cp2k")]


@pytest.mark.parametrize("code", [*CODES, "qe"])
def test_inputs_of_other_codes(tmp_path: Path, code: str, capfd: pytest.CaptureFixture) -> None:
    """phonopy's writers make them, in the units of the code and without a telling name."""
    length = get_calculator_physical_units(code).distance_to_A
    # grouped by element, or phonopy's writer for ABACUS mixes them up
    atoms = bulk("ZnO", "wurtzite", a=3.25, c=5.2, u=0.38)[[0, 2, 1, 3]]
    cell = PhonopyAtoms(
        symbols=list(atoms.symbols),
        cell=atoms.cell.array / length,
        scaled_positions=atoms.get_scaled_positions(),
    )
    info = {
        "qe": QeStructureInfo("", {"Zn": "Zn.upf", "O": "O.upf"}),
        "elk": ElkStructureInfo("", ["Zn.in", "O.in"]),
    }.get(code)
    path = tmp_path / "input@1"
    with quietly():
        write_crystal_structure(path, cell, code, info)
    if code == "qe":
        path.write_text(" &system\n ibrav = 0, nat = 4, ntyp = 2\n /\n" + path.read_text())
    capfd.readouterr()
    result = read_crystal(path).unitcell
    assert capfd.readouterr() == ("", "")
    np.testing.assert_allclose(result.cell, atoms.cell.array, atol=2e-6)  # octopus: 9 decimals
    assert result.symbols.count("Zn") == 2
    places = result.scaled_positions[np.array(result.symbols) == "Zn"]
    others = atoms.get_scaled_positions()
    apart = places[:, None] - others[atoms.numbers == 30]
    assert (np.abs(apart - np.rint(apart)).max(axis=2).min(axis=1) < 1e-8).all()
    assert input_format("Program PWSCF\nsiesta: CP2K| outvars: \n" + path.read_text()) is None


QE = """\
 &control
 /
 &system
    ibrav = 0
    nat = 2, ntyp = 2
 /
ATOMIC_SPECIES
 H   2.014  H.upf
 Cl  35.453 Cl.upf
ATOMIC_POSITIONS crystal
 H 0 0 0 0 0 0
 Cl 1/2 1/2 1/2
CELL_PARAMETERS angstrom
 0 2.8 2.8
 2.8 0 2.8
 2.8 2.8 0
"""
FDF = """\
# LatticeConstant 9.0 Ang
LatticeConstant 5.64 Ang
%block ChemicalSpeciesLabel
 1 11 Na
%endblock ChemicalSpeciesLabel
%block LatticeVectors
 1 0 0
 0 1 0
 0 0 1
%endblock LatticeVectors
AtomicCoordinatesFormat Fractional
%block AtomicCoordinatesAndAtomicSpecies
 0 0 0 1
%endblock AtomicCoordinatesAndAtomicSpecies
#LatticeConstant 7.0 Ang
"""
CP2K = """\
&FORCE_EVAL
  &SUBSYS
    &CELL
      A 5.64 0 0
      B 0 5.64 0
      C 0 0 5.64
    &END CELL
    &COORD
      Na 0 0 0
    &END COORD
  &END SUBSYS
&END FORCE_EVAL
"""
CASTEP = """\
%block lattice_abc
nm
0.564 0.564 0.564
90 90 90
%endblock lattice_abc
%block positions_abs
Na 0 0 0
%endblock positions_abs
"""
ABINIT = (
    "natom 1\nntypat 1\ntypat 1\nznucl 11\nacell 3*5.64 angstrom\nrprim 1 0 0 0 1 0 0 0 1\n"
    "xred 0 0 0 # xred 1 1 1\n"
)
ELK = "avec\n 1 0 0\n 0 1 0\n 0 0 1\nscale\n 5.0\natoms\n 1\n 'Na.in'\n 1\n 0 0 0\n"


def test_inputs_as_people_write_them(tmp_path: Path) -> None:
    crystal, notes = read(tmp_path, QE, "scf.in")
    assert crystal.unitcell.symbols == ["H", "Cl"]
    np.testing.assert_allclose(crystal.unitcell.scaled_positions[1], 0.5)
    assert crystal.unitcell.masses[0] == pytest.approx(HYDROGEN)
    assert len(notes) == 1 and "H 2.014" in notes[0] and "masses=" in notes[0]
    assert isinstance(crystal.constraints[0], FixAtoms)
    for text in (FDF, CP2K, ABINIT, CASTEP):
        cell = read(tmp_path, text, "some.input")[0].unitcell
        assert cell.symbols == ["Na"]
        np.testing.assert_allclose(cell.cell, 5.64 * np.eye(3), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "flag", "phrase"),
    [
        (QE.replace("ibrav = 0", "ibrav = 2, celldm(1) = 10"), "--qe", "write ibrav = 0"),
        (QE.replace(" H ", " D "), "--qe", "D"),
        (QE.replace("crystal\n", "crystal_sg\n"), "--qe", "crystal_sg"),
        (FDF.replace("Ang", ""), "--siesta", "way of giving the cell"),
        (FDF.replace("LatticeConstant 5.64", "Lattice_Constant 5.64"), "--siesta", "cell"),
        (FDF + "%block AtomicMass\n 1 30\n%endblock AtomicMass\n", "--siesta", "mass"),
        (CP2K.replace("&COORD", "&COORD\n SCALED"), "--cp2k", "scaled"),
        (CP2K.replace("A 5.64", "ABC 5.64"), "--cp2k", "abc"),
        (ABINIT.replace("xred", "xcart 0 0 0 angstrom #"), "--abinit", "ang"),
        (ABINIT + "amu 30\n", "--abinit", "amu"),
        (ELK + "scale3\n 1.6\n", "--elk", "scale"),
        (ABINIT + "natfix 1\niatfix 1\n", "--abinit", "natfix' would be lost"),
        (CASTEP + "FIX_ALL_IONS : TRUE\n", "--castep", "would be lost"),
        (FDF + "%block GeometryConstraints\natom 1\n%endblock\n", "--siesta", "would be lost"),
        (CP2K + "&FIXED_ATOMS\n LIST 1\n&END\n", "--cp2k", "would be lost"),
    ],
)
def test_inputs_that_nobody_understands_are_refused(
    tmp_path: Path, text: str, flag: str, phrase: str
) -> None:
    line = refused(tmp_path, text, "file.in")
    assert phrase in line and "POSCAR" in line
    assert f"phonopy-init {flag} -d -c file.in" in line


def test_fixed_atoms_of_fhi_aims(tmp_path: Path) -> None:
    """ASE's reader of this format takes no open file, and phonopy's passes constraints over."""
    text = "".join(f"lattice_vector {row}\n" for row in ("4 0 0", "0 4 0", "0 0 4"))
    text += "atom_frac 0 0 0 Na\natom_frac .5 .5 .5 Cl\n"
    crystal = read(tmp_path, text + "constrain_relaxation .true.\n", "geometry.in")[0]
    assert list(crystal.constraints[0].index) == [1]
    assert not read(tmp_path, text + "constrain_relaxation .false.\n", "geometry.in")[0].constraints


def test_the_card_of_species_ends_where_the_next_begins(tmp_path: Path) -> None:
    text = QE.replace(" angstrom", "", 1) if "CELL_PARAMETERS angstrom" in QE else QE
    assert all("CELL" not in note for note in read(tmp_path, text, "scf.in")[1])


def test_two_readers_that_disagree(tmp_path: Path) -> None:
    """ASE scales Elk's vectors by both scales; ABINIT's fractions are known to phonopy alone."""
    text = ABINIT.replace("natom 1", "natom 2").replace("typat 1\nz", "typat 1 1\nz")
    fraction = text.replace("xred 0 0 0", "xred 0 0 0 1/2 1/2 1/2")
    cell = read(tmp_path, fraction, "a.in")[0].unitcell
    np.testing.assert_allclose(cell.scaled_positions[1], 0.5)
    # phonopy takes the second of two values, ASE the first
    twice = ABINIT + "acell 3*6.0 angstrom\n"
    assert "read it differently" in refused(
        tmp_path, twice.replace("3*5.64", "5.64 5.64 5.64").replace("3*6.0", "6.0 6.0 6.0"), "a.in"
    )

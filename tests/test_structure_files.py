"""Structures from files of any format: told by content, read whole or refused in one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms, FixScaled
from phonopy.interface.calculator import (
    ElkStructureInfo,
    QeStructureInfo,
    write_crystal_structure,
)
from phonopy.physical_units import get_calculator_physical_units
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.io.crystals import Crystal, read_atoms, read_crystal
from phonopy_equivariant.io.foreign import quietly
from phonopy_equivariant.io.inputs import FORMATS, input_format
from phonopy_equivariant.molecules import read_molecule

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


def test_names_with_an_at_sign(tmp_path: Path) -> None:
    """ASE takes POSCAR@0 for the first structure of POSCAR."""
    read(tmp_path, salt().replace("5.64", "5.0"))
    names = ("POSCAR@0", "POSCAR@-1", "a@b.vasp", "NaCl@300K", "x@0.extxyz", "POSCAR@0.gz")
    for name in names:
        content = salt().encode()
        if name.endswith("extxyz"):
            content = b""
            bulk("NaCl", "rocksalt", a=5.64, cubic=True).write(tmp_path / "x.extxyz")
            content = (tmp_path / "x.extxyz").read_bytes()
        elif name.endswith("gz"):
            content = gzip.compress(content)
        assert_salt(read(tmp_path, content, name)[0])


@pytest.mark.parametrize(
    "text",
    [
        salt(title="Versuch für Müller").encode("latin-1"),
        b"\xef\xbb\xbf" + salt().encode(),
        salt().replace("\n", "\r\n"),
        salt().replace("1.0\n", "-179.406144\n"),  # the volume
        salt().replace("1.0\n5.64", "5.64 1.0 1.0\n1.0"),
        salt().replace("5.64", "0.564d1"),
        salt("Na_pv Cl/6a2f546d"),
        salt().replace("4 4\n", "4 4 ! atoms\n"),
        salt() + "\n" + "0 0 0\n" * 8,  # velocities
    ],
)
def test_forms_of_poscar(tmp_path: Path, text: str | bytes) -> None:
    assert_salt(read(tmp_path, text)[0])
    assert_salt(read(tmp_path, text, "no_name_at_all")[0])


def test_cartesian_positions_are_scaled(tmp_path: Path) -> None:
    lines = salt().replace("1.0\n", "5.64\n").replace("\n5.64 0 0", "\n1 0 0").splitlines()
    lines[3:5] = ["0 1 0", "0 0 1"]
    text = "\n".join(lines).replace("Direct", "Kartesisch")
    assert_salt(read(tmp_path, text)[0])


def test_species_of_vasp_4(tmp_path: Path) -> None:
    crystal, notes = read(tmp_path, salt("", title="Na Cl"))
    assert_salt(crystal)
    assert notes == ["The species are those of the first line: Na Cl."]
    for title in ("my cell", "NaCl rock salt", "Na Cl at 300 K", "C2 N2", "Sodium Chloride"):
        line = refused(tmp_path, salt("", title=title))
        assert "names no species" in line and "write a line with the symbols" in line
    labels = [f"{row} {'Na' if k < 4 else 'Cl'}" for k, row in enumerate(salt().splitlines()[8:])]
    text = "\n".join([*salt("", title="my cell").splitlines()[:7], *labels])
    assert_salt(read(tmp_path, text)[0])
    (tmp_path / "POTCAR").write_text("   VRHFIN =Na: p6s1\n ...\n   VRHFIN =Cl: s2p5\n")
    crystal, notes = read(tmp_path, salt("", title="my cell"))
    assert_salt(crystal)
    assert notes == ["The species are those of POTCAR beside the file: Na Cl."]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        (salt("Na Xy"), ["'Xy' in the line of species"]),
        (salt("Na"), ["1 species for 2 numbers"]),
        (salt()[:-10], ["7 of the 8 positions"]),
        (salt().replace(".5 .5 .5", ".5 .5"), ["3 numbers in line 13"]),
        (salt().replace("Direct", "Selective\nDirect"), ["three flags T or F", "line 10"]),
        (salt().replace(".5 .5 .5", ".5 .5 .5 Na"), ["calls atom 5 Cl", "Na beside"]),
        (salt().replace("0 5.64 0", "5.64 0 0"), ["no volume"]),
        ("not\na\ncrystal\n", ["cannot be read as a structure", "give a file that ASE reads"]),
    ],
)
def test_bad_poscar(tmp_path: Path, text: str, phrases: list[str]) -> None:
    line = refused(tmp_path, text)
    assert all(phrase in line for phrase in phrases), line


def test_left_handed_cells_are_turned_round(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for name in ("POSCAR", "a.extxyz"):
        cell = np.diag(rng.uniform(4, 6, 3)) + rng.uniform(-1, 1, (3, 3))
        atoms = Atoms("Na2Cl", cell=cell[[1, 0, 2]], pbc=True)
        atoms.set_scaled_positions(rng.random((3, 3)))
        atoms.write(tmp_path / name)
        notes: list[str] = []
        unitcell = read_crystal(tmp_path / name, report=notes.append).unitcell
        assert unitcell.volume > 0 and len(notes) == 1 and "left-handed" in notes[0]
        distances = Atoms(unitcell.symbols, unitcell.positions, cell=unitcell.cell, pbc=True)
        np.testing.assert_allclose(
            np.sort(distances.get_all_distances(mic=True), axis=None),
            np.sort(atoms.get_all_distances(mic=True), axis=None),
            atol=1e-7,
        )
        # the axes keep their order, which --dim counts by
        np.testing.assert_allclose(unitcell.cell, -atoms.cell.array, atol=1e-7)


def test_deuterium(tmp_path: Path) -> None:
    for name, text in {
        "POSCAR": salt("Li D"),
        "a.extxyz": '2\nLattice="0 2 2 2 0 2 2 2 0" Properties=pos:R:3:species:S:1\n'
        "0 0 0 Li\n2 2 2 D\n",
        "b.cif": "data_x\n_space_group_name_H-M_alt 'F m -3 m'\n"
        + "".join(f"_cell_length_{x} 4.08\n" for x in "abc")
        + "".join(f"_cell_angle_{x} 90\n" for x in ("alpha", "beta", "gamma"))
        + "loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
        "Li1 0 0 0\nD1 .5 .5 .5\n",
    }.items():
        cell = read(tmp_path, text, name)[0].unitcell
        expected = {"Li": LITHIUM, "H": DEUTERIUM}
        assert set(cell.symbols) == expected.keys()
        np.testing.assert_allclose(cell.masses, [expected[s] for s in cell.symbols], atol=1e-6)
    (tmp_path / "HDO.xyz").write_text("3\n\nO 0 0 0\nH 0.96 0 0\nD -0.24 0.93 0\n")
    masses = read_molecule(tmp_path / "HDO.xyz").get_masses()
    np.testing.assert_allclose(masses, [15.999, 1.008, DEUTERIUM], atol=1e-6)
    gen = "2 F\nLi D\n1 1 0 0 0\n2 2 .5 .5 .5\n0 0 0\n0 2 2\n2 0 2\n2 2 0\n"
    line = refused(tmp_path, gen, "a.gen")
    assert "D" in line and ("--mass" in line or "POSCAR" in line)


def test_one_mass_leaves_other_elements_alone(tmp_path: Path) -> None:
    atoms = bulk("LiH", "rocksalt", a=4.08, cubic=True)
    atoms.set_masses(np.where(atoms.numbers == 1, 2.5, atoms.get_masses()))
    atoms.write(tmp_path / "a.extxyz")
    cell = read_crystal(tmp_path / "a.extxyz").unitcell
    expected = {"Li": LITHIUM, "H": 2.5}
    np.testing.assert_allclose(cell.masses, [expected[s] for s in cell.symbols], atol=1e-6)
    # half of the hydrogen
    cell = read(tmp_path, salt("Li H D").replace("4 4", "4 2 2"))[0].unitcell
    masses = [LITHIUM] * 4 + [HYDROGEN] * 2 + [DEUTERIUM] * 2
    np.testing.assert_allclose(cell.masses, masses, atol=1e-6)


def test_selective_dynamics_are_constraints(tmp_path: Path) -> None:
    rows = salt().replace("Direct", "Selective\nDirect").splitlines()
    flags = [" F F F", " T T T", " .TRUE. .FALSE. T", *[" T T T"] * 5]
    rows[9:] = [row + flag for row, flag in zip(rows[9:], flags, strict=True)]
    (tmp_path / "POSCAR").write_text("\n".join(rows))
    constraints = read_atoms(tmp_path / "POSCAR").constraints
    assert [type(c) for c in constraints] == [FixScaled, FixAtoms]
    assert constraints[1].index.tolist() == [0]
    assert constraints[0].index.tolist() == [2] and constraints[0].mask.tolist() == [0, 1, 0]


def test_several_structures(tmp_path: Path) -> None:
    frames = [bulk("NaCl", "rocksalt", a=a, cubic=True) for a in (5.0, 5.3, 5.64)]
    for name in ("a.extxyz", "a.traj", "a.json"):
        ase.io.write(tmp_path / name, frames)
        notes: list[str] = []
        assert_salt(read_crystal(tmp_path / name, report=notes.append))
        assert len(notes) == 1 and "the last is taken" in notes[0] and "--index 0" in notes[0]
        notes.clear()
        for index, length in ((0, 5.0), (1, 5.3), (-1, 5.64), (-3, 5.0)):
            assert_salt(read_crystal(tmp_path / name, index, notes.append), length)
        assert not notes
        with pytest.raises(pe.PhonopyEquivariantError, match="--index 3"):
            read_crystal(tmp_path / name, 3)
    assert "one structure, none of --index 1" in refused(tmp_path, salt(), index=1)
    assert_salt(read_crystal(tmp_path / "POSCAR", 0))


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
    assert len(notes) == 1 and "H 2.014" in notes[0] and "--mass" in notes[0]
    assert isinstance(crystal.constraints[0], FixAtoms)
    for text in (FDF, CP2K, ABINIT):
        cell = read(tmp_path, text, "some.input")[0].unitcell
        assert cell.symbols == ["Na"]
        np.testing.assert_allclose(cell.cell, 5.64 * np.eye(3), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "flag", "phrase"),
    [
        (QE.replace("ibrav = 0", "ibrav = 2, celldm(1) = 10"), "--qe", "ibrav"),
        (QE.replace("crystal\n", "crystal_sg\n"), "--qe", "crystal_sg"),
        (FDF.replace("Ang", ""), "--siesta", "way of giving the cell"),
        (FDF.replace("LatticeConstant 5.64", "Lattice_Constant 5.64"), "--siesta", "cell"),
        (FDF + "%block AtomicMass\n 1 30\n%endblock AtomicMass\n", "--siesta", "mass"),
        (CP2K.replace("&COORD", "&COORD\n SCALED"), "--cp2k", "scaled"),
        (CP2K.replace("A 5.64", "ABC 5.64"), "--cp2k", "abc"),
        (ABINIT.replace("xred", "xcart 0 0 0 angstrom #"), "--abinit", "ang"),
        (ABINIT + "amu 30\n", "--abinit", "amu"),
        (ELK + "scale3\n 1.6\n", "--elk", "scale"),
    ],
)
def test_inputs_that_nobody_understands_are_refused(
    tmp_path: Path, text: str, flag: str, phrase: str
) -> None:
    line = refused(tmp_path, text, "file.in")
    assert phrase in line
    assert f"phonopy-init {flag} -d -c file.in" in line


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


def test_formats_whose_symmetry_ase_passes_over(tmp_path: Path) -> None:
    atom = "ATOM      1 NA   NA  A   1       0.000   0.000   0.000  1.00  0.00          NA\n"
    head = "CRYST1    5.640    5.640    5.640  90.00  90.00  90.00 {:<11}{:>4}\n"
    line = refused(tmp_path, head.format("F m -3 m", 4) + atom + "END\n", "a.pdb")
    assert "space group" in line and "convert the file to CIF" in line
    assert len(read(tmp_path, head.format("P 1", 1) + atom + "END\n", "a.pdb")[0].unitcell) == 1


def test_readers_are_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Warnings would be errors here: ASE warns of FHI-aims and of CIF, and some readers print."""
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    for name, form in {"geometry.in": "aims", "a.xsf": None, "a.gen": None, "a.cif": None}.items():
        with quietly():
            atoms.write(tmp_path / name, format=form)
        capfd.readouterr()
        assert_salt(read_crystal(tmp_path / name))
        assert capfd.readouterr() == ("", "")


def test_unknown_formats(tmp_path: Path) -> None:
    for name, content in {"a.foo": b"what\n", "a.in": b"what\n", "a.cif.gz": b"nothing"}.items():
        line = refused(tmp_path, content, name)
        assert "cannot be read" in line
    assert "give a file that ASE reads" in refused(tmp_path, b"what\n", "a.foo")

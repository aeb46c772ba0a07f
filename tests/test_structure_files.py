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
from structure_helpers import (
    DEUTERIUM,
    HYDROGEN,
    LITHIUM,
    assert_salt,
    read,
    refused,
    salt,
)

import phonopy_equivariant as pe
from phonopy_equivariant.io.crystals import read_atoms, read_crystal
from phonopy_equivariant.io.foreign import quietly
from phonopy_equivariant.molecules import read_molecule


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
        (salt().replace("1.0\n", "-1 1 1\n"), ["scale in line 2", "minus the volume"]),
        (salt().replace("1.0\n", "1 1 -1\n"), ["scale in line 2"]),
        (salt().replace("1.0\n", "0\n"), ["scale in line 2"]),
        (salt() + ".1 .1 .1\n", ["more positions than the 8"]),
        (salt("X Cl"), ["'X' in the line of species"]),
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
    assert "D" in line and ("masses=" in line or "POSCAR" in line)


def test_extended_xyz_in_the_lower_case_of_nep(tmp_path: Path) -> None:
    text = '2\nlattice="4 0 0 0 5 0 0 0 6" properties=species:S:1:pos:R:3\nNa 0 0 0\nCl 2 2 2\n'
    crystal, _ = read(tmp_path, text, "train.xyz")
    np.testing.assert_array_equal(crystal.unitcell.cell, np.diag([4.0, 5.0, 6.0]))


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
        assert len(notes) == 1 and "the last is taken" in notes[0] and "index=0" in notes[0]
        notes.clear()
        for index, length in ((0, 5.0), (1, 5.3), (-1, 5.64), (-3, 5.0)):
            assert_salt(read_crystal(tmp_path / name, index, notes.append), length)
        assert not notes
        with pytest.raises(pe.PhonopyEquivariantError, match="index=3"):
            read_crystal(tmp_path / name, 3)
    assert "one structure, none of index=1" in refused(tmp_path, salt(), index=1)
    assert_salt(read_crystal(tmp_path / "POSCAR", 0))


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
    with pytest.raises(pe.PhonopyEquivariantError, match="does not exist; for .* a.foo index=3"):
        read_crystal(tmp_path / "a.foo@3")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig"])
def test_encodings_of_formats_that_ase_reads(tmp_path: Path, encoding: str) -> None:
    text = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 by="Müller"\nNa 0 0 0\n'
    assert read(tmp_path, text.encode(encoding), "a.extxyz")[0].unitcell.symbols == ["Na"]

"""Digits of a file: what they leave open is symmetric where it can be, what they show stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal

from phonopy_equivariant.io.crystals import read_crystal
from phonopy_equivariant.io.rounded import half_unit


def poscar(atoms: Atoms, decimals: int, of_lattice: int = 12, cut: bool = False) -> str:
    """Return a POSCAR with rounded or cut-off numbers."""

    def word(x: float, digits: int) -> str:
        shown = np.trunc(x * 10**digits + 1e-6) / 10**digits if cut else x
        return f"{shown:.{digits}f}"

    symbols = sorted(set(atoms.symbols))
    order = [k for symbol in symbols for k in np.flatnonzero(atoms.symbols == symbol)]
    lines = ["rounded", "1.0"]
    lines += [" ".join(word(x, of_lattice) for x in row) for row in atoms.cell.array]
    lines += [" ".join(symbols), " ".join(str(sum(atoms.symbols == s)) for s in symbols), "Direct"]
    positions = atoms.get_scaled_positions()[order]
    lines += [" ".join(word(x, decimals) for x in row) for row in positions]
    return "\n".join(lines) + "\n"


def read(
    folder: Path, text: str, symprec: float = 1e-8
) -> tuple[spglib.SpglibDataset, np.ndarray, list[str]]:
    """Return the group, the fractions and what was reported."""
    (folder / "POSCAR").write_text(text)
    notes: list[str] = []
    cell = read_crystal(folder / "POSCAR", report=notes.append).unitcell
    dataset = spglib.get_symmetry_dataset(
        (cell.cell, cell.scaled_positions, cell.numbers), symprec=symprec
    )
    return dataset, cell.scaled_positions, notes


def fractions_of(text: str) -> np.ndarray:
    return np.array([line.split()[:3] for line in text.splitlines()[8:]], float)


@pytest.mark.parametrize("decimals", [3, 4, 5])
@pytest.mark.parametrize("of_lattice", [12, 4])
def test_wurtzite_is_hexagonal(tmp_path: Path, decimals: int, of_lattice: int) -> None:
    text = poscar(bulk("ZnO", "wurtzite", a=3.2495, c=5.2069, u=0.381), decimals, of_lattice)
    dataset, fractions, notes = read(tmp_path, text)
    assert dataset.number == 186
    assert len(notes) == 1 and "P6_3mc (186)" in notes[0] and "as they stand" in notes[0]
    change = fractions - fractions_of(text)
    assert 0 < np.abs(change - np.rint(change)).max() <= 0.5 * 10**-decimals * (1 + 1e-6)


def test_digits_that_suffice_are_left_alone(tmp_path: Path) -> None:
    text = poscar(bulk("ZnO", "wurtzite", a=3.2495, c=5.2069, u=0.381), 10)
    _, fractions, notes = read(tmp_path, text)
    np.testing.assert_allclose(fractions, fractions_of(text), rtol=0, atol=1e-12)
    assert not notes


def test_two_digits_are_told(tmp_path: Path) -> None:
    """(0.33, 0.67) may be meant as it stands."""
    text = poscar(bulk("ZnO", "wurtzite", a=3.2495, c=5.2069, u=0.38), 2)
    dataset, fractions, notes = read(tmp_path, text)
    assert dataset.number == 36
    np.testing.assert_allclose(fractions, fractions_of(text), rtol=0, atol=1e-12)
    assert len(notes) == 1
    assert "Cmc2_1 (36), and P6_3mc (186) with a tolerance of" in notes[0]


def test_digits_cut_off_are_told(tmp_path: Path) -> None:
    """0.6666 rounds no number of the symmetric crystal, whose origin an exact 0 fixes."""
    cell = [[2.9, 0, 0], [-1.45, 1.45 * 3**0.5, 0], [0, 0, 2.84]]
    atoms = Atoms("CW", cell=cell, scaled_positions=[[1 / 3, 2 / 3, 0.5], [0, 0, 0]], pbc=True)
    text = poscar(atoms, 4, cut=True).replace(" 0.0000", " 0").replace("\n0.0000", "\n0")
    assert "0.3333 0.6666 0.5000\n0 0 0\n" in text
    dataset, fractions, notes = read(tmp_path, text)
    assert dataset.number == 38
    np.testing.assert_allclose(fractions, fractions_of(text), rtol=0, atol=1e-12)
    assert "Amm2 (38), and P-6m2 (187) with a tolerance of" in notes[0]
    # somewhere else in the cell they round one
    moved = text.replace("\n0 0 0\n", "\n0.0000 0.0000 0.0000\n")
    assert read(tmp_path, moved)[0].number == 187


def random_structure(rng: np.random.Generator) -> Atoms:
    """Return a hexagonal, tetragonal or cubic crystal with a general and a special site."""
    while True:
        number = int(rng.integers(75, 231))
        a, c = rng.uniform(8, 12, 2)
        gamma = 120 if 143 <= number < 195 else 90
        parameters = (a, a, c if number < 195 else a, 90, 90, gamma)
        general = rng.uniform(0.05, 0.45, 3)
        sites = [(0, 0, general[2]), general]
        atoms = crystal(["Si", "O"], sites, spacegroup=number, cellpar=parameters)
        assert isinstance(atoms, Atoms)
        if np.partition(atoms.get_all_distances(mic=True), 1, axis=1)[:, 1].min() > 0.8:
            return atoms


def test_random_structures_keep_their_group(tmp_path: Path) -> None:
    """Four digits of positions, four to nine of the lattice; a line is due in any case."""
    rng = np.random.default_rng(7)
    exact = 0
    for _ in range(25):
        atoms = random_structure(rng)
        cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
        expected = spglib.get_symmetry_dataset(cell, symprec=1e-5)
        text = poscar(atoms, 4, int(rng.integers(4, 10)))
        dataset, fractions, notes = read(tmp_path, text, 1e-5)
        change = fractions - fractions_of(text)
        assert np.abs(change - np.rint(change)).max() <= 0.5e-4 * (1 + 1e-6)
        if len(dataset.rotations) >= len(expected.rotations):
            exact += 1
        else:
            assert "write more digits" in notes[0]
    assert exact >= 23


def test_what_digits_show_stays(tmp_path: Path) -> None:
    """A distortion of two units of the last digit is no rounding."""
    rng = np.random.default_rng(3)
    for _ in range(25):
        atoms = random_structure(rng)
        fractions = atoms.get_scaled_positions().round(4)
        fractions[rng.integers(len(atoms)), rng.integers(3)] += rng.choice([-3e-4, 3e-4])
        atoms.set_scaled_positions(fractions)
        text = poscar(atoms, 4)
        dataset, read_fractions, _ = read(tmp_path, text, 1e-5)
        change = read_fractions - fractions_of(text)
        assert np.abs(change - np.rint(change)).max() <= 0.5e-4 * (1 + 1e-6)
        loose = spglib.get_symmetry_dataset(
            (atoms.cell.array, fractions, atoms.numbers), symprec=5e-2
        )
        assert len(dataset.rotations) < len(loose.rotations)


def test_cartesian_coordinates_have_digits_too(tmp_path: Path) -> None:
    atoms = bulk("ZnO", "wurtzite", a=3.2495, c=5.2069, u=0.381)
    text = poscar(atoms, 4).replace("Direct", "Cartesian").splitlines()[:8]
    order = np.argsort(atoms.numbers)
    text += [" ".join(f"{x:.4f}" for x in row) for row in atoms.positions[order]]
    dataset, _, notes = read(tmp_path, "\n".join(text) + "\n")
    assert dataset.number == 186 and len(notes) == 1


def test_masses_are_part_of_the_symmetry(tmp_path: Path) -> None:
    """Rounded thirds of a crystal whose isotopes break a symmetry do not restore it."""
    atoms = bulk("MgH", "wurtzite", a=3.25, c=5.21, u=0.381)
    text = poscar(atoms, 4).splitlines()
    lines = [*text[:5], "H D Mg", "1 1 2", *text[7:]]
    (tmp_path / "POSCAR").write_text("\n".join(lines) + "\n")
    notes: list[str] = []
    cell = read_crystal(tmp_path / "POSCAR", report=notes.append).unitcell
    kinds = np.unique(np.round(cell.masses, 3), return_inverse=True)[1]
    dataset = spglib.get_symmetry_dataset((cell.cell, cell.scaled_positions, kinds), 1e-8)
    assert dataset.number == 156 and "P3m1 (156)" in notes[0]


def test_words() -> None:
    words = {"0.3333": 5e-5, "-.25": 5e-3, "1.50e-2": 5e-5, "0.5": 0.0, "3": 0.0, "1/3": 0.0}
    for word, expected in words.items():
        assert half_unit(word) == pytest.approx(expected)

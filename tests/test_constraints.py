"""Constraints in a relaxation: what is fixed stays, what is free reaches its minimum, flags stay.

ASE's own potentials stand in for ours: the relaxation is the subject, and nothing compiles.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import (
    FixAtoms,
    FixCartesian,
    FixConstraint,
    FixedLine,
    FixedPlane,
    FixScaled,
    FixSymmetry,
    Hookean,
)
from cli_helpers import assert_refused, command, model
from conftest import small_config
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.calculators import relax as relaxation
from phonopy_equivariant.calculators.constraints import allowed_motions
from phonopy_equivariant.io.crystals import IN_MEMORY, Crystal, read_atoms, read_crystal
from phonopy_equivariant.io.outputs import check_constraints, write_atoms
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.workflows.progress import Silent
from phonopy_equivariant.workflows.relaxation import RelaxationOptions, relax_crystal

FMAX = 1e-3


@pytest.fixture(scope="module")
def any_potential() -> Potential:
    """Return a potential that is asked for neighbours only."""
    return random_potential(small_config(species=(8, 13, 22, 29, 38), num_interactions=1))


@pytest.fixture
def emt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ASE's effective-medium theory give energies."""
    monkeypatch.setattr(relaxation, "EquivariantCalculator", lambda _potential: EMT())


def alloy(seed: int) -> Atoms:
    """Return ordered Cu-Al with all atoms and the cell off their minimum."""
    atoms = bulk("Cu", "fcc", a=3.85, cubic=True)
    atoms.numbers[:2] = 13
    rng = np.random.default_rng(seed)
    atoms.positions += rng.uniform(-0.08, 0.08, (4, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * rng.normal(size=(3, 3))), True)
    return atoms


KINDS: dict[str, Callable[[np.random.Generator], list[FixConstraint]]] = {
    "FixAtoms": lambda rng: [FixAtoms(rng.permutation(4)[:2])],
    "FixCartesian": lambda rng: [
        FixCartesian([i], rng.permutation([True, False, True])) for i in (0, 2)
    ],
    "FixScaled": lambda rng: [FixScaled([i], rng.permutation([True, False, True])) for i in (1, 3)],
    "FixedPlane": lambda rng: [FixedPlane([0, 1], rng.normal(size=3))],
    "FixedLine": lambda rng: [FixedLine([2, 3], rng.normal(size=3))],
    "several": lambda rng: [FixAtoms([3]), FixScaled([1], [False, True, True])],
}


@pytest.mark.usefixtures("emt")
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_fixed_stays_and_the_rest_relaxes(kind: str, any_potential: Potential) -> None:
    rng = np.random.default_rng(11)
    for seed in range(3):
        atoms = alloy(seed)
        atoms.set_constraint(KINDS[kind](rng))
        before = atoms.copy()
        found = pe.relax(atoms, any_potential, fmax=FMAX, cell=False)
        assert atoms == before and found.calc is None
        np.testing.assert_array_equal(found.cell.array, atoms.cell.array)
        assert repr(found.constraints) == repr(atoms.constraints)
        motions = allowed_motions(atoms, atoms.constraints)
        moves = found.positions - atoms.positions
        np.testing.assert_allclose(np.einsum("iab,ib->ia", motions, moves), moves, atol=1e-12)
        assert np.linalg.norm(moves, axis=1).max() > 0.01
        free = found.copy()
        free.set_constraint()
        free.calc = EMT()
        along = np.einsum("iab,ia->ib", motions, free.get_forces())
        assert np.linalg.norm(along, axis=1).max() < 2 * FMAX


@pytest.mark.usefixtures("emt")
def test_fixed_atoms_keep_their_fractions_where_the_cell_relaxes(any_potential: Potential) -> None:
    atoms = alloy(5)
    atoms.set_constraint([FixAtoms([0]), FixScaled([1], [True, False, False])])
    found = pe.relax(atoms, any_potential, fmax=10 * FMAX)
    moves = found.get_scaled_positions() - atoms.get_scaled_positions()
    np.testing.assert_allclose(moves[0], 0, atol=1e-12)
    assert abs(moves[1, 0]) < 1e-12 < 1e-4 < np.abs(moves[1, 1:]).max()
    found.calc = EMT()
    assert np.abs(found.get_stress()).max() < FMAX  # 10 FMAX is per strain of a cell of 57 Å³
    assert np.abs(found.cell.array - atoms.cell.array).max() > 0.005


@pytest.mark.usefixtures("emt")
def test_symmetry_that_constraints_keep_is_kept(any_potential: Potential) -> None:
    """Atoms of one orbit fixed alike leave the group; one of them alone leaves a part of it."""
    layers = bulk("Cu", "fcc", a=3.7, cubic=True).repeat((1, 1, 2))
    layers.set_cell(layers.cell.array * [1, 1, 1.04], scale_atoms=True)
    layers.numbers[np.isclose(layers.positions[:, 2], 0)] = 13
    # two free layers off their mirror plane's middle, alike
    height = layers.positions[:, 2] / layers.cell[2, 2]
    layers.positions[np.isclose(height, 0.25), 2] += 0.1
    layers.positions[np.isclose(height, 0.75), 2] -= 0.1
    number = spglib.get_symmetry_dataset(tuple_of(layers), symprec=1e-5).number
    layers.set_constraint(FixAtoms(np.flatnonzero(np.isclose(height, 0))))
    found = pe.relax(layers, any_potential, fmax=1e-5, cell=False)
    assert spglib.get_symmetry_dataset(tuple_of(found), symprec=1e-10).number == number
    layers.set_constraint(FixScaled([0], [True, True, False]))  # along z only
    found = pe.relax(layers, any_potential, fmax=1e-5, cell=False)
    assert found.positions[0, :2] == pytest.approx(layers.positions[0, :2], abs=1e-12)


def tuple_of(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers


class Springs(Calculator):
    """Every atom is bound to a site by a spring of 2 eV/Å²."""

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, sites: np.ndarray):
        super().__init__()
        self.sites = sites

    def calculate(self, atoms=None, properties=None, system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        away = self.atoms.get_scaled_positions() - self.sites
        away = (away - np.rint(away)) @ self.atoms.cell.array
        self.results = {
            "energy": float((away**2).sum()),
            "forces": -2 * away,
            "stress": np.zeros(6),
        }


def test_symmetry_gained_is_no_symmetry_lost(
    any_potential: Potential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Octahedra turn back: I4/mcm (140) becomes P4/mmm (123), a smaller number."""
    ideal = Atoms(
        "SrTiO3",
        cell=[3.9, 3.9, 4.0],
        pbc=True,
        scaled_positions=[(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)],
    ).repeat((2, 2, 2))
    turned = ideal.copy()
    oxygen = np.flatnonzero(ideal.numbers == 8)
    sites = np.rint(2 * ideal.positions / [3.9, 3.9, 4.0]).astype(int)
    for atom in oxygen:
        x, y, z = sites[atom]
        if z % 2 == 0:  # in the plane of titanium
            sign = (-1) ** (x // 2 + y // 2 + z // 2)
            turned.positions[atom] += 0.1 * sign * (np.array([0, 1, 0]) if x % 2 else -np.eye(3)[0])
    before = spglib.get_symmetry_dataset(tuple_of(turned), symprec=1e-5).number
    fractions = ideal.get_scaled_positions()
    monkeypatch.setattr(relaxation, "EquivariantCalculator", lambda _potential: Springs(fractions))
    found = pe.relax(turned, any_potential, cell=False)
    after = spglib.get_symmetry_dataset(tuple_of(found), symprec=1e-3).number
    assert (before, after) == (140, 123)


@pytest.mark.usefixtures("emt")
def test_symmetry_is_made_exact_within_the_tolerance_only(any_potential: Potential) -> None:
    ideal = bulk("Cu", "fcc", a=3.7, cubic=True)
    ideal.numbers[:2] = 13
    noisy = ideal.copy()
    noisy.positions += np.random.default_rng(2).uniform(-1e-3, 1e-3, (4, 3))
    for tolerance, number in ((1e-4, 1), (1e-2, 123)):
        start = relaxation.symmetrise(noisy, tolerance)
        assert spglib.get_symmetry_dataset(tuple_of(start), symprec=1e-9).number == number
        assert relaxation.distance(noisy, start) < 4e-3
    found = pe.relax(noisy, any_potential, fmax=FMAX, cell=False, symprec=1e-2)
    assert spglib.get_symmetry_dataset(tuple_of(found), symprec=1e-9).number == 123


@pytest.mark.usefixtures("emt")
def test_cells_of_phonopy_take_constraints(any_potential: Potential) -> None:
    """What run --relax calls."""
    atoms = alloy(1)
    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell.array, scaled_positions=atoms.get_scaled_positions()
    )
    crystal = Crystal(IN_MEMORY, cell, constraints=(FixAtoms([1, 2]),))
    options = RelaxationOptions(10 * FMAX)
    found = relax_crystal(crystal, any_potential, options, Silent()).unitcell
    moves = found.scaled_positions - cell.scaled_positions
    np.testing.assert_allclose(moves[[1, 2]], 0, atol=1e-12)
    assert np.abs(moves).max() > 1e-3


@pytest.mark.usefixtures("emt")
def test_constraints_of_symmetry_and_cells_of_phonopy(any_potential: Potential) -> None:
    """FixSymmetry is what a relaxation does, and stays; structures need not be ASE's."""
    atoms = bulk("Cu", "fcc", a=3.5)
    atoms.set_constraint(FixSymmetry(atoms))
    found = pe.relax(atoms, any_potential, fmax=FMAX)
    assert [type(each) for each in found.constraints] == [FixSymmetry]
    cell = PhonopyAtoms(symbols=["Cu"], cell=atoms.cell.array, scaled_positions=[[0, 0, 0]])
    again = pe.relax(cell, any_potential, fmax=FMAX)
    np.testing.assert_allclose(again.cell, found.cell.array, atol=1e-12)


def test_other_constraints_are_refused(any_potential: Potential) -> None:
    atoms = alloy(0)
    atoms.set_constraint(Hookean(0, 1, 3.0, rt=2.0))
    with pytest.raises(pe.PhonopyEquivariantError, match=r"Hookean.*set_constraint\(\)"):
        pe.relax(atoms, any_potential)


@pytest.mark.parametrize(
    ("constraint", "name", "kept"),
    [
        (FixAtoms([0, 3]), "POSCAR", True),
        (FixAtoms([0, 3]), "a.extxyz", True),
        (FixAtoms([0, 3]), "a.cif", False),
        (FixScaled([1], [True, False, True]), "a.vasp", True),
        (FixScaled([1], [True, False, True]), "a.extxyz", False),
        (FixCartesian([1], [True, False, True]), "a.extxyz", True),
        (FixCartesian([1], [True, False, True]), "POSCAR", False),
    ],
)
def test_files_keep_constraints_or_are_refused(
    constraint: FixConstraint, name: str, kept: bool, tmp_path: Path
) -> None:
    atoms = alloy(4)
    atoms.set_constraint(constraint)
    path = tmp_path / name
    if not kept:
        with pytest.raises(
            pe.PhonopyEquivariantError, match=f"{name}: .*{type(constraint).__name__}"
        ):
            check_constraints(atoms, path)
        assert not list(tmp_path.iterdir())
        return
    check_constraints(atoms, path)
    write_atoms(atoms, path)
    again = read_atoms(path)
    expected = allowed_motions(atoms, atoms.constraints)
    np.testing.assert_allclose(allowed_motions(again, again.constraints), expected, atol=1e-6)
    assert read_crystal(path).constraints


def test_selective_dynamics_through_the_command(tmp_path: Path) -> None:
    """Digits of the file stay where every flag is F; lines with T move, and flags stay."""
    head = "salt\n1.0\n0 2.8 2.9\n2.8 0 2.8\n2.8 2.8 0\nNa Cl\n1 1\nSelective dynamics\nDirect\n"
    flags = {"fixed": ("F F F", "F F F"), "free": ("F F F", "T F T")}
    for case, (first, second) in flags.items():
        (tmp_path / "POSCAR").write_text(f"{head}0.01 0 0 {first}\n0.52 0.47 0.5 {second}\n")
        words = ("relax", "POSCAR", "-o", f"{case}.vasp", "--fixed-cell", "--model", model())
        command(*words, "--fmax", "0.01", cwd=tmp_path)
        before, after = (ase.io.read(tmp_path / name) for name in ("POSCAR", f"{case}.vasp"))
        moves = after.get_scaled_positions() - before.get_scaled_positions()
        np.testing.assert_allclose(after.cell.array, before.cell.array, atol=1e-14)
        assert (tmp_path / f"{case}.vasp").read_text().split().count("F") == first.count(
            "F"
        ) + second.count("F")
        np.testing.assert_allclose(moves[0], 0, atol=1e-14)
        np.testing.assert_allclose(moves[1, 1], 0, atol=1e-14)
        assert (np.abs(moves[1, [0, 2]]).max() > 1e-3) == (case == "free")
    words = ("relax", "POSCAR", "-o", "a.cif", "-q", "--model", model())
    result = command(*words, cwd=tmp_path, status=1)
    assert_refused(result, "a.cif", "does not keep the constraints", "POSCAR")

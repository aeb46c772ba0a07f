"""``EquivariantCalculator`` keeps the laws of ASE's calculators; ASE's own tests run on it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError, all_properties
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from conftest import assert_close, small_config

import phonopy_equivariant as pe
from phonopy_equivariant.potential import random_potential

PROPERTIES = {"energy", "free_energy", "energies", "forces", "stress"}


@pytest.fixture(scope="module")
def metal() -> pe.Potential:
    """Return a potential of the elements in ASE's tests."""
    config = small_config(species=(1, 28, 29), num_interactions=1, shift=0.0)
    # ASE asks 1e-7 of its differences in every component: with these weights they err by 2e-8
    return random_potential(config, seed=8)


@pytest.fixture
def calculator(metal: pe.Potential) -> pe.EquivariantCalculator:
    return pe.EquivariantCalculator(metal)


@pytest.fixture
def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1)
    return atoms


# --- ASE's own tests, with our calculator in the place of EMT -------------------------------------

BATTERY = [
    ("test_potential_energies", "test_potential_energies"),
    ("test_singlepointcalc", "test_singlepointcalc"),
    ("calculator.test_fd", "test_fd"),
    ("calculator.test_fd", "test_analytical_forces"),
    ("calculator.test_fd", "test_analytical_stress"),
    ("atoms.test_h2", "test_h2"),
    ("test_checkpoint", "test_new_style_interface"),
]


@pytest.mark.parametrize(("module", "name"), BATTERY)
def test_a_test_of_ases(module, name, metal, copper, tmp_path, monkeypatch) -> None:
    tests = pytest.importorskip(f"ase.test.{module}", reason="ASE came without its tests")
    function = getattr(tests, name, None)
    if function is None:
        pytest.skip("this version of ASE has no such test")

    def make(**_: object) -> pe.EquivariantCalculator:
        return pe.EquivariantCalculator(metal)

    for theirs in ("EMT", "LennardJones"):
        if hasattr(tests, theirs):
            monkeypatch.setattr(tests, theirs, make)
    monkeypatch.chdir(tmp_path)
    given = {"atoms": copper, "testdir": None}
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    function(**{key: given[key] for key in names})


# --- the laws -------------------------------------------------------------------------------------


def test_results_are_those_that_ase_knows(calculator, copper) -> None:
    copper.calc = calculator
    copper.get_potential_energy()
    assert set(calculator.results) == set(calculator.implemented_properties) == PROPERTIES
    assert set(all_properties) >= PROPERTIES
    hessian = calculator.get_property("hessian", copper)
    assert hessian.shape == (4, 3, 4, 3)
    assert set(calculator.results) == PROPERTIES
    properties = copper.get_properties(["energy", "forces", "stress", "energies"])
    np.testing.assert_array_equal(properties["forces"], copper.get_forces())


@pytest.mark.parametrize("before", ["nothing", "energy", "hessian"])
def test_a_single_point_calculator_takes_all_results(
    calculator, copper, tmp_path: Path, before: str
) -> None:
    """Also after a Hessian, which no file of ASE's has a place for."""
    copper.calc = calculator
    if before != "nothing":
        calculator.get_property(before, copper)
    forces = copper.get_forces()
    frozen = copper.copy()
    frozen.calc = SinglePointCalculator(frozen, **calculator.results)
    np.testing.assert_array_equal(frozen.get_forces(), forces)
    for name in ("a.traj", "a.extxyz", "a.json"):
        for atoms in (copper, frozen):
            ase.io.write(tmp_path / name, atoms)
            again = ase.io.read(tmp_path / name)
            assert again.get_potential_energy() == pytest.approx(copper.get_potential_energy())
            np.testing.assert_allclose(again.get_forces(), forces, atol=1e-7)  # digits of extxyz
            np.testing.assert_allclose(again.get_stress(), copper.get_stress(), atol=1e-7)
    with connect(tmp_path / "a.db") as database:
        database.write(copper)
        np.testing.assert_allclose(database.get(1).forces, forces)


def test_results_are_reused_until_atoms_change(calculator, copper, monkeypatch) -> None:
    calls = []
    evaluate = type(calculator)._evaluate

    def counted(self: pe.EquivariantCalculator) -> None:
        calls.append(1)
        evaluate(self)

    monkeypatch.setattr(type(calculator), "_evaluate", counted)
    copper.calc = calculator
    assert calculator.calculation_required(copper, ["energy"])
    assert calculator.get_property("forces", copper, allow_calculation=False) is None
    copper.get_potential_energy()
    copper.get_forces()[:] = 0  # a copy: the results stay
    assert np.abs(copper.get_forces()).max() > 0
    copper.get_stress()
    copper.get_potential_energies()
    calculator.get_property("hessian", copper)
    assert not calculator.calculation_required(copper, sorted(PROPERTIES))
    assert len(calls) == 1
    changes = [
        lambda atoms: atoms.positions.__setitem__((0, 0), 0.3),
        lambda atoms: atoms.set_cell(1.01 * atoms.cell),
        lambda atoms: atoms.numbers.__setitem__(1, 28),
        lambda atoms: atoms.set_pbc((True, True, False)),
    ]
    for change in changes:
        energy = copper.get_potential_energy()
        change(copper)
        assert calculator.calculation_required(copper, ["energy"])
        assert calculator.get_property("energy", copper, allow_calculation=False) is None
        assert copper.get_potential_energy() != energy
    assert len(calls) == 5
    copper.set_constraint(FixAtoms([0]))  # no matter of the calculator's
    assert not calculator.calculation_required(copper, ["energy"])


def test_the_hessian_is_that_of_the_atoms_given(calculator, copper) -> None:
    assert calculator.get_property("hessian", copper, allow_calculation=False) is None
    first = calculator.get_property("hessian", copper)
    first[:] = 0  # a copy
    again = calculator.get_property("hessian", copper, allow_calculation=False)
    assert np.abs(again).max() > 0
    moved = copper.copy()
    moved.positions[0, 0] += 0.2
    moved.calc = calculator
    moved.get_potential_energy()  # of other atoms than the Hessian's
    assert calculator.get_property("hessian", moved, allow_calculation=False) is None
    other = calculator.get_property("hessian")  # of the last calculation
    assert np.abs(other - again).max() > 1e-3 * np.abs(again).max()
    step, column = 1e-4, np.zeros((4, 3))
    column[2, 1] = step
    ends = []
    for sign in (1, -1):
        trial = moved.copy()
        trial.positions += sign * column
        ends.append(calculator.get_property("forces", trial))
    np.testing.assert_allclose(
        other[:, :, 2, 1], (ends[1] - ends[0]) / (2 * step), atol=1e-6 * np.abs(other).max()
    )


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_independent(calculator, copper, copied) -> None:
    copper.calc = calculator
    energy = copper.get_potential_energy()
    calculator.get_property("hessian", copper)
    twin = copied(copper)
    assert twin.calc is not calculator
    assert not twin.calc.calculation_required(twin, ["energy", "forces"])
    twin.positions[0] += 0.2
    assert twin.get_potential_energy() != energy
    assert copper.get_potential_energy() == energy
    assert twin.calc.get_property("hessian", twin, allow_calculation=False) is None
    assert not copper.copy().calc


@pytest.mark.parametrize(
    "pbc", [(False, False, False), (True, False, False), (True, True, False), (True, True, True)]
)
def test_every_kind_of_periodicity(calculator, copper, pbc, tmp_path: Path) -> None:
    copper.pbc = pbc
    copper.calc = calculator
    forces = copper.get_forces()
    numerical = calculate_numerical_forces(copper, eps=1e-4, iatoms=[1])
    np.testing.assert_allclose(forces[1], numerical[0], atol=1e-6)
    if all(pbc):
        stress = calculate_numerical_stress(copper, eps=1e-5)
        np.testing.assert_allclose(copper.get_stress(), stress, atol=1e-7)
        # all six differ, or an exchange would not be seen
        assert np.abs(stress[:, None] - stress + np.eye(6)).min() > 1e-5
    else:
        assert set(calculator.results) == PROPERTIES - {"stress"}
        with pytest.raises(PropertyNotImplementedError, match="three periodic directions"):
            copper.get_stress()
        np.testing.assert_array_equal(copper.get_forces(), forces)  # they outlive the refusal
        taller = copper.copy()  # the cell along an open direction says nothing
        taller.set_cell(copper.cell * np.where(pbc, 1, 9)[:, None])
        np.testing.assert_allclose(calculator.get_property("forces", taller), forces, atol=1e-11)
        copper.get_forces()
    ase.io.write(tmp_path / "a.extxyz", copper)
    again = ase.io.read(tmp_path / "a.extxyz")
    assert tuple(again.pbc) == pbc
    np.testing.assert_allclose(again.get_forces(), forces, atol=1e-7)


def test_one_calculator_serves_one_structure_after_the_other(metal, calculator, copper) -> None:
    """Other atoms, another cell, other sizes: never the results or the padding of the last one."""
    larger, strained = copper.repeat((2, 1, 1)), copper.copy()
    strained.set_cell(1.02 * copper.cell, scale_atoms=True)
    kept = None
    for atoms in (larger, copper, strained, molecule("H2"), larger):
        atoms.calc = calculator
        expected = metal.evaluate(atoms)
        assert_close(atoms.get_potential_energy(), expected.energy)
        assert_close(atoms.get_forces(), expected.forces)
        assert ("stress" in calculator.results) == atoms.pbc.all()
        if kept is not None:
            assert_close(*kept)  # a result that was handed out stays as it was
        kept = calculator.results["forces"], expected.forces


def test_what_it_does_not_compute_is_refused_as_ase_expects(calculator) -> None:
    atoms = molecule("H2")
    atoms.calc = calculator
    for name in ("dipole", "charges", "magmoms", "stresses"):
        with pytest.raises(PropertyNotImplementedError):
            calculator.get_property(name, atoms)
    assert atoms.get_potential_energy() == atoms.get_potential_energy(force_consistent=True)

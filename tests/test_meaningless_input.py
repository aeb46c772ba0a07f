"""Input that is no number, or no crystal's: refused before anything is computed, in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from ase.build import bulk
from cli_helpers import assert_refused, command, model, poscar
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.io.build import build_phonon, set_born_charges
from phonopy_equivariant.io.crystals import Crystal, read_crystal
from phonopy_equivariant.phonons.exact import use_exact_dynamical_matrix
from phonopy_equivariant.potential import Potential

ONE = np.eye(3, dtype=int)
CALLS = (pe.set_force_constants, pe.force_constants, use_exact_dynamical_matrix)


def salt(masses: object = None) -> Phonopy:
    atoms = bulk("NaCl", "rocksalt", a=5.7)
    cell = PhonopyAtoms(
        symbols=["Na", "Cl"], cell=atoms.cell.array, positions=atoms.positions, masses=masses
    )
    return Phonopy(cell, ONE, primitive_matrix="P", log_level=0)


@pytest.mark.parametrize("mass", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("call", CALLS)
def test_masses(call: object, mass: float, one_layer: Potential) -> None:
    phonon = salt([23.0, mass])
    with pytest.raises(pe.PhonopyEquivariantError, match=f"mass of atom 2 is {mass:g} amu"):
        call(phonon, one_layer)
    with pytest.raises(pe.PhonopyEquivariantError, match=f"mass of atom 2 is {mass:g} amu"):
        pe.dynamical_matrices(one_layer, phonon.primitive, [[0.0, 0.0, 0.0]])


@pytest.mark.parametrize("mass", [0.0, -1.0, np.nan])
def test_masses_of_a_file(mass: float, tmp_path: Path) -> None:
    crystal = Crystal(tmp_path / "isotope.extxyz", salt([mass, 35.0]).unitcell)
    with pytest.raises(pe.PhonopyEquivariantError, match="isotope.extxyz: The mass of atom 1 is"):
        build_phonon(crystal, ONE)


CHARGES = {
    "a charge": (np.array([np.nan * ONE, -ONE]), 2.5 * ONE, "not a finite number"),
    "an element": (np.array([ONE, -ONE]), np.diag([2.5, np.inf, 2.5]), "not a finite number"),
    "zeros": (np.array([ONE, -ONE]), 0.0 * ONE, "has the eigenvalue 0"),
    "a negative one": (np.array([ONE, -ONE]), np.diag([2.5, 2.5, -1]), "has the eigenvalue -1"),
    "a metal": (np.array([ONE, -ONE]), np.diag([2.5, 2.5, 5e3]), "as of a metal"),
    "three charges": (np.array([ONE, ONE, -2 * ONE]), 2.5 * ONE, "of 3 atoms, .* has 2"),
    "charges of one sign": (np.array([ONE, -0.85 * ONE]), 2.5 * ONE, "sum to zero.* 0.15 e"),
    "another cell": (np.diag([1, 1, 1.5]) * [[[1]], [[-1]]], 2.5 * ONE, "those of another cell"),
}


@pytest.mark.parametrize("name", CHARGES)
def test_born_charges(name: str, one_layer: Potential) -> None:
    born, dielectric, message = CHARGES[name]
    phonon = salt()
    phonon.nac_params = {"born": born, "dielectric": dielectric, "factor": 14.4}
    for call in CALLS[:2]:
        with pytest.raises(pe.PhonopyEquivariantError, match=message):
            call(phonon, one_layer)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0 0 0 0 0 0 0 0", "has the eigenvalue 0"),
        ("nan 0 0 0 2 0 0 0 2", "not a finite number"),
        ("2 0 0 0 2 0 0 0 -3", "has the eigenvalue -3"),
        ("900 0 0 0 900 0 0 0 900", "as of a metal"),
        ("3 0 0 0 3 0 0 0 9", "off the symmetry of this crystal by 4"),
        ("3 1 0 0 3 0 0 0 3", "off the symmetry of this crystal by 1"),
    ],
)
def test_file_of_born_charges(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    charges = "1 0 0 0 1 0 0 0 1\n-1 0 0 0 -1 0 0 0 -1\n"
    (tmp_path / "BORN").write_text(f"14.4\n{line}\n{charges}")
    poscar(tmp_path)
    monkeypatch.chdir(tmp_path)
    crystal = read_crystal("POSCAR")
    with pytest.raises(pe.PhonopyEquivariantError, match=f"BORN: .*{message}.*nac_params=None"):
        set_born_charges(build_phonon(crystal, ONE), crystal)


@pytest.mark.parametrize("factor", ["2.0", "0", "-14.4", "nan"])
def test_charges_in_other_units(
    factor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line of BORN is e²: 2 in Rydberg and Bohr, and LO would be a seventh off TO."""
    charges = "1 0 0 0 1 0 0 0 1\n-1 0 0 0 -1 0 0 0 -1\n"
    poscar(tmp_path)
    monkeypatch.chdir(tmp_path)
    crystal = read_crystal("POSCAR")
    for line, refused in ((factor, True), ("14.4", False), ("default value", False)):
        (tmp_path / "BORN").write_text(f"{line}\n2.5 0 0 0 2.5 0 0 0 2.5\n{charges}")
        phonon = build_phonon(crystal, ONE)
        if refused:
            with pytest.raises(pe.PhonopyEquivariantError, match=r"BORN: .*factor.*14\.3996"):
                set_born_charges(phonon, crystal)
        else:
            assert set_born_charges(phonon, crystal) == "BORN"
            assert abs(phonon.nac_params["factor"] - 14.4) < 1e-3


def test_run_refuses_masses_and_writes_nothing(tmp_path: Path) -> None:
    poscar(tmp_path)
    words = ("run", "POSCAR", "--mass", "0", "35", "--dim", "1", "-q", "--model", model())
    result = command(*words, cwd=tmp_path, status=1)
    assert_refused(result, "POSCAR", "mass of atom 1 is 0 amu", "positive")
    assert [path.name for path in tmp_path.iterdir()] == ["POSCAR"]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "words",
    [
        *("relax POSCAR -o a.vasp --fmax", "relax POSCAR -o a.vasp --tolerance"),
        *("molecule POSCAR --temperature", "molecule POSCAR --pressure", "molecule POSCAR --spin"),
        *("molecule POSCAR --width", "molecule POSCAR --mass", "molecule POSCAR --relax --fmax"),
        *("molecule POSCAR --symmetry-tolerance", "run POSCAR --relax --relax-fmax"),
        "run POSCAR --exact --exact-tolerance",
    ],
)
def test_options_are_finite_numbers(words: str, value: str, tmp_path: Path) -> None:
    result = command(*f"{words}={value}".split(), cwd=tmp_path, status=2)
    assert f"{value} is not a finite number" in result.stderr
    assert not list(tmp_path.iterdir())


def test_thresholds_and_tolerances_in_python(one_layer: Potential) -> None:
    """spglib ends the process on a tolerance of nan."""
    crystal = bulk("NaCl", "rocksalt", a=5.7)
    for value in (np.nan, np.inf, 0.0, -1.0):
        for options in ({"fmax": value}, {"symprec": value}):
            with pytest.raises(pe.PhonopyEquivariantError, match="positive"):
                pe.relax(crystal, one_layer, **options)
        with pytest.raises(pe.PhonopyEquivariantError, match="positive"):
            use_exact_dynamical_matrix(salt(), one_layer, tolerance=value)


def test_run_refuses_masses_before_it_relaxes(tmp_path: Path) -> None:
    """Too many masses, and Born charges without meaning: the primitive cell is known at once."""
    poscar(tmp_path)
    words = ("run", "POSCAR", "--relax", "--dim", "1", "--model", model())
    result = command(*words, "--mass", "1", "2", "3", cwd=tmp_path, status=1)
    assert_refused(result, "--mass: the primitive cell has 2 atoms")
    (tmp_path / "BORN").write_text("14.4\n0 0 0 0 0 0 0 0 0\n1 0 0 0 1 0 0 0 1\n")
    charged = command(*words, cwd=tmp_path, status=1)
    assert_refused(charged, "BORN")
    assert "Relaxing" not in result.stderr + charged.stderr


def test_force_constants_that_are_no_numbers(one_layer: Potential) -> None:
    """Weights that overflow give NaN; no residual would say so."""
    leaves, tree = jax.tree.flatten(one_layer.params)
    broken = [np.full_like(leaf, np.nan) for leaf in leaves]
    wrong = dataclasses.replace(one_layer, params=jax.tree.unflatten(tree, broken))
    for call in (pe.set_force_constants, use_exact_dynamical_matrix):
        with pytest.raises(pe.PhonopyEquivariantError, match="not finite numbers"):
            call(salt(), wrong)
    with pytest.raises(pe.PhonopyEquivariantError, match="not finite numbers"):
        pe.force_constants(salt(), wrong, method="autodiff")

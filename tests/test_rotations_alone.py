"""Potentials without parity: only proper operations of a crystal may relate force constants."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal as ase_crystal
from nequip_variants import variant
from phonopy import Phonopy

import phonopy_equivariant as pe
from phonopy_equivariant.cli import run_command
from phonopy_equivariant.phonons.cells import phonopy_operations
from phonopy_equivariant.phonons.conductivity import read_conductivity
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.structure import as_structure, to_phonopy
from phonopy_equivariant.workflows.run import _symmetry_options

CRYSTALS = {
    "rock salt": (bulk("NaCl", "rocksalt", a=4.6), [2, 2, 2]),
    "zincblende": (bulk("NaCl", "zincblende", a=4.9), [2, 2, 2]),
    # operations relate its two atoms, half of them improper ones
    "diamond": (bulk("Na", "diamond", a=5.2), [2, 2, 2]),
    # right-handed: all operations are proper
    "quartz": (
        ase_crystal(
            ["Na", "O"],
            [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.2144)],
            spacegroup=152,
            cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
        ),
        [1, 1, 1],
    ),
}


@pytest.fixture(scope="module")
def potential() -> Potential:
    return variant("rotations alone", biases=False, skips=())


def phonon_of(name: str) -> Phonopy:
    atoms, matrix = CRYSTALS[name]
    return Phonopy(to_phonopy(as_structure(atoms)), supercell_matrix=matrix, primitive_matrix="P")


@pytest.mark.parametrize("name", CRYSTALS)
def test_bloch_response_equals_automatic_differentiation(name: str, potential: Potential) -> None:
    phonon = phonon_of(name)
    expected = pe.force_constants(phonon, potential, method="autodiff")
    result = pe.force_constants(phonon, potential)
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-9)
    report = pe.set_force_constants(phonon, potential)
    found = phonopy_operations(phonon)
    proper = int((np.linalg.det(found.cartesian) > 0).sum())
    assert report.symmetry.used == proper == {"quartz": 6}.get(name, len(found.rotations) // 2)


@pytest.mark.parametrize("name", ["rock salt", "zincblende", "diamond"])
def test_improper_operations_would_give_other_force_constants(
    name: str, potential: Potential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The law above would mean nothing for a potential that happens to obey them."""
    right = pe.force_constants(phonon_of(name), potential)
    monkeypatch.setattr(Potential, "parity", True)
    wrong = pe.force_constants(phonon_of(name), potential)
    assert np.abs(wrong - right).max() > 1e-4


def test_the_report_says_how_far_reflections_are_broken(potential: Potential) -> None:
    reports = {name: pe.set_force_constants(phonon_of(name), potential) for name in CRYSTALS}
    assert reports["quartz"].symmetry.reflections is None
    for name in ("rock salt", "zincblende", "diamond"):
        symmetry = reports[name].symmetry
        assert symmetry.reflections > 1e-6
        assert f"breaks improper ones by {symmetry.reflections:.1e} eV/Å²" in "\n".join(
            reports[name].lines()
        )
    # with inversion, time reversal makes of every improper operation a proper one
    assert [reports[name].symmetry.breaks_mesh for name in CRYSTALS] == [
        False,
        True,
        False,
        False,
    ]
    assert _symmetry_options(reports["zincblende"].symmetry) == ["--nosym"]
    assert _symmetry_options(reports["rock salt"].symmetry) == []
    exact = pe.use_exact_dynamical_matrix(phonon_of("zincblende"), potential, tolerance=0.5)
    assert exact.symmetry.reflections > 1e-6 and exact.symmetry.used == 12


def test_a_potential_with_parity_breaks_nothing() -> None:
    potential = variant("numbers of species", pair_repulsion=False)
    assert potential.parity
    symmetry = pe.set_force_constants(phonon_of("zincblende"), potential).symmetry
    assert symmetry.reflections is None and not symmetry.breaks_mesh
    assert symmetry.used == symmetry.operations == 24


def test_relaxation_keeps_the_proper_operations(potential: Potential) -> None:
    """Forces on a crystal with mirrors need not obey them; rotations they obey."""
    atoms = CRYSTALS["zincblende"][0]
    relaxed = pe.relax(atoms, potential, fmax=1e-2, cell=True, max_steps=200)
    ratio = relaxed.cell.lengths() / atoms.cell.lengths()
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


@pytest.mark.parametrize("name", ["rock salt", "zincblende"])
def test_phono3py_is_told_of_reflections(
    name: str,
    potential: Potential,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("phono3py", reason="phono3py is not installed")
    monkeypatch.chdir(tmp_path)
    pe.save_checkpoint(potential, "model.npz")
    CRYSTALS[name][0].write("POSCAR", format="vasp")
    words = ["POSCAR", "--model", "model.npz", "--dim", "2"]
    broken = name == "zincblende"
    assert run_command(["fc3", *words]) == 0
    after = ", with --nosym --nomeshsym." if broken else "."
    assert f"fc3.hdf5, fc2.hdf5{after}\n" in capsys.readouterr().err
    assert run_command(["kappa", *words, "--mesh", "3", "3", "3", "--ts", "300"]) == 0
    after = " --nosym --nomeshsym." if broken else "."
    assert f"goes on with them{after}\n" in capsys.readouterr().err
    assert (len(read_conductivity(Path("kappa-m333.hdf5")).weights) == 27) == broken


@pytest.mark.parametrize(("name", "reduced"), [("rock salt", True), ("zincblende", False)])
def test_phono3pys_mesh_is_reduced_by_no_reflection(
    name: str, reduced: bool, potential: Potential
) -> None:
    pytest.importorskip("phono3py", reason="phono3py is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # residual stress
        result = pe.thermal_conductivity(
            CRYSTALS[name][0], potential, 2, mesh=[3, 3, 3], temperatures=[300.0]
        )
    assert result.weights.sum() == 27
    assert (len(result.weights) < 27) == reduced
    # the rotations of the point group alone make κ isotropic
    kappa = result.kappa[0]
    np.testing.assert_allclose(kappa, [kappa[0]] * 3 + [0] * 3, atol=2e-3 * kappa[0])

"""phono3py with analytic force constants, beside its own finite displacements."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path

import cli_helpers
import numpy as np
import pytest
from ase.build import bulk
from cli_helpers import command
from conftest import assert_close, small_config
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints.native import save_checkpoint
from phonopy_equivariant.io import third_order
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.structure import as_structure, to_phonopy

phono3py = pytest.importorskip("phono3py", reason="phono3py is not installed")


@pytest.fixture(scope="module")
def potential() -> Potential:
    return random_potential(small_config(num_interactions=1, scale=20.0), seed=3)


def rock_salt(**options: object) -> phono3py.Phono3py:
    atoms = bulk("NaCl", "rocksalt", a=5.0)
    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
    )
    return phono3py.Phono3py(cell, supercell_matrix=[2, 2, 2], primitive_matrix="P", **options)


@pytest.mark.parametrize(("prototype", "lattice"), [("rocksalt", 5.6), ("zincblende", 5.2)])
def test_finite_displacements_converge_to_it(prototype: str, lattice: float) -> None:
    """Force constants and κ: differences fall with the square of the step, by 3².

    Displacements go both ways. By default phono3py leaves out opposite ones, and what is left falls
    with the step only.
    """
    potential = cli_helpers.potential()
    cell = to_phonopy(as_structure(bulk("NaCl", prototype, a=lattice)))

    def crystal() -> phono3py.Phono3py:
        return phono3py.Phono3py(cell, supercell_matrix=[2, 2, 2], primitive_matrix="P")

    def conductivity(fc3: np.ndarray) -> float:
        analytic.fc3, analytic.mesh_numbers = fc3, [3, 3, 3]
        analytic.init_phph_interaction()
        analytic.run_thermal_conductivity(temperatures=[300.0], log_level=0)
        return float(analytic.thermal_conductivity.kappa[0, 0, 0])

    analytic = crystal()
    pe.set_third_order_force_constants(analytic, potential)
    fc3 = analytic.fc3
    expected = conductivity(fc3)
    deviations = []
    for distance in (0.009, 0.003):
        displaced = crystal()
        displaced.generate_displacements(distance=distance, is_plusminus=True)
        cells = [each for each in displaced.supercells_with_displacements if each is not None]
        displaced.forces = pe.PhonopyMLP(potential).evaluate(cells)[1]
        displaced.produce_fc3(is_compact_fc=True)
        change = np.abs(displaced.fc3 - fc3).max() / np.abs(fc3).max()
        deviations.append([change, abs(conductivity(displaced.fc3) / expected - 1)])
    far, near = deviations
    assert 1e-5 < far[0] < 0.1 and 1e-5 < far[1] < 0.1
    # the fourth power of the step is left, and the square of the change in κ
    np.testing.assert_allclose(np.divide(far, near), 9, rtol=0.05)


def test_supercells_of_both_orders_apart(potential: Potential) -> None:
    crystal = rock_salt(phonon_supercell_matrix=[3, 3, 3])
    report = pe.set_third_order_force_constants(crystal, potential)
    assert crystal.fc3.shape == (2, 16, 16, 3, 3, 3)
    assert crystal.fc2.shape == (2, 54, 3, 3)
    assert (report.triplets, report.symmetry.used) == (64, 48)
    assert report.irreducible < 10
    assert max(report.sum_rule, report.permutation) < 1e-12 * report.largest
    assert_close(crystal.fc3, pe.third_order_force_constants(rock_salt(), potential))


def test_other_objects_are_refused(potential: Potential) -> None:
    with pytest.raises(pe.PhonopyEquivariantError, match="Phono3py object, got int"):
        pe.third_order_force_constants(3, potential)


def test_command_writes_what_phono3py_reads(potential: Potential, tmp_path: Path) -> None:
    """From phono3py_disp.yaml, with the supercells of the file; phono3py loads the same numbers."""
    crystal = rock_salt(phonon_supercell_matrix=[1, 2, 1])
    crystal.generate_displacements()
    crystal.save(tmp_path / "phono3py_disp.yaml")
    checkpoint = save_checkpoint(potential, tmp_path / "small.npz")
    words = ("fc3", "phono3py_disp.yaml", "--model", checkpoint)
    result = command(*words, cwd=tmp_path)
    assert "phono3py goes on from phono3py_params.yaml, fc3.hdf5, fc2.hdf5." in result.stderr
    assert "of 64" in result.stdout  # triplets
    with contextlib.chdir(tmp_path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of phono3py: the supercell breaks the point group
        loaded = phono3py.load("phono3py_params.yaml", log_level=0)
    pe.set_third_order_force_constants(crystal, potential)
    assert_close(loaded.fc3, crystal.fc3, 1e-12)
    assert_close(loaded.fc2, crystal.fc2, 1e-12)
    command(*words, cwd=tmp_path)  # its own files may be replaced
    (tmp_path / "phono3py_params.yaml").unlink()
    refused = command(*words, cwd=tmp_path, status=1)
    assert "fc3.hdf5 exists and may be of another program" in refused.stderr


def test_bad_input_is_one_line(
    potential: Potential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_checkpoint(potential, tmp_path / "small.npz")
    bulk("NaCl", "rocksalt", a=5.0).write(tmp_path / "POSCAR", format="vasp")
    words = ("fc3", "POSCAR", "--model", checkpoint)
    cases = [
        (words, "need a supercell; give --dim 2 2 2"),
        ((*words, "--dim", "8"), "Third-order force constants of 1024 atoms need at least"),
    ]
    monkeypatch.setattr(third_order, "available_memory", lambda: 2**30)
    for arguments, text in cases:
        result = command(*arguments, cwd=tmp_path, status=1)
        assert text in result.stderr
    monkeypatch.setitem(sys.modules, "phono3py", None)
    result = command(*words, cwd=tmp_path, status=1)
    assert "phono3py is not installed; pip install 'phono3py" in result.stderr

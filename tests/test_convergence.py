"""Growing meshes and supercells: the exact D(q) is the limit, and what suffices does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.build import bulk
from cli_helpers import LATTICE, assert_refused, command, model, poscar, potential
from phonopy.physical_units import get_physical_units

import phonopy_equivariant as pe
from phonopy_equivariant.phonons.convergence import Convergence, Step, ThermalState


@pytest.fixture(scope="module")
def crystal() -> object:
    return pe.relax(bulk("NaCl", "rocksalt", a=LATTICE), potential())


@pytest.fixture(scope="module")
def result(crystal: object) -> pe.Convergence:
    return pe.converge(crystal, potential(), tolerance=3e-3)  # type: ignore[arg-type]


def test_the_exact_limit_is_reached(result: pe.Convergence, crystal: object) -> None:
    """A supercell wider than the range of force constants, by phonopy alone: the exact numbers."""
    assert result.mesh is not None and result.supercell is not None
    mesh = result.meshes[-1].mesh
    phonon = pe.phonons(crystal, potential(), supercell=8)  # type: ignore[arg-type]
    assert 8 * LATTICE / np.sqrt(2) * 1.2 > 2 * 16  # Å
    phonon.run_mesh(mesh, is_gamma_center=True)
    thermal = phonon.run_thermal_properties(temperatures=[300], exclude_gamma_acoustic=True)
    state = result.meshes[-1].state
    molar = get_physical_units().EvTokJmol
    assert state.free_energy * molar == pytest.approx(thermal.free_energy[0], abs=2e-3)
    assert state.entropy * molar * 1000 == pytest.approx(thermal.entropy[0], abs=2e-2)
    assert state.heat_capacity * molar * 1000 == pytest.approx(thermal.heat_capacity[0], abs=2e-3)


def test_steps_grow_and_stop_at_the_first_that_suffices(result: pe.Convergence) -> None:
    counts = [np.prod(step.mesh) for step in result.meshes]
    atoms = [step.atoms for step in result.supercells]
    assert counts == sorted(set(counts)) and atoms == sorted(set(atoms))
    *before, last = result.supercells
    assert last.change is not None and last.change <= result.tolerance
    assert all(step.change is not None and step.change > result.tolerance for step in before)
    assert result.supercell is last and result.mesh == result.meshes[-2].mesh


def test_changes_are_in_units_of_a_classical_crystal() -> None:
    classical = 3 * 2 * get_physical_units().KB
    first = ThermalState(1.0, 0.0, 0.0, 5.0)
    assert first.change(first, 300.0, 2) == 0
    assert first._replace(free_energy=1.0 + 0.01 * classical * 300).change(
        first, 300.0, 2
    ) == pytest.approx(0.01)
    assert first._replace(entropy=-0.02 * classical).change(first, 300.0, 2) == pytest.approx(0.02)
    assert first._replace(highest=5.2).change(first, 300.0, 2) == pytest.approx(0.04)


def test_what_does_not_suffice_is_said(crystal: object) -> None:
    with pytest.warns(UserWarning, match="no supercell of up to max_atoms=16 suffices"):
        small = pe.converge(
            crystal,  # type: ignore[arg-type]
            potential(),
            tolerance=1e-4,
            max_atoms=16,
        )
    assert small.supercell is None and "no supercell" in small.heading()
    step = Step("", 0, (2, 2, 2), ThermalState(0, 0, 0, 1), None)
    assert Convergence("m", 300.0, 1e-3, (step,), ()).mesh is None


def test_the_command(tmp_path: Path) -> None:
    poscar(tmp_path)
    words = ("converge", "POSCAR", "--model", model(), "--relax")
    result = command(*words, "--tolerance", 0.01, cwd=tmp_path)
    assert "exact" in result.stdout and "Within 0.01 of 3NkT" in result.stdout
    content = yaml.safe_load((tmp_path / "converge" / "converge.yaml").read_text())
    assert content["sufficient_supercell"] and len(content["sufficient_mesh"]) == 3
    assert (tmp_path / "converge" / "converge.pdf").stat().st_size > 1000
    refused = command(*words, "--tolerance", 2, cwd=tmp_path, status=1)
    assert_refused(refused, "--tolerance 2", "between 0 and 1")


def test_imaginary_modes_are_said() -> None:
    stretched = bulk("NaCl", "rocksalt", a=1.2 * LATTICE)
    with pytest.warns(UserWarning) as remarks:
        pe.converge(stretched, potential(), tolerance=0.5)
    assert any("the crystal has imaginary modes, down to -" in str(x.message) for x in remarks)
    with pytest.raises(pe.PhonopyEquivariantError, match="max_atoms=0: give a positive number"):
        pe.converge(stretched, potential(), max_atoms=0)

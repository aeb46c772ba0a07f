"""Self-consistent phonons: harmonic toys, batches of forces, going on, the command."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import phonopy
import pytest
import yaml
from ase.build import bulk
from cli_helpers import LATTICE, assert_refused, command, model, poscar, potential
from phonopy import Phonopy
from phonopy.harmonic.force_constants import compact_fc_to_full_fc
from phonopy.physical_units import get_physical_units
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.phonons import sscha as step
from phonopy_equivariant.phonons.sscha import Iteration, SelfConsistent
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.workflows.options import SSCHAOptions
from phonopy_equivariant.workflows.progress import Silent
from phonopy_equivariant.workflows.sscha import self_consistent

SALT = bulk("NaCl", "rocksalt", a=LATTICE)
TEMPERATURE = 250.0


class Springs:
    """Forces of a crystal that is harmonic, with an optional quartic term for each atom."""

    def __init__(self, phonon: Phonopy, quartic: float = 0.0):
        self.rest = phonon.supercell.positions
        self.full = compact_fc_to_full_fc(phonon.primitive, np.asarray(phonon.force_constants))
        self.quartic = quartic

    def evaluate(self, supercells: Sequence[PhonopyAtoms]) -> tuple[Any, Any, Any]:
        cell = supercells[0].cell
        moves = np.array([each.positions for each in supercells]) - self.rest
        moves -= np.rint(moves @ np.linalg.inv(cell)) @ cell
        forces = -np.einsum("ijab,njb->nia", self.full, moves)
        energies = -0.5 * (forces * moves).sum(axis=(1, 2))
        squares = (moves**2).sum(axis=2)
        energies = energies + self.quartic * (squares**2).sum(axis=1)
        forces = forces - 4 * self.quartic * squares[..., None] * moves
        return energies, forces, np.zeros((len(supercells), 6))


@pytest.fixture(scope="module")
def phonon() -> Phonopy:
    return pe.phonons(SALT, potential(), supercell=2, relax=True)


def options(**changes: Any) -> SSCHAOptions:
    return dataclasses.replace(
        SSCHAOptions(snapshots=20, iterations=4, mesh=(5, 5, 5), seed=3), **changes
    )


def test_a_harmonic_crystal_keeps_its_force_constants_and_free_energy(phonon: Phonopy) -> None:
    springs = Springs(phonon)
    disturbed = phonon.replicate()
    disturbed.force_constants = 1.3 * np.asarray(phonon.force_constants)  # it has to find back
    run = self_consistent(disturbed, springs, TEMPERATURE, options(), Silent())
    np.testing.assert_allclose(run.force_constants, phonon.force_constants, atol=1e-8)
    phonon.run_mesh((5, 5, 5))
    thermal = phonon.run_thermal_properties(temperatures=[TEMPERATURE], exclude_gamma_acoustic=True)
    expected = thermal.free_energy[0] / get_physical_units().EvTokJmol
    assert run.free_energy == pytest.approx(expected, abs=1e-9)
    assert run.free_energy_error < 1e-9 and run.converged
    # the first step is of the force constants it was given: another free energy, a higher one
    assert run.iterations[0].free_energy > expected + 3 * run.iterations[0].error


def test_quartic_springs_harden_with_temperature(phonon: Phonopy) -> None:
    springs = Springs(phonon, quartic=2.0)
    lowest = [
        self_consistent(phonon, springs, temperature, options(), Silent()).lowest
        for temperature in (50.0, 300.0, 600.0)
    ]
    assert lowest[0] < lowest[1] < lowest[2]


def test_imaginary_modes_that_remain_are_said(phonon: Phonopy) -> None:
    """Inverted springs that weak quartic terms do not hold at 50 K."""
    springs = Springs(phonon, quartic=0.01)
    springs.full = -0.1 * springs.full
    with pytest.warns(UserWarning, match=r"imaginary modes remain at 50 K.*is unstable"):
        run = self_consistent(phonon, springs, 50.0, options(iterations=2), Silent())
    assert run.lowest < -0.05


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:the free energy",  # six iterations are few
    "ignore:.*Point group symmetries of supercell:UserWarning",
    "ignore:the supercell does not suffice",
)
def test_statistical_errors_are_honest() -> None:
    """Free energies of ten seeds spread as their errors say: χ² of nine degrees of freedom."""
    phonon = pe.phonons(SALT, potential(), supercell=(1, 1, 2), relax=True)
    springs = Springs(phonon, quartic=2.0)
    runs = [
        self_consistent(phonon, springs, 300.0, options(seed=seed, iterations=6), Silent())
        for seed in range(10)
    ]
    energies = np.array([run.free_energy for run in runs])
    errors = np.array([run.free_energy_error for run in runs])
    chi_square = ((energies - energies.mean()) ** 2 / errors**2).sum()
    assert 1.7 < chi_square < 23.6  # 0.5 % of the distribution on either side


def test_seeds_decide(phonon: Phonopy) -> None:
    springs = Springs(phonon, quartic=2.0)
    runs = [
        self_consistent(phonon, springs, 300.0, options(seed=seed, iterations=2), Silent())
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0].force_constants, runs[1].force_constants)
    assert abs(runs[0].free_energy - runs[2].free_energy) > 1e-7


def test_the_first_step_is_phonopys(phonon: Phonopy, one_layer: Potential) -> None:
    """phonopy's class with our forces, run by hand with the same random numbers."""
    seed = (5, 0)
    found, matrix = step.next_iteration(
        phonon, pe.PhonopyMLP(one_layer), 300.0, 10, seed, (5, 5, 5)
    )
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    by_hand = step.MLPSSCHA(
        phonon,
        pe.PhonopyMLP(one_layer),  # type: ignore[arg-type]
        temperature=300.0,
        number_of_snapshots=10,
        max_iterations=1,
        mesh=(5, 5, 5),
        random_seed=number,
    ).run()
    assert found.free_energy == by_hand.free_energy
    rows = phonon.primitive.p2s_map
    np.testing.assert_allclose(matrix, by_hand.force_constants[rows], atol=1e-12)


def test_a_batch_is_the_cells_one_by_one(one_layer: Potential) -> None:
    """Energies, forces and stresses, whatever stands beside a structure in its batch."""
    rng = np.random.default_rng(4)
    cells = []
    for _ in range(5):
        atoms = SALT.repeat((2, 1, 1))
        atoms.positions += rng.normal(0, 0.1, (4, 3))
        cells.append(atoms)
    for one, cell in zip(one_layer.evaluate_many(cells), cells, strict=True):
        alone = one_layer.evaluate(cell)
        for field in ("energy", "energies", "forces", "stress", "features"):
            np.testing.assert_allclose(getattr(one, field), getattr(alone, field), atol=1e-11)
    assert one_layer.evaluate_many([]) == []


def test_batches_of_unequal_count(one_layer: Potential, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five cells by two: the last batch is filled up, and the filling is dropped."""
    cells = [SALT.repeat((n, 1, 1)) for n in (1, 2, 1, 2, 1)]
    edges = int(one_layer.graph(cells[1]).n_edge[0])
    monkeypatch.setattr("phonopy_equivariant.potential._BATCH_EDGES", 2 * edges)
    energies = [one.energy for one in one_layer.evaluate_many(cells)]
    np.testing.assert_allclose(energies, [one_layer.evaluate(c).energy for c in cells])


def test_the_mean_is_over_the_second_half(phonon: Phonopy) -> None:
    """And its error is the larger one of two estimates; a drift is seen."""
    values = [9.0, 9.0, 9.0, 1.0, 1.2, 0.8]
    steps = tuple(Iteration(value, 0.01, 0.0, 0.0, 1.0) for value in values)
    run = SelfConsistent(1.0, 2, 0, 1.0, steps, np.zeros((1, 1, 3, 3)), phonon)
    assert run.free_energy == pytest.approx(1.0)
    assert run.free_energy_error == pytest.approx(0.2 / np.sqrt(3))
    drifting = tuple(Iteration(float(value), 0.01, 0.0, 0.0, 1.0) for value in range(8))
    assert dataclasses.replace(run, iterations=drifting).converged is False
    swinging = tuple(Iteration(1.0, 0.01, 0.0, 0.0, lowest) for lowest in (1.0, 1.0, -2.0, 3.0))
    remarks = dataclasses.replace(run, iterations=swinging, phonon=phonon).remarks()
    assert len(remarks) == 1 and "come and go" in remarks[0]
    still = tuple(Iteration(1.0, 0.01, 0.0, 0.0, 1.0) for _ in range(8))
    assert dataclasses.replace(run, iterations=still).converged is True


def test_the_command_goes_on_where_it_ended(tmp_path: Path) -> None:
    poscar(tmp_path)
    words = ["sscha", "POSCAR", "--model", model(), "--relax", "--dim", 2, "--mesh", 5, 5, 5]
    words += ["--temperature", 300, "--snapshots", 10]
    command(*words, "--iterations", 3, "-o", "whole", cwd=tmp_path)
    command(*words, "--iterations", 1, "-o", "parts", cwd=tmp_path)
    result = command(*words, "--iterations", 3, "-o", "parts", cwd=tmp_path)
    assert "1 iterations are in" in result.stderr and "LOWEST (THz)" in result.stdout
    contents = [
        yaml.safe_load((tmp_path / folder / "sscha.yaml").read_text())
        for folder in ("whole", "parts")
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]["temperatures"][0]["iterations"]) == 3
    # phonopy goes on from the file
    loaded = phonopy.load(tmp_path / "whole" / "phonopy_params-300K.yaml", log_level=0)
    lowest = step.lowest_frequency(loaded)
    assert lowest == pytest.approx(contents[0]["temperatures"][0]["lowest_frequency"], abs=1e-5)
    refused = command(*words, "-q", "--seed", 1, "-o", "parts", cwd=tmp_path, status=1)
    assert "is of another calculation (--seed 0); take --restart" in refused.stderr
    command(*words, "--seed", 1, "--iterations", 1, "--restart", "-o", "parts", cwd=tmp_path)


def test_meaningless_options_are_refused(tmp_path: Path) -> None:
    poscar(tmp_path)
    words = ("sscha", "POSCAR", "--model", model())
    for option, value, phrase in (
        ("--temperature", -5, "temperatures in K"),
        ("--snapshots", 1, "at least two"),
        ("--seed", -1, "whole number from 0"),
    ):
        refused = command(*words, option, value, cwd=tmp_path, status=1)
        assert_refused(refused, f"{option} {value}", phrase)

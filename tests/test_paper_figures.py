"""What the programs of the figures in examples/paper compute, on small cases."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet

import phonopy_equivariant as pe
from phonopy_equivariant.data import ForceConstantsData, Record, write_records
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.structure import Structure, as_structure, masses_of

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples" / "paper"))

import dynamics  # noqa: E402
import ethanol_sets  # noqa: E402
import figure_2  # noqa: E402
import figure_3  # noqa: E402
import trainings  # noqa: E402


@pytest.fixture(scope="module")
def potential() -> Potential:
    config = pe.NequIPConfig(
        species=(1, 8), cutoff=3.0, num_interactions=1, hidden_irreps="2x0e+2x1o", l_max=1
    )
    return random_potential(config, seed=3)


def water(stretch: float = 1.0) -> Structure:
    atoms = molecule("H2O")
    atoms.positions *= stretch
    return as_structure(atoms)


def test_runs_without_friction_are_those_of_ase(
    potential: Potential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two molecules at once against ASE's velocity Verlet, one after the other."""
    monkeypatch.setattr(dynamics, "CHUNK", 5)
    structures = [water(), water(1.05)]
    molecules = dynamics.assemble(potential, [("NVE", structure) for structure in structures])
    start = dynamics.begin(potential, molecules, seed=0)
    end, energies = dynamics.advance(potential.model, potential.params, molecules, start)
    for k, structure in enumerate(structures):
        masses = masses_of(structure)
        atoms = Atoms(structure.numbers, structure.positions, masses=masses)
        atoms.calc = pe.EquivariantCalculator(potential)
        atoms.set_velocities(np.asarray(start.velocities)[3 * k : 3 * k + 3])
        assert np.abs(atoms.get_momenta().sum(0)).max() < 1e-12
        VelocityVerlet(atoms, dynamics.TIME_STEP * units.fs).run(5)
        # rounding of float64, in another order of sums
        np.testing.assert_allclose(
            np.asarray(end.positions)[3 * k : 3 * k + 3], atoms.positions, atol=1e-10
        )
        kinetic, total = np.asarray(energies)[:, k]
        assert kinetic == pytest.approx(atoms.get_kinetic_energy(), abs=1e-9)
        assert total == pytest.approx(atoms.get_total_energy(), abs=1e-9)


def test_a_run_stands_still_when_a_bond_breaks(
    potential: Potential, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without forces an atom of a known velocity leaves at a known step; the other run goes on."""
    monkeypatch.setattr(dynamics, "CHUNK", 7)
    molecules = dynamics.assemble(potential, [("NVE", water()), ("NVE", water())])
    free = {name: np.zeros_like(leaf) for name, leaf in _leaves(potential.params)}
    assert len(molecules.bonds) == 4  # two of each
    start = dynamics.begin(potential, molecules, seed=0)
    bond = molecules.bonds[0]
    positions = np.asarray(start.positions)
    along = positions[bond[1]] - positions[bond[0]]
    along /= np.linalg.norm(along)
    velocities = np.zeros_like(positions)
    # 0.5 Å in 3.3 steps
    velocities[bond[1]] = along * dynamics.BROKEN / (3.3 * dynamics.TIME_STEP * units.fs)
    forces = np.zeros_like(positions)
    start = start._replace(velocities=velocities, forces=forces)
    params = _unflattened(potential.params, free)
    end, _ = dynamics.advance(potential.model, params, molecules, start)
    assert np.asarray(end.broken)[:2].tolist() == [4, -1]
    moved = np.linalg.norm(np.asarray(end.positions) - positions, axis=1)
    assert moved[bond[1]] == pytest.approx(3 / 3.3 * dynamics.BROKEN, rel=1e-9)
    assert moved[3:6].max() == 0


def _leaves(params: dict) -> list[tuple[str, np.ndarray]]:
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(params)
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]


def _unflattened(params: dict, values: dict[str, np.ndarray]) -> dict:
    import jax

    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: values[jax.tree_util.keystr(path)], params
    )


def test_outcomes_are_those_of_known_energies() -> None:
    """A drift of 3 meV/ps of three atoms, at 300 K, that breaks after 2 ps."""
    chunk = dynamics.TIME_STEP * dynamics.CHUNK / 1000
    times = chunk * np.arange(1, round(2 / chunk) + 1)
    kinetic = np.full(len(times), 0.5 * 6 * units.kB * 300)  # 9 degrees of freedom less 3
    steps = round(2000 / dynamics.TIME_STEP)
    of_run = dynamics.outcome("NVE", steps, kinetic, 0.003 * times - 7, 3)
    assert of_run.broken == of_run.picoseconds == 2.0
    assert of_run.drift == pytest.approx(1.0, rel=1e-9)
    assert of_run.temperature == pytest.approx(300, rel=1e-12)


def test_factor_of_power_laws() -> None:
    """Errors of n^-½: training with Hessians that is as good as five times as many gives 5."""
    without = {n: [(n / 3) ** -0.5] for n in (1, 2, 4, 8, 16, 32)}
    curves = {"forces": without, "columns": {n: [(5 * n / 3) ** -0.5] for n in (1, 2, 4, 8, 16)}}
    factors = figure_3.factors(curves)
    assert [factors[n][0] for n in (1, 2, 4)] == pytest.approx([5, 5, 5])
    assert factors[8] == factors[16] == [np.inf]  # 40 and 80 configurations are not there


def test_sets_are_taken_as_far_as_they_are_there(tmp_path: Path) -> None:
    for name in ("train_00", "train_02", "validation_000", "around_0.01_00", "around_0.01_01"):
        write_records([Record(water(), energy=float(len(name)))], tmp_path / f"{name}.extxyz")
    write_records([Record(water())] * 7, tmp_path / "sampling_validation.extxyz")
    assert len(ethanol_sets.records_of(tmp_path, "train")) == 2
    assert {s: len(r) for s, r in ethanol_sets.around(tmp_path).items()} == {0.01: 2}
    assert len(ethanol_sets.starts(tmp_path, 5)) == 5
    count = len(ethanol_sets.SIGMAS) * ethanol_sets.COPIES
    whole = [Record(water(), energy=float(k)) for k in range(count)]
    write_records(whole, tmp_path / "ethanol_around.extxyz.xz")
    of_last = ethanol_sets.around(tmp_path)[ethanol_sets.SIGMAS[-1]]
    assert [record.energy for record in of_last] == list(range(count - 20, count))


def test_sets_of_figure_2_count_by_relative_errors(tmp_path: Path) -> None:
    """Labels times two: a quarter of the weight, whatever they are."""
    values = np.random.default_rng(0).normal(size=(2, 6, 6)) + 0j
    qpoints = np.array([[0.0, 0, 0], [0.5, 0, 0]])
    structure = Structure(np.array([14, 14]), np.eye(3)[:2], 9.0 * np.eye(3), np.ones(3, bool))
    second = [Record(structure, force_constants=ForceConstantsData(qpoints, values))]
    expected = np.mean([np.linalg.norm(value) ** 2 / 2 for value in values])
    assert figure_2.mean_square(second) == pytest.approx(expected)
    forces = [Record(structure, forces=scale * np.ones((2, 3))) for scale in (1.0, 3.0)]
    assert figure_2.mean_square(forces) == pytest.approx(3 * (1 + 9) / 2)


def test_errors_are_means_over_the_crystals_left_out(tmp_path: Path) -> None:
    """One error for each seed, also of crystals that have one for each crystal left out."""
    first, second, third = figure_2.CRYSTALS
    names = (*figure_2.CRYSTALS, *figure_2.NEVER, *figure_2.PBE)
    for crystal, seed, error in ((first, 0, 1.0), (second, 0, 3.0), (first, 1, 5.0)):
        which = figure_2.Trained("phi", crystal, seed)
        (tmp_path / which.name).mkdir()
        (tmp_path / which.name / trainings.SPEED).write_text("{}")
        table = {name: {"D(q)": error} for name in names}
        (tmp_path / f"{which.name}.json").write_text(json.dumps(table))
    of_phi = figure_2.collected(tmp_path, tmp_path, "D(q)")["phi"]
    assert of_phi["MgO"] == [2.0, 5.0]
    assert of_phi[first] == [1.0, 5.0] and of_phi[second] == [3.0] and third not in of_phi
    assert of_phi[f"{first}, in the set"] == [3.0]
    assert of_phi[f"{third}, in the set"] == [2.0, 5.0]


def test_spread_is_that_of_a_sample() -> None:
    mean, deviation = trainings.spread([1.0, 2.0, 3.0])
    assert (mean, deviation) == (2.0, 1.0)
    assert trainings.in_words([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0"
    assert trainings.in_words([2.0], 2) == "2.00"

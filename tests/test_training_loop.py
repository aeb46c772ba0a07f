"""The loop of training: repeatable, resumable, several sets, several devices."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import yaml
from ase.build import bulk
from cli_helpers import command
from conftest import QUICKLY, assert_close
from training_helpers import (
    STEPS,
    arrays,
    assert_same_run,
    config,
    lattice_record,
    options,
    rock_salt,
    rows,
    tiny_potential,
    write_set,
)

import phonopy_equivariant as pe
from phonopy_equivariant.data import read_records, write_records
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.structure import as_structure
from phonopy_equivariant.training import loop
from phonopy_equivariant.training.config import (
    LossConfig,
    SetConfig,
    Term,
)
from phonopy_equivariant.training.loop import Report, Trainer, train
from phonopy_equivariant.training.samples import Cursor, Samples
from phonopy_equivariant.training.state import load_origin

# For bits to be equal, other processes have to compile as the tests do, see conftest.py.
COMPILED_AS_HERE = f"""
from phonopy_equivariant.runtime import compilation
compilation._CPU_OPTIONS.update({QUICKLY!r})
"""
COMMAND_COMPILED_AS_HERE = f"""{COMPILED_AS_HERE}
import sys
from phonopy_equivariant.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two small sets of a teacher."""
    folder = tmp_path_factory.mktemp("training")
    teacher = tiny_potential(7, species=(11, 17), scale=10.0, num_interactions=1)
    write_set(folder / "a.extxyz", teacher, 12, seed=1)
    write_set(folder / "b.extxyz", teacher, 6, seed=2)
    write_records([lattice_record(rock_salt(0.05))], folder / "q.extxyz")
    return folder


@pytest.fixture(scope="module")
def whole(data: Path) -> Path:
    """Return the folder of an uninterrupted run."""
    train(config(data, "whole"))
    return data / "whole"


def test_training_learns_and_the_checkpoint_loads(data: Path, whole: Path) -> None:
    losses = [float(row["valid_loss"]) for row in rows(whole) if row["valid_loss"]]
    assert losses[-1] < 0.5 * losses[0]
    potential = pe.load_potential(whole / "best.npz")
    assert potential.species == (11, 17)
    assert np.isfinite(potential.evaluate(rock_salt(0.05)).energy)


def test_equal_seeds_give_equal_runs_and_others_do_not(data: Path, whole: Path) -> None:
    train(config(data, "again"))
    assert_same_run(whole, data / "again")
    train(config(data, "other", seed=1, steps=2))
    assert rows(data / "other")[0] != rows(whole)[0]


def test_an_interrupted_run_goes_on_bit_for_bit(data: Path, whole: Path) -> None:
    def interrupt(report: Report) -> None:
        if report.step == 17:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(data, "interrupted"), interrupt)
    # the step that was interrupted does not count
    assert json.loads(arrays(data / "interrupted" / "state.npz")["progress.json"])["step"] == 16
    train(config(data, "interrupted"))
    assert_same_run(whole, data / "interrupted")


def test_kill_and_resume_equals_the_uninterrupted_run(data: Path, whole: Path) -> None:
    path = data / "killed.yaml"
    path.write_text(yaml.safe_dump(options(data, "killed")))
    words = [sys.executable, "-c", COMMAND_COMPILED_AS_HERE, "train", str(path), "--device", "cpu"]
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    quiet = {"stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    first = subprocess.Popen(words, env=environment, **quiet)
    wait_for_rows(data / "killed" / "log.csv", 12, first)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert 0 < len(rows(data / "killed")) < STEPS
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Going on from step" in done.stderr
    assert_same_run(whole, data / "killed")


def test_the_command_trains_mace(data: Path) -> None:
    model = {
        "architecture": "mace",
        "cutoff": 3.0,
        "num_interactions": 1,
        "hidden_irreps": "2x0e",
        "l_max": 1,
        "correlation": [2],
        "num_radial_basis": 3,
        "radial_widths": [4],
    }
    path = data / "mace.yaml"
    path.write_text(yaml.safe_dump(options(data, "mace", model=model, steps=3)))
    done = command("train", path, "--device", "cpu", cwd=data)
    assert "validation loss" in done.stdout
    assert "mace/best.npz" in done.stderr
    losses = [float(row["train_loss"]) for row in rows(data / "mace")]
    assert len(set(losses)) == 3
    assert pe.load_potential(data / "mace" / "best.npz").species == (11, 17)


def wait_for_rows(path: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) > count:
            return
        time.sleep(0.002)
    raise AssertionError("the training did not get far enough to be killed")


def test_another_configuration_does_not_continue_a_run(data: Path, whole: Path) -> None:
    changed = {"energy": {"weight": 2.0}, "forces": {"weight": 1.0}}
    with pytest.raises(PhonopyEquivariantError, match="another loss.*restart=True"):
        train(config(data, "whole", loss=changed))


@pytest.fixture
def begun(data: Path, tmp_path: Path) -> Path:
    """Return a folder with data of its own and a run of two steps."""
    shutil.copy(data / "a.extxyz", tmp_path)
    train(config(tmp_path, "run", steps=2))
    return tmp_path


def test_other_data_do_not_continue_a_run(begun: Path) -> None:
    records = read_records(begun / "a.extxyz")
    assert records[5].forces is not None
    moved = records[5].forces.copy()
    moved[0, 0] = np.nextafter(moved[0, 0], 9)
    records[5] = dataclasses.replace(records[5], forces=moved)
    write_records(records, begun / "a.extxyz")
    with pytest.raises(PhonopyEquivariantError, match=r"records of .*a\.extxyz have.*restart=True"):
        train(config(begun, "run", steps=3))
    assert train(config(begun, "run", steps=3), restart=True).step == 3


def test_other_devices_do_not_continue_a_run(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = begun / "run" / "state.npz"
    origin = load_origin(path)
    assert origin.devices == 1
    monkeypatch.setattr(loop, "load_origin", lambda _: dataclasses.replace(origin, devices=2))
    with pytest.raises(
        PhonopyEquivariantError, match="on 2 devices, now there are 1; .*restart=True"
    ):
        train(config(begun, "run", steps=3))


def test_overlapping_atoms_are_named_by_file_and_index(data: Path, tmp_path: Path) -> None:
    records = read_records(data / "a.extxyz")
    crystal = records[4].structure
    positions = crystal.positions.copy()
    positions[1] = positions[0] + 0.01
    bad = dataclasses.replace(records[4], structure=crystal._replace(positions=positions))
    write_records([*records[:4], bad, *records[5:]], tmp_path / "bad.extxyz")
    sets: list[dict[str, Any]] = [{"path": "bad.extxyz"}]
    with pytest.raises(PhonopyEquivariantError, match=r"bad\.extxyz:4: .*unsound: skip"):
        Trainer(config(tmp_path, "refused", sets=sets))
    with pytest.raises(PhonopyEquivariantError, match=r"a\.extxyz:4: Atoms 1 and 2 are"):
        Samples(
            tiny_potential(7, species=(11, 17)), [bad], SetConfig("x"), LossConfig(Term()), 0, 0
        )
    sets[0]["options"] = {"unsound": "skip"}
    lines: list[str] = []
    trainer = Trainer(config(tmp_path, "skipped", sets=sets), report=lines.append)
    trainer.close()
    assert len(trainer._sets[0].records) == len(records) - 1
    [line] = lines
    assert "bad.extxyz:4: Atoms 1 and 2 are 0.017 Å apart; left out." in line


def test_every_epoch_shows_every_structure_once(data: Path) -> None:
    trainer = Trainer(config(data, "epochs"))
    [samples] = trainer._sets
    for epoch in (0, 1):
        cursor, seen = Cursor(epoch, 0), []
        while cursor.epoch == epoch:
            batches, cursor = samples.next(cursor)
            [graph] = [batch for _, batch in batches]
            known = graph.globals["share"]["energy"] > 0
            seen += graph.globals["energy"][known].tolist()
        assert len(seen) == len(set(seen)) == 9
    trainer.close()


def test_the_gradient_of_several_sets_is_their_weighted_sum(data: Path) -> None:
    # the same model, though its scale would be another with other data
    model = options(data, "")["model"] | {"scale": 1.0, "avg_num_neighbors": 10.0}

    def gradient(output: str, weights: tuple[float, float]) -> np.ndarray:
        sets = [
            {"path": name, "batch_size": 2, "weight": weight}
            for name, weight in zip(("a.extxyz", "b.extxyz"), weights, strict=True)
        ]
        trainer = Trainer(config(data, output, sets=sets, model=model, energies="keep"))
        _, _, found = trainer._gradient([some.next(Cursor())[0] for some in trainer._sets])
        trainer.close()
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)])

    both = gradient("both", (2.0, 0.5))
    expected = 2 * gradient("one", (1.0, 0.0)) + 0.5 * gradient("two", (0.0, 1.0))
    assert_close(both, expected)


def test_early_stopping_and_plateau(data: Path) -> None:
    still = {"learning_rate": 0.0, "schedule": "plateau", "plateau_patience": 2, "warmup_steps": 0}
    result = train(config(data, "still", optimiser=still, validate_every=2, patience=4, steps=100))
    # the first validation is the best; four more without improvement
    assert (result.step, result.stopped) == (10, True)
    state = json.loads(arrays(data / "still" / "state.npz")["progress.json"])
    assert state["reductions"] == 2


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_state(data: Path) -> None:
    wild = {"learning_rate": 1e200, "warmup_steps": 0, "clip": 0.0}
    with pytest.raises(PhonopyEquivariantError, match="no longer a finite number.*learning_rate"):
        train(config(data, "wild", optimiser=wild))


def test_event_files_for_tensorboard(data: Path) -> None:
    pytest.importorskip("tensorboardX")
    train(config(data, "events", steps=2, tensorboard=True))
    [events] = (data / "events" / "tensorboard").iterdir()
    assert b"valid_loss" in events.read_bytes()


TWO_DEVICES = """
import json, sys
from pathlib import Path
import jax, numpy as np
from phonopy_equivariant.training.config import make_config
from phonopy_equivariant.training.loop import Trainer
from phonopy_equivariant.training import gradients

folder, text = Path(sys.argv[1]), json.loads(sys.argv[2])
assert len(jax.devices()) == 2

def gradient(name):
    trainer = Trainer(make_config(text | {"output": name}, folder))
    # a batch may hold other structures where it is divided: the whole set is the same
    batches = [some.all() for some in trainer._sets]
    loss, metrics, found = trainer._gradient(batches)
    trainer.close()
    return float(loss), [np.asarray(leaf) for leaf in jax.tree.leaves(found)]

two = gradient("two_devices")
gradients.device_mesh = lambda: None
one = gradient("one_device")
assert abs(two[0] - one[0]) < 1e-12 * abs(one[0]), (two[0], one[0])
scale = max(np.abs(leaf).max() for leaf in one[1])
assert scale > 1e-3
for left, right in zip(two[1], one[1]):
    np.testing.assert_allclose(left, right, rtol=0, atol=1e-11 * scale)
print("equal")
"""


def test_two_devices_give_the_gradient_of_one(data: Path) -> None:
    sets = [{"path": "a.extxyz", "batch_size": 4}, {"path": "q.extxyz"}]
    loss = {"energy": {}, "forces": {}, "spectrum": {}}
    model = options(data, "")["model"] | {"hidden_irreps": "4x0e", "l_max": 0}
    text = options(data, "", sets=sets, loss=loss, model=model)
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    flags["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", COMPILED_AS_HERE + TWO_DEVICES, str(data), json.dumps(text)],
        capture_output=True,
        text=True,
        env=os.environ | flags,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "equal" in done.stdout


def test_records_without_data_for_the_loss_are_refused(data: Path) -> None:
    with pytest.raises(PhonopyEquivariantError, match=r"a.extxyz: no record has data for spectrum"):
        train(config(data, "empty", loss={"spectrum": {"weight": 1}}))
    sets = [{"path": "q.extxyz", "valid_path": "a.extxyz"}]
    with pytest.raises(PhonopyEquivariantError, match=r"a.extxyz: no record has data for spectrum"):
        train(config(data, "empty", sets=sets, loss={"spectrum": {"weight": 1}}))


def test_held_out_records_have_elements_and_terms_of_their_own(data: Path) -> None:
    """The potential knows their elements, the log has their terms."""
    oxide = dataclasses.replace(
        read_records(data / "a.extxyz")[0],
        structure=as_structure(bulk("NaO", "rocksalt", a=4.4)),
        forces=np.zeros((2, 3)),
        stress=np.eye(3),
    )
    write_records([oxide], data / "oxide.extxyz")
    sets = [{"path": "a.extxyz", "valid_path": "oxide.extxyz", "terms": ["forces", "stress"]}]
    some = {name: {"weight": 1.0} for name in ("forces", "stress")}
    result = train(
        config(data, "held", sets=sets, loss=some, steps=2, validate_every=1, energies="keep")
    )
    assert {8, 11, 17} == set(result.potential.species)
    last = rows(data / "held")[-1]
    assert float(last["valid/a/stress"]) > 0 and "train/a/stress" not in last


def test_energies_are_fitted_to_sets_with_energies_that_count(data: Path) -> None:
    """Those of another functional, left out of the loss, shift nothing."""
    shifted = [
        dataclasses.replace(record, energy=record.energy + 1000.0)
        for record in read_records(data / "b.extxyz")
    ]
    write_records(shifted, data / "shifted.extxyz")
    sets = [{"path": "a.extxyz"}, {"path": "shifted.extxyz", "terms": ["forces"]}]
    alone = Trainer(config(data, "alone", sets=sets[:1]))
    both = Trainer(config(data, "both", sets=sets))
    record = read_records(data / "a.extxyz")[0]
    energies = [some._potential.evaluate(record.structure).energy for some in (alone, both)]
    # less than an eV apart: scale and neighbours come from both sets
    assert abs(energies[0] - record.energy) < 5 and abs(energies[1] - record.energy) < 5
    for some in (alone, both):
        some.close()

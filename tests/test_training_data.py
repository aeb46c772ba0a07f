"""What a training does with its data: streamed, checked, told, refused."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import units
from data_helpers import emt_record
from training_helpers import TINY, rock_salt, tiny_potential, write_set

from phonopy_equivariant.data import read_records, write_records
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.training.batches import _BESIDE, ValueCache
from phonopy_equivariant.training.config import TrainingConfig, make_config
from phonopy_equivariant.training.loop import Trainer, train
from phonopy_equivariant.training.sources import fingerprint
from phonopy_equivariant.training.spectral import make_cell
from phonopy_equivariant.training.state import load_origin


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with one small set, as text and as HDF5."""
    folder = tmp_path_factory.mktemp("sets")
    teacher = tiny_potential(7, species=(11, 17), scale=10.0, num_interactions=1)
    write_set(folder / "a.extxyz", teacher, 12, seed=1)
    write_records(read_records(folder / "a.extxyz"), folder / "a.h5")
    return folder


def config(folder: Path, output: str, path: str, loss: Any, **changes: Any) -> TrainingConfig:
    values = {
        "output": output,
        "model": TINY | {"cutoff": 3.0, "num_interactions": 1},
        "sets": [{"path": path, "batch_size": 3} | changes],
        "loss": {name: {} for name in loss},
        "steps": 6,
        "dtype": "float64",
        "validate_every": 3,
    }
    return make_config(values, folder)


def trainer(folder: Path, *words: Any, **changes: Any) -> tuple[Trainer, list[str]]:
    lines: list[str] = []
    made = Trainer(config(folder, "out", *words, **changes), True, lines.append)
    made.close()
    return made, lines


def test_streamed_and_kept_data_train_alike(data: Path) -> None:
    for name in ("extxyz", "h5"):
        train(config(data, name, f"a.{name}", ("energy", "forces"), valid=0.25))
    one, two = (zipfile.ZipFile(data / name / "state.npz") for name in ("extxyz", "h5"))
    with one, two:
        names = set(one.namelist()) - {"progress.json"}
        assert names == set(two.namelist()) - {"progress.json"}
        assert all(one.read(name) == two.read(name) for name in names)
    origins = [load_origin(data / name / "state.npz") for name in ("extxyz", "h5")]
    assert origins[0].data == origins[1].data


def test_what_there_is_no_room_for_is_made_again() -> None:
    made: list[int] = []

    def make(place: int) -> np.ndarray:
        made.append(place)
        return np.full(10, float(place))

    kept = ValueCache(make, room=2 * (80 + _BESIDE))
    for _ in range(2):
        for place in range(4):
            np.testing.assert_array_equal(kept[place], np.full(10, float(place)))
    assert made == [0, 1, 2, 3, 2, 3]


def test_a_term_that_no_record_has_data_for(data: Path, tmp_path: Path) -> None:
    text = (data / "a.extxyz").read_text().replace(" energy=", " TotEnergy=")
    (tmp_path / "b.extxyz").write_text(text)
    with pytest.raises(
        PhonopyEquivariantError, match=r"loss\.energy: .*TotEnergy, forces: say which.*energy_key"
    ):
        trainer(tmp_path, "b.extxyz", ("energy", "forces"))
    with pytest.raises(PhonopyEquivariantError, match=r"loss\.stress: no record of .* has data"):
        trainer(tmp_path, "b.extxyz", ("forces", "stress"))
    chosen, _ = trainer(tmp_path, "b.extxyz", ("energy",), options={"energy_key": "TotEnergy"})
    assert chosen.contents == ["b: 12 records (energy 12) for training"]


def test_a_nan_that_no_term_uses_costs_nothing(data: Path, tmp_path: Path) -> None:
    records = read_records(data / "a.extxyz")
    records[4] = dataclasses.replace(records[4], energy=float("nan"))
    write_records(records, tmp_path / "nan.extxyz")
    made, lines = trainer(tmp_path, "nan.extxyz", ("forces",))
    assert made.contents == ["nan: 12 records (forces 12) for training"] and not lines
    with pytest.raises(PhonopyEquivariantError, match=r"nan\.extxyz:4: the energy is not a finite"):
        trainer(tmp_path, "nan.extxyz", ("energy", "forces"))


def test_what_check_knows(tmp_path: Path) -> None:
    strained = [emt_record(seed, strain=0.02, move=0.02) for seed in range(8)]
    kbar = [dataclasses.replace(r, stress=r.stress * 10 / units.GPa) for r in strained]
    write_records(kbar, tmp_path / "kbar.extxyz")
    with pytest.raises(PhonopyEquivariantError, match=r"kbar\.extxyz: .*stress.*check: warn"):
        trainer(tmp_path, "kbar.extxyz", ("forces", "stress"))
    _, lines = trainer(tmp_path, "kbar.extxyz", ("forces", "stress"), check="warn")
    assert any("kbar" in line for line in lines)
    _, lines = trainer(tmp_path, "kbar.extxyz", ("forces",))  # the stress is not used
    assert not lines
    huge = dataclasses.replace(strained[3], forces=1e6 * np.ones((4, 3)))
    copy = dataclasses.replace(strained[5], forces=-strained[5].forces)
    for bad, text in ((huge, "a force of"), (copy, "the same structure as")):
        write_records([*strained, bad], tmp_path / "bad.extxyz")
        with pytest.raises(PhonopyEquivariantError, match=rf"bad\.extxyz:\d: {text}"):
            trainer(tmp_path, "bad.extxyz", ("forces",))
        options = {"unsound": "skip"}
        made, _ = trainer(tmp_path, "bad.extxyz", ("forces",), options=options)
        assert len(made._sets[0].records) in (7, 8)
    write_records(strained, tmp_path / "good.extxyz")
    _, lines = trainer(tmp_path, "good.extxyz", ("forces",), valid_path="good.extxyz")
    assert any("8 of 8 structures held out" in line for line in lines)


def test_isolated_atoms_set_the_energy_of_a_free_atom(tmp_path: Path) -> None:
    bulk = [emt_record(seed) for seed in range(5)]
    atom = bulk[0].structure._replace(
        numbers=np.array([29]),
        positions=np.zeros((1, 3)),
        cell=np.zeros((3, 3)),
        pbc=np.zeros(3, bool),
    )
    alone = dataclasses.replace(bulk[0], structure=atom, energy=-10.0, forces=None, stress=None)
    write_records([alone, *bulk], tmp_path / "e0.extxyz")
    made, _ = trainer(tmp_path, "e0.extxyz", ("energy", "forces"))
    assert made._potential.evaluate(atom).energy == pytest.approx(-10.0, abs=1e-9)


def test_masses_of_a_record_are_those_of_its_frequencies() -> None:
    masses = np.array([22.0, 2.014])
    cell = make_cell(tiny_potential(7, species=(11, 17)), rock_salt()._replace(masses=masses))
    np.testing.assert_allclose(cell.inverse_root_mass[:6], np.repeat(masses, 3) ** -0.5)


def test_a_fingerprint_sees_structures_labels_and_their_order() -> None:
    one, other = emt_record(0), emt_record(1)
    moved = one.structure._replace(cell=one.structure.cell * (1 + 1e-15))
    prints = [
        fingerprint([one, other], []),
        fingerprint([other, one], []),
        fingerprint([one], [other]),
        fingerprint([one, dataclasses.replace(other, energy=None)], []),
        fingerprint([dataclasses.replace(one, structure=moved), other], []),
    ]
    assert len(set(prints)) == len(prints)
    # where the records lie does not matter
    assert fingerprint([dataclasses.replace(one, source="b:0"), other], []) == prints[0]

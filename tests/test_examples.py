"""Everything in examples/ works from the repository alone; trainings are not run to their end."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

import phonopy_equivariant as pe
from phonopy_equivariant.data import read_records
from phonopy_equivariant.io.crystals import read_crystal
from phonopy_equivariant.training.config import read_config
from phonopy_equivariant.training.loop import Trainer

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TRAININGS = sorted(path.name for path in EXAMPLES.glob("train_*.yaml"))
SCRIPTS = sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.py"))
# what other examples make, and what has to be downloaded
FROM_OTHERS = {"si/best.npz", "si_soft/last.npz", "pe-crystal-3"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples with the files of make_data.py, labelled by a small model."""
    place = tmp_path_factory.mktemp("repository") / "examples"
    shutil.copytree(
        EXAMPLES, place, ignore=shutil.ignore_patterns("*.extxyz", "si*", "__pycache__")
    )
    shutil.copytree(EXAMPLES / "paper" / "data", place / "paper" / "data", dirs_exist_ok=True)
    config = pe.NequIPConfig(
        species=(8, 11, 14, 17, 22, 38), cutoff=4.0, num_interactions=1, hidden_irreps="4x0e"
    )
    small = str(pe.save_checkpoint(pe.random_potential(config), place / "small.npz"))
    spec = importlib.util.spec_from_file_location("make_data", place / "make_data.py")
    assert spec is not None and spec.loader is not None
    make_data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_data)
    make_data.main(small)
    return place


@pytest.mark.parametrize(
    ("name", "elements", "group"),
    [
        ("NaCl.cif", {"Na", "Cl"}, 225),
        ("Si.cif", {"Si"}, 227),
        ("SrTiO3.cif", {"Sr", "Ti", "O"}, 221),
    ],
)
def test_structures_are_read(name: str, elements: set[str], group: int) -> None:
    from phonopy.structure.symmetry import Symmetry

    unitcell = read_crystal(EXAMPLES / name).unitcell
    assert set(unitcell.symbols) == elements
    assert Symmetry(unitcell).dataset.number == group


@pytest.mark.parametrize("name", TRAININGS)
def test_trainings_begin_with_the_data_they_name(name: str, folder: Path, tmp_path: Path) -> None:
    config = read_config(folder / name)
    if config.finetune_from:
        start = Path(config.finetune_from)
        assert config.finetune_from in FROM_OTHERS or str(start.relative_to(folder)) in FROM_OTHERS
        config = dataclasses.replace(config, finetune_from=str(folder / "small.npz"))
    config = dataclasses.replace(config, output=str(tmp_path / "out"), energies="keep")
    trainer = Trainer(config)
    trainer.close()
    assert len(trainer.contents) == len(config.sets)


def test_trainings_follow_one_another() -> None:
    """What one example starts from is the output of another."""
    outputs = {Path(read_config(EXAMPLES / name).output).name for name in TRAININGS}
    starts = {read_config(EXAMPLES / name).finetune_from for name in TRAININGS} - {None, ""}
    folders = {Path(start).parent.name for start in starts if start.endswith(".npz")}
    assert folders == {"si", "si_soft"} <= outputs


def test_frequencies_of_the_set_are_those_of_silicon(folder: Path) -> None:
    """Three are zero at Γ and three near 15.5 THz (measured); at X they come in pairs."""
    (record,) = read_records(folder / "Si_frequencies.extxyz")
    assert record.spectrum is not None
    gamma, x = record.spectrum.frequencies
    assert gamma == pytest.approx([0, 0, 0, 15.5, 15.5, 15.5], abs=0.5)
    assert x[::2] == pytest.approx(x[1::2], abs=1e-6)


def test_the_soft_forces_are_085_times_those_of_dft(folder: Path) -> None:
    soft = read_records(folder / "Si_soft.extxyz")
    dft = read_records(folder / "paper" / "data" / "silicon_222.extxyz.xz")
    assert len(soft) == len(dft) == 51
    assert soft[7].energy is None
    assert soft[7].forces == pytest.approx(0.85 * dft[7].forces, abs=1e-7)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_import_what_there_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They compute for hours, so only their imports from this package are made."""
    monkeypatch.setattr(sys, "path", [*sys.path, str((EXAMPLES / name).parent)])
    for node in ast.walk(ast.parse((EXAMPLES / name).read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("phonopy_equivariant"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(
                    f"{node.module}.{alias.name}"
                ), f"{node.module}.{alias.name}"


@pytest.mark.parametrize("name", ["bundled.yaml", "refine.yaml"])
def test_the_settings_of_the_bundled_model_are_read(name: str) -> None:
    assert read_config(EXAMPLES / "train_bundled" / name).steps > 0

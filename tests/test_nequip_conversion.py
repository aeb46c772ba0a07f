"""Parity with nequip itself; runs where torch and nequip are installed.

Both sides are float64 and evaluate the same function, so they agree to rounding; the tolerances
are those asked of the reader. One model is trained and packaged by nequip's own commands.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import yaml
from ase.calculators.singlepoint import SinglePointCalculator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("nequip", reason="nequip is not installed")
import jax
from nequip_zoo import CASES, SYMBOLS, config_of, original_values, write, write_package
from sevennet_zoo import crystal_of

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints.nequip_framework.model import read_nequip
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
from phonopy_equivariant.structure import Structure, to_ase

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and nequip's own


def assert_parity(potential: Potential, model: Any, structure: Structure) -> None:
    expected = original_values(model, structure)
    result = potential.evaluate(structure)
    assert np.abs(expected["forces"]).max() > 1e-3
    assert abs(result.energy - expected["energy"]) < 1e-8 * len(structure.numbers)
    np.testing.assert_allclose(result.forces, expected["forces"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(result.stress, expected["stress"], rtol=0, atol=1e-9)
    matrix = lattice_force_constants(potential, structure, np.zeros((1, 3)))[0]
    np.testing.assert_allclose(matrix, expected["hessian"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_random_models(name: str, tmp_path: Path) -> None:
    model = write(name, tmp_path / "model.ckpt")
    write_package(model, tmp_path / "model.nequip.zip")
    for file in ("model.ckpt", "model.nequip.zip"):
        assert_parity(pe.load_potential(tmp_path / file), model, crystal_of())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for one epoch with a moving average, and package, by nequip's commands."""
    folder = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(4):
        atoms = to_ase(crystal_of())
        atoms.rattle(0.1, rng=rng)
        forces = rng.normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=rng.normal(), forces=forces)
        frames.append(atoms)
    ase.io.write(folder / "frames.xyz", frames)
    (folder / "config.yaml").write_text(yaml.safe_dump(_training()))
    for words in (
        ["train", "-cp", str(folder), "-cn", "config.yaml"],
        ["package", "build", "checkpoints/last.ckpt", "last.nequip.zip"],
    ):
        command = [sys.executable, "-m", f"nequip.scripts.{words[0]}", *words[1:]]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
    return folder


def _training() -> dict[str, Any]:
    names = list(SYMBOLS)
    transforms = [
        {
            "_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper",
            "model_type_names": names,
        },
        {"_target_": "nequip.data.transforms.NeighborListTransform", "r_max": 3.5},
    ]
    loader = {"_target_": "torch.utils.data.DataLoader", "batch_size": 1}
    model = config_of("everything") | {"bessel_trainable": True, "compile_mode": "eager"}
    model.pop("do_derivatives")
    checkpoints = {
        "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
        "dirpath": "checkpoints",
        "save_last": True,
    }
    return {
        "run": ["train"],
        "data": {
            "_target_": "nequip.data.datamodule.ASEDataModule",
            "seed": 1,
            "train_file_path": "frames.xyz",
            "val_file_path": "frames.xyz",
            "transforms": transforms,
            "train_dataloader": loader,
            "val_dataloader": loader,
        },
        "trainer": {
            "_target_": "lightning.Trainer",
            "accelerator": "cpu",
            "max_epochs": 1,
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [checkpoints],
        },
        "training_module": {
            "_target_": "nequip.train.EMALightningModule",
            "ema_decay": 0.5,
            "loss": {
                "_target_": "nequip.train.EnergyForceLoss",
                "coeffs": {"total_energy": 1.0, "forces": 1.0},
            },
            "val_metrics": {
                "_target_": "nequip.train.EnergyForceMetrics",
                "coeffs": {"per_atom_energy_mae": 1.0, "forces_mae": 1.0},
            },
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01},
            "model": model,
        },
        "global_options": {"allow_tf32": False},
    }


def test_a_trained_model_and_its_package(trained: Path) -> None:
    """The package has the moving average, and so has the reader of the checkpoint."""
    from nequip.model.saved_models import load_saved_model

    package = trained / "last.nequip.zip"
    config, params = read_nequip(package)
    same_config, same = read_nequip(trained / "checkpoints" / "last.ckpt")
    assert config == same_config
    # norms of species are square roots of a number here and a tensor there
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-15), params, same)
    assert_parity(pe.load_potential(package), load_saved_model(str(package)), crystal_of())

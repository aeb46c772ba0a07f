"""Checkpoints of nequip: parity with values of its own code that are stored here, and refusals.

The files are written by torch, with random weights: see nequip_zoo.py. Reading needs no torch.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from nequip_zoo import CASES, path_of
from sevennet_zoo import crystal_of
from test_sevennet import _changed

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints.torch_file import read_torch
from phonopy_equivariant.cli import run_command
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants


@pytest.mark.parametrize("name", CASES)
def test_parity_with_nequip(name: str) -> None:
    """Both sides are float64 and evaluate the same function; tolerances are those asked for."""
    potential, structure = pe.load_potential(path_of(name)), crystal_of()
    values = np.load(path_of(name).with_suffix(".npz"))
    result = potential.evaluate(structure)
    assert np.abs(values["forces"]).max() > 1e-3
    assert abs(result.energy - values["energy"]) < 1e-8 * len(structure.numbers)
    np.testing.assert_allclose(result.forces, values["forces"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(result.stress, values["stress"], rtol=0, atol=1e-9)
    matrix = lattice_force_constants(potential, structure, np.zeros((1, 3)))[0]
    np.testing.assert_allclose(matrix, values["hessian"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"temperature": 3.0}, "temperature"),
        ({"_target_": "allegro.model.AllegroModel"}, "AllegroModel"),
        ({"convnet_resnet": True}, "convnet_resnet"),
        ({"type_names": ["A", "B", "C"]}, "chemical symbols"),
        ({"pair_potential": {"_target_": "nequip.nn.LennardJones"}}, "LennardJones"),
        ({}, "type_embed.embed_module.weight is missing"),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused_by_name(
    changes: dict[str, object], word: str, tmp_path: Path
) -> None:
    content = read_torch(path_of("natural"), ("hyper_parameters",))["hyper_parameters"]
    content["model"] |= changes
    state = {"model.sole_model.model.func.x": 1.0}
    inside = pickle.dumps({"hyper_parameters": content, "state_dict": state}, 2)
    path = _changed(path_of("natural"), tmp_path / "changed.ckpt", inside)
    with pytest.raises(pe.PhonopyEquivariantError, match=word) as caught:
        pe.load_potential(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_the_command_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "natural.npz"
    assert run_command(["models", "import", str(path_of("natural")), str(output)]) == 0
    assert "3 elements" in capsys.readouterr().out
    assert pe.load_potential(output).config == pe.load_potential(path_of("natural")).config

"""Parity with SevenNet itself; runs where torch and sevenn are installed.

Both sides are float64 and evaluate the same function, so they agree to rounding; the tolerances
are those asked of the reader. Published models come with SevenNet's package.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("sevenn", reason="sevenn is not installed")
import torch
from sevennet_zoo import (
    CASES,
    MODALITIES,
    config_of,
    crystal_of,
    modality_of,
    old_state,
    original_values,
    random_model,
)

from phonopy_equivariant.catalogue.cards import list_models, model_card
from phonopy_equivariant.checkpoints.e3nn_weights import MOMENTS
from phonopy_equivariant.checkpoints.load import load_potential
from phonopy_equivariant.checkpoints.sevennet.model import read_sevennet
from phonopy_equivariant.potential import Potential, make_potential
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
from phonopy_equivariant.structure import Structure

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and e3nn's own

PUBLISHED = [card.name for card in list_models() if card.format == "sevennet"]


def assert_parity(
    potential: Potential, model: Any, structure: Structure, modality: int | None
) -> None:
    expected = original_values(model, structure, modality)
    result = potential.evaluate(structure)
    assert np.abs(expected["forces"]).max() > 1e-3
    assert abs(result.energy - expected["energy"]) < 1e-8 * len(structure.numbers)
    np.testing.assert_allclose(result.forces, expected["forces"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(result.stress, expected["stress"], rtol=0, atol=1e-9)
    matrix = lattice_force_constants(potential, structure, np.zeros((1, 3)))[0]
    np.testing.assert_allclose(matrix, expected["hessian"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_random_models(name: str, tmp_path: Path) -> None:
    model = random_model(name)
    state = old_state(model) if CASES[name].get("old") else model.state_dict()
    torch.save({"config": config_of(name), "model_state_dict": state}, tmp_path / "model.pth")
    potential = make_potential(*read_sevennet(tmp_path / "model.pth", modality_of(name)))
    assert_parity(potential, model, crystal_of(), MODALITIES.get(modality_of(name) or ""))


def published(name: str) -> Any:
    """Return a published model in double precision.

    Its coupling tensors are stored in single precision. e3nn's own replace them: SevenNet has
    brought the signs of weights into line with those by then.
    """
    from e3nn.o3 import wigner_3j
    from sevenn.checkpoint import SevenNetCheckpoint

    from phonopy_equivariant.catalogue.cards import files_of_others

    torch.set_default_dtype(torch.float32)  # SevenNet compares tensors of the file with its own
    checkpoint = SevenNetCheckpoint(str(files_of_others(model_card(name))[0]))
    model = checkpoint.build_model().double()
    torch.set_default_dtype(torch.float64)
    for key, tensor in model.named_buffers():
        if "_w3j_" in key:
            degrees = [int(word) for word in key.rpartition("_w3j_")[2].split("_")]
            tensor.copy_(wigner_3j(*degrees, dtype=torch.float64))
    model.set_is_batch_data(False)
    return model, checkpoint.config.get("_modal_map")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name: found in SevenNet's package, converted, checked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, modalities = published(name)
    head = model_card(name).head
    place = modalities[head] if head else None
    potential = load_potential(name)
    for numbers in ((11, 17, 8, 17, 11), (22, 8, 8, 56, 31)):
        assert_parity(potential, model, crystal_of(numbers, size=1.3), place)


def test_constants_of_activations_are_those_of_e3nn() -> None:
    from e3nn.math import normalize2mom

    for name, function in (("silu", torch.nn.functional.silu), ("tanh", torch.tanh)):
        assert abs(normalize2mom(function).cst - MOMENTS[name]) < 1e-14

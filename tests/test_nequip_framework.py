"""Files of nequip: parity with values of its own code that are stored here, and refusals.

The files are written by torch, with random weights: see nequip_zoo.py. Reading needs no torch.
"""

from __future__ import annotations

import copy
import functools
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nequip_zoo import CASES, package_of, path_of
from sevennet_zoo import crystal_of
from test_sevennet import Trap, _changed, _message

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints.conversion import name_of
from phonopy_equivariant.checkpoints.converted import convert
from phonopy_equivariant.checkpoints.nequip_framework import model as reader
from phonopy_equivariant.checkpoints.nequip_framework import package
from phonopy_equivariant.checkpoints.torch_file import read_torch
from phonopy_equivariant.checkpoints.torch_module import TorchModule, read_torch_package
from phonopy_equivariant.cli import run_command
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants


@pytest.mark.parametrize("file_of", [path_of, package_of], ids=["checkpoint", "package"])
@pytest.mark.parametrize("name", CASES)
def test_parity_with_nequip(name: str, file_of: Callable[[str], Path]) -> None:
    """Both sides are float64 and evaluate the same function; tolerances are those asked for."""
    potential, structure = pe.load_potential(file_of(name)), crystal_of()
    assert potential.name == name
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


@pytest.mark.parametrize("exchanged", [False, True])
def test_a_moving_average_that_stands_in_place_of_the_weights(
    exchanged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a validation nequip exchanges the two: the model then has the average."""
    content = read_torch(path_of("natural"), ("hyper_parameters", "state_dict"))
    state = content["state_dict"]
    name, average = "model.sole_model.model.func.type_embed.embed_module.weight", "ema.ema_weight_0"
    assert (
        state[name].shape == state[average].shape
        and np.abs(state[name] - state[average]).min() > 0.5
    )
    expected = state[average]
    if exchanged:
        state["ema._extra_state"] = {"is_holding_ema_weights": False}
        expected = state[name]
    monkeypatch.setattr(reader, "read_torch", lambda path, keys, ignore=(): content)
    _, params = reader.read_nequip(path_of("natural"))
    order = np.argsort([11, 17, 8])
    np.testing.assert_array_equal(params["global"]["~"]["embedding"], expected[order])


@functools.cache
def _package() -> TorchModule:
    return read_torch_package(package_of("everything"), package.MODEL)


def _steps(models: TorchModule) -> TorchModule:
    return models.parts["sole_model"].parts["model"].parts["func"]


def _two_models(models: TorchModule) -> None:
    models.parts["second"] = models.parts["sole_model"]


def _new_step(models: TorchModule) -> None:
    _steps(models).parts["charges"] = TorchModule("ChargeEquilibration", {}, {}, {})


def _other_step(models: TorchModule) -> None:
    _steps(models).parts["pair_potential"] = TorchModule("LennardJones", {}, {}, {})


def _part_beside_the_model(models: TorchModule) -> None:
    models.parts["sole_model"].parts["rescale"] = TorchModule("RescaleOutput", {}, {}, {})


def _other_convolution(models: TorchModule) -> None:
    conv = _steps(models).parts["layer1_convnet"].parts["conv"]
    conv.parts["dropout"] = TorchModule("Dropout", {}, {}, {})


def _residual(models: TorchModule) -> None:
    _steps(models).parts["layer1_convnet"].attributes["resnet"] = True


def _norm_activation(models: TorchModule) -> None:
    layer = _steps(models).parts["layer0_convnet"]
    layer.parts["equivariant_nonlin"] = TorchModule("NormActivation", {}, {}, {})


def _other_gate(models: TorchModule) -> None:
    gate = _steps(models).parts["layer0_convnet"].parts["equivariant_nonlin"]
    gate.parts["act_gates"].parts["acts"].parts["0"].attributes["f"] = "torch.abs"


def _other_units(models: TorchModule) -> None:
    _steps(models).parts["pair_potential"].tensors["_qqr2exesquare"] = np.array(332.06371 / 2)


def _other_nuclei(models: TorchModule) -> None:
    _steps(models).parts["pair_potential"].tensors["atomic_numbers"] = np.array([11.0, 17.0, 9.0])


def _other_exponent(models: TorchModule) -> None:
    _steps(models).parts["pair_potential"].parts["cutoff"].attributes["p"] = 8.0


def _other_factor(models: TorchModule) -> None:
    _steps(models).parts["factor"].attributes["factor"] = 1.0


def _other_gain(models: TorchModule) -> None:
    network = _steps(models).parts["layer0_convnet"].parts["conv"].parts["edge_mlp"].parts["mlp"]
    network.parts["0"].tensors["alpha"] = np.array(0.1)


def _new_weight(models: TorchModule) -> None:
    _steps(models).parts["per_type_energy_scale_shift"].tensors["slopes"] = np.ones(3)


def _layers_that_differ(models: TorchModule) -> None:
    conv = _steps(models).parts["layer1_convnet"].parts["conv"]
    conv.parts["avg_num_neighbors_norm"].tensors["norm_const"] = np.full((3, 1), 0.3)


def _readout_of_mish(models: TorchModule) -> None:
    network = _steps(models).parts["per_atom_energy_readout"].parts["mlp_module"].parts["mlp"]
    network.parts["1"] = TorchModule("Mish", {}, {}, {})


def _linear_readout(models: TorchModule) -> None:
    network = _steps(models).parts["per_atom_energy_readout"].parts["mlp_module"].parts["mlp"]
    weights = {name: part.tensors["weight"] for name, part in network.parts.items() if part.tensors}
    network.parts.clear()
    network.parts["weights"] = TorchModule("ParameterList", weights, {}, {})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_two_models, "sole_model, second"),
        (_new_step, "charges of .* class ChargeEquilibration"),
        (_other_step, "LennardJones"),
        (_part_beside_the_model, "rescale of GraphModel"),
        (_other_convolution, "dropout of .*InteractionBlock"),
        (_residual, "resnet=True"),
        (_norm_activation, "NormActivation"),
        (_other_gate, "torch.abs"),
        (_other_units, "units"),
        (_other_nuclei, "nuclei"),
        (_other_exponent, "p=8.0"),
        (_other_factor, "factor 1"),
        (_other_gain, "factor 0.1"),
        (_new_weight, "slopes is not known"),
        (_layers_that_differ, "neighbour numbers"),
        (_readout_of_mish, "mish"),
        (_linear_readout, "no network with activations"),
    ],
)
def test_what_is_not_known_in_a_package_is_refused_by_name(
    change: Callable[[TorchModule], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = copy.deepcopy(_package())
    change(models)
    monkeypatch.setattr(package, "read_torch_package", lambda path, member: models)
    with pytest.raises(pe.PhonopyEquivariantError, match=words) as caught:
        reader.read_nequip(package_of("everything"))
    assert "\n" not in str(caught.value) and str(package_of("everything")) in str(caught.value)


def _number(conv: TorchModule, place: str) -> None:
    """Keep the numbers of neighbours as versions before 0.17 did: one for all species."""
    del conv.parts["avg_num_neighbors_norm"]
    conv.attributes[place] = 4.0 if place == "avg_num_neighbors" else 0.5


@pytest.mark.parametrize("place", ["avg_num_neighbors", "scatter_norm_factor"])
def test_neighbour_numbers_of_older_versions(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models = copy.deepcopy(_package())
    for name, step in _steps(models).parts.items():
        if name.endswith("convnet"):
            _number(step.parts["conv"], place)
    monkeypatch.setattr(package, "read_torch_package", lambda path, member: models)
    settings, _ = package.read_package(package_of("everything"))
    np.testing.assert_array_equal(settings.norms, 0.5)
    for step in _steps(models).parts.values():
        if "conv" in step.parts:
            del step.parts["conv"].attributes[place]
    with pytest.raises(pe.PhonopyEquivariantError, match="number of neighbours"):
        package.read_package(package_of("everything"))


def test_the_code_in_a_package_is_not_executed(tmp_path: Path) -> None:
    """A package may hold any source code; its pickle may name what it likes."""
    made = tmp_path / "made by the package"
    path = tmp_path / "trap.nequip.zip"
    with zipfile.ZipFile(package_of("natural")) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
        for module in ("nequip/nn/graph_model.py", "nequip/__init__.py"):
            new.writestr(f"natural.nequip/{module}", f"import os\nos.mkdir({str(made)!r})\n")
    assert pe.load_potential(path).config == pe.load_potential(package_of("natural")).config
    Trap.folder = str(made)
    bad = _changed(
        package_of("natural"), tmp_path / "bad.nequip.zip", pickle.dumps(Trap(), 2), "", ".pkl"
    )
    message = _message(bad)
    assert "mkdir" in message and "nothing of it was executed" in message
    assert not made.exists()


def test_a_package_cut_short_is_refused(tmp_path: Path) -> None:
    content = package_of("natural").read_bytes()
    for fraction in (0.3, 0.9, 0.9999):
        path = tmp_path / "cut.nequip.zip"
        path.write_bytes(content[: int(fraction * len(content))])
        _message(path)
    less = _changed(package_of("natural"), tmp_path / "less.nequip.zip", drop="3.storage")
    assert "cut short" in _message(less)


def test_the_version_in_the_name_of_a_file_stays() -> None:
    assert name_of(Path("folder/NequIP-OAM-L-0.1.nequip.zip")) == "NequIP-OAM-L-0.1"
    assert name_of(Path("folder/epoch-1.5.ckpt")) == "epoch-1.5"


def test_models_of_nequip_have_no_heads(tmp_path: Path) -> None:
    with pytest.raises(pe.PhonopyEquivariantError, match="no heads.*pbe"):
        convert(package_of("natural"), tmp_path / "out.npz", head="pbe")


def test_a_package_is_not_compared(tmp_path: Path) -> None:
    with pytest.raises(pe.PhonopyEquivariantError, match="compare=True"):
        convert(package_of("natural"), tmp_path / "out.npz", compare=True)


def test_the_command_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "natural.npz"
    assert run_command(["models", "import", str(path_of("natural")), str(output)]) == 0
    assert "3 elements" in capsys.readouterr().out
    assert pe.load_potential(output).config == pe.load_potential(path_of("natural")).config

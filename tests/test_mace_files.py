"""Files of mace-torch: parity with values of its own code that are stored here, and refusals.

The file was written by torch, with random weights: see mace_zoo.py. Reading needs no torch, and
nothing of a file is executed.
"""

from __future__ import annotations

import copy
import functools
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mace_zoo import AS_WRITTEN, FOLDER, crystal_of, slug
from test_sevennet import Trap, _changed, _message

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints.mace_torch import model as reader
from phonopy_equivariant.checkpoints.torch_module import TorchModule, read_torch_module
from phonopy_equivariant.cli import run_command
from phonopy_equivariant.errors import pip_install
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants

FILE = FOLDER / f"{slug(AS_WRITTEN)}.model"


def test_parity_with_mace_torch() -> None:
    """Both sides are float64 and evaluate the same function; tolerances are those asked for."""
    potential, structure = pe.load_potential(FILE), crystal_of(AS_WRITTEN)
    values = np.load(FOLDER / f"{slug(AS_WRITTEN)}_values.npz")
    result = potential.evaluate(structure)
    assert potential.name == slug(AS_WRITTEN) and potential.species == (11, 17)
    assert np.abs(values["crystal_forces"]).max() > 1e-3
    assert abs(result.energy - values["crystal_energy"]) < 1e-8 * len(structure.numbers)
    np.testing.assert_allclose(result.forces, values["crystal_forces"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(result.stress, values["crystal_stress"], rtol=0, atol=1e-9)
    matrix = lattice_force_constants(potential, structure, np.zeros((1, 3)))[0]
    np.testing.assert_allclose(matrix, values["crystal_hessian"], rtol=0, atol=1e-6)


def test_the_command_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "converted.npz"
    assert run_command(["models", "import", str(FILE), str(output)]) == 0
    assert "2 elements, cutoff 3.5 Å, 2 layers\n" in capsys.readouterr().out
    assert pe.load_potential(output).config == pe.load_potential(FILE).config


def test_a_comparison_without_mace_torch_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mace", None)
    words = ["models", "import", str(FILE), str(tmp_path / "out.npz"), "--compare"]
    assert run_command(words) == 1
    message = capsys.readouterr().err
    assert pip_install("mace") in message and message.count("\n") == 1
    assert not (tmp_path / "out.npz").exists()


@functools.cache
def _original() -> TorchModule:
    return read_torch_module(FILE)


def _part(model: TorchModule, path: str) -> TorchModule:
    return functools.reduce(lambda module, name: module.parts[name], path.split("."), model)


def _add_attribute(model: TorchModule) -> None:
    _part(model, "interactions.0").attributes["temperature"] = 3.0


def _add_tensor(model: TorchModule) -> None:
    _part(model, "products.0").tensors["bias"] = np.ones(3)


def _add_module(model: TorchModule) -> None:
    model.parts["charge_embedding"] = TorchModule("Linear", {}, {}, {})


def _other_geometry(model: TorchModule) -> None:
    model.attributes["use_so3"] = True


def _accelerated(model: TorchModule) -> None:
    config = TorchModule("CuEquivarianceConfig", {}, {}, {"enabled": True})
    _part(model, "interactions.1").attributes["cueq_config"] = config


def _other_product(model: TorchModule) -> None:
    place = "products.0.symmetric_contractions.contractions.0"
    _part(model, place).tensors["U_matrix_2"] = np.ones((9, 9, 3))


def _other_activation(model: TorchModule) -> None:
    act = _part(model, "readouts.1.non_linearity.acts.0")
    act.attributes["f"] = "torch.nn.functional.gelu"


def _biased(model: TorchModule) -> None:
    _part(model, "interactions.1.linear").tensors["bias"] = np.ones(4)


def _without_couplings(model: TorchModule) -> None:
    _part(model, "interactions.1.conv_tp").attributes["__codegen__"] = {}


def _other_paths(model: TorchModule) -> None:
    product = _part(model, "interactions.1.conv_tp")
    paths = product.attributes["instructions"]
    product.attributes["instructions"] = [path._replace(connection_mode="uvw") for path in paths]


def _other_model(model: TorchModule) -> TorchModule:
    return TorchModule("AtomicDipolesMACE", model.tensors, model.parts, model.attributes)


def _several_heads(model: TorchModule) -> None:
    model.attributes["heads"] = ["pbe", "r2scan"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_add_attribute, "interactions.0.temperature=3.0"),
        (_add_tensor, "products.0.bias"),
        (_add_module, "charge_embedding"),
        (_other_geometry, "use_so3=True"),
        (_accelerated, "cueq_config=<CuEquivarianceConfig>"),
        (_other_product, "not equivariant"),
        (_other_activation, "gelu"),
        (_biased, "interactions.1.linear has biases"),
        (_without_couplings, "coupling of .* is not in the file"),
        (_other_paths, "uvw"),
        (_other_model, "AtomicDipolesMACE"),
        (_several_heads, "pbe, r2scan.*--head"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    change: Callable[[TorchModule], TorchModule | None],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = copy.deepcopy(_original())
    model = change(model) or model
    monkeypatch.setattr(reader, "read_torch_module", lambda source: model)
    with pytest.raises(pe.PhonopyEquivariantError, match=words) as caught:
        reader.read_mace(FILE)
    assert "\n" not in str(caught.value) and str(FILE) in str(caught.value)


def _instance(monkeypatch: pytest.MonkeyPatch, name: str, **state: Any) -> Any:
    """Return an object of a class of that name, as torch pickles modules."""
    module, _, kind = name.rpartition(".")
    made = type(kind, (), {"__module__": module})
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        place = ".".join(parts[:end])
        monkeypatch.setitem(sys.modules, place, types.ModuleType(place))
    setattr(sys.modules[module], kind, made)
    instance = made()
    empty: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    instance.__dict__.update(empty | state)
    return instance


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_do_something_is_refused_by_name(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trap.folder = str(tmp_path / "made by the pickle")
    inside = _instance(
        monkeypatch, "mace.modules.models.ScaleShiftMACE", _modules={"interactions": Trap()}
    )
    path = _changed(FILE, tmp_path / "bad.model", pickle.dumps(inside, protocol))
    message = _message(path)
    assert "mkdir" in message and "nothing of it was executed" in message
    assert not (tmp_path / "made by the pickle").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mace.modules.models.EnergyDipolesMACE", "EnergyDipolesMACE"),
        ("mace.modules.models.ScaleShiftMACE", "no module|no tensor"),
        ("my_project.MACE", "SevenNet|my_project.MACE"),
        ("__torch__.mace.modules.models.ScaleShiftMACE", "TorchScript"),
    ],
)
def test_models_of_other_classes_are_refused(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = pickle.dumps(_instance(monkeypatch, name), 2)
    message = _message(_changed(FILE, tmp_path / "other.model", program))
    assert any(word in message for word in words.split("|"))


def test_a_list_of_models_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _instance(monkeypatch, "mace.modules.models.MACE")
    path = _changed(FILE, tmp_path / "list.model", pickle.dumps([model], 2))
    assert "a list is inside" in _message(path)


@pytest.mark.parametrize("hooks", ["_forward_hooks", "_forward_pre_hooks"])
def test_a_module_with_hooks_is_refused(
    hooks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch calls them with what a module takes or gives, and they may change it."""
    part = _instance(monkeypatch, "mace.modules.blocks.ScaleShiftBlock", **{hooks: {0: "name"}})
    model = _instance(
        monkeypatch, "mace.modules.models.ScaleShiftMACE", _modules={"scale_shift": part}
    )
    message = _message(_changed(FILE, tmp_path / "hooks.model", pickle.dumps(model, 2)))
    assert f"ScaleShiftBlock has {hooks}" in message


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    content = FILE.read_bytes()
    for fraction in (0.001, 0.3, 0.9, 0.9999):
        path = tmp_path / "cut.model"
        path.write_bytes(content[: int(fraction * len(content))])
        _message(path)
    assert "cut short" in _message(_changed(FILE, tmp_path / "less.model", drop="data/3"))
    with zipfile.ZipFile(FILE) as archive:
        program = archive.read(next(n for n in archive.namelist() if n.endswith("/data.pkl")))
    _message(_changed(FILE, tmp_path / "half.model", program[: len(program) // 2]))

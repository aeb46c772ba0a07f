"""SevenNet's checkpoints: parity with values of its own code that are stored here, and refusals.

The files are written by torch, with random weights: see sevennet_zoo.py. Reading needs no torch.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from mace_zoo import slug
from sevennet_zoo import CASES, MODALITIES, crystal_of, modality_of, path_of

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints.sevennet.model import read_sevennet
from phonopy_equivariant.checkpoints.torch_file import read_torch
from phonopy_equivariant.cli import run_command
from phonopy_equivariant.potential import Potential, make_potential
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants

PLAIN = "three degrees, linear skips"


def potential_of(name: str) -> Potential:
    return make_potential(*read_sevennet(path_of(name), modality_of(name)), name=name)


@pytest.mark.parametrize("name", CASES)
def test_parity_with_sevennet(name: str) -> None:
    """Both sides are float64 and evaluate the same function; tolerances are those asked for."""
    potential, structure = potential_of(name), crystal_of()
    values = np.load(path_of(name).with_suffix(".npz"))
    result = potential.evaluate(structure)
    assert np.abs(values["forces"]).max() > 1e-3
    assert abs(result.energy - values["energy"]) < 1e-8 * len(structure.numbers)
    np.testing.assert_allclose(result.forces, values["forces"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(result.stress, values["stress"], rtol=0, atol=1e-9)
    matrix = lattice_force_constants(potential, structure, np.zeros((1, 3)))[0]
    np.testing.assert_allclose(matrix, values["hessian"], rtol=0, atol=1e-6)
    assert potential.parity == CASES[name].get("is_parity", False)


def test_a_file_loads_by_its_path() -> None:
    potential = pe.load_potential(path_of(PLAIN))
    assert potential.name == slug(PLAIN) and potential.species == (8, 11, 17)
    expected = np.load(path_of(PLAIN).with_suffix(".npz"))["energy"]
    assert abs(potential.evaluate(crystal_of()).energy - expected) < 1e-8


def test_modalities_must_be_named() -> None:
    for modality in (None, "HSE"):
        with pytest.raises(pe.PhonopyEquivariantError, match="R2SCAN, PBE.*--head"):
            read_sevennet(path_of("modalities"), modality)
    with pytest.raises(pe.PhonopyEquivariantError, match="no modalities"):
        read_sevennet(path_of(PLAIN), "PBE")
    energies = [
        make_potential(*read_sevennet(path_of("modalities"), name)).evaluate(crystal_of()).energy
        for name in MODALITIES
    ]
    assert abs(energies[0] - energies[1]) > 0.1


def test_the_command_converts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["models", "import", str(path_of("modalities")), str(tmp_path / "out"), "--head", "PBE"]
    assert run_command(words) == 0
    assert "3 elements" in capsys.readouterr().out
    assert run_command(["models", "show", str(tmp_path / "out.npz")]) == 0
    assert "\nhead             PBE\n" in capsys.readouterr().out
    expected = np.load(path_of("modalities").with_suffix(".npz"))["forces"]
    result = pe.load_potential(tmp_path / "out.npz").evaluate(crystal_of())
    np.testing.assert_allclose(result.forces, expected, rtol=0, atol=1e-7)


def _message(path: Path) -> str:
    with pytest.raises(pe.PhonopyEquivariantError) as caught:
        pe.load_potential(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


class Trap:
    """A pickle that would make a folder."""

    folder = ""

    def __reduce__(self) -> tuple:
        import os

        return os.mkdir, (Trap.folder,)


def _changed(
    source: Path,
    target: Path,
    program: bytes | None = None,
    drop: str = "",
    member: str = "/data.pkl",
) -> Path:
    """Copy an archive of torch with another pickle, or without a member."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for item in old.infolist():
            if drop and item.filename.endswith(drop):
                continue
            content = old.read(item)
            if program is not None and item.filename.endswith(member):
                content = program
            new.writestr(item.filename, content)
    return target


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_do_something_is_refused_by_name(protocol: int, tmp_path: Path) -> None:
    Trap.folder = str(tmp_path / "made by the pickle")
    inside = {"config": {"_model_type": "E3_equivariant_model", "version": Trap()}}
    path = _changed(path_of(PLAIN), tmp_path / "bad.pth", pickle.dumps(inside, protocol))
    assert "mkdir" in _message(path) and "nothing of it was executed" in _message(path)
    assert not (tmp_path / "made by the pickle").exists()


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    content = path_of(PLAIN).read_bytes()
    for fraction in (0.001, 0.3, 0.9, 0.9999):
        path = tmp_path / "cut.pth"
        path.write_bytes(content[: int(fraction * len(content))])
        _message(path)
    assert "cut short" in _message(_changed(path_of(PLAIN), tmp_path / "less.pth", drop="data/3"))


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = _changed(path_of(PLAIN), tmp_path / "bomb.pth")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/999", bytes(2**25))
    assert "would unpack to 32 MiB, more than 20 times" in _message(path)


def test_a_file_of_the_torch_before_archives_says_how_to_write_it_again(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    path.write_bytes(pickle.dumps({"config": {}}, 2))
    assert "before version 1.6" in _message(path)


@pytest.mark.parametrize("arguments", [b"(I1\nI0\n(I2\nt(I1\ntt", b"I1\n"], ids=["storage", "none"])
def test_a_tensor_of_other_arguments_is_refused(arguments: bytes, tmp_path: Path) -> None:
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"
    program = b"(S'config'\n" + tensor + b"d."
    assert "damaged" in _message(_changed(path_of(PLAIN), tmp_path / "bad.pth", program))


def test_text_inside_a_damaged_pickle_is_not_repeated(tmp_path: Path) -> None:
    program = b"F" + b"x" * 5000 + b"\n."
    message = _message(_changed(path_of(PLAIN), tmp_path / "bad.pth", program))
    assert "damaged" in message and len(message) < 400


def test_an_archive_with_a_password_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
    content = bytearray(path.read_bytes())
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(start) + flags] |= 1
    path.write_bytes(content)
    assert "cannot be read" in _message(path)


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    """Strides that lead out of a storage would read memory that is not the file's."""
    with zipfile.ZipFile(path_of(PLAIN)) as archive:
        name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
        program = archive.read(name)
    sizes = pickle_integers(program)
    assert sizes, "the pickle holds sizes as one byte each"
    refused = 0
    for place in sizes:
        changed = bytearray(program)
        changed[place] = min(255, changed[place] + 40)
        path = _changed(path_of(PLAIN), tmp_path / "wide.pth", bytes(changed))
        try:
            read_torch(path, ("model_state_dict",))
        except pe.PhonopyEquivariantError as error:
            refused += "storage" in str(error) or "cut short" in str(error)
    assert refused > 5


def pickle_integers(program: bytes) -> list[int]:
    """Return where a pickle's small integers stand, the first hundred of those above three."""
    import pickletools

    places = [
        position + 1
        for opcode, argument, position in pickletools.genops(program)
        if opcode.name == "BININT1" and argument > 3 and position is not None
    ]
    return places[-100:]


def test_dictionaries_of_torch_without_a_model_are_refused(tmp_path: Path) -> None:
    weights = OrderedDict(x=1.0)
    for inside in ({}, {"state_dict": weights}, weights, {"config": {"version": "0.9.1"}}):
        path = _changed(path_of(PLAIN), tmp_path / "other.pth", pickle.dumps(inside, 2))
        assert "SevenNet" in _message(path)
    path = _changed(path_of(PLAIN), tmp_path / "list.pth", pickle.dumps([1, 2], 2))
    assert "no dictionary" in _message(path)


def _with_config(tmp_path: Path, **changes: object) -> Path:
    """Write a checkpoint whose configuration is changed; the weights stay what they are."""
    config = read_torch(path_of(PLAIN), ("config",))["config"] | changes
    config = {key: value for key, value in config.items() if value is not ...}
    inside = {"config": config, "model_state_dict": {}}
    return _changed(path_of(PLAIN), tmp_path / "changed.pth", pickle.dumps(inside, 2))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"temperature": 3.0}, "temperature"),
        ({"act_radial": "ssp"}, "act_radial"),
        ({"interaction_type": "mace"}, "interaction_type"),
        ({"self_connection_type": "none"}, "none"),
        ({"version": ...}, "version"),
        ({"cutoff": ...}, "cutoff"),
        ({"cuequivariance_config": {"use": True}}, "cuequivariance_config"),
        ({"irreps_manual": ["4x0e", "2x0e+2x0e", "4x0e"]}, "twice"),
        ({"readout_as_fcn": True}, "relu"),
        ({}, "rescale_atomic_energy.scale is missing"),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused_by_name(
    changes: dict[str, object], word: str, tmp_path: Path
) -> None:
    assert word in _message(_with_config(tmp_path, **changes))


def test_an_entry_that_nobody_reads_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from phonopy_equivariant.checkpoints.sevennet import model

    content = read_torch(path_of(PLAIN), ("config", "model_state_dict"))
    content["model_state_dict"]["0_convolution.temperature"] = np.ones(3)
    monkeypatch.setattr(model, "read_torch", lambda path, keys: content)
    with pytest.raises(pe.PhonopyEquivariantError, match="0_convolution.temperature is not known"):
        read_sevennet(path_of(PLAIN))

"""Checkpoints of our own: exact round trips, whole files only, errors in one line."""

from __future__ import annotations

import io
import os
import zipfile

import jax
import numpy as np
import pytest
import yaml
from conftest import BOTH_PARITIES, small_config

from phonopy_equivariant.checkpoints import native
from phonopy_equivariant.checkpoints.converted import convert
from phonopy_equivariant.checkpoints.fetch import file_sha256
from phonopy_equivariant.checkpoints.load import load_potential
from phonopy_equivariant.checkpoints.native import HEADER, read_checkpoint, save_checkpoint
from phonopy_equivariant.checkpoints.summary import summary_lines
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import make_potential, random_potential


def _same(one, other) -> bool:
    """Tell whether two trees have the same structure, dtypes and bits."""
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(leaves, others, strict=True)
    )


def _refused(path, *words: str) -> None:
    """Check that loading raises one line that names the file and has the words."""
    with pytest.raises(PhonopyEquivariantError) as caught:
        load_potential(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    for word in words:
        assert word in message


def _members(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _npy(array, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.fixture
def saved(potential, tmp_path):
    return save_checkpoint(potential, tmp_path / "model.npz")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("changes", [{}, BOTH_PARITIES | {"layer_norm": True}])
def test_round_trip_is_exact_to_the_bit(dtype, changes, tmp_path):
    # 1e-7 and 1/3: floats that YAML and decimal digits could get wrong
    config = small_config(**changes, shift=1e-7, scale=1 / 3)
    potential = random_potential(config, seed=3, dtype=dtype)
    path = save_checkpoint(potential, tmp_path / "model.npz")
    loaded = load_potential(path, dtype)
    assert loaded.config == potential.config
    assert _same(loaded.params, potential.params)
    assert loaded.sha256 == file_sha256(path)


def test_configuration_with_numpy_numbers_is_stored_as_plain_values(tmp_path):
    config = small_config(cutoff=np.float64(3.1), avg_num_neighbors=np.float64(7.3))
    path = save_checkpoint(random_potential(config), tmp_path / "model.npz")
    assert load_potential(path).config == config


def test_the_file_decides_the_values_and_dtype_the_precision(potential, tmp_path):
    single = make_potential(potential.config, potential.params, "float32")
    path = save_checkpoint(single, tmp_path / "model.npz")
    # float32 values are exact in float64
    widened = make_potential(single.config, single.params, "float64")
    assert _same(load_potential(path, "float64").params, widened.params)
    with pytest.raises(PhonopyEquivariantError, match="float16"):
        load_potential(path, "float16")


def test_labels_and_name(potential, tmp_path):
    labels = {"name": "rock salt", "licence": "CC-BY-4.0", "theory": "PBE, 520 eV: Γ only"}
    path = save_checkpoint(potential, tmp_path / "model.npz", labels)
    assert read_checkpoint(path).labels == labels
    assert load_potential(path).name == "rock salt"


def test_numpy_opens_the_file_without_pickle_and_equal_potentials_give_equal_files(
    potential, saved, tmp_path
):
    with np.load(saved, allow_pickle=False) as arrays:
        up = arrays["layers/0/up/0e"]
    assert np.array_equal(up, np.asarray(potential.params["layers"][0]["up"]["0e"]))
    again = save_checkpoint(potential, tmp_path / "again.npz")
    assert again.read_bytes() == saved.read_bytes()


def test_a_failed_save_leaves_the_old_file_and_nothing_else(potential, saved, monkeypatch):
    old = saved.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(native.os, "fsync", fail)
    with pytest.raises(PhonopyEquivariantError, match="No space left"):
        save_checkpoint(potential, saved, {"name": "new"})
    assert saved.read_bytes() == old
    assert os.listdir(saved.parent) == [saved.name]


def test_saving_refuses_what_could_not_be_loaded(potential, tmp_path):
    with pytest.raises(PhonopyEquivariantError, match=r"end in \.npz"):
        save_checkpoint(potential, tmp_path / "model.ckpt")
    with pytest.raises(PhonopyEquivariantError, match="No such file"):
        save_checkpoint(potential, tmp_path / "absent" / "model.npz")
    params = jax.tree.map(lambda x: np.full(x.shape, np.nan), potential.params)
    diverged = make_potential(potential.config, params)
    with pytest.raises(PhonopyEquivariantError, match="not finite"):
        save_checkpoint(diverged, tmp_path / "model.npz")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_file_cut_short_is_refused(saved, fraction):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(fraction * len(content))])
    _refused(saved, "checkpoint")


def test_every_damaged_byte_of_the_weights_is_noticed(saved):
    content = bytearray(saved.read_bytes())
    for position in np.linspace(2, len(content) - 30, 40).astype(int):
        damaged = content.copy()
        damaged[position] ^= 0xFF
        saved.write_bytes(damaged)
        try:
            load_potential(saved)
        except PhonopyEquivariantError as error:
            assert "\n" not in str(error)
        else:
            # a field of the zip format that says nothing about the content, such as a date
            with zipfile.ZipFile(saved) as archive:
                assert archive.testzip() is None


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK garbage", b"{}", b'{"cutoff": "\xff"}'])
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    _refused(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, ["format 2", "upgrade"]),
        ({"architecture": "mace9"}, ["mace9", "upgrade"]),
        ({"config": {"cutof": 3.0}}, ["cutof", "cutoff"]),
        ({"config": {"cutoff": 3.0}}, ["incomplete"]),
        ({"config": {"species": [1], "cutoff": "far"}}, ["type"]),
        ({"config": {"species": [1], "cutoff": -1.0}}, ["cutoff=-1.0", "out of range"]),
        ({"config": None}, []),
        ({"labels": 3}, []),
    ],
)
def test_a_bad_header_is_refused(saved, change, words):
    members = _members(saved)
    header = yaml.safe_load(members[HEADER]) | change
    _write(saved, members | {HEADER: yaml.safe_dump(header).encode()})
    _refused(saved, *words)


@pytest.mark.parametrize("header", [b"", b"- 1", b"a: [", b"\xff\xfe\x00", b"format: !!python/x 1"])
def test_an_unreadable_header_is_refused(saved, header):
    _write(saved, _members(saved) | {HEADER: header})
    _refused(saved, HEADER)


def test_a_zip_archive_without_header_is_refused(tmp_path):
    path = tmp_path / "arrays.npz"
    np.savez(path, a=np.zeros(3))
    _refused(path, HEADER)


def test_arrays_must_be_those_of_the_configuration(saved):
    members = _members(saved)
    name = "layers/0/up/0e.npy"
    shape = np.load(io.BytesIO(members[name])).shape
    _write(saved, {key: value for key, value in members.items() if key != name})
    _refused(saved, "lacks", "layers/0/up/0e")
    _write(saved, members | {"layers/0/up/9e.npy": members[name]})
    _refused(saved, "surplus", "layers/0/up/9e")
    for array in (np.zeros(7), np.zeros(shape, int), np.zeros(shape, complex)):
        _write(saved, members | {name: _npy(array)})
        _refused(saved, "layers/0/up/0e", str(array.dtype))
    # a pickle inside is not unpacked
    _write(saved, members | {name: _npy(np.full(shape, None), allow_pickle=True)})
    _refused(saved, "damaged")


def test_a_checkpoint_of_our_own_is_not_imported(saved, tmp_path):
    with pytest.raises(PhonopyEquivariantError, match="is a checkpoint of this package already"):
        convert(saved, tmp_path / "again.npz")


def test_a_missing_file_is_not_taken_for_a_name(tmp_path):
    for name, reason in (("gone", "does not exist"), ("folder", "is a folder")):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(PhonopyEquivariantError, match=reason):
            summary_lines(str(tmp_path / name))

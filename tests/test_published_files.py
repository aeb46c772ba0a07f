"""Published files of nequix: they load, and damaged or changed ones are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phonopy_equivariant.catalogue.cards import MODELS_VARIABLE, list_models
from phonopy_equivariant.checkpoints.load import load_potential, resolve
from phonopy_equivariant.errors import PhonopyEquivariantError


def _refused(path: Path, why: str = "") -> None:
    with pytest.raises(PhonopyEquivariantError) as caught:
        load_potential(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and why in message


def test_published_files_have_their_hash_and_load(shared, monkeypatch):
    monkeypatch.setenv(MODELS_VARIABLE, str(shared / "models"))
    for card in list_models():
        if card.format != "nequix":
            continue
        assert resolve(card.name) == shared / "models" / f"{card.name}.nqx"
    potential = load_potential("nequix-mp-1-pft", dtype="float32")
    assert potential.name == "nequix-mp-1-pft"
    assert (potential.cutoff, potential.num_interactions, len(potential.species)) == (6.0, 4, 89)


@pytest.fixture(scope="module")
def published(shared) -> bytes:
    """Return a published file that loads as it is."""
    path = shared / "models" / "nequix-mp-1-pft.nqx"
    assert load_potential(path, dtype="float32").cutoff == 6.0
    return path.read_bytes()


@pytest.mark.parametrize("fraction", [0.0005, 0.01, 0.5, 0.99999])
def test_a_published_file_cut_short_is_refused(published, tmp_path, fraction):
    path = tmp_path / "cut.nqx"
    path.write_bytes(published[: int(fraction * len(published))])
    _refused(path)


@pytest.mark.parametrize(
    "change",
    [
        {"cutoff": "far"},
        {"n_layers": 2.5},
        {"n_layers": None},
        {"hidden_irreps": 5},
        {"hidden_irreps": "64x9z"},
        {"atomic_numbers": ["H"]},
        {"radial_mlp_size": -1},
        {"radial_mlp_size": 63},
    ],
)
def test_a_published_file_with_another_configuration_is_refused(published, tmp_path, change):
    header, _, arrays = published.partition(b"\n")
    path = tmp_path / "changed.nqx"
    path.write_bytes(json.dumps(json.loads(header) | change).encode() + b"\n" + arrays)
    _refused(path)


def test_bytes_after_the_last_array_are_refused(published, tmp_path):
    path = tmp_path / "long.nqx"
    path.write_bytes(published + b"x")
    _refused(path, "after the last array")


def test_an_array_of_impossible_size_is_refused(published, tmp_path):
    path = tmp_path / "huge.nqx"
    head, _, tail = published.partition(b"(89,), }            ")
    assert tail, "the first array is that of the 89 free atoms"
    path.write_bytes(head + b"(89000000000000,), }" + tail)
    _refused(path)

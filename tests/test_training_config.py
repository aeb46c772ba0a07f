"""The YAML file of a training: what is refused, and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.training.config import HessianTerm, read_config

GOOD = """\
output: out
model: {cutoff: 3.0}
sets:
  - {path: data.extxyz, valid: 0.1}
loss: {energy: {weight: 1}, forces: {weight: 1e2}}
optimiser: {learning_rate: 1e-3}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "train.yaml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file_and_numbers_are_numbers(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, GOOD))
    assert config.sets[0].path == str(tmp_path / "data.extxyz")
    assert config.output == str(tmp_path / "out")
    # YAML 1.1 takes 1e-3 for text
    assert config.optimiser.learning_rate == 1e-3
    assert config.loss.terms == ("energy", "forces")


def test_a_configuration_survives_its_own_yaml(tmp_path: Path) -> None:
    import yaml

    config = read_config(written(tmp_path, GOOD))
    again = read_config(written(tmp_path, yaml.safe_dump(config.to_dict())))
    assert again == config


BAD = {
    "unknown key 'optimizer'; did you mean 'optimiser'": ("optimiser:", "optimizer:"),
    "unknown key 'loss.force'; did you mean 'forces'": ("forces:", "force:"),
    "unknown key 'sets[0].validation'; did you mean": ("valid:", "validation:"),
    "'output' is missing": ("output: out\n", ""),
    "'sets[0].path' is missing": ("path: data.extxyz, ", ""),
    "optimiser.learning_rate: 'fast' is not of type float": ("1e-3", "fast"),
    "loss.energy.kind: 'l2' is not one of squared, mae, huber": (
        "{weight: 1}",
        "{weight: 1, kind: l2}",
    ),
    "either model (random weights) or finetune_from": ("model:", "finetune_from: x\nmodel:"),
    "valid=1.5": ("valid: 0.1", "valid: 1.5"),
    "limit of data.extxyz=-1: must be at least 0": ("valid: 0.1", "limit: -1"),
    "batch_size of data.extxyz=0: must be at least 1": ("valid: 0.1", "batch_size: 0"),
    "seed=-1: must be at least 0": ("output: out", "seed: -1\noutput: out"),
    "loss.hessian.qpoints=0": ("forces:", "hessian: {qpoints: 0}, forces:"),
    "loss.spectrum.qpoints=0": ("forces:", "spectrum: {qpoints: 0}, forces:"),
    "sets: must be a list": ("sets:\n  - {path: data.extxyz, valid: 0.1}", "sets: data.extxyz"),
    "not valid YAML": ("output: out", "output: [out"),
    "takes part in 'stress'": ("valid: 0.1", "terms: [stress]"),
}


@pytest.mark.parametrize("message", BAD)
def test_mistakes_are_named_in_one_line_with_the_file(message: str, tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace(*BAD[message]))
    with pytest.raises(PhonopyEquivariantError) as caught:
        read_config(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_biased_combinations_are_refused() -> None:
    with pytest.raises(PhonopyEquivariantError, match="biased"):
        HessianTerm(kind="mae", estimator="probes")

"""Parity with mace-torch over the zoo; runs where torch and mace-torch are installed.

Both sides are float64 and evaluate the same function, so they agree to rounding; the tolerances
are those asked of the conversion.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    # e3nn of torch warns on import, with torch's own switches
    warnings.simplefilter("ignore")
    pytest.importorskip("mace", reason="mace-torch is not installed (extra: mace)")
import torch
from mace_zoo import (
    AS_WRITTEN,
    CASES,
    FOLDER,
    build,
    crystal_of,
    head_of,
    molecule_of,
    saved,
    slug,
    torch_values,
)

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints.converted import convert
from phonopy_equivariant.checkpoints.mace_torch import comparison
from phonopy_equivariant.checkpoints.mace_torch.model import read_mace
from phonopy_equivariant.checkpoints.torch_file import names_in
from phonopy_equivariant.cli import run_command
from phonopy_equivariant.potential import make_potential
from phonopy_equivariant.response.autodiff.hessian import hessian

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and mace's own


@pytest.mark.parametrize("name", CASES)
def test_energies_forces_stress_and_hessian_are_those_of_mace_torch(name):
    if CASES[name].get("use_reduced_cg"):
        pytest.importorskip("cuequivariance_torch", reason="it makes reduced couplings")
    model = build(name)
    potential = make_potential(*read_mace(saved(model), head_of(name)))
    for structure in (crystal_of(name), molecule_of(name)):
        expected = torch_values(model, structure, head_of(name))
        result = potential.evaluate(structure)
        atoms = len(structure.numbers)
        assert np.abs(expected["forces"]).max() > 1e-3
        assert abs(result.energy - expected["energy"]) < 1e-8 * atoms
        np.testing.assert_allclose(result.forces, expected["forces"], rtol=0, atol=1e-7)
        if "stress" in expected:
            np.testing.assert_allclose(result.stress, expected["stress"], rtol=0, atol=1e-9)
        matrix = hessian(structure, potential).reshape(3 * atoms, 3 * atoms)
        np.testing.assert_allclose(matrix, expected["hessian"], rtol=0, atol=1e-6)


def test_the_command_converts_and_compares(tmp_path, capsys):
    path = tmp_path / "some.model"
    torch.save(build("plain then residual"), path)
    words = ["models", "import", str(path), str(tmp_path / "out"), "--compare"]
    assert run_command(words) == 0
    assert "deviation from mace-torch" in capsys.readouterr().out
    structure = crystal_of("plain then residual")
    expected = torch_values(build("plain then residual"), structure, None)
    result = pe.load_potential(tmp_path / "out.npz").evaluate(structure)
    np.testing.assert_allclose(result.forces, expected["forces"], rtol=0, atol=1e-7)


def test_a_file_is_not_opened(tmp_path):
    """Neither by the conversion, nor by a comparison of a file that the conversion refuses."""

    class Trap(torch.nn.Module):
        def __reduce__(self):
            return (tmp_path.joinpath("opened").touch, ())

    model = build("plain then residual")
    model.interactions[0].skip_tp = Trap()
    torch.save(model, tmp_path / "trap.model")
    for compare in (False, True):
        with pytest.raises(pe.PhonopyEquivariantError, match="nothing of it was executed"):
            convert(tmp_path / "trap.model", tmp_path / "out.npz", compare=compare)
    assert not (tmp_path / "opened").exists() and not (tmp_path / "out.npz").exists()


def test_a_model_stored_in_single_precision(tmp_path):
    path = tmp_path / "single.model"
    torch.save(build("three orders").float(), path)
    result = convert(path, tmp_path / "out.npz", compare=True)
    assert max(result.energy_deviation, result.force_deviation) < 1e-6


def test_a_comparison_that_fails_writes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "some.model"
    torch.save(build("plain then residual"), path)
    monkeypatch.setattr(comparison, "deviation", lambda *_: (2e-5, 0.0))
    with pytest.raises(pe.PhonopyEquivariantError, match="2e-05 eV/atom"):
        convert(path, tmp_path / "out.npz", compare=True)
    assert not (tmp_path / "out.npz").exists()


def test_the_file_in_the_repository_is_what_mace_torch_writes(tmp_path):
    """The plain suite reads a file whose pickle names what a new one names."""
    torch.save(build(AS_WRITTEN), tmp_path / "new.model")
    names = names_in(FOLDER / f"{slug(AS_WRITTEN)}.model")
    assert len(names) > 30 and names == names_in(tmp_path / "new.model")


def test_heads_must_be_named():
    model = build("two heads, soft")
    with pytest.raises(pe.PhonopyEquivariantError, match="pbe, r2scan"):
        read_mace(saved(model))
    with pytest.raises(pe.PhonopyEquivariantError, match="b3lyp"):
        read_mace(saved(model), "b3lyp")


def test_kernels_of_others_are_refused():
    from mace.modules.wrapper_ops import CuEquivarianceConfig

    model = build("plain then residual")
    model.interactions[1].cueq_config = CuEquivarianceConfig(enabled=True)
    with pytest.raises(pe.PhonopyEquivariantError, match="cueq_config|cuequivariance"):
        read_mace(saved(model))


def test_models_with_other_energies_are_refused():
    with pytest.raises(pe.PhonopyEquivariantError, match="Linear"):
        read_mace(saved(torch.nn.Linear(2, 2)))

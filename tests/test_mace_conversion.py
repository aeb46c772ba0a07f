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
from mace_zoo import CASES, build, crystal_of, head_of, molecule_of, torch_values

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints.mace_torch.convert import convert_mace
from phonopy_equivariant.checkpoints.mace_torch.model import read_mace
from phonopy_equivariant.cli import run_command
from phonopy_equivariant.potential import make_potential
from phonopy_equivariant.response.autodiff.hessian import hessian

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and mace's own


@pytest.mark.parametrize("name", CASES)
def test_energies_forces_stress_and_hessian_are_those_of_mace_torch(name):
    model = build(name)
    potential = make_potential(*read_mace(model, head_of(name)))
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


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "some.model"
    torch.save(build("plain then residual"), path)
    return path


def test_the_command_converts_and_the_result_loads_without_torch(saved, tmp_path, capsys):
    assert run_command(["models", "import", str(saved), str(tmp_path / "out"), "--trust"]) == 0
    assert "2 elements" in capsys.readouterr().out
    structure = crystal_of("plain then residual")
    expected = torch_values(build("plain then residual"), structure, None)
    result = pe.load_potential(tmp_path / "out.npz").evaluate(structure)
    np.testing.assert_allclose(result.forces, expected["forces"], rtol=0, atol=1e-7)


def test_an_untrusted_file_is_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("opened").touch, ())

    path = tmp_path / "trap.model"
    torch.save(Trap(), path)
    with pytest.raises(pe.PhonopyEquivariantError, match="trust=True"):
        convert_mace(path, tmp_path / "out.npz")
    assert not (tmp_path / "opened").exists()
    with pytest.raises(pe.PhonopyEquivariantError, match="no|not"):
        convert_mace(path, tmp_path / "out.npz", trusted=True)
    assert (tmp_path / "opened").exists()
    assert not (tmp_path / "out.npz").exists()


def test_a_model_stored_in_single_precision(tmp_path):
    path = tmp_path / "single.model"
    torch.save(build("three orders").float(), path)
    result = convert_mace(path, tmp_path / "out.npz", trusted=True)
    assert max(result.energy_deviation, result.force_deviation) < 1e-6


def test_heads_must_be_named():
    model = build("two heads, soft")
    with pytest.raises(pe.PhonopyEquivariantError, match="pbe, r2scan"):
        read_mace(model)
    with pytest.raises(pe.PhonopyEquivariantError, match="b3lyp"):
        read_mace(model, "b3lyp")


def _add_attribute(model):
    model.interactions[0].temperature = 3.0


def _add_buffer(model):
    model.products[0].register_buffer("bias", torch.ones(3))


def _add_module(model):
    model.charge_embedding = torch.nn.Linear(2, 2)


def _other_geometry(model):
    model.use_so3 = True


def _accelerated(model):
    model.interactions[1].cueq_config = "enabled"


def _other_product(model):
    table = model.products[0].symmetric_contractions.contractions[0].U_matrix_2
    table += 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_add_attribute, "interactions.0.temperature=3.0"),
        (_add_buffer, "products.0.bias"),
        (_add_module, "charge_embedding"),
        (_other_geometry, "use_so3=True"),
        (_accelerated, "cueq_config"),
        (_other_product, "not equivariant"),
    ],
)
def test_what_is_not_known_is_refused_by_name(change, words):
    model = build("plain then residual")
    change(model)
    with pytest.raises(pe.PhonopyEquivariantError, match=words):
        read_mace(model)


def test_models_with_other_energies_are_refused():
    with pytest.raises(pe.PhonopyEquivariantError, match="Linear"):
        read_mace(torch.nn.Linear(2, 2))

"""Sound and stability from elastic tensors, and the tensor from long waves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.build import bulk
from cli_helpers import assert_refused, command, model, poscar

import phonopy_equivariant as pe
from phonopy_equivariant.response.long_waves import long_wave_tensor
from phonopy_equivariant.response.sound import (
    debye_temperature,
    is_born_stable,
    mean_sound_velocity,
    sound_velocities,
)


def cubic(c11: float, c12: float, c44: float) -> np.ndarray:
    tensor = np.zeros((6, 6))
    tensor[:3, :3] = c12
    tensor[range(3), range(3)] = c11
    tensor[range(3, 6), range(3, 6)] = c44
    return tensor


def test_an_isotropic_solid_has_two_velocities() -> None:
    c11, c44, density = 120.0, 30.0, 4.0
    tensor = cubic(c11, c11 - 2 * c44, c44)
    transverse, longitudinal = np.sqrt(c44 / density), np.sqrt(c11 / density)
    directions = np.random.default_rng(1).normal(size=(20, 3))
    velocities = sound_velocities(tensor, density, directions)
    np.testing.assert_allclose(velocities[:, :2], transverse, rtol=1e-12)
    np.testing.assert_allclose(velocities[:, 2], longitudinal, rtol=1e-12)
    mean = (3 / (2 / transverse**3 + 1 / longitudinal**3)) ** (1 / 3)
    assert mean_sound_velocity(tensor, density) == pytest.approx(mean, rel=1e-12)


def test_velocities_along_special_directions_of_a_cubic_crystal() -> None:
    """(110): ρv² = c44, (c11 - c12)/2 and (c11 + c12 + 2c44)/2 (Kittel, chapter 3)."""
    c11, c12, c44, density = 168.4, 121.4, 75.4, 8.96
    found = sound_velocities(cubic(c11, c12, c44), density, np.array([[1.0, 1, 0]]))[0]
    squares = sorted([c44, (c11 - c12) / 2, (c11 + c12 + 2 * c44) / 2])
    np.testing.assert_allclose(found, np.sqrt(np.array(squares) / density), rtol=1e-12)


def test_debye_temperature_of_copper() -> None:
    """344.5 K from elastic constants at 0 K (Overton and Gaffney, Phys. Rev. 98, 969 (1955))."""
    tensor, density = cubic(176.2, 124.94, 81.77), 9.018  # g/cm³ at 0 K
    number = density / 63.546 * 0.602214076
    found = debye_temperature(mean_sound_velocity(tensor, density), number)
    assert found == pytest.approx(344.5, abs=1.5)


def test_stability_against_strain() -> None:
    assert is_born_stable(cubic(100, 50, 30))
    for constants in ((100, 120, 30), (100, 50, -1), (100, -60, 30)):
        assert not is_born_stable(cubic(*constants))
    unstable = sound_velocities(cubic(100, 50, -1), 1.0, np.array([[1.0, 0, 0]]))
    assert np.isnan(unstable[0, 0]) and not np.isnan(unstable[0, 2])


@pytest.mark.parametrize("constants", [(100, 50, 30), (100, 50, -1), (100, 50, 0)])
def test_moduli_of_a_stable_crystal_only(constants: tuple[float, float, float]) -> None:
    """Reuss's bound inverts the tensor: a negative or zero constant makes no modulus."""
    tensor = cubic(*constants)
    text = "\n".join(
        pe.ElasticTensor(tensor, tensor, np.zeros((3, 6)), 0.0, 0.0, 2.0, 0.05).lines()
    )
    is_stable = constants[2] > 0
    assert ("bulk modulus" in text) == is_stable == ("none of an unstable crystal" not in text)
    assert "nan" not in text


def test_long_waves_give_the_relaxed_tensor() -> None:
    """Atoms relax inside the cell of zinc blende; the two roads share no derivative by strain."""
    potential = pe.load_potential()
    atoms = pe.relax(bulk("ZnS", "zincblende", a=5.4), potential, fmax=1e-7)
    tensor = pe.elastic_tensor(atoms, potential)
    assert np.abs(tensor.relaxed - tensor.clamped).max() > 0.01 * np.abs(tensor.clamped).max()
    found = long_wave_tensor(atoms, potential)
    largest = np.abs(tensor.relaxed).max()
    np.testing.assert_allclose(found, tensor.relaxed, rtol=0, atol=1e-6 * largest)


def test_the_command(tmp_path: Path) -> None:
    poscar(tmp_path)
    words = ("elastic", "POSCAR", "--model", model())
    done = command(*words, "--relax", cwd=tmp_path)
    content = yaml.safe_load((tmp_path / "elastic.yaml").read_text("utf-8"))
    relaxed = np.array(content["relaxed"])
    np.testing.assert_allclose(relaxed, relaxed.T, atol=1e-6)
    assert f"{content['bulk_modulus']:.2f} GPa" in done.stdout and "second road" in done.stdout
    command(*words, "--fmax", 1e-3, cwd=tmp_path, status=2)  # and no --relax
    refused = command("elastic", "nowhere", "--model", model(), cwd=tmp_path, status=1)
    assert_refused(refused, "nowhere", "does not exist")

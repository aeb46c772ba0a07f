"""Grüneisen parameters on meshes and along bands: weights, means, paths, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase.build import bulk
from cli_helpers import assert_refused, command, model, poscar
from phonopy import Phonopy
from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath

import phonopy_equivariant as pe
from phonopy_equivariant.phonons.cells import vibrational_operations
from phonopy_equivariant.phonons.thermal_expansion import allowed_strains
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.structure import as_structure, to_phonopy

SALT = bulk("NaCl", "rocksalt", a=5.7)
MESH = (3, 3, 3)


@pytest.fixture(scope="module")
def on_mesh(one_layer: Potential) -> pe.GruneisenMesh:
    return pe.gruneisen_mesh(SALT, one_layer, MESH)


def test_weights_stand_for_the_whole_mesh(one_layer: Potential, on_mesh: pe.GruneisenMesh) -> None:
    """Every q of the mesh by itself: the same modes, and the same means."""
    grid = np.stack(np.meshgrid(*map(np.arange, MESH), indexing="ij"), axis=-1).reshape(-1, 3) / 3
    whole = pe.gruneisen_parameters(SALT, one_layer, grid)
    assert on_mesh.weights.sum() == len(grid) and len(on_mesh.qpoints) < len(grid) / 3
    repeated = np.repeat(on_mesh.frequencies, on_mesh.weights, axis=0)
    np.testing.assert_allclose(
        np.sort(repeated.ravel()), np.sort(whole.frequencies.ravel()), atol=1e-7
    )
    ones = np.ones(len(grid), int)
    full = pe.GruneisenMesh(MESH, grid, ones, whole.frequencies, whole.parameters)
    temperatures = [30.0, 300.0, 3000.0]
    np.testing.assert_allclose(on_mesh.mean(temperatures), full.mean(temperatures), rtol=1e-8)


def test_isotopes_reduce_the_symmetry(one_layer: Potential) -> None:
    """Two heavy atoms in a plane make cubic salt tetragonal: more q, another expansion."""
    salt = bulk("NaCl", "rocksalt", a=5.7, cubic=True)
    masses = salt.get_masses()
    plane = np.isclose(salt.positions[:, 0], 0) & (salt.numbers == 11)
    masses[plane] = 60.0
    salt.set_masses(masses)
    assert plane.sum() == 2
    grid = np.stack(np.meshgrid(*map(np.arange, MESH), indexing="ij"), axis=-1).reshape(-1, 3) / 3
    reduced = pe.gruneisen_mesh(salt, one_layer, MESH)
    whole = pe.gruneisen_parameters(salt, one_layer, grid)
    assert 4 < len(reduced.qpoints) < len(grid)
    repeated = np.repeat(reduced.frequencies, reduced.weights, axis=0)
    np.testing.assert_allclose(
        np.sort(repeated.ravel()), np.sort(whole.frequencies.ravel()), atol=1e-6
    )
    symmetry = vibrational_operations(salt, 1e-5)
    assert len(np.unique(symmetry.rotations, axis=0)) == 16
    assert len(allowed_strains(symmetry.cartesian)) == 2


def test_the_mean_at_high_and_at_low_temperature() -> None:
    """All real modes count alike where kT is large; nothing counts at 0 K, or without a γ."""
    frequencies = np.array([[0.0, 1.0, 2.0, -1.0]])
    gammas = np.array([[np.nan, 1.0, 3.0, 50.0]])
    mesh = pe.GruneisenMesh((1, 1, 1), np.zeros((1, 3)), np.ones(1, int), frequencies, gammas)
    low, cold, hot = mesh.mean([0.0, 1.0, 1e6])
    assert np.isnan(low)
    assert cold == pytest.approx(1.0, abs=1e-9)
    assert hot == pytest.approx(2.0, abs=1e-6)


def test_the_path_is_phonopys(one_layer: Potential) -> None:
    bands = pe.gruneisen_bands(SALT, one_layer, points=5)
    cell = to_phonopy(as_structure(SALT))
    phonon = Phonopy(cell, np.eye(3, dtype=int), primitive_matrix="P")
    pe.use_exact_dynamical_matrix(phonon, one_layer)
    paths, labels, connections = get_band_qpoints_by_seekpath(cell, 5)
    phonon.run_band_structure(paths, labels=labels, path_connections=connections)
    theirs: Any = phonon.band_structure
    for k, distances in enumerate(theirs.distances):
        np.testing.assert_allclose(bands.distances[k], distances, atol=1e-9)
        np.testing.assert_allclose(bands.frequencies[k], theirs.frequencies[k], atol=1e-3)
    ends = [label for pair in bands.labels for label in pair]
    assert [x for k, x in enumerate(ends) if k % 2 == 0 or x != (ends + [""])[k + 1]] == labels


def test_what_means_nothing_is_refused(one_layer: Potential) -> None:
    for mesh in ((0, 3, 3), (3, 3)):
        with pytest.raises(pe.PhonopyEquivariantError, match="three positive whole numbers"):
            pe.gruneisen_mesh(SALT, one_layer, mesh)
    with pytest.raises(pe.PhonopyEquivariantError, match="two points"):
        pe.gruneisen_bands(SALT, one_layer, 1)


def test_the_command(tmp_path: Path) -> None:
    poscar(tmp_path)
    words = ("gruneisen", "POSCAR", "--model", model())
    done = command(*words, "--mesh", 2, 2, 2, "--band-points", 4, "-o", "g", cwd=tmp_path)
    assert "MEAN GRÜNEISEN" in done.stdout
    mesh = yaml.safe_load((tmp_path / "g_mesh.yaml").read_text("utf-8"))
    assert mesh["mesh"] == [2, 2, 2] and mesh["nqpoint"] == len(mesh["phonon"])
    assert sum(point["multiplicity"] for point in mesh["phonon"]) == 8
    bands = yaml.safe_load((tmp_path / "g_bands.yaml").read_text("utf-8"))
    assert bands["nqpoint"] == 4 * bands["npath"] == 4 * len(bands["labels"])
    assert set(bands["path"][0]["phonon"][1]["band"][0]) == {"gruneisen", "frequency"}
    assert (tmp_path / "g_bands.png").stat().st_size > 10_000
    refused = command(*words, "--mesh", 0, 2, 2, cwd=tmp_path, status=1)
    assert_refused(refused, "--mesh 0 2 2", "three positive whole numbers")

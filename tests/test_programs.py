"""Traced programs kept on disk: found again, never trusted blindly, never needed."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
from ase.build import bulk

from phonopy_equivariant import potential as potential_module
from phonopy_equivariant import programs
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.potential import random_potential
from phonopy_equivariant.response.lattice import lattice_force_constants

CONFIG = NequIPConfig(
    species=(14,),
    cutoff=3.0,
    num_interactions=2,
    hidden_irreps="4x0e + 2x1o",
    l_max=1,
    num_radial_basis=4,
    radial_width=8,
    radial_depth=1,
)
QPOINTS = np.array([[0.1, 0.2, 0.3]])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    if jax.default_backend() != "cpu":
        pytest.skip("programs are kept on the CPU only")
    old = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(potential_module._evaluate, "_kept", {})
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    yield tmp_path / "phonopy_equivariant"
    jax.config.update("jax_compilation_cache_dir", old)


@pytest.fixture
def traced(monkeypatch):
    """Return a list that grows with every tracing of the energy."""
    calls = []
    original = potential_module._evaluate._function

    def counted(*args):
        calls.append(1)
        return original(*args)

    counted.__name__, counted.__module__ = original.__name__, original.__module__
    monkeypatch.setattr(potential_module._evaluate, "_function", counted)
    return calls


def forget(monkeypatch):
    """Be a new process, as far as kept programs are concerned."""
    monkeypatch.setattr(potential_module._evaluate, "_kept", {})
    jax.clear_caches()


def test_a_kept_program_is_not_traced_again(folder, traced, monkeypatch):
    potential = random_potential(CONFIG)
    first = potential.evaluate(bulk("Si"))
    assert len(traced) == 1
    assert len(list(folder.iterdir())) == 1
    forget(monkeypatch)
    again = potential.evaluate(bulk("Si"))
    assert len(traced) == 1
    np.testing.assert_array_equal(again.forces, first.forces)
    assert again.energy == first.energy


def test_a_kept_program_outlives_caches_that_jax_clears(folder, traced):
    """As when memory maps run short: the process goes on with the program on disk."""
    potential = random_potential(CONFIG)
    first = potential.evaluate(bulk("Si"))
    jax.clear_caches()
    np.testing.assert_array_equal(potential.evaluate(bulk("Si")).forces, first.forces)
    assert len(traced) == 1


def test_a_folder_that_is_cleared_fills_again(folder, traced, monkeypatch):
    """In the process that made the programs they still run; the next one traces them."""
    potential = random_potential(CONFIG)
    first = potential.evaluate(bulk("Si"))
    shutil.rmtree(folder)
    jax.clear_caches()
    np.testing.assert_array_equal(potential.evaluate(bulk("Si")).forces, first.forces)
    assert len(traced) == 1
    forget(monkeypatch)
    np.testing.assert_array_equal(potential.evaluate(bulk("Si")).forces, first.forces)
    assert len(traced) == 2
    assert len(list(folder.iterdir())) == 1


def test_results_are_those_without_a_cache(folder):
    potential = random_potential(CONFIG)
    kept = potential.evaluate(bulk("Si").repeat(2))
    phi = lattice_force_constants(potential, bulk("Si"), QPOINTS)
    assert {path.name.split("-")[0] for path in folder.iterdir()} == {"evaluate", "expand", "bloch"}
    jax.config.update("jax_compilation_cache_dir", None)
    plain = potential.evaluate(bulk("Si").repeat(2))
    np.testing.assert_array_equal(kept.forces, plain.forces)
    np.testing.assert_array_equal(phi, lattice_force_constants(potential, bulk("Si"), QPOINTS))


def test_other_models_and_sizes_have_programs_of_their_own(folder, traced):
    random_potential(CONFIG).evaluate(bulk("Si"))
    random_potential(dataclasses.replace(CONFIG, cutoff=3.1)).evaluate(bulk("Si"))
    random_potential(CONFIG).evaluate(bulk("Si").repeat(2))
    random_potential(CONFIG, seed=1).evaluate(bulk("Si"))  # weights are arguments
    assert len(traced) == len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"x" * 5000])
def test_a_damaged_file_is_traced_again_and_replaced(folder, traced, monkeypatch, damage):
    potential = random_potential(CONFIG)
    first = potential.evaluate(bulk("Si"))
    (path,) = folder.iterdir()
    path.write_bytes(damage)
    forget(monkeypatch)
    np.testing.assert_array_equal(potential.evaluate(bulk("Si")).forces, first.forces)
    assert len(traced) == 2
    assert programs._read(path)


def test_a_folder_that_cannot_be_made_is_no_error(folder, traced):
    folder.write_text("a file stands where the folder should be", "utf-8")
    assert np.isfinite(random_potential(CONFIG).evaluate(bulk("Si")).energy)
    assert len(traced) == 1


def test_the_source_of_the_package_is_part_of_the_name(monkeypatch):
    args = (np.zeros(3),)
    name = programs._file_name("evaluate", args)
    assert name == programs._file_name("evaluate", args)
    monkeypatch.setattr(programs, "_source", lambda: "other")
    assert name != programs._file_name("evaluate", args)

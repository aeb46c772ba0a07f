"""Compiled functions are forgotten before a process runs out of memory maps."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from phonopy_equivariant.runtime import compilation

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory maps are counted on Linux only")


@compilation.compiled()
def sines(x):
    for _ in range(20):
        x = jnp.sin(x @ x.T)[:, : x.shape[1]]
    return x


def run(sizes: range) -> list[int]:
    """Return the memory maps after each of some calls with arrays of different sizes."""
    found = []
    for size in sizes:
        value = sines(np.ones((size, size)))
        assert value.shape == (size, size)
        found.append(compilation.memory_maps())
    return found


@linux
def test_compiled_functions_take_memory_maps():
    kept = run(range(3, 9))
    assert np.all(np.diff(kept) > 0)


@linux
def test_compiled_functions_are_forgotten_when_maps_run_short(monkeypatch):
    before = run(range(10, 16))[-1]
    monkeypatch.setattr(compilation, "maps_allowed", lambda: before)
    after = run(range(20, 26))
    assert max(after) < before


def test_a_shape_seen_before_is_not_traced_again():
    run(range(30, 31))
    traced = sines.traced
    run(range(30, 31))
    assert sines.traced == traced


def test_options_unknown_to_this_compiler_are_left_out() -> None:
    """Options of XLA come and go with its versions."""
    options = {"xla_backend_optimization_level": 1, "xla_absent": True}
    assert compilation._known(options) == {"xla_backend_optimization_level": 1}

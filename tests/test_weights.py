"""Initial weights: drawn on the host, equal for equal seeds, of the spread that modules ask for."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from conftest import BOTH_PARITIES, small_config
from test_mace import mace_config

from phonopy_equivariant.models.config import ModelConfig
from phonopy_equivariant.potential import random_potential

CONFIGS = {
    "NequIP": small_config(**BOTH_PARITIES, layer_norm=True),
    "MACE": mace_config(interactions=("density", "nonlinear"), apply_cutoff=False),
}

compilations: list[str] = []


def count(event: str, _duration: float, **_: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        compilations.append(event)


jax.monitoring.register_event_duration_secs_listener(count)


@pytest.mark.parametrize("name", CONFIGS)
def test_no_program_is_compiled_for_them(name: str) -> None:
    jax.clear_caches()
    before = len(compilations)
    random_potential(CONFIGS[name], seed=1)
    assert len(compilations) == before
    with jax.enable_x64(True):
        jax.jit(lambda x: x + 1)(np.zeros(3))
    assert len(compilations) > before  # or nothing was counted


def leaves(config: ModelConfig, seed: int, dtype: str = "float64") -> dict[str, np.ndarray]:
    potential = random_potential(config, seed, dtype)
    pairs = jax.tree_util.tree_leaves_with_path(potential.params)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in pairs}


@pytest.mark.parametrize("name", CONFIGS)
def test_equal_seeds_give_equal_weights(name: str) -> None:
    one, again, other = (leaves(CONFIGS[name], seed) for seed in (1, 1, 2))
    single = leaves(CONFIGS[name], 1, "float32")
    random = [key for key, leaf in one.items() if not np.isin(leaf, (0, 1, 20)).all()]
    assert len(random) > len(one) / 2
    for key, leaf in one.items():
        np.testing.assert_array_equal(again[key], leaf)
        np.testing.assert_array_equal(single[key], leaf.astype(np.float32))
        assert np.array_equal(other[key], leaf) == (key not in random)
    # no two weights are of the same numbers
    assert len({float(one[key].flat[0]) for key in random}) == len(random)


def test_spreads_are_one_over_the_root_of_what_is_summed() -> None:
    """So that a linear map keeps the second moment; hidden layers of SiLU lose half of it."""
    config = small_config(hidden_irreps="40x0e + 30x1o", radial_width=50, radial_depth=2)
    potential = random_potential(config, seed=3)
    squares, counts = {}, {}
    for layer in potential.params["layers"]:
        for module, weights in layer.items():
            for key, leaf in weights.items():
                name = f"{module} {key}" if module == "radial" else module
                scaled = np.asarray(leaf) * leaf.shape[-2] ** 0.5
                squares[name] = squares.get(name, 0) + np.sum(scaled**2)
                counts[name] = counts.get(name, 0) + leaf.size
    expected = {"radial w0": 2.0, "radial w1": 2.0, "radial w2": 1.0}
    assert set(squares) == {"up", "down", "skip", "readout", *expected}
    for name, total in squares.items():
        # the mean of n squares of normal numbers errs by sqrt(2 / n)
        mean, error = total / counts[name], (2 / counts[name]) ** 0.5
        assert abs(mean / expected.get(name, 1.0) ** 2 - 1) < 5 * error, name


def test_what_is_not_random_starts_where_it_does_nothing() -> None:
    nequip, mace = (leaves(CONFIGS[name], seed=1) for name in CONFIGS)
    norms = [leaf for key, leaf in nequip.items() if "['norm']" in key]
    assert len(norms) > 2 and all((leaf == 1).all() for leaf in norms)
    last = "['layers'][1]"
    starts = {
        "['global']['~']['atomic_energies']": 0,
        f"{last}['~']['alpha']": 20,
        f"{last}['~']['beta']": 0,
        f"{last}['radial']['b1']": 0,
        f"{last}['radial']['norm1_scale']": 1,
        f"{last}['radial']['norm1_offset']": 0,
    }
    for key, value in starts.items():
        assert (mace[key] == value).all(), key

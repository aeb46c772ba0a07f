"""Fixtures: small potentials with random weights, low-symmetry structures, shared data.

Shapes and types in the package's signatures are checked at run time in every test.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jaxtyping import install_import_hook

# Before JAX is imported: what one test compiles serves the others, the workers of xdist and the
# commands that tests start. The folder goes when the tests end, so that nothing old is trusted.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="phonopy_equivariant_jax_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# before the package is imported for the first time
install_import_hook("phonopy_equivariant", "beartype.beartype")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from phonopy_equivariant.models.config import NequIPConfig  # noqa: E402
from phonopy_equivariant.potential import Potential, random_potential  # noqa: E402
from phonopy_equivariant.runtime import programs  # noqa: E402
from phonopy_equivariant.structure import Structure  # noqa: E402

# no silent mixing of precisions
jax.config.update("jax_numpy_dtype_promotion", "strict")

NATURAL = "4x0e + 3x1o + 2x2e"
BOTH_PARITIES = "4x0e + 2x0o + 2x1o + 2x1e + 1x2e + 1x2o"

# An improper rotation of no special angle.
IMPROPER = -Rotation.from_rotvec([0.7, -1.1, 0.4]).as_matrix()

SMALL = {
    "species": (8, 11, 17),
    "cutoff": 3.0,
    "num_interactions": 2,
    "hidden_irreps": NATURAL,
    "l_max": 2,
    "num_radial_basis": 4,
    "radial_width": 8,
    "radial_depth": 1,
    "avg_num_neighbors": 8.0,
    "shift": -1.5,
}


def small_config(**changes: object) -> NequIPConfig:
    """Return a configuration that compiles in about a second."""
    return NequIPConfig(**(SMALL | changes))


def assert_close(result: object, expected: object, relative: float = 1e-11) -> None:
    """Compare relative to the largest element: sums of 1e3 terms in float64 keep 13 digits."""
    scale = np.abs(expected).max()
    assert scale > 1e-4, "nothing to compare"
    np.testing.assert_allclose(result, expected, rtol=0, atol=relative * scale)


@pytest.fixture(scope="module", autouse=True)
def _compiled_functions_are_dropped() -> Iterator[None]:
    """Free the programs of a module: each maps memory, and Linux allows a process 65530 maps."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True)
def _no_program_is_kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace in every test: constants that one has replaced are not part of a program's name."""
    if request.module.__name__ != "test_programs":
        monkeypatch.setattr(programs, "folder", lambda: None)


@pytest.fixture(scope="session")
def potential() -> Potential:
    return random_potential(small_config(), seed=1)


@pytest.fixture(scope="session")
def crystal() -> Structure:
    """Five atoms of three kinds without symmetry in a skewed cell of 3.3 to 4.1 Å."""
    rng = np.random.default_rng(3)
    cell = np.array([[3.9, 0.0, 0.0], [0.7, 4.1, 0.0], [-0.4, 0.9, 3.3]])
    fractions = np.array(
        [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5], [0.45, 0.55, 0.5]]
    )
    positions = fractions @ cell + rng.uniform(-0.15, 0.15, (5, 3))
    return Structure(np.array([11, 17, 8, 17, 11]), positions, cell, np.ones(3, bool))


@pytest.fixture(scope="session")
def molecule() -> Structure:
    """Five atoms, no two alike in surroundings, without a cell."""
    positions = np.array(
        [[0.0, 0.0, 0.0], [1.3, 0.1, 0.0], [-0.4, 1.2, 0.3], [0.2, -0.5, 1.4], [1.6, 1.1, 0.9]]
    )
    return Structure(np.array([8, 11, 17, 11, 8]), positions, np.zeros((3, 3)), np.zeros(3, bool))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of reference data beside the repository, or skip."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the folder ../shared with reference data is absent")
    return folder

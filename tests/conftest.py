"""Fixtures: small potentials with random weights, low-symmetry structures, shared data.

With PHONOPY_EQUIVARIANT_CHECK_SHAPES=1 in the environment, shapes and types in the package's
signatures are checked at run time in every test.
"""

from __future__ import annotations

import atexit
import functools
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
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA logs every function it loads
# Before NumPy is imported: threads of BLAS that wait for a busy core make a product of 3×3 matrices
# take 25 ms, and tests have small matrices and several workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Before the package is imported for the first time. The checks take a sixth of the time of tests
# that trace: continuous integration asks for them, once.
if os.environ.get("PHONOPY_EQUIVARIANT_CHECK_SHAPES"):
    install_import_hook("phonopy_equivariant", "beartype.beartype")

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.runtime import compilation
from phonopy_equivariant.structure import Structure

# Tests compile more than they run: programs that are hardly optimised take half of the time. The
# commands that tests start compile as users do, and so do the modules that compare with them bit
# for bit, and one that compares with published values.
AS_USERS_DO = compilation._CPU_OPTIONS.copy()
QUICKLY = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
MODULES_AS_USERS_DO = {"test_batch", "test_reference_as_users_do"}

# no silent mixing of precisions
jax.config.update("jax_numpy_dtype_promotion", "strict")

# for laws that need more than scalars and vectors
NATURAL = {"hidden_irreps": "4x0e + 3x1o + 2x2e", "l_max": 2}
BOTH_PARITIES = {"hidden_irreps": "4x0e + 2x0o + 2x1o + 2x1e + 1x2e + 1x2o", "l_max": 2}

# An improper rotation of no special angle.
IMPROPER = -Rotation.from_rotvec([0.7, -1.1, 0.4]).as_matrix()

SMALL = {
    "species": (8, 11, 17),
    "cutoff": 3.0,
    "num_interactions": 2,
    "hidden_irreps": "4x0e + 3x1o",
    "l_max": 1,
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


def three_atoms(crystal: Structure) -> Structure:
    """Return the first atoms of the crystal without symmetry: three kinds of atoms."""
    return crystal._replace(numbers=crystal.numbers[:3], positions=crystal.positions[:3])


@functools.cache
def turned_irreps(*irreps: str) -> dict[str, np.ndarray]:
    """Return e3nn's matrices of IMPROPER in some irreps, from one program."""
    with jax.enable_x64(True):
        turn = jnp.asarray(IMPROPER)
        matrices = jax.jit(lambda: {key: e3nn.Irrep(key).D_from_matrix(turn) for key in irreps})()
        return {key: np.asarray(matrix) for key, matrix in matrices.items()}


def pytest_collection_finish() -> None:
    """Let the collector leave alone what was imported, and come less often: JAX traces allocate."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="module", autouse=True)
def _programs_of_a_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Free the programs of a module: each maps memory, and Linux allows a process 65530 maps."""
    as_users_do = request.module.__name__ in MODULES_AS_USERS_DO
    compilation._CPU_OPTIONS.clear()
    compilation._CPU_OPTIONS.update(AS_USERS_DO if as_users_do else QUICKLY)
    # for what tests compile themselves, and for operations that run one by one
    jax.config.update("jax_disable_most_optimizations", not as_users_do)
    yield
    compilation.forget()


@pytest.fixture(scope="session")
def potential() -> Potential:
    return random_potential(small_config(), seed=1)


@pytest.fixture(scope="session")
def one_layer() -> Potential:
    """Return a potential whose programs compile in a moment."""
    config = small_config(species=(8, 11, 14, 17, 22), num_interactions=1, scale=20.0)
    return random_potential(config, seed=6)


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

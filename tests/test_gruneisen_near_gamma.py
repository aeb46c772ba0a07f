"""Grüneisen parameters close to Γ: right, or not given. The reference is of q where ω² is large.

γ of an acoustic mode has a limit along every direction, and departs from it by |q|².
"""

from __future__ import annotations

import cli_helpers
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

import phonopy_equivariant as pe
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.response.gruneisen import gruneisen_parameters
from phonopy_equivariant.response.rounding import ROUNDING

SIZES = 10.0 ** np.arange(-9, -1)
# |q| from which γ must be given; rounding of ω² is 1 % of ω² ~ |q|² there at the latest
GIVEN_FROM = {"float64": 1e-5, "float32": 5e-2}
STRAIN = np.array([[0.3, 0.1, 0.0], [0.1, 0.5, -0.2], [0.0, -0.2, 0.2]])


@pytest.fixture(scope="module", params=["float64", "float32"])
def potential(request: pytest.FixtureRequest) -> Potential:
    config = type(cli_helpers.potential().config)(**cli_helpers.CONFIG)
    return random_potential(config, seed=cli_helpers.SEED, dtype=request.param)


def crystal(name: str) -> Atoms:
    """Return a crystal whose atoms stay in place under any strain."""
    return bulk("Na", "fcc", a=5.0) if name == "Na" else bulk(name, "rocksalt", a=5.7)


def limits(atoms: Atoms, directions: np.ndarray, strain: np.ndarray) -> np.ndarray:
    """Return γ of acoustic modes for |q| -> 0 from D(q) of strained cells, in double precision."""
    potential, sizes = cli_helpers.potential(), np.array([0.01, 0.02])
    qpoints = (sizes[:, None, None] * directions).reshape(-1, 3)

    def squares(eta: float) -> np.ndarray:
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + eta * strain), scale_atoms=True)
        matrices = pe.dynamical_matrices(potential, strained, qpoints)
        return np.linalg.eigvalsh(matrices)[:, :3]

    step = 1e-3
    coarse, fine = ((squares(h) - squares(-h)) / (2 * h) for h in (step, step / 2))
    gammas = -(4 * fine - coarse) / 3 / (2 * squares(0.0))
    near, far = gammas.reshape(2, -1, 3)
    return (4 * near - far) / 3


@pytest.mark.parametrize(
    ("name", "strain"),
    [("NaCl", np.eye(3) / 3), ("NaCl", STRAIN), ("Na", np.eye(3) / 3)],
    ids=["NaCl", "NaCl of lower symmetry", "Na"],
)
def test_close_to_gamma(name: str, strain: np.ndarray, potential: Potential) -> None:
    atoms = crystal(name)
    directions = np.random.default_rng(4).normal(size=(6, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    expected = limits(atoms, directions, strain)
    qpoints = (SIZES[:, None, None] * directions).reshape(-1, 3)
    result = gruneisen_parameters(atoms, potential, qpoints, strain=strain)
    acoustic = result.parameters[:, :3].reshape(len(SIZES), -1, 3)
    given = np.isfinite(acoustic)
    # none of these q in single precision, which has a test of its own
    assert given[GIVEN_FROM[potential.dtype] <= SIZES].all()
    assert not given[1e3 * ROUNDING[potential.dtype] > SIZES].any()
    allowed = 0.01 * np.maximum(1, np.abs(expected)) + (20 * SIZES[:, None, None]) ** 2
    assert (
        np.abs(acoustic - expected)[given] <= np.broadcast_to(allowed, given.shape)[given]
    ).all()
    if potential.dtype == "float64":  # single precision may not tell optical modes apart
        assert np.isfinite(result.parameters[:, 3:]).all()


def test_single_precision_gives_what_double_precision_gives() -> None:
    """From GIVEN_FROM on all of it; closer to Γ only what is right."""
    single = random_potential(cli_helpers.potential().config, cli_helpers.SEED, dtype="float32")
    sizes = 10.0 ** np.arange(-3, -0.2, 0.25)
    qpoints = (sizes[:, None, None] * np.random.default_rng(6).normal(size=(4, 3))).reshape(-1, 3)
    lengths = np.linalg.norm(qpoints, axis=1)
    for name, strain in (("NaCl", STRAIN), ("Na", np.eye(3) / 3)):
        found, expected = (
            gruneisen_parameters(crystal(name), each, qpoints, strain=strain).parameters[:, :3]
            for each in (single, cli_helpers.potential())
        )
        given = np.isfinite(found)
        assert given[lengths >= GIVEN_FROM["float32"]].all()
        assert given[lengths < GIVEN_FROM["float32"]].any() and not given[lengths < 3e-3].any()
        error = np.abs(found - expected)[given]
        assert (error <= 0.01 * np.maximum(1, np.abs(expected[given]))).all()


def test_at_gamma_acoustic_modes_are_zero(potential: Potential) -> None:
    for name in ("NaCl", "Na"):
        atoms = crystal(name)
        result = gruneisen_parameters(atoms, potential, np.zeros((1, 3)))
        assert not result.frequencies[0, :3].any() and np.isnan(result.parameters[0, :3]).all()
        assert np.isfinite(result.parameters[0, 3:]).all() and result.frequencies[0, 3:].all()

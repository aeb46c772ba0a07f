"""Relaxation at constant volume and under pressure, against searches over the cell's lengths.

ASE's effective-medium theory stands in for our potentials: the relaxation is the subject.
"""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.units import GPa
from conftest import small_config
from scipy.optimize import minimize, minimize_scalar

import phonopy_equivariant as pe
from phonopy_equivariant.calculators import relax as relaxation
from phonopy_equivariant.potential import Potential, random_potential


@pytest.fixture(scope="module")
def any_potential() -> Potential:
    """Return a potential that is asked for neighbours only."""
    return random_potential(small_config(species=(29, 79), num_interactions=1))


@pytest.fixture(autouse=True)
def emt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaxation, "EquivariantCalculator", lambda _potential: EMT())


def layered(a: float, c: float) -> Atoms:
    """Return tetragonal copper-gold (L1_0), two atoms."""
    return Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[a, a, c], pbc=True)


def energy(a: float, c: float) -> float:
    atoms = layered(a, c)
    atoms.calc = EMT()
    return float(atoms.get_potential_energy())


def test_the_shape_relaxes_at_constant_volume(any_potential: Potential) -> None:
    start = layered(2.75, 3.9)
    volume = start.get_volume()
    found = pe.relax(start, any_potential, fmax=1e-6, constant_volume=True)
    assert found.get_volume() == pytest.approx(volume, rel=1e-10)
    best = minimize_scalar(lambda a: energy(a, volume / a**2), bounds=(2.6, 2.9), method="bounded")
    assert abs(best.x - 2.75) > 0.01  # the relaxation has something to do
    # the energy is flat: a search finds a to 1e-5, as the square root of its own tolerance
    assert found.cell.lengths()[0] == pytest.approx(best.x, abs=1e-4)
    assert found.cell.lengths()[1] == pytest.approx(found.cell.lengths()[0], abs=1e-10)


def test_pressure_is_in_the_enthalpy(any_potential: Potential) -> None:
    pressure = 20.0
    found = pe.relax(layered(2.75, 3.7), any_potential, fmax=1e-6, pressure=pressure)
    found.calc = EMT()
    np.testing.assert_allclose(
        found.get_stress() / GPa, [-pressure] * 3 + [0.0] * 3, atol=1e-3 * pressure
    )
    best = minimize(lambda x: energy(*x) + pressure * GPa * x[0] ** 2 * x[1], [2.7, 3.7], tol=1e-9)
    np.testing.assert_allclose(found.cell.lengths()[[0, 2]], best.x, atol=1e-4)


def test_pressures_that_mean_nothing_are_refused(any_potential: Potential) -> None:
    with pytest.raises(pe.PhonopyEquivariantError, match="pressure=nan"):
        pe.relax(layered(2.75, 3.7), any_potential, pressure=float("nan"))

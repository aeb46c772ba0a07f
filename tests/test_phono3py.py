"""phono3py with analytic force constants, beside its own finite displacements."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from conftest import assert_close, small_config
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.potential import Potential, random_potential

phono3py = pytest.importorskip("phono3py", reason="phono3py is not installed")


@pytest.fixture(scope="module")
def potential() -> Potential:
    return random_potential(small_config(num_interactions=1, scale=20.0), seed=3)


def rock_salt(**options: object) -> phono3py.Phono3py:
    atoms = bulk("NaCl", "rocksalt", a=5.0)
    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
    )
    return phono3py.Phono3py(cell, supercell_matrix=[2, 2, 2], primitive_matrix="P", **options)


def test_finite_displacements_converge_to_it(potential: Potential) -> None:
    """Their difference falls with the square of the step: 3² from 0.03 to 0.01 Å."""
    deviations = []
    for distance in (0.03, 0.01):
        displaced = rock_salt()
        displaced.generate_displacements(distance=distance)
        cells = [cell for cell in displaced.supercells_with_displacements if cell is not None]
        displaced.forces = pe.PhonopyMLP(potential).evaluate(cells)[1]
        displaced.produce_fc3(is_compact_fc=True)
        analytic = pe.third_order_force_constants(displaced, potential)
        deviations.append(np.abs(displaced.fc3 - analytic).max() / np.abs(analytic).max())
    assert deviations[0] < 0.1
    # the fourth power of the step is left: 0.03² of the second
    assert deviations[0] / deviations[1] == pytest.approx(9, rel=0.05)


def test_supercells_of_both_orders_apart(potential: Potential) -> None:
    crystal = rock_salt(phonon_supercell_matrix=[3, 3, 3])
    report = pe.set_third_order_force_constants(crystal, potential)
    assert crystal.fc3.shape == (2, 16, 16, 3, 3, 3)
    assert crystal.fc2.shape == (2, 54, 3, 3)
    assert (report.triplets, report.symmetry.used) == (64, 48)
    assert report.irreducible < 10
    assert max(report.sum_rule, report.permutation) < 1e-12 * report.largest
    assert_close(crystal.fc3, pe.third_order_force_constants(rock_salt(), potential))


def test_other_objects_are_refused(potential: Potential) -> None:
    with pytest.raises(pe.PhonopyEquivariantError, match="Phono3py object, got int"):
        pe.third_order_force_constants(3, potential)

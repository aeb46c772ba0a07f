"""The ASE calculator against differences: the order and sign of forces and of six stresses."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from conftest import assert_close

import phonopy_equivariant as pe
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.structure import Structure, to_ase


def with_calculator(potential: Potential, structure: Structure) -> Atoms:
    atoms = to_ase(structure)
    atoms.calc = pe.EquivariantCalculator(potential)
    return atoms


def test_forces_and_six_stresses_are_differences_of_the_energy(
    potential: Potential, crystal: Structure
) -> None:
    """By ASE's own differences, whose order xx, yy, zz, yz, xz, xy and sign are ASE's."""
    atoms = with_calculator(potential, crystal)
    stress = atoms.get_stress()
    # all six differ, or an exchange would not be seen
    assert np.abs(stress[:, None] - stress + np.eye(6)).min() > 1e-3 * np.abs(stress).max()
    # the differences err by the square of the step
    assert_close(stress, calculate_numerical_stress(atoms, eps=1e-5), 1e-6)
    assert_close(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), 1e-6)
    assert_close(atoms.get_potential_energies().sum(), atoms.get_potential_energy())


def test_a_slab_has_forces_and_no_stress(potential: Potential, crystal: Structure) -> None:
    """Atoms do not see the image across the open direction, nor the length of the cell there."""
    slab = crystal._replace(pbc=np.array([True, True, False]))
    atoms = with_calculator(potential, slab)
    forces = atoms.get_forces()
    assert_close(forces, calculate_numerical_forces(atoms, eps=1e-4), 1e-6)
    assert np.abs(forces - with_calculator(potential, crystal).get_forces()).max() > 1e-3
    taller = slab._replace(cell=slab.cell * [[1], [1], [9]])
    assert_close(with_calculator(potential, taller).get_forces(), forces)
    with pytest.raises(PropertyNotImplementedError, match="three periodic directions"):
        atoms.get_stress()


def test_a_calculator_serves_one_structure_after_the_other(
    potential: Potential, crystal: Structure, molecule: Structure
) -> None:
    """Other atoms, another cell, other sizes: never the results or the padding of the last one."""
    larger = to_ase(crystal).repeat((2, 1, 1))
    strained = crystal._replace(cell=1.02 * crystal.cell, positions=1.02 * crystal.positions)
    calculator = pe.EquivariantCalculator(potential)
    kept = None
    for structure in (larger, to_ase(crystal), to_ase(strained), to_ase(molecule), larger):
        structure.calc = calculator
        expected = potential.evaluate(structure)
        assert_close(structure.get_potential_energy(), expected.energy)
        assert_close(structure.get_forces(), expected.forces)
        assert ("stress" in calculator.results) == structure.pbc.all()
        if kept is not None:
            assert_close(*kept)  # a result that was handed out stays as it was
        kept = calculator.results["forces"], expected.forces


def test_the_hessian_is_that_of_the_atoms_where_they_are(
    potential: Potential, crystal: Structure
) -> None:
    atoms = with_calculator(potential, crystal)
    atoms.get_forces()
    assert "hessian" not in atoms.calc.results  # it costs more than all others
    before = atoms.calc.get_property("hessian", atoms)
    size = 3 * len(atoms)
    # H[i, a, j, b] = -∂F_i,a/∂x_j,b along a displacement of one atom
    step = 1e-5
    forces = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[3, 1] += sign * step
        moved.calc = atoms.calc
        forces.append(moved.get_forces())
    assert_close(before[3, 1], (forces[1] - forces[0]) / (2 * step), 1e-7)
    moved.positions[0, 2] += 0.1
    after = moved.calc.get_property("hessian", moved)
    assert np.abs(after - before).max() > 1e-3
    assert_close(after.reshape(size, size), after.reshape(size, size).T)

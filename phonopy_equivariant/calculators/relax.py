"""Relaxation of a crystal with a potential, in its space group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.spacegroup.symmetrize import check_symmetry, refine_symmetry
from ase.units import GPa
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.calculators.ase import EquivariantCalculator
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.structure import as_structure

FMAX = 1e-4  # eV/Å


class RelaxationStep(NamedTuple):
    """State of a relaxation, given to a callback at every step."""

    step: int
    energy: float  # eV
    max_force: float  # eV/Å
    max_stress: float  # GPa


def relax(
    atoms: Atoms,
    potential: Potential,
    fmax: float = FMAX,
    cell: bool = True,
    symprec: float = 1e-4,
    max_steps: int = 500,
    callback: Callable[[RelaxationStep], None] | None = None,
) -> Atoms:
    """Return a relaxed copy of a crystal that keeps its space group.

    Positions and, with ``cell``, lattice vectors are optimised together (BFGS in ASE's
    ``FrechetCellFilter``) under ``FixSymmetry``. The structure is first made exactly symmetric
    within ``symprec``, so that digits rounded in a file break no symmetry.

    Parameters
    ----------
    atoms
        Periodic in three directions.
    potential
        In float64: rounding of float32 forces may lie above ``fmax``.
    fmax
        Largest force on an atom at the end (eV/Å); for the cell, largest derivative of the
        energy per atom with respect to a strain (eV).
    cell
        Whether the lattice relaxes too.
    symprec
        Distance (Å) within which symmetry is recognised.
    max_steps
        Steps after which to give up.
    callback
        Called with each :class:`RelaxationStep`.

    Returns
    -------
    Atoms
        Without calculator and constraints.

    Raises
    ------
    PhonopyEquivariantError
        A structure that is not a sound crystal, an element the potential does not know, or no
        convergence.

    """
    if not fmax > 0:
        raise PhonopyEquivariantError(f"fmax={fmax}: the threshold must be positive.")
    _check(atoms, potential)
    relaxed = atoms.copy()
    relaxed.set_constraint()
    refine_symmetry(relaxed, symprec=symprec)
    group = check_symmetry(relaxed, symprec=symprec).number
    relaxed.calc = EquivariantCalculator(potential)
    relaxed.set_constraint(FixSymmetry(relaxed, symprec=symprec))
    target: Any = FrechetCellFilter(relaxed) if cell else relaxed
    with BFGS(target, logfile=None, maxstep=0.1) as optimizer:
        if callback is not None:
            optimizer.attach(lambda: callback(_state(optimizer.nsteps, relaxed)))
        converged = optimizer.run(fmax=fmax, steps=max_steps)
    last = _state(optimizer.nsteps, relaxed)
    relaxed.calc = None
    relaxed.set_constraint()
    if not converged:
        raise PhonopyEquivariantError(
            f"The relaxation did not reach {fmax:g} eV/Å in {max_steps} steps (force "
            f"{last.max_force:.1e} eV/Å, stress {last.max_stress:.2f} GPa): raise the threshold "
            "(--relax-fmax, --fmax), start from a better structure, or use dtype float64."
        )
    if check_symmetry(relaxed, symprec=symprec).number < group:
        raise PhonopyEquivariantError(
            "The relaxation lost the space group; start from a structure with more digits."
        )
    return relaxed


def relax_cell(
    unitcell: PhonopyAtoms,
    potential: Potential,
    fmax: float = FMAX,
    callback: Callable[[RelaxationStep], None] | None = None,
) -> PhonopyAtoms:
    """Return phonopy's cell relaxed as by :func:`relax`; order of atoms and masses stay."""
    atoms = Atoms(
        numbers=unitcell.numbers, positions=unitcell.positions, cell=unitcell.cell, pbc=True
    )
    relaxed = relax(atoms, potential, fmax, callback=callback)
    return PhonopyAtoms(
        symbols=unitcell.symbols,
        positions=relaxed.positions,
        cell=relaxed.cell.array,
        masses=unitcell.masses,
        magnetic_moments=unitcell.magnetic_moments,
    )


def _check(atoms: Atoms, potential: Potential) -> None:
    structure = as_structure(atoms)
    if not structure.pbc.all():
        raise PhonopyEquivariantError(
            "Only a crystal, periodic in three directions, is relaxed; set pbc=True."
        )
    potential.graph(structure)  # elements and overlaps, before anything compiles


def _state(step: int, atoms: Atoms) -> RelaxationStep:
    forces = atoms.get_forces()
    return RelaxationStep(
        step,
        float(atoms.get_potential_energy()),
        float(np.linalg.norm(forces, axis=1).max()),
        float(np.abs(atoms.get_stress()).max() / GPa),
    )

"""Relaxation of a crystal with a potential, in its space group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.constraints import FixConstraint
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from ase.units import GPa
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.calculators.ase import EquivariantCalculator
from phonopy_equivariant.calculators.constraints import (
    AllowAlone,
    KeepOperations,
    allowed_motions,
    honoured_constraints,
    operations_that_keep,
)
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.symmetry.operations import (
    Operations,
    measured,
    obeyed,
    search,
    symmetrised,
)
from phonopy_equivariant.structure import Structure, as_structure, to_ase

FMAX = 1e-4  # eV/Å
SYMPREC = 1e-4  # Å

# eV/Å². An atom that is off by d feels a force of less than d times this.
STIFFNESS = 100.0


class RelaxationStep(NamedTuple):
    """State of a relaxation, given to a callback at every step."""

    step: int
    energy: float  # eV
    max_force: float  # eV/Å, along what constraints allow
    max_stress: float  # GPa


def relax(
    atoms: Atoms | PhonopyAtoms | Structure,
    potential: Potential,
    fmax: float = FMAX,
    cell: bool = True,
    symprec: float = SYMPREC,
    max_steps: int = 500,
    callback: Callable[[RelaxationStep], None] | None = None,
) -> Atoms:
    """Return a relaxed copy of a crystal that keeps its space group and its constraints.

    Positions and, with ``cell``, lattice vectors are optimised together (BFGS in ASE's
    ``FrechetCellFilter``) in the space group. The structure is first made exactly symmetric
    (:func:`symmetrise`), so that digits rounded in a file break no symmetry.

    Constraints of ``atoms`` hold: ``FixAtoms``, ``FixCartesian``, ``FixScaled``, ``FixedLine``,
    ``FixedPlane`` (selective dynamics, ``move_mask``). A fixed atom keeps its position, or its
    fractional coordinates where the cell relaxes. The space group is then the part that the
    structure obeys as it is and that takes constraints to constraints.

    Parameters
    ----------
    atoms
        Periodic in three directions: ASE's, phonopy's or our own structure.
    potential
        In float64: rounding of float32 forces may lie above ``fmax``.
    fmax
        Largest force on an atom at the end (eV/Å), along what constraints allow; for the cell,
        largest derivative of the energy per atom with respect to a strain (eV).
    cell
        Whether the lattice relaxes too; without it the lattice vectors stay as they are.
    symprec
        Distance (Å) within which symmetry is recognised and made exact.
    max_steps
        Steps after which to give up.
    callback
        Called with each :class:`RelaxationStep`.

    Returns
    -------
    Atoms
        Without calculator, with the constraints of ``atoms``.

    Raises
    ------
    PhonopyEquivariantError
        A structure that is not a sound crystal, an element the potential does not know, a
        constraint that is not honoured, or no convergence.

    """
    if not 0 < fmax < np.inf:
        raise PhonopyEquivariantError(f"fmax={fmax}: the threshold must be a positive number.")
    atoms = atoms if isinstance(atoms, Atoms) else to_ase(as_structure(atoms))
    _check(atoms, potential)
    relaxed = symmetrise(atoms, symprec, cell)
    constraints = honoured_constraints(relaxed)
    relaxed.set_constraint()
    symmetry = _kept_symmetry(relaxed, constraints, symprec, fmax)
    relaxed.calc = EquivariantCalculator(potential)
    relaxed.set_constraint([AllowAlone(constraints), KeepOperations(symmetry)])
    target: Any = FrechetCellFilter(relaxed) if cell else relaxed
    with BFGS(target, logfile=None, maxstep=0.1) as optimizer:
        if callback is not None:
            optimizer.attach(lambda: callback(_state(optimizer.nsteps, relaxed)))
        converged = optimizer.run(fmax=fmax, steps=max_steps)
    last = _state(optimizer.nsteps, relaxed)
    relaxed.calc = None
    relaxed.set_constraint(atoms.copy().constraints)
    if not converged:
        raise PhonopyEquivariantError(
            f"The relaxation did not reach {fmax:g} eV/Å in {max_steps} steps (force "
            f"{last.max_force:.1e} eV/Å, stress {last.max_stress:.2f} GPa): raise the threshold "
            "(--relax-fmax, --fmax), start from a better structure, or use dtype float64."
        )
    # symmetry that the relaxation gains on top is welcome, whatever the number of its group
    if _again(relaxed, symmetry).deviation.max() > symprec:
        raise PhonopyEquivariantError(
            "The relaxation lost the space group; start from a structure with more digits."
        )
    return relaxed


def symmetrise(atoms: Atoms, symprec: float = SYMPREC, cell: bool = True) -> Atoms:
    """Return a copy that obeys to rounding the space group it has within ``symprec`` (Å).

    Atoms and, with ``cell``, lattice vectors move by less than about ``symprec``. A structure with
    constraints stays as it is.
    """
    copy = atoms.copy()
    if honoured_constraints(atoms):
        return copy
    structure = as_structure(atoms)
    exact = symmetrised(structure, search(structure, symprec), cell)
    copy.set_cell(exact.cell)
    copy.set_positions(exact.positions, apply_constraint=False)
    return copy


def distance(first: Atoms, second: Atoms) -> float:
    """Return the largest distance (Å) by which atoms and lattice vectors of two copies differ."""
    moves = np.concatenate(
        [second.positions - first.positions, second.cell.array - first.cell.array]
    )
    return float(np.linalg.norm(moves, axis=1).max())


def relax_cell(
    unitcell: PhonopyAtoms,
    potential: Potential,
    fmax: float = FMAX,
    callback: Callable[[RelaxationStep], None] | None = None,
    constraints: Sequence[FixConstraint] = (),
    symprec: float = SYMPREC,
) -> PhonopyAtoms:
    """Return phonopy's cell relaxed as by :func:`relax`; order of atoms and masses stay."""
    atoms = Atoms(
        numbers=unitcell.numbers,
        positions=unitcell.positions,
        cell=unitcell.cell,
        pbc=True,
        constraint=list(constraints),
    )
    relaxed = relax(atoms, potential, fmax, symprec=symprec, callback=callback)
    return PhonopyAtoms(
        symbols=unitcell.symbols,
        positions=relaxed.positions,
        cell=relaxed.cell.array,
        masses=unitcell.masses,
        magnetic_moments=unitcell.magnetic_moments,
    )


def _kept_symmetry(
    atoms: Atoms, constraints: Sequence[FixConstraint], symprec: float, fmax: float
) -> Operations:
    """Return the group to relax in.

    Forces are averaged over it, so that it must be obeyed well enough: what an operation misses
    may change forces by less than the threshold.
    """
    symmetry = obeyed(search(as_structure(atoms), symprec), fmax / STIFFNESS)
    return operations_that_keep(symmetry, allowed_motions(atoms, constraints))


def _again(atoms: Atoms, symmetry: Operations) -> Operations:
    """Return the operations as the atoms, moved meanwhile, obey them now."""
    return measured(as_structure(atoms), symmetry.rotations, symmetry.image, symmetry.translation)


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

"""Relaxation of a crystal with a potential, in its space group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

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
from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.defaults import FMAX, SYMPREC
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.symmetry.operations import (
    Operations,
    kept_by_energy,
    measured,
    obeyed,
    search,
    symmetrised,
)
from phonopy_equivariant.runtime.notes import note
from phonopy_equivariant.structure import Structure, as_atoms, as_structure

# The kind of structure that is given, and returned.
Cell = TypeVar("Cell", Atoms, PhonopyAtoms, Structure)

# eV/Å². An atom that is off by d feels a force of less than d times this.
STIFFNESS = 100.0


class RelaxationStep(NamedTuple):
    """State of a relaxation, given to a callback at every step."""

    step: int
    energy: float  # eV
    max_force: float  # eV/Å, along what constraints allow
    max_stress: float  # GPa

    def text(self) -> str:
        """Return the step in words."""
        return f"step {self.step}, force {self.max_force:.1e} eV/Å, energy {self.energy:.4f} eV"


def relax(
    structure: Cell,
    potential: PotentialLike,
    fmax: float = FMAX,
    cell: bool = True,
    symprec: float = SYMPREC,
    max_steps: int = 500,
    callback: Callable[[RelaxationStep], None] | None = None,
    *,
    constant_volume: bool = False,
    pressure: float = 0.0,
) -> Cell:
    """Return a relaxed copy of a crystal that keeps its space group and its constraints.

    Positions and, with ``cell``, lattice vectors are optimised together (BFGS in ASE's
    ``FrechetCellFilter``) in the space group. The structure is first made exactly symmetric
    (``symmetrise``), so that digits rounded in a file break no symmetry.

    Constraints of ``ase.Atoms`` hold: ``FixAtoms``, ``FixCartesian``, ``FixScaled``, ``FixedLine``,
    ``FixedPlane`` (selective dynamics, ``move_mask``). A fixed atom keeps its position, or its
    fractional coordinates where the cell relaxes. The space group is then the part that the
    structure obeys as it is and that takes constraints to constraints.

    Parameters
    ----------
    structure
        Periodic in three directions: ASE's, phonopy's or our own.
    potential
        A potential, or the name of a model. In float64: rounding of float32
        forces may lie above ``fmax``.
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
    constant_volume
        Whether a lattice that relaxes keeps its volume: only its shape changes.
    pressure
        Pressure on the lattice (GPa). The enthalpy E + pV is minimised.

    Returns
    -------
    Atoms, PhonopyAtoms or Structure
        What was given, in its order and with its masses, constraints and magnetic moments; without
        calculator.

    Raises
    ------
    PhonopyEquivariantError
        A structure that is not a sound crystal, an element the potential does not know, a
        constraint that is not honoured, or no convergence.

    """
    potential = as_potential(potential)
    if not 0 < fmax < np.inf:
        raise PhonopyEquivariantError(f"fmax={fmax}: the threshold must be a positive number.")
    if not np.isfinite(pressure):
        raise PhonopyEquivariantError(f"pressure={pressure}: give a finite number of GPa.")
    atoms = as_atoms(structure)
    _check(atoms, potential)
    lattice = _Lattice(cell, constant_volume, pressure)
    relaxed = _relaxed(atoms, potential, fmax, lattice, symprec, max_steps, callback)
    return _like_input(structure, relaxed)


class _Lattice(NamedTuple):
    """What a relaxation does with the lattice."""

    relaxes: bool
    constant_volume: bool
    pressure: float  # GPa

    def target(self, atoms: Atoms) -> Any:
        """Return what ASE optimises."""
        if not self.relaxes:
            return atoms
        return FrechetCellFilter(
            atoms,
            constant_volume=self.constant_volume,
            scalar_pressure=self.pressure * GPa,
        )


def _relaxed(
    atoms: Atoms,
    potential: Potential,
    fmax: float,
    lattice: _Lattice,
    symprec: float,
    max_steps: int,
    callback: Callable[[RelaxationStep], None] | None,
) -> Atoms:
    relaxed = symmetrise(atoms, symprec, lattice.relaxes)
    constraints = honoured_constraints(relaxed)
    relaxed.set_constraint()
    symmetry = _constrained_symmetry(relaxed, constraints, symprec, fmax, potential.parity)
    relaxed.calc = EquivariantCalculator(potential)
    relaxed.set_constraint([AllowAlone(constraints), KeepOperations(symmetry)])
    with BFGS(lattice.target(relaxed), logfile=None, maxstep=0.1) as optimizer:

        def tell() -> None:
            step = _state(optimizer.nsteps, relaxed)
            note(step.text())
            if callback is not None:
                callback(step)

        optimizer.attach(tell)
        converged = optimizer.run(fmax=fmax, steps=max_steps)
    note("")
    final = _state(optimizer.nsteps, relaxed)
    relaxed.calc = None
    relaxed.set_constraint(atoms.copy().constraints)
    if not converged:
        raise PhonopyEquivariantError(
            f"The relaxation did not reach {fmax:g} eV/Å in {max_steps} steps (force "
            f"{final.max_force:.1e} eV/Å, stress {final.max_stress:.2f} GPa): raise the threshold "
            '(fmax=), start from a better structure, or use dtype="float64".'
        )
    # symmetry that the relaxation gains on top is welcome, whatever the number of its group
    if _remeasured(relaxed, symmetry).deviation.max() > symprec:
        raise PhonopyEquivariantError(
            "The relaxation lost the space group; start from a structure with more digits."
        )
    return relaxed


def _like_input(structure: Cell, relaxed: Atoms) -> Cell:
    """Return relaxed atoms as the kind of structure that was given."""
    if isinstance(structure, Atoms):
        return relaxed  # type: ignore[return-value]  # Cell is Atoms here
    if isinstance(structure, Structure):
        return structure._replace(positions=relaxed.positions, cell=relaxed.cell.array)
    # a plain cell: phonopy's primitive cells and supercells know their unit cell
    return PhonopyAtoms(
        symbols=structure.symbols,
        positions=relaxed.positions,
        cell=relaxed.cell.array,
        masses=structure.masses,
        magnetic_moments=structure.magnetic_moments,
    )


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


def _constrained_symmetry(
    atoms: Atoms,
    constraints: Sequence[FixConstraint],
    symprec: float,
    fmax: float,
    parity: bool,
) -> Operations:
    """Return the group to relax in.

    Forces are averaged over it, so that it must be obeyed well enough: what an operation misses
    may change forces by less than the threshold.
    """
    symmetry = obeyed(search(as_structure(atoms), symprec), fmax / STIFFNESS)
    symmetry = kept_by_energy(symmetry, parity)
    return operations_that_keep(symmetry, allowed_motions(atoms, constraints))


def _remeasured(atoms: Atoms, symmetry: Operations) -> Operations:
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

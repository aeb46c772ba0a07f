"""Constraints on atoms in a relaxation: which are honoured, and the symmetry that they leave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.constraints import (
    FixAtoms,
    FixCartesian,
    FixConstraint,
    FixedLine,
    FixedPlane,
    FixScaled,
    FixSymmetry,
)
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.response.symmetry.operations import Operations, choose

# Each of these takes a displacement of an atom to the nearest one that it allows.
HONOURED = (FixAtoms, FixCartesian, FixScaled, FixedLine, FixedPlane)


class KeepOperations(FixSymmetry):
    """ASE's constraint to a space group, for a group that is given; no atom is moved at first."""

    def __init__(self, symmetry: Operations):
        self.rotations = symmetry.rotations
        self.translations = np.zeros((len(symmetry.rotations), 3))  # not used by ASE
        self.symm_map = symmetry.image
        self.do_adjust_positions = self.do_adjust_cell = True


def honoured_constraints(atoms: Atoms) -> list[FixConstraint]:
    """Return the constraints on atoms; ASE's ``FixSymmetry`` is what a relaxation does anyway.

    Raises
    ------
    PhonopyEquivariantError
        A constraint that a relaxation does not honour.

    """
    constraints = [each for each in atoms.constraints if not isinstance(each, FixSymmetry)]
    for each in constraints:
        if not isinstance(each, HONOURED):
            names = ", ".join(kind.__name__ for kind in HONOURED)
            raise PhonopyEquivariantError(
                f"The structure has the constraint {type(each).__name__}, which a relaxation does "
                f"not honour; remove it (atoms.set_constraint()), or use one of {names}."
            )
    return constraints


def allowed_motions(
    atoms: Atoms, constraints: Sequence[FixConstraint]
) -> Float[ndarray, "atoms 3 3"]:
    """Return for each atom the matrix that takes a displacement to what constraints leave of it."""
    columns = []
    for axis in np.eye(3):
        moved = atoms.positions + axis
        for constraint in constraints:
            constraint.adjust_positions(atoms, moved)
        columns.append(moved - atoms.positions)
    return np.stack(columns, axis=2)


def operations_that_keep(symmetry: Operations, motions: Float[ndarray, "atoms 3 3"]) -> Operations:
    """Return the operations that take the allowed motions of each atom to those of its image.

    R M_i = M_i' R for all atoms i: these operations are a group.
    """
    turn = symmetry.cartesian[:, None]
    difference = turn @ motions - motions[symmetry.image] @ turn
    return choose(symmetry, np.abs(difference).max(axis=(1, 2, 3)) < 1e-6)

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


class AllowAlone(FixConstraint):
    """Several constraints as one: steps and forces are projected on the allowed motions.

    ASE's ``FixScaled`` (3.29) projects forces rightly for cells with a symmetric matrix only.
    """

    def __init__(self, constraints: Sequence[FixConstraint]):
        self.constraints = constraints

    def adjust_positions(self, atoms: Atoms, new: ndarray) -> None:
        """Project a step on the allowed motions."""
        step = new - atoms.positions
        new[:] = atoms.positions + np.einsum(
            "iab,ib->ia", allowed_motions(atoms, self.constraints), step
        )

    def adjust_forces(self, atoms: Atoms, forces: ndarray) -> None:
        """Project forces on the allowed motions."""
        allowed = allowed_motions(atoms, self.constraints)
        forces[:] = np.einsum("iab,ib->ia", allowed, forces)


def honoured_constraints(atoms: Atoms) -> list[FixConstraint]:
    """Return the constraints on atoms that a relaxation must honour.

    ASE's ``FixSymmetry`` is left out, because every relaxation keeps the symmetry.

    Raises
    ------
    PhonopyEquivariantError
        The atoms have a constraint that a relaxation does not honour.

    """
    constraints = [c for c in atoms.constraints if not isinstance(c, FixSymmetry)]
    for constraint in constraints:
        if not isinstance(constraint, HONOURED):
            names = ", ".join(kind.__name__ for kind in HONOURED)
            raise PhonopyEquivariantError(
                f"The structure has the constraint {type(constraint).__name__}, which a "
                "relaxation does not honour; remove it (atoms.set_constraint()), or use one of "
                f"{names}."
            )
    return constraints


def allowed_motions(
    atoms: Atoms, constraints: Sequence[FixConstraint]
) -> Float[ndarray, "atoms 3 3"]:
    """Return for each atom the projector on the displacements that no constraint changes."""
    changes = [np.zeros((len(atoms), 3, 3))]
    for constraint in constraints:
        columns = []
        for axis in np.eye(3):
            moved = atoms.positions + axis
            constraint.adjust_positions(atoms, moved)
            columns.append(moved - atoms.positions - axis)
        changes.append(np.stack(columns, axis=2))
    _, sizes, rows = np.linalg.svd(np.concatenate(changes, axis=1), full_matrices=False)
    unchanged = rows * (sizes < 1e-6)[..., None]
    return np.asarray(unchanged.transpose(0, 2, 1) @ unchanged)


def operations_that_keep(symmetry: Operations, motions: Float[ndarray, "atoms 3 3"]) -> Operations:
    """Return the operations that take the allowed motions of each atom to those of its image.

    R P_i = P_i' R for the projectors P of all atoms i: these operations are a group.
    """
    turn = symmetry.cartesian[:, None]
    difference = turn @ motions - motions[symmetry.image] @ turn
    return choose(symmetry, np.abs(difference).max(axis=(1, 2, 3)) < 1e-6)

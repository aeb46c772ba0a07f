"""phonopy's cells in our terms: units, space group, supercell vectors, images of atoms."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from phonopy import Phonopy
from phonopy.physical_units import get_calculator_physical_units

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.response.symmetry.star import Operations, operations
from phonopy_equivariant.structure import as_structure


def require_angstrom(phonon: Phonopy) -> None:
    """Refuse an object in the units of a calculator that has not eV and Å.

    Raises
    ------
    PhonopyEquivariantError
        As said.

    """
    units = get_calculator_physical_units(phonon.calculator)
    if (units.distance_to_A, units.force_to_eVperA) != (1.0, 1.0):
        raise PhonopyEquivariantError(
            f"This Phonopy object is in the units of {phonon.calculator} ({units.length_unit}, "
            f"{units.force_unit}); make one in Å and eV without calculator=, or take "
            "phonopy-equivariant fc, which converts."
        )


def primitive_operations(phonon: Phonopy) -> Operations:
    """Return the space group that phonopy found for the primitive cell."""
    found = phonon.primitive_symmetry.symmetry_operations
    return operations(as_structure(phonon.primitive), found["rotations"], found["translations"])


def supercell_of_primitive(phonon: Phonopy) -> Int[ndarray, "3 3"]:
    """Return the supercell's vectors as columns, in units of the primitive cell's."""
    ratio = np.linalg.solve(phonon.primitive.cell.T, phonon.supercell.cell.T)
    return np.rint(ratio).astype(int)


def supercell_images(phonon: Phonopy) -> tuple[Int[ndarray, " super"], Int[ndarray, "super 3"]]:
    """Return, for each supercell atom, its primitive atom and the cell vector S to it."""
    primitive = phonon.primitive
    owner = np.array([primitive.p2p_map[s] for s in primitive.s2p_map])
    offset = phonon.supercell.positions - primitive.positions[owner]
    return owner, np.rint(offset @ np.linalg.inv(primitive.cell)).astype(int)

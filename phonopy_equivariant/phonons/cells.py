"""phonopy's cells in our terms: units, masses, space group, supercell vectors, images of atoms."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from phonopy import Phonopy
from phonopy.physical_units import get_calculator_physical_units
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.phonons.charges import obeying, require_charges
from phonopy_equivariant.response.symmetry.operations import (
    Operations,
    kept_by_energy,
    kept_by_masses,
    obeyed,
    operations,
    search,
)
from phonopy_equivariant.structure import Structure, StructureLike, as_structure, masses_of

# Å. Images of an atom may be this far from where the primitive cell repeats it: coordinates of
# eight digits. Force constants are those of the repeated primitive cell.
REPEAT = 1e-7


@runtime_checkable
class Cells(Protocol):
    """What objects of phonopy and phono3py have in common."""

    @property
    def primitive(self) -> Any:
        """The primitive cell."""

    @property
    def supercell(self) -> Any:
        """The supercell of the force constants."""

    @property
    def primitive_symmetry(self) -> Any:
        """The space group of the primitive cell."""

    @property
    def calculator(self) -> str | None:
        """The program whose units the object has."""


def require_sound(phonon: Phonopy) -> None:
    """Refuse an object whose phonons would be wrong whatever the force constants are.

    Raises
    ------
    PhonopyEquivariantError
        Units are not eV and Å; masses are zero, negative or not numbers; Born charges or the
        dielectric tensor are not usable, or of another cell; or the primitive cell does not repeat
        in the supercell, or its images have other masses.

    """
    if not isinstance(phonon, Phonopy):
        raise PhonopyEquivariantError(
            f"Expected a phonopy.Phonopy object, got {type(phonon).__name__}; pe.phonons makes one "
            "from a structure."
        )
    require_angstrom(phonon)
    masses_of(phonon.primitive)
    if phonon.nac_params is not None:
        require_charges(phonon.nac_params, "phonon.nac_params", len(phonon.primitive))
        obeying(phonon.nac_params, "phonon.nac_params", primitive_operations(phonon))
    require_repeated(phonon)


def require_angstrom(phonon: Cells) -> None:
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


def require_repeated(phonon: Cells) -> None:
    """Refuse a primitive cell that the supercell repeats only within the tolerance of phonopy.

    phonopy takes positions and masses of one image for all.

    Raises
    ------
    PhonopyEquivariantError
        Images of an atom have different masses, or lie elsewhere by more than 1e-7 Å.

    """
    remedy = 'take the unit cell as the primitive one (primitive_matrix="P")'
    owner, _ = supercell_images(phonon)
    if not np.allclose(phonon.supercell.masses, phonon.primitive.masses[owner]):
        raise PhonopyEquivariantError(
            "atoms that a translation of the primitive cell relates have different masses; "
            f"{remedy}."
        )
    distance = repeat_deviation(phonon)
    if distance > REPEAT:
        raise PhonopyEquivariantError(
            f"the primitive cell that phonopy found repeats only within {distance:.1e} Å, and "
            "force constants of the structure given need it to repeat exactly; lower "
            f"symprec= below that, or {remedy}."
        )


def repeat_deviation(phonon: Cells) -> float:
    """Return the largest distance (Å) of a supercell's atom from where the primitive has it."""
    offset = phonon.supercell.positions - repeated_primitive(phonon).positions
    return float(np.linalg.norm(offset, axis=1).max())


def repeated_primitive(phonon: Cells) -> Structure:
    """Return the supercell made of exact images of the primitive cell's atoms."""
    owner, cells = supercell_images(phonon)
    positions = phonon.primitive.positions[owner] + cells @ phonon.primitive.cell
    return as_structure(phonon.supercell)._replace(positions=positions)


def phonopy_operations(phonon: Cells) -> Operations:
    """Return the space group that phonopy found for the primitive cell within its tolerance."""
    symmetry = phonon.primitive_symmetry.symmetry_operations
    return operations(
        as_structure(phonon.primitive), symmetry["rotations"], symmetry["translations"]
    )


def primitive_operations(phonon: Cells, parity: bool = True) -> Operations:
    """Return the part of phonopy's space group that the primitive cell obeys to rounding.

    Only these may relate forces or force constants: see :mod:`.response.symmetry.operations`.
    Without ``parity`` they are the proper ones, those of a potential that is not invariant under
    reflections.
    """
    return kept_by_energy(obeyed(phonopy_operations(phonon)), parity)


def vibrational_operations(
    structure: StructureLike, symprec: float, parity: bool = True
) -> Operations:
    """Return the space group of a crystal and of its vibrations, found within ``symprec`` (Å).

    Isotopes break it, and reflections belong to it only with ``parity``.
    """
    crystal = as_structure(structure)
    symmetry = kept_by_energy(search(crystal, symprec), parity)
    return kept_by_masses(symmetry, masses_of(crystal))


def masses_break_symmetry(phonon: Cells) -> bool:
    """Tell whether phonopy's space group exchanges atoms of different masses (isotopes).

    phonopy finds its group without masses. Its mesh, group velocities and irreps then are those
    of another crystal, unless it is told to use no symmetry.
    """
    return exchanges_masses(phonopy_operations(phonon), phonon.primitive.masses)


def exchanges_masses(symmetry: Operations, masses: Float[ndarray, " atoms"]) -> bool:
    """Tell whether operations exchange atoms of different masses."""
    return not np.allclose(masses[symmetry.image], masses)


def kinds_of_atoms(cell: PhonopyAtoms) -> Int[ndarray, " atoms"]:
    """Return a number for every atom, the same for atoms of one element and one mass."""
    same_kind = (cell.numbers[:, None] == cell.numbers) & np.isclose(
        cell.masses[:, None], cell.masses
    )
    return np.unique(same_kind.argmax(axis=1), return_inverse=True)[1] + 1


def supercell_of_primitive(phonon: Cells) -> Int[ndarray, "3 3"]:
    """Return the supercell's vectors as columns, in units of the primitive cell's."""
    ratio = np.linalg.solve(phonon.primitive.cell.T, phonon.supercell.cell.T)
    return np.rint(ratio).astype(int)


def supercell_images(phonon: Cells) -> tuple[Int[ndarray, " super"], Int[ndarray, "super 3"]]:
    """Return, for each supercell atom, its primitive atom and the cell vector S to it."""
    primitive = phonon.primitive
    owner = np.array([primitive.p2p_map[s] for s in primitive.s2p_map])
    offset = phonon.supercell.positions - primitive.positions[owner]
    return owner, np.rint(offset @ np.linalg.inv(primitive.cell)).astype(int)

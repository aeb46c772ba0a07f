"""Space-group operations of a cell: what they do to its atoms, and how well the cell obeys them.

An operation {R|τ} takes atom j to R x_j + τ = x_j' + T_j, T_j an integer cell vector (fractional
coordinates). A search for symmetry accepts operations that miss atoms by up to its tolerance.
Force constants filled by such an operation are wrong by the third derivatives of the energy times
that distance, so only operations that the structure obeys to rounding may be used for numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from phonopy.structure.symmetry import Symmetry

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.structure import Structure, to_phonopy

# Å. Rounding of coordinates is 1e-14 Å; third derivatives of the energy are below 100 eV/Å³, so
# that an operation obeyed this well changes force constants by less than 1e-9 eV/Å².
ROUNDING = 1e-11


class Operations(NamedTuple):
    """Space-group operations of a cell and what they do to its atoms."""

    rotations: Int[ndarray, "ops 3 3"]  # fractional, x -> R x + τ
    cartesian: Float[ndarray, "ops 3 3"]
    image: Int[ndarray, "ops atoms"]  # j'
    translation: Int[ndarray, "ops atoms 3"]  # T_j
    deviation: Float[ndarray, " ops"]  # Å, by which an operation misses an atom or a cell vector


def search(structure: Structure, symprec: float) -> Operations:
    """Return the space group that a crystal has within ``symprec`` (Å), found by spglib.

    Raises
    ------
    PhonopyEquivariantError
        The distance is not positive; spglib finds no group; the structure is not periodic in
        three directions.

    """
    if not 0 < symprec < np.inf:  # spglib ends the process on nan
        raise PhonopyEquivariantError(
            f"The tolerance of the search for symmetry is {symprec:g} Å; give a positive distance "
            "as symprec=."
        )
    cell = to_phonopy(structure)
    try:
        space_group = Symmetry(cell, symprec).symmetry_operations
    except Exception as error:  # whatever spglib and phonopy raise
        raise PhonopyEquivariantError(
            f"The symmetry of the structure cannot be found within {symprec:g} Å; check it for "
            "overlapping atoms, or choose another symprec=."
        ) from error
    return operations(structure, space_group["rotations"], space_group["translations"])


def operations(
    structure: Structure, rotations: Int[ndarray, "ops 3 3"], translations: Float[ndarray, "ops 3"]
) -> Operations:
    """Return what space-group operations do to the atoms of a cell.

    ``deviation`` is the largest distance between an image of an atom and the atom there, the
    origin of the operation at its best, or by which a cell vector changes length or angles.
    """
    lattice = structure.cell.T
    inverse = np.linalg.inv(lattice)
    fractional = structure.positions @ inverse.T
    moved = np.einsum("oab,jb->oja", rotations, fractional) + translations[:, None]
    difference = moved[:, :, None] - fractional
    lengths = np.linalg.norm((difference - np.rint(difference)) @ lattice.T, axis=-1)
    lengths[:, structure.numbers[:, None] != structure.numbers] = np.inf
    image = lengths.argmin(axis=2)
    translation = np.rint(moved - fractional[image]).astype(int)
    return measured(structure, rotations, image, translation)


def measured(
    structure: Structure,
    rotations: Int[ndarray, "ops 3 3"],
    image: Int[ndarray, "ops atoms"],
    translation: Int[ndarray, "ops atoms 3"],
) -> Operations:
    """Return operations whose images of atoms are known, and how well the structure obeys them."""
    lattice = structure.cell.T
    inverse = np.linalg.inv(lattice)
    of_atoms = np.linalg.norm(_misses(structure, rotations, image, translation), axis=2)
    metric = structure.cell @ lattice
    changed = np.transpose(rotations, (0, 2, 1)) @ metric @ rotations - metric
    of_cell = np.linalg.norm(inverse.T @ changed / 2, axis=1)  # strain times cell vectors
    return Operations(
        np.asarray(rotations, int),
        lattice @ rotations @ inverse,
        image,
        translation,
        np.maximum(of_atoms.max(axis=1), of_cell.max(axis=1)),
    )


def obeyed(symmetry: Operations, bound: float = ROUNDING) -> Operations:
    """Return the group of the operations that the structure obeys to ``bound`` (Å).

    The deviation of a product is at most the sum of the deviations of its factors. Operations
    below a bound are therefore a group if none lies between the bound and twice the bound; the
    bound is halved until this holds. The identity always stays.
    """
    while ((symmetry.deviation > bound) & (symmetry.deviation <= 2 * bound)).any():
        bound /= 2
    return choose(symmetry, symmetry.deviation <= bound)


def kept_by_energy(symmetry: Operations, parity: bool) -> Operations:
    """Return the operations that leave an energy as it is: without parity, only the proper ones.

    See :attr:`phonopy_equivariant.potential.Potential.parity`.
    """
    return symmetry if parity else choose(symmetry, np.linalg.det(symmetry.cartesian) > 0)


def kept_by_masses(symmetry: Operations, masses: Float[ndarray, " atoms"]) -> Operations:
    """Return the operations that exchange atoms of one mass alone: those of the vibrations."""
    return choose(symmetry, np.isclose(masses[symmetry.image], masses).all(axis=1))


def choose(symmetry: Operations, selection: ndarray) -> Operations:
    """Return some of the operations; ``selection`` are their indices or a mask."""
    return Operations(*(values[selection] for values in symmetry))


def symmetrised(structure: Structure, symmetry: Operations, cell: bool = True) -> Structure:
    """Return the structure moved by the least so that it obeys operations to rounding.

    Atoms go to the mean of their images under the group. With ``cell`` the metric tensor of the
    cell becomes its mean over the group, without a rotation of the crystal. The centre of all
    atoms stays, in fractional coordinates.
    """
    images = _misses(structure, symmetry.rotations, symmetry.image, symmetry.translation)
    moved = np.zeros(structure.positions.shape)
    np.add.at(moved, symmetry.image, images / len(images))
    positions = structure.positions + moved
    if not cell:
        return structure._replace(positions=positions)
    square = np.mean(symmetry.cartesian.transpose(0, 2, 1) @ symmetry.cartesian, axis=0)
    values, vectors = np.linalg.eigh(square)
    stretch = vectors * np.sqrt(values) @ vectors.T
    return structure._replace(positions=positions @ stretch, cell=structure.cell @ stretch)


def _misses(
    structure: Structure,
    rotations: Int[ndarray, "ops 3 3"],
    image: Int[ndarray, "ops atoms"],
    translation: Int[ndarray, "ops atoms 3"],
) -> Float[ndarray, "ops atoms 3"]:
    """Return the vectors (Å) from the atom at j' to the image of atom j.

    The mean over atoms is taken off: it belongs to τ, which a search knows to its tolerance only.
    """
    fractional = structure.positions @ np.linalg.inv(structure.cell)
    moved = np.einsum("oab,jb->oja", rotations, fractional)
    miss = moved - fractional[image] - translation
    return (miss - miss.mean(axis=1, keepdims=True)) @ structure.cell

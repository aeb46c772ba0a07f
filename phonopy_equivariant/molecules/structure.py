"""What counts as one molecule: atoms joined by bonds, alone in space or in a box."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import vesin
from ase import Atoms
from ase.neighborlist import natural_cutoffs
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.crystals import existing_file, looks_like_yaml, read_atoms
from phonopy_equivariant.io.structures import read_structure
from phonopy_equivariant.structure import StructureLike, as_atoms

# A bond is shorter than this times the sum of covalent radii.
_BOND = 1.3
# Images of one molecule in a box lie at least this far apart (Å), or it is a crystal.
_VACUUM = 4.0


def read_molecule(
    path: str | os.PathLike[str],
    index: int | None = None,
    report: Callable[[str], None] = lambda _line: None,
) -> Atoms:
    """Read a molecule from a file of any format that the commands read.

    Returns
    -------
    Atoms
        As it stands in the file: with its box, if it has one.

    Raises
    ------
    PhonopyEquivariantError
        No such file, or none that can be read.

    """
    path = existing_file(path)
    if looks_like_yaml(path):
        return read_atoms(path)
    try:
        atoms = read_structure(path, index, report)
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{path}: {error}") from error
    if not np.isfinite(atoms.positions).all():
        raise PhonopyEquivariantError(f"{path}: has positions that are not finite numbers.")
    return atoms


def as_molecule(atoms: StructureLike) -> Atoms:
    """Return a copy without periodicity; a molecule that crosses its box is made whole.

    Raises
    ------
    PhonopyEquivariantError
        A crystal, or more than one molecule in a periodic box.

    """
    molecule = as_atoms(atoms)
    molecule.set_constraint()
    if not molecule.pbc.any():
        molecule.cell = np.zeros((3, 3))
        return molecule
    bonds = _bonds(molecule)
    count, _ = _fragments(len(molecule), bonds)
    if count > 1:
        raise PhonopyEquivariantError(
            f"The periodic cell holds {count} separate fragments: a molecule is wanted. For a "
            "crystal use 'phonopy-equivariant run', for one molecule remove the periodicity."
        )
    molecule.positions += _whole_images(len(molecule), bonds) @ molecule.cell.array
    distance = _distance_of_images(molecule)
    if distance < _VACUUM:
        raise PhonopyEquivariantError(
            f"Periodic images are {distance:.1f} Å apart: this is a crystal. Use "
            "'phonopy-equivariant run', or give a molecule without a cell or in a larger box."
        )
    molecule.pbc = False
    molecule.cell = np.zeros((3, 3))
    return molecule


def refuse_constraints(atoms: Atoms) -> None:
    """Raise before a molecule with constraints is relaxed: all atoms of a free molecule move.

    Raises
    ------
    PhonopyEquivariantError
        As said.

    """
    if atoms.constraints:
        kinds = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
        raise PhonopyEquivariantError(
            f"{atoms.get_chemical_formula()} has constraints ({kinds}): vibrations are those of a "
            "free molecule, so all of its atoms relax; remove the constraints (move_mask, "
            "selective dynamics), or do not relax it."
        )


def count_fragments(molecule: Atoms) -> int:
    """Return into how many parts without bonds between them a molecule falls."""
    return _fragments(len(molecule), _bonds(molecule))[0]


Bonds = tuple[ndarray, ndarray, ndarray]


def _bonds(atoms: Atoms) -> Bonds:
    """Return bonded pairs both ways: i, j and the image (integer cell vector) of j."""
    radii = np.array(natural_cutoffs(atoms, mult=_BOND))
    neighbours = vesin.NeighborList(cutoff=2 * float(radii.max()), full_list=True, n_threads=1)
    cell = atoms.cell.complete().array if atoms.pbc.any() else np.zeros((3, 3))
    i, j, shifts, distance = neighbours.compute(atoms.positions, cell, atoms.pbc, "ijSd")
    bonded = distance < radii[i] + radii[j]
    return i[bonded], j[bonded], shifts[bonded]


def _fragments(count: int, bonds: Bonds) -> tuple[int, ndarray]:
    i, j, _ = bonds
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(count, count))
    number, labels = connected_components(graph, directed=False)
    return int(number), labels


def _whole_images(count: int, bonds: Bonds) -> ndarray:
    """Return the integer cell vector of each atom that makes the molecule whole."""
    i, j, shifts = bonds
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(count, count)).tocsr()
    order, parent = breadth_first_order(graph, 0, directed=False)
    images = np.zeros((count, 3))
    for atom in order[1:]:
        bond = np.flatnonzero((i == parent[atom]) & (j == atom))[0]
        images[atom] = images[parent[atom]] + shifts[bond]
    if not (images[i] + shifts == images[j]).all():
        raise PhonopyEquivariantError(
            "Bonds join the structure to its own periodic images: this is a crystal; use "
            "'phonopy-equivariant run'."
        )
    return images


def _distance_of_images(molecule: Atoms) -> float:
    """Return the smallest distance between atoms of different images, at most the vacuum."""
    neighbours = vesin.NeighborList(cutoff=_VACUUM, full_list=True, n_threads=1)
    cell = molecule.cell.complete().array
    shifts, distance = neighbours.compute(molecule.positions, cell, molecule.pbc, "Sd")
    apart = distance[(shifts != 0).any(axis=1)]
    return float(apart.min(initial=_VACUUM))

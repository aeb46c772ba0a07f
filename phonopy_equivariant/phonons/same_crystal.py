"""Whether two structures are one crystal: standard cells by spglib, and sorted distances.

Distances between atoms depend neither on the origin nor on the setting of a cell, nor on the order
of its atoms, and change steadily with the structure. Mirror images have the same ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import spglib
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.structure import as_structure, neighbours

# Distances that are compared: so many of the shortest of each pair of elements, per atom.
_NEIGHBOURS = 24


class StandardCell(NamedTuple):
    """The primitive cell of a crystal in spglib's standard setting."""

    atoms: Atoms
    number: int  # of the space group
    symbol: str  # Hermann-Mauguin


def standard_cell(atoms: Atoms, symprec: float) -> StandardCell:
    """Return the primitive cell in spglib's setting, exactly symmetric.

    Parameters
    ----------
    atoms
        A crystal. Atoms of one element must have one mass.
    symprec
        Distance (Å) within which symmetry is recognised.

    Raises
    ------
    PhonopyEquivariantError
        spglib finds no space group; an element has several masses.

    """
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    dataset = spglib.get_symmetry_dataset(cell, symprec)
    standard = spglib.standardize_cell(cell, to_primitive=True, symprec=symprec)
    if dataset is None or standard is None:
        raise PhonopyEquivariantError(
            f"The symmetry of the structure cannot be found within {symprec:g} Å; check it for "
            "overlapping atoms."
        )
    lattice, positions, numbers = standard
    masses = atoms.get_masses()
    for number in np.unique(atoms.numbers):
        if np.ptp(masses[atoms.numbers == number]) > 1e-6:
            raise PhonopyEquivariantError(
                "Atoms of one element have different masses; unstable modes are followed for "
                "crystals with one mass for each element."
            )
    of_element = dict(zip(atoms.numbers.tolist(), masses, strict=True))
    primitive = Atoms(
        numbers=numbers,
        scaled_positions=positions,
        cell=lattice,
        masses=[of_element[int(number)] for number in numbers],
        pbc=True,
    )
    return StandardCell(primitive, int(dataset.number), str(dataset.international))


def are_same(first: StandardCell, second: StandardCell, tolerance: float) -> bool:
    """Tell whether two standard cells are one crystal.

    They are if space group, number of atoms and volume agree, and the sorted distances of each pair
    of elements differ by less than ``tolerance`` (Å).
    """
    if first.number != second.number or len(first.atoms) != len(second.atoms):
        return False
    if sorted(first.atoms.numbers) != sorted(second.atoms.numbers):
        return False
    cutoff = 6.0
    distances = [_sorted_distances(cell.atoms, cutoff) for cell in (first, second)]
    for pair, lengths in distances[0].items():
        others = distances[1].get(pair, np.zeros(0))
        count = min(len(lengths), len(others), _NEIGHBOURS * len(first.atoms))
        if count == 0 and len(lengths) != len(others):
            return False
        if count and np.abs(lengths[:count] - others[:count]).max() > tolerance:
            return False
    volumes = [cell.atoms.get_volume() for cell in (first, second)]
    return bool(abs(volumes[0] / volumes[1] - 1) < 10 * tolerance / np.cbrt(min(volumes)))


def _sorted_distances(atoms: Atoms, cutoff: float) -> dict[tuple[int, int], Float[ndarray, " n"]]:
    """Return the distances (Å) below a cutoff for each pair of elements, ascending."""
    i, j, _, lengths = neighbours(as_structure(atoms), cutoff)
    pairs = np.sort(np.stack([atoms.numbers[i], atoms.numbers[j]], axis=1), axis=1)
    return {
        (int(a), int(b)): np.sort(lengths[(pairs == (a, b)).all(axis=1)])
        for a, b in np.unique(pairs, axis=0)
    }

"""Numbers that a file rounds: 0.3333 is one third where that gives the crystal its symmetry.

A number written with d decimals stands for any within half a unit of its last digit. If a crystal
of higher symmetry has all its coordinates and lattice vectors within these bounds, it is the one
that was meant: nobody writes four digits of a distortion that is smaller than they can show.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import spglib
from ase import Atoms
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.spatial import cKDTree

# Symmetry is searched with this tolerance (Å) everywhere unless the user says another.
_SYMPREC = 1e-5
# Numbers with one or no decimal are exact (0.5), those with two are never changed (0.33).
_COARSE = 0.5e-2
# Images of atoms, operations times atoms, that are looked up in a second or two.
_LARGEST = 2_000_000
# The mean metric is not the one that fits the digits of the lattice vectors best.
_MEAN_IS_OFF = 1.5
# Numbers that are exact agree to this, in Å or as fractions.
_EXACT = 1e-7


class Digits(NamedTuple):
    """Half a unit of the last digit of every number written; 0 exact, infinite not written."""

    fractions: Float[ndarray, "atoms 3"]
    lattice: Float[ndarray, "3 3"]  # Å


class Group(NamedTuple):
    """A space group as spglib finds it, in the basis of the cell."""

    name: str
    number: int
    rotations: Int[ndarray, "operations 3 3"]
    translations: Float[ndarray, "operations 3"]


def half_unit(word: str) -> float:
    """Return half a unit of the last digit of a number; 0 if it has fewer than two decimals.

    >>> half_unit("0.3333"), half_unit("-1.25e-2"), half_unit("0.5"), half_unit("1/3")
    (5e-05, 5e-05, 0.0, 0.0)
    """
    match = re.fullmatch(r"[+-]?\d*\.(\d{2,})(?:[ed]([+-]?\d+))?", word, re.IGNORECASE)
    if match is None:
        return 0.0
    return float(f"5e{int(match[2] or 0) - len(match[1]) - 1}")


def as_meant(atoms: Atoms, digits: Digits, report: Callable[[str], None]) -> Atoms:
    """Return the crystal of highest symmetry whose numbers are those of the file.

    Parameters
    ----------
    atoms
        As written.
    digits
        What the numbers of the file leave open.
    report
        Called with a line that names both space groups, if there are two.

    """
    reach = _reach(atoms, digits)
    present = space_group(atoms, _SYMPREC) if reach > _SYMPREC else None
    while present is not None and reach > _SYMPREC:
        group = space_group(atoms, reach)
        if group is not None and len(group.rotations) > len(present.rotations):
            meant, excess = _closest(atoms, digits, group)
            again = space_group(meant, _SYMPREC)
            if again is not None and len(again.rotations) == len(group.rotations):
                if excess <= 1.0:
                    report(
                        f"Coordinates are rounded: read with the space group {group.name}, which "
                        f"their digits allow; the numbers as they stand have {present.name}."
                    )
                    return meant
                if excess <= 2.0:
                    report(
                        f"The space group is {present.name}, and {group.name} with a tolerance of "
                        f"{reach:.1g} Å: if that is meant, write more digits."
                    )
                    return atoms
        reach /= 4
    return atoms


def _reach(atoms: Atoms, digits: Digits) -> float:
    """Return how far (Å) rounding may take an atom from the image of another."""
    lengths = np.linalg.norm(atoms.cell.array, axis=1)
    written = np.where(np.isfinite(digits.fractions), digits.fractions, 0.0)
    of_atoms = np.linalg.norm(written * lengths, axis=1).max(initial=0.0)
    return 4 * float(of_atoms + np.linalg.norm(digits.lattice, axis=1).max())


def space_group(atoms: Atoms, tolerance: float = _SYMPREC) -> Group | None:
    """Return the space group of a crystal; atoms of different masses are different.

    None if spglib finds no group, for atoms that overlap.
    """
    _, kinds = np.unique(
        np.column_stack([atoms.numbers, atoms.get_masses()]), axis=0, return_inverse=True
    )
    cell = (atoms.cell.array, atoms.get_scaled_positions(), kinds.ravel())
    try:
        dataset: Any = spglib.get_symmetry_dataset(cell, symprec=tolerance)
    except spglib.SpglibError:
        return None
    if dataset is None:
        return None
    name = f"{dataset.international} ({dataset.number})"
    return Group(name, dataset.number, dataset.rotations, dataset.translations)


def _closest(atoms: Atoms, digits: Digits, group: Group) -> tuple[Atoms, float]:
    """Return a crystal with the operations of a group, and how far its numbers are off.

    That is the largest change of a number in units of half its last digit.
    """
    images = _images(atoms, group)
    if images is None:
        return atoms, np.inf
    fractions = atoms.get_scaled_positions(wrap=False)
    bounds = np.maximum(digits.fractions, _EXACT)
    changes = _at_origin(_invariant_fractions(fractions, group, images) - fractions, bounds)
    off = np.abs(changes) / bounds
    # numbers with two decimals are not changed: (0.33, 0.67) may be meant as it stands
    off[(np.abs(changes) > _EXACT) & (bounds >= _COARSE) & np.isfinite(bounds)] += 1.0
    lattice = _invariant_lattice(atoms.cell.array, group)
    stretched = np.abs(lattice - atoms.cell.array) / np.maximum(digits.lattice, _EXACT)
    closest = atoms.copy()
    closest.set_cell(lattice)
    closest.set_scaled_positions(fractions + changes)
    return closest, float(max(off.max(), stretched.max() / _MEAN_IS_OFF))


def _images(atoms: Atoms, group: Group) -> Int[ndarray, "operations atoms"] | None:
    """Return the atom that lies where an operation takes an atom."""
    if len(group.rotations) * len(atoms) > _LARGEST:
        return None
    fractions = atoms.get_scaled_positions(wrap=False)
    moved = np.einsum("gab,ib->gia", group.rotations, fractions) + group.translations[:, None]
    # the box is a little larger than 1 because rounding may put a fraction at 1
    _, images = cKDTree(fractions % 1.0, boxsize=1.0 + 1e-15).query(moved % 1.0)
    permuted = (np.sort(images, axis=1) == np.arange(len(atoms))).all()
    return images if permuted else None


def _invariant_lattice(lattice: Float[ndarray, "3 3"], group: Group) -> Float[ndarray, "3 3"]:
    """Return the lattice with the mean metric; its first vector and plane keep their directions."""
    metric = lattice @ lattice.T
    orientation = np.linalg.solve(np.linalg.cholesky(metric), lattice)
    metric = np.mean([r.T @ metric @ r for r in group.rotations], axis=0)
    return np.linalg.cholesky(metric) @ orientation


def _invariant_fractions(
    fractions: Float[ndarray, "atoms 3"],
    group: Group,
    images: Int[ndarray, "operations atoms"],
) -> Float[ndarray, "atoms 3"]:
    """Return positions that are exactly invariant under operations that hold to a tolerance.

    For every operation the translation that fits the atoms best is taken. With those the operations
    form a group exactly, one whose origin may have moved, and the mean over it is invariant.
    """
    moved = np.einsum("gab,ib->gia", group.rotations, fractions) + group.translations[:, None]
    off = fractions[images] - moved
    off -= np.rint(off)
    off -= off.mean(axis=1, keepdims=True)
    return fractions + np.einsum("gab,gib->gia", np.linalg.inv(group.rotations), off).mean(axis=0)


def _at_origin(
    changes: Float[ndarray, "atoms 3"], bounds: Float[ndarray, "atoms 3"]
) -> Float[ndarray, "atoms 3"]:
    """Move the crystal as a whole so that the largest change is smallest."""
    moved = changes.copy()
    for axis in range(3):
        tried = np.append(np.unique(changes[np.isfinite(bounds[:, axis]), axis].round(15)), 0.0)
        ratios = np.abs(changes[:, axis] - tried[:, None]) / bounds[:, axis]
        moved[:, axis] -= tried[ratios.max(axis=1).argmin()]
    return moved

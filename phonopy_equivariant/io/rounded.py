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

from phonopy_equivariant.defaults import PHONOPY_SYMPREC
from phonopy_equivariant.response.symmetry.operations import operations, symmetrised
from phonopy_equivariant.structure import as_structure

# Numbers with one or no decimal are exact (0.5), those with two are never changed (0.33).
_COARSE = 0.5e-2
# Numbers that are cut off and not rounded, 0.6666, are off by up to two half units.
_CUT_OFF = 2.0
# Operations times pairs of atoms: beyond, their table takes too much memory.
_MOST_PAIRS = 5_000_000
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
    if not np.isfinite(atoms.positions).all():
        return atoms
    reach = _reach(atoms, digits)
    present = space_group(atoms) if reach > PHONOPY_SYMPREC else None
    while present is not None and reach > PHONOPY_SYMPREC:
        group = space_group(atoms, reach)
        if group is not None and len(group.rotations) <= len(present.rotations):
            break  # nor do smaller tolerances find more
        meant, excess = (atoms, np.inf) if group is None else _meant(atoms, digits, group)
        if group is not None and excess <= 1.0:
            report(
                f"Coordinates are rounded: read with the space group {group.name}, which their "
                f"digits allow; the numbers as they stand have {present.name}."
            )
            return meant
        if group is not None and excess <= _CUT_OFF:
            report(
                f"The space group is {present.name}, and {group.name} with a tolerance of "
                f"{reach:.1g} Å: if that is meant, write more digits."
            )
            break
        reach /= 4
    return atoms


def _reach(atoms: Atoms, digits: Digits) -> float:
    """Return how far (Å) rounding may take an atom from the image of another."""
    lengths = np.linalg.norm(atoms.cell.array, axis=1)
    written = np.where(np.isfinite(digits.fractions), digits.fractions, 0.0)
    of_atoms = np.linalg.norm(written * lengths, axis=1).max(initial=0.0)
    return 4 * float(of_atoms + np.linalg.norm(digits.lattice, axis=1).max())


def space_group(atoms: Atoms, tolerance: float = PHONOPY_SYMPREC) -> Group | None:
    """Return the space group of a crystal; atoms of different masses are different.

    None if spglib finds no group, for atoms that overlap.
    """
    _, kinds = np.unique(
        np.column_stack([atoms.numbers, atoms.get_masses()]), axis=0, return_inverse=True
    )
    cell: Any = (atoms.cell.array, atoms.get_scaled_positions(), kinds.ravel())
    try:
        dataset: Any = spglib.get_symmetry_dataset(cell, symprec=tolerance)
    except Exception:  # no group is found, which later versions raise
        dataset = None
    if dataset is None:
        return None
    name = f"{dataset.international} ({dataset.number})"
    return Group(name, dataset.number, dataset.rotations, dataset.translations)


def _meant(atoms: Atoms, digits: Digits, group: Group) -> tuple[Atoms, float]:
    """Return the closest crystal that has a group exactly, and how far ``atoms`` is from it.

    The distance is infinite if the crystal cannot be given the group, and ``_CUT_OFF`` if the
    group is too large to be imposed.
    """
    if len(group.rotations) * len(atoms) ** 2 > _MOST_PAIRS:
        return atoms, _CUT_OFF
    closest, excess = _closest(atoms, digits, group)
    closest_group = space_group(closest) if excess <= _CUT_OFF else None
    has_group = closest_group is not None and len(closest_group.rotations) == len(group.rotations)
    return closest, excess if has_group else np.inf


def _closest(atoms: Atoms, digits: Digits, group: Group) -> tuple[Atoms, float]:
    """Return a crystal with the operations of a group, and how far its numbers are off.

    That is the largest change of a number in units of half its last digit.
    """
    structure = as_structure(atoms)
    exact = symmetrised(structure, operations(structure, *group[2:]))
    fractions = atoms.get_scaled_positions(wrap=False)
    bounds = np.maximum(digits.fractions, _EXACT)
    changes = exact.positions @ np.linalg.inv(exact.cell) - fractions
    changes = _at_origin(changes, bounds)
    off = np.abs(changes) / bounds
    # numbers with two decimals are not changed: (0.33, 0.67) may be meant as it stands
    off[(np.abs(changes) > _EXACT) & (bounds >= _COARSE) & np.isfinite(bounds)] += 1.0
    # the first vector keeps its direction and the first two their plane, where files have zeros
    triangles = [np.linalg.cholesky(cell @ cell.T) for cell in (structure.cell, exact.cell)]
    lattice = triangles[1] @ np.linalg.solve(triangles[0], structure.cell)
    stretched = np.abs(lattice - structure.cell) / np.maximum(digits.lattice, _EXACT)
    closest = atoms.copy()
    closest.set_cell(lattice)
    closest.set_scaled_positions(fractions + changes)
    return closest, float(max(off.max(), stretched.max() / _MEAN_IS_OFF))


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

"""Atomic structures: one immutable record, converted from and to ASE and phonopy."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import vesin
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols, covalent_radii
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from phonopy.structure.atomic_data import get_atomic_data
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.results import one_line

# Atoms closer than this times the sum of their covalent radii are a mistake in the input.
CLOSEST = 0.5


class Structure(NamedTuple):
    """Atoms in a cell; lengths in Å, cell vectors as rows.

    A direction that is not periodic may have any cell vector, a zero one included. ``masses``
    (amu) are those of isotopes or of a program; None stands for the masses of the elements, and
    ``masses_of`` answers in both cases.
    """

    numbers: Int[ndarray, " atoms"]
    positions: Float[ndarray, "atoms 3"]
    cell: Float[ndarray, "3 3"]
    pbc: Bool[ndarray, "3"]
    masses: Float[ndarray, " atoms"] | None = None

    @property
    def volume(self) -> float:
        """Cell volume (Å³)."""
        return float(abs(np.linalg.det(self.cell)))

    def __repr__(self) -> str:
        return one_line(self, self._asdict())


# What every function of this package takes for a structure.
StructureLike: TypeAlias = Atoms | PhonopyAtoms | Structure


def as_structure(atoms: StructureLike) -> Structure:
    """Return a checked :class:`Structure`; phonopy's cells are periodic in all directions.

    Masses are carried where the object holds them: phonopy's cells always do, ASE's where they
    were set.

    Raises
    ------
    PhonopyEquivariantError
        No atoms, atoms of no element, coordinates that are not finite, masses that are not
        positive, or a periodic cell without volume.

    """
    if isinstance(atoms, Structure):
        structure = atoms
    elif isinstance(atoms, PhonopyAtoms):
        periodic = (True, True, True)
        structure = _record(atoms.numbers, atoms.positions, atoms.cell, periodic, atoms.masses)
    elif isinstance(atoms, Atoms):
        structure = unchecked_structure(atoms)
    else:
        raise PhonopyEquivariantError(
            f"Expected a structure (ase.Atoms, phonopy's PhonopyAtoms or pe.Structure), got "
            f"{type(atoms).__name__}."
        )
    _check(structure)
    return structure


def unchecked_structure(atoms: Atoms) -> Structure:
    """Return the structure of ``ase.Atoms`` unchecked, for readers that report its faults."""
    masses = atoms.get_masses() if atoms.has("masses") else None
    return _record(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, masses)


def masses_of(atoms: StructureLike) -> Float[ndarray, " atoms"]:
    """Return atomic masses (amu); without masses of their own atoms have phonopy's of the elements.

    ASE's differ from them by 1e-4. They serve for elements to which phonopy gives no mass.

    Raises
    ------
    PhonopyEquivariantError
        A mass is zero, negative or not a finite number.

    """
    given = atoms.arrays.get("masses") if isinstance(atoms, Atoms) else atoms.masses
    if given is None:
        return _standard_masses()[np.asarray(atoms.numbers)]
    masses = np.array(given, float)
    wrong = np.flatnonzero(~(np.isfinite(masses) & (masses > 0)))
    if len(wrong):
        raise PhonopyEquivariantError(
            f"The mass of atom {wrong[0] + 1} is {masses[wrong[0]]:g} amu; give a positive number."
        )
    return masses


def _standard_masses() -> Float[ndarray, " elements"]:
    table = [row[3] for row in get_atomic_data().atom_data]
    theirs = np.array([np.nan if mass is None else mass for mass in table])
    return np.where(theirs > 0, theirs, atomic_masses[: len(theirs)])


def as_atoms(structure: StructureLike) -> Atoms:
    """Return a copy as ``ase.Atoms`` without calculator; constraints of ``ase.Atoms`` stay."""
    if isinstance(structure, Atoms):
        atoms = structure.copy()
        atoms.calc = None
        return atoms
    return to_ase(as_structure(structure))


def to_ase(structure: Structure) -> Atoms:
    """Return the structure as ``ase.Atoms``."""
    return Atoms(
        numbers=structure.numbers,
        positions=structure.positions,
        cell=structure.cell,
        pbc=structure.pbc,
        masses=structure.masses,
    )


def to_phonopy(structure: Structure) -> PhonopyAtoms:
    """Return a periodic structure as ``PhonopyAtoms``.

    Raises
    ------
    PhonopyEquivariantError
        The structure is not periodic in all three directions.

    """
    if not structure.pbc.all():
        raise PhonopyEquivariantError(
            "phonopy needs a structure that is periodic in three directions; "
            "put a slab or molecule into a cell with vacuum and set pbc=True."
        )
    values: dict[str, Any] = {
        "numbers": structure.numbers,
        "positions": structure.positions,
        "cell": structure.cell,
        "masses": structure.masses,
    }
    try:
        return PhonopyAtoms(**values)
    except RuntimeError:  # phonopy gives no mass to plutonium and other short-lived elements
        return PhonopyAtoms(**values | {"masses": masses_of(structure)})


def inscribed_radius(cell: Float[ndarray, "3 3"]) -> float:
    """Return the radius (Å) of the sphere inscribed in a cell: half its smallest height."""
    return float(0.5 / np.linalg.norm(np.linalg.inv(cell), axis=0).max())


def neighbours(structure: Structure, cutoff: float) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Return each unordered pair closer than ``cutoff`` (Å) once: i, j, S, |x_j + S·L - x_i|."""
    neighbour_list = vesin.NeighborList(cutoff=cutoff, full_list=False, n_threads=1)
    i, j, shifts, distances = neighbour_list.compute(
        structure.positions, _complete_cell(structure), structure.pbc, "ijSd"
    )
    return i.astype(int), j.astype(int), shifts.astype(int), distances


def check_distances(atoms: StructureLike) -> None:
    """Raise if two atoms are closer than half the sum of their covalent radii.

    No crystal or molecule is: H2, the shortest bond there is, has 1.2 times the sum. Such a
    structure has its coordinates in other units or an atom twice, and its neighbour lists are
    long.

    Raises
    ------
    PhonopyEquivariantError
        With the closest pair in units of its radii.

    """
    structure = as_structure(atoms)
    radii = covalent_radii[structure.numbers]
    i, j, _, distances = neighbours(structure, 2 * CLOSEST * float(radii.max()))
    if not len(distances):
        return
    sums = radii[i] + radii[j]
    closest = int((distances / sums).argmin())
    first, second = (int(k[closest]) for k in (i, j))
    if distances[closest] < CLOSEST * sums[closest]:
        names = [f"{k + 1} ({chemical_symbols[structure.numbers[k]]})" for k in (first, second)]
        raise PhonopyEquivariantError(
            f"Atoms {' and '.join(names)} are {distances[closest]:.3f} Å apart, and their covalent "
            f"radii add up to {sums[closest]:.2f} Å: the structure has overlapping atoms; remove "
            "the duplicate or check the units."
        )


def _record(
    numbers: ndarray,
    positions: ndarray,
    cell: ndarray,
    pbc: ndarray | tuple[bool, ...],
    masses: ndarray | None,
) -> Structure:
    return Structure(
        np.array(numbers, dtype=int),
        np.array(positions, dtype=float).reshape(-1, 3),
        np.array(cell, dtype=float),
        np.array(pbc, dtype=bool),
        None if masses is None else np.array(masses, dtype=float),
    )


def _check(structure: Structure) -> None:
    if len(structure.numbers) == 0:
        raise PhonopyEquivariantError("The structure has no atoms.")
    if structure.numbers.min() < 1:
        atom = int(structure.numbers.argmin())
        raise PhonopyEquivariantError(f"Atom {atom + 1} is of no known element; name its element.")
    if not np.isfinite(structure.positions).all():
        atom = int(np.flatnonzero(~np.isfinite(structure.positions).all(axis=1))[0])
        raise PhonopyEquivariantError(
            f"The position of atom {atom + 1} is not a finite number; mend the structure file."
        )
    if not np.isfinite(structure.cell).all():
        raise PhonopyEquivariantError("The cell has entries that are not finite numbers.")
    if structure.masses is not None:
        positive = np.isfinite(structure.masses) & (structure.masses > 0)
        if not positive.all():
            atom = int(positive.argmin())
            raise PhonopyEquivariantError(
                f"The mass of atom {atom + 1} is {structure.masses[atom]:g} amu; give a positive "
                "number."
            )
    periodic = structure.cell[structure.pbc]
    if len(periodic):
        singular_values = np.linalg.svd(periodic, compute_uv=False)
        if singular_values.min() < 1e-3:
            raise PhonopyEquivariantError(
                "The cell has no volume along its periodic directions; "
                "check the lattice vectors, or set pbc=False for a molecule."
            )


def _complete_cell(structure: Structure) -> ndarray:
    """Return a cell of full rank: directions that are not periodic may have a zero vector."""
    if structure.pbc.all() or not structure.pbc.any():
        return structure.cell
    cell = structure.cell.copy()
    periodic = cell[structure.pbc]
    # the orthogonal complement of the periodic vectors, as long as the structure is wide
    _, _, basis = np.linalg.svd(periodic)
    width = 1.0 + np.ptp(structure.positions, axis=0).max()
    cell[~structure.pbc] = width * basis[len(periodic) :]
    return cell

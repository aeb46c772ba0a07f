"""Numbers of a set that a model starts from."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.data.record import Record
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.structure import Structure

# Å: further than neighbours in any crystal under tension, nearer than images in a box of vacuum.
ISOLATED = 8.0


class Summary(NamedTuple):
    """What ``dataset info`` says of a set; None where no record has the label."""

    records: int
    atoms: int
    elements: tuple[int, ...]
    labels: dict[str, int]  # how many records have each
    sizes: tuple[int, int]  # atoms of the smallest and the largest
    energy_range: tuple[float, float] | None  # eV/atom
    force_rms: float | None  # eV/Å
    force_max: float | None  # eV/Å, length of a force
    stress_max: float | None  # eV/Å³
    levels: tuple[str, ...]


def summarise(records: Iterable[Record]) -> Summary:
    """Return a summary of records, which are seen once and not kept.

    Raises
    ------
    PhonopyEquivariantError
        No records.

    """
    count, sizes, elements, levels = 0, [], set(), set()
    labels: dict[str, int] = {}
    energies, squares, forces, stresses = [], [], [], []
    for record in records:
        count += 1
        atoms = len(record.structure.numbers)
        sizes.append(atoms)
        elements |= set(record.structure.numbers.tolist())
        levels |= {record.level} - {""}
        for name in record.labels:
            labels[name] = labels.get(name, 0) + 1
        if record.energy is not None:
            energies.append(record.energy / atoms)
        if record.forces is not None:
            squares.append((float(np.sum(record.forces**2)), record.forces.size))
            forces.append(float(np.linalg.norm(record.forces, axis=1).max()))
        if record.stress is not None:
            stresses.append(float(np.abs(record.stress).max()))
    if not count:
        raise PhonopyEquivariantError("There are no records; give a file that has some.")
    total = np.array(squares).sum(axis=0) if squares else None
    return Summary(
        count,
        sum(sizes),
        tuple(sorted(elements)),
        labels,
        (min(sizes), max(sizes)),
        (min(energies), max(energies)) if energies else None,
        None if total is None else float(np.sqrt(total[0] / total[1])),
        max(forces, default=None),
        max(stresses, default=None),
        tuple(sorted(levels)),
    )


class EnergyTable:
    """Compositions and energies of records, which are seen once and not kept."""

    def __init__(self) -> None:
        self._energies, self._isolated = array("d"), array("b")
        # one entry for each element of each record
        self._places, self._elements, self._counts = array("q"), array("h"), array("q")

    def __len__(self) -> int:
        return len(self._energies)

    def add(self, record: Record) -> None:
        """Take in a record that has an energy."""
        assert record.energy is not None
        elements, counts = np.unique(record.structure.numbers, return_counts=True)
        self._places.extend([len(self)] * len(elements))
        self._elements.extend(elements.tolist())
        self._counts.extend(counts.tolist())
        self._energies.append(record.energy)
        self._isolated.append(is_isolated(record.structure))

    def fit(self) -> dict[int, float]:
        """Return an energy per element (eV), see :func:`reference_energies`."""
        elements, counts, energies, alone = self._arrays()
        values = np.zeros(len(elements))
        fixed = counts[alone].any(axis=0)
        for k in np.flatnonzero(fixed):
            values[k] = energies[alone & (counts[:, k] > 0)].mean()
        if not fixed.all():
            residual = (energies - counts @ values)[~alone]
            values[~fixed] = np.linalg.lstsq(counts[~alone][:, ~fixed], residual, rcond=None)[0]
        return dict(zip(elements.tolist(), values.tolist(), strict=True))

    def deviations(self) -> Float[ndarray, " records"]:
        """Return the energies (eV/atom) off a fit by composition, isolated atoms like others."""
        _, counts, energies, _ = self._arrays()
        fit = np.linalg.lstsq(counts, energies, rcond=None)[0]
        return (energies - counts @ fit) / counts.sum(axis=1)

    def _arrays(self) -> tuple[ndarray, ndarray, ndarray, ndarray]:
        """Return elements, how many atoms of each a record has, energies, and who is isolated."""
        elements, columns = np.unique(np.array(self._elements), return_inverse=True)
        counts = np.zeros((len(self), len(elements)))
        counts[np.array(self._places), columns] = self._counts
        return elements, counts, np.array(self._energies), np.array(self._isolated, bool)


def reference_energies(records: Iterable[Record]) -> dict[int, float]:
    """Return an energy per element (eV).

    An element with isolated atoms among the records has their mean energy. For the others
    min ‖E_k - sum_z n_kz E0_z‖² over the records with energies. Where the compositions do not
    tell elements apart (one formula only), it is the solution of smallest norm, which gives all
    atoms the same share.

    Raises
    ------
    PhonopyEquivariantError
        No record has an energy.

    """
    table = EnergyTable()
    for record in records:
        if record.energy is not None:
            table.add(record)
    if not len(table):
        raise PhonopyEquivariantError(
            "No record has an energy, so there are no reference energies; give them by hand."
        )
    return table.fit()


def is_isolated(structure: Structure) -> bool:
    """Tell whether a structure is one atom without neighbours within :data:`ISOLATED`."""
    from phonopy_equivariant.graph import neighbour_pairs

    if len(structure.numbers) > 1:
        return False
    return not structure.pbc.any() or len(neighbour_pairs(structure, ISOLATED)[0]) == 0


def average_neighbours(records: Iterable[Record], cutoff: float) -> float:
    """Return the mean number of neighbours of an atom within ``cutoff`` (Å).

    Raises
    ------
    PhonopyEquivariantError
        No records, or overlapping atoms.

    """
    from phonopy_equivariant.graph import neighbour_pairs

    edges = atoms = 0
    for record in records:
        edges += 2 * len(neighbour_pairs(record.structure, cutoff)[0])
        atoms += len(record.structure.numbers)
    if not atoms:
        raise PhonopyEquivariantError("There are no records; give a file that has some.")
    return edges / atoms

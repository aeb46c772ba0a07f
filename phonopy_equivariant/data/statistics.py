"""Numbers of a set that a model starts from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from phonopy_equivariant.data.record import Record
from phonopy_equivariant.errors import PhonopyEquivariantError


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


def reference_energies(records: Sequence[Record]) -> dict[int, float]:
    """Return an energy per element (eV), by least squares over the compositions.

    min ‖E_k - sum_z n_kz E0_z‖² over the records with energies. Where the compositions do not
    tell elements apart (one formula only), it is the solution of smallest norm, which gives all
    atoms the same share.

    Raises
    ------
    PhonopyEquivariantError
        No record has an energy.

    """
    chosen = [record for record in records if record.energy is not None]
    if not chosen:
        raise PhonopyEquivariantError(
            "No record has an energy, so there are no reference energies; give them by hand."
        )
    elements = np.unique(np.concatenate([record.structure.numbers for record in chosen]))
    counts = np.array([(r.structure.numbers[:, None] == elements).sum(axis=0) for r in chosen])
    energies = np.array([record.energy for record in chosen])
    solution = np.linalg.lstsq(counts.astype(float), energies, rcond=None)[0]
    return {int(z): float(energy) for z, energy in zip(elements, solution, strict=True)}


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

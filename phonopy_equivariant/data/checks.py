"""What is wrong with records, one by one and as a set, named by file and index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from phonopy_equivariant.data.consistency import inconsistencies
from phonopy_equivariant.data.record import Record
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.structure import as_structure

LABELS = ("energy", "forces", "stress")
# eV/Å³ (160 GPa); beyond, a whole set of stresses is in GPa or kbar rather than under pressure.
MAX_STRESS = 1.0
# eV/atom off the fit by composition: other units or another reference.
MAX_DEVIATION = 5.0


class Problem(NamedTuple):
    """One thing that is wrong, with the record (or, for a set, its first record) it is about."""

    source: str
    text: str
    place: int | None  # among the records given; None for the set as a whole


def unsoundness(record: Record) -> str:
    """Return why no model can use a record, or "".

    Structures without atoms or volume, numbers that are not finite, labels of a wrong shape, and
    records without any label but a structure count as sound: they may be labelled later.
    """
    try:
        as_structure(record.structure)
    except PhonopyEquivariantError as error:
        return str(error).rstrip(".")
    if record.structure.numbers.min() < 1:
        return "atoms of no known element"
    atoms = len(record.structure.numbers)
    if record.energy is not None and not np.isfinite(record.energy):
        return "the energy is not a finite number"
    if record.forces is not None and record.forces.shape != (atoms, 3):
        return f"forces of shape {record.forces.shape} for {atoms} atoms"
    constants, spectrum = record.force_constants, record.spectrum
    arrays = {
        "forces": record.forces,
        "stress": record.stress,
        "force constants": None if constants is None else constants.values,
        "frequencies": None if spectrum is None else spectrum.frequencies,
    }
    for name, values in arrays.items():
        if values is not None and not np.isfinite(values).all():
            return f"the {name} have entries that are not finite numbers"
    for name, width in (("force constants", constants), ("frequencies", spectrum)):
        columns = None if width is None else arrays[name].shape[-1]  # type: ignore[union-attr]
        if columns not in (None, 3 * atoms):
            return f"{name} of {columns} columns for {atoms} atoms"
    return ""


def overlap(record: Record) -> str:
    """Return which atoms of a record are closer than 0.3 Å, or ""."""
    from phonopy_equivariant.graph import OVERLAP, neighbour_pairs

    try:
        neighbour_pairs(record.structure, OVERLAP)
    except PhonopyEquivariantError as error:
        return str(error).partition(":")[0]
    return ""


def check_records(records: Sequence[Record], require: Iterable[str] | None = None) -> list[Problem]:
    """Return everything that is wrong with a set of records.

    One by one: what :func:`unsoundness` finds, atoms closer than 0.3 Å, force constants that are
    not Hermitian, labels that are missing. As a set: energies that do not fit the work of the
    forces, or the stress, between configurations (units, signs, energies per atom); energies far
    off the fit by composition; curvatures and stresses beyond those of any solid.

    Parameters
    ----------
    records
        Of one set: one level of theory, one source.
    require
        Labels that each record must have, of "energy", "forces", "stress"; by default those that
        most records have. Records with second-order data alone need none.

    """
    problems = list(_single(records, require))
    bad = {problem.place for problem in problems}
    sound = [record for k, record in enumerate(records) if k not in bad]
    if sound:
        source = sound[0].source
        problems += [Problem(source, text, None) for text in inconsistencies(sound)]
        problems += _stresses(sound)
        problems += _deviations(records, bad)
    return problems


def _single(records: Sequence[Record], require: Iterable[str] | None) -> Iterator[Problem]:
    first_order = [r for r in records if set(r.labels) & set(LABELS)]
    wanted = (
        [name for name in LABELS if 2 * sum(name in r.labels for r in records) > len(first_order)]
        if require is None
        else list(require)
    )
    for k, record in enumerate(records):
        text = unsoundness(record)
        if text:
            yield Problem(record.source, text, k)
            continue
        text = overlap(record)
        if text:
            yield Problem(record.source, text, k)
        if record.force_constants is not None:
            values = record.force_constants.values
            deviation = np.abs(values - values.conj().transpose(0, 2, 1)).max()
            if deviation > 0.01 * np.abs(values).max():
                yield Problem(
                    record.source,
                    f"force constants that are not Hermitian, by {deviation:.2g} eV/Å²",
                    k,
                )
        if set(record.labels) & {"force_constants", "spectrum"}:
            continue
        missing = [name for name in wanted if name not in record.labels]
        if missing:
            yield Problem(record.source, f"no {' and no '.join(missing)}", k)


def _stresses(records: Sequence[Record]) -> list[Problem]:
    largest = [np.abs(record.stress).max() for record in records if record.stress is not None]
    if not largest or np.median(largest) < MAX_STRESS:
        return []
    return [
        Problem(
            records[0].source,
            f"the stress is {np.median(largest):.3g} eV/Å³ in most records, more than in any "
            "experiment: perhaps GPa, kbar, or a virial in eV",
            None,
        )
    ]


def _deviations(records: Sequence[Record], bad: set[int | None]) -> list[Problem]:
    from phonopy_equivariant.data.statistics import reference_energies

    places = [k for k, r in enumerate(records) if k not in bad and r.energy is not None]
    if len(places) < 5:
        return []
    chosen = [records[k] for k in places]
    fit = reference_energies(chosen)
    off = np.array(
        [(r.energy or 0.0) - sum(fit[int(z)] for z in r.structure.numbers) for r in chosen]
    ) / np.array([len(r.structure.numbers) for r in chosen])
    off -= np.median(off)
    spread = 10 * float(np.median(np.abs(off)))
    return [
        Problem(
            records[k].source,
            f"the energy is {value:+.1f} eV/atom off the others by composition: other units, "
            "another level of theory, or a failed calculation",
            k,
        )
        for k, value in zip(places, off, strict=True)
        if abs(value) > max(MAX_DEVIATION, spread)
    ]

"""What is wrong with records, one by one and as a set, named by file and index."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from phonopy_equivariant.data.consistency import WorkTable
from phonopy_equivariant.data.duplicates import Marks, MarkTable
from phonopy_equivariant.data.record import Record
from phonopy_equivariant.data.statistics import EnergyTable, is_isolated
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.structure import Structure, as_structure

FIRST_ORDER = ("energy", "forces", "stress")
# eV/Å, the length of a force; beyond, a calculation has failed or forces are in another unit.
MAX_FORCE = 1000.0
# How far a stress may be from symmetric, relative to its largest component.
MAX_SKEW = 0.05
# Å: where overlapping atoms are looked for. With their own 0.3 Å a cell list has thousands of bins.
_OVERLAP_SEARCH = 2.0
# eV/Å³ (160 GPa); beyond, a whole set of stresses is in GPa or kbar rather than under pressure.
MAX_STRESS = 1.0
# eV/atom off the fit by composition: other units or another reference.
MAX_DEVIATION = 5.0


class Problem(NamedTuple):
    """One thing that is wrong, with the record (or, for a set, its first record) it is about."""

    source: str
    text: str
    place: int | None  # among the records given; None for the set as a whole
    certain: bool = True  # False where a record is odd, but may be right


def unsoundness(record: Record) -> str:
    """Return why no model can use a record, or "".

    These are structures without atoms or volume, numbers that are not finite, labels of a wrong
    shape or that the file contradicts. Records without any label but a structure count as sound:
    they may be labelled later.
    """
    try:
        as_structure(record.structure)
    except PhonopyEquivariantError as error:
        return str(error).rstrip(".")
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
    return next(iter(record.contradictions.values()), "")


def overlap(record: Record) -> str:
    """Return which atoms of a record are closer than 0.3 Å, or ""."""
    from phonopy_equivariant.graph import neighbour_pairs

    try:
        neighbour_pairs(record.structure, _OVERLAP_SEARCH)
    except PhonopyEquivariantError as error:
        return str(error).partition(":")[0]
    return ""


def faults(record: Record) -> Iterator[str]:
    """Yield what is wrong with one record.

    What :func:`unsoundness` and :func:`overlap` find, forces beyond those of any structure, a
    stress that is not symmetric, and force constants that are not Hermitian.
    """
    text = unsoundness(record)
    if text:
        yield text
        return
    text = overlap(record)
    if text:
        yield text
    if record.forces is not None:
        largest = float(np.linalg.norm(record.forces, axis=1).max())
        if largest > MAX_FORCE:
            yield f"a force of {largest:.3g} eV/Å: a failed calculation, or another unit"
    if record.stress is not None:
        skew = float(np.abs(record.stress - record.stress.T).max())
        if skew > MAX_SKEW * np.abs(record.stress).max() + 1e-4:
            yield f"a stress that is not symmetric, by {skew:.2g} eV/Å³"
    if record.force_constants is not None:
        values = record.force_constants.values
        deviation = np.abs(values - values.conj().transpose(0, 2, 1)).max()
        if deviation > 0.01 * np.abs(values).max():
            yield f"force constants that are not Hermitian, by {deviation:.2g} eV/Å²"


def check_records(records: Iterable[Record], require: Iterable[str] | None = None) -> list[Problem]:
    """Return everything that is wrong with a set of records, as :class:`Survey` finds it.

    Parameters
    ----------
    records
        Of one set: one level of theory, one source. They are seen once.
    require
        As of :class:`Survey`.

    """
    survey = Survey(require)
    for record in records:
        survey.add(record)
    return survey.problems()


class Survey:
    """Everything that is wrong with a set of records, which are seen once and not kept.

    One by one: what :func:`faults` finds, labels that are missing. Of equal structures: labels that
    differ. As a set: energies that do not fit the work of the forces, or the stress, between
    configurations (units, signs, energies per atom); energies far off the fit by composition;
    curvatures and stresses beyond those of any solid.

    Parameters
    ----------
    require
        Labels that each record must have, of "energy", "forces", "stress"; by default those that
        most records have. Records with second-order data alone need none.

    """

    def __init__(self, require: Iterable[str] | None = None):
        self._require = None if require is None else list(require)
        self.sources: list[str] = []
        self._single: list[Problem] = []
        # a bit for each of FIRST_ORDER: what a record has, and what may be asked of it
        self._labels, self._owed = array("b"), array("b")
        self._stresses, self._places = array("d"), array("q")
        self._energies, self._work, self._marks = EnergyTable(), WorkTable(), MarkTable()
        self._first_source = ""

    def add(self, record: Record) -> None:
        """Take in the next record."""
        place, labels = len(self.sources), record.labels
        self.sources.append(record.source)
        texts = list(faults(record))
        self._single += [Problem(record.source, text, place) for text in texts]
        self._marks.add(None if texts else record)
        self._labels.append(_bits(labels))
        free = bool(texts) or "force_constants" in labels or "spectrum" in labels
        self._owed.append(0 if free else _bits(_possible(record.structure)))
        if not texts:
            self._add_sound(record, place)

    def _add_sound(self, record: Record, place: int) -> None:
        self._first_source = self._first_source or record.source
        self._work.add(record)
        if record.stress is not None:
            self._stresses.append(np.abs(record.stress).max())
        if record.energy is not None and not is_isolated(record.structure):
            self._energies.add(record)
            self._places.append(place)

    @property
    def marks(self) -> Marks:
        """Marks of the records' structures, to find equal ones in another set."""
        return self._marks.marks

    def problems(self) -> list[Problem]:
        """Return what is wrong with the records so far: one by one, then as a set."""
        single = [*self._single, *self._missing(), *self._contradictions()]
        single.sort(key=lambda problem: problem.place or 0)
        of_set = [Problem(self._first_source, text, None) for text in self._work.inconsistencies()]
        return [*single, *of_set, *self._of_stresses(), *self._deviations()]

    def _missing(self) -> Iterator[Problem]:
        missing: dict[int, list[str]] = defaultdict(list)
        labels, owed = np.array(self._labels), np.array(self._owed)
        for k, name in enumerate(FIRST_ORDER):
            has, expected = labels >> k & 1 == 1, owed >> k & 1 == 1
            most = 2 * np.count_nonzero(has & expected) > np.count_nonzero(expected & (labels > 0))
            if most if self._require is None else name in self._require:
                for place in np.flatnonzero(expected & ~has).tolist():
                    missing[place].append(name)
        for place, names in missing.items():
            yield Problem(self.sources[place], f"no {' and no '.join(names)}", place)

    def _contradictions(self) -> Iterator[Problem]:
        for place, (twin, difference) in self._marks.contradictions().items():
            text = (
                f"the same structure as {self.sources[twin]}, but {difference}: one of them is "
                "wrong"
            )
            yield Problem(self.sources[place], text, place)

    def _of_stresses(self) -> Iterator[Problem]:
        median = float(np.median(self._stresses)) if self._stresses else 0.0
        if median > MAX_STRESS:
            text = (
                f"the stress is {median:.3g} eV/Å³ in most records, more than in any experiment: "
                "perhaps GPa, kbar, or a virial in eV"
            )
            yield Problem(self._first_source, text, None)

    def _deviations(self) -> Iterator[Problem]:
        if len(self._energies) < 5:
            return
        off = self._energies.deviations()
        off -= np.median(off)
        spread = 10 * float(np.median(np.abs(off)))
        for place, value in zip(self._places, off, strict=True):
            if abs(value) > max(MAX_DEVIATION, spread):
                text = (
                    f"the energy is {value:+.1f} eV/atom off the others by composition: other "
                    "units, another level of theory, or a failed calculation"
                )
                yield Problem(self.sources[place], text, place, certain=False)


def _bits(labels: Iterable[str]) -> int:
    return sum(1 << k for k, name in enumerate(FIRST_ORDER) if name in labels)


def _possible(structure: Structure) -> tuple[str, ...]:
    """Return the labels that a structure can have and does not have by symmetry."""
    if is_isolated(structure):
        return ("energy",)
    return FIRST_ORDER if structure.pbc.all() else ("energy", "forces")

"""From what a file calls its data to the fields of a record.

A file may hold two sets of labels, such as ``energy`` of a calculator and ``REF_energy`` of the
reference. A name with a word of :data:`WORDS` before or after it is meant for training and wins.
The free energy, from which forces derive, wins over the energy beside it. All other names of one
label must agree, or the record says that they do not (:attr:`.Record.contradictions`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy import ndarray

from phonopy_equivariant.data.record import ForceConstantsData, Record, Spectrum
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.structure import Structure

# Words by which users of MACE, GAP, NequIP and of ab initio codes mark labels to train on.
WORDS = ("ref", "reference", "dft", "qm", "vasp", "castep", "aims", "orca", "qe", "cp2k")
# What a name means, in lower case; earlier ones win.
_MEANING = {
    "free_energy": "energy",
    "energy": "energy",
    "forces": "forces",
    "force": "forces",
    "stress": "stress",
    "virial": "stress",
    "virials": "stress",
}
_UNITS = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}
_NAME = re.compile(
    rf"(?:({'|'.join(WORDS)})[_-])?({'|'.join(_MEANING)})(?:[_-]({'|'.join(WORDS)}))?", re.I
)
# Two values of one label (eV, eV/Å, eV/Å³) differ beyond this, or a relative 1e-7 (float32).
_EQUAL = 1e-5


class Keys(NamedTuple):
    """Names that were asked for; None stands for the usual ones."""

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None  # a virial (eV) where its name says so, and not stress


class Frame(NamedTuple):
    """One configuration of a file and everything that stands beside it, by name."""

    structure: Structure
    values: Mapping[str, Any]
    source: str

    @property
    def names(self) -> list[str]:
        """Names of the data."""
        return sorted({*self.values} - {"numbers", "positions", "masses"})


class _Value(NamedTuple):
    name: str
    word: str  # of WORDS; empty in a plain name
    meaning: str  # a key of _MEANING
    array: ndarray


def labelled_records(frames: Iterable[Frame], keys: Keys, level: str) -> Iterator[Record]:
    """Yield a record for each frame.

    Raises
    ------
    PhonopyEquivariantError
        Data of a wrong shape; or a name that was asked for and is in no frame.

    """
    absent = {label: key for label, key in keys._asdict().items() if key is not None}
    first_frame = None
    for frame in frames:
        first_frame = first_frame or frame
        absent = {label: key for label, key in absent.items() if not _has_value(frame.values, key)}
        yield labelled_record(frame, keys, level)
    for label, key in absent.items() if first_frame else ():
        assert first_frame is not None
        raise PhonopyEquivariantError(
            f"{first_frame.source}: no {key!r} for the {label}, here or in a later record; the "
            f"names here are {', '.join(first_frame.names) or 'none'}."
        )


def labelled_record(frame: Frame, keys: Keys, level: str) -> Record:
    """Return a record from named data in eV and Å.

    Second-order data have the names of :mod:`phonopy_equivariant.data.extxyz`.

    Raises
    ------
    PhonopyEquivariantError
        An array has a wrong shape.

    """
    columns = 3 * len(frame.structure.numbers)
    labels: dict[str, ndarray | None] = {}
    contradictions = {}
    try:
        for label, key in keys._asdict().items():
            candidates = _values(frame, label, key)
            labels[label] = _unless_unknown(candidates[0].array) if candidates else None
            text = _contradiction(candidates, label) if labels[label] is not None else ""
            if text:
                contradictions[label] = text
        force_constants = _force_constants(frame.values, columns)
        spectrum = _spectrum(frame.values, columns)
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{frame.source}: {error}") from error
    energy = labels["energy"]
    return Record(
        frame.structure,
        energy=None if energy is None else float(energy),
        forces=labels["forces"],
        stress=labels["stress"],
        force_constants=force_constants,
        spectrum=spectrum,
        level=str(frame.values.get("level") or level),
        source=frame.source,
        contradictions=contradictions,
    )


def atoms_values(atoms: Atoms) -> dict[str, Any]:
    """Return all data of an ``Atoms`` by name; a calculator's results come before the rest."""
    return (
        dict(atoms.arrays) | dict(atoms.info) | ({} if atoms.calc is None else atoms.calc.results)
    )


def full_stress(values: ndarray | Sequence[Any]) -> ndarray:
    """Return 3×3 from 3×3, nine numbers, or six in ASE's order xx, yy, zz, yz, xz, xy.

    Raises
    ------
    PhonopyEquivariantError
        Another count.

    """
    array = np.array(values, float).ravel()
    if array.size == 6:
        return array[[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)
    if array.size != 9:
        raise PhonopyEquivariantError(f"a stress of {array.size} numbers; write 6 or 9.")
    return array.reshape(3, 3)


def _has_value(values: Mapping[str, Any], name: str) -> bool:
    """Tell whether a name has a value; a word alone in a comment line is True for ASE."""
    value = values.get(name)
    return not (
        value is None
        or isinstance(value, bool | np.bool_)
        or (isinstance(value, str) and value.strip().lower() in ("", "none"))
    )


def _values(frame: Frame, label: str, key: str | None) -> list[_Value]:
    """Return the values that a frame has for a label; the one to use comes first."""
    candidates = []
    for name in frame.values if key is None else [key]:
        match = _NAME.fullmatch(name)
        if key is not None:
            is_virial = "virial" in key.lower() and "stress" not in key.lower()
            word, meaning = "", "virial" if is_virial else label
        elif match and _MEANING[match[2].lower()] == label:
            word, meaning = (match[1] or match[3] or "").lower(), match[2].lower()
        else:
            continue
        if not _has_value(frame.values, name):
            continue
        array = _converted(name, frame.values[name], label, meaning, frame.structure)
        if array is not None:
            candidates.append(_Value(name, word, meaning, array))
    order = list(_MEANING)
    return sorted(candidates, key=lambda value: (not value.word, order.index(value.meaning)))


def _converted(
    name: str, value: Any, label: str, meaning: str, structure: Structure
) -> ndarray | None:
    """Return a value as eV, eV/Å (atoms, 3) or eV/Å³ (3, 3); None for a virial without volume."""
    try:
        array = np.array(value, float)
    except (TypeError, ValueError) as error:
        raise PhonopyEquivariantError(f"{name} is no number: {str(value)[:40]!r}.") from error
    if label == "energy":
        if array.size != 1:
            raise PhonopyEquivariantError(f"{name} has {array.size} numbers where one is needed.")
        return array.reshape(())
    if label == "forces":
        atoms = len(structure.numbers)
        if array.size != 3 * atoms:
            raise PhonopyEquivariantError(
                f"{array.size} force components where {atoms} atoms need {3 * atoms}."
            )
        return array.reshape(atoms, 3)
    stress = full_stress(array)
    if not meaning.startswith("virial"):
        return stress
    return -stress / structure.volume if structure.volume else None


def _unless_unknown(array: ndarray) -> ndarray | None:
    """Return None for forces or a stress of nothing but NaN, which stands for unknown."""
    return None if array.ndim and np.isnan(array).all() else array


def _contradiction(candidates: Sequence[_Value], label: str) -> str:
    """Return a remark if another value of a label differs from the first; "" otherwise."""
    best = candidates[0]
    groups: dict[str, list[_Value]] = defaultdict(list)
    for value in candidates[1:]:
        superseded = label == "energy" and value.word == best.word and value.meaning != best.meaning
        if not superseded and not np.isnan(value.array).all():
            groups[value.word].append(value)
    for word, values in groups.items():
        differing = [v for v in values if not np.allclose(v.array, best.array, 1e-7, _EQUAL)]
        # REF_energy may be the energy or the free energy of the calculator
        any_agrees = label == "energy" and word != best.word and len(differing) < len(values)
        if differing and not any_agrees:
            rival = differing[0]
            off = np.abs(rival.array - best.array).max()
            return (
                f"{best.name} and {rival.name} differ by {off:.3g} {_UNITS[label]}: choose one "
                f"with {label}_key"
            )
    return ""


def _force_constants(named: Mapping[str, Any], columns: int) -> ForceConstantsData | None:
    if named.get("hessian") is not None:
        values = np.array(named["hessian"], float)
        if values.size != columns**2:
            raise PhonopyEquivariantError(
                f"a Hessian of {values.size} numbers where {columns} coordinates need {columns**2}."
            )
        return ForceConstantsData(np.zeros((1, 3)), values.reshape(1, columns, columns) + 0j)
    if named.get("fc_qpoints") is None:
        return None
    real, imag = (np.array(named.get(name), float) for name in ("fc_real", "fc_imag"))
    qpoints = np.array(named["fc_qpoints"], float).reshape(-1, 3)
    shape = (len(qpoints), columns, columns)
    if real.shape != shape or imag.shape != shape:
        raise PhonopyEquivariantError(f"fc_real and fc_imag must both have the shape {shape}.")
    values = np.empty(shape, complex)
    values.real, values.imag = real, imag
    return ForceConstantsData(qpoints, values)


def _spectrum(named: Mapping[str, Any], columns: int) -> Spectrum | None:
    if named.get("spectrum") is None:
        return None
    qpoints = np.array(named.get("spectrum_qpoints", [[0, 0, 0]]), float).reshape(-1, 3)
    frequencies = np.array(named["spectrum"], float)
    if frequencies.size != len(qpoints) * columns:
        raise PhonopyEquivariantError(
            f"spectrum has {frequencies.size} frequencies where {len(qpoints)} q of {columns} "
            "coordinates need as many each."
        )
    return Spectrum(qpoints, frequencies.reshape(len(qpoints), columns))


def second_order(record: Record) -> dict[str, ndarray]:
    """Return force constants and spectrum under the names that :func:`labelled_record` reads."""
    named: dict[str, ndarray] = {}
    if record.force_constants is not None:
        qpoints, values = record.force_constants.qpoints, record.force_constants.values
        if len(qpoints) == 1 and not qpoints.any() and not values.imag.any():
            named["hessian"] = values[0].real
        else:
            named["fc_qpoints"] = qpoints
            named["fc_real"], named["fc_imag"] = values.real, values.imag
    if record.spectrum is not None:
        named["spectrum_qpoints"] = record.spectrum.qpoints
        named["spectrum"] = record.spectrum.frequencies
    return named

"""From what a file calls its data to the fields of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy import ndarray

from phonopy_equivariant.data.record import ForceConstantsData, Record, Spectrum
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.structure import Structure


class Keys(NamedTuple):
    """Names under which programs write the same quantity; the first that is there counts."""

    energy: tuple[str, ...] = ("energy", "REF_energy", "dft_energy", "DFT_energy", "Energy")
    forces: tuple[str, ...] = ("forces", "REF_forces", "dft_forces", "DFT_forces", "force")
    stress: tuple[str, ...] = ("stress", "REF_stress", "dft_stress", "DFT_stress")
    virial: tuple[str, ...] = ("virial", "REF_virial", "dft_virial", "DFT_virial", "virials")


def chosen_keys(
    energy_key: str | None = None, forces_key: str | None = None, stress_key: str | None = None
) -> Keys:
    """Return the usual names, or in their place the one that is asked for."""
    given = {"energy": energy_key, "forces": forces_key, "stress": stress_key}
    return Keys()._replace(**{name: (key,) for name, key in given.items() if key is not None})


def atoms_structure(atoms: Atoms) -> Structure:
    """Return the structure as it is in the file; :func:`iter_records` checks it."""
    return Structure(
        np.array(atoms.numbers, int),
        np.array(atoms.positions, float),
        np.array(atoms.cell.array, float),
        np.array(atoms.pbc, bool),
    )


def labelled_record(
    structure: Structure, known: Mapping[str, Any], keys: Keys, level: str, source: str
) -> Record:
    """Return a record from named data in eV and Å.

    Second-order data are those of :mod:`phonopy_equivariant.data.extxyz`.

    Raises
    ------
    PhonopyEquivariantError
        Data of a wrong shape, or a name that was asked for and is not there.

    """
    energy = _first(known, keys.energy)
    forces = _first(known, keys.forces)
    columns = 3 * len(structure.numbers)
    record = Record(
        structure,
        energy=None if energy is None else float(energy),
        forces=None if forces is None else _per_atom(forces, len(structure.numbers)),
        stress=_stress(known, keys, structure),
        force_constants=_force_constants(known, columns),
        spectrum=_spectrum(known, columns),
        level=str(known.get("level") or level),
        source=source,
    )
    for label in ("energy", "forces", "stress"):
        names = getattr(keys, label)
        if len(names) == 1 and getattr(record, label) is None:
            there = sorted({*known} - {"numbers", "positions"})
            raise PhonopyEquivariantError(
                f"no {names[0]!r} for the {label}; the names here are {', '.join(there) or 'none'}."
            )
    return record


def full_stress(values: Any) -> ndarray:
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


def _first(known: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((known[name] for name in names if known.get(name) is not None), None)


def _per_atom(values: Any, atoms: int) -> ndarray:
    array = np.array(values, float)
    if array.size != 3 * atoms:
        raise PhonopyEquivariantError(
            f"{array.size} force components where {atoms} atoms need {3 * atoms}."
        )
    return array.reshape(atoms, 3)


def _stress(known: Mapping[str, Any], keys: Keys, structure: Structure) -> ndarray | None:
    stress = _first(known, keys.stress)
    if stress is not None:
        return full_stress(stress)
    virial = _first(known, keys.virial)
    if virial is None or structure.volume == 0.0:
        return None
    return -full_stress(virial) / structure.volume


def _force_constants(known: Mapping[str, Any], columns: int) -> ForceConstantsData | None:
    if known.get("hessian") is not None:
        values = np.array(known["hessian"], float)
        if values.size != columns**2:
            raise PhonopyEquivariantError(
                f"a Hessian of {values.size} numbers where {columns} coordinates need {columns**2}."
            )
        return ForceConstantsData(np.zeros((1, 3)), values.reshape(1, columns, columns) + 0j)
    if known.get("fc_qpoints") is None:
        return None
    real, imag = (np.array(known.get(name), float) for name in ("fc_real", "fc_imag"))
    qpoints = np.array(known["fc_qpoints"], float).reshape(-1, 3)
    shape = (len(qpoints), columns, columns)
    if real.shape != shape or imag.shape != shape:
        raise PhonopyEquivariantError(f"fc_real and fc_imag must both have the shape {shape}.")
    values = np.empty(shape, complex)
    values.real, values.imag = real, imag
    return ForceConstantsData(qpoints, values)


def _spectrum(known: Mapping[str, Any], columns: int) -> Spectrum | None:
    if known.get("spectrum") is None:
        return None
    qpoints = np.array(known.get("spectrum_qpoints", [[0, 0, 0]]), float).reshape(-1, 3)
    frequencies = np.array(known["spectrum"], float)
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

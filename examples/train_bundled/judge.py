"""Errors of a potential against its teacher on held-out structures.

    python judge.py TEACHER STUDENT HELD_OUT.h5 [--json OUT] [--crystals MOST]

The teacher's D(q) are kept in a folder ``judged`` beside the records, for the next student.

Energies and forces of all held-out records, perturbed ones included; phonons of the crystals at
rest, at the teacher's structure: exact D(q) at the q of ``phonopy-equivariant evaluate`` (of the
supercell that is its label), which avoid Γ, so that every mode counts. Imaginary modes count in no
thermal property, as in phonopy. Changes of forces under small displacements as in training against
products with the Hessians that label them: of the teacher itself they say how anharmonic it is at
that width (``judge.py TEACHER TEACHER ...``).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
from collect import displaced
from labels import Teacher, load_teacher, use_cache
from phonopy.physical_units import get_physical_units

import phonopy_equivariant as pe
from phonopy_equivariant.data import Record, read_records
from phonopy_equivariant.evaluation.metrics import MATRIX_QPOINTS, relative_errors
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.frequencies import signed_root
from phonopy_equivariant.structure import Structure

TEMPERATURE = 300.0


def kept_matrices(teacher: Teacher, structure: Structure, folder: Path) -> np.ndarray:
    """Return the teacher's D(q) on the grid, from the folder where it has been there before."""
    arrays = (structure.numbers, structure.positions, structure.cell)
    words = f"{teacher.sha256} at {MATRIX_QPOINTS.tolist()}".encode()
    words += b"".join(array.tobytes() for array in arrays)
    path = folder / f"{hashlib.sha256(words).hexdigest()[:24]}.npy"
    if path.exists():
        return np.load(path, allow_pickle=False)
    matrices = pe.dynamical_matrices(teacher, structure, MATRIX_QPOINTS)
    folder.mkdir(exist_ok=True)
    content = io.BytesIO()
    np.save(content, matrices)
    write_atomically(path, content.getvalue())
    return matrices


def thermal(frequencies: np.ndarray) -> tuple[float, float, float]:
    """Return F (kJ/mol), S and Cv (J/K/mol) for a mole of primitive cells at 300 K."""
    units = get_physical_units()
    energies = frequencies[frequencies > 1e-4] * units.THzToEv
    kt = units.KB * TEMPERATURE
    x = energies / kt
    occupation = 1 / np.expm1(x)
    free = energies / 2 + kt * np.log1p(-np.exp(-x))
    entropy = (energies * (occupation + 0.5) - free) / TEMPERATURE
    capacity = units.KB * x**2 * occupation * (occupation + 1)
    scale = units.EvTokJmol / len(frequencies)
    sums = [float(values.sum()) * scale for values in (free, entropy, capacity)]
    return sums[0], sums[1] * 1000, sums[2] * 1000


def frequencies_of(matrices: np.ndarray) -> np.ndarray:
    """Return frequencies (THz), imaginary ones negative."""
    values = np.linalg.eigvalsh(matrices)
    return signed_root(values) * get_physical_units().DefaultToTHz


def compare(reference: np.ndarray, student: Teacher, structure: Structure) -> dict[str, float]:
    """Return the phonon errors on one crystal."""
    matrices = pe.dynamical_matrices(student, structure, MATRIX_QPOINTS)
    expected, frequencies = frequencies_of(reference), frequencies_of(matrices)
    names = ("free energy", "entropy", "heat capacity")
    errors = np.abs(np.subtract(thermal(frequencies), thermal(expected))) / len(structure.numbers)
    return {
        "highest frequency, THz": abs(float(frequencies.max() - expected.max())),
        "highest frequency, %": 100 * abs(float(frequencies.max() / expected.max() - 1)),
        "frequencies, THz": float(np.abs(frequencies - expected).mean()),
        "D(q)": float(relative_errors(reference, matrices).mean()),
        **{f"{name} per atom": float(e) for name, e in zip(names, errors, strict=True)},
    }


def point_errors(student: Teacher, records: list[Record]) -> dict[str, float]:
    """Return mean absolute errors of energies (meV/atom) and force components (meV/Å)."""
    energies, forces = [], []
    for record in records:
        found = student.evaluate(record.structure)
        energies.append(abs(found.energy - record.energy) / len(record.structure.numbers))
        forces.append(np.abs(found.forces - record.forces).ravel())
    return {
        "energy, meV/atom": 1e3 * float(np.mean(energies)),
        "energy, median, meV/atom": 1e3 * float(np.median(energies)),
        "forces, meV/Å": 1e3 * float(np.mean(np.concatenate(forces))),
    }


def product_errors(student: Teacher, crystals: list[Record]) -> dict[str, float]:
    """Return ‖ΔF + H·u‖/‖H·u‖, %, means over crystals: u of white noise, and even over modes."""
    found = {}
    for name, even in (("white noise", False), ("even over modes", True)):
        rng, errors = np.random.default_rng(0), []
        for record in crystals:
            moved = displaced(record, rng, even)
            assert moved.forces is not None and record.forces is not None
            expected = moved.forces - record.forces
            change = (
                student.evaluate(moved.structure).forces - student.evaluate(record.structure).forces
            )
            errors.append(np.linalg.norm(change - expected) / np.linalg.norm(expected))
        found[f"{name}, %"] = 100 * float(np.mean(errors))
    return found


def judge(
    teacher: Teacher, student: Teacher, records: list[Record], most: int, folder: Path
) -> dict:
    """Return all errors: means and, for phonons, medians over crystals; D(q) are kept in FOLDER."""
    resting = [r for r in records if r.force_constants is not None]
    crystals = [r for r in resting if r.structure.pbc.all()]
    if len(crystals) > most:  # of all rounds
        chosen = np.linspace(0, len(crystals) - 1, most).round().astype(int)
        crystals = [crystals[k] for k in chosen]
    found: defaultdict[str, list[float]] = defaultdict(list)
    for record in crystals:
        reference = kept_matrices(teacher, record.structure, folder)
        for name, value in compare(reference, student, record.structure).items():
            found[name].append(value)
    periodic = [r for r in records if r.structure.pbc.all()]
    molecules = [r for r in records if not r.structure.pbc.any()]
    return {
        "crystals": len(crystals),
        "records": len(periodic),
        "points": point_errors(student, periodic),
        "molecules": point_errors(student, molecules) if molecules else {},
        "products with the Hessian": product_errors(student, crystals),
        "phonons": {
            name: {"mean": float(np.mean(v)), "median": float(np.median(v))}
            for name, v in found.items()
        },
    }


def main() -> None:
    """Print all errors, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("teacher")
    parser.add_argument("student")
    parser.add_argument("records", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--crystals", type=int, default=10**6)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    use_cache(str(options.records.parent / "compiled"))
    teacher, student = (load_teacher(p, "float32") for p in (options.teacher, options.student))
    kept = options.records.parent / "judged"
    result = judge(teacher, student, list(read_records(options.records)), options.crystals, kept)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()

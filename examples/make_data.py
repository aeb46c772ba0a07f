"""Make the files that train_*.yaml need beside those of paper/data: python examples/make_data.py.

They are written beside this script, in seconds:

- ``old.extxyz``: displaced crystals that a fine-tuned model is not to forget, labelled by the model
  itself;
- ``Si_frequencies.extxyz``: frequencies of silicon at Γ and X, from the force constants of DFPT;
- ``Si_soft.extxyz``: the forces of DFT times 0.85, which are wrong on purpose.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from phonopy.physical_units import get_physical_units

from phonopy_equivariant.cli import run_command
from phonopy_equivariant.data import Record, Spectrum, read_records, write_records

HERE = Path(__file__).resolve().parent
DFT = HERE / "paper" / "data"
OLD = ("NaCl.cif", "SrTiO3.cif")
SPECIAL = ((0.0, 0.0, 0.0), (0.5, 0.5, 0.0))  # Γ, X


def main(model: str = "pe-crystal-3") -> None:
    """Write the three files; the model labels the first one."""
    crystals = [str(HERE / name) for name in OLD]
    words = ["--count", "10", "--positions", "0.05", "--cell", "0.02", "--label", "--model", model]
    if run_command(["dataset", "perturb", *crystals, *words, "-o", str(HERE / "old.extxyz")]):
        raise SystemExit(1)

    dfpt = read_records(DFT / "silicon_dfpt.fc.xz")[0]
    write_records([with_frequencies(dfpt)], HERE / "Si_frequencies.extxyz")

    records = read_records(DFT / "silicon_222.extxyz.xz")
    soft = [
        dataclasses.replace(r, energy=None, stress=None, forces=0.85 * r.forces) for r in records
    ]
    write_records(soft, HERE / "Si_soft.extxyz")


def with_frequencies(dfpt: Record) -> Record:
    """Return frequencies (THz) at the special points in place of Φ(q)."""
    known = dfpt.force_constants
    masses = np.repeat(dfpt.structure.masses, 3)
    frequencies = []
    for point in SPECIAL:
        index = np.flatnonzero(np.abs(known.qpoints - point).max(axis=1) < 1e-9)[0]
        # the phases of phonopy's D(q) and of Φ(q) differ, eigenvalues do not
        squares = np.linalg.eigvalsh(known.values[index] / np.sqrt(np.outer(masses, masses)))
        roots = np.sign(squares) * np.sqrt(np.abs(squares))
        if not any(point):
            roots[:3] = 0  # the force constants of DFPT obey the sum rule to 0.2 THz
        frequencies.append(roots * get_physical_units().DefaultToTHz)
    spectrum = Spectrum(np.array(SPECIAL), np.sort(frequencies, axis=1))
    return dataclasses.replace(dfpt, force_constants=None, spectrum=spectrum)


if __name__ == "__main__":
    main()

"""The sets of ethanol_dft.py, whole from ``data/`` or as far as the jobs of a folder are done."""

from __future__ import annotations

from pathlib import Path

from phonopy_equivariant.data import Record, read_records
from phonopy_equivariant.structure import Structure

SIGMAS = (0.001, 0.003, 0.01, 0.03, 0.07)  # Å
COPIES = 20  # for each of SIGMAS


def records_of(folder: Path, name: str) -> list[Record]:
    """Return the records of ``train`` or ``validation``, as many as there are."""
    whole = folder / f"ethanol_{name}.extxyz.xz"
    if whole.exists():
        return read_records(whole)
    paths = sorted(folder.glob(f"{name}_[0-9]*.extxyz"))
    return [record for path in paths for record in read_records(path)]


def around(folder: Path) -> dict[float, list[Record]]:
    """Return the displaced copies of the first training configuration, by σ (Å)."""
    whole = folder / "ethanol_around.extxyz.xz"
    if whole.exists():
        records = read_records(whole)
        return {sigma: records[k * COPIES : (k + 1) * COPIES] for k, sigma in enumerate(SIGMAS)}
    by_sigma = {sigma: records_of(folder, f"around_{sigma}") for sigma in SIGMAS}
    return {sigma: records for sigma, records in by_sigma.items() if records}


def starts(folder: Path, count: int) -> list[Structure]:
    """Return validation configurations, labelled or not, to start molecular dynamics from."""
    records = records_of(folder, "validation")
    if len(records) < count:
        records = read_records(folder / "sampling_validation.extxyz")
    return [record.structure for record in records[:count]]

"""Training data: readers of many formats into one record, recipes and checks."""

from __future__ import annotations

from phonopy_equivariant.data.formats import iter_records, read_records, write_records
from phonopy_equivariant.data.record import ForceConstantsData, Record, Spectrum

__all__ = [
    "ForceConstantsData",
    "Record",
    "Spectrum",
    "iter_records",
    "read_records",
    "write_records",
]

"""The records of many crystals as tables and as a report."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from pathlib import Path
from typing import Any

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.evaluation.screening import screening_page
from phonopy_equivariant.files import replacing, write_atomically
from phonopy_equivariant.results import Result
from phonopy_equivariant.workflows.batch.folder import flat_entries

_THERMAL = ("free_energy", "entropy", "heat_capacity")
_COLUMNS = (
    *("structure", "formula", "space group", "relaxed", "atoms", "supercell", "highest, THz"),
    *("lowest, THz", "at q", "imaginary, %", "F, kJ/mol", "S, J/K/mol", "Cv, J/K/mol"),
    *("force, eV/Å", "stress, GPa", "familiarity", "s"),
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class BatchResult(Result):
    """Phonons of many crystals.

    Parameters
    ----------
    records
        One dictionary of plain values for each structure, failures too: ``state`` is ``"done"`` or
        ``"failed"``, and ``reason`` says why. Frequencies in THz; free energy in kJ/mol, entropy
        and heat capacity in J/K/mol of primitive cells, one value for each of ``temperatures``;
        residuals in eV/Å, GPa and eV/Å².
    manifest
        Potential and hash, versions, options.

    """

    records: tuple[dict[str, Any], ...]
    manifest: dict[str, Any]

    @property
    def failures(self) -> tuple[dict[str, Any], ...]:
        """The records of structures without phonons."""
        return tuple(record for record in self.records if record["state"] == "failed")

    def columns(self) -> list[str]:
        """Return the headings of :meth:`rows`."""
        return list(_COLUMNS)

    def rows(self) -> list[list[str]]:
        """Return the crystals that were computed, thermal properties at the first temperature."""
        return [_row(record) for record in self.records if record["state"] == "done"]

    def summary_rows(self) -> list[list[str]]:
        """Return counts over all structures as rows."""
        done = [record for record in self.records if record["state"] == "done"]
        counts = {
            "structures": len(self.records),
            "computed": len(done),
            "failed": len(self.failures),
            "with imaginary modes": sum(r["lowest"] < 0 for r in done),
            "unstable in this potential": sum(bool(r["unstable"]) for r in done),
            "supercell does not suffice": sum(r["supercell_suffices"] is False for r in done),
            "far from the training data": sum(bool(r["far_from_training"]) for r in done),
        }
        seconds = sum(r["seconds"] for r in self.records if "seconds" in r)
        rows = [[label, str(count)] for label, count in counts.items()]
        return [*rows, ["time of all workers", f"{seconds:.1f} s"]]

    def lines(self) -> list[str]:
        """Return the summary and every failure as lines of text."""
        lines = [f"{label:<28} {value}" for label, value in self.summary_rows()]
        return lines + [f"{record['name']}: {record['reason']}" for record in self.failures]

    def table(self) -> list[dict[str, Any]]:
        """Return the records with one value a field: lists become texts, temperatures fields."""
        flat = [_flat(record) for record in self.records]
        fields = list(dict.fromkeys(field for record in flat for field in record))
        return [{field: record.get(field) for field in fields} for record in flat]

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`table` as CSV."""
        rows, text = self.table(), io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(Path(path), text.getvalue().encode())

    def write_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`table` as Parquet.

        Raises
        ------
        PhonopyEquivariantError
            pyarrow is not installed.

        """
        require_parquet()
        import pyarrow
        import pyarrow.parquet

        with replacing(path) as temporary:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(self.table()), temporary)

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report with figures as one HTML file; nothing outside of it is needed."""
        crystals = (self.columns(), self.rows())
        rows = [[key, str(value)] for key, value in flat_entries(self.manifest).items()]
        text = screening_page(self.records, self.summary_rows(), crystals, rows)
        write_atomically(Path(path), text.encode())


def require_parquet() -> None:
    """Raise if Parquet cannot be written.

    Raises
    ------
    PhonopyEquivariantError
        pyarrow is not installed.

    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise PhonopyEquivariantError(
            "Parquet needs pyarrow: pip install pyarrow, or take the table as CSV."
        ) from error


def _row(record: dict[str, Any]) -> list[str]:
    q = record["lowest_q"]
    familiarity = record["familiarity"]
    return [
        *(record[key] for key in ("name", "formula", "space_group", "space_group_relaxed")),
        *(str(record[key]) for key in ("atoms", "supercell_atoms")),
        f"{record['highest']:.3f}",
        f"{record['lowest']:.3f}",
        "" if q is None else " ".join(f"{x:.4g}" for x in q),
        f"{100 * record['imaginary']:.2f}",
        *(f"{record[key][0]:.4f}" for key in _THERMAL),
        f"{record['residual_force']:.1e}",
        f"{record['residual_stress']:.3f}",
        "" if familiarity is None else f"{familiarity:.2f}",
        f"{record['seconds']:.2f}",
    ]


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without lists: ``free_energy`` becomes ``free_energy_300K`` and so on."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if key in _THERMAL:
            named = zip(record["temperatures"], value, strict=True)
            flat |= {f"{key}_{temperature:g}K": number for temperature, number in named}
        elif isinstance(value, list):
            separator = " | " if key == "warnings" else " "
            flat[key] = separator.join(map(str, value))
        else:
            flat[key] = value
    flat.pop("temperatures", None)
    return flat

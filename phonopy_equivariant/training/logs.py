"""Logs of a training: a CSV file, and TensorBoard's event files where asked for."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phonopy_equivariant.errors import PhonopyEquivariantError, pip_install
from phonopy_equivariant.files import write_atomically


class Logs:
    """Rows of numbers by name; a name that a row lacks stays empty.

    Parameters
    ----------
    folder
        Gets ``log.csv`` and, with ``tensorboard``, event files in ``tensorboard/``.
    columns
        Names, ``step`` first.
    step
        Rows of later steps are dropped: a resumed run writes them again.

    """

    def __init__(self, folder: Path, columns: Sequence[str], step: int, tensorboard: bool):
        self._columns = list(columns)
        self._path = folder / "log.csv"
        self._writer = _event_writer(folder / "tensorboard", step) if tensorboard else None
        write_atomically(self._path, self._rows_up_to(step).encode())

    def write(self, row: Mapping[str, float]) -> None:
        """Append a row."""
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns, restval="").writerow(
                {key: f"{value:.9g}" for key, value in row.items()}
            )
        if self._writer is not None:
            for key, value in row.items():
                if key != "step":
                    self._writer.add_scalar(key, value, int(row["step"]))

    def close(self) -> None:
        """Close TensorBoard's file, if there is one."""
        if self._writer is not None:
            self._writer.close()

    def _rows_up_to(self, step: int) -> str:
        """Return the header and the file's rows up to a step, as text."""
        rows: list[Mapping[str, str]] = []
        if step and self._path.exists():
            with open(self._path, newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if _step(row) <= step]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def _step(row: Mapping[str, str]) -> float:
    """Return the step of a row; one that a crash cut short counts as late."""
    try:
        return float(row["step"])
    except (KeyError, TypeError, ValueError):
        return float("inf")


def _event_writer(folder: Path, step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise PhonopyEquivariantError(
            f"tensorboard: true needs tensorboardX; {pip_install('train')}, or read log.csv."
        ) from error
    # TensorBoard hides what an earlier run wrote from purge_step on
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)

"""What results share: one line in a console, a table in a notebook, plain values, a YAML file."""

from __future__ import annotations

import dataclasses
import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from phonopy_equivariant.files import replacing

# Longer texts are cut where a result is shown in one line.
_LONGEST = 40


class Result:
    """Base of immutable results (frozen dataclasses).

    A class may define ``rows``, a table of what it says, or ``columns`` and ``rows``; by default
    there is a row for each field.
    """

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as lists, numbers, texts and dictionaries, for JSON and YAML."""
        values: dict[str, Any] = plain({f.name: getattr(self, f.name) for f in _fields(self)})
        return values

    def write_yaml(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`to_dict` as YAML, whole or not at all."""
        text = yaml.dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=100)
        with replacing(path) as temporary:
            Path(temporary).write_text(text, encoding="utf-8")

    def rows(self) -> Sequence[Sequence[str]]:
        """Return the table of the result, as rows of texts."""
        return [[f.name, short(getattr(self, f.name))] for f in _fields(self)]

    def columns(self) -> Sequence[str]:
        """Return the headings of :meth:`rows`, if they need any."""
        return ()

    def lines(self) -> list[str]:
        """Return the rows as lines of text."""
        return [f"{label:<20} {value}" for label, value in self.rows()]

    def __repr__(self) -> str:
        return one_line(self, {f.name: getattr(self, f.name) for f in _fields(self)})

    def _repr_html_(self) -> str:
        """Return a table for notebooks."""
        return html_table(self.rows(), self.columns())


def plain(value: Any) -> Any:
    """Return arrays as lists, records as dictionaries, and NumPy's numbers as Python's.

    A complex number becomes the pair of its real and imaginary part.
    """
    if isinstance(value, np.ndarray | np.generic):
        if np.iscomplexobj(value):
            value = np.stack([np.real(value), np.imag(value)], axis=-1)
        return value.tolist()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({f.name: getattr(value, f.name) for f in _fields(value)})
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if hasattr(value, "todict"):  # ase.Atoms
        return plain(value.todict())
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def one_line(record: object, fields: Mapping[str, Any]) -> str:
    """Return the name of a record's class and its fields, arrays by their shapes."""
    texts = (f"{name}={short(value)}" for name, value in fields.items())
    return f"{type(record).__name__}({', '.join(texts)})"


def short(value: Any) -> str:
    """Return a few words for a value: an array by its shape, a long text cut."""
    if isinstance(value, np.ndarray):
        return f"<{'×'.join(map(str, value.shape))} array>"
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def html_table(rows: Iterable[Sequence[str]], columns: Sequence[str] = ()) -> str:
    """Return rows of texts as an HTML table."""

    def line(cells: Sequence[str], tag: str) -> str:
        inside = "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells)
        return f"<tr>{inside}</tr>"

    heading = [line(columns, "th")] if columns else []
    return "\n".join(["<table>", *heading, *(line(row, "td") for row in rows), "</table>"])


def _fields(record: Any) -> Sequence[dataclasses.Field[Any]]:
    return dataclasses.fields(record)

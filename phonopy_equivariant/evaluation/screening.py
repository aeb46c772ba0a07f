"""The report of many crystals: one HTML file, figures inside, nothing fetched from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from phonopy_equivariant.evaluation.figures import subplots
from phonopy_equivariant.evaluation.report import figure_part, page, table

# label, field of a record; thermal properties are shown per atom
_HISTOGRAMS = (
    ("highest frequency, THz", "highest"),
    ("lowest frequency, THz", "lowest"),
    ("F, kJ/mol atoms", "free_energy"),
    ("S, J/K/mol atoms", "entropy"),
    ("Cv, J/K/mol atoms", "heat_capacity"),
)
_THERMAL = ("free_energy", "entropy", "heat_capacity")


def screening_page(
    records: Sequence[Mapping[str, Any]],
    summary: Sequence[Sequence[str]],
    crystals: tuple[Sequence[str], Sequence[Sequence[str]]],
    manifest: Sequence[Sequence[str]],
) -> str:
    """Return the page.

    Parameters
    ----------
    records
        Of all structures, failures too.
    summary
        Rows of the first table.
    crystals
        Headings, and rows of the table of crystals.
    manifest
        What a repetition needs, as rows.

    """
    done = [record for record in records if record["state"] == "done"]
    failures = [[r["name"], r.get("formula", ""), r["reason"]] for r in records if r not in done]
    parts = [table(summary)]
    if done:
        temperature = done[0]["temperatures"][0]
        caption = f"Crystals that were computed; thermal properties at {temperature:g} K."
        parts.append(figure_part(screening_figure(done), caption))
        headings, rows = crystals
        parts += ["<h2>Crystals</h2>", table(rows, headings, "sortable")]
    if failures:
        parts += ["<h2>Failures</h2>", table(failures, ("structure", "formula", "reason"))]
    parts += ["<h2>Manifest</h2>", table(manifest)]
    return page("Phonons of many crystals", parts)


def screening_figure(records: Sequence[Mapping[str, Any]]) -> Any:
    """Return histograms of frequencies and thermal properties, and times over sizes."""
    figure, axes = subplots(2, 3, (11.0, 6.0))
    *histograms, last = axes.ravel()
    for axis, (label, field) in zip(histograms, _HISTOGRAMS, strict=True):
        values = [_value(record, field) for record in records]
        bins = min(40, max(5, math.isqrt(len(values))))
        axis.hist(values, bins=bins, color="#444444", rwidth=0.9)
        axis.set(xlabel=label, ylabel="crystals")
        axis.yaxis.get_major_locator().set_params(integer=True)
    last.scatter([r["atoms"] for r in records], [r["seconds"] for r in records], s=10, alpha=0.6)
    last.set(xlabel="atoms of the primitive cell", ylabel="time, s", yscale="log")
    last.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _value(record: Mapping[str, Any], field: str) -> float:
    if field in _THERMAL:
        return float(record[field][0]) / int(record["atoms"])
    return float(record[field])

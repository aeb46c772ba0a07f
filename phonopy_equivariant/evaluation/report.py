"""The report of an evaluation: one HTML file, figures inside, nothing fetched from elsewhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

from phonopy_equivariant.evaluation.figures import (
    band_figure,
    error_histogram,
    parity_figure,
    svg,
    tertile_examples,
)
from phonopy_equivariant.evaluation.metrics import MATRIX_QPOINTS, Comparison

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0 }
th, td { border: 1px solid #ccc; padding: .2rem .5rem; text-align: right }
th:first-child, td:first-child { text-align: left }
table.sortable th { cursor: pointer; background: #f3f3f3; position: sticky; top: 0 }
figure { margin: 1rem 0; overflow-x: auto } figcaption { color: #444 }
table.sortable td { white-space: nowrap }
table.text td, table.text th { text-align: left }
img { max-width: 100%; height: auto }
svg { max-width: 100%; height: auto }
"""

# A click on a heading sorts its table by that column: numbers as numbers, then the other way round.
_SCRIPT = """
for (const table of document.querySelectorAll("table.sortable"))
  table.querySelectorAll("th").forEach((head, column) => head.addEventListener("click", () => {
    const body = table.tBodies[0], up = head.dataset.up !== "1";
    table.querySelectorAll("th").forEach(other => delete other.dataset.up);
    head.dataset.up = up ? "1" : "0";
    const value = row => { const text = row.cells[column].textContent, number = parseFloat(text);
      return isNaN(number) ? text : number; };
    [...body.rows].sort((a, b) => { const x = value(a), y = value(b);
      return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1); }).forEach(row => body.append(row));
  }));
"""


def evaluation_page(
    comparisons: Sequence[Comparison],
    summary: Sequence[Sequence[str]],
    crystals: tuple[Sequence[str], Sequence[Sequence[str]]],
    failures: Sequence[Sequence[str]],
    manifest: Sequence[Sequence[str]],
) -> str:
    """Return the page.

    Parameters
    ----------
    comparisons
        All crystals and models.
    summary
        Rows of the table of means, headings first.
    crystals
        Headings, and rows of the table of crystals.
    failures
        Crystal, model and reason of what could not be compared.
    manifest
        What a repetition needs, as rows.

    """
    models = list(dict.fromkeys(comparison.model for comparison in comparisons))
    parts = [table(summary[1:], summary[0])]
    if comparisons:
        parts.append(figure_part(parity_figure(comparisons), "Model against reference."))
    for model in models:
        of_model = [comparison for comparison in comparisons if comparison.model == model]
        parts.append(f"<h2>{html.escape(model)}</h2>")
        qpoints = ", ".join("(" + ", ".join(f"{x:g}" for x in q) + ")" for q in MATRIX_QPOINTS)
        caption = (
            "Errors of the dynamical matrix, mean of ‖ΔD(q)‖/‖D(q)‖ over q = "
            f"{qpoints}; shaded: the three tertiles of the crystals."
        )
        parts.append(figure_part(error_histogram(of_model), caption))
        for comparison in tertile_examples(of_model):
            text = (
                f"{comparison.formula} ({comparison.name}): {100 * comparison.matrix_error:.1f} %"
            )
            parts.append(figure_part(band_figure(comparison), text))
    headings, rows = crystals
    parts += ["<h2>Crystals</h2>", table(rows, headings, "sortable")]
    if failures:
        parts += ["<h2>Failures</h2>", table(failures, ("crystal", "model", "reason"))]
    parts += ["<h2>Manifest</h2>", table(manifest)]
    return page("Phonons against reference", parts)


def page(title: str, parts: Sequence[str]) -> str:
    """Return an HTML page of parts below its title; a click on a heading sorts a table."""
    title = html.escape(title)
    body = "\n".join([f"<h1>{title}</h1>", *parts])
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<title>{title}</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n<script>{_SCRIPT}</script>\n</body></html>\n"
    )


def table(rows: Sequence[Sequence[str]], headings: Sequence[str] = (), kind: str = "plain") -> str:
    """Return an HTML table with head and body."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    head = f"<thead>{line(headings, 'th')}</thead>" if headings else ""
    body = "\n".join(line(row, "td") for row in rows)
    return f"<table class='{kind}'>{head}<tbody>\n{body}\n</tbody></table>"


def picture_part(png: bytes, caption: str) -> str:
    """Return a picture in PNG and its caption as HTML, the picture inside."""
    content = base64.b64encode(png).decode()
    text = html.escape(caption, quote=True)
    picture = f"<img src='data:image/png;base64,{content}' alt='{text}'>"
    return f"<figure>{picture}<figcaption>{text}</figcaption></figure>"


def figure_part(figure: Any, caption: str) -> str:
    """Return a figure of matplotlib and its caption as HTML."""
    return f"<figure>{svg(figure)}<figcaption>{html.escape(caption)}</figcaption></figure>"

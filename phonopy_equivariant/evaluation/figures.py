"""Figures of an evaluation, drawn with matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.evaluation.metrics import Comparison
from phonopy_equivariant.phonons.labels import staggered

_PARITY = (
    ("highest", "highest frequency, THz"),
    ("mean", "mean frequency, THz"),
    ("free_energy", "F, kJ/mol atoms"),
    ("entropy", "S, J/K/mol atoms"),
    ("heat_capacity", "Cv, J/K/mol atoms"),
    ("lowest", "lowest frequency, THz"),
)
_EXTENSIVE = ("free_energy", "entropy", "heat_capacity")
_TERTILES = ("#2a9d8f", "#e9c46a", "#e76f51")
_REFERENCE, _MODEL = "#222222", "#d62828"


def parity_figure(comparisons: Sequence[Comparison]) -> Any:
    """Return model against reference for frequencies and thermal properties."""
    models = list(dict.fromkeys(comparison.model for comparison in comparisons))
    figure, axes = subplots(2, 3, (11.0, 7.0))
    for axis, (key, label) in zip(axes.ravel(), _PARITY, strict=True):
        every: list[float] = []
        for model in models:
            of_model = [c for c in comparisons if c.model == model]
            per = [c.atoms if key in _EXTENSIVE else 1 for c in of_model]
            x = [getattr(c.reference, key) / n for c, n in zip(of_model, per, strict=True)]
            y = [getattr(c.predicted, key) / n for c, n in zip(of_model, per, strict=True)]
            axis.scatter(x, y, s=14, alpha=0.7, label=model)
            every += [*x, *y]
        ends = [min(every), max(every)]
        axis.plot(ends, ends, color="grey", linewidth=0.8, zorder=0)
        axis.set(xlabel=f"reference: {label}", ylabel="model")
    axes[0, 0].legend(fontsize=8)
    return figure


def error_histogram(comparisons: Sequence[Comparison]) -> Any:
    """Return the histogram of errors of D(q), tertiles of the crystals shaded."""
    figure, axes = subplots(1, 1, (7.0, 3.0))
    errors = np.array([100 * comparison.matrix_error for comparison in comparisons])
    draw_error_histogram(axes[0, 0], errors)
    return figure


def draw_error_histogram(axis: Any, errors: Float[ndarray, " crystals"]) -> None:
    """Draw a histogram of errors of D(q) (%) on axes of matplotlib, tertiles shaded."""
    ends = np.quantile(errors, [0, 1 / 3, 2 / 3, 1])
    for color, low, high in zip(_TERTILES, ends[:-1], ends[1:], strict=True):
        axis.axvspan(low, high, color=color, alpha=0.25, linewidth=0)
    axis.hist(errors, bins=min(30, max(5, len(errors))), color="#444444", rwidth=0.9)
    axis.set(xlabel="error of D(q), %", ylabel="crystals")


def tertile_examples(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the crystal in the middle of each tertile of errors, of those that have bands."""
    ordered = sorted((c for c in comparisons if c.bands), key=lambda x: x.matrix_error)
    places = [int(len(ordered) * (2 * third + 1) / 6) for third in range(3)]
    return [ordered[place] for place in dict.fromkeys(places)] if ordered else []


def band_figure(comparison: Comparison) -> Any:
    """Return bands and density of states, reference and model, as a figure of matplotlib."""
    bands = comparison.bands
    assert bands is not None
    figure, axes = subplots(1, 2, (9.0, 4.0), widths=(4, 1), sharey=True)
    axis, beside = axes[0]
    for distances, reference, predicted in zip(
        bands.distances, bands.reference, bands.predicted, strict=True
    ):
        lines = axis.plot(distances, reference, color=_REFERENCE, linewidth=1.0)
        dashed = axis.plot(distances, predicted, color=_MODEL, linewidth=1.0, linestyle="--")
    label_path(axis, bands.distances, bands.labels, bands.connections)
    axis.set(ylabel="frequency, THz")
    axis.legend([lines[0], dashed[0]], ["reference", comparison.model], fontsize=8)
    beside.plot(comparison.reference.dos, comparison.grid, color=_REFERENCE, linewidth=1.0)
    beside.plot(comparison.predicted.dos, comparison.grid, color=_MODEL, linestyle="--")
    beside.set(xlabel="DOS", xlim=(0, None))
    return figure


def label_path(
    axis: Any,
    distances: Sequence[ndarray],
    labels: Sequence[str],
    connections: Sequence[bool],
) -> None:
    """Label the points of high symmetry of a path, and draw a line at each and at zero frequency.

    Parameters
    ----------
    axis
        Axes of matplotlib.
    distances
        Of the points of each segment.
    labels
        At the ends of the segments, one label where the path goes on; none if there are no names.
    connections
        Whether the next segment goes on where one ends.

    """
    ticks = [float(distances[0][0]), *(float(segment[-1]) for segment in distances)]
    for place in ticks:
        axis.axvline(place, color="grey", linewidth=0.5)
    names = _tick_labels(labels, connections) if labels else [""] * len(ticks)
    rows = staggered(ticks, names, ticks[-1] - ticks[0])
    axis.set_xticks(ticks, ["\n" * row + name for name, row in zip(names, rows, strict=True)])
    axis.set_xlim(ticks[0], ticks[-1])
    axis.axhline(0, color="grey", linewidth=0.5)


def _tick_labels(labels: Sequence[str], connections: Sequence[bool]) -> list[str]:
    """Return the label of each end of a segment, two joined where the path jumps."""
    remaining = iter(labels)
    joined = [next(remaining)]
    for index, connected in enumerate(connections):
        label = next(remaining)
        if not connected and index + 1 < len(connections):
            label = f"{label}|{next(remaining)}"
        joined.append(label)
    return joined


def blank_figure(size: tuple[float, float]) -> Any:
    """Return a figure without axes; nothing of the user's pyplot is touched."""
    # a figure of its own: pyplot's state and back end are the user's
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def subplots(rows: int, columns: int, size: tuple[float, float], **options: Any) -> Any:
    """Return a figure and its axes, (rows, columns)."""
    figure = blank_figure(size)
    widths = options.pop("widths", None)
    grid = {"width_ratios": widths} if widths else None
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=grid, **options)
    return figure, axes


def svg(figure: Any) -> str:
    """Return a figure as an SVG element, to stand inside a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]

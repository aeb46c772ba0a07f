"""Infrared and Raman spectra: lines without width, and the same lines broadened."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.defaults import LINE_WIDTH
from phonopy_equivariant.files import replacing
from phonopy_equivariant.molecules.analysis import MolecularVibrations
from phonopy_equivariant.molecules.remarks import group_text
from phonopy_equivariant.phonons.labels import staggered


class Sticks(NamedTuple):
    """Lines of one spectrum, real frequencies only."""

    title: str
    unit: str
    frequencies: Float[ndarray, " lines"]  # cm⁻¹
    heights: Float[ndarray, " lines"]
    labels: tuple[str, ...]


def spectra(result: MolecularVibrations) -> tuple[Sticks, Sticks]:
    """Return the infrared and the Raman lines.

    If intensities are unknown, the height of a line is its degeneracy. Such lines show which modes
    are allowed and at what wavenumber, but not how strong they are.
    """
    computed = result.infrared, None if result.raman is None else result.raman.activities
    titles = (("Infrared", "km/mol"), ("Raman", "Å⁴/amu"))
    allowed = ([m.infrared for m in result.multiplets], [m.raman for m in result.multiplets])
    sticks = []
    for (title, unit), intensities, active in zip(titles, computed, allowed, strict=True):
        lines = [
            m for m, yes in zip(result.multiplets, active, strict=True) if yes and m.frequency > 0
        ]
        heights = [
            m.degeneracy if intensities is None else intensities[list(m.modes)].sum() for m in lines
        ]
        sticks.append(
            Sticks(
                title,
                "degeneracy; intensities unknown" if intensities is None else unit,
                np.array([m.frequency for m in lines]),
                np.array(heights, float),
                tuple(m.irrep for m in lines),
            )
        )
    return sticks[0], sticks[1]


def broadened(
    sticks: Sticks, grid: Float[ndarray, " points"], width: float = LINE_WIDTH
) -> Float[ndarray, " points"]:
    """Return Lorentzians of full width at half maximum ``width`` (cm⁻¹), area as the stick.

    In units of the sticks per cm⁻¹.
    """
    half = width / 2
    offsets = grid[:, None] - sticks.frequencies
    return np.asarray((half / np.pi / (offsets**2 + half**2)) @ sticks.heights)


def plot_spectrum(
    result: MolecularVibrations, path: str | os.PathLike[str], width: float = LINE_WIDTH
) -> None:
    """Plot both spectra, sticks and broadened, into a file (PNG, PDF or SVG by its name)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    top = 1.1 * max(result.frequencies.max(initial=0.0), 100.0)
    grid = np.linspace(0, top, 4000)
    figure = Figure(figsize=(8, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1, sharex=True)
    for axis, sticks, colour in zip(axes, spectra(result), ("C0", "C3"), strict=True):
        _draw(axis, sticks, grid, width, colour)
    axes[-1].set_xlabel("wavenumber (cm⁻¹)")
    axes[-1].set_xlim(0, top)
    formula = result.atoms.get_chemical_formula()
    figure.suptitle(f"{formula}, {group_text(result.symmetry.group)}, width {width:g} cm⁻¹")
    suffix = os.path.splitext(path)[1].lstrip(".") or "png"
    with replacing(path) as temporary:
        figure.savefig(temporary, format=suffix, dpi=150)


def _draw(axis: Any, sticks: Sticks, grid: ndarray, width: float, colour: str) -> None:
    axis.set_ylabel(f"{sticks.title}\n({sticks.unit})")
    axis.spines[["top", "right"]].set_visible(False)
    if not len(sticks.heights) or not sticks.heights.max() > 0:
        axis.text(0.5, 0.5, "no active mode", transform=axis.transAxes, ha="center")
        axis.set_yticks([])
        return
    axis.vlines(sticks.frequencies, 0, sticks.heights, color=colour, linewidth=1.5)
    curve = broadened(sticks, grid, width) * np.pi * width / 2  # a lone line as high as its stick
    axis.plot(grid, curve, color=colour, alpha=0.5, linewidth=1)
    axis.set_ylim(0, 1.2 * max(curve.max(), sticks.heights.max()))
    shown = [k for k, y in enumerate(sticks.heights) if y > 0.02 * sticks.heights.max()]
    places, labels = [sticks.frequencies[k] for k in shown], [sticks.labels[k] for k in shown]
    rows = staggered(places, labels, grid[-1], scale=0.6)
    for k, row, x, label in zip(shown, rows, places, labels, strict=True):
        place = (x, sticks.heights[k])
        offset = (0, 3 + 9 * row)
        axis.annotate(label, place, offset, textcoords="offset points", ha="center", size=8)

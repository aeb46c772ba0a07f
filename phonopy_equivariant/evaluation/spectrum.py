"""The phonons of one crystal as a figure: bands, density of states, thermal properties."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from phonopy.physical_units import get_physical_units

from phonopy_equivariant.evaluation.figures import blank_figure, label_path

_LINE, _IMAGINARY = "#1d3557", "#d62828"
_THERMAL = (
    ("free_energy", "F, kJ/mol"),
    ("entropy", "S, J/K/mol"),
    ("heat_capacity", "Cv, J/K/mol"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class BandPath:
    """Bands along a path.

    Parameters
    ----------
    distances
        Of the points of each segment.
    frequencies
        Of each segment, THz, imaginary ones negative.
    labels
        Of the ends of the segments; none if the path has no names.
    connections
        Whether the next segment goes on where one ends.

    """

    distances: tuple[Float[ndarray, " points"], ...]
    frequencies: tuple[Float[ndarray, "points modes"], ...]
    labels: tuple[str, ...]
    connections: tuple[bool, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class DensityOfStates:
    """A density of states (1/THz) at frequencies (THz)."""

    frequencies: Float[ndarray, " points"]
    density: Float[ndarray, " points"]


@dataclasses.dataclass(frozen=True, eq=False)
class ThermalFunctions:
    """Temperatures (K), free energy (kJ/mol), entropy and heat capacity (J/K/mol)."""

    temperatures: Float[ndarray, " t"]
    free_energy: Float[ndarray, " t"]
    entropy: Float[ndarray, " t"]
    heat_capacity: Float[ndarray, " t"]


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """What the figure shows; a part that is None is left out."""

    bands: BandPath | None = None
    dos: DensityOfStates | None = None
    thermal: ThermalFunctions | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return self.bands is None and self.dos is None and self.thermal is None


def spectrum_figure(spectrum: Spectrum, title: str = "") -> Any:
    """Return bands beside the density of states, and thermal properties below, as a figure.

    Imaginary frequencies lie in a shaded part below zero.
    """
    upper = spectrum.bands is not None or spectrum.dos is not None
    heights = [4.0] * upper + [2.4] * (spectrum.thermal is not None)
    figure = blank_figure((8.0, sum(heights)))
    rows = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if upper:
        _draw_frequencies(next(rows), spectrum.bands, spectrum.dos)
    if spectrum.thermal is not None:
        _draw_thermal(next(rows), spectrum.thermal)
    if title:
        figure.suptitle(title, fontsize=11)
    return figure


def _draw_frequencies(part: Any, bands: BandPath | None, dos: DensityOfStates | None) -> None:
    widths = [4.0] * (bands is not None) + [1.0] * (dos is not None)
    axes = part.subplots(
        1, len(widths), squeeze=False, sharey=True, gridspec_kw={"width_ratios": widths}
    )[0]
    values = []
    if bands is not None:
        for distances, frequencies in zip(bands.distances, bands.frequencies, strict=True):
            axes[0].plot(distances, frequencies, color=_LINE, linewidth=1.0)
        label_path(axes[0], bands.distances, bands.labels, bands.connections)
        values += [frequencies.ravel() for frequencies in bands.frequencies]
    if dos is not None:
        axes[-1].fill_betweenx(dos.frequencies, dos.density, color=_LINE, alpha=0.2, linewidth=0)
        axes[-1].plot(dos.density, dos.frequencies, color=_LINE, linewidth=1.0)
        axes[-1].set(xlabel="DOS, 1/THz", xlim=(0, None))
        axes[-1].axhline(0, color="grey", linewidth=0.5)
        values.append(dos.frequencies[dos.density > 1e-3 * dos.density.max()])
    axes[0].set_ylabel("frequency, THz")
    wavenumber = get_physical_units().THzToCm
    conversions = (lambda f: f * wavenumber, lambda k: k / wavenumber)
    axes[-1].secondary_yaxis("right", functions=conversions).set_ylabel("cm⁻¹")
    _limit(axes, np.concatenate(values))


def _limit(axes: Any, frequencies: Float[ndarray, " n"]) -> None:
    """Set the range of frequencies, and shade what is imaginary."""
    highest = float(frequencies.max())
    lowest = float(frequencies.min())
    margin = 0.04 * max(highest, -lowest, 1e-3)
    bottom = lowest - margin if lowest < -margin else -0.5 * margin
    axes[0].set_ylim(bottom, highest + margin)
    if lowest < -margin:
        for axis in axes:
            axis.axhspan(bottom, 0, color=_IMAGINARY, alpha=0.08, linewidth=0, zorder=0)
        style = {"fontsize": 8, "color": _IMAGINARY, "transform": axes[0].transAxes}
        box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}
        axes[0].text(0.01, 0.02, "imaginary", bbox=box, **style)


def _draw_thermal(part: Any, thermal: ThermalFunctions) -> None:
    for axis, (field, label) in zip(part.subplots(1, 3), _THERMAL, strict=True):
        axis.plot(thermal.temperatures, getattr(thermal, field), color=_LINE, linewidth=1.2)
        axis.set(xlabel="T, K", ylabel=label, xlim=(thermal.temperatures[0], None))

"""Lattice thermal conductivity as phono3py computed it: numbers, table and figure."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.files import replacing
from phonopy_equivariant.phonons.gruneisen import GruneisenMesh
from phonopy_equivariant.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Temperatures (K) of the table, and the one of the figure's panels.
_TABLE, _PANELS = (100.0, 200.0, 300.0, 500.0, 800.0, 1000.0), 300.0
# What phono3py calls κ in its files: plain, and with the Wigner terms.
_NAMES = ("kappa", "kappa_TOT_exact", "kappa_TOT_RTA")
_DOTS: dict[str, Any] = {"linestyle": "", "marker": ".", "markersize": 3, "alpha": 0.6}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ThermalConductivity(Result):
    """Lattice thermal conductivity κ on a mesh of q.

    Parameters
    ----------
    temperatures
        K.
    kappa
        κ in W/mK, components xx, yy, zz, yz, xz, xy.
    mesh
        Numbers of q along the reciprocal axes, one for each grid point of a generalised mesh.
    weights
        How many q of the mesh each irreducible q stands for.
    frequencies
        THz, of the irreducible q.
    linewidths
        Γ in THz, half of the full width, of phonon-phonon scattering; a lifetime is 1/(4πΓ).
    mode_kappa
        What each mode gives to κ, W/mK: the sum over modes and irreducible q, divided by the number
        of q of the mesh, is κ. Files of phono3py's full solution have the parts of the relaxation
        time approximation only, and their sum is the κ of that.
    gruneisen
        Mode Grüneisen parameters on a mesh of its own, for the figure; None if not computed. They
        have no non-analytical term.

    """

    temperatures: Float[ndarray, " t"]
    kappa: Float[ndarray, "t 6"]
    mesh: tuple[int, ...]
    weights: Int[ndarray, " q"]
    frequencies: Float[ndarray, "q modes"]
    linewidths: Float[ndarray, "t q modes"]
    mode_kappa: Float[ndarray, "t q modes 6"]
    gruneisen: GruneisenMesh | None = None

    def isotropic(self) -> Float[ndarray, " t"]:
        """Return a third of the trace of κ at every temperature, W/mK."""
        return np.asarray(self.kappa[:, :3].mean(axis=1))

    def cumulative(
        self, temperature: float = _PANELS
    ) -> tuple[Float[ndarray, " modes"], Float[ndarray, " modes"]]:
        """Return frequencies (THz) in increasing order, and κ (W/mK) of all modes up to each.

        The temperature is the nearest that was computed.
        """
        t = self._nearest(temperature)
        parts = self.mode_kappa[t, :, :, :3].mean(axis=-1) / self.weights.sum()
        order = np.argsort(self.frequencies, axis=None)
        return self.frequencies.ravel()[order], np.cumsum(parts.ravel()[order])

    def lifetimes(self, temperature: float = _PANELS) -> Float[ndarray, "q modes"]:
        """Return 1/(4πΓ) in ps at the nearest temperature, infinite where Γ is zero."""
        with np.errstate(divide="ignore"):
            return np.asarray(1 / (4 * np.pi * self.linewidths[self._nearest(temperature)]))

    def columns(self) -> list[str]:
        """Return the headings of :meth:`rows`."""
        return ["T (K)", *(f"κ {name} (W/mK)" for name in ("xx", "yy", "zz"))]

    def rows(self) -> list[list[str]]:
        """Return κ at some temperatures."""
        chosen = [t for t in _TABLE if np.isclose(self.temperatures, t).any()]
        indices = [self._nearest(t) for t in chosen] or range(min(len(self.temperatures), 6))
        return [
            [f"{self.temperatures[k]:g}", *(f"{x:.4g}" for x in self.kappa[k, :3])] for k in indices
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return mesh, temperatures and κ; modes are in phono3py's file."""
        return {
            "mesh": list(self.mesh),
            "temperatures": self.temperatures.tolist(),
            "kappa": self.kappa.tolist(),
        }

    def plot(self, figure: Figure | None = None) -> Figure:
        """Draw κ(T), κ accumulated over frequencies, lifetimes and γ; return the figure."""
        if figure is None:
            from matplotlib import pyplot as plt

            figure = plt.figure(figsize=self._figure_size, layout="constrained")
        axes: Sequence[Axes] = figure.subplots(*self._panels).ravel()
        self._plot_kappa(axes[0])
        self._plot_sums(axes[1])
        temperature = self.temperatures[self._nearest(_PANELS)]
        lifetimes = self.lifetimes(temperature)
        finite = np.isfinite(lifetimes)
        axes[2].semilogy(self.frequencies[finite], lifetimes[finite], **_DOTS)
        axes[2].set(xlabel="Frequency (THz)", ylabel=f"Lifetime at {temperature:g} K (ps)")
        if self.gruneisen is not None:
            _plot_gruneisen(axes[3], self.gruneisen)
        return figure

    @property
    def _panels(self) -> tuple[int, int]:
        """Rows and columns of the figure."""
        return (1, 3) if self.gruneisen is None else (2, 2)

    @property
    def _figure_size(self) -> tuple[float, float]:
        rows, columns = self._panels
        return 3.7 * columns, 3.4 * rows

    def _plot_sums(self, axes: Axes) -> None:
        temperature = self.temperatures[self._nearest(_PANELS)]
        frequencies, sums = self.cumulative(temperature)
        axes.plot(frequencies, sums, drawstyle="steps-post")
        is_whole = np.isclose(sums[-1], self.isotropic()[self._nearest(_PANELS)], rtol=1e-6)
        axes.set(
            xlabel="Frequency (THz)",
            ylabel=f"κ{'' if is_whole else ' of RTA'} up to it at {temperature:g} K (W/mK)",
            ylim=(0, None),
        )

    def _plot_kappa(self, axes: Axes) -> None:
        positive = (self.temperatures > 0) & (self.isotropic() > 0)
        marker = "." if positive.sum() < 20 else ""  # one temperature makes no line
        if np.allclose(self.kappa[:, :3], self.isotropic()[:, None], rtol=1e-6):
            axes.loglog(self.temperatures[positive], self.isotropic()[positive], marker=marker)
        else:
            for k, name in enumerate(("xx", "yy", "zz")):
                axes.loglog(
                    self.temperatures[positive], self.kappa[positive, k], label=name, marker=marker
                )
            axes.legend(frameon=False)
        axes.set(xlabel="T (K)", ylabel="κ (W/mK)")

    def write_plot(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`plot` as a picture, in the format of the file's name."""
        from matplotlib.figure import Figure

        figure = self.plot(Figure(figsize=self._figure_size, layout="constrained"))
        with replacing(path) as temporary:
            figure.savefig(temporary, format=Path(path).suffix.lstrip(".") or "png", dpi=150)

    def _nearest(self, temperature: float) -> int:
        return int(np.abs(self.temperatures - temperature).argmin())


def _plot_gruneisen(axes: Axes, gruneisen: GruneisenMesh) -> None:
    """Draw γ of all modes; the range of the axis leaves out a few soft modes near Γ."""
    counted = gruneisen.counted_parameters != 0
    parameters = gruneisen.parameters[counted]
    axes.plot(gruneisen.frequencies[counted], parameters, **_DOTS)
    axes.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    axes.set(xlabel="Frequency (THz)", ylabel="Mode Grüneisen parameter")
    if len(parameters):
        low, high = np.quantile(parameters, [0.005, 0.995])
        margin = 0.1 * (high - low) + 0.1
        axes.set_ylim(min(low, 0) - margin, max(high, 0) + margin)


def conductivity_of(calculator: Any) -> ThermalConductivity:
    """Return what ``Phono3py.thermal_conductivity`` has computed, with its first line width."""
    return ThermalConductivity(
        np.array(calculator.temperatures),
        np.array(calculator.kappa[0]),
        tuple(np.ravel(calculator.mesh_numbers).tolist()),
        np.array(calculator.grid_weights),
        np.array(calculator.frequencies),
        np.array(calculator.gamma[0]),
        np.array(calculator.mode_kappa[0]),
    )


def read_conductivity(path: str | os.PathLike[str]) -> ThermalConductivity:
    """Read ``kappa-m*.hdf5`` of phono3py.

    Raises
    ------
    PhonopyEquivariantError
        The file cannot be read, or has no κ of a whole mesh (one grid point, for instance).

    """
    import h5py

    try:
        with h5py.File(path) as file:
            name = next((x for x in _NAMES if x in file), "kappa")
            if name not in file or np.ndim(file[name]) != 2:
                raise PhonopyEquivariantError(
                    f"{path} has no thermal conductivity of a whole mesh."
                )
            modes = f"mode_{name}".replace("_TOT_", "_P_")
            if modes not in file:  # the full solution: phono3py keeps these parts only
                modes = "mode_kappa_RTA"
            return ThermalConductivity(
                file["temperature"][:],
                file[name][:],
                tuple(np.ravel(file["mesh"][:]).tolist()),
                file["weight"][:],
                file["frequency"][:],
                file["gamma"][:],
                file[modes][:],
            )
    except (OSError, KeyError) as error:
        raise PhonopyEquivariantError(
            f"{path} cannot be read as thermal conductivity of phono3py ({reason_of(error)}); "
            "repeat the calculation."
        ) from error

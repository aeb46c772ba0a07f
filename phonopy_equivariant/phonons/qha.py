"""Quasi-harmonic approximation: phonopy's own, on phonons at several volumes.

The free energy F(V, T) = E(V) + F_phonon(V, T) is fitted to an equation of state at each
temperature (Togo, Chaput, Tanaka and Hug, Phys. Rev. B 81, 174301 (2010),
doi:10.1103/PhysRevB.81.174301). phonopy's ``run_qha`` does it, and its writers and plotters make
the files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from phonopy.physical_units import get_physical_units
from phonopy.qha import output
from phonopy.qha.qha import QHAResult, run_qha

from phonopy_equivariant import defaults
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.files import replacing
from phonopy_equivariant.phonons.samples import (
    Sample,
    fitted,
    remarks_of,
    save_plots,
    table_temperatures,
)
from phonopy_equivariant.phonons.thermal_expansion import ThermalExpansion
from phonopy_equivariant.results import Result

# GPa: solids are above (frozen neon 1, at 0 K); below, part of the volume is vacuum
SMALLEST_BULK_MODULUS = 0.05

_WRITERS: dict[str, Callable[..., None]] = {
    "helmholtz-volume.dat": output.write_helmholtz_volume,
    "helmholtz-volume_fitted.dat": output.write_helmholtz_volume_fitted,
    "volume-temperature.dat": output.write_volume_temperature,
    "thermal_expansion.dat": output.write_thermal_expansion,
    "gibbs-temperature.dat": output.write_gibbs_temperature,
    "entropy-temperature.dat": output.write_entropy_temperature,
    "enthalpy-temperature.dat": output.write_enthalpy_temperature,
    "bulk_modulus-temperature.dat": output.write_bulk_modulus_temperature,
    "gruneisen-temperature.dat": output.write_gruneisen_temperature,
}
_AXIAL_WRITERS: dict[str, Callable[..., None]] = {
    "lattice_parameters-temperature.dat": output.write_lattice_parameters_temperature,
    "axial_thermal_expansion.dat": output.write_axial_thermal_expansion,
}
# arguments of phonopy's writer, and the file of each
_HEAT_CAPACITY_FILES = {
    "filename": "Cp-temperature.dat",
    "filename_ev": "entropy-volume.dat",
    "filename_cvv": "Cv-volume.dat",
    "filename_dsdvt": "dsdv-temperature.dat",
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class QuasiHarmonic(Result):
    """What phonopy's quasi-harmonic approximation gives for a crystal.

    Parameters
    ----------
    model
        Name of the potential.
    samples
        The crystal at every volume that was computed, ascending; those with imaginary modes are
        not in the fit.
    phonopy
        phonopy's own result, in eV, Å and K per primitive cell.
    mesh
        Numbers of the mesh, which contains Γ.
    pressure
        GPa.
    expansion
        Thermal expansion at the volume of the lowest energy, from Grüneisen parameters and elastic
        constants there; None if it was not computed.

    """

    model: str
    samples: tuple[Sample, ...]
    phonopy: QHAResult
    mesh: tuple[int, int, int]
    pressure: float
    expansion: ThermalExpansion | None = None

    @property
    def extrapolated_from(self) -> float | None:
        """Lowest temperature (K) whose volume lies outside those computed; None if none does."""
        volumes = self.phonopy.equilibrium_volumes
        outside = (volumes < self.phonopy.volumes.min()) | (volumes > self.phonopy.volumes.max())
        return float(self.phonopy.temperatures[outside][0]) if outside.any() else None

    def at(self, temperature: float) -> dict[str, float]:
        """Return quantities at a temperature (K), between those computed by interpolation.

        ``volume`` (Å³ of the primitive cell), ``thermal_expansion`` (volumetric, 1/K),
        ``bulk_modulus`` (GPa), ``heat_capacity`` (at constant pressure, J/K per mole of primitive
        cells), ``gruneisen``, ``gibbs`` (eV).
        """
        result, units = self.phonopy, get_physical_units()
        if not result.temperatures[0] <= temperature <= result.temperatures[-1]:
            raise PhonopyEquivariantError(
                f"{temperature:g} K is outside the temperatures computed, "
                f"{result.temperatures[0]:g} to {result.temperatures[-1]:g} K; set tmax=."
            )
        values = {
            "volume": result.equilibrium_volumes,
            "thermal_expansion": result.thermal_expansion,
            "bulk_modulus": result.bulk_moduli * units.EVAngstromToGPa,
            "heat_capacity": result.heat_capacity_P.heat_capacities * units.EvTokJmol * 1000,
            "gruneisen": result.gruneisen_parameters,
            "gibbs": result.gibbs_free_energies,
        }
        return {
            name: float(np.interp(temperature, result.temperatures, value))
            for name, value in values.items()
        }

    def columns(self) -> list[str]:
        """Return the headings of :meth:`rows`."""
        return ["T (K)", "V (Å³)", "ALPHA_V (1e-6/K)", "B (GPa)", "CP (J/K/mol)", "GRÜNEISEN"]

    def rows(self) -> list[list[str]]:
        """Return a row for some temperatures; quantities are those of the primitive cell.

        Temperatures whose volume lies outside those computed have none.
        """
        highest, rows = self.phonopy.temperatures[-1], []
        for temperature in table_temperatures(highest, self.extrapolated_from):
            values = self.at(temperature)
            rows.append(
                [
                    f"{temperature:g}",
                    f"{values['volume']:.4f}",
                    f"{1e6 * values['thermal_expansion']:.3f}",
                    f"{values['bulk_modulus']:.2f}",
                    f"{values['heat_capacity']:.3f}",
                    f"{values['gruneisen']:.4f}",
                ]
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return phonopy's arrays, the volumes computed and which of them are in the fit."""
        result = self.phonopy
        values = {
            "model": self.model,
            "mesh": list(self.mesh),
            "pressure": self.pressure,
            "eos": result.eos_name,
            "volumes": [
                {
                    "volume": sample.volume,
                    "energy": sample.energy,
                    "lowest_frequency": sample.stability.lowest,
                    "used": not sample.stability.imaginary,
                }
                for sample in self.samples
            ],
            "temperatures": result.temperatures.tolist(),
            "equilibrium_volumes": result.equilibrium_volumes.tolist(),
            "thermal_expansion": result.thermal_expansion.tolist(),
            "gibbs_free_energies": result.gibbs_free_energies.tolist(),
            "bulk_moduli": result.bulk_moduli.tolist(),
            "heat_capacities_P": result.heat_capacity_P.heat_capacities.tolist(),
            "gruneisen_parameters": result.gruneisen_parameters.tolist(),
            "expansion": None if self.expansion is None else self.expansion.to_dict(),
        }
        return values

    def plot(self) -> Any:
        """Draw phonopy's three figures: F(V), V(T), thermal expansion; return ``pyplot``."""
        from phonopy.qha.plot import plot_qha

        return plot_qha(self.phonopy)

    def write(self, folder: str | os.PathLike[str]) -> list[str]:
        """Write phonopy's files and ``e-v.dat`` into a folder; return their names."""
        folder, names = Path(folder), []
        axial = _AXIAL_WRITERS if self.phonopy.lattice is not None else {}
        for name, writer in (_WRITERS | axial).items():
            with replacing(folder / name) as temporary:
                writer(self.phonopy, filename=temporary)
            names.append(name)
        with contextlib.ExitStack() as stack:
            files = {
                argument: stack.enter_context(replacing(folder / name))
                for argument, name in _HEAT_CAPACITY_FILES.items()
            }
            output.write_heat_capacity_P(self.phonopy, **files)
        with replacing(folder / "e-v.dat") as temporary:
            lines = ["#   cell volume   energy of cell at rest"]
            lines += [f"{s.volume:20.15f} {s.energy:25.15f}" for s in fitted(self.samples)]
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return [*names, *_HEAT_CAPACITY_FILES.values(), "e-v.dat"]

    def write_plots(self, folder: str | os.PathLike[str]) -> list[str]:
        """Write phonopy's plots as PDF into a folder, named like its data; return their names."""
        from phonopy.qha import plot

        plots: dict[str, Callable[..., Any]] = {
            "qha.pdf": plot.plot_qha,
            "helmholtz-volume.pdf": plot.plot_helmholtz_volume,
            "volume-temperature.pdf": plot.plot_volume_temperature,
            "thermal_expansion.pdf": plot.plot_thermal_expansion,
            "gibbs-temperature.pdf": plot.plot_gibbs_temperature,
            "bulk_modulus-temperature.pdf": plot.plot_bulk_modulus_temperature,
            "Cp-temperature.pdf": plot.plot_heat_capacity_P,
            "gruneisen-temperature.pdf": plot.plot_gruneisen_temperature,
        }
        if self.phonopy.lattice is not None:
            plots["lattice_parameters-temperature.pdf"] = plot.plot_lattice_parameters
            plots["axial_thermal_expansion.pdf"] = plot.plot_axial_thermal_expansion
        return save_plots(folder, plots, self.phonopy)


def quasi_harmonic(
    samples: Sequence[Sample],
    temperatures: Float[ndarray, " n"],
    mesh: tuple[int, int, int],
    pressure: float,
    eos: str,
) -> tuple[QHAResult, list[str]]:
    """Return the result of phonopy's ``run_qha`` on samples without imaginary modes, and remarks.

    Raises
    ------
    PhonopyEquivariantError
        Fewer than five volumes are left, phonopy cannot fit them, or the free energy does not
        depend on the volume.

    """
    stable = fitted(samples)
    if len(stable) < defaults.FEWEST_VOLUMES:
        raise PhonopyEquivariantError(
            f"{len(stable)} of {len(samples)} volumes have no imaginary modes, and an equation of "
            f"state needs {defaults.FEWEST_VOLUMES}: compute more volumes (volumes=), or others "
            "(volume_range=), or follow the unstable mode to the stable structure first."
        )
    with remarks_of("phonopy's fit") as remarks:
        result = run_qha(
            [sample.phonon for sample in stable],
            temperatures,
            internal_energies=[sample.energy for sample in stable],
            mesh=list(mesh),
            pressure=pressure or None,
            eos=eos,
            exclude_gamma_acoustic=True,
        )
    modulus = float(result.bulk_moduli[0]) * get_physical_units().EVAngstromToGPa
    if not modulus > SMALLEST_BULK_MODULUS:
        raise PhonopyEquivariantError(
            f"The bulk modulus at {temperatures[0]:g} K is {modulus:.2g} GPa: the free energy does "
            "not depend on the volume, as that of a layer or a molecule in vacuum, which has no "
            "volume of its own; give a crystal that is bound in all directions."
        )
    return result, remarks

"""Quasi-harmonic approximation over lengths of lattice vectors: phonopy's own, on a grid of cells.

Where a crystal has more than one free length (tetragonal, trigonal, hexagonal, orthorhombic), one
volume per temperature is not enough: the phonons press on a and on c with different strength.
phonopy's ``run_anisotropic_qha`` fits the free energy by a polynomial in the lengths, at each
temperature, and minimises it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import spglib
from jaxtyping import Float
from numpy import ndarray
from phonopy.qha import anisotropic_output
from phonopy.qha.anisotropic import AnisotropicQHAResult, run_anisotropic_qha
from phonopy.qha.lattice_sampling import get_free_lattice_dof, grid_strained_cells
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
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

# total degree of phonopy's polynomial in the lengths
DEGREE = 3

_WRITERS: dict[str, Callable[..., None]] = {
    "lattice_parameters-temperature.dat": anisotropic_output.write_lattice_parameters_temperature,
    "axial_thermal_expansion.dat": anisotropic_output.write_axial_thermal_expansion,
    "volume-temperature.dat": anisotropic_output.write_volume_temperature,
    "free_energy-temperature.dat": anisotropic_output.write_free_energy_temperature,
}


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class AnisotropicQuasiHarmonic(Result):
    """What phonopy's anisotropic quasi-harmonic approximation gives for a crystal.

    Parameters
    ----------
    model
        Name of the potential.
    samples
        The crystal in every cell that was computed; those with imaginary modes are not in the fit.
    phonopy
        phonopy's own result, in eV, Å and K; lengths are those of the conventional cell.
    mesh
        Numbers of the mesh, which contains Γ.
    pressure
        GPa.
    expansion
        Thermal expansion in the cell of the lowest energy, from Grüneisen parameters and elastic
        constants there; None if it was not computed.

    """

    model: str
    samples: tuple[Sample, ...]
    phonopy: AnisotropicQHAResult
    mesh: tuple[int, int, int]
    pressure: float
    expansion: ThermalExpansion | None = None

    @property
    def extrapolated_from(self) -> float | None:
        """Lowest temperature (K) whose cell lies outside those computed; None if none does."""
        outside = self.phonopy.minimum_extrapolated
        return float(self.phonopy.temperatures[outside][0]) if outside.any() else None

    def columns(self) -> list[str]:
        """Return the headings of :meth:`rows`."""
        lengths = [f"{axis} (Å)" for axis in "abc"]
        return ["T (K)", *lengths, *(f"ALPHA_{axis} (1e-6/K)" for axis in "abcV")]

    def rows(self) -> list[list[str]]:
        """Return a row for some temperatures; where the fit is extrapolated there is none."""
        surface, rows = self.phonopy, []
        columns = np.column_stack(
            [
                surface.equilibrium_lattice_parameters,
                1e6 * surface.axial_thermal_expansions,
                1e6 * surface.thermal_expansion,
            ]
        )
        highest = surface.temperatures[-1]
        for temperature in table_temperatures(highest, self.extrapolated_from):
            values = [np.interp(temperature, surface.temperatures, x) for x in columns.T]
            rows.append(
                [
                    f"{temperature:g}",
                    *(f"{length:.5f}" for length in values[:3]),
                    *(f"{alpha:.3f}" for alpha in values[3:]),
                ]
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Return phonopy's arrays, the cells computed and which of them are in the fit."""
        surface = self.phonopy
        return {
            "model": self.model,
            "mesh": list(self.mesh),
            "pressure": self.pressure,
            "cells": [
                {
                    "lengths": np.linalg.norm(sample.phonon.unitcell.cell, axis=1).tolist(),
                    "volume": sample.volume,
                    "energy": sample.energy,
                    "lowest_frequency": sample.stability.lowest,
                    "used": not sample.stability.imaginary,
                }
                for sample in self.samples
            ],
            "temperatures": surface.temperatures.tolist(),
            "lattice_parameters": surface.equilibrium_lattice_parameters.tolist(),
            "equilibrium_volumes": surface.equilibrium_volumes.tolist(),
            "axial_thermal_expansions": surface.axial_thermal_expansions.tolist(),
            "thermal_expansion": surface.thermal_expansion.tolist(),
            "free_energies": surface.gibbs_free_energies.tolist(),
            "expansion": None if self.expansion is None else self.expansion.to_dict(),
        }

    def write(self, folder: str | os.PathLike[str]) -> list[str]:
        """Write phonopy's files into a folder; return their names."""
        for name, writer in _WRITERS.items():
            with replacing(Path(folder) / name) as temporary:
                writer(self.phonopy, filename=temporary)
        return list(_WRITERS)

    def write_plots(self, folder: str | os.PathLike[str]) -> list[str]:
        """Write phonopy's plots as PDF into a folder, named like its data; return their names."""
        from phonopy.qha import anisotropic_plot

        plots: dict[str, Callable[..., Any]] = {
            "anisotropic_qha.pdf": anisotropic_plot.plot_anisotropic_qha,
            "lattice_parameters-temperature.pdf": anisotropic_plot.plot_lattice_parameters,
            "axial_thermal_expansion.pdf": anisotropic_plot.plot_axial_thermal_expansion,
            "volume-temperature.pdf": anisotropic_plot.plot_volume_temperature,
            "free_energy-temperature.pdf": anisotropic_plot.plot_free_energy_temperature,
        }
        return save_plots(folder, plots, self.phonopy)


def anisotropic_quasi_harmonic(
    samples: Sequence[Sample],
    temperatures: Float[ndarray, " n"],
    mesh: tuple[int, int, int],
    pressure: float,
) -> tuple[AnisotropicQHAResult, list[str]]:
    """Return the result of phonopy's ``run_anisotropic_qha``, and remarks.

    Raises
    ------
    PhonopyEquivariantError
        Too few cells have no imaginary modes, or phonopy cannot fit them.

    """
    stable = fitted(samples)
    with remarks_of("phonopy's anisotropic fit") as remarks:
        result = run_anisotropic_qha(
            [sample.phonon for sample in stable],
            temperatures,
            internal_energies=[sample.energy for sample in stable],
            mesh=list(mesh),
            pressure=pressure or None,
            polynomial_degree=DEGREE,
            is_gamma_center=True,
            exclude_gamma_acoustic=True,
        )
    return result, remarks


def conventional_cell(cell: PhonopyAtoms, symprec: float = 1e-5) -> PhonopyAtoms:
    """Return the conventional cell of a crystal, which phonopy's anisotropic functions take.

    Raises
    ------
    PhonopyEquivariantError
        The crystal is triclinic, monoclinic or cubic; atoms of one element have several masses.

    """
    with contextlib.suppress(ValueError):
        get_free_lattice_dof(cell, symprec)
        return _checked(cell, symprec)
    dataset = spglib.get_symmetry_dataset(cell.totuple(), symprec)  # type: ignore[arg-type]
    assert dataset is not None
    masses = {
        number: np.unique(cell.masses[cell.numbers == number]) for number in set(cell.numbers)
    }
    if any(len(values) > 1 for values in masses.values()):
        raise PhonopyEquivariantError(
            "Atoms of one element have several masses: give the conventional cell of the crystal, "
            "in which they stay with their atoms."
        )
    conventional = PhonopyAtoms(
        numbers=dataset.std_types.astype(np.int64),
        scaled_positions=dataset.std_positions,
        cell=dataset.std_lattice,
        masses=[float(masses[number][0]) for number in dataset.std_types],
    )
    return _checked(conventional, symprec)


def strained_cells(
    cell: PhonopyAtoms, grid: int, strains: tuple[float, float], symprec: float = 1e-5
) -> list[PhonopyAtoms]:
    """Return phonopy's grid of cells over the free lengths of a conventional cell.

    Parameters
    ----------
    cell
        From :func:`conventional_cell`.
    grid
        Number of lengths along each free axis.
    strains
        Lowest and highest relative change of each length.

    """
    free = get_free_lattice_dof(cell, symprec)
    ranges = {
        label: (length * (1 + strains[0]), length * (1 + strains[1]))
        for label, length in free.current_lengths.items()
    }
    return grid_strained_cells(cell, free, ranges, grid)


def free_axes(cell: PhonopyAtoms, symprec: float = 1e-5) -> int:
    """Return the number of free lengths of a conventional cell."""
    return len(get_free_lattice_dof(cell, symprec).labels)


def _checked(cell: PhonopyAtoms, symprec: float) -> PhonopyAtoms:
    try:
        free = get_free_lattice_dof(cell, symprec)
    except ValueError as error:
        raise PhonopyEquivariantError(
            f"phonopy's anisotropic QHA does not take this crystal ({reason_of(error)}); leave "
            "anisotropic=True away."
        ) from error
    if len(free.labels) == 1:
        raise PhonopyEquivariantError(
            "The crystal is cubic: its volume says all; leave anisotropic=True away."
        )
    return cell

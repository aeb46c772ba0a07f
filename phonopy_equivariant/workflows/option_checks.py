"""Options of workflows that mean nothing are refused when they are made, before anything starts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from phonopy_equivariant import defaults
from phonopy_equivariant.errors import PhonopyEquivariantError, nearest

if TYPE_CHECKING:
    from phonopy_equivariant.workflows.options import (
        ConvergenceOptions,
        QHAOptions,
        SSCHAOptions,
        UnstableOptions,
    )


def check_qha(options: QHAOptions) -> None:
    """Refuse volumes, an equation of state, temperatures or a pressure that mean nothing.

    Raises
    ------
    PhonopyEquivariantError
        As said; so do the other functions here.

    """
    low, high = options.volume_range
    if not -50 <= low < high <= 100:
        raise PhonopyEquivariantError(
            f"volume_range={low:g} {high:g}: give the lowest and the highest change of the volume "
            "in %, as in volume_range=-6 8."
        )
    if options.volumes < defaults.FEWEST_VOLUMES:
        raise PhonopyEquivariantError(
            f"volumes={options.volumes}: an equation of state needs {defaults.FEWEST_VOLUMES} "
            "volumes."
        )
    if options.grid is not None and options.grid < defaults.FEWEST_LENGTHS:
        raise PhonopyEquivariantError(
            f"grid={options.grid}: phonopy's polynomial needs {defaults.FEWEST_LENGTHS} lengths "
            "along an axis."
        )
    names = defaults.EQUATIONS_OF_STATE
    if options.eos not in names:
        near = nearest(options.eos, names) or ", ".join(names)
        raise PhonopyEquivariantError(f"eos={options.eos}: phonopy has no such; take {near}.")
    if not (0 < options.tstep < math.inf and options.tstep <= options.tmax < math.inf):
        raise PhonopyEquivariantError(
            f"tmax={options.tmax:g}, tstep={options.tstep:g}: give positive temperatures in K, the "
            "step not above the highest."
        )
    if not abs(options.pressure) <= defaults.LARGEST_PRESSURE:
        raise PhonopyEquivariantError(
            f"pressure={options.pressure:g}: give GPa, {defaults.LARGEST_PRESSURE:g} at most."
        )


def check_unstable(options: UnstableOptions) -> None:
    """Refuse limits and a threshold that mean nothing."""
    for name in ("max_cells", "max_atoms", "max_structures"):
        number = getattr(options, name)
        if number < 1:
            raise PhonopyEquivariantError(f"{name}={number}: give a positive whole number.")
    if options.max_cells > defaults.LARGEST_CELLS:
        raise PhonopyEquivariantError(
            f"max_cells={options.max_cells}: supercells of up to {defaults.LARGEST_CELLS} "
            "primitive cells are looked at."
        )
    if not 0 < options.threshold < math.inf:
        raise PhonopyEquivariantError(
            f"threshold={options.threshold:g}: give a positive number of THz."
        )


def check_sscha(options: SSCHAOptions) -> None:
    """Refuse temperatures, numbers of supercells and iterations, and seeds that mean nothing."""
    temperatures = options.temperatures
    if not temperatures or not all(0 <= t < math.inf for t in temperatures):
        given = " ".join(f"{t:g}" for t in temperatures)
        raise PhonopyEquivariantError(
            f"temperature={given}: give one or several temperatures in K, from 0."
        )
    if options.snapshots < 2 or options.iterations < 1:
        raise PhonopyEquivariantError(
            f"snapshots={options.snapshots}, iterations={options.iterations}: give at least two "
            "supercells and one iteration."
        )
    if options.seed < 0:
        raise PhonopyEquivariantError(f"seed={options.seed}: give a whole number from 0.")


def check_convergence(options: ConvergenceOptions) -> None:
    """Refuse a tolerance, a temperature or a number of atoms that mean nothing."""
    if not 0 < options.tolerance < 1 or not 0 < options.temperature < math.inf:
        raise PhonopyEquivariantError(
            f"tolerance={options.tolerance:g}, temperature={options.temperature:g}: give a number "
            "between 0 and 1, and a positive temperature in K."
        )
    if options.max_atoms < 1:
        raise PhonopyEquivariantError(
            f"max_atoms={options.max_atoms}: give a positive number of atoms."
        )

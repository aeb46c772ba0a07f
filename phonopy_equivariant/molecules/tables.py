"""A molecule's vibrations as tables: of its multiplets, and of all that files hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy import ndarray

from phonopy_equivariant._version import __version__

if TYPE_CHECKING:
    from phonopy_equivariant.molecules.analysis import MolecularVibrations

# A frequency below this (cm⁻¹) is zero by rounding: no force holds that motion.
ZERO = 0.01


def wavenumber_text(frequency: float) -> str:
    """Return a frequency in cm⁻¹, an imaginary one with an i."""
    return f"{abs(frequency):.2f}{'i' if frequency < -ZERO else ''}"


def table_columns(result: MolecularVibrations) -> list[str]:
    """Return the headings of the table of multiplets."""
    columns = ["cm⁻¹", "DEG", "IRREP", "IR", "RAMAN", "AMU"]
    columns += ["KM/MOL"] * (result.infrared is not None)
    return columns + ["Å⁴/AMU", "DEPOL"] * (result.raman is not None)


def table_rows(result: MolecularVibrations) -> list[list[str]]:
    """Return a row for each multiplet; intensities are sums over its modes."""
    rows = []
    masses = result.modes.reduced_masses
    for multiplet in result.multiplets:
        modes = list(multiplet.modes)
        row = [
            wavenumber_text(multiplet.frequency),
            str(multiplet.degeneracy),
            multiplet.irrep,
            "yes" if multiplet.infrared else "-",
            "yes" if multiplet.raman else "-",
            f"{masses[modes].mean():.3f}",
        ]
        if result.infrared is not None:
            row.append(f"{result.infrared[modes].sum():.3f}")
        if result.raman is not None:
            row.append(f"{result.raman.activities[modes].sum():.3f}")
            row.append(f"{result.raman.depolarization[modes].mean():.3f}")
        rows.append(row)
    return rows


def contents(result: MolecularVibrations) -> dict[str, Any]:
    """Return everything but the Hessian as plain values."""
    content: dict[str, Any] = {
        "phonopy_equivariant": __version__,
        "units": {
            "frequency": "cm^-1, negative if imaginary",
            "length": "angstrom",
            "mass": "amu",
            "energy": "eV",
            "entropy": "eV/K",
            "infrared_intensity": "km/mol",
            "raman_activity": "angstrom^4/amu",
        },
        "symbols": result.atoms.get_chemical_symbols(),
        "masses": _rounded(result.modes.masses),
        "positions": _rounded(result.atoms.positions),
        "point_group": result.symmetry.group,
        "point_group_deviation": float(f"{result.symmetry.deviation:.3e}"),
        "irreps_group": result.followed,
        "symmetrised": float(f"{result.symmetrised:.3e}"),
        "raw_translations_and_rotations": _rounded(result.modes.external),
        "zero_point_energy": result.modes.zero_point_energy,
    }
    if result.energy is not None:
        content["potential_energy"] = result.energy
    if result.max_force is not None:
        content["max_force"] = float(f"{result.max_force:.3e}")
    content["multiplets"] = [_multiplet(result, k) for k in range(len(result.multiplets))]
    content["modes"] = [_mode(result, k) for k in range(len(result.frequencies))]
    return content


def irrep_of_mode(result: MolecularVibrations, mode: int) -> str:
    """Return the irrep of a mode."""
    return next(m.irrep for m in result.multiplets if mode in m.modes)


def _multiplet(result: MolecularVibrations, index: int) -> dict[str, Any]:
    multiplet = result.multiplets[index]
    return {
        "frequency": multiplet.frequency,
        "degeneracy": multiplet.degeneracy,
        "irrep": multiplet.irrep,
        "infrared_active": multiplet.infrared,
        "raman_active": multiplet.raman,
        "modes": [k + 1 for k in multiplet.modes],
        "splitting": float(f"{multiplet.splitting:.3e}"),
    }


def _mode(result: MolecularVibrations, index: int) -> dict[str, Any]:
    content = {
        "frequency": float(result.frequencies[index]),
        "irrep": irrep_of_mode(result, index),
        "reduced_mass": float(result.modes.reduced_masses[index]),
    }
    if result.infrared is not None:
        content["infrared_intensity"] = float(result.infrared[index])
    if result.raman is not None:
        content["raman_activity"] = float(result.raman.activities[index])
        content["depolarization"] = float(result.raman.depolarization[index])
    content["eigenvector"] = _rounded(result.modes.vectors[index])
    return content


def _rounded(values: ndarray) -> list[Any]:
    """Return nested lists of numbers, as YAML takes them."""
    numbers: list[Any] = np.round(np.asarray(values, float), 12).tolist()
    return numbers

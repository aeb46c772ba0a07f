"""Files of a molecule's vibrations: YAML, extended XYZ and Molden. Each is written whole or not."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import yaml
from ase.units import Bohr
from numpy import ndarray

from phonopy_equivariant._version import __version__
from phonopy_equivariant.files import replacing
from phonopy_equivariant.molecules.analysis import MolecularVibrations, Thermochemistry
from phonopy_equivariant.molecules.report import wavenumber_text


def write_yaml(
    result: MolecularVibrations,
    path: str | os.PathLike[str],
    gas: Thermochemistry | None = None,
    source: dict[str, str] | None = None,
) -> None:
    """Write everything but the Hessian as YAML; ``source`` says where the Hessian comes from."""
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
        "source": source or {},
        "symbols": result.atoms.get_chemical_symbols(),
        "masses": _plain(result.modes.masses),
        "positions": _plain(result.atoms.positions),
        "point_group": result.symmetry.group,
        "point_group_deviation": float(f"{result.symmetry.deviation:.3e}"),
        "irreps_group": result.followed,
        "symmetrised": float(f"{result.symmetrised:.3e}"),
        "raw_translations_and_rotations": _plain(result.modes.external),
        "zero_point_energy": result.modes.zero_point_energy,
    }
    if result.energy is not None:
        content["potential_energy"] = result.energy
    if result.max_force is not None:
        content["max_force"] = float(f"{result.max_force:.3e}")
    if gas is not None:
        content["ideal_gas"] = gas._asdict()
    content["multiplets"] = [_multiplet(result, k) for k in range(len(result.multiplets))]
    content["modes"] = [_mode(result, k) for k in range(len(result.frequencies))]
    text = yaml.dump(content, sort_keys=False, default_flow_style=None, width=100)
    _write(path, text)


def write_xyz(result: MolecularVibrations, path: str | os.PathLike[str]) -> None:
    """Write one frame per mode as extended XYZ with the displacements as ``vibration`` vectors.

    Displacements are normalised to a largest atomic displacement of 1 Å.
    """
    frames = []
    for k, mode in enumerate(result.modes.displacements):
        frame = result.atoms.copy()
        frame.arrays["vibration"] = mode / np.linalg.norm(mode, axis=1).max()
        frame.info = {
            "mode": k + 1,
            "wavenumber": wavenumber_text(result.frequencies[k]),
            "irrep": irrep_of_mode(result, k),
        }
        frames.append(frame)
    text = io.StringIO()
    ase.io.write(text, frames or [result.atoms], format="extxyz")
    _write(path, text.getvalue())


def write_molden(result: MolecularVibrations, path: str | os.PathLike[str]) -> None:
    """Write the sections of the Molden format that viewers animate vibrations from.

    Lengths in bohr; displacements are normalised to a largest atomic displacement of 1 bohr.
    """
    symbols, positions = result.atoms.get_chemical_symbols(), result.atoms.positions / Bohr
    lines = ["[Molden Format]", "[FREQ]", *(f"{x:.4f}" for x in result.frequencies)]
    if result.infrared is not None:
        lines += ["[INT]", *(f"{x:.6f}" for x in result.infrared)]
    lines.append("[FR-COORD]")
    lines += [f"{s:2s} {_numbers(x)}" for s, x in zip(symbols, positions, strict=True)]
    lines.append("[FR-NORM-COORD]")
    for k, mode in enumerate(result.modes.displacements):
        lines.append(f"vibration {k + 1}")
        lines += [_numbers(x) for x in mode / np.linalg.norm(mode, axis=1).max()]
    _write(path, "\n".join(lines) + "\n")


def write_hessian(result: MolecularVibrations, path: str | os.PathLike[str]) -> None:
    """Write structure and Hessian as ASE's ``VibrationsData`` (JSON)."""
    with replacing(path) as temporary:
        result.to_ase().write(temporary)  # type: ignore[attr-defined]


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
    content["eigenvector"] = _plain(result.modes.vectors[index])
    return content


def _plain(values: ndarray) -> Any:
    return np.round(np.asarray(values, float), 12).tolist()


def _numbers(values: ndarray) -> str:
    return " ".join(f"{x:14.8f}" for x in values)


def _write(path: str | os.PathLike[str], text: str) -> None:
    with replacing(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")

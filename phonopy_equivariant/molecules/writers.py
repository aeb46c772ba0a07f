"""Files of a molecule's vibrations: YAML, extended XYZ and Molden. Each is written whole or not."""

from __future__ import annotations

import io
import os
from pathlib import Path

import ase.io
import numpy as np
import yaml
from ase.units import Bohr
from numpy import ndarray

from phonopy_equivariant.files import replacing
from phonopy_equivariant.molecules.analysis import MolecularVibrations, Thermochemistry
from phonopy_equivariant.molecules.tables import irrep_of_mode, wavenumber_text


def write_yaml(
    result: MolecularVibrations,
    path: str | os.PathLike[str],
    gas: Thermochemistry | None = None,
    source: dict[str, str] | None = None,
) -> None:
    """Write everything but the Hessian as YAML; ``source`` says where the Hessian comes from."""
    content = result.to_dict() | {"source": source or {}}
    if gas is not None:
        content["ideal_gas"] = gas._asdict()
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


def _numbers(values: ndarray) -> str:
    return " ".join(f"{x:14.8f}" for x in values)


def _write(path: str | os.PathLike[str], text: str) -> None:
    with replacing(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")

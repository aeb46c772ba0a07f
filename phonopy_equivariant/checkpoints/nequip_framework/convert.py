"""Convert a training checkpoint of nequip into one of this package."""

from __future__ import annotations

from pathlib import Path

from phonopy_equivariant.checkpoints.conversion import Conversion, sha256_of
from phonopy_equivariant.checkpoints.native import save_checkpoint
from phonopy_equivariant.checkpoints.nequip_framework.model import read_nequip
from phonopy_equivariant.potential import make_potential


def convert_nequip(source: Path, output: Path) -> Conversion:
    """Write a checkpoint of nequip as one of this package; nothing of the file is executed.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`.model.read_nequip`, or the output cannot be written.

    """
    labels = {"name": source.stem, "source_sha256": sha256_of(source)}
    potential = make_potential(*read_nequip(source), name=labels["name"])
    return Conversion(save_checkpoint(potential, output, labels), potential)

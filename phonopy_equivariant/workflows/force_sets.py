"""Forces of phonopy's displaced supercells, in the files of a frozen-phonon run."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from phonopy import Phonopy
from phonopy.file_IO import write_FORCE_SETS
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.files import replacing
from phonopy_equivariant.io.crystals import Crystal

if TYPE_CHECKING:
    from phonopy_equivariant.potential import Potential

# phonopy's dataset of displacements and forces, of its type 1 or 2
Dataset = Any
Track = Callable[[str, Sequence[PhonopyAtoms]], Iterable[PhonopyAtoms]]


def require_displacements(crystal: Crystal) -> None:
    """Raise unless the file has displacements.

    Raises
    ------
    PhonopyEquivariantError
        With the command that makes them.

    """
    if not crystal.dataset:
        raise PhonopyEquivariantError(
            f"{crystal.path} has no displacements; make them with "
            "phonopy-init -d --dim 2 2 2 -c STRUCTURE, and give phonopy_disp.yaml."
        )


def displaced_cells(phonon: Phonopy, crystal: Crystal) -> list[PhonopyAtoms]:
    """Return the displaced supercells of a file that ``phonopy-init -d`` wrote, in Å.

    Raises
    ------
    PhonopyEquivariantError
        The file has no displacements.

    """
    require_displacements(crystal)
    dataset: Any = copy.deepcopy(dict(crystal.dataset or {}))
    for part in dataset.get("first_atoms", ()):
        part["displacement"] = np.asarray(part["displacement"]) * crystal.length_unit
    if "displacements" in dataset:
        dataset["displacements"] = np.asarray(dataset["displacements"]) * crystal.length_unit
    phonon.dataset = dataset
    return [cell for cell in phonon.supercells_with_displacements or () if cell is not None]


def compute_force_sets(
    phonon: Phonopy,
    potential: Potential,
    crystal: Crystal,
    track: Track = lambda title, cells: cells,
) -> Dataset:
    """Return the file's dataset with forces in the units of its calculator.

    ``track`` may wrap the loop over displaced supercells to show progress.
    """
    cells = displaced_cells(phonon, crystal)
    title = f"Forces of {len(cells)} displaced supercells"
    forces = [potential.evaluate(cell).forces / crystal.force_unit for cell in track(title, cells)]
    dataset: Any = copy.deepcopy(dict(crystal.dataset or {}))
    if "first_atoms" in dataset:
        for part, values in zip(dataset["first_atoms"], forces, strict=True):
            part["forces"] = values
    else:
        dataset["forces"] = np.array(forces)
    return dataset


def write_force_sets(dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Write ``FORCE_SETS``."""
    with replacing(path) as temporary:
        write_FORCE_SETS(dataset, filename=temporary)

"""The state of a self-consistent calculation on disk: what it needs to go on after a break."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.files import replacing
from phonopy_equivariant.phonons.sscha import Iteration

_FIELDS = [field.name for field in dataclasses.fields(Iteration)]


def write_state(
    path: str | os.PathLike[str],
    settings: str,
    iterations: list[Iteration],
    force_constants: list[Float[ndarray, "primitive supercell 3 3"]],
) -> None:
    """Write the iterations so far, the force constants after each, and what they belong to."""
    table = np.array([dataclasses.astuple(step) for step in iterations])
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, settings=settings, table=table, force_constants=np.array(force_constants))


def read_state(
    path: str | os.PathLike[str], settings: str
) -> tuple[list[Iteration], list[Float[ndarray, "primitive supercell 3 3"]]]:
    """Return iterations and force constants of a file; none if there is no file.

    Parameters
    ----------
    path
        The file.
    settings
        What the iterations must belong to: potential, crystal, supercell, seed and so on.

    Raises
    ------
    PhonopyEquivariantError
        The file belongs to other settings, or cannot be read.

    """
    if not Path(path).exists():
        return [], []
    remedy = "take restart=True to begin anew, or another folder"
    try:
        with np.load(path, allow_pickle=False) as content:
            written = str(content["settings"])
            table, force_constants = content["table"], content["force_constants"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise PhonopyEquivariantError(f"{path} cannot be read; {remedy}.") from error
    if written != settings:
        changed = [
            old
            for old, new in zip(written.split("; "), settings.split("; "), strict=False)
            if old != new
        ]
        raise PhonopyEquivariantError(
            f"{path} is of another calculation ({', '.join(changed) or written}); {remedy}."
        )
    steps = [Iteration(**dict(zip(_FIELDS, map(float, row), strict=True))) for row in table]
    return steps, list(force_constants)

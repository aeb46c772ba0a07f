"""What a training needs to go on exactly where it stopped: one file, written atomically.

A zip archive of NumPy arrays (weights, their moving average, optax's moments, the step) and a
member ``progress.json`` with the rest. There is no state of a random generator in it:
:mod:`.samples` derives what a step sees from the seed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phonopy_equivariant.checkpoints.archive import named_leaves, read_array, write_array
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.runtime.compilation import x64_mode
from phonopy_equivariant.training.optimiser import TrainState
from phonopy_equivariant.training.samples import Cursor

HEADER = "progress.json"
FORMAT = 3  # 1 had no fingerprints of the data; 2 had others, of labels that no term uses too

# Settings that may change between a run and its continuation.
FREE = ("output", "steps", "checkpoint_every", "log_every", "tensorboard", "patience")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a training must still be to go on bit for bit.

    Parameters
    ----------
    config
        All settings.
    data
        SHA-256 of every set's records, see :func:`.sources.fingerprint`.
    devices
        How many a batch is spread over.

    """

    config: dict[str, Any]
    data: tuple[str, ...]
    devices: int


@dataclasses.dataclass(frozen=True)
class Progress:
    """The part of the state that lives on the host.

    Parameters
    ----------
    step
        Steps taken.
    cursors
        Place of every set.
    best
        Lowest validation loss so far.
    waiting
        Validations since the best one.
    reductions, stale
        Of the plateau schedule: factors applied, validations since the last improvement or
        factor.

    """

    step: int
    cursors: tuple[Cursor, ...]
    best: float = float("inf")
    waiting: int = 0
    reductions: int = 0
    stale: int = 0


def save_state(path: Path, state: TrainState, progress: Progress, origin: Origin) -> None:
    """Write the state, and the training it belongs to."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        header = {"format": FORMAT} | dataclasses.asdict(origin) | dataclasses.asdict(progress)
        archive.writestr(zipfile.ZipInfo(HEADER), json.dumps(header))
        for name, leaf in named_leaves(state):
            write_array(archive, name, np.asarray(leaf))
    write_atomically(path, buffer.getvalue())


def load_origin(path: Path) -> Origin:
    """Return the training a state belongs to, without its arrays.

    States without fingerprints of the data, of versions before there were any, are refused:
    whether they would go on with the same data cannot be told.

    Raises
    ------
    PhonopyEquivariantError
        The file is damaged or of another version.

    """
    with _archive(path) as archive:
        header = _header(path, archive)
        return Origin(header["config"], tuple(header["data"]), int(header["devices"]))


def load_state(path: Path, template: TrainState) -> tuple[TrainState, Progress]:
    """Return the state in a file of :func:`save_state`, with the structure of ``template``.

    Raises
    ------
    PhonopyEquivariantError
        The file is damaged, or is of another model or optimiser.

    """
    with _archive(path) as archive:
        header = _header(path, archive)
        leaves = [_read(path, archive, name, leaf) for name, leaf in named_leaves(template)]
        values = {field.name: header[field.name] for field in dataclasses.fields(Progress)}
    values["cursors"] = tuple(Cursor(*cursor) for cursor in values["cursors"])
    return jax.tree.unflatten(jax.tree.structure(template), leaves), Progress(**values)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a state; if it is damaged, raise an error of one line."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except PhonopyEquivariantError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError) as error:
        raise PhonopyEquivariantError(
            f"{path}: cannot be read as the state of this training; use restart=True to begin anew."
        ) from error


def _header(path: Path, archive: zipfile.ZipFile) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(archive.read(HEADER))
    if header["format"] != FORMAT:
        raise PhonopyEquivariantError(f"{path}: written by another version; use restart=True.")
    return header


def _read(path: Path, archive: zipfile.ZipFile, name: str, template: jax.Array) -> jax.Array:
    array = read_array(archive, name)
    if array.shape != template.shape or array.dtype != template.dtype:
        raise PhonopyEquivariantError(
            f"{path}: {name} is {array.dtype} of shape {array.shape}, not the {template.dtype} of "
            f"shape {template.shape} of this training; use another output folder or restart=True."
        )
    with x64_mode():
        return jnp.asarray(array)


def require_same(saved: Origin, current: Origin, folder: Path) -> None:
    """Refuse to continue a run whose settings, data or devices have changed.

    A state without fingerprints of the data does not get this far, see :func:`load_origin`.

    Raises
    ------
    PhonopyEquivariantError
        With what differs and the remedies.

    """
    for key, value in current.config.items():
        if key not in FREE and saved.config.get(key) != value:
            raise PhonopyEquivariantError(
                f"{folder} holds a training with another {key}; set it back, choose another "
                "output, or begin anew with restart=True."
            )
    digests = zip(current.config["sets"], saved.data, current.data, strict=True)
    for source, saved_digest, digest in digests:
        if digest != saved_digest:
            raise PhonopyEquivariantError(
                f"{folder} holds a training with other data: the records of {source['path']} have "
                "changed; put them back, choose another output, or begin anew with restart=True."
            )
    if saved.devices != current.devices:
        raise PhonopyEquivariantError(
            f"{folder} holds a training on {saved.devices} devices, now there are "
            f"{current.devices}; use as many, choose another output, or begin anew with "
            "restart=True."
        )

"""Load a potential by name or from a file of any format known here."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import TypeAlias

from phonopy_equivariant.catalogue.bundled import DEFAULT_MODEL
from phonopy_equivariant.catalogue.cards import model_card
from phonopy_equivariant.checkpoints.conversion import name_of
from phonopy_equivariant.checkpoints.fetch import bundled_file, fetch_file, file_sha256
from phonopy_equivariant.checkpoints.native import Checkpoint, read_checkpoint
from phonopy_equivariant.checkpoints.nequix import read_nequix
from phonopy_equivariant.checkpoints.torch_file import member_names
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import Potential, make_potential

# What every function of this package takes for a potential.
PotentialLike: TypeAlias = Potential | str | os.PathLike[str]


def as_potential(potential: PotentialLike, dtype: str = "float64") -> Potential:
    """Return a potential as it is, or the one of a model's name or file.

    A model is loaded once in a process as long as its file stays the same.

    Parameters
    ----------
    potential
        A :class:`Potential`, the name of a model, or the path of a checkpoint.
    dtype
        Precision of a model that is named; a :class:`Potential` has its own.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`load_potential`; or neither a potential nor a name.

    """
    if isinstance(potential, Potential):
        return potential
    if not isinstance(potential, str | os.PathLike):
        raise PhonopyEquivariantError(
            f"Expected a potential or the name of a model, got {type(potential).__name__}; "
            "see pe.load_potential."
        )
    path = resolve(potential)
    return _loaded(path, path.stat().st_mtime_ns, dtype)


@functools.lru_cache(maxsize=8)
def _loaded(path: Path, _changed: int, dtype: str) -> Potential:
    return load_potential(path, dtype)


def load_potential(
    name_or_path: str | os.PathLike[str] = DEFAULT_MODEL, dtype: str = "float64"
) -> Potential:
    """Return a potential, ready to evaluate.

    Parameters
    ----------
    name_or_path
        The name of a model (``phonopy-equivariant models list``), or the path of a Nequix
        ``.nqx`` file, of a SevenNet ``.pth``, a nequip ``.ckpt`` or ``.nequip.zip``, a mace-torch
        ``.model`` file or of a checkpoint of ours (``.npz``). The default is part of the package;
        published models are downloaded on first use, and those of other projects converted.
    dtype
        Precision of the model, ``"float64"`` or ``"float32"``. Weights are cast to it.

    Returns
    -------
    Potential
        With its name and the SHA-256 of its file.

    Raises
    ------
    PhonopyEquivariantError
        No such file or name, a damaged file, no network, or another dtype.

    Examples
    --------
    >>> import phonopy_equivariant as pe
    >>> potential = pe.load_potential("nequix-mp-1-pft")  # doctest: +SKIP
    >>> potential.cutoff, potential.num_interactions  # doctest: +SKIP
    (6.0, 4)

    """
    checkpoint, digest = read_model(resolve(name_or_path))
    name = checkpoint.labels["name"]
    potential = make_potential(checkpoint.config, checkpoint.params, dtype, name=name)
    return dataclasses.replace(potential, sha256=digest, reference=checkpoint.reference)


def read_model(path: Path) -> tuple[Checkpoint, str]:
    """Return what a model's file of any format holds, and its SHA-256; errors as above."""
    try:
        return _read(path), file_sha256(path)
    except OSError as error:
        raise PhonopyEquivariantError(
            f"Cannot read {path}: {error.strerror}; check its permissions."
        ) from error


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a model: an existing path, or else a name in the registry.

    Raises
    ------
    PhonopyEquivariantError
        No such file or name, a file with another hash than the registry's, or no network.

    """
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if is_path(name_or_path):
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise PhonopyEquivariantError(
            f"The model file {os.fspath(name_or_path)} {reason}; give the path of a checkpoint, "
            "or a name (phonopy-equivariant models list)."
        )
    return fetch(os.fspath(name_or_path))


def is_path(name_or_path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is meant, there or not, and no name of the registry."""
    path = Path(name_or_path).expanduser()
    return (
        path.is_file()
        or not isinstance(name_or_path, str)
        or bool(path.suffix)
        or len(path.parts) != 1
        or "/" in name_or_path
    )


def fetch(name: str) -> Path:
    """Return the checked file of a model, downloaded into the user's cache if need be.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`resolve`.

    """
    card = model_card(name)
    if card.bundled:
        return bundled_file(card)
    if card.converted:
        from phonopy_equivariant.checkpoints.converted import fetch_converted

        return fetch_converted(card)
    return fetch_file(card)


def _read(path: Path) -> Checkpoint:
    """Read a file by its first bytes: its name may be anything."""
    with open(path, "rb") as file:
        start = file.read(2)
    if start == b"PK" or start[:1] == b"\x80":
        if start != b"PK" or any(name.endswith(".pkl") for name in member_names(path)):
            # its readers bring modules that checkpoints of this package do without
            from phonopy_equivariant.checkpoints.foreign import read_foreign

            return Checkpoint(*read_foreign(path), {"name": name_of(path)})
        checkpoint = read_checkpoint(path)
        return checkpoint._replace(labels={"name": path.stem} | checkpoint.labels)
    if start[:1] == b"{":
        return _read_nequix(path)
    raise PhonopyEquivariantError(
        f"{path} is no checkpoint: give an .npz that save_checkpoint wrote, a Nequix .nqx, a "
        "SevenNet .pth, a nequip .ckpt or .nequip.zip, a mace-torch .model, "
        "or a name (phonopy-equivariant models list)."
    )


def _read_nequix(path: Path) -> Checkpoint:
    try:
        config, params = read_nequix(path)
    except PhonopyEquivariantError as error:
        place = "" if str(path) in str(error) else f"{path}: "
        raise PhonopyEquivariantError(f"{place}{error}") from error
    # values of the wrong type in its first line, or an array of impossible size
    except (TypeError, ValueError, MemoryError) as error:
        raise PhonopyEquivariantError(
            f"{path}: the file is damaged or no Nequix checkpoint; fetch it again."
        ) from error
    return Checkpoint(config, params, {"name": path.stem})

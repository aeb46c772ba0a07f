"""Files of models: found on this computer or downloaded, always with the hash of their card."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import Any

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from phonopy_equivariant.catalogue.cards import (
    MODELS_VARIABLE,
    ModelCard,
    bundled_path,
    cache_path,
    files_of_others,
    find_file,
    model_card,
)
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.files import write_atomically


def fetch_file(card: ModelCard) -> Path:
    """Return the checked file that a model was published as, downloaded if need be.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`resolve`.

    """
    published = dataclasses.replace(card, format="")
    path = find_file(published)
    if path is None:
        theirs = (file for file in files_of_others(card) if file_sha256(file) == card.sha256)
        return next(theirs, None) or _download(published)
    if file_sha256(path) == card.sha256:
        return path
    if path == cache_path(published):  # cut short or altered: the cache is ours to mend
        return _download(published)
    raise PhonopyEquivariantError(
        f"{path} is not the published {card.name} (its sha256 differs): replace the file, "
        f"or unset {MODELS_VARIABLE} to have it downloaded."
    )


def bundled_file(card: ModelCard) -> Path:
    """Return the checked file of a bundled model; a damaged one raises."""
    path = bundled_path(card)
    if not path.is_file() or file_sha256(path) != card.sha256:
        raise PhonopyEquivariantError(
            f"{path} is missing or damaged, though it is part of phonopy_equivariant: install "
            "the package again."
        )
    return path


def remove(name: str) -> bool:
    """Delete a model from the user's cache; tell whether it was there.

    A file in the folder of ``PHONOPY_EQUIVARIANT_MODELS`` is the user's own and stays.

    Raises
    ------
    PhonopyEquivariantError
        No such name, or the model is part of the package.

    """
    card = model_card(name)
    if card.bundled:
        raise PhonopyEquivariantError(
            f"{name} is part of phonopy_equivariant and cannot be removed; it takes no space in "
            "your cache folder."
        )
    paths = [cache_path(card), cache_path(dataclasses.replace(card, format=""))]
    existed = any(path.is_file() for path in paths)
    for path in (*paths, _checksum_path(cache_path(card))):
        path.unlink(missing_ok=True)
    return existed


def write_checksum(path: Path) -> None:
    """Write the SHA-256 of a file beside it, as ``sha256sum`` does, for :func:`has_checksum`."""
    write_atomically(_checksum_path(path), f"{file_sha256(path)}  {path.name}\n".encode())


def has_checksum(path: Path) -> bool:
    """Tell whether a file has the SHA-256 that was written beside it."""
    try:
        return _checksum_path(path).read_text("ascii").split()[:1] == [file_sha256(path)]
    except (OSError, UnicodeDecodeError):
        return False


def _checksum_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(card: ModelCard) -> Path:
    """Download to a temporary name beside the target; pooch moves it there once the hash fits."""
    path = cache_path(card)
    pooch.get_logger().setLevel("WARNING")
    progress: Any = _ProgressBar(card.name) if sys.stderr.isatty() else False
    try:
        pooch.retrieve(
            card.url,
            f"sha256:{card.sha256}",
            fname=path.name,
            path=path.parent,
            downloader=pooch.HTTPDownloader(progressbar=progress, chunk_size=2**16),
        )
    except ValueError as error:
        raise PhonopyEquivariantError(
            f"What {card.url} serves is not {card.name} (its sha256 differs from the registry's): "
            f"try again, or put the right file at {path}."
        ) from error
    except OSError as error:
        raise PhonopyEquivariantError(
            f"Cannot download {card.name} from {card.url} ({_reason(error)}): put the file at "
            f"{path}, or into the folder that {MODELS_VARIABLE} names."
        ) from error
    return path


def _reason(error: OSError) -> str:
    """Return one short phrase: messages of requests show its inside and span lines."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "no connection"
    return error.strerror or type(error).__name__


class _ProgressBar:
    """What pooch wants of a progress bar, drawn by rich on standard error."""

    def __init__(self, title: str):
        columns = TextColumn(title), BarColumn(), DownloadColumn(), TimeRemainingColumn()
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(title, total=None)
        self.total = 0

    def update(self, count: int) -> None:
        """Show ``count`` more bytes."""
        self._progress.start()
        self._progress.update(self._task, total=self.total or None, advance=count)

    def reset(self) -> None:
        """Return to zero; pooch does so before it completes the bar."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """Erase the bar."""
        self._progress.stop()

"""Models by name: their cards, where their files lie, and the download of published ones.

A model may be part of the package (:mod:`..bundled`). Any other name is looked for in the folder
that ``PHONOPY_EQUIVARIANT_MODELS`` names, then in the user's cache, then at its URL. Every file
must have the hash that its card gives.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import importlib.resources
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pooch
import requests
import yaml
from ase.data import atomic_numbers, chemical_symbols
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from phonopy_equivariant.checkpoints import bundled
from phonopy_equivariant.errors import PhonopyEquivariantError

MODELS_VARIABLE = "PHONOPY_EQUIVARIANT_MODELS"
# The one to check with: no other Nequix model was trained on as much.
STRONG_MODEL = "nequix-oam-1-pft"


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What is known of a model; ``elements`` are symbols by atomic number."""

    name: str
    sha256: str
    licence: str
    citation: tuple[str, ...]
    theory: str
    training_data: tuple[str, ...]
    elements: tuple[str, ...]
    # errors measured against a reference, one sentence each
    accuracy: tuple[str, ...] = ()
    # what it was made for, and what it is no good for
    good_for: tuple[str, ...] = ()
    not_good_for: tuple[str, ...] = ()
    # "nequix"; "mace": a pickle, converted on first use; "bundled": a checkpoint in the package
    format: str = "nequix"
    # where it is published; none for a bundled one
    url: str = ""

    @property
    def bundled(self) -> bool:
        """Whether the model is part of this package."""
        return self.format == "bundled"

    @property
    def file_name(self) -> str:
        """Name of the file in a folder of models: the model's name with the URL's suffix.

        A model of mace-torch is kept converted.
        """
        ours = self.bundled or self.format == "mace"
        return self.name + (".npz" if ours else Path(self.url).suffix)


def list_models() -> tuple[ModelCard, ...]:
    """Return the cards of all models that load by name, bundled ones first."""
    return tuple(_cards().values())


def models_covering(symbols: Collection[str], but: Collection[str] = ()) -> tuple[str, ...]:
    """Return names of the models that know all elements, but for some names.

    Those on this computer come first, then the strong one, then the registry's order.
    """
    wanted = set(symbols)
    names = [c.name for c in list_models() if wanted <= set(c.elements) and c.name not in but]
    return tuple(sorted(names, key=lambda name: (local_path(name) is None, name != STRONG_MODEL)))


def model_card(name: str) -> ModelCard:
    """Return the card of a model.

    Raises
    ------
    PhonopyEquivariantError
        The registry has no such name; the message gives the nearest.

    """
    cards = _cards()
    if name not in cards:
        near = difflib.get_close_matches(name, cards, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(cards)}."
        raise PhonopyEquivariantError(f"No model is called {name!r}: {hint} Or give a file's path.")
    return cards[name]


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file of a model: an existing path, or else a name in the registry.

    Raises
    ------
    PhonopyEquivariantError
        No such file or name, a file with another hash than the registry's, or no network.

    """
    text = os.fspath(name_or_path)
    path = Path(text).expanduser()
    if path.is_file():
        return path
    if not isinstance(name_or_path, str) or path.suffix or len(path.parts) != 1 or "/" in text:
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise PhonopyEquivariantError(
            f"The model file {text} {reason}; give the path of a checkpoint, "
            "or a name (phonopy-equivariant models list)."
        )
    return fetch(text)


def fetch(name: str) -> Path:
    """Return the checked file of a model, downloaded into the user's cache if need be.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`resolve`.

    """
    card = model_card(name)
    if card.bundled:
        return _bundled_file(card)
    if card.format == "mace":
        from phonopy_equivariant.checkpoints.mace_file import fetch_converted

        return local_path(name) or fetch_converted(card)
    return fetch_file(card)


def fetch_file(card: ModelCard) -> Path:
    """Return the checked file that a model was published as, downloaded if need be.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`resolve`.

    """
    published = dataclasses.replace(card, format="")
    path = _find(published)
    if path is None:
        return _download(published)
    if file_sha256(path) == card.sha256:
        return path
    if path == cache_path(published):  # cut short or altered: the cache is ours to mend
        return _download(published)
    raise PhonopyEquivariantError(
        f"{path} is not the published {card.name} (its sha256 differs): replace the file, "
        f"or unset {MODELS_VARIABLE} to have it downloaded."
    )


def _bundled_file(card: ModelCard) -> Path:
    path = _bundled_path(card)
    if not path.is_file() or file_sha256(path) != card.sha256:
        raise PhonopyEquivariantError(
            f"{path} is missing or damaged, though it is part of phonopy_equivariant: install "
            "the package again."
        )
    return path


def local_path(name: str) -> Path | None:
    """Return where a model lies on this computer, unchecked, or None."""
    return _find(model_card(name))


def _find(card: ModelCard) -> Path | None:
    folder = os.environ.get(MODELS_VARIABLE)
    candidates = [Path(folder).expanduser() / card.file_name] if folder else []
    candidates.append(cache_path(card))
    if card.bundled:
        candidates = [_bundled_path(card)]
    return next((path for path in candidates if path.is_file()), None)


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
    for path in paths:
        path.unlink(missing_ok=True)
    return existed


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cards() -> dict[str, ModelCard]:
    return _read_cards(bundled.FOLDER)


@functools.cache
def _read_cards(folder: Path) -> dict[str, ModelCard]:
    entries: dict[str, dict[str, Any]] = {
        path.stem: {"format": "bundled"} | yaml.safe_load(path.read_text("utf-8"))
        for path in sorted(folder.glob("*.yaml"))
    }
    published = importlib.resources.files(__package__).joinpath("registry.yaml")
    entries |= yaml.safe_load(published.read_text("utf-8"))
    return {name: _card(name, entry) for name, entry in entries.items()}


def _card(name: str, entry: dict[str, Any]) -> ModelCard:
    lists = {key: tuple(value) for key, value in entry.items() if isinstance(value, list)}
    values: dict[str, Any] = entry | lists | {"elements": _expand(lists["elements"])}
    return ModelCard(name=name, **values)


def _expand(ranges: tuple[str, ...]) -> tuple[str, ...]:
    """Return all symbols of ranges such as H-Bi."""
    symbols: list[str] = []
    for some in ranges:
        first, _, last = some.partition("-")
        symbols += chemical_symbols[atomic_numbers[first] : atomic_numbers[last or first] + 1]
    return tuple(symbols)


def _bundled_path(card: ModelCard) -> Path:
    return bundled.FOLDER / card.file_name


def cache_path(card: ModelCard) -> Path:
    """Return where a model lies in the user's cache, or would."""
    return Path(pooch.os_cache("phonopy_equivariant")) / "models" / card.file_name


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

"""Models by name: their cards, and where their files lie on this computer.

A model may be part of the package (:mod:`.bundled`). Any other name is looked for in the folder
that ``PHONOPY_EQUIVARIANT_MODELS`` names, then in the user's cache.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import importlib.util
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pooch
import yaml
from ase.data import atomic_numbers, chemical_symbols

from phonopy_equivariant.catalogue import bundled
from phonopy_equivariant.errors import PhonopyEquivariantError, nearest

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
    # "nequix"; "bundled": a checkpoint in the package; others are converted on first use: "mace",
    # "nequip" and "sevennet"
    format: str = "nequix"
    # other names it has, those of the program that made it
    aliases: tuple[str, ...] = ()
    # whom to name, where the licence asks for it
    attribution: str = ""
    # where it is published; none for a bundled one
    url: str = ""
    # which of several heads or modalities in the file
    head: str = ""
    # the file's place in a Python package that brings it, "package/folder/file"
    package: str = ""

    @property
    def bundled(self) -> bool:
        """Whether the model is part of this package."""
        return self.format == "bundled"

    @property
    def converted(self) -> bool:
        """Whether the model is kept as a checkpoint of this package, converted on first use."""
        return self.format in ("mace", "nequip", "sevennet")

    @property
    def file_name(self) -> str:
        """Name of the file in a folder of models: the model's name with the URL's suffix.

        A model of another project may be kept converted.
        """
        ours = self.bundled or self.converted
        return self.name + (".npz" if ours else Path(self.url).suffix)


def list_models() -> tuple[ModelCard, ...]:
    """Return the cards of all models that load by name, bundled ones first."""
    return tuple(_cards().values())


def models_covering(symbols: Collection[str], but: Collection[str] = ()) -> tuple[str, ...]:
    """Return the names of the models that know all elements, except the names in ``but``.

    Models on this computer come first, then the strong model, then the registry's order.
    """
    elements = set(symbols)
    names = [c.name for c in list_models() if elements <= set(c.elements) and c.name not in but]
    return tuple(sorted(names, key=lambda name: (local_path(name) is None, name != STRONG_MODEL)))


def model_card(name: str) -> ModelCard:
    """Return the card of a model, by its name or another one that it has.

    Raises
    ------
    PhonopyEquivariantError
        The registry has no such name; the message gives the nearest.

    """
    cards = _cards()
    for card in cards.values():
        if name in card.aliases:
            return card
    if name not in cards:
        aliases = [alias for card in cards.values() for alias in card.aliases]
        near = nearest(name.lower(), [*cards, *aliases], cutoff=0.4)
        hint = f"did you mean {near}?" if near else f"known are {', '.join(cards)}."
        raise PhonopyEquivariantError(f"No model is called {name!r}: {hint} Or give a file's path.")
    return cards[name]


def local_path(name: str) -> Path | None:
    """Return where a model lies on this computer, unchecked, or None."""
    return find_file(model_card(name))


def find_file(card: ModelCard) -> Path | None:
    """Return where the file of a card lies on this computer, unchecked, or None."""
    folder = os.environ.get(MODELS_VARIABLE)
    names = [card.file_name]
    if card.url and not card.converted:
        names.append(Path(card.url).name)  # as it was published
    candidates = [Path(folder).expanduser() / name for name in names] if folder else []
    candidates.append(cache_path(card))
    if card.bundled:
        candidates = [bundled_path(card)]
    return next((path for path in candidates if path.is_file()), None)


def files_of_others(card: ModelCard) -> list[Path]:
    """Return where other programs keep the file of a card, unchecked.

    A Python package that brings it is looked for and not imported. mace-torch keeps its downloads
    in a cache folder.
    """
    places = []
    package, _, place = card.package.partition("/")
    specification = importlib.util.find_spec(package) if package else None
    if specification is not None:
        folders = specification.submodule_search_locations or ()
        places += [Path(folder) / place for folder in folders]
    if card.format == "mace":
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = "".join(c for c in Path(card.url).name if c.isalnum() or c == "_")
        places.append(cache / "mace" / name)
    return [path for path in places if path.is_file()]


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
    """Return the symbols of all elements in ranges such as H-Bi."""
    symbols: list[str] = []
    for span in ranges:
        first, _, last = span.partition("-")
        symbols += chemical_symbols[atomic_numbers[first] : atomic_numbers[last or first] + 1]
    return tuple(symbols)


def bundled_path(card: ModelCard) -> Path:
    """Return where a bundled model lies in this package."""
    return bundled.FOLDER / card.file_name


def cache_path(card: ModelCard) -> Path:
    """Return where a model lies in the user's cache, or would."""
    return Path(pooch.os_cache("phonopy_equivariant")) / "models" / card.file_name

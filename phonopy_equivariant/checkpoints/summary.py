"""Text on a potential: its card, the labels in its file, structures far from its training data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ase.data import chemical_symbols

from phonopy_equivariant.catalogue.cards import (
    ModelCard,
    list_models,
    local_path,
    model_card,
    models_covering,
)
from phonopy_equivariant.checkpoints.load import is_path, read_model, resolve

if TYPE_CHECKING:  # brings JAX, which a card does without
    from phonopy_equivariant.features import Familiarity
    from phonopy_equivariant.potential import Potential
    from phonopy_equivariant.structure import StructureLike

# What the file of a model says on itself, if it does.
_LABELS = ("head", "theory", "licence", "attribution")


def summary_lines(name_or_path: str | os.PathLike[str]) -> list[str]:
    """Return lines of text on a model of the registry or on the checkpoint in a file.

    Raises
    ------
    PhonopyEquivariantError
        No such name or file.

    """
    if is_path(name_or_path):
        return _file_lines(resolve(name_or_path))
    return _card_lines(model_card(os.fspath(name_or_path)))


def familiarity_remarks(
    potential: Potential, structure: StructureLike, familiarity: Familiarity | None = None
) -> list[str]:
    """Return a warning if a structure is far from the training structures, else an empty list.

    If ``familiarity`` is given, the features of the structure are not computed again.
    """
    from phonopy_equivariant.structure import as_structure  # brings phonopy

    if potential.reference is None:
        return []
    familiarity = potential.familiarity(structure) if familiarity is None else familiarity
    if not familiarity.is_far:
        return []
    symbols = {chemical_symbols[z] for z in as_structure(structure).numbers}
    bundled = [card.name for card in list_models() if card.bundled]
    alternatives = models_covering(symbols, but=(potential.name, *bundled))
    hint = f", e.g. model={alternatives[0]}" if alternatives else ""
    return [
        f"this structure is far from what {potential.name} was trained on (distance "
        f"{familiarity.distance:.1f}, {100 * familiarity.quantile:g} % of held-out structures lie "
        f"below {familiarity.threshold:.1f}): check with another model{hint}."
    ]


def _card_lines(card: ModelCard) -> list[str]:
    path = local_path(card.name)
    place = f"part of this package, {path}" if card.bundled else path
    return [
        f"name             {card.name}",
        f"level of theory  {card.theory}",
        f"training data    {', '.join(card.training_data)}",
        f"elements         {_wrap(card.elements)}",
        *([f"also called      {', '.join(card.aliases)}"] if card.aliases else []),
        f"licence          {card.licence}",
        *([f"attribution      {card.attribution}"] if card.attribution else []),
        f"citation         {', '.join(card.citation)}",
        *(f"accuracy         {sentence}" for sentence in card.accuracy or ("not measured here",)),
        *(f"good for         {sentence}" for sentence in card.good_for),
        *(f"not good for     {sentence}" for sentence in card.not_good_for),
        *([f"url              {card.url}"] if card.url else []),
        f"sha256           {card.sha256}",
        f"on this computer {place or 'no (fetched on first use)'}",
    ]


def _file_lines(path: Path) -> list[str]:
    checkpoint, digest = read_model(path)
    config, labels = checkpoint.config, checkpoint.labels
    said = {
        key: labels[key] for key in ("head", "theory", "licence", "attribution") if key in labels
    }
    return [
        f"name             {labels['name']}",
        f"elements         {_wrap([chemical_symbols[number] for number in config.species])}",
        f"cutoff           {config.cutoff:g} Å, {config.num_interactions} interactions",
        f"features         {config.hidden_irreps}",
        *(f"{key:<16} {value}" for key, value in said.items()),
        f"sha256           {digest}",
        f"file             {path}",
    ]


def _wrap(symbols: tuple[str, ...] | list[str], per_line: int = 20) -> str:
    lines = [" ".join(symbols[k : k + per_line]) for k in range(0, len(symbols), per_line)]
    return ("\n" + " " * 17).join(lines)

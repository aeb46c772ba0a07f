"""What there is to say of a potential: a published one's card, or a file's own labels."""

from __future__ import annotations

import os
from pathlib import Path

from ase.data import chemical_symbols

from phonopy_equivariant.checkpoints.registry import ModelCard, local_path, model_card, resolve


def summary_lines(name_or_path: str | os.PathLike[str]) -> list[str]:
    """Return lines of text on a published model or on the checkpoint in a file.

    Raises
    ------
    PhonopyEquivariantError
        No such name or file.

    """
    if Path(name_or_path).expanduser().is_file():
        return _file_lines(resolve(name_or_path))
    return _card_lines(model_card(os.fspath(name_or_path)))


def _card_lines(card: ModelCard) -> list[str]:
    path = local_path(card.name)
    return [
        f"name             {card.name}",
        f"level of theory  {card.theory}",
        f"training data    {', '.join(card.training_data)}",
        f"elements         {_wrap(card.elements)}",
        f"licence          {card.licence}",
        f"citation         {', '.join(card.citation)}",
        *(f"accuracy         {sentence}" for sentence in card.accuracy or ("not measured here",)),
        f"url              {card.url}",
        f"sha256           {card.sha256}",
        f"on this computer {path or 'no (fetched on first use)'}",
    ]


def _file_lines(path: Path) -> list[str]:
    from phonopy_equivariant.checkpoints.load import load_potential

    potential = load_potential(path)
    symbols = [chemical_symbols[number] for number in potential.species]
    return [
        f"name             {potential.name}",
        f"elements         {_wrap(symbols)}",
        f"cutoff           {potential.cutoff:g} Å, {potential.num_interactions} interactions",
        f"features         {potential.config.hidden_irreps}",
        f"sha256           {potential.sha256}",
        f"file             {path}",
    ]


def _wrap(symbols: tuple[str, ...] | list[str], per_line: int = 20) -> str:
    lines = [" ".join(symbols[k : k + per_line]) for k in range(0, len(symbols), per_line)]
    return ("\n" + " " * 17).join(lines)

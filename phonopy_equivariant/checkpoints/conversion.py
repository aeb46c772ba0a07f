"""What conversions of models of other projects have in common."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from phonopy_equivariant.catalogue.cards import ModelCard, list_models
from phonopy_equivariant.checkpoints.fetch import file_sha256
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import Potential


class Conversion(NamedTuple):
    """What was written, and how far it is from the original on a random structure.

    The deviations are None where the original was not run.
    """

    path: Path
    potential: Potential
    energy_deviation: float | None = None  # eV/atom
    force_deviation: float | None = None  # eV/Å


def published_as(digest: str) -> tuple[ModelCard, ...]:
    """Return the cards of the published file with this SHA-256, one for each of its heads."""
    return tuple(card for card in list_models() if card.sha256 == digest)


def name_of(source: Path) -> str:
    """Return what a model is called after its file, whose name may end in two suffixes."""
    return source.name.removesuffix(".nequip.zip") if source.suffix == ".zip" else source.stem


def sha256_of(source: Path) -> str:
    """Return the SHA-256 of a file; one that cannot be read raises."""
    try:
        return file_sha256(source)
    except OSError as error:
        raise PhonopyEquivariantError(f"Cannot read {source}: {error.strerror}.") from error

"""Convert a SevenNet checkpoint into one of this package."""

from __future__ import annotations

from pathlib import Path

from phonopy_equivariant.checkpoints.conversion import Conversion, published_as, sha256_of
from phonopy_equivariant.checkpoints.native import save_checkpoint
from phonopy_equivariant.checkpoints.sevennet.model import read_sevennet
from phonopy_equivariant.potential import make_potential


def convert_sevennet(source: Path, output: Path, head: str | None = None) -> Conversion:
    """Write a SevenNet checkpoint as one of this package; nothing of the file is executed.

    Parameters
    ----------
    source
        A ``.pth`` file as SevenNet's training writes it.
    output
        Ends in ``.npz``.
    head
        The modality to take. A model with several needs it.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`.model.read_sevennet`, or the output cannot be written.

    """
    digest = sha256_of(source)
    cards = published_as(digest)
    card = next((card for card in cards if card.head == (head or "")), None)
    config, params = read_sevennet(source, head)
    labels = {"name": card.name if card else source.stem, "source_sha256": digest}
    if card:
        labels |= {"licence": card.licence, "theory": card.theory}
    if head:
        labels["head"] = head
    potential = make_potential(config, params, name=labels["name"])
    return Conversion(save_checkpoint(potential, output, labels), potential)

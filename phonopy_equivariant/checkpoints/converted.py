"""Models of other projects as checkpoints of this package: converted, and kept."""

from __future__ import annotations

from pathlib import Path

from phonopy_equivariant.catalogue.cards import ModelCard, cache_path, find_file
from phonopy_equivariant.checkpoints.conversion import Conversion, name_of, published_as, sha256_of
from phonopy_equivariant.checkpoints.fetch import fetch_file, has_checksum, write_checksum
from phonopy_equivariant.checkpoints.foreign import project_of, read_foreign
from phonopy_equivariant.checkpoints.native import HEADER, save_checkpoint
from phonopy_equivariant.checkpoints.torch_file import member_names
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import make_potential


def convert(
    source: Path, output: Path, head: str | None = None, compare: bool = False
) -> Conversion:
    """Write a model of another project as a checkpoint of this package.

    Nothing of the file is executed, unless ``compare`` is given.

    Parameters
    ----------
    source
        A file that :func:`.foreign.read_foreign` knows.
    output
        Ends in ``.npz``.
    head
        Which of several heads or modalities to take.
    compare
        Whether to open a model of mace-torch with mace-torch too, which runs the code in it, and
        to write the checkpoint only if energies and forces agree.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`.foreign.read_foreign` and :func:`.mace_torch.comparison.require_agreement`; or
        the output cannot be written.

    """
    digest = sha256_of(source)
    if HEADER in member_names(source):
        raise PhonopyEquivariantError(
            f"{source} is a checkpoint of this package already: use it as it is."
        )
    cards = published_as(digest)
    card = next((card for card in cards if card.head == (head or "")), None)
    config, params = read_foreign(source, head)
    labels = {"name": card.name if card else name_of(source), "source_sha256": digest}
    if card:
        labels |= {"licence": card.licence, "theory": card.theory}
        if card.attribution:
            labels["attribution"] = card.attribution
    if head:
        labels["head"] = head
    potential = make_potential(config, params, name=labels["name"])
    deviations: tuple[float, ...] = ()
    if compare:
        if project_of(source) != "mace":
            raise PhonopyEquivariantError(
                f"{source}: compare=True is for models of mace-torch; this one is not compared."
            )
        # it brings torch, which nothing else needs
        from phonopy_equivariant.checkpoints.mace_torch.comparison import require_agreement

        deviations = require_agreement(source, potential, head)
    return Conversion(save_checkpoint(potential, output, labels), potential, *deviations)


def fetch_converted(card: ModelCard) -> Path:
    """Return the converted checkpoint of a published model, made on first use.

    No registry can hold its hash. The conversion writes it beside the file, and a file without it
    is made again.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`convert`, or a file in the user's own folder without its hash.

    """
    path = find_file(card)
    if path is not None and has_checksum(path):
        return path
    if path not in (None, cache_path(card)):
        raise PhonopyEquivariantError(
            f"{path} is not as it was converted, or {path}.sha256 is missing: copy both files from "
            "the cache folder where the model was converted, or give the file by its path."
        )
    path = cache_path(card)
    source = fetch_file(card)
    path.parent.mkdir(parents=True, exist_ok=True)  # the source may lie elsewhere
    convert(source, path, card.head or None)
    write_checksum(path)
    return path

"""Models of other projects as checkpoints of this package: converted, and kept."""

from __future__ import annotations

from pathlib import Path

from phonopy_equivariant.catalogue.cards import ModelCard, cache_path, find_file
from phonopy_equivariant.checkpoints.conversion import Conversion
from phonopy_equivariant.checkpoints.fetch import fetch_file, has_checksum, write_checksum
from phonopy_equivariant.checkpoints.nequip_framework.convert import convert_nequip
from phonopy_equivariant.checkpoints.nequip_framework.model import is_nequip
from phonopy_equivariant.checkpoints.sevennet.convert import convert_sevennet
from phonopy_equivariant.checkpoints.torch_file import names_in
from phonopy_equivariant.errors import PhonopyEquivariantError


def convert(
    source: Path, output: Path, head: str | None = None, trusted: bool = False
) -> Conversion:
    """Write a model of another project as a checkpoint of this package.

    Parameters
    ----------
    source
        A checkpoint of SevenNet or nequip, or a whole model saved by mace-torch, which is a pickle
        that runs code when it is opened.
    output
        Ends in ``.npz``.
    head
        Which of several heads or modalities to take.
    trusted
        Whether to open a model of mace-torch that the registry does not list.

    Raises
    ------
    PhonopyEquivariantError
        A file of another kind, or as :func:`.mace_torch.convert.convert_mace` and
        :func:`.sevennet.convert.convert_sevennet`.

    """
    if is_mace(source):
        # it brings torch, which no other kind of file needs
        from phonopy_equivariant.checkpoints.mace_torch.convert import convert_mace

        return convert_mace(source, output, head, trusted)
    if is_nequip(source):
        return convert_nequip(source, output)
    return convert_sevennet(source, output, head)


def is_mace(source: Path) -> bool:
    """Tell whether a file is a whole model of torch, as mace-torch saves it: not of plain data."""
    try:
        return any(name.startswith("mace.") for name in names_in(source))
    except PhonopyEquivariantError:
        return source.suffix == ".model"


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

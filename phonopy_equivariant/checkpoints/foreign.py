"""Files of other projects that torch wrote: whose a file is, and how it is read.

Nothing of a file is executed, and torch is not needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from phonopy_equivariant.checkpoints.nequip_framework.model import is_nequip, read_nequip
from phonopy_equivariant.checkpoints.nequip_framework.package import is_package
from phonopy_equivariant.checkpoints.sevennet.model import read_sevennet
from phonopy_equivariant.checkpoints.torch_file import names_in
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.models.layered import Params
from phonopy_equivariant.models.mace_config import MACEConfig

ForeignModel: TypeAlias = tuple[NequIPConfig | MACEConfig, Params]


def project_of(path: Path) -> str:
    """Return whose model a file of torch is: ``"mace"``, ``"nequip"`` or ``"sevennet"``.

    Raises
    ------
    PhonopyEquivariantError
        Not a file of torch, or a model compiled by TorchScript.

    """
    if is_package(path):
        return "nequip"
    names = names_in(path)
    if any(name.startswith("mace.modules.") for name in names):
        return "mace"
    if any(name.startswith("__torch__.") for name in names):
        raise PhonopyEquivariantError(
            f"{path} is compiled by TorchScript, as for LAMMPS: give the file that training or a "
            "download wrote."
        )
    return "nequip" if is_nequip(path) else "sevennet"


def read_foreign(path: Path, head: str | None = None) -> ForeignModel:
    """Return configuration and parameters of a model of another project, in double precision.

    Parameters
    ----------
    path
        A ``.model`` file of mace-torch, a ``.ckpt`` or ``.nequip.zip`` file of nequip, or a
        ``.pth`` file of SevenNet.
    head
        Which of several heads or modalities to read; needed if there is more than one.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`project_of`, :func:`.mace_torch.model.read_mace`,
        :func:`.nequip_framework.model.read_nequip` and :func:`.sevennet.model.read_sevennet`; or
        a head for a model that has no heads.

    """
    project = project_of(path)
    if project == "mace":
        # it brings e3nn-jax, which the others do without
        from phonopy_equivariant.checkpoints.mace_torch.model import read_mace

        return read_mace(path, head)
    if project == "sevennet":
        return read_sevennet(path, head)
    if head is not None:
        raise PhonopyEquivariantError(f"{path}: models of nequip have no heads, so no {head!r}.")
    return read_nequip(path)

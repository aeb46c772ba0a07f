"""phono3py's object from a crystal, and the files that phono3py goes on from."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError, pip_install, reason_of
from phonopy_equivariant.files import replacing
from phonopy_equivariant.io.crystals import Crystal, looks_like_yaml
from phonopy_equivariant.io.memory import available_memory
from phonopy_equivariant.io.outputs import PROVENANCE
from phonopy_equivariant.io.supercells import count_atoms
from phonopy_equivariant.phonons.permutations import composed_permutations
from phonopy_equivariant.phonons.report import SymmetryReport

# Files that phono3py reads by these names.
FILES = ("phono3py_params.yaml", "fc3.hdf5", "fc2.hdf5")


def require_phono3py() -> Any:
    """Return the class Phono3py.

    Raises
    ------
    PhonopyEquivariantError
        phono3py is not installed.

    """
    try:
        from phono3py import Phono3py  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise PhonopyEquivariantError(
            f"phono3py is not installed; {pip_install('kappa')}."
        ) from error
    return Phono3py


def phonon_matrix(crystal: Crystal) -> Int[ndarray, "3 3"] | None:
    """Return the supercell matrix of second-order force constants in phono3py's YAML file."""
    if not looks_like_yaml(crystal.path):
        return None
    require_phono3py()
    from phono3py.interface.phono3py_yaml import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        Phono3pyYaml,
    )

    content = Phono3pyYaml()
    try:
        content.read(crystal.path)
    except Exception as error:  # whatever a damaged file makes the parser raise
        raise PhonopyEquivariantError(
            f"{crystal.path} cannot be read by phono3py ({reason_of(error)}); write it again."
        ) from error
    matrix = content.phonon_supercell_matrix
    return None if matrix is None else np.asarray(matrix)


def build_phono3py(
    crystal: Crystal,
    matrix: Int[ndarray, "3 3"],
    second_matrix: Int[ndarray, "3 3"] | None = None,
    symprec: float = 1e-5,
) -> Any:
    """Return phono3py's object in eV and Å, without force constants.

    ``second_matrix`` is the supercell of second-order force constants; default: the same.

    Raises
    ------
    PhonopyEquivariantError
        phono3py is not installed; force constants that do not fit into memory; a cell or
        supercell that phono3py refuses.

    """
    kind = require_phono3py()
    check_third_order_memory(crystal, matrix)
    stored = crystal.primitive_matrix
    try:
        with composed_permutations(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # phono3py says it where it goes on
            made = kind(
                crystal.unitcell,
                supercell_matrix=matrix,
                phonon_supercell_matrix=second_matrix,
                primitive_matrix="auto" if stored is None else stored,
                symprec=symprec,
            )
    except MemoryError:
        raise
    except Exception as error:
        raise PhonopyEquivariantError(
            f"{crystal.path}: phono3py refuses this cell or supercell ({reason_of(error)}); check "
            "the structure, and what was said of supercell and primitive cell."
        ) from error
    if crystal.nac_params is not None:
        made.nac_params = dict(crystal.nac_params)
    return made


def mesh_options(symmetry: SymmetryReport) -> list[str]:
    """Return phono3py's options without which its meshes would obey what the crystal does not."""
    return [] if symmetry.reduces_meshes else ["--nosym", "--nomeshsym"]


def without_mesh_symmetry(phono3py: Any) -> Any:
    """Return a copy of phono3py's object, force constants included, that reduces no mesh."""
    with composed_permutations():
        made = require_phono3py()(
            phono3py.unitcell,
            supercell_matrix=phono3py.supercell_matrix,
            phonon_supercell_matrix=phono3py.phonon_supercell_matrix,
            primitive_matrix=phono3py.primitive_matrix,
            symprec=phono3py.symmetry.tolerance,
            is_symmetry=False,
            is_mesh_symmetry=False,
        )
    made.nac_params, made.fc3, made.fc2 = phono3py.nac_params, phono3py.fc3, phono3py.fc2
    return made


def check_third_order_memory(crystal: Crystal, matrix: Int[ndarray, "3 3"]) -> None:
    """Raise if third-order force constants of a supercell would not fit into memory.

    The estimate is a lower bound: n·N² blocks of 27 numbers for n atoms in the primitive cell,
    three times, and as many complex numbers at the triplets of q, twice.

    Raises
    ------
    PhonopyEquivariantError
        As said; the message gives the memory it needs and the memory free.

    """
    atoms = count_atoms(crystal.unitcell, matrix)
    primitive = 1.0 if crystal.primitive_matrix is None else np.linalg.det(crystal.primitive_matrix)
    fewest = max(1.0, len(crystal.unitcell) * min(1.0, float(primitive)) / 4)
    required = fewest * atoms**2 * 27 * (3 * 8 + 2 * 16)
    available = available_memory()
    if available is not None and required > available:
        raise PhonopyEquivariantError(
            f"Third-order force constants of {atoms} atoms need at least {required / 2**30:.1f} "
            f"GiB of memory, and {available / 2**30:.1f} GiB are free; choose a smaller supercell=."
        )


def keep_others(folder: str | os.PathLike[str] = ".") -> None:
    """Raise if force constants are there that this package did not write.

    Those from a first-principles code are too dear to be replaced without a word. Ours have a
    ``phono3py_params.yaml`` beside them that says so.

    Raises
    ------
    PhonopyEquivariantError
        As said.

    """
    params, *results = (Path(folder) / name for name in FILES)
    existing = [path for path in results if path.exists()]
    if not existing:
        return
    if params.is_file() and PROVENANCE in params.read_text("utf-8", errors="replace"):
        return
    raise PhonopyEquivariantError(
        f"{existing[0]} exists and may be of another program; rename it, or work in another folder."
    )


def write_third_order(
    phono3py: Any, folder: str | os.PathLike[str] = ".", configuration: Any = None
) -> None:
    """Write ``phono3py_params.yaml``, ``fc3.hdf5`` and ``fc2.hdf5``.

    Each file is written whole or not at all. Plain ``phono3py`` continues from them. The YAML file
    has cells and Born charges; ``configuration`` (say, which potential) stands in it for the
    record.
    """
    from phono3py.file_IO import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        write_fc2_to_hdf5,
        write_fc3_to_hdf5,
    )

    params, third, second = (Path(folder) / name for name in FILES)
    with replacing(third) as temporary:
        write_fc3_to_hdf5(phono3py.fc3, filename=str(temporary), p2s_map=phono3py.primitive.p2s_map)
    with replacing(second) as temporary:
        write_fc2_to_hdf5(
            phono3py.fc2,
            filename=str(temporary),
            p2s_map=phono3py.phonon_primitive.p2s_map,
            physical_unit="eV/angstrom^2",
        )
    settings = {"force_sets": False, "displacements": False}
    yaml = phono3py.to_phono3py_yaml(configuration=configuration, settings=settings)
    with replacing(params) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(str(yaml))

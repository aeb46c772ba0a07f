"""phonopy's files: forces of displaced supercells, and force constants as Φ(q).

Force constants of a supercell are the Hessian of that periodic supercell; on the primitive cell
they are Φ(q) at the q commensurate with it, no more and no less:

    Φ_ij(q) = sum_J Φ(i, J) e^{2πi q·(S_J - S_i)},    J over the supercell's images of atom j,

the inverse of :func:`phonopy_equivariant.response.symmetry.star.compact_force_constants`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from phonopy import Phonopy
from phonopy.file_IO import (
    get_io_module_to_decompress,
    parse_FORCE_CONSTANTS,
    parse_FORCE_SETS,
    read_force_constants_hdf5,
)
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from phonopy.interface.phonopy_yaml import PhonopyYaml
from phonopy.structure.dataset import get_displacements_and_forces

from phonopy_equivariant.data.record import ForceConstantsData, Record
from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.io.build import build_phonon
from phonopy_equivariant.io.crystals import Crystal, looks_like_yaml, read_crystal
from phonopy_equivariant.phonons.cells import supercell_images, supercell_of_primitive
from phonopy_equivariant.structure import as_structure

# Where the cells of FORCE_SETS or FORCE_CONSTANTS are looked for, beside them.
CELL_FILES = tuple(
    f"{name}.yaml{suffix}"
    for name in ("phonopy_params", "phonopy_disp", "phonopy")
    for suffix in ("", ".xz", ".gz")
)
KINDS = ("all", "forces", "force_constants")


def read(
    path: Path,
    cell: str | Path | None = None,
    kind: str = "all",
    produce_force_constants: bool = False,
    level: str = "",
) -> Iterator[Record]:
    """Yield the records of one of phonopy's files, in eV and Å whatever the calculator.

    Parameters
    ----------
    path
        ``phonopy_params.yaml`` or another of phonopy's YAML files, compressed or not;
        ``FORCE_SETS``; ``FORCE_CONSTANTS``; ``force_constants.hdf5``.
    cell
        phonopy's YAML file with the cells that FORCE_SETS or force constants belong to; by
        default the first of CELL_FILES in the same folder.
    kind
        ``"forces"``: one record per displaced supercell; ``"force_constants"``: one record, the
        primitive cell with Φ(q) at all commensurate q; ``"all"``: both.
    produce_force_constants
        If the file has forces but no force constants, let phonopy derive (symmetrised) force
        constants from the forces.
    level
        Level of theory.

    Raises
    ------
    PhonopyEquivariantError
        The file cannot be read, has no cells, or has none of the data that ``kind`` names.

    """
    if kind not in KINDS:
        raise PhonopyEquivariantError(f"kind={kind!r}: choose one of {', '.join(KINDS)}.")
    crystal = read_crystal(path if looks_like_yaml(path) else _cell_file(path, cell))
    if crystal.supercell_matrix is None:
        raise PhonopyEquivariantError(f"{crystal.path}: has no supercell_matrix.")
    phonon = build_phonon(crystal, crystal.supercell_matrix)
    dataset = _dataset(path, crystal, len(phonon.supercell))
    constants = _force_constants(path, crystal, phonon)
    if constants is None and produce_force_constants and dataset is not None:
        with _phonopy_errors(path, crystal):
            constants = _produced(phonon, dataset)
    _require_kind(path, kind, dataset is not None, constants is not None)
    count = 0
    if dataset is not None and kind != "force_constants":
        for record in _supercells(phonon, dataset, level, str(path)):
            yield record
            count += 1
    if constants is not None and kind != "forces":
        yield Record(
            as_structure(phonon.primitive),
            force_constants=commensurate_force_constants(phonon, constants),
            level=level,
            source=f"{path}:{count}",
        )


def _require_kind(path: Path, kind: str, has_forces: bool, has_constants: bool) -> None:
    present = {
        "forces": has_forces,
        "force_constants": has_constants,
        "all": has_forces or has_constants,
    }
    if not present[kind]:
        raise PhonopyEquivariantError(
            f"{path}: has no {kind.replace('all', 'forces or force_constants')}; run the "
            "calculations first, or choose another kind."
        )


@contextlib.contextmanager
def _phonopy_errors(path: Path, crystal: Crystal) -> Iterator[None]:
    """Turn what damaged files make phonopy raise into an error of one line."""
    try:
        yield
    except Exception as error:  # whatever it is
        raise PhonopyEquivariantError(
            f"{path}: cannot be read with the cells of {crystal.path} ({reason_of(error)}); "
            "check that the two belong together."
        ) from error


def commensurate_force_constants(
    phonon: Phonopy, values: Float[ndarray, "rows super 3 3"]
) -> ForceConstantsData:
    """Return Φ(q) of the primitive cell from force constants (eV/Å²), compact or full."""
    rows = np.array(phonon.primitive.p2s_map)
    compact = values[rows] if len(values) == len(phonon.supercell) else values
    owner, cells = supercell_images(phonon)
    qpoints = get_commensurate_points(supercell_of_primitive(phonon))
    phase = np.exp(2j * np.pi * qpoints @ cells.T)  # (q, super)
    atoms = len(rows)
    result = np.empty((len(qpoints), atoms, 3, atoms, 3), complex)
    for j in range(atoms):
        images = np.flatnonzero(owner == j)
        flat = compact[:, images].transpose(1, 0, 2, 3).reshape(len(images), -1)
        sums = (phase[:, images] @ flat).reshape(len(qpoints), atoms, 3, 3)
        result[:, :, :, j] = sums * phase[:, rows].conj()[:, :, None, None]
    columns = 3 * atoms
    return ForceConstantsData(qpoints, result.reshape(len(qpoints), columns, columns))


def _cell_file(path: Path, cell: str | Path | None) -> Path:
    if cell is not None:
        return Path(cell)
    for name in CELL_FILES:
        if (path.parent / name).is_file():
            return path.parent / name
    raise PhonopyEquivariantError(
        f"{path}: the cells are missing; put phonopy_disp.yaml or phonopy.yaml beside it, "
        "or name it with cell=."
    )


def _dataset(path: Path, crystal: Crystal, atoms: int) -> dict[str, ndarray] | None:
    """Return displacements, forces and, if the file has them, energies in eV and Å."""
    with _phonopy_errors(path, crystal):
        if path.name.startswith("FORCE_SETS"):
            phonopy_dataset: Any = parse_FORCE_SETS(path, natom=_natom(path, atoms))
        else:
            phonopy_dataset = crystal.dataset if looks_like_yaml(path) else None
        if not phonopy_dataset:
            return None
        displacements, forces = get_displacements_and_forces(phonopy_dataset)
        if forces is None:
            return None
        energies = _energies(phonopy_dataset)
    if np.shape(forces)[1:] != (atoms, 3):
        raise PhonopyEquivariantError(
            f"{path}: forces of {np.shape(forces)[1]} atoms, but the supercell of {crystal.path} "
            f"has {atoms}; give the cells that belong to the forces."
        )
    dataset = {
        "displacements": np.asarray(displacements) * crystal.length_unit,
        "forces": np.asarray(forces) * crystal.force_unit,
    }
    if energies is not None:
        dataset["energies"] = energies * crystal.energy_unit
    return dataset


def _natom(path: Path, atoms: int) -> int | None:
    """Return what phonopy's parser needs: the number of atoms for its type 2 only."""
    with open(path, encoding="utf-8") as file:
        words = next((line.split() for line in file if line.strip()), [])
    return None if len(words) == 1 else atoms


def _energies(phonopy_dataset: Mapping[str, Any]) -> ndarray | None:
    if "supercell_energies" in phonopy_dataset:
        return np.asarray(phonopy_dataset["supercell_energies"], float)
    displaced = phonopy_dataset.get("first_atoms", ())
    if displaced and all("supercell_energy" in atom for atom in displaced):
        return np.array([atom["supercell_energy"] for atom in displaced], float)
    return None


def _force_constants(path: Path, crystal: Crystal, phonon: Phonopy) -> ndarray | None:
    """Return the force constants of the file, if it has any, in eV/Å²."""
    rows = phonon.primitive.p2s_map
    with _phonopy_errors(path, crystal):
        if path.name.startswith("FORCE_CONSTANTS"):
            values: Any = parse_FORCE_CONSTANTS(path, p2s_map=rows)
        elif path.suffix in (".hdf5", ".h5"):
            values = read_force_constants_hdf5(path, p2s_map=rows)
        elif looks_like_yaml(path) and _mentions_force_constants(path):
            content = PhonopyYaml()
            content.read(path)
            values = content.force_constants
        else:
            values = None
    if values is None:
        return None
    shape, atoms = np.shape(values), len(phonon.supercell)
    if shape not in ((len(rows), atoms, 3, 3), (atoms, atoms, 3, 3)):
        raise PhonopyEquivariantError(
            f"{path}: force constants of shape {shape}, but {crystal.path} has {len(rows)} atoms "
            f"in the primitive cell and {atoms} in the supercell; give the cells that belong "
            "to them."
        )
    return np.asarray(values, float) * crystal.force_constants_unit


def _mentions_force_constants(path: Path) -> bool:
    opener = get_io_module_to_decompress(path)
    with opener.open(path, "rt", encoding="utf-8", errors="replace") as file:
        return any(line.startswith("force_constants:") for line in file)


def _produced(phonon: Phonopy, dataset: dict[str, ndarray]) -> ndarray:
    random = (np.abs(dataset["displacements"]).max(axis=2) > 0).sum(axis=1).max() > 1
    if random:
        phonon.dataset = {
            "displacements": dataset["displacements"],
            "forces": dataset["forces"],
        }
    else:
        displaced = [int(np.abs(u).max(axis=1).argmax()) for u in dataset["displacements"]]
        phonon.dataset = {
            "natom": len(phonon.supercell),
            "first_atoms": [
                {"number": n, "displacement": u[n], "forces": f}
                for n, u, f in zip(
                    displaced, dataset["displacements"], dataset["forces"], strict=True
                )
            ],
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        phonon.produce_force_constants(fc_calculator="symfc" if random else "traditional")
        if not random:
            phonon.symmetrize_force_constants(use_symfc_projector=True)
    return np.asarray(phonon.force_constants)


def _supercells(
    phonon: Phonopy, dataset: dict[str, ndarray], level: str, path: str
) -> Iterator[Record]:
    undisplaced = as_structure(phonon.supercell)
    energies = dataset.get("energies")
    for index, (moves, forces) in enumerate(
        zip(dataset["displacements"], dataset["forces"], strict=True)
    ):
        yield Record(
            undisplaced._replace(positions=undisplaced.positions + moves),
            energy=None if energies is None else float(energies[index]),
            forces=np.array(forces, float),
            level=level,
            source=f"{path}:{index}",
        )

"""All structures of files and folders, for calculations of many crystals."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeAlias

from ase import Atoms

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.io.cif import read_cif
from phonopy_equivariant.io.cif_items import read_blocks
from phonopy_equivariant.io.crystals import Crystal, as_crystal, looks_like_yaml, read_crystal
from phonopy_equivariant.io.inputs import input_format
from phonopy_equivariant.io.poscar import looks_like_poscar
from phonopy_equivariant.io.pymatgen import (
    looks_like_pymatgen,
    pymatgen_atoms,
    pymatgen_records,
)
from phonopy_equivariant.io.structures import (
    ase_format,
    ase_lacks_words,
    beginning,
    frames_of_ase,
    is_cif,
    read_structure,
    whole_text,
)
from phonopy_equivariant.io.xyz import count_frames

Reader: TypeAlias = Callable[[], Atoms | Crystal]
# Keys of ase.Atoms.info that may name a structure.
_LABELS = ("name", "label", "material_id")


class NamedCrystal(NamedTuple):
    """A structure of a list: its name, and the crystal or the reason why there is none.

    The name is the path, with ``#`` and the number of the structure where a file has several.
    """

    name: str
    crystal: Crystal | None
    label: str = ""  # the file's own name of the structure
    reason: str = ""


def read_crystals(paths: Iterable[str | os.PathLike[str]]) -> Iterator[NamedCrystal]:
    """Yield every structure of files and folders; folders are searched to the bottom.

    Files that :func:`.read_crystal` reads, all structures of each; databases of ASE; JSON of
    pymatgen's structures, one a line too. Names that begin with a dot are passed over. A structure
    or file that cannot be read is yielded with the reason.

    Raises
    ------
    PhonopyEquivariantError
        A path does not exist, or is a folder without files.

    """
    for path in _files(paths):
        try:
            readers = crystal_readers(path)
        except Exception as error:  # no file of a list stops the others
            yield NamedCrystal(str(path), None, reason=_reason(path, error))
            continue
        for index, reader in enumerate(readers):
            name = str(path) if len(readers) == 1 else f"{path}#{index}"
            try:
                structure = reader()
                crystal = dataclasses.replace(as_crystal(structure), path=path)
            except Exception as error:
                yield NamedCrystal(name, None, reason=_reason(path, error))
                continue
            yield NamedCrystal(name, crystal, _label(structure))


def crystal_readers(path: Path) -> list[Reader]:
    """Return a function for each structure of a file; what it raises concerns this one alone.

    Raises
    ------
    PhonopyEquivariantError
        The file cannot be read.

    """
    if looks_like_yaml(path):
        return [functools.partial(read_crystal, path)]
    name, text = beginning(path)
    if looks_like_pymatgen(text):
        records = pymatgen_records(whole_text(path))
        return [functools.partial(pymatgen_atoms, record) for record in records]
    if is_cif(name, text):
        whole = whole_text(path)
        blocks = range(len(read_blocks(whole)))
        return [functools.partial(read_cif, whole, k, _unheard) for k in blocks]
    if looks_like_poscar(text.splitlines()) or input_format(text) is not None:
        return [functools.partial(read_crystal, path)]
    file_format, single = ase_format(path)
    if single:
        return [functools.partial(read_crystal, path)]
    if ase_lacks_words(file_format, text):
        frames = range(count_frames(whole_text(path)))
        return [functools.partial(read_structure, path, k, _unheard) for k in frames]
    atoms = frames_of_ase(path, file_format, slice(None))
    assert isinstance(atoms, list)
    if not atoms:
        raise PhonopyEquivariantError("has no structures.")
    return [functools.partial(lambda frame: frame, frame) for frame in atoms]


def _files(paths: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Yield the files of paths once each, those of a folder in the order of their names."""
    listed: set[Path] = set()
    for given in paths:
        path = Path(given).expanduser()
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if _is_visible(file, path)]
            if not inside:
                raise PhonopyEquivariantError(f"{path}: the folder has no files; give another.")
        elif path.is_file():
            inside = [path]
        else:
            raise PhonopyEquivariantError(f"{path}: no such file or folder.")
        yield from (file for file in inside if file not in listed)
        listed.update(inside)


def _is_visible(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and not hidden


def _label(structure: Atoms | Crystal) -> str:
    info = structure.info if isinstance(structure, Atoms) else {}
    return next((str(info[key]) for key in _LABELS if key in info), "")


def _reason(path: Path, error: Exception) -> str:
    """Return one line; the path stands in the name already."""
    return reason_of(error, 500).removeprefix(f"{path}: ")


def _unheard(_line: str) -> None:
    """Drop a remark: there would be one for every structure."""

"""One structure from a file of any format, told by its content where that can be."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Callable
from pathlib import Path

from ase import Atoms
from phonopy.file_IO import get_io_module_to_decompress

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.io.cif import read_cif
from phonopy_equivariant.io.foreign import quietly
from phonopy_equivariant.io.frames import take_frame
from phonopy_equivariant.io.inputs import input_format, read_input
from phonopy_equivariant.io.poscar import looks_like_poscar, read_poscar
from phonopy_equivariant.io.xyz import LOWER_CASE, read_xyz_with_isotopes

COMPRESSED = (".xz", ".lzma", ".gz", ".bz2")
# The beginning of a file, bytes, that tells its format.
_HEAD = 2**20
# A line of an atom, not the second line of extended XYZ, with the symbol D or T.
_ISOTOPE = r"(?m:^[^=\n]*(?<!\S)[DT](?!\S)[^=\n]*$)"
# Formats that list the atoms of the asymmetric unit only, and the line that tells so.
_WITH_GROUP = {
    "proteindatabank": r"^CRYST1.{49}(?! *(P 1)? *\d* *$).+$",
    "res": r"^(SYMM|LATT +(?!-1\b))",
}


def read_structure(path: Path, index: int | None, report: Callable[[str], None]) -> Atoms:
    """Return one structure of a file, with its constraints.

    Atoms have masses if the file gives one to any of them. Structures without cell are not
    refused here.

    Parameters
    ----------
    path
        An existing file, compressed or not.
    index
        Which of several structures, from 0, or from the end if negative; None is the last one.
    report
        Called with each line that the user should see.

    Raises
    ------
    PhonopyEquivariantError
        The file cannot be read, or not without guessing.

    """
    name, text = beginning(path)
    if is_cif(name, text):
        return read_cif(whole_text(path), index, report)
    if looks_like_poscar(text.splitlines()):
        _require_single(index)
        return read_poscar(whole_text(path).splitlines(), path.parent, report)
    if re.search(r"POSCAR|CONTCAR|\.VASP$", name.upper()):
        raise _unreadable("lines 2 to 7 are no scale, lattice vectors and numbers of atoms")
    kind = None if name.endswith(".restart") else input_format(text)
    if kind is not None:
        _require_single(index)
        return read_input(whole_text(path), kind, name, report)
    return _read_ase(path, text, index, report)


def beginning(path: Path) -> tuple[str, str]:
    """Return a file's name without the ending of compression, and its beginning if it is text.

    Raises
    ------
    PhonopyEquivariantError
        The file cannot be read.

    """
    try:
        with get_io_module_to_decompress(path).open(path, "rb") as file:
            head = file.read(_HEAD)
    except PermissionError as error:
        raise PhonopyEquivariantError("cannot be read; check its permissions.") from error
    except Exception as error:  # a damaged archive
        raise PhonopyEquivariantError(f"cannot be read ({reason_of(error)}).") from error
    name = path.name.removesuffix(path.suffix) if path.suffix in COMPRESSED else path.name
    return name, "" if b"\0" in head else _decoded(head)


def is_cif(name: str, text: str) -> bool:
    """Tell whether a file is a CIF, by its name or its text."""
    by_name = name.lower().endswith((".cif", ".mcif"))
    return by_name or bool(re.search(r"(?im)^\s*_cell[._]length_a\s", text))


def _read_ase(path: Path, text: str, index: int | None, report: Callable[[str], None]) -> Atoms:
    """Read a file with ASE by its full name: ``name@3`` is no frame of a file ``name``."""
    file_format, single = ase_format(path)
    if re.search(_WITH_GROUP.get(file_format, "(?!)"), text, re.MULTILINE):
        raise PhonopyEquivariantError(
            "gives a space group, which ASE passes over in this format; convert the file to CIF."
        )
    if ase_lacks_words(file_format, text):
        atoms: Atoms | list[Atoms] = read_xyz_with_isotopes(
            whole_text(path), file_format, index, report
        )
    elif single:
        _require_single(index)
        atoms = frames_of_ase(path, file_format, None)
    elif index is None:
        if len(frames_of_ase(path, file_format, slice(0, 2))) > 1:
            report("The file has several structures; the last is taken, the first with index=0.")
        atoms = frames_of_ase(path, file_format, -1)
    else:
        atoms = frames_of_ase(path, file_format, index)
    if not isinstance(atoms, Atoms) or not len(atoms):
        raise _unreadable("ASE finds no atoms")
    return atoms


def ase_format(path: Path) -> tuple[str, bool]:
    """Return ASE's name of a file's format, and whether it holds one structure only.

    Raises
    ------
    PhonopyEquivariantError
        ASE knows no such format.

    """
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats  # half a second of imports

    try:
        with quietly():
            file_format = filetype(str(path))
        return file_format, bool(ioformats[file_format].single)
    except (UnknownFileTypeError, KeyError, OSError) as error:
        raise _unreadable(f"ASE knows no such format: {reason_of(error)}") from error


def ase_lacks_words(file_format: str, text: str) -> bool:
    """Tell whether an XYZ file has words that ASE does not know: D, T, lower case of NEP."""
    is_xyz = file_format in ("extxyz", "xyz")
    return is_xyz and bool(re.search(f"{_ISOTOPE}|{LOWER_CASE}", text))


def frames_of_ase(path: Path, file_format: str, index: int | slice | None) -> Atoms | list[Atoms]:
    """Return what ASE reads: all frames, a slice of them or one.

    Raises
    ------
    PhonopyEquivariantError
        There is no such frame, or ASE cannot read it.

    """
    import ase.io

    with get_io_module_to_decompress(path).open(path, "rb") as file:
        marked = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
    try:
        with quietly():
            try:
                source = io.StringIO(whole_text(path)) if marked else str(path)
                return ase.io.read(source, index, file_format, do_not_split_by_at_sign=True)
            except UnicodeDecodeError:  # ASE reads UTF-8 only, without byte order mark
                return ase.io.read(io.StringIO(whole_text(path)), index, file_format)
    except (IndexError, StopIteration) as error:
        if index in (None, -1):
            raise _unreadable("ASE finds no atoms") from error
        raise PhonopyEquivariantError(f"has no structure index={index}; the first is 0.") from error
    except Exception as error:  # ASE's readers raise anything on garbage
        if str(error) in ("'D'", "'T'"):
            raise PhonopyEquivariantError(
                f"has atoms {error}, which ASE does not know in this format; write H and give the "
                "masses with masses=."
            ) from error
        raise _unreadable(reason_of(error)) from error


def _require_single(index: int | None) -> None:
    take_frame([None], index, lambda _line: None)


def whole_text(path: Path) -> str:
    """Return the text of a file, decompressed."""
    with get_io_module_to_decompress(path).open(path, "rb") as file:
        return _decoded(file.read())


def _decoded(content: bytes) -> str:
    """Return text in UTF-8, with or without byte order mark, or else in Latin-1."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _unreadable(reason: str) -> PhonopyEquivariantError:
    return PhonopyEquivariantError(
        f"cannot be read as a structure ({reason}); give a file that ASE reads (POSCAR, .cif, "
        ".extxyz, ...) or phonopy's YAML."
    )

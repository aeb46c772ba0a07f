"""From a crystal read from a file to phonopy's object, without force constants."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.data
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from phonopy import Phonopy
from phonopy.cui.load_helper import get_nac_params
from phonopy.cui.settings import PhonopySettings
from phonopy.physical_units import get_calculator_physical_units
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.defaults import PHONOPY_SYMPREC
from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.io.crystals import Crystal, looks_like_yaml
from phonopy_equivariant.io.memory import check_memory
from phonopy_equivariant.phonons.cells import primitive_operations, require_sound
from phonopy_equivariant.phonons.charges import obeying, require_charges
from phonopy_equivariant.phonons.permutations import composed_permutations


def build_phonon(
    crystal: Crystal,
    matrix: Int[ndarray, "3 3"],
    settings: PhonopySettings | None = None,
    kind: type[Phonopy] = Phonopy,
) -> Phonopy:
    """Return phonopy's object in eV and Å with what phonopy's options say of cells and masses.

    Raises
    ------
    PhonopyEquivariantError
        A supercell that does not fit into memory, cells or masses that phonopy refuses, or what
        would give wrong phonons (see :func:`.phonons.cells.require_sound`).

    """
    settings = PhonopySettings(load_phonopy_yaml=True) if settings is None else settings
    unitcell = crystal.unitcell.copy()
    if settings.import_ase_masses_iupac2016 and not looks_like_yaml(crystal.path):
        unitcell.masses = _masses_of_iupac(unitcell)
    try:
        if settings.magnetic_moments is not None:
            unitcell.magnetic_moments = settings.magnetic_moments
        with composed_permutations(), warnings.catch_warnings():
            # phonopy says it again where it matters, in its own script
            warnings.simplefilter("ignore", UserWarning)
            phonon = kind(
                unitcell,
                matrix,
                primitive_matrix=_primitive_matrix(crystal, settings),
                symprec=settings.symmetry_tolerance or PHONOPY_SYMPREC,
                is_symmetry=settings.is_symmetry,
                log_level=0,
            )
        if settings.masses is not None:
            _check_count(settings.masses, phonon)
            phonon.masses = settings.masses
        require_sound(phonon)
    except MemoryError:
        raise
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{crystal.path}: {error}") from error
    except Exception as error:
        raise PhonopyEquivariantError(
            f"{crystal.path}: phonopy refuses this cell, supercell or masses ({reason_of(error)}); "
            "check the structure, its masses, and what was said of supercell, primitive cell and "
            "tolerance."
        ) from error
    check_memory(len(phonon.supercell), 1, len(phonon.primitive))
    return phonon


def set_born_charges(
    phonon: Phonopy, crystal: Crystal, settings: PhonopySettings | None = None
) -> str | None:
    """Give phonopy the Born charges it would find by itself; return their source, or None.

    They come from phonopy's YAML file, or else from ``BORN`` in the working folder.

    Raises
    ------
    PhonopyEquivariantError
        ``BORN`` cannot be read, belongs to another cell, or means nothing.

    """
    if settings is not None and not settings.is_nac:
        return None
    factor = get_calculator_physical_units(None).nac_factor
    try:
        parameters = get_nac_params(
            phonon.primitive,
            nac_params=None if crystal.nac_params is None else dict(crystal.nac_params),  # type: ignore[arg-type]
            nac_factor=factor,
        )
    except (Exception, SystemExit) as error:
        raise PhonopyEquivariantError(
            f"BORN in this folder cannot be used ({reason_of(error)}); mend it for the "
            "primitive cell's independent atoms, or pass nac_params=None."
        ) from error
    if parameters is None:
        return None
    source = "BORN" if crystal.nac_params is None else crystal.path.name
    line = f"The Born charges of {source}"
    values: dict[str, Any] = dict(parameters)
    if crystal.calculator is not None or values.get("factor") is None:
        values["factor"] = factor  # ours are eV and Å, whatever the file's units
    require_charges(values, line, len(phonon.primitive))
    obeying(values, line, primitive_operations(phonon))
    if settings is not None and settings.nac_method is not None:
        values["method"] = settings.nac_method
    phonon.nac_params = values  # type: ignore[assignment]
    return source


def has_born_charges(crystal: Crystal, settings: PhonopySettings | None = None) -> bool:
    """Tell whether :func:`set_born_charges` would give phonopy Born charges."""
    if settings is not None and not settings.is_nac:
        return False
    return crystal.nac_params is not None or Path("BORN").exists()


def check_indices(phonon: Phonopy, settings: PhonopySettings) -> None:
    """Raise if phonopy's options name atoms or bands that the primitive cell does not have.

    Raises
    ------
    PhonopyEquivariantError
        An index is negative or too large; the message names the option.

    """
    atoms = len(phonon.primitive)
    for option, lists, count, noun in (
        ("--pdos", settings.pdos_indices, atoms, "atoms"),
        ("--band-indices", settings.band_indices, 3 * atoms, "bands"),
    ):
        indices: Any = [] if lists is None or isinstance(lists, str) else np.hstack([[], *lists])
        if any(not 0 <= index < count for index in indices):
            raise PhonopyEquivariantError(
                f"{option}: the primitive cell has {count} {noun}; count them from 1."
            )


def _check_count(masses: Sequence[float], phonon: Phonopy) -> None:
    symbols = phonon.primitive.symbols
    if len(masses) != len(symbols):
        raise PhonopyEquivariantError(
            f"masses=: the primitive cell has {len(symbols)} atoms ({' '.join(symbols)}), give as "
            f"many masses, not {len(masses)}."
        )


def _masses_of_iupac(cell: PhonopyAtoms) -> Float[ndarray, " atoms"]:
    """Return the masses of IUPAC 2016 for the atoms that have phonopy's mass of their element.

    phonopy's own function changes its tables, and fails where it is called twice: its script does.
    """
    standard = PhonopyAtoms(numbers=cell.numbers, cell=cell.cell, positions=cell.positions)
    masses = ase.data.atomic_masses_iupac2016[cell.numbers]
    return np.where(np.asarray(cell.masses) == standard.masses, masses, cell.masses)


def _primitive_matrix(crystal: Crystal, settings: PhonopySettings) -> Any:
    """Return what phonopy's script takes: --band auto insists on its own choice."""
    if isinstance(settings.band_paths, str) and settings.band_paths == "auto":
        return "auto"
    if settings.primitive_matrix is not None:
        return settings.primitive_matrix
    return "auto" if crystal.primitive_matrix is None else crystal.primitive_matrix

"""From a crystal and options to a ``Phonopy`` with analytic force constants."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ase.data
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from phonopy import Phonopy
from phonopy.cui.load_helper import get_nac_params
from phonopy.cui.settings import PhonopySettings
from phonopy.physical_units import get_calculator_physical_units
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant import __version__
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.interface.crystals import Crystal, looks_like_yaml
from phonopy_equivariant.interface.files import PROVENANCE
from phonopy_equivariant.interface.memory import check_memory
from phonopy_equivariant.interface.supercells import (
    choose_supercell,
    count_atoms,
    count_operations,
    dim_text,
    parse_dim,
)
from phonopy_equivariant.report import ForceConstantsReport

if TYPE_CHECKING:  # the potential brings JAX: not before input has been checked
    from phonopy_equivariant.potential import Potential

# Force constants that obey the sum rule this well (eV/Å²) gain nothing from a projection. phonopy's
# script projects all the same, and so does plain phonopy on the same file: rounding of the three
# acoustic modes at Gamma, which enter the entropy of an odd mesh, is then the same for both. Beyond
# this number of atoms (7 s at 512) the projection would cost more than the force constants.
NEGLIGIBLE_DRIFT = 1e-9
MAX_PROJECTED_ATOMS = 1000
SURELY_FITS = 500  # atoms, in 0.1 GB
# Above these, phonons describe no crystal at rest; below, frequencies move by less than their
# error from the potential.
LARGE_FORCE = 0.01  # eV/Å
LARGE_STRESS = 1.0  # GPa


def select_supercell(
    crystal: Crystal, dim: Sequence[str] | None, symprec: float = 1e-5
) -> tuple[Int[ndarray, "3 3"], str]:
    """Return the supercell matrix and where it comes from.

    ``dim`` wins over the file, and the file over the automatic choice.

    Raises
    ------
    PhonopyEquivariantError
        ``dim`` is malformed, differs from that of the file's displaced supercells, or does not
        fit into memory.

    """
    stored = crystal.supercell_matrix
    if dim is not None:
        matrix = parse_dim(dim)
        if crystal.dataset and stored is not None and (matrix != stored).any():
            raise PhonopyEquivariantError(
                f"{crystal.path} has displaced supercells of --dim {dim_text(stored)}, not of "
                f"--dim {dim_text(matrix)}; leave --dim away, or give the structure file."
            )
        atoms = count_atoms(crystal.unitcell, matrix)
        if atoms > SURELY_FITS:
            check_memory(atoms, count_operations(crystal.unitcell, matrix, symprec))
        return matrix, "given by --dim"
    if stored is not None:
        return np.asarray(stored), f"from {crystal.path.name}"
    return choose_supercell(crystal.unitcell, symprec), "chosen"


def build_phonon(
    crystal: Crystal, matrix: Int[ndarray, "3 3"], settings: PhonopySettings | None = None
) -> Phonopy:
    """Return phonopy's object in eV and Å with what phonopy's options say of cells and masses.

    Raises
    ------
    PhonopyEquivariantError
        A supercell that does not fit into memory, or cells or masses that phonopy refuses.

    """
    settings = PhonopySettings(load_phonopy_yaml=True) if settings is None else settings
    unitcell = crystal.unitcell.copy()
    if settings.import_ase_masses_iupac2016 and not looks_like_yaml(crystal.path):
        unitcell.masses = _masses_of_iupac(unitcell)
    try:
        if settings.magnetic_moments is not None:
            unitcell.magnetic_moments = settings.magnetic_moments
        with warnings.catch_warnings():
            # phonopy says it again where it matters, in its own script
            warnings.simplefilter("ignore", UserWarning)
            phonon = Phonopy(
                unitcell,
                matrix,
                primitive_matrix=_primitive_matrix(crystal, settings),
                symprec=settings.symmetry_tolerance or 1e-5,
                is_symmetry=settings.is_symmetry,
                log_level=0,
            )
        if settings.masses is not None:
            phonon.masses = settings.masses
        elif not _same_masses(phonon):
            raise PhonopyEquivariantError(
                f"{crystal.path}: atoms that a translation of the primitive cell relates have "
                "different masses; take the unit cell as the primitive one (--pa P)."
            )
    except (MemoryError, PhonopyEquivariantError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise PhonopyEquivariantError(
            f"{crystal.path}: phonopy refuses this cell, supercell or masses ({text}); check the "
            "structure, its masses, and what was said of supercell, primitive cell and tolerance."
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
        ``BORN`` cannot be read, or belongs to another cell.

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
        text = " ".join(str(error).split())[:150] or type(error).__name__
        raise PhonopyEquivariantError(
            f"BORN in this folder cannot be used ({text}); mend it for the primitive cell's "
            "independent atoms, or pass --nonac."
        ) from error
    if parameters is None:
        return None
    source = "BORN" if crystal.nac_params is None else crystal.path.name
    if len(parameters["born"]) != len(phonon.primitive):
        raise PhonopyEquivariantError(
            f"The Born charges of {source} are of {len(parameters['born'])} atoms, the primitive "
            f"cell has {len(phonon.primitive)}; take the primitive cell they belong to (--pa), or "
            "pass --nonac."
        )
    values: dict[str, Any] = dict(parameters)
    if crystal.calculator is not None or values.get("factor") is None:
        values["factor"] = factor  # ours are eV and Å, whatever the file's units
    if settings is not None and settings.nac_method is not None:
        values["method"] = settings.nac_method
    phonon.nac_params = values  # type: ignore[assignment]
    return source


def compute_force_constants(phonon: Phonopy, potential: Potential) -> ForceConstantsReport:
    """Store analytic force constants in ``phonon`` and report on them.

    Raises
    ------
    PhonopyEquivariantError
        An element the potential does not know, overlapping atoms, or numbers that are not
        finite.

    """
    from phonopy_equivariant.interface.phonopy import set_force_constants

    report = set_force_constants(phonon, potential)
    if not np.isfinite(np.asarray(phonon.force_constants)).all():
        raise PhonopyEquivariantError(
            f"The potential {potential.name} gives force constants that are not finite numbers; "
            "check the structure, or choose another model."
        )
    return report


def skips_projection(report: ForceConstantsReport, supercell_atoms: int) -> bool:
    """Tell whether phonopy's script should leave the force constants as they are."""
    return report.sum_rule < NEGLIGIBLE_DRIFT and supercell_atoms > MAX_PROJECTED_ATOMS


def provenance(potential: Potential) -> dict[str, str]:
    """Return what stands in phonopy_params.yaml on the origin of its force constants."""
    return {
        "force_constants": f"{PROVENANCE} {__version__}",
        "potential": potential.name,
        "potential_sha256": potential.sha256,
        "potential_dtype": potential.dtype,
    }


def equilibrium_remarks(force: float, stress: float) -> list[str]:
    """Return what to tell about residual force (eV/Å) and stress (GPa), if anything."""
    remarks = []
    if force > LARGE_FORCE:
        remarks.append(
            f"residual forces of {force:.2g} eV/Å: atoms are not where this potential wants "
            "them, and phonons may be meaningless; use --relax."
        )
    if stress > LARGE_STRESS:
        remarks.append(
            f"residual stress of {stress:.2g} GPa: phonons are those of a crystal under this "
            "stress; use --relax for the cell at rest."
        )
    return remarks


def _masses_of_iupac(cell: PhonopyAtoms) -> Float[ndarray, " atoms"]:
    """Return the masses of IUPAC 2016 for the atoms that have phonopy's mass of their element.

    phonopy's own function changes its tables, and fails where it is called twice: its script does.
    """
    plain = PhonopyAtoms(numbers=cell.numbers, cell=cell.cell, positions=cell.positions)
    masses = ase.data.atomic_masses_iupac2016[cell.numbers]
    return np.where(np.asarray(cell.masses) == plain.masses, masses, cell.masses)


def _same_masses(phonon: Phonopy) -> bool:
    """Tell whether all images of an atom have the mass that the primitive cell took."""
    owner = [phonon.primitive.p2p_map[image] for image in phonon.primitive.s2p_map]
    return np.allclose(phonon.supercell.masses, phonon.primitive.masses[owner])


def _primitive_matrix(crystal: Crystal, settings: PhonopySettings) -> Any:
    """Return what phonopy's script takes: --band auto insists on its own choice."""
    if isinstance(settings.band_paths, str) and settings.band_paths == "auto":
        return "auto"
    if settings.primitive_matrix is not None:
        return settings.primitive_matrix
    return "auto" if crystal.primitive_matrix is None else crystal.primitive_matrix

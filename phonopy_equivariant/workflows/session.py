"""From a crystal and options to a ``Phonopy`` with analytic force constants."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from phonopy import Phonopy

from phonopy_equivariant._version import __version__
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.crystals import Crystal
from phonopy_equivariant.io.memory import check_memory
from phonopy_equivariant.io.outputs import PROVENANCE
from phonopy_equivariant.io.supercells import (
    choose_supercell,
    count_atoms,
    count_operations,
    dim_text,
    parse_dim,
)
from phonopy_equivariant.phonons.report import ForceConstantsReport, SymmetryReport

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


def compute_force_constants(phonon: Phonopy, potential: Potential) -> ForceConstantsReport:
    """Store analytic force constants in ``phonon`` and report on them.

    Raises
    ------
    PhonopyEquivariantError
        An element the potential does not know, overlapping atoms, or numbers that are not
        finite.

    """
    from phonopy_equivariant.phonons.force_constants import set_force_constants

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "isotopes on equivalent sites")  # in the report, too
        return set_force_constants(phonon, potential)


def skips_projection(report: ForceConstantsReport, supercell_atoms: int) -> bool:
    """Tell whether phonopy's script should leave the force constants as they are."""
    return report.sum_rule < NEGLIGIBLE_DRIFT and supercell_atoms > MAX_PROJECTED_ATOMS


def symmetry_options(symmetry: SymmetryReport) -> list[str]:
    """Return phonopy's options without which isotopes on equivalent sites give wrong numbers."""
    return ["--nosym"] if symmetry.isotopes else []


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

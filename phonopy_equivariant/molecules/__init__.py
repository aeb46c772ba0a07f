"""Vibrations of molecules: normal modes, irreps, infrared and Raman spectra, thermochemistry."""

from phonopy_equivariant.molecules.analysis import (
    MolecularVibrations,
    Thermochemistry,
    analyse_hessian,
    vibrations,
)
from phonopy_equivariant.molecules.characters import CharacterTable
from phonopy_equivariant.molecules.derivatives import (
    read_dipole_derivatives,
    read_hessian,
    read_polarizability_derivatives,
)
from phonopy_equivariant.molecules.intensities import RamanActivities
from phonopy_equivariant.molecules.modes import NormalModes
from phonopy_equivariant.molecules.multiplets import Multiplet
from phonopy_equivariant.molecules.operations import Symmetry, find_symmetry
from phonopy_equivariant.molecules.relaxation import relax
from phonopy_equivariant.molecules.spectrum import broadened, plot_spectrum, spectra
from phonopy_equivariant.molecules.structure import as_molecule, read_molecule
from phonopy_equivariant.molecules.writers import (
    write_hessian,
    write_molden,
    write_xyz,
    write_yaml,
)

__all__ = [
    "CharacterTable",
    "MolecularVibrations",
    "Multiplet",
    "NormalModes",
    "RamanActivities",
    "Symmetry",
    "Thermochemistry",
    "analyse_hessian",
    "as_molecule",
    "broadened",
    "find_symmetry",
    "plot_spectrum",
    "read_dipole_derivatives",
    "read_hessian",
    "read_molecule",
    "read_polarizability_derivatives",
    "relax",
    "spectra",
    "vibrations",
    "write_hessian",
    "write_molden",
    "write_xyz",
    "write_yaml",
]

"""What can be asked of workflows, as frozen dataclasses; the command line has their defaults."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from phonopy_equivariant import defaults
from phonopy_equivariant.workflows import option_checks

if TYPE_CHECKING:  # --help answers at once
    from jaxtyping import Int
    from numpy import ndarray


@dataclasses.dataclass(frozen=True)
class RelaxationOptions:
    """How a crystal is relaxed; see :func:`phonopy_equivariant.relax`."""

    fmax: float = defaults.FMAX
    cell: bool = True
    symprec: float = defaults.SYMPREC
    constant_volume: bool = False
    pressure: float = 0.0


@dataclasses.dataclass(frozen=True)
class PhononOptions:
    """How the phonons of a crystal are computed.

    Parameters
    ----------
    supercell
        Matrix of the supercell; None stands for that of the file, or else for one chosen by size.
    relaxation
        How atoms and cell are relaxed first; None if they are not.
    exact, tolerance
        Whether D(q) is computed without a supercell, and the largest error of a frequency (THz).
    nac_range
        Size (Å) of the cells at whose q the potential is trusted with dipoles, in exact mode with
        Born charges; see :func:`.use_exact_dynamical_matrix`.

    """

    supercell: Int[ndarray, "3 3"] | None = None
    relaxation: RelaxationOptions | None = None
    exact: bool = False
    tolerance: float | None = None
    nac_range: float | None = None


@dataclasses.dataclass(frozen=True)
class MoleculeOptions:
    """How the vibrations of a molecule are computed.

    Parameters
    ----------
    hessian, born, raman
        Files with the Hessian, dipole derivatives and polarizability derivatives.
    relax, fmax
        Whether the molecule is relaxed first, and the largest force (eV/Å) after it.
    symmetry_tolerance
        How far (Å) atoms may be off the symmetry of the point group.
    temperature, pressure, spin
        Of the ideal gas, K, Pa, and the total electronic spin.

    """

    hessian: str | os.PathLike[str] | None = None
    born: str | os.PathLike[str] | None = None
    raman: str | os.PathLike[str] | None = None
    relax: bool = False
    fmax: float = defaults.MOLECULE_FMAX
    symmetry_tolerance: float = defaults.SYMMETRY_TOLERANCE
    temperature: float = defaults.TEMPERATURE
    pressure: float = defaults.PRESSURE
    spin: float = 0.0


@dataclasses.dataclass(frozen=True)
class EvaluationOptions:
    """How potentials are compared with reference phonons.

    Parameters
    ----------
    mesh
        phonopy's mesh for frequencies, density of states and thermal properties.
    temperature
        Of the thermal properties, K.
    relaxation
        How the model relaxes the crystal first; None: phonons at the reference's structure.
    bands
        Whether bands are computed, for figures.

    """

    mesh: tuple[int, int, int] = (11, 11, 11)
    temperature: float = 300.0
    relaxation: RelaxationOptions | None = None
    bands: bool = False


@dataclasses.dataclass(frozen=True)
class BatchOptions:
    """What is computed of each of many crystals.

    Parameters
    ----------
    phonons
        Supercell or exact mode, and relaxation, as for one crystal.
    mesh
        phonopy's mesh, three numbers or a length (Å).
    temperatures
        Of free energy, entropy and heat capacity, K.
    symprec
        Distance (Å) within which phonopy recognises symmetry.
    force_constants, bands, dos
        Whether these are kept as phonopy's files, compressed.

    """

    phonons: PhononOptions = PhononOptions()
    mesh: float | tuple[int, int, int] = defaults.PHONON_MESH
    temperatures: tuple[float, ...] = (300.0,)
    symprec: float = defaults.PHONOPY_SYMPREC
    force_constants: bool = False
    bands: bool = False
    dos: bool = False


@dataclasses.dataclass(frozen=True)
class QHAOptions:
    """What a quasi-harmonic calculation computes.

    Parameters
    ----------
    phonons
        How force constants are computed at each volume. The crystal is always relaxed.
    volumes, volume_range
        Number of volumes, and the lowest and highest change (%) from the volume at rest.
    grid
        Number of lengths along each free axis of an anisotropic calculation; None stands for five
        along two axes and four along three.
    mesh
        Three numbers of a mesh that contains Γ, or a length (Å).
    tmax, tstep
        Highest temperature and step, K, from 0.
    pressure
        GPa.
    eos
        phonopy's name of an equation of state.
    fmax
        Largest force (eV/Å) after a relaxation.
    symprec
        Distance (Å) within which symmetry is recognised and made exact.
    nac_params
        Born charges and dielectric tensor, the same at every volume; "BORN" stands for those that
        phonopy would find, None for those of the structure's file.
    compare
        Whether thermal expansion is computed at one volume too, from Grüneisen parameters.
    keep
        Folder for a ``phonopy_params-NN.yaml`` of each volume; None if they are not kept.

    """

    phonons: PhononOptions = PhononOptions()
    volumes: int = defaults.VOLUMES
    volume_range: tuple[float, float] = defaults.VOLUME_RANGE
    grid: int | None = None
    mesh: float | Sequence[int] = defaults.MESH
    tmax: float = defaults.T_MAX
    tstep: float = defaults.T_STEP
    pressure: float = 0.0
    eos: str = "vinet"
    fmax: float = defaults.VOLUME_FMAX
    symprec: float = defaults.SYMPREC
    nac_params: Mapping[str, Any] | str | None = None
    compare: bool = True
    keep: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        option_checks.check_qha(self)


@dataclasses.dataclass(frozen=True)
class UnstableOptions:
    """How imaginary modes are followed.

    Parameters
    ----------
    max_cells
        Largest number of primitive cells of a supercell whose q are looked at.
    max_atoms
        Largest number of atoms of a distorted cell.
    max_structures
        Number of crystals after which to stop.
    threshold
        How far (THz) below zero a frequency counts.
    fmax, symprec
        Of relaxations, eV/Å and Å.

    """

    max_cells: int = defaults.MAX_CELLS
    max_atoms: int = defaults.MAX_ATOMS
    max_structures: int = defaults.MAX_STRUCTURES
    threshold: float = defaults.THRESHOLD
    fmax: float = defaults.FMAX
    symprec: float = defaults.SYMPREC

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        option_checks.check_unstable(self)


@dataclasses.dataclass(frozen=True)
class SSCHAOptions:
    """How self-consistent phonons are computed.

    Parameters
    ----------
    temperatures
        K.
    supercell
        Matrix of the supercell; None stands for that of the file, or else for one of 10 Å.
    relaxation
        How atoms and cell are relaxed first; None if they are not.
    snapshots, iterations
        Displaced supercells of an iteration, and their number.
    seed
        Of the random displacements.
    mesh
        phonopy's mesh for the harmonic part of the free energy.
    folder, restart
        Where files are written, None for nowhere; whether older ones are begun anew.

    """

    temperatures: tuple[float, ...] = (defaults.SSCHA_TEMPERATURE,)
    supercell: Int[ndarray, "3 3"] | None = None
    relaxation: RelaxationOptions | None = None
    snapshots: int = defaults.SNAPSHOTS
    iterations: int = defaults.ITERATIONS
    seed: int = 0
    mesh: float | Sequence[int] = defaults.SSCHA_MESH
    folder: str | os.PathLike[str] | None = None
    restart: bool = False

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        option_checks.check_sscha(self)


@dataclasses.dataclass(frozen=True)
class ConvergenceOptions:
    """How supercell and mesh are made larger.

    Parameters
    ----------
    tolerance
        How far F, S, Cv and the largest frequency may be off, in units of 3NkT, 3Nk, 3Nk and of
        that frequency.
    temperature
        K.
    relaxation
        How atoms and cell are relaxed first; None if they are not.
    max_atoms
        Of the largest supercell.

    """

    tolerance: float = defaults.CONVERGENCE
    temperature: float = 300.0
    relaxation: RelaxationOptions | None = None
    max_atoms: int = defaults.LARGEST_SUPERCELL

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        option_checks.check_convergence(self)

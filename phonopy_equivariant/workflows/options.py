"""What can be asked of workflows, as frozen dataclasses; the command line has their defaults."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from phonopy_equivariant import defaults

if TYPE_CHECKING:  # --help answers at once
    from jaxtyping import Int
    from numpy import ndarray


@dataclasses.dataclass(frozen=True)
class RelaxationOptions:
    """How a crystal is relaxed; see :func:`phonopy_equivariant.relax`."""

    fmax: float = defaults.FMAX
    cell: bool = True
    symprec: float = defaults.SYMPREC


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

"""Phonons with no supercell to choose: exact D(q) at any q inside phonopy."""

from __future__ import annotations

import dataclasses
import time
import warnings

import numpy as np
from ase.units import GPa
from jaxtyping import Complex, Float
from numpy import ndarray
from phonopy import Phonopy

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.features import Familiarity
from phonopy_equivariant.phonons.cells import require_sound
from phonopy_equivariant.phonons.exact_range import Attempt, converged_matrix
from phonopy_equivariant.phonons.force_constants import familiarity_at, symmetry_report
from phonopy_equivariant.phonons.report import ISOTOPES, SymmetryReport
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.lattice import MAX_MEMORY, respond
from phonopy_equivariant.response.bloch.prepare import Lattice, equilibrium_of, prepare
from phonopy_equivariant.response.dynamical_matrix import mass_weighted
from phonopy_equivariant.response.symmetry.star import real_q

# THz; in single precision rounding alone moves frequencies by some 1e-6 THz
TOLERANCE = {"float64": 1e-6, "float32": 1e-4}

# Up to this many atoms all q share one program, as in response.lattice.
SMALL_CELL = 4

NAC_REFUSED = (
    "Exact mode has no non-analytical correction: phonopy's Gonze-Lee method needs the force "
    "constants of a supercell; use the supercell road (pe.set_force_constants, or run without "
    "--exact), or leave the Born charges away (phonon.nac_params = None, or --nonac)."
)


@dataclasses.dataclass(frozen=True)
class ExactReport:
    """How the range of force constants was found.

    Parameters
    ----------
    model, sha256
        Name and hash of the potential's file.
    attempts
        Every grid of q with its largest error; the last one is in use.
    tolerance
        Largest error of a frequency asked for, THz.
    hessian_range
        Distance up to which the potential may have force constants, 2·T·cutoff, Å.
    residual_force
        Largest force on an atom of the cell, eV/Å.
    residual_stress
        Largest component of the stress, GPa.
    seconds
        Wall time, compilation included.
    symmetry
        How well the structure obeys the symmetry that phonopy found.
    familiarity
        How far the crystal is from the training structures; None if the potential cannot tell.

    """

    model: str
    sha256: str
    attempts: tuple[Attempt, ...]
    tolerance: float
    hessian_range: float
    residual_force: float
    residual_stress: float
    seconds: float
    symmetry: SymmetryReport
    familiarity: Familiarity | None = None

    @property
    def error(self) -> float:
        """Largest error of a frequency (THz) found between the q of the last grid."""
        return self.attempts[-1].error

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        last = self.attempts[-1]
        label = f"{self.model} (sha256 {self.sha256[:12]})" if self.sha256 else self.model
        grids = ", ".join(
            f"{'×'.join(map(str, a.counts))}: {a.error:.1e} THz" for a in self.attempts
        )
        computed = sum(attempt.computed for attempt in self.attempts)
        return [
            f"potential            {label}",
            f"method               exact D(q), {computed} q computed, {self.seconds:.2f} s",
            f"range error of grids {grids}",
            self.symmetry.line(),
            f"tolerance            {self.tolerance:g} THz",
            f"cells in use         {last.diameter:.1f} Å across, of at most "
            f"{2 * self.hessian_range:.1f} Å",
            f"residual force       {self.residual_force:.1e} eV/Å",
            f"residual stress      {self.residual_stress:.3f} GPa",
        ]


def use_exact_dynamical_matrix(
    phonon: Phonopy,
    potential: Potential,
    tolerance: float | None = None,
    max_memory: int = MAX_MEMORY,
) -> ExactReport:
    """Give ``phonon`` D(q) without folding error, in place; its supercell plays no part.

    Band structure, mesh, densities of states, thermal properties and displacements, group
    velocities, irreps and modulations then run in phonopy's own kernels on force constants that
    reach as far as the potential's do. The range is found: a grid of q is refined until Fourier
    interpolation from it meets D(q) computed directly between its points.

    Force constants stored in ``phonon`` are removed. Setting masses, Born charges or force
    constants afterwards drops the exact matrix; phonopy then refuses to run until this function
    is called again (or runs on the force constants that were set).

    Parameters
    ----------
    phonon, potential
        phonopy's object, any supercell; from :func:`phonopy_equivariant.load_potential`.
    tolerance
        Largest error of a frequency, THz; 1e-6 in double precision, 1e-4 in single precision by
        default. At the probed q a third of it is demanded.
    max_memory
        Bytes that a block of q, and the force constants, may take.

    Raises
    ------
    PhonopyEquivariantError
        Born charges are set; the tolerance is not positive, or cannot be met; an element the
        potential does not know; what :func:`.cells.require_sound` refuses.

    """
    require_sound(phonon)
    if phonon.nac_params is not None:
        raise PhonopyEquivariantError(NAC_REFUSED)
    start = time.perf_counter()
    primitive = phonon.primitive
    tolerance = TOLERANCE[potential.dtype] if tolerance is None else tolerance
    if not tolerance > 0:
        raise PhonopyEquivariantError(
            f"The tolerance of exact mode is {tolerance:g} THz; it must be positive "
            "(tolerance=, or run --exact-tolerance)."
        )
    lattice = prepare(potential, primitive)
    matrix, attempts = converged_matrix(
        phonon,
        lambda qpoints: in_equal_blocks(potential, lattice, qpoints, max_memory),
        lambda qpoints, values: mass_weighted(primitive, qpoints, values),
        tolerance,
        potential.hessian_range,
        max_memory,
    )
    equilibrium = equilibrium_of(lattice)
    phonon.force_constants = None  # clears whatever was derived from it
    # the only private attribute of phonopy that is written; there is no setter
    phonon._dynamical_matrix = matrix  # type: ignore[assignment]
    symmetry = symmetry_report(phonon)
    if symmetry.isotopes:
        warnings.warn(ISOTOPES, stacklevel=2)
    return ExactReport(
        model=potential.name,
        sha256=potential.sha256,
        attempts=tuple(attempts),
        tolerance=tolerance,
        hessian_range=potential.hessian_range,
        residual_force=float(np.linalg.norm(equilibrium.forces, axis=1).max()),
        residual_stress=float(np.abs(equilibrium.stress).max() / GPa),
        seconds=time.perf_counter() - start,
        symmetry=symmetry,
        familiarity=familiarity_at(potential, primitive.numbers, equilibrium),
    )


def in_equal_blocks(
    potential: Potential, lattice: Lattice, qpoints: Float[ndarray, "q 3"], max_memory: int
) -> Complex[ndarray, "q columns columns"]:
    """Return Φ(q) from blocks of one size, so that one compiled program serves all grids."""
    atoms = len(lattice.species)
    size = max(8, 64 // atoms)
    result = np.empty((len(qpoints), 3 * atoms, 3 * atoms), complex)
    real = real_q(qpoints)
    if atoms <= SMALL_CELL:
        real[:] = False
    chosen = np.flatnonzero(real)
    if len(chosen):
        result[chosen] = respond(potential, lattice, qpoints[chosen], max_memory)[0]
    others = np.flatnonzero(~real)
    padding = -len(others) % size
    # a q of no symmetry, so that it belongs with the others
    padded = np.concatenate([qpoints[others], np.tile([0.11, 0.23, 0.37], (padding, 1))])
    blocks = [
        respond(potential, lattice, padded[first : first + size], max_memory)[0]
        for first in range(0, len(padded), size)
    ]
    if blocks:
        result[others] = np.concatenate(blocks)[: len(others)]
    return result

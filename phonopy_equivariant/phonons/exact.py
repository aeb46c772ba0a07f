"""Phonons with no supercell to choose: exact D(q) at any q inside phonopy."""

from __future__ import annotations

import dataclasses
import time
import warnings

import numpy as np
from ase.units import GPa
from jaxtyping import Float
from numpy import ndarray
from phonopy import Phonopy

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.phonons.cells import require_sound
from phonopy_equivariant.phonons.exact_range import (
    LOWEST,
    Attempt,
    converged_matrix,
    frequency_errors,
)
from phonopy_equivariant.phonons.force_constants import familiarity_at, symmetry_report
from phonopy_equivariant.phonons.report import ISOTOPES, CrystalReport
from phonopy_equivariant.response.bloch.lattice import MAX_MEMORY, respond
from phonopy_equivariant.response.bloch.prepare import equilibrium_of, prepare
from phonopy_equivariant.response.dynamical_matrix import mass_weighted

# THz; in single precision rounding alone moves frequencies by some 1e-6 THz
TOLERANCE = {"float64": 1e-6, "float32": 1e-4}

NAC_REFUSED = (
    "Exact mode has no non-analytical correction: phonopy's Gonze-Lee method needs the force "
    "constants of a supercell; use the supercell road (exact=False, pe.set_force_constants), or "
    "leave the Born charges away (nac_params=None)."
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ExactReport(CrystalReport):
    """How the range of force constants was found.

    Parameters
    ----------
    attempts
        Every grid of q with its largest error; the last one is in use.
    tolerance
        Largest error of a frequency asked for, THz; see :meth:`frequency_errors`.

    The others are those of :class:`.report.CrystalReport`.

    """

    attempts: tuple[Attempt, ...]
    tolerance: float

    @property
    def error(self) -> float:
        """Largest error of a frequency (THz) found between the q of the last grid."""
        return self.attempts[-1].error

    def frequency_errors(self, frequencies: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
        """Return the largest errors (THz) that the tolerance allows at some frequencies (THz).

        The error of ω² is at most 2t·max(|ω|, 1 THz), t the tolerance. That is an error t of
        frequencies from 1 THz on, of t·(1 THz)/|ω| below, and of up to 2·√(t·1 THz) where ω²
        crosses zero.
        """
        return frequency_errors(self.tolerance, np.asarray(frequencies, float))

    def rows(self) -> list[list[str]]:
        """Return labels and values."""
        last = self.attempts[-1]
        grids = ", ".join(
            f"{'×'.join(map(str, a.counts))}: {a.error:.1e} THz" for a in self.attempts
        )
        computed = sum(attempt.computed for attempt in self.attempts)
        square = 2 * self.tolerance * LOWEST
        return [
            self.potential_row(),
            ["method", f"exact D(q), {computed} q computed, {self.seconds:.2f} s"],
            ["range error of grids", grids],
            self.symmetry.row(),
            ["tolerance", f"{self.tolerance:g} THz"],
            [f"below {LOWEST:g} THz", f"error of ω² at most {square:g} THz²"],
            [
                "cells in use",
                f"{last.diameter:.1f} Å across, of at most {2 * self.hessian_range:.1f} Å",
            ],
            *self.equilibrium_rows(),
        ]


def use_exact_dynamical_matrix(
    phonon: Phonopy,
    potential: PotentialLike,
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
        phonopy's object, any supercell; a potential, or the name of a model.
    tolerance
        Largest error of a frequency, THz; 1e-6 in double precision, 1e-4 in single precision by
        default. At the probed q a quarter of it is demanded. Below 1 THz the error of ω² is limited
        instead, to twice the tolerance times 1 THz, because √|ω²| has an infinite slope at zero:
        :meth:`ExactReport.frequency_errors` gives the error of ω.
    max_memory
        Bytes that a block of q, and the force constants, may take.

    Raises
    ------
    PhonopyEquivariantError
        Born charges are set; the tolerance is not positive, or cannot be met; an element the
        potential does not know; what :func:`.cells.require_sound` refuses.

    """
    potential = as_potential(potential)
    require_sound(phonon)
    if phonon.nac_params is not None:
        raise PhonopyEquivariantError(NAC_REFUSED)
    start = time.perf_counter()
    primitive = phonon.primitive
    tolerance = TOLERANCE[potential.dtype] if tolerance is None else tolerance
    if not 0 < tolerance < np.inf:
        raise PhonopyEquivariantError(
            f"The tolerance of exact mode is {tolerance:g} THz; give a positive number "
            "as tolerance=."
        )
    lattice = prepare(potential, primitive)
    matrix, attempts = converged_matrix(
        phonon,
        lambda qpoints: respond(potential, lattice, qpoints, max_memory)[0],
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

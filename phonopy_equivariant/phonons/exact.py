"""Phonons with no supercell to choose: exact D(q) at any q inside phonopy."""

from __future__ import annotations

import dataclasses
import time
import warnings
from typing import Any

import numpy as np
from ase.units import GPa
from jaxtyping import Complex, Float
from numpy import ndarray
from phonopy import Phonopy
from phonopy.harmonic.dynamical_matrix import DynamicalMatrix

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.phonons.cells import primitive_operations, require_sound
from phonopy_equivariant.phonons.charges import Charges, obeying
from phonopy_equivariant.phonons.exact_range import (
    LOWEST,
    Attempt,
    Direct,
    converged_matrix,
    frequency_errors,
)
from phonopy_equivariant.phonons.force_constants import familiarity_at, symmetry_report
from phonopy_equivariant.phonons.nac import NAC_RANGE, PolarResponse
from phonopy_equivariant.phonons.reflections import broken_between
from phonopy_equivariant.phonons.report import ISOTOPES, CrystalReport
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.lattice import MAX_MEMORY, respond
from phonopy_equivariant.response.bloch.prepare import equilibrium_of, prepare
from phonopy_equivariant.response.dynamical_matrix import mass_weighted

# THz; in single precision rounding alone moves frequencies by some 1e-6 THz
TOLERANCE = {"float64": 1e-6, "float32": 1e-4}
# THz; the window near Γ is long in real space, so that grids for 1e-6 have several times as many q,
# and the rule of that window is right to some 0.1 THz
POLAR_TOLERANCE = 1e-3

WANG = (
    "Exact mode has dipoles by the method of Gonze and Lee, and Wang's interpolates a supercell; "
    "leave nac_method= away, or use the supercell road (exact=False, pe.set_force_constants)."
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ExactReport(CrystalReport):
    """How the range of force constants was found.

    Fields that are not listed here are those of ``CrystalReport``.

    Parameters
    ----------
    attempts
        Every grid of q with its largest error; the last one is in use.
    tolerance
        Largest error of a frequency asked for, THz; see :meth:`frequency_errors`.
    charges
        Born charges in use and how far the given ones were off; None without.
    nac_range, nac_cells
        Range (Å) up to which the potential's dipoles are trusted, and the primitive cells of that
        size, between whose q short-range force constants are interpolated near Γ; None without
        charges. See ``docs/polar_crystals.md``.

    """

    attempts: tuple[Attempt, ...]
    tolerance: float
    charges: Charges | None = None
    nac_range: float | None = None
    nac_cells: tuple[int, ...] | None = None

    @property
    def error(self) -> float:
        """Largest error of a frequency (THz) found between the q of the last grid."""
        return self.attempts[-1].error

    def frequency_errors(self, frequencies: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
        """Return the largest errors (THz) that the tolerance allows at some frequencies (THz).

        The error of ω² is at most 2t·max(abs(ω), 1 THz), where t is the tolerance. That is an error
        t of frequencies above 1 THz, an error t·(1 THz)/abs(ω) below, and up to 2·√(t·1 THz)
        where ω² crosses zero.
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
        limit = f", of at most {2 * self.hessian_range:.1f} Å" if self.charges is None else ""
        return [
            self.potential_row(),
            ["method", f"exact D(q), {computed} q computed, {self.seconds:.2f} s"],
            ["range error of grids", grids],
            self.symmetry.row(),
            ["tolerance", f"{self.tolerance:g} THz"],
            [f"below {LOWEST:g} THz", f"error of ω² at most {square:g} THz²"],
            ["cells in use", f"{last.diameter:.1f} Å across{limit}"],
            *self._charge_rows(),
            *self.equilibrium_rows(),
        ]

    def _charge_rows(self) -> list[list[str]]:
        if self.charges is None or self.nac_cells is None:
            return []
        cells = "×".join(map(str, self.nac_cells))
        text = f"{self.nac_range:g} Å: near Γ dipoles, and the potential at the q of {cells} cells"
        return [self.charges.row(), ["NAC range", text]]


def use_exact_dynamical_matrix(
    phonon: Phonopy,
    potential: PotentialLike,
    tolerance: float | None = None,
    max_memory: int = MAX_MEMORY,
    nac_range: float | None = None,
) -> ExactReport:
    """Give ``phonon`` D(q) without folding error, in place; its supercell plays no part.

    Band structure, mesh, densities of states, thermal properties and displacements, group
    velocities, irreps and modulations then run in phonopy's own kernels on force constants that
    reach as far as the potential's do. The range is found: a grid of q is refined until Fourier
    interpolation from it meets D(q) computed directly between its points.

    With Born charges in ``phonon`` (``nac_params``) the interaction of dipoles is complete at every
    q, and the bands split at Γ by the direction of approach, as with phonopy's correction: see
    ``docs/polar_crystals.md``. The charges in ``phonon`` are made to obey symmetry and sum rule.

    Force constants stored in ``phonon`` are removed. Setting masses, Born charges or force
    constants afterwards drops the exact matrix; phonopy then refuses to run until this function
    is called again (or runs on the force constants that were set).

    Parameters
    ----------
    phonon, potential
        phonopy's object, any supercell; a potential, or the name of a model.
    tolerance
        Largest error of a frequency, THz; by default 1e-6 in double precision, 1e-4 in single
        precision, and 1e-3 with Born charges. At the probed q a quarter of it is demanded. Below
        1 THz the error of ω² is limited instead, to twice the tolerance times 1 THz, because √|ω²|
        has an infinite slope at zero: :meth:`ExactReport.frequency_errors` gives the error of ω.
    max_memory
        Bytes that a block of q, and the force constants, may take.
    nac_range
        Size (Å) of the cells at whose q the potential is trusted with the dipole-dipole
        interaction, 10 by default. Used with Born charges only.

    Raises
    ------
    PhonopyEquivariantError
        Born charges of Wang's method; a range of less than 1 or more than 50 Å, or one without
        Born charges; the tolerance is not positive, or cannot be met; an element the potential
        does not know; what ``phonons.cells.require_sound`` refuses.

    """
    potential = as_potential(potential)
    require_sound(phonon)
    start = time.perf_counter()
    primitive = phonon.primitive
    if tolerance is None:
        tolerance = TOLERANCE[potential.dtype] if phonon.nac_params is None else POLAR_TOLERANCE
    _require_positive(tolerance)
    charges = _charges(phonon)
    if nac_range is not None and charges is None:
        raise PhonopyEquivariantError(
            "nac_range= belongs to Born charges, and there are none; leave it away, or give the "
            "charges (nac_params, a BORN file)."
        )
    lattice = prepare(potential, primitive)

    def direct(qpoints: Float[ndarray, "q 3"]) -> Complex[ndarray, "q columns columns"]:
        return respond(potential, lattice, qpoints, max_memory)[0]

    matrix, attempts, polar = _converged(
        phonon, potential, direct, charges, tolerance, nac_range, max_memory
    )
    equilibrium = equilibrium_of(lattice)
    _store(phonon, matrix, charges)
    symmetry = symmetry_report(phonon, potential.parity)
    if not potential.parity:
        broken = broken_between(primitive_operations(phonon), direct)
        symmetry = symmetry._replace(reflections=broken)
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
        charges=charges,
        nac_range=None if polar is None else polar.range,
        nac_cells=None if polar is None else tuple(int(count) for count in polar.counts),
    )


def _require_positive(tolerance: float) -> None:
    if not 0 < tolerance < np.inf:
        raise PhonopyEquivariantError(
            f"The tolerance of exact mode is {tolerance:g} THz; give a positive number "
            "as tolerance=."
        )


def _store(phonon: Phonopy, matrix: DynamicalMatrix, charges: Charges | None) -> None:
    """Put a dynamical matrix into phonopy's object, and the charges that it was made with."""
    phonon.force_constants = None  # clears whatever was derived from it
    if charges is not None:
        given: Any = phonon.nac_params
        phonon.nac_params = given | {"born": charges.born, "dielectric": charges.dielectric}
    # the only private attribute of phonopy that is written; there is no setter
    phonon._dynamical_matrix = matrix  # type: ignore[assignment]


def _charges(phonon: Phonopy) -> Charges | None:
    parameters: Any = phonon.nac_params
    if parameters is None:
        return None
    if parameters.get("method") == "wang":
        raise PhonopyEquivariantError(WANG)
    return obeying(parameters, "phonon.nac_params", primitive_operations(phonon))


def _converged(
    phonon: Phonopy,
    potential: Potential,
    direct: Direct,
    charges: Charges | None,
    tolerance: float,
    nac_range: float | None,
    max_memory: int,
) -> tuple[DynamicalMatrix, list[Attempt], PolarResponse | None]:
    """Return the converged matrix of the potential, with dipoles if there are charges."""
    if charges is None:
        matrix, attempts = converged_matrix(
            phonon,
            direct,
            lambda qpoints, values: mass_weighted(phonon.primitive, qpoints, values),
            tolerance,
            potential.hessian_range,
            max_memory,
            parity=potential.parity,
        )
        return matrix, attempts, None
    size = NAC_RANGE if nac_range is None else nac_range
    polar = PolarResponse(phonon, charges, size, direct, potential.parity)
    matrix, attempts = converged_matrix(
        phonon,
        polar.short_range,
        polar.dynamical_matrices,
        tolerance,
        np.inf,  # S(q) has the range of the window, which has no end
        max_memory,
        polar.kind,
        potential.parity,
    )
    return matrix, attempts, polar

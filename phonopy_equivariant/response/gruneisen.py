"""Mode Grüneisen parameters from the third derivatives of the energy: no finite strain.

With ω² and e the eigenvalues and eigenvectors of the mass-weighted D(q), and η a strain,

    γ_qν = -(1/2ω²_qν) e†_qν·(dD(q)/dη)·e_qν

at fixed fractional q. dΦ(q)/dη is the third derivative of the energy with one displacement along
the tangents of the edge vectors, dr_e/dη = r_e·ε + u_j - u_i (:mod:`.third.motion`; on other
devices than the host a forward derivative of the Bloch response), where u = -Φ(0)^+·(∂²E/∂u∂ε)·ε
takes atoms to where forces vanish (see :mod:`.elastic`). By default ε = 1/3 and η = ln V: γ is then
-∂ln ω/∂ln V (Grüneisen, Ann. Phys. 344, 257 (1912), doi:10.1002/andp.19123441202), what phonopy's
gruneisen takes from three volumes.

D is taken in the lattice gauge, whose phases do not depend on positions. Gauges differ by a
unitary diagonal U(η), which changes e†·dD·e by the expectation of a commutator with D: nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray
from phonopy.physical_units import get_physical_units

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.frequencies import signed_root
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.execution import host_driven
from phonopy_equivariant.response.bloch.lattice import (
    MAX_MEMORY,
    lattice_force_constants,
    lattice_response,
)
from phonopy_equivariant.response.bloch.prepare import Motion
from phonopy_equivariant.response.elastic import as_voigt, crystal_of, strain_response
from phonopy_equivariant.response.rounding import ZONE_BOUNDARY, rounding_of
from phonopy_equivariant.response.third.motion import motion_derivatives
from phonopy_equivariant.results import Result
from phonopy_equivariant.structure import Structure, StructureLike, masses_of

# Relative step of ω² below which modes count as degenerate: structures symmetric to 1e-7 Å.
DEGENERACY = 1e-6

# γ that rounding may change by more than this, absolute and relative, is not given.
UNCERTAIN = 0.01


class Rounding(NamedTuple):
    """What rounding leaves uncertain at every q of a crystal."""

    square: float  # of ω², eV/Å²/amu
    slope: float  # of dω²/dη


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GruneisenParameters(Result):
    """Mode Grüneisen parameters; within a degenerate group they descend where ω² > 0.

    Parameters
    ----------
    qpoints
        In units of the reciprocal vectors of the primitive cell.
    frequencies
        THz, ascending; imaginary ones are negative.
    parameters
        γ of each mode; nan where rounding hides it, so at Γ for acoustic modes.
    strain, displacements
        dε/dη, and how atoms follow it, du/dη (Å).

    """

    qpoints: Float[ndarray, "q 3"]
    frequencies: Float[ndarray, "q modes"]
    parameters: Float[ndarray, "q modes"]
    strain: Float[ndarray, "3 3"]
    displacements: Float[ndarray, "atoms 3"]

    def columns(self) -> list[str]:
        """Return the headings of the table."""
        return ["q", "THz", "GRÜNEISEN"]

    def rows(self) -> list[list[str]]:
        """Return q, frequency and parameter of every mode."""
        return [
            [" ".join(f"{x:.4g}" for x in q), f"{frequency:.4f}", f"{parameter:.4f}"]
            for q, frequencies, parameters in zip(
                self.qpoints, self.frequencies, self.parameters, strict=True
            )
            for frequency, parameter in zip(frequencies, parameters, strict=True)
        ]


def gruneisen_parameters(
    structure: StructureLike,
    potential: PotentialLike,
    qpoints: Float[ndarray, "q 3"] | Sequence[Sequence[float]],
    strain: Float[ndarray, "3 3"] | None = None,
    relax: bool = True,
    degeneracy: float = DEGENERACY,
    max_memory: int = MAX_MEMORY,
) -> GruneisenParameters:
    """Return γ = -∂ln ω/∂η at any q, η = ln V unless a strain is given.

    Degenerate modes get the eigenvalues of dD within their group. Where the structure is under
    stress γ is the derivative at this stress.

    ω² is a small difference of large numbers for acoustic modes near Γ: rounding of it is some
    ``rounding.ROUNDING`` times the largest ω² of the crystal. A mode with a smaller ω² has
    frequency zero. γ is ``nan`` where rounding may change it by more than 0.01 (1 % of γ, if that
    is more): for acoustic modes this happens closer to Γ than ‖q‖ ≈ 1e-6 in double precision
    and 0.01 to 0.02 in single precision, and at Γ, where γ has no value (its limit depends on the
    direction q comes from).

    Parameters
    ----------
    structure
        The primitive cell of a crystal, without forces on its atoms, with masses.
    potential
        A potential, or the name of a model. Bessel functions times the envelope are C³ at the
        cutoff; where the envelope stands alone (C²: pair terms, ``apply_cutoff=False``) γ jumps
        there.
    qpoints
        (n_q, 3) in units of the reciprocal vectors of ``structure``.
    strain
        Symmetric ε per unit of η, taking vectors r to r·(1 + η ε). Default: 1/3, isotropic.
    relax
        Whether atoms follow the strain to where forces vanish; else they move with the cell.
    degeneracy
        Relative step of ω² below which modes are taken as degenerate, beside what rounding
        leaves.
    max_memory
        Bytes that a block of q may take.

    Raises
    ------
    PhonopyEquivariantError
        The structure is not periodic in three directions; the strain is not symmetric.

    """
    potential, crystal = as_potential(potential), crystal_of(structure)
    qpoints = np.asarray(qpoints, float).reshape(-1, 3)
    motion = _motion(potential, crystal, strain, relax)
    # the zone boundary tells how large ω² and its derivative are, and so their rounding
    points = np.concatenate([ZONE_BOUNDARY, qpoints])
    root = np.repeat(masses_of(crystal), 3) ** -0.5
    weights = root[:, None] * root
    matrices, slopes = (
        weights * x for x in _orders(potential, crystal, points, motion, max_memory)
    )
    scale = slice(len(ZONE_BOUNDARY))
    rounding = Rounding(*(rounding_of(potential.dtype, x[scale]) for x in (matrices, slopes)))
    squares, parameters = (np.empty(matrices.shape[:2]) for _ in range(2))
    for q, (matrix, slope) in enumerate(zip(matrices, slopes, strict=True)):
        squares[q], parameters[q] = _modes(matrix, slope, rounding, degeneracy)
    requested = slice(len(ZONE_BOUNDARY), None)
    return GruneisenParameters(
        qpoints,
        _frequencies(squares[requested]),
        parameters[requested],
        motion.strain,
        motion.displacements,
    )


def _orders(
    potential: Potential,
    structure: Structure,
    qpoints: Float[ndarray, "q 3"],
    motion: Motion,
    max_memory: int,
) -> tuple[Complex[ndarray, "q columns columns"], Complex[ndarray, "q columns columns"]]:
    """Return Φ(q) and dΦ(q)/dη; on the host without a program that depends on the crystal."""
    if host_driven():
        values = lattice_force_constants(potential, structure, qpoints, max_memory)
        return values, motion_derivatives(potential, structure, motion, qpoints, max_memory)
    response = lattice_response(potential, structure, qpoints, max_memory, motion=motion)
    return response.values[0], response.values[1]


def _motion(
    potential: Potential, structure: Structure, strain: Float[ndarray, "3 3"] | None, relax: bool
) -> Motion:
    """Return the motion of cell and atoms per unit of η."""
    strain = np.eye(3) / 3 if strain is None else np.asarray(strain, float)
    if np.abs(strain - strain.T).max() > 1e-12 * np.abs(strain).max():
        raise PhonopyEquivariantError(
            "The strain is not symmetric: leave the rotation out, (strain + strain.T) / 2."
        )
    displacements = np.zeros((len(structure.numbers), 3))
    if relax:
        response = strain_response(potential, structure, as_voigt(strain)[:, None])
        displacements = response.displacements.reshape(-1, 3)
    return Motion(strain, displacements)


def _modes(
    matrix: Complex[ndarray, "columns columns"],
    slope: Complex[ndarray, "columns columns"],
    rounding: Rounding,
    degeneracy: float,
) -> tuple[Float[ndarray, " columns"], Float[ndarray, " columns"]]:
    """Return ω² (eV/Å²/amu, ascending) and γ of one q."""
    squares, vectors = np.linalg.eigh(matrix)
    steps = np.diff(squares) > 2 * rounding.square + degeneracy * np.abs(squares[1:])
    group = np.concatenate([[0], np.cumsum(steps)])
    means = squares.copy()
    for index in range(group[-1] + 1):
        degenerate = group == index
        subspace = vectors[:, degenerate]
        vectors[:, degenerate] = subspace @ np.linalg.eigh(subspace.conj().T @ slope @ subspace)[1]
        means[degenerate] = squares[degenerate].mean()
    turned = vectors.conj().T @ slope @ vectors
    slopes = turned.diagonal().real
    gaps = np.where(group == group[:, None], np.inf, np.abs(squares - squares[:, None]))
    # change of e†·dD·e where rounding of D turns e towards other modes, by first order
    changes = rounding.slope + 2 * rounding.square * (np.abs(turned) / gaps).sum(axis=1)
    zero = np.abs(squares) <= rounding.square
    with np.errstate(divide="ignore", invalid="ignore"):
        parameters = -slopes / (2 * means)
        relative = rounding.square / np.abs(means)
        errors = changes / (2 * np.abs(means)) + np.abs(parameters) * relative
    certain = errors <= UNCERTAIN * np.maximum(1.0, np.abs(parameters))
    return np.where(zero, 0.0, squares), np.where(certain & ~zero, parameters, np.nan)


def _frequencies(squares: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """Return sign(ω²)·√|ω²| in THz from ω² in eV/Å²/amu."""
    return signed_root(squares) * get_physical_units().DefaultToTHz

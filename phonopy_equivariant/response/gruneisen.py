"""Mode Grüneisen parameters from the third derivatives of the energy: no finite strain.

With ω² and e the eigenvalues and eigenvectors of the mass-weighted D(q), and η a strain,

    γ_qν = -(1/2ω²_qν) e†_qν·(dD(q)/dη)·e_qν

at fixed fractional q. dΦ(q)/dη is the forward derivative of the Bloch response along the tangents
of the edge vectors, dr_e/dη = r_e·ε + u_j - u_i, where u = -Φ(0)^+·(∂²E/∂u∂ε)·ε takes atoms to
where forces vanish (see :mod:`.elastic`). By default ε = 1/3 and η = ln V: γ is then -∂ln ω/∂ln V
(Grüneisen, Ann. Phys. 344, 257 (1912), doi:10.1002/andp.19123441202), what phonopy's gruneisen
takes from three volumes.

D is taken in the lattice gauge, whose phases do not depend on positions. Gauges differ by a
unitary diagonal U(η), which changes e†·dD·e by the expectation of a commutator with D: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray
from phonopy.phonon.degeneracy import degenerate_sets
from phonopy.physical_units import get_physical_units

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.lattice import MAX_MEMORY, lattice_response
from phonopy_equivariant.response.bloch.prepare import Motion
from phonopy_equivariant.response.elastic import as_voigt, crystal_of, strain_response
from phonopy_equivariant.structure import Structure, masses_of

# Closer to a reciprocal lattice vector than this rounding hides ω² of the acoustic modes.
NEAR_GAMMA = 1e-7

# THz
DEGENERACY = 1e-4


class GruneisenParameters(NamedTuple):
    """Mode Grüneisen parameters; within a degenerate group they descend where ω² > 0."""

    qpoints: Float[ndarray, "q 3"]
    frequencies: Float[ndarray, "q modes"]  # THz, ascending; imaginary ones negative
    parameters: Float[ndarray, "q modes"]  # nan for the acoustic modes at Γ
    strain: Float[ndarray, "3 3"]  # dε/dη
    displacements: Float[ndarray, "atoms 3"]  # du/dη, Å


def gruneisen_parameters(
    potential: Potential,
    primitive: Any,
    qpoints: Float[ndarray, "q 3"] | Sequence[Sequence[float]],
    strain: Float[ndarray, "3 3"] | None = None,
    relax: bool = True,
    degeneracy: float = DEGENERACY,
    max_memory: int = MAX_MEMORY,
) -> GruneisenParameters:
    """Return γ = -∂ln ω/∂η at any q, η = ln V unless a strain is given.

    Degenerate modes get the eigenvalues of dD within their group. Acoustic modes at Γ have no γ
    (its limit depends on the direction q comes from): they are ``nan``, their frequencies zero.
    Where the structure is under stress γ is the derivative at this stress.

    Parameters
    ----------
    potential
        A layered potential. Bessel functions times the envelope are C³ at the cutoff; where the
        envelope stands alone (C²: pair terms, ``apply_cutoff=False``) γ jumps there.
    primitive
        A crystal without forces on its atoms: ASE ``Atoms`` or phonopy's primitive cell, with
        masses, or our own structure.
    qpoints
        (n_q, 3) in units of the reciprocal vectors of ``primitive``.
    strain
        Symmetric ε per unit of η, taking vectors r to r·(1 + η ε). Default: 1/3, isotropic.
    relax
        Whether atoms follow the strain to where forces vanish; else they move with the cell.
    degeneracy
        Steps of frequency (THz) below which modes are taken as degenerate.
    max_memory
        Bytes that a block of q may take.

    Raises
    ------
    PhonopyEquivariantError
        The structure is not periodic in three directions; the strain is not symmetric.

    """
    structure = crystal_of(primitive)
    qpoints = np.asarray(qpoints, float).reshape(-1, 3)
    motion = _motion(potential, structure, strain, relax)
    response = lattice_response(potential, structure, qpoints, max_memory, motion=motion)
    masses = masses_of(primitive)
    root = np.repeat(masses, 3) ** -0.5
    weighted = response.values * root[:, None] * root
    gamma = np.abs(qpoints - np.rint(qpoints)).max(axis=1, initial=0) < NEAR_GAMMA
    optical = _optical_basis(masses)
    squares, parameters = (np.empty(weighted.shape[1:3]) for _ in range(2))
    for q, (matrix, slope) in enumerate(zip(*weighted, strict=True)):
        basis = optical if gamma[q] else None
        squares[q], parameters[q] = _modes(matrix, slope, basis, degeneracy)
    return GruneisenParameters(
        qpoints, _frequencies(squares), parameters, motion.strain, motion.displacements
    )


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
        response = strain_response(potential, structure)
        displacements = (response.displacements @ as_voigt(strain)).reshape(-1, 3)
    return Motion(strain, displacements)


def _optical_basis(masses: Float[ndarray, " atoms"]) -> Float[ndarray, "columns optical"]:
    """Return an orthonormal basis of the mass-weighted displacements without translations."""
    translations = np.kron(np.sqrt(masses)[:, None], np.eye(3))
    return np.linalg.qr(translations, mode="complete")[0][:, 3:]


def _modes(
    matrix: Complex[ndarray, "columns columns"],
    slope: Complex[ndarray, "columns columns"],
    basis: Float[ndarray, "columns optical"] | None,
    degeneracy: float,
) -> tuple[Float[ndarray, " columns"], Float[ndarray, " columns"]]:
    """Return ω² (eV/Å²/amu, ascending) and γ; with a basis zero and nan outside it."""
    if basis is not None:
        matrix, slope = (basis.T @ x @ basis for x in (matrix, slope))
    squares, vectors = np.linalg.eigh(matrix)
    parameters = np.full(len(squares), np.nan)
    for group in degenerate_sets(_frequencies(squares), degeneracy):
        some, mean = vectors[:, group], squares[group].mean()
        if mean:
            slopes = np.linalg.eigvalsh(some.conj().T @ slope @ some)
            parameters[group] = -slopes / (2 * mean)
    if basis is None:
        return squares, parameters
    place = np.searchsorted(squares, 0.0)
    return np.insert(squares, place, np.zeros(3)), np.insert(parameters, place, np.full(3, np.nan))


def _frequencies(squares: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """Return sign(ω²)·√|ω²| in THz from ω² in eV/Å²/amu."""
    return np.sign(squares) * np.sqrt(np.abs(squares)) * get_physical_units().DefaultToTHz

"""D(q) in phonopy's convention at any q, exact: no supercell, no interpolation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.response.bloch.lattice import MAX_MEMORY, lattice_force_constants
from phonopy_equivariant.structure import StructureLike, as_structure, masses_of


def dynamical_matrices(
    potential: PotentialLike,
    primitive: StructureLike,
    qpoints: Float[ndarray, "q 3"] | Sequence[Sequence[float]],
    max_memory: int = MAX_MEMORY,
) -> Complex[ndarray, "q columns columns"]:
    """Return D(q) in phonopy's convention at any q, exact: no supercell, no interpolation.

    D_ij(q) = e^{2πi q·(x_j - x_i)} Φ_ij(q) / sqrt(m_i m_j), eV/(Å² amu); Φ(q) from the Bloch
    response on the primitive cell. Square roots of eigenvalues times phonopy's
    ``unit_conversion_factor`` are frequencies in THz.

    Parameters
    ----------
    potential
        From :func:`phonopy_equivariant.load_potential`, or the name of a model.
    primitive
        The primitive cell, with masses.
    qpoints
        (n_q, 3) in units of the reciprocal vectors of ``primitive``.
    max_memory
        Bytes that a block of q may take.

    Returns
    -------
    ndarray, shape=(n_q, 3n, 3n), complex

    Raises
    ------
    PhonopyEquivariantError
        An element the potential does not know, overlapping atoms, or masses that are not
        positive numbers.

    """
    points = np.asarray(qpoints, float).reshape(-1, 3)
    masses_of(primitive)  # before anything is computed
    force_constants = lattice_force_constants(
        as_potential(potential), primitive, points, max_memory
    )
    return mass_weighted(primitive, points, force_constants)


def mass_weighted(
    primitive: StructureLike,
    qpoints: Float[ndarray, "q 3"],
    force_constants: Complex[ndarray, "q columns columns"],
) -> Complex[ndarray, "q columns columns"]:
    """Return D(q) in phonopy's convention from Φ(q) in the lattice gauge."""
    structure = as_structure(primitive)
    masses = masses_of(primitive)
    fractions = structure.positions @ np.linalg.inv(structure.cell)
    weighted = np.exp(2j * np.pi * qpoints @ fractions.T) / np.sqrt(masses)
    columns = np.repeat(weighted, 3, axis=1)
    return columns.conj()[:, :, None] * force_constants * columns[:, None, :]

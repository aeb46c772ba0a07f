"""The relaxed elastic tensor from long waves: a second road, without derivatives by strain.

Let T be the uniform displacements of all atoms of the cell and I those orthogonal to them. A wave
of wave vector q that moves all atoms alike costs, once the others have relaxed,

    K(q) = Φ_TT - Φ_TI·Φ_II^-1·Φ_IT = V c_ijkl q_j q_l + O(q⁴)

with phases of Φ(q) taken at the positions of atoms. Without stress the 21 constants follow from
K(q) of enough directions (Born and Huang, Dynamical Theory of Crystal Lattices, 1954, § 26).
"""

from __future__ import annotations

import numpy as np
from ase.units import GPa
from jaxtyping import Complex, Float
from numpy import ndarray

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
from phonopy_equivariant.response.elastic import crystal_of
from phonopy_equivariant.response.sound import christoffel_matrices
from phonopy_equivariant.structure import Structure, StructureLike

# 1/Å, the shortest |q|; K(q)/q² is taken at once, twice and three times it, and extrapolated.
_WAVE_NUMBER = 0.02
_FACTORS = np.array([1.0, 2.0, 3.0])
_DIRECTIONS = np.array(
    [
        *([1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]),
        *([0, 1, -1], [1, 0, -1], [1, -1, 0], [1, 1, 1]),
    ],
    float,
)
_PAIRS = [(a, b) for a in range(6) for b in range(a, 6)]


def long_wave_tensor(structure: StructureLike, potential: PotentialLike) -> Float[ndarray, "6 6"]:
    """Return the relaxed elastic tensor (GPa, Voigt's order) from force constants at small q.

    Parameters
    ----------
    structure
        A crystal at rest, without stress.
    potential
        A potential, or the name of a model.

    Raises
    ------
    PhonopyEquivariantError
        The structure is not periodic in three directions; an element the potential does not know.

    """
    crystal = crystal_of(structure)
    unit = _DIRECTIONS / np.linalg.norm(_DIRECTIONS, axis=1, keepdims=True)
    waves = _WAVE_NUMBER * _FACTORS[:, None, None] * unit  # 1/Å, 2π included
    qpoints = (waves.reshape(-1, 3) @ crystal.cell.T) / (2 * np.pi)
    phi = lattice_force_constants(as_potential(potential), crystal, qpoints)
    stiffness = np.array([_schur(p, crystal, q) for p, q in zip(phi, qpoints, strict=True)])
    scaled = stiffness.reshape(*waves.shape[:2], 3, 3) / (
        (waves**2).sum(axis=2)[..., None, None] * crystal.volume * GPa
    )
    # K/q² = a + b q² + c q⁴: the polynomial through three points, at zero
    powers = _FACTORS[:, None] ** np.array([0, 2, 4])
    limit = np.einsum("f,fdik->dik", np.linalg.inv(powers)[0], scaled)
    return _solve(unit, limit)


def _schur(
    phi: Complex[ndarray, "columns columns"], crystal: Structure, q: Float[ndarray, "3"]
) -> Float[ndarray, "3 3"]:
    """Return K(q), eV/Å², from Φ(q) in the lattice gauge."""
    fractions = crystal.positions @ np.linalg.inv(crystal.cell)
    phases = np.repeat(np.exp(2j * np.pi * fractions @ q), 3)
    turned = phases.conj()[:, None] * phi * phases
    together = np.tile(np.eye(3), (len(fractions), 1))
    inside = np.linalg.qr(together, mode="complete")[0][:, 3:]
    stiffness: ndarray = together.T @ turned @ together
    if inside.size:
        coupling = inside.T @ turned @ together
        within = inside.T @ turned @ inside
        stiffness = stiffness - coupling.conj().T @ np.linalg.solve(within, coupling)
    return stiffness.real


def _solve(
    unit: Float[ndarray, "directions 3"], christoffel: Float[ndarray, "directions 3 3"]
) -> Float[ndarray, "6 6"]:
    """Return the tensor whose Christoffel matrices c_ijkl n_j n_l are the given ones."""
    columns = []
    for a, b in _PAIRS:
        voigt = np.zeros((6, 6))
        voigt[a, b] = voigt[b, a] = 1.0
        columns.append(christoffel_matrices(voigt, unit).ravel())
    constants = np.linalg.lstsq(np.array(columns).T, christoffel.ravel(), rcond=None)[0]
    tensor = np.zeros((6, 6))
    for (a, b), value in zip(_PAIRS, constants, strict=True):
        tensor[a, b] = tensor[b, a] = value
    return tensor

"""How well third-order force constants of a supercell interpolate between its q.

Force constants of a supercell have every atom J at its shortest distance from the home atom; atoms
at equal distances share them. Between commensurate q they give

    Φ3(q1, q2, q3) = sum_{J, K} Φ(0i, J, K) e^{2πi (q2·S_J + q3·S_K)},

averaged over the three choices of the home atom, as phono3py does. The engine has Φ3 exactly there.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy import ndarray

from phonopy_equivariant.phonons.cells import (
    Cells,
    supercell_images,
    supercell_of_primitive,
)
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.third.lattice import lattice_third_derivatives

# Triplets compared, and the seed that draws them.
COUNT, _SEED = 4, 1


def interpolation_error(
    cells: Cells,
    compact: Float[ndarray, "prim super super 3 3 3"],
    potential: Potential,
    count: int = COUNT,
) -> float:
    """Return the relative root mean square error of Φ3 at q half-way between commensurate ones.

    Parameters
    ----------
    cells
        With a primitive cell and a supercell, as Phonopy and Phono3py objects have.
    compact
        Third-order force constants of the supercell, eV/Å³.
    potential
        The one they are of.
    count
        Number of triplets of q, drawn at random, always the same for a supercell.

    """
    triplets = halfway_triplets(supercell_of_primitive(cells), count)
    exact = lattice_third_derivatives(potential, cells.primitive, triplets[:, :2])
    interpolated = np.array([interpolate(cells, compact, q) for q in triplets])
    size = np.linalg.norm(exact)  # zero for atoms without neighbours
    return float(np.linalg.norm(interpolated - exact) / size) if size else 0.0


def halfway_triplets(matrix: Int[ndarray, "3 3"], count: int) -> Float[ndarray, "count 3 3"]:
    """Return triplets with sum zero of q that twice the supercell has and the supercell has not."""
    rng = np.random.default_rng(_SEED)
    size = 2 * int(np.abs(matrix).sum())
    numbers = rng.integers(-size, size, (count, 2, 3))
    # of odd numbers one is enough, and both must not add up to even ones
    numbers[:, 0, 0] += 1 - numbers[:, 0, 0] % 2
    numbers[:, 1, 1] += 1 - numbers[:, 1, 1] % 2
    numbers[:, 1, 0] -= numbers[:, 1, 0] % 2
    two = numbers @ np.linalg.inv(2.0 * matrix)
    return np.concatenate([-two.sum(axis=1, keepdims=True), two], axis=1)


def interpolate(
    cells: Cells,
    compact: Float[ndarray, "prim super super 3 3 3"],
    triplet: Float[ndarray, "3 3"],
) -> Complex[ndarray, "columns columns columns"]:
    """Return Φ3 at three q in the lattice gauge, from force constants of a supercell."""
    owner, _ = supercell_images(cells)
    phases = [_phases(cells, owner, q) for q in triplet]
    atoms = len(cells.primitive)
    total = np.zeros((3 * atoms,) * 3, complex)
    for home in range(3):
        second, third = (home + 1) % 3, (home + 2) % 3
        part = np.empty((atoms, 3, atoms, 3, atoms, 3), complex)
        for i in range(atoms):
            part[i] = _gathered(compact[i], owner, phases[second][i], phases[third][i])
        part = part.reshape(total.shape)
        total += part.transpose(np.argsort((home, second, third)))
    return total / 3


def _phases(
    cells: Cells, owner: Int[ndarray, " super"], q: Float[ndarray, "3"]
) -> Complex[ndarray, "prim super"]:
    """Return e^{2πi q·S} of every atom as seen from a primitive atom, mean of nearest images."""
    vectors, multiplicity = cells.primitive.get_smallest_vectors()
    positions = cells.primitive.scaled_positions
    result = np.empty((len(positions), len(owner)), complex)
    for atom, j in enumerate(owner):
        for i, (number, first) in enumerate(multiplicity[atom]):
            cell = vectors[first : first + number] + positions[i] - positions[j]
            result[i, atom] = np.exp(2j * np.pi * (np.rint(cell) @ q)).mean()
    return result


def _gathered(
    values: Float[ndarray, "super super 3 3 3"],
    owner: Int[ndarray, " super"],
    second: Complex[ndarray, " super"],
    third: Complex[ndarray, " super"],
) -> Complex[ndarray, "3 prim 3 prim 3"]:
    """Return the sum over images of two atoms with their phases, for one home atom."""
    count, atoms = len(owner), owner.max() + 1
    image_of = np.zeros((2, atoms, count), complex)
    image_of[0, owner, np.arange(count)] = second
    image_of[1, owner, np.arange(count)] = third
    half = (image_of[0] @ values.reshape(count, -1)).reshape(atoms, count, 27)
    both = (image_of[1] @ half).reshape(atoms, atoms, 3, 3, 3)
    return both.transpose(2, 0, 3, 1, 4)

"""Supercells: what ``--dim`` means, and which one to take without it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import get_primitive_matrix_with_auto
from phonopy.structure.symmetry import Symmetry

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.structure import inscribed_radius

DIAMETER = 15.0  # Å, of the sphere inscribed in a supercell chosen here
MAX_ATOMS = 200


def parse_dim(words: Sequence[str]) -> Int[ndarray, "3 3"]:
    """Return the supercell matrix of one number, three numbers or nine numbers.

    Raises
    ------
    PhonopyEquivariantError
        Another count, words that are not whole numbers, or a matrix of no or negative volume.

    """
    try:
        numbers = np.array([int(word) for word in words])
    except ValueError as error:
        raise PhonopyEquivariantError(
            f"--dim {' '.join(words)}: give whole numbers, as in --dim 2 2 2; "
            "the structure file stands before --dim."
        ) from error
    if len(numbers) not in (1, 3, 9):
        raise PhonopyEquivariantError(
            f"--dim {' '.join(words)}: give one number, three, or nine (rows of the matrix)."
        )
    matrix = numbers.reshape(3, 3) if len(numbers) == 9 else np.diag(numbers * np.ones(3, int))
    if round(np.linalg.det(matrix)) <= 0 or (len(numbers) < 9 and numbers.min() < 1):
        remedy = "exchange two rows" if len(numbers) == 9 else "give positive numbers"
        raise PhonopyEquivariantError(
            f"--dim {' '.join(words)}: a supercell needs a positive volume; {remedy}."
        )
    return matrix


def choose_supercell(
    unitcell: PhonopyAtoms,
    symprec: float = 1e-5,
    diameter: float = DIAMETER,
    max_atoms: int = MAX_ATOMS,
) -> Int[ndarray, "3 3"]:
    """Return the supercell matrix of the smallest supercell with the given inscribed diameter.

    Candidates are the diagonal multiples of the unit cell and of the primitive cell that keep
    every rotation of the crystal and have at most ``max_atoms`` atoms. Where none is wide
    enough, the widest is taken; a unit cell with more atoms stays as it is.
    """
    primitive_matrix = get_primitive_matrix_with_auto(unitcell, "auto", symprec=symprec)
    rotations = _rotations(unitcell, symprec)
    candidates = []
    for basis in (np.eye(3), np.eye(3) if primitive_matrix is None else primitive_matrix):
        per_copy = len(unitcell) * abs(np.linalg.det(basis))
        for factors in _factors(int(max_atoms / per_copy + 1e-6)):
            matrix = basis @ np.diag(factors)  # columns, phonopy's way round
            rounded = np.rint(matrix).astype(int)
            if np.abs(matrix - rounded).max() < 1e-6 and _keeps(rounded, rotations):
                candidates.append(rounded)
    if not candidates:
        return np.eye(3, dtype=int)
    return min(candidates, key=lambda matrix: _merit(unitcell, matrix, diameter))


def count_atoms(unitcell: PhonopyAtoms, matrix: Int[ndarray, "3 3"]) -> int:
    """Return the number of atoms of a supercell, as a Python integer that cannot overflow."""
    rows = [[int(x) for x in row] for row in matrix]
    (a, b, c), (d, e, f), (g, h, i) = rows
    return len(unitcell) * abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))


def count_operations(
    unitcell: PhonopyAtoms, matrix: Int[ndarray, "3 3"], symprec: float = 1e-5
) -> int:
    """Return the number of symmetry operations of a supercell, translations included."""
    rotations = _rotations(unitcell, symprec)
    kept = sum(_keeps(matrix, rotation[None]) for rotation in rotations)
    return kept * (count_atoms(unitcell, matrix) // len(unitcell))


def supercell_diameter(unitcell: PhonopyAtoms, matrix: Int[ndarray, "3 3"]) -> float:
    """Return the diameter (Å) of the sphere inscribed in a supercell."""
    return 2 * inscribed_radius(np.asarray(matrix).T @ unitcell.cell)


def dim_text(matrix: Int[ndarray, "3 3"]) -> str:
    """Return the numbers that ``--dim`` takes for a matrix."""
    matrix = np.asarray(matrix)
    diagonal = np.diag(matrix)
    return " ".join(map(str, diagonal if (np.diag(diagonal) == matrix).all() else matrix.ravel()))


def supercell_line(unitcell: PhonopyAtoms, matrix: Int[ndarray, "3 3"], origin: str) -> str:
    """Return one line that says which supercell is taken."""
    return (
        f"Supercell: --dim {dim_text(matrix)} ({origin}), {count_atoms(unitcell, matrix)} atoms, "
        f"inscribed diameter {supercell_diameter(unitcell, matrix):.1f} Å"
    )


def _factors(copies: int) -> Iterable[tuple[int, int, int]]:
    numbers = range(1, copies + 1)
    for first, second in itertools.product(numbers, numbers):
        for third in range(1, copies // (first * second) + 1):
            yield first, second, third


def _rotations(unitcell: PhonopyAtoms, symprec: float) -> Int[ndarray, "operations 3 3"]:
    try:
        rotations: ndarray = Symmetry(unitcell, symprec).symmetry_operations["rotations"]
    except Exception as error:  # whatever spglib and phonopy raise
        raise PhonopyEquivariantError(
            "The symmetry of the structure cannot be found; check it for overlapping atoms, "
            "and --tolerance."
        ) from error
    return rotations.astype(int)


def _keeps(matrix: Int[ndarray, "3 3"], rotations: Int[ndarray, "operations 3 3"]) -> bool:
    """Tell whether all rotations map the supercell's lattice onto itself."""
    turned = np.linalg.inv(matrix) @ rotations @ matrix
    return bool(np.abs(turned - np.rint(turned)).max() < 1e-6)


def _merit(
    unitcell: PhonopyAtoms, matrix: Int[ndarray, "3 3"], diameter: float
) -> tuple[float, ...]:
    """Return what is smallest for the best supercell."""
    width = supercell_diameter(unitcell, matrix)
    size = float(round(abs(np.linalg.det(matrix))))
    wide_enough = width >= diameter - 1e-6
    return (0.0, size, -width) if wide_enough else (1.0, -round(width, 6), size)

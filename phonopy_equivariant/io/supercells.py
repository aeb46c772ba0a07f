"""Supercells: what ``--dim`` means, and which one to take without it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import get_primitive_matrix_with_auto
from phonopy.structure.symmetry import Symmetry

from phonopy_equivariant.defaults import PHONOPY_SYMPREC
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.crystals import Crystal
from phonopy_equivariant.io.memory import check_memory
from phonopy_equivariant.phonons.nac import NAC_RANGE
from phonopy_equivariant.structure import inscribed_radius

# Å, of the sphere inscribed in a supercell chosen here. With the bundled model, frequencies between
# the q of supercells of 20 Å are off by 0.07 THz at most (ten crystals), of 14 to 16 Å by 0.5 THz.
DIAMETER = 20.0

SURELY_FITS = 500  # atoms, in 0.1 GB


def parse_dim(words: Sequence[str]) -> Int[ndarray, "3 3"]:
    """Return the supercell matrix of words; one may hold several numbers, as in ``"2 2 2"``.

    Raises
    ------
    PhonopyEquivariantError
        Words that are not whole numbers; as :func:`supercell_matrix`.

    """
    words = " ".join(words).split()
    try:
        numbers = np.array([int(word) for word in words])
    except ValueError as error:
        raise PhonopyEquivariantError(
            f"supercell={' '.join(words)}: give whole numbers, as in supercell=2 2 2."
        ) from error
    return supercell_matrix(numbers)


def supercell_matrix(numbers: object) -> Int[ndarray, "3 3"]:
    """Return the supercell matrix of one number, three numbers or nine numbers.

    Raises
    ------
    PhonopyEquivariantError
        The count is another one, a number is not whole, or the volume is not positive.

    """
    values = np.asarray(numbers)
    text = f"supercell={' '.join(map(str, values.ravel()))}"
    if values.size not in (1, 3, 9):
        raise PhonopyEquivariantError(
            f"{text}: give one number, three, or nine (rows of the matrix)."
        )
    if values.dtype.kind not in "iuf" or (values != np.rint(values)).any():
        raise PhonopyEquivariantError(f"{text}: give whole numbers.")
    integers = np.rint(values).astype(int).ravel()
    matrix = integers.reshape(3, 3) if integers.size == 9 else np.diag(integers * np.ones(3, int))
    if round(np.linalg.det(matrix)) <= 0 or (integers.size < 9 and integers.min() < 1):
        remedy = "exchange two rows" if integers.size == 9 else "give positive numbers"
        raise PhonopyEquivariantError(f"{text}: a supercell needs a positive volume; {remedy}.")
    return matrix


def select_supercell(
    crystal: Crystal,
    requested: Int[ndarray, "3 3"] | None = None,
    symprec: float = PHONOPY_SYMPREC,
    polar: bool = False,
) -> tuple[Int[ndarray, "3 3"], str]:
    """Return the supercell matrix and where it comes from.

    The ``requested`` matrix wins over that of the file, and the file over the automatic choice.
    With ``polar``, for phonopy's correction with Born charges, the choice is a smaller one: see
    :mod:`.phonons.nac`.

    Raises
    ------
    PhonopyEquivariantError
        The matrix is not that of the file's displaced supercells, or the supercell does not fit
        into memory.

    """
    of_file = crystal.supercell_matrix
    if requested is not None:
        matrix, origin = np.asarray(requested), "given by supercell="
        if crystal.dataset and of_file is not None and (matrix != of_file).any():
            raise PhonopyEquivariantError(
                f"{crystal.path} has displaced supercells of supercell={dim_text(of_file)}, not of "
                f"supercell={dim_text(matrix)}; leave it away, or give the structure file."
            )
    elif of_file is not None:
        matrix, origin = np.asarray(of_file), f"from {crystal.path.name}"
    else:
        diameter, origin = (NAC_RANGE, "chosen for Born charges") if polar else (DIAMETER, "chosen")
        matrix = choose_supercell(crystal.unitcell, symprec, diameter)
    atoms = count_atoms(crystal.unitcell, matrix)
    if atoms > SURELY_FITS:
        check_memory(atoms, count_operations(crystal.unitcell, matrix, symprec))
    return matrix, origin


def choose_supercell(
    unitcell: PhonopyAtoms,
    symprec: float = PHONOPY_SYMPREC,
    diameter: float = DIAMETER,
) -> Int[ndarray, "3 3"]:
    """Return the supercell matrix of the smallest supercell with the given inscribed diameter.

    Candidates are the diagonal multiples of the unit cell, of the conventional cell and of the
    primitive cell that keep every rotation of the crystal. Where none is wide enough, the widest
    is taken.
    """
    symmetry = _symmetry(unitcell, symprec)
    primitive_matrix = get_primitive_matrix_with_auto(unitcell, "auto", symprec=symprec)
    primitive = np.eye(3) if primitive_matrix is None else np.asarray(primitive_matrix)
    rotations = symmetry.symmetry_operations["rotations"]
    conventional = np.linalg.inv(symmetry.dataset.transformation_matrix)
    candidates = []
    for basis in (np.eye(3), conventional, primitive):
        heights = 1 / np.linalg.norm(np.linalg.inv(basis.T @ unitcell.cell), axis=0)
        for factors in np.ndindex(*np.ceil(diameter / heights - 1e-6).astype(int)):
            matrix = basis @ np.diag(np.array(factors) + 1)  # columns, phonopy's way round
            rounded = np.rint(matrix).astype(int)
            is_supercell = np.abs(matrix - rounded).max() < 1e-6 and np.linalg.det(rounded) > 0.5
            if is_supercell and _keeps(rounded, rotations):
                candidates.append(rounded)
    return min(candidates, key=lambda matrix: _merit(unitcell, matrix, diameter))


def count_atoms(unitcell: PhonopyAtoms, matrix: Int[ndarray, "3 3"]) -> int:
    """Return the number of atoms of a supercell, as a Python integer that cannot overflow."""
    rows = [[int(x) for x in row] for row in matrix]
    (a, b, c), (d, e, f), (g, h, i) = rows
    return len(unitcell) * abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))


def count_operations(
    unitcell: PhonopyAtoms, matrix: Int[ndarray, "3 3"], symprec: float = PHONOPY_SYMPREC
) -> int:
    """Return the number of symmetry operations of a supercell, translations included."""
    rotations = _symmetry(unitcell, symprec).symmetry_operations["rotations"]
    num_rotations = sum(_keeps(matrix, rotation[None]) for rotation in rotations)
    return num_rotations * (count_atoms(unitcell, matrix) // len(unitcell))


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
        f"Supercell: supercell={dim_text(matrix)} ({origin}), "
        f"{count_atoms(unitcell, matrix)} atoms, inscribed diameter "
        f"{supercell_diameter(unitcell, matrix):.1f} Å"
    )


def _symmetry(unitcell: PhonopyAtoms, symprec: float) -> Symmetry:
    try:
        return Symmetry(unitcell, symprec)
    except Exception as error:  # whatever spglib and phonopy raise
        raise PhonopyEquivariantError(
            "The symmetry of the structure cannot be found; check it for overlapping atoms, "
            "and symprec=."
        ) from error


def _keeps(matrix: Int[ndarray, "3 3"], rotations: Int[ndarray, "operations 3 3"]) -> bool:
    """Tell whether all rotations map the supercell's lattice onto itself."""
    turned = np.linalg.inv(matrix) @ rotations @ matrix
    return bool(np.abs(turned - np.rint(turned)).max() < 1e-6)


def _merit(
    unitcell: PhonopyAtoms, matrix: Int[ndarray, "3 3"], diameter: float
) -> tuple[float, ...]:
    """Sort key: wide enough first, then fewer atoms, then wider."""
    width = supercell_diameter(unitcell, matrix)
    size = float(round(abs(np.linalg.det(matrix))))
    wide_enough = width >= diameter - 1e-6
    return (0.0, size, -width) if wide_enough else (1.0, -round(width, 6), size)

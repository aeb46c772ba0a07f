"""Supercells: parsed, chosen, counted, and refused when they cannot fit."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.memory import available_memory, check_memory
from phonopy_equivariant.io.supercells import (
    choose_supercell,
    count_atoms,
    count_operations,
    dim_text,
    parse_dim,
    supercell_diameter,
)
from phonopy_equivariant.structure import as_structure, to_phonopy


def crystal(name: str, *arguments: object, **options: object) -> PhonopyAtoms:
    return to_phonopy(as_structure(bulk(name, *arguments, **options)))


def crystal_of(cell: object, symbols: str, fractions: object) -> PhonopyAtoms:
    atoms = Atoms(symbols, cell=cell, scaled_positions=fractions, pbc=True)
    return to_phonopy(as_structure(atoms))


RUTILE = np.array(
    [[0, 0, 0], [1, 1, 1], [0.61, 0.61, 0], [1.39, 1.39, 0], [0.39, 1.61, 1], [1.61, 0.39, 1]]
) / 2  # fmt: skip
PEROVSKITE = np.array([[0, 0, 0], [1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
SILICON = crystal("Si", a=5.43)
CONVENTIONAL = crystal("Si", a=5.43, cubic=True)
MAGNESIUM = crystal("Mg", "hcp", a=3.2, c=5.2)


@pytest.mark.parametrize(
    ("words", "matrix"),
    [
        ("2", np.diag([2, 2, 2])),
        ("2 3 4", np.diag([2, 3, 4])),
        ("0 1 1 1 0 1 1 1 0", [[0, 1, 1], [1, 0, 1], [1, 1, 0]]),
    ],
)
def test_dim_is_read_and_written(words: str, matrix: object) -> None:
    parsed = parse_dim(words.split())
    np.testing.assert_array_equal(parsed, matrix)
    np.testing.assert_array_equal(parse_dim(dim_text(parsed).split()), matrix)
    np.testing.assert_array_equal(parse_dim([words]), matrix)  # --dim "2 2 2"


@pytest.mark.parametrize("words", ["", "2 2", "0", "2 2 -2", "2.5", "1 2 3 4 5 6 7 8 9"])
def test_dim_without_a_supercell_is_refused(words: str) -> None:
    with pytest.raises(PhonopyEquivariantError, match="supercell="):
        parse_dim(words.split())


def test_the_choice_does_not_depend_on_the_cell_given() -> None:
    """Multiples of the conventional cell are tried from the primitive cell too, and back."""
    for cell in (SILICON, CONVENTIONAL):
        matrix = choose_supercell(cell)
        assert count_atoms(cell, matrix) == 512
        assert supercell_diameter(cell, matrix) == pytest.approx(4 * 5.43)
        narrow = choose_supercell(cell, diameter=12.0)
        assert count_atoms(cell, narrow) == 128  # four primitive cells along each axis
        assert supercell_diameter(cell, narrow) == pytest.approx(4 * 5.43 / np.sqrt(3))


def test_the_choice_keeps_the_symmetry() -> None:
    matrix = choose_supercell(MAGNESIUM, diameter=12.0)
    assert matrix[0, 0] == matrix[1, 1]
    assert supercell_diameter(MAGNESIUM, matrix) >= 12
    phonon = Phonopy(MAGNESIUM, matrix, primitive_matrix="P", log_level=0)
    operations = phonon.symmetry.symmetry_operations["rotations"]
    assert len(operations) == count_operations(MAGNESIUM, matrix)


@pytest.mark.parametrize(
    ("atoms", "cell"),
    [
        (6, crystal_of([[4.594, 0, 0], [0, 4.594, 0], [0, 0, 2.959]], "TiTiOOOO", RUTILE)),
        (5, crystal_of(4.0 * np.eye(3), "BaTiOOO", PEROVSKITE)),
        (4, crystal("GaN", "wurtzite", a=3.19, c=5.19)),
        (2, crystal("NaCl", "rocksalt", a=5.64)),
        (8, crystal("MgO", "rocksalt", a=4.21, cubic=True)),
        (2, crystal("C", "diamond", a=3.567)),
        (1, crystal("Cu", "fcc", a=3.61)),
        (1, crystal("W", "bcc", a=3.165)),
        (2, crystal("Be", "hcp", a=2.29, c=3.58)),
        (2, crystal_of(np.diag([2.6, 12, 15]), "CC", [[0, 0, 0], [0.5, 0, 0]])),
        (1, crystal_of([[3, 0, 0], [1, 4, 0], [0.5, 0.7, 25]], "C", [[0, 0, 0]])),
    ],
)
def test_the_choice_is_as_wide_as_force_constants_reach(atoms: int, cell: PhonopyAtoms) -> None:
    """A limit of atoms belongs to DFT: 96 atoms made 9.3 Å of rutile."""
    matrix = choose_supercell(cell)
    assert len(cell) == atoms
    assert supercell_diameter(cell, matrix) >= 20.0 - 1e-6
    # and no smaller one along any axis would be wide enough
    for axis in range(3):
        if matrix[axis, axis] > 1 and (np.diag(np.diag(matrix)) == matrix).all():
            smaller = matrix.copy()
            smaller[axis, axis] -= 1
            assert supercell_diameter(cell, smaller) < 20.0


def test_the_smallest_supercell_that_is_wide_enough() -> None:
    matrix = choose_supercell(SILICON, diameter=6.0)
    np.testing.assert_array_equal(matrix, np.diag([2, 2, 2]))


@pytest.mark.filterwarnings("ignore:Warning. Point group symmetries:UserWarning")
def test_operations_of_a_supercell_that_breaks_symmetry() -> None:
    matrix = np.diag([1, 1, 2])
    phonon = Phonopy(CONVENTIONAL, matrix, primitive_matrix="P", log_level=0)
    operations = phonon.symmetry.symmetry_operations["rotations"]
    assert len(operations) == count_operations(CONVENTIONAL, matrix)


def test_memory() -> None:
    assert (available_memory() or 1) > 0
    check_memory(1000, 48 * 500, 2)
    with pytest.raises(PhonopyEquivariantError, match="needs at least .* a smaller supercell="):
        check_memory(10**9, 48 * 10**9)

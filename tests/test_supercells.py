"""Supercells: parsed, chosen, counted, and refused when they cannot fit."""

from __future__ import annotations

import numpy as np
import pytest
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


@pytest.mark.parametrize("words", ["", "2 2", "0", "2 2 -2", "2.5", "1 2 3 4 5 6 7 8 9"])
def test_dim_without_a_supercell_is_refused(words: str) -> None:
    with pytest.raises(PhonopyEquivariantError, match="--dim"):
        parse_dim(words.split())


def test_the_choice_does_not_depend_on_the_cell_given() -> None:
    """From the conventional cell, too, multiples of the primitive one are wider for their size."""
    for cell in (SILICON, CONVENTIONAL):
        matrix = choose_supercell(cell)
        assert count_atoms(cell, matrix) == 128
        # the largest with at most 200 atoms: four primitive cells along each axis
        assert supercell_diameter(cell, matrix) == pytest.approx(4 * 5.43 / np.sqrt(3))


def test_the_choice_keeps_the_symmetry() -> None:
    matrix = choose_supercell(MAGNESIUM)
    assert matrix[0, 0] == matrix[1, 1]
    assert supercell_diameter(MAGNESIUM, matrix) >= 12
    assert count_atoms(MAGNESIUM, matrix) <= 200
    phonon = Phonopy(MAGNESIUM, matrix, primitive_matrix="P", log_level=0)
    operations = phonon.symmetry.symmetry_operations["rotations"]
    assert len(operations) == count_operations(MAGNESIUM, matrix)


def test_the_smallest_supercell_that_is_wide_enough() -> None:
    matrix = choose_supercell(SILICON, diameter=6.0)
    np.testing.assert_array_equal(matrix, np.diag([2, 2, 2]))
    np.testing.assert_array_equal(choose_supercell(SILICON, max_atoms=1), np.eye(3))


@pytest.mark.filterwarnings("ignore:Warning. Point group symmetries:UserWarning")
def test_operations_of_a_supercell_that_breaks_symmetry() -> None:
    matrix = np.diag([1, 1, 2])
    phonon = Phonopy(CONVENTIONAL, matrix, primitive_matrix="P", log_level=0)
    operations = phonon.symmetry.symmetry_operations["rotations"]
    assert len(operations) == count_operations(CONVENTIONAL, matrix)


def test_memory() -> None:
    assert (available_memory() or 1) > 0
    check_memory(1000, 48 * 500, 2)
    with pytest.raises(PhonopyEquivariantError, match=r"needs at least .* choose a smaller --dim"):
        check_memory(10**9, 48 * 10**9)

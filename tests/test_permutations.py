"""phonopy's permutations of supercells by composition: the same arrays as phonopy's own."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from phonopy import Phonopy
from phonopy.structure import symmetry

from phonopy_equivariant.phonons.permutations import composed_permutations
from phonopy_equivariant.structure import as_structure, to_phonopy

ROCK_SALT = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
QUARTZ = crystal(
    ["Si", "O"],
    [(0.4697, 0, 0), (0.4135, 0.2669, 0.1191)],
    spacegroup=154,
    cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
)


@pytest.mark.parametrize(
    ("atoms", "matrix"),
    [
        (ROCK_SALT, np.diag([3, 3, 3])),
        (ROCK_SALT, np.array([[2, 1, 0], [0, 3, 1], [1, 0, 2]])),
        (bulk("Si", "diamond", a=5.43), np.array([[-3, 3, 3], [3, -3, 3], [3, 3, -3]])),
        (bulk("Mg", "hcp", a=3.2, c=5.2), np.diag([4, 4, 3])),
        (QUARTZ, np.diag([4, 4, 3])),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Point group symmetries of supercell and primitive")
@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_the_same_permutations(atoms: Atoms, matrix: np.ndarray, noise: float) -> None:
    moved = atoms.copy()
    moved.positions += noise * np.random.default_rng(5).normal(size=atoms.positions.shape)
    cell = to_phonopy(as_structure(moved))
    own = Phonopy(cell, matrix, primitive_matrix="P")
    with composed_permutations():
        ours = Phonopy(cell, matrix, primitive_matrix="P")
    for name in ("symmetry", "primitive_symmetry"):
        one, other = getattr(own, name), getattr(ours, name)
        np.testing.assert_array_equal(one.atomic_permutations, other.atomic_permutations)
        np.testing.assert_array_equal(one.pointgroup_operations, other.pointgroup_operations)
        np.testing.assert_array_equal(one.reciprocal_operations, other.reciprocal_operations)
        assert one.atomic_permutations.dtype == other.atomic_permutations.dtype


def test_phonopy_is_left_as_it_was() -> None:
    before = symmetry.compute_all_sg_permutations, symmetry.collect_unique_rotations
    with pytest.raises(ZeroDivisionError), composed_permutations():
        assert symmetry.compute_all_sg_permutations is not before[0]
        raise ZeroDivisionError
    assert (symmetry.compute_all_sg_permutations, symmetry.collect_unique_rotations) == before

"""Point groups of orbits and of real molecules, and their character tables."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule as ase_molecule
from conftest import IMPROPER
from scipy.spatial.transform import Rotation

from phonopy_equivariant.molecules.characters import character_table
from phonopy_equivariant.molecules.operations import find_symmetry


def turn(axis: list[float], fold: int) -> np.ndarray:
    vector = np.array(axis, float) / np.linalg.norm(axis)
    return Rotation.from_rotvec(2 * np.pi / fold * vector).as_matrix()


MIRROR_Z, MIRROR_Y = np.diag([1.0, 1, -1]), np.diag([1.0, -1, 1])
Z, X, INVERSION = [0.0, 0, 1], [1.0, 0, 0], -np.eye(3)


def generators() -> dict[str, list[np.ndarray]]:
    groups = {"C1": [np.eye(3)], "Cs": [MIRROR_Z], "Ci": [INVERSION]}
    for n in range(2, 9):
        groups[f"C{n}"] = [turn(Z, n)]
        groups[f"C{n}v"] = [turn(Z, n), MIRROR_Y]
        groups[f"D{n}"] = [turn(Z, n), turn(X, 2)]
        groups[f"D{n}h"] = [turn(Z, n), turn(X, 2), MIRROR_Z]
        groups[f"C{n}h"] = [turn(Z, n), MIRROR_Z]
    for n in (2, 3, 4, 5, 6):
        groups[f"D{n}d"] = [turn(Z, 2 * n) @ MIRROR_Z, turn(X, 2)]
    for n in (2, 3, 4):
        groups[f"S{2 * n}"] = [turn(Z, 2 * n) @ MIRROR_Z]
    for name in "TOI":
        rotations = list(Rotation.create_group(name).as_matrix())
        groups[name] = rotations
        groups[f"{name}h"] = [*rotations, INVERSION]
    groups["Td"] = [*groups["T"], turn(Z, 4) @ MIRROR_Z]
    return groups


def closure(matrices: list[np.ndarray]) -> np.ndarray:
    found = [np.eye(3)]
    for element in found:
        for generator in matrices:
            product = element @ generator
            if np.abs(np.array(found) - product).max(axis=(1, 2)).min() > 1e-8:
                found.append(product)
    return np.array(found)


@pytest.mark.parametrize("name", generators())
def test_group_of_an_orbit(name: str) -> None:
    """Two kinds of atoms at general points under all operations of a group have that group."""
    group = closure(generators()[name])
    rng = np.random.default_rng(5)
    points = [rng.uniform(-1, 1, 3) + [0.5, 1.0, 2.0] for _ in range(2)]
    # three kinds where operations are few, lest the atoms lie in a plane
    points += [rng.uniform(-2, 2, 3) for _ in range(4 if len(group) < 5 else 0)]
    positions = np.vstack([group @ point for point in points]) @ IMPROPER.T
    numbers = np.repeat(np.arange(1, len(points) + 1), len(group))
    masses = numbers.astype(float)
    symmetry = find_symmetry(numbers, positions, masses, 1e-3)
    assert symmetry.group == name
    assert len(symmetry.operations) == len(group)
    assert symmetry.deviation < 1e-10
    assert symmetry.rotations == sum(np.linalg.det(m) > 0 for m in group)
    centred = positions - masses @ positions / masses.sum()
    table = character_table(symmetry, centred, masses)
    # a faithful polar vector decomposes into whole numbers, and its dimension is three
    np.testing.assert_allclose(table.vector, np.rint(table.vector), atol=1e-6)
    assert table.vector @ table.dimensions == pytest.approx(3)
    assert table.symmetric_tensor @ table.dimensions == pytest.approx(6)


@pytest.mark.parametrize(
    ("fold", "name", "subgroup"), [(12, "D12h", "D6h"), (11, "D11h", "C2v"), (14, "D14h", "D7h")]
)
def test_high_axes_fall_back_on_a_subgroup(fold: int, name: str, subgroup: str) -> None:
    """A ring of many atoms: names up to D10h have a table."""
    angles = 2 * np.pi * np.arange(fold) / fold
    ring = 5 * np.column_stack([np.cos(angles), np.sin(angles), 0 * angles])
    symmetry = find_symmetry(np.full(fold, 6), ring, np.full(fold, 12.0))
    assert symmetry.group == name
    table = character_table(symmetry, ring, np.full(fold, 12.0))
    assert table.group == subgroup
    assert table.vector @ table.dimensions == pytest.approx(3)


REAL_MOLECULES = {
    "C60": "Ih", "C3H4_D2d": "D2d", "C2H6": "D3d", "BF3": "D3h", "butadiene": "C2h", "C2H4": "D2h",
    "H2O2": "C2", "CH3COCH3": "C2v", "isobutane": "C3v", "CH3CH2OH": "Cs", "N2": "Dinfh",
    "OCS": "Cinfv", "COF2": "C2v", "C4H4NH": "C2v", "cyclobutane": "D2d", "H": "Kh",
}  # fmt: skip


@pytest.mark.parametrize("name", REAL_MOLECULES)
def test_group_of_a_real_molecule(name: str) -> None:
    atoms = ase_molecule(name)
    atoms.rotate(37, (1, 2, 3))
    symmetry = find_symmetry(atoms.numbers, atoms.positions, atoms.get_masses())
    assert symmetry.group == REAL_MOLECULES[name]


def test_isotopes_lower_the_symmetry() -> None:
    methane = ase_molecule("CH4")
    masses = methane.get_masses()
    masses[1] = 2.014
    assert find_symmetry(methane.numbers, methane.positions, masses).group == "C3v"
    water = ase_molecule("H2O")
    masses = water.get_masses()
    masses[1] = 2.014
    assert find_symmetry(water.numbers, water.positions, masses).group == "Cs"


def test_tolerance_decides_and_the_deviation_is_told() -> None:
    atoms = ase_molecule("C6H6")
    atoms.positions += np.random.default_rng(1).uniform(-0.003, 0.003, atoms.positions.shape)
    found = {
        tolerance: find_symmetry(atoms.numbers, atoms.positions, atoms.get_masses(), tolerance)
        for tolerance in (0.03, 1e-4)
    }
    assert found[0.03].group == "D6h"
    assert 1e-3 < found[0.03].deviation < 0.03
    assert found[1e-4].group == "C1"


def test_mulliken_orients_planar_molecules() -> None:
    """x across the plane: ethylene's out-of-plane dipole is B3u, formaldehyde's is B1."""
    for name, irrep in (("C2H4", "B3u"), ("H2CO", "B1"), ("C4H4NH", "B1")):
        atoms = ase_molecule(name)
        normal = np.linalg.svd(atoms.positions - atoms.positions.mean(axis=0))[2][2]
        symmetry = find_symmetry(atoms.numbers, atoms.positions, atoms.get_masses())
        centred = atoms.positions - atoms.get_center_of_mass()
        table = character_table(symmetry, centred, atoms.get_masses())
        character = np.array([normal @ o.matrix @ normal for o in table.operations])
        assert table.labels[int(table.multiplicities(character).argmax())] == irrep

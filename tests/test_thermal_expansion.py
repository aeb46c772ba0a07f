"""Thermal expansion at one volume: strains that symmetry allows, finite strains as a check."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.units import GPa
from cli_helpers import LATTICE
from cli_helpers import potential as small_potential
from phonopy import Phonopy
from phonopy.physical_units import get_physical_units
from scipy.spatial.transform import Rotation

import phonopy_equivariant as pe
from phonopy_equivariant.phonons.thermal_expansion import allowed_strains
from phonopy_equivariant.response.symmetry.operations import search
from phonopy_equivariant.structure import as_structure, to_phonopy

MESH = (4, 4, 4)
TEMPERATURES = (100.0, 400.0)


def entropy(atoms: Atoms) -> np.ndarray:
    """Return the entropy (eV/K) of the modes of the mesh, without the acoustic ones at Γ."""
    phonon = Phonopy(to_phonopy(as_structure(atoms)), np.eye(3, dtype=int), primitive_matrix="P")
    pe.use_exact_dynamical_matrix(phonon, small_potential())
    phonon.run_mesh(MESH, is_gamma_center=True)
    phonon.run_thermal_properties(temperatures=TEMPERATURES, exclude_gamma_acoustic=True)
    return phonon.thermal_properties.entropy / get_physical_units().EvTokJmol / 1000


def expanded(atoms: Atoms, change: float) -> Atoms:
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array * (1 + change) ** (1 / 3), scale_atoms=True)
    return copy


def strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return copy


@pytest.mark.parametrize(
    ("rotations", "count"),
    [
        (np.eye(3)[None], 6),
        (np.stack([np.eye(3), np.diag([-1.0, -1, 1])]), 4),
        (np.stack([np.eye(3), np.diag([-1.0, -1, 1]), np.diag([1.0, -1, -1])]), 3),
        (Rotation.from_euler("z", np.arange(6) * np.pi / 3).as_matrix(), 2),
        (Rotation.create_group("O").as_matrix(), 1),
    ],
)
def test_as_many_strains_as_lattice_constants(rotations: np.ndarray, count: int) -> None:
    """Triclinic, monoclinic, orthorhombic, hexagonal, cubic: 6, 4, 3, 2 and 1."""
    strains = allowed_strains(rotations)
    assert len(strains) == count
    np.testing.assert_allclose(np.einsum("iab,jab->ij", strains, strains), np.eye(count), atol=1e-9)
    for turn in rotations:
        np.testing.assert_allclose(turn @ strains @ turn.T, strains, atol=1e-9)


def test_a_cubic_crystal_against_two_volumes() -> None:
    """α = (∂S/∂V)/B with both from central differences."""
    atoms = pe.relax(bulk("NaCl", "rocksalt", a=LATTICE), small_potential(), fmax=1e-8)
    found = pe.thermal_expansion(atoms, small_potential(), TEMPERATURES, MESH)
    step, volume = 1e-4, atoms.get_volume()
    ends = [expanded(atoms, sign * step) for sign in (1, -1)]
    slope = (entropy(ends[0]) - entropy(ends[1])) / (2 * step * volume)
    energies = [small_potential().evaluate(x).energy for x in (*ends, atoms)]
    modulus = (energies[0] + energies[1] - 2 * energies[2]) / (step**2 * volume)
    assert found.bulk_modulus == pytest.approx(modulus / GPa, rel=1e-4)
    # errors of the differences: step² of both, and rounding of energies over step²
    np.testing.assert_allclose(found.volumetric, slope / modulus, rtol=2e-4)
    np.testing.assert_allclose(found.tensor[1], found.volumetric[1] / 3 * np.eye(3), atol=1e-12)


def test_a_tetragonal_crystal_against_finite_strains() -> None:
    """Two strains, α along each axis from S·∂S/∂ε by central differences."""
    atoms = tetragonal()
    found = pe.thermal_expansion(atoms, small_potential(), TEMPERATURES, MESH)
    step, volume = 1e-4, atoms.get_volume()
    strains = [np.diag([1.0, 1, 0]), np.diag([0.0, 0, 1])]
    slopes = [
        (entropy(strained(atoms, step * e)) - entropy(strained(atoms, -step * e))) / (2 * step)
        for e in strains
    ]

    def energy(*amounts: float) -> float:
        strain = sum(a * e for a, e in zip(amounts, strains, strict=True))
        return small_potential().evaluate(strained(atoms, np.asarray(strain))).energy

    h = 3e-4
    pairs = [((1, 0), (1, 0)), ((1, 0), (0, 1)), ((0, 1), (0, 1))]
    second = [
        sum(
            s * t * energy(*(h * (s * np.array(x) + t * np.array(y))))
            for s in (1, -1)
            for t in (1, -1)
        )
        / (4 * h**2)
        for x, y in pairs
    ]
    costs = np.array([[second[0], second[1]], [second[1], second[2]]])
    expected = np.linalg.solve(costs, np.array(slopes))
    axes = found.along([[1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(axes.T, expected, rtol=1e-3)
    assert abs(axes[1, 0] - axes[1, 1]) > 0.05 * np.abs(axes[1]).max()  # or one strain would do
    assert volume > 0


def tetragonal() -> Atoms:
    raise NotImplementedError


def test_an_unstable_crystal_has_none() -> None:
    """Stretched until the bulk modulus is negative."""
    atoms = expanded(bulk("NaCl", "rocksalt", a=LATTICE), 1.0)
    with pytest.raises(pe.PhonopyEquivariantError, match="strain"):
        pe.thermal_expansion(atoms, small_potential(), TEMPERATURES, (2, 2, 2))


def test_symmetry_of_the_tensor_is_that_of_the_crystal() -> None:
    rotations = search(as_structure(bulk("NaCl", "rocksalt", a=LATTICE)), 1e-5).cartesian
    np.testing.assert_allclose(allowed_strains(rotations)[0] ** 2, np.eye(3) / 3, atol=1e-12)

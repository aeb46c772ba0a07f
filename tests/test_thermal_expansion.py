"""Thermal expansion at one volume: strains that symmetry allows, finite strains as a check."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.units import GPa
from cli_helpers import CONFIG, LATTICE
from cli_helpers import potential as small_potential
from phonopy import Phonopy
from phonopy.physical_units import get_physical_units
from scipy.spatial.transform import Rotation

import phonopy_equivariant as pe
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.phonons.thermal_expansion import allowed_strains
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.structure import as_structure, to_phonopy

MESH = (4, 4, 4)
TEMPERATURES = (100.0, 400.0)


def entropy(atoms: Atoms, potential: Potential) -> np.ndarray:
    """Return the entropy (eV/K) of the modes of the mesh, without the acoustic ones at Γ."""
    phonon = Phonopy(to_phonopy(as_structure(atoms)), np.eye(3, dtype=int), primitive_matrix="P")
    pe.use_exact_dynamical_matrix(phonon, potential)
    phonon.run_mesh(MESH, is_gamma_center=True)
    found = phonon.run_thermal_properties(temperatures=TEMPERATURES, exclude_gamma_acoustic=True)
    return np.asarray(found.entropy) / get_physical_units().EvTokJmol / 1000


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
        (Rotation.create_group("C6").as_matrix(), 2),
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
    potential = small_potential()
    atoms = pe.relax(bulk("NaCl", "rocksalt", a=LATTICE), potential, fmax=1e-8)
    found = pe.thermal_expansion(atoms, potential, TEMPERATURES, MESH)
    step, volume = 1e-4, atoms.get_volume()  # of ln V
    ends = [strained(atoms, sign * step / 3 * np.eye(3)) for sign in (1, -1)]
    slope = (entropy(ends[0], potential) - entropy(ends[1], potential)) / (2 * step * volume)
    energies = [potential.evaluate(x).energy for x in (*ends, atoms)]
    modulus = (energies[0] + energies[1] - 2 * energies[2]) / (step**2 * volume)
    # errors of the differences: step² of both, and rounding of energies over step²
    assert found.bulk_modulus == pytest.approx(modulus / GPa, rel=1e-4)
    np.testing.assert_allclose(found.volumetric, slope / modulus, rtol=1e-3)
    np.testing.assert_allclose(found.tensor[1], found.volumetric[1] / 3 * np.eye(3), atol=1e-12)


def test_a_hexagonal_crystal_against_finite_strains() -> None:
    """Wurtzite: a, c and the atoms in the cell; the atoms follow each strain to zero forces."""
    potential = random_potential(NequIPConfig(**CONFIG), seed=11)
    atoms = pe.relax(bulk("NaCl", "wurtzite", a=3.58, c=5.92), potential, fmax=1e-8)
    found = pe.thermal_expansion(atoms, potential, TEMPERATURES, MESH)
    strains = np.array([np.diag([1.0, 1, 0]), np.diag([0.0, 0, 1])])
    step = 2e-4

    def followed(*amounts: float) -> Atoms:
        strain = np.einsum("i,iab->ab", step * np.array(amounts), strains)
        return pe.relax(strained(atoms, strain), potential, fmax=1e-8, cell=False)

    def energy(*amounts: float) -> float:
        return potential.evaluate(followed(*amounts)).energy

    centre = energy(0, 0)
    costs = np.diag([energy(1, 0) + energy(-1, 0), energy(0, 1) + energy(0, -1)])
    costs -= 2 * centre * np.eye(2)
    mixed = energy(1, 1) + energy(-1, -1) - energy(1, -1) - energy(-1, 1)
    costs += mixed / 4 * (1 - np.eye(2))
    pairs = ((followed(1, 0), followed(-1, 0)), (followed(0, 1), followed(0, -1)))
    slopes = [(entropy(up, potential) - entropy(down, potential)) / 2 for up, down in pairs]
    expected = np.linalg.solve(costs, step * np.array(slopes)).T
    axes = found.along(np.eye(3)[[0, 2]])
    np.testing.assert_allclose(axes, expected, rtol=0, atol=2e-3 * np.abs(expected).max())
    # a and c differ, or one strain would do
    assert abs(axes[1, 0] - axes[1, 1]) > 0.05 * np.abs(axes[1]).max()


def test_a_crystal_that_gives_way_has_none() -> None:
    """Stretched to twice its volume: the bulk modulus is negative."""
    atoms = bulk("NaCl", "rocksalt", a=LATTICE * 2 ** (1 / 3))
    with pytest.raises(pe.PhonopyEquivariantError, match="strain"):
        pe.thermal_expansion(atoms, small_potential(), TEMPERATURES, (2, 2, 2))


def test_the_table() -> None:
    tensor = np.diag([1e-6, 2e-6, 4e-6])[None]
    found = pe.ThermalExpansion(np.array([300.0]), tensor, 100.0, 40.0, (2, 2, 2))
    assert found.volumetric[0] == pytest.approx(7e-6)
    assert found.rows()[0][:5] == ["300", "7.000", "1.000", "2.000", "4.000"]
    assert found.along([[0.0, 0.0, 3.0], [1.0, 1.0, 0.0]])[0] == pytest.approx([4e-6, 1.5e-6])

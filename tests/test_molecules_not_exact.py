"""Molecules not exactly what they stand for: off their symmetry, in parts, with odd spin."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule as ase_molecule
from ase.constraints import FixAtoms
from scipy.spatial.transform import Rotation

from phonopy_equivariant import PhonopyEquivariantError, molecules
from phonopy_equivariant.molecules.analysis import analyse_hessian
from phonopy_equivariant.molecules.modes import WAVENUMBER
from phonopy_equivariant.molecules.remarks import remarks


def springs(atoms: Atoms, rest: np.ndarray, reach: float = 3.0) -> np.ndarray:
    """Return the Hessian of springs of 20 exp(-r) eV/Å² between atoms, all at rest at ``rest``."""
    count = len(atoms)
    result = np.zeros((count, 3, count, 3))
    for i in range(count):
        for j in range(i):
            vector = rest[j] - rest[i]
            length = np.linalg.norm(vector)
            if length < reach:
                block = 20 * np.exp(-length) * np.outer(vector, vector) / length**2
                result[i, :, i] += block
                result[j, :, j] += block
                result[i, :, j] -= block
                result[j, :, i] -= block
    return result


@pytest.mark.parametrize("name", ["C6H6", "CH4", "C2H6", "NH3", "H2O"])
@pytest.mark.parametrize("size", [1e-4, 3e-4])
def test_frequencies_and_irreps_slightly_off_symmetry(name: str, size: float) -> None:
    """Irreps of the exact molecule, frequencies within its distance from symmetry."""
    exact = ase_molecule(name)
    expected = analyse_hessian(exact, springs(exact, exact.positions, 4.0))
    rattled = exact.copy()
    rattled.rattle(size, seed=3)
    hessian = springs(rattled, rattled.positions, 4.0)
    found = analyse_hessian(rattled, hessian)
    assert len(found.frequencies) == len(expected.frequencies)
    # relative: the springs of a mode change by about the displacement over an Å
    scale = expected.frequencies.max()
    np.testing.assert_allclose(
        found.frequencies, expected.frequencies, rtol=0, atol=10 * size * scale
    )
    assert found.followed == expected.symmetry.group
    labels = [sorted(m.irrep for m in result.multiplets) for result in (found, expected)]
    assert labels[0] == labels[1]


def fragments(noise: float) -> tuple[Atoms, np.ndarray]:
    """Return two molecules 30 Å apart and a Hessian with one negative mode between them."""
    first, second = ase_molecule("H2O"), ase_molecule("CH4")
    second.translate([30, 0, 0])
    pair = first + second
    hessian = springs(pair, pair.positions, 4.0)
    # turn the second about its own axis: a motion of no energy, made unstable by ``noise``
    masses = pair.get_masses()
    centred = pair.positions[3:] - second.get_center_of_mass()
    turn = np.zeros((len(pair), 3))
    turn[3:] = np.cross([0.0, 0.0, 1.0], centred)
    weighted = masses[:, None] * turn
    hessian -= (
        (noise / WAVENUMBER) ** 2
        * np.multiply.outer(weighted, weighted)
        / (masses[:, None] * turn**2).sum()
    )
    return pair, hessian


@pytest.mark.parametrize("noise", [1e-4, 0.1])
def test_rounding_modes_of_fragments_are_no_saddle_point(noise: float) -> None:
    pair, hessian = fragments(noise)
    # the force that leaves such a mode: F = ω² · 1 Å · 1 amu
    result = analyse_hessian(pair, hessian, max_force=2 * (noise / WAVENUMBER) ** 2)
    assert result.frequencies.min() == pytest.approx(-noise, rel=1e-2, abs=1e-5)
    assert not any("saddle" in remark for remark in remarks(result))
    assert any("fragments" in remark for remark in remarks(result))


def test_an_instability_of_fragments_is_told() -> None:
    pair, hessian = fragments(50.0)
    result = analyse_hessian(pair, hessian, max_force=1e-6)
    assert any("saddle point" in remark for remark in remarks(result))


@pytest.mark.parametrize(
    ("formula", "spin", "told"),
    [("H2O", 0.0, False), ("OH", 0.0, True), ("OH", 0.5, False), ("O2", 1.0, False)],
)
def test_electrons_and_spin(formula: str, spin: float, told: bool) -> None:
    """An odd number of electrons has half-integer spin."""
    atoms = ase_molecule(formula)
    result = analyse_hessian(atoms, springs(atoms, atoms.positions))
    assert any("electrons" in remark for remark in remarks(result, spin)) == told


def test_turned_molecules_follow_the_same_group() -> None:
    exact = ase_molecule("C6H6")
    exact.rattle(2e-4, seed=1)
    turned = exact.copy()
    turned.positions = exact.positions @ Rotation.random(random_state=2).as_matrix().T
    found = [analyse_hessian(a, springs(a, a.positions, 4.0)) for a in (exact, turned)]
    assert found[0].followed == found[1].followed == "D6h"
    np.testing.assert_allclose(found[0].frequencies, found[1].frequencies, rtol=1e-9, atol=1e-6)


def test_constraints_of_a_molecule_are_refused() -> None:
    atoms = ase_molecule("H2O")
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(PhonopyEquivariantError, match="constraint"):
        molecules.relax(atoms, None)

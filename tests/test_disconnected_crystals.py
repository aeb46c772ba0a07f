"""Crystals whose parts are farther apart than the cutoff: layers, molecules, atoms.

Their Φ(0) has more zero modes than three translations. Independent values come from the parts by
themselves: energies add up, and so do derivatives.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import assert_close, small_config
from phonopy import Phonopy
from scipy.optimize import brentq
from scipy.spatial.transform import Rotation
from test_exact_elastic import relaxed_energy, strained

import phonopy_equivariant as pe
from phonopy_equivariant.phonons.gamma_modes import gamma_modes
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
from phonopy_equivariant.response.elastic import VOIGT, elastic_tensor
from phonopy_equivariant.response.gruneisen import GruneisenParameters, gruneisen_parameters
from phonopy_equivariant.structure import Structure, to_phonopy

CUTOFF = 3.2
QPOINTS = [[0.13, 0.21, 0.0], [0.5, 0.0, 0.37]]


@pytest.fixture(scope="module")
def potential() -> Potential:
    config = small_config(
        species=(8, 14), cutoff=CUTOFF, hidden_irreps="4x0e + 3x1o", l_max=1, scale=20.0
    )
    return random_potential(config, seed=3)


def parts(kind: str, rng: np.random.Generator) -> list[Structure]:
    """Return two parts without symmetry in one cell, 2 + 2 or 3 + 1 atoms."""
    side = 3.0 if kind == "layers" else 8.0
    cell = np.diag([side, side, 16.0]) + rng.uniform(-0.2, 0.2, (3, 3))
    shape = np.array([[0, 0, 0], [1.5, 0.2, 0.3], [0.2, 1.6, -0.2], [1.4, 1.5, 0.1]])
    counts = (3, 1) if kind == "molecule and atom" else (2, 2)
    made = []
    for number, count in enumerate(counts):
        positions = shape[:count] + rng.uniform(-0.2, 0.2, (count, 3)) + [0, 0, 8.0 * number]
        made.append(Structure(np.array([8, 14, 14])[:count], positions, cell, np.ones(3, bool)))
    return made


def joined(structures: list[Structure]) -> Structure:
    numbers = np.concatenate([s.numbers for s in structures])
    positions = np.concatenate([s.positions for s in structures])
    return structures[0]._replace(numbers=numbers, positions=positions)


def turned(structure: Structure, rotation: np.ndarray) -> Structure:
    return structure._replace(
        cell=structure.cell @ rotation.T, positions=structure.positions @ rotation.T
    )


def rotated_voigt(tensor: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Return C'_ijkl = R_ia R_jb R_kc R_ld C_abcd, both in Voigt's notation."""
    full = np.empty((3, 3, 3, 3))
    for m, (i, j) in enumerate(VOIGT):
        for n, (c, d) in enumerate(VOIGT):
            for a, b in ((i, j), (j, i)):
                full[a, b, c, d] = full[a, b, d, c] = tensor[m, n]
    full = np.einsum("ia,jb,kc,ld,abcd->ijkl", *[rotation] * 4, full, optimize=True)
    return np.array([[full[i, j, c, d] for c, d in VOIGT] for i, j in VOIGT])


def assert_same_modes(found: GruneisenParameters, expected: list[GruneisenParameters]) -> None:
    """Compare frequencies and γ of a crystal with those of its parts."""
    frequencies = np.concatenate([one.frequencies for one in expected], axis=1)
    parameters = np.concatenate([one.parameters for one in expected], axis=1)
    order = np.argsort(frequencies, axis=1)
    np.testing.assert_allclose(
        found.frequencies, np.take_along_axis(frequencies, order, 1), rtol=0, atol=1e-6
    )
    wanted = np.take_along_axis(parameters, order, 1)
    assert np.isfinite(wanted).sum() >= 6
    np.testing.assert_allclose(found.parameters, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["layers", "molecules", "molecule and atom"])
def test_parts_add_up_in_any_orientation(kind: str, potential: Potential) -> None:
    rng = np.random.default_rng(sum(map(ord, kind)))
    single = parts(kind, rng)
    tensors = [elastic_tensor(part, potential) for part in single]
    expected = sum(tensor.relaxed for tensor in tensors)
    modes = [gruneisen_parameters(part, potential, QPOINTS) for part in single]
    assert np.abs(expected - sum(t.clamped for t in tensors)).max() > 0.1  # atoms do relax
    for rotation in Rotation.random(3, random_state=1).as_matrix():
        crystal = turned(joined(single), rotation)
        found = elastic_tensor(crystal, potential).relaxed
        assert_close(found, rotated_voigt(expected, rotation), 1e-9)
        assert_close(found, found.T, 1e-9)
        assert_same_modes(gruneisen_parameters(crystal, potential, QPOINTS), modes)


def test_molecules_at_rest_have_no_elastic_constants(potential: Potential) -> None:
    """Ten zero modes: two molecules of two atoms turn and move freely, and a cell around them."""

    def molecules(length: float, angle: float = 0.0) -> Structure:
        bond = length * np.array([np.cos(angle), np.sin(angle), 0.3]) / np.hypot(1, 0.3)
        positions = np.array([np.zeros(3), bond, [0, 0, 8.0], [0, 0, 8.0] - bond[::-1]])
        return Structure(np.array([8, 14] * 2), positions, np.eye(3) * 16.0, np.ones(3, bool))

    def force(length: float) -> float:
        structure = molecules(length)
        bond = structure.positions[1] - structure.positions[0]
        return float(potential.evaluate(structure).forces[1] @ bond)

    lengths = np.linspace(1.0, 3.0, 21)
    signs = np.sign([force(length) for length in lengths])
    first = int(np.flatnonzero(np.diff(signs))[0])
    rest = brentq(force, lengths[first], lengths[first + 1], xtol=1e-14)
    tensor = elastic_tensor(molecules(rest, angle=0.7), potential)
    assert np.abs(tensor.clamped).max() > 0.01
    np.testing.assert_allclose(tensor.relaxed, 0, atol=1e-9 * np.abs(tensor.clamped).max())


def test_layers_at_rest_against_finite_strain(potential: Potential) -> None:
    """Two planar honeycombs slide freely: nothing resists a strain out of the plane."""

    def honeycombs(a: float) -> Structure:
        cell = np.array([[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0.4, 0.3, 11.0]])
        plane = np.array([[0, 0, 0], [1 / 3, 2 / 3, 0]]) @ cell
        positions = np.concatenate([plane, plane + [0.8, 0.5, 5.2]])
        return Structure(np.array([8, 14] * 2), positions, cell, np.ones(3, bool))

    def stress(a: float) -> float:
        return float(potential.evaluate(honeycombs(a)).stress[0, 0])

    lattices = np.linspace(2.2, 3.1, 10)
    first = int(np.flatnonzero(np.diff(np.sign([stress(a) for a in lattices])))[0])
    layers = honeycombs(brentq(stress, lattices[first], lattices[first + 1], xtol=1e-15))
    assert np.abs(potential.evaluate(layers).forces).max() < 1e-12
    tensor = elastic_tensor(layers, potential)
    assert tensor.remarks() == []
    scale = np.abs(tensor.relaxed).max()
    np.testing.assert_allclose(tensor.relaxed[2:5], 0, atol=1e-9 * scale)
    assert_close(tensor.relaxed[:2, :2], tensor.relaxed[1::-1, 1::-1], 1e-9)
    centre, step = relaxed_energy(potential, layers), 1e-3
    direction = np.random.default_rng(0).normal(size=6)

    def curvature(h: float) -> float:
        ends = sum(
            relaxed_energy(potential, strained(layers, sign * h * direction)) for sign in (1, -1)
        )
        return (ends - 2 * centre) / h**2

    expected = (4 * curvature(step / 2) - curvature(step)) / 3
    found = direction @ tensor.relaxed @ direction * layers.volume / 160.21766
    assert abs(found - expected) < 1e-5 * abs(expected)


def test_one_atom_in_every_layer(potential: Potential) -> None:
    """Nothing but zero modes at Γ: no eigenvalue there tells what rounding is."""
    cell = np.array([[2.6, 0.1, 0], [0.3, 2.8, 0], [0.2, 0.4, 12.0]])
    layers = Structure(
        np.array([8, 14]), np.array([[0, 0, 0], [0.4, 0.7, 6.0]]), cell, np.ones(3, bool)
    )
    for rotation in Rotation.random(5, random_state=2).as_matrix():
        tensor = elastic_tensor(turned(layers, rotation), potential)
        assert np.abs(tensor.clamped).max() > 1e-3
        assert_close(tensor.relaxed, tensor.clamped, 1e-9)


def test_atoms_without_neighbours_have_no_response(potential: Potential) -> None:
    alone = Structure(np.array([8, 14]), np.diag([0, 4.0, 0])[:2], np.eye(3) * 8, np.ones(3, bool))
    tensor = elastic_tensor(alone, potential)
    assert not tensor.relaxed.any() and not tensor.clamped.any()
    result = gruneisen_parameters(alone, potential, QPOINTS)
    assert not result.frequencies.any() and np.isnan(result.parameters).all()


def test_an_instability_that_couples_to_strain_is_refused(potential: Potential) -> None:
    """Zincblende where the modes at Γ cross zero: shear pulls at them, dilation does not."""

    def zincblende(a: float) -> Structure:
        cell = a / 2 * (np.ones((3, 3)) - np.eye(3))
        return Structure(
            np.array([8, 14]), np.array([[0, 0, 0], [a / 4] * 3]), cell, np.ones(3, bool)
        )

    def optical(a: float) -> float:
        gamma = lattice_force_constants(potential, zincblende(a), np.zeros((1, 3)))[0].real
        relative = np.concatenate([np.eye(3), -np.eye(3)]) / 2**0.5
        return float(np.trace(relative.T @ gamma @ relative) / 3)

    lattices = np.linspace(3.4, 4.4, 11)
    values = [optical(a) for a in lattices]
    first = int(np.flatnonzero(np.diff(np.sign(values)))[0])
    critical = brentq(optical, lattices[first], lattices[first + 1], xtol=1e-15)
    with pytest.raises(pe.PhonopyEquivariantError, match=r"instability.*lower symmetry"):
        elastic_tensor(zincblende(critical), potential)
    with pytest.raises(pe.PhonopyEquivariantError, match="instability"):
        gruneisen_parameters(zincblende(critical), potential, QPOINTS, strain=1 - np.eye(3))
    result = gruneisen_parameters(zincblende(critical), potential, [[0.0, 0.0, 0.0], *QPOINTS])
    assert np.isnan(result.parameters[0]).all() and np.abs(result.frequencies[0]).max() < 1e-5
    assert np.isfinite(result.parameters[1:]).all()
    # a little beside the instability numbers are large, and right
    tensor = elastic_tensor(zincblende(critical + 1e-4), potential)
    assert abs(tensor.relaxed[3, 3]) > 10 * np.abs(tensor.clamped).max()


def test_the_table_of_modes_at_gamma_keeps_free_parts(potential: Potential) -> None:
    """Three of six zero modes are acoustic; the other three are the layers against each other."""
    single = parts("layers", np.random.default_rng(5))
    phonon = Phonopy(to_phonopy(joined(single)), np.eye(3, dtype=int), primitive_matrix="P")
    pe.set_force_constants(phonon, potential)
    modes = gamma_modes(phonon).modes
    assert sum(len(mode.bands) for mode in modes) == 9
    assert sum(len(mode.bands) for mode in modes if abs(mode.frequency) < 1e-4) == 3
    assert min(abs(mode.frequency) for mode in modes) < 1e-4


def test_remarks_name_residual_stress_and_forces(potential: Potential) -> None:
    rng = np.random.default_rng(8)
    part = parts("layers", rng)[0]
    tensor = elastic_tensor(part, potential)
    result = potential.evaluate(part)
    assert_close(tensor.residual_force, np.linalg.norm(result.forces, axis=1).max())
    assert_close(tensor.residual_stress, np.abs(result.stress).max() * 160.2176634, 1e-7)
    stress, force = tensor.remarks()
    assert f"{tensor.residual_stress:.3g} GPa" in stress and "pe.relax" in stress
    assert f"{tensor.residual_force:.3g} eV/Å" in force and "pe.relax" in force
    at_rest = dataclasses.replace(tensor, residual_force=1e-4, residual_stress=1e-5)
    assert at_rest.remarks() == []

"""The variants of NequIP: derivatives by independent roads, laws of energies, configurations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import IMPROPER, assert_close, small_config, three_atoms
from nequip_variants import VARIANTS, variant
from scipy.spatial.transform import Rotation

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints.native import save_checkpoint
from phonopy_equivariant.models.radial import (
    polynomial_envelope,
    screened_repulsion,
    xplor_envelope,
    zbl_energy,
)
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.autodiff.extended import extended_force_constants
from phonopy_equivariant.response.autodiff.hessian import structure_hessian_rows
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
from phonopy_equivariant.structure import Structure

QPOINTS = np.array([[0.0, 0, 0], [0.5, 0, 0.5], [0.25, 0.1, -0.3]])


@pytest.fixture(scope="module", params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Potential:
    return variant(request.param)


def test_bloch_response_equals_extended_graph(model: Potential, crystal: Structure) -> None:
    crystal = three_atoms(crystal)
    expected = extended_force_constants(model, crystal, QPOINTS)
    assert_close(lattice_force_constants(model, crystal, QPOINTS), expected)


def test_hessian_equals_central_differences(model: Potential, crystal: Structure) -> None:
    """At a step of 5e-6 Å truncation and rounding are far below 1e-7 of the largest element."""
    step, atom = 5e-6, 2
    row = structure_hessian_rows(model, crystal, np.array([atom]))[0]
    for axis in range(3):
        forces = []
        for sign in (1, -1):
            positions = crystal.positions.copy()
            positions[atom, axis] += sign * step
            forces.append(model.evaluate(crystal._replace(positions=positions)).forces)
        difference = (forces[1] - forces[0]) / (2 * step)
        np.testing.assert_allclose(row[:, axis], difference, rtol=0, atol=1e-7 * np.abs(row).max())


@pytest.mark.parametrize("turn", [-IMPROPER, IMPROPER], ids=["rotation", "reflection"])
def test_energies_change_under_reflections_only_without_parity(
    model: Potential, crystal: Structure, turn: np.ndarray
) -> None:
    turned = crystal._replace(positions=crystal.positions @ turn.T, cell=crystal.cell @ turn.T)
    before, after = model.evaluate(crystal), model.evaluate(turned)
    if model.parity or np.linalg.det(turn) > 0:
        assert_close(after.energy, before.energy)
        assert_close(after.forces, before.forces @ turn.T)
        assert_close(after.stress, turn @ before.stress @ turn.T)
    else:
        assert abs(after.energy - before.energy) > 1e-4


def test_a_checkpoint_gives_the_same_potential(
    model: Potential, crystal: Structure, tmp_path
) -> None:
    loaded = pe.load_potential(save_checkpoint(model, tmp_path / "variant.npz"))
    assert loaded.config == model.config and loaded.parity == model.parity
    assert loaded.evaluate(crystal).energy == model.evaluate(crystal).energy


def test_cutoffs_of_all_pairs_at_the_cutoff_change_nothing(crystal: Structure) -> None:
    changes = {"sender_norms": False, "receiver_norms": False}
    without = variant("numbers of species", **changes, pair_cutoffs=())
    within = variant("numbers of species", **changes, pair_cutoffs=(3.0,) * 9)
    assert_close(within.evaluate(crystal).forces, without.evaluate(crystal).forces)


def test_a_bond_beyond_the_cutoff_of_its_pair_has_no_energy() -> None:
    """Rows of the table are receivers: 8-17 ends at 2.9 Å both ways, 11-8 at 2.5 and 2.7 Å."""
    model = variant("numbers of species")
    for numbers, ends in (((8, 17), (2.9, 2.9)), ((11, 8), (2.5, 2.7))):
        alone = [_two_atoms(numbers, 5.0, model)[k] for k in range(2)]
        for distance in (2.45, 2.55, 2.65, 2.75, 2.95):
            energies = _two_atoms(numbers, distance, model)
            for energy, free, end in zip(energies, alone, ends, strict=True):
                assert (abs(energy - free) > 1e-9) == (distance < end)


def _two_atoms(numbers: tuple[int, int], distance: float, model: Potential) -> np.ndarray:
    positions = np.array([[0.0, 0, 0], [distance, 0, 0]])
    atoms = Structure(np.array(numbers), positions, np.zeros((3, 3)), np.zeros(3, bool))
    return model.evaluate(atoms).energies


def test_xplor_is_smooth_once_at_both_ends_and_no_more() -> None:
    cutoff, onset = 5.0, 4.5
    with jax.enable_x64(True):

        def envelope(r):
            return xplor_envelope(r[None], cutoff, onset)[0]

        slope, bend = jax.jit(jax.grad(envelope)), jax.jit(jax.grad(jax.grad(envelope)))
        for radius, value in ((onset, 1.0), (cutoff, 0.0)):
            below, above = (jnp.asarray(radius + side) for side in (-1e-9, 1e-9))
            assert envelope(below) == pytest.approx(value, abs=1e-12)
            assert envelope(above) == pytest.approx(value, abs=1e-12)
            assert abs(slope(below)) < 1e-6 and abs(slope(above)) < 1e-6
            assert abs(bend(above) - bend(below)) > 1.0


def test_both_forms_of_the_screened_repulsion_agree_to_their_digits() -> None:
    """LAMMPS and mace-torch print the constants with four to five digits."""
    constants = (0.1818, 0.5099, 0.2802, 0.02817, 0.23, 0.4685 / 0.529)
    with jax.enable_x64(True):
        r = jnp.array([0.3, 0.8, 1.6])
        numbers = jnp.full(3, 8.0), jnp.full(3, 17.0)
        expected = zbl_energy(r, numbers, jnp.full(3, 3.0), 6.0, constants)
        ours = screened_repulsion(r, numbers) * polynomial_envelope(r, 3.0, 6.0)
    np.testing.assert_allclose(ours, expected, rtol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {"parity": False},  # with odd irreps
        {"embedding_width": -1},
        {"frequencies": (1.0, 2.0)},
        {"envelope": "cosine"},
        {"envelope": "xplor", "envelope_onset": 3.5},
        {"envelope_onset": 1.0},
        {"skips": ("species",)},
        {"skips": ("own", "own")},
        {"readout_widths": (0,)},
        {"pair_cutoffs": (3.0, 3.0)},
        {"pair_cutoffs": (3.5,) * 9},
    ],
    ids=str,
)
def test_configurations_out_of_range_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(pe.PhonopyEquivariantError, match=list(changes)[-1]):
        small_config(**changes)


def test_a_rotation_is_no_special_angle() -> None:
    assert np.linalg.det(-IMPROPER) > 0
    assert Rotation.from_matrix(-IMPROPER).magnitude() > 0.1

"""MACE: parity with values of mace-torch that are stored here, laws of the model and its parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import IMPROPER, assert_close, turned_irreps
from mace_zoo import COMMITTED, FOLDER, crystal_of, molecule_of, slug

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints.native import save_checkpoint
from phonopy_equivariant.models.mace_config import MACEConfig
from phonopy_equivariant.models.product_basis import contract, product_orders
from phonopy_equivariant.models.radial import agnesi_transform, soft_transform, zbl_energy
from phonopy_equivariant.models.symmetric_basis import equivariant_polynomials, monomials
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.response.autodiff.hessian import hessian
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants

SMALL = {
    "species": (8, 11, 17),
    "cutoff": 3.0,
    "hidden_irreps": "3x0e + 3x1o",
    "l_max": 1,
    "correlation": (3, 2),
    "num_radial_basis": 4,
    "radial_widths": (8,),
    "density_width": 6,
    "avg_num_neighbors": 8.0,
    "readout_width": 4,
    "scale": 0.7,
    "shift": -1.5,
}


def mace_config(**changes: object) -> MACEConfig:
    return MACEConfig(**(SMALL | changes))


@pytest.fixture(scope="module", params=COMMITTED)
def converted(request: pytest.FixtureRequest) -> tuple[str, Potential]:
    return request.param, pe.load_potential(FOLDER / f"{slug(request.param)}.npz")


def test_parity_with_mace_torch(converted: tuple[str, Potential]) -> None:
    """Both sides are float64 and evaluate the same function; tolerances are those asked for."""
    name, potential = converted
    values = np.load(FOLDER / f"{slug(name)}_values.npz")
    structure = crystal_of(name)
    result = potential.evaluate(structure)
    assert np.abs(values["crystal_forces"]).max() > 1e-3
    assert abs(result.energy - values["crystal_energy"]) < 1e-8 * len(structure.numbers)
    np.testing.assert_allclose(result.forces, values["crystal_forces"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(result.stress, values["crystal_stress"], rtol=0, atol=1e-9)
    matrix = lattice_force_constants(potential, structure, np.zeros((1, 3)))[0]
    np.testing.assert_allclose(matrix, values["crystal_hessian"], rtol=0, atol=1e-6)


def test_parity_with_mace_torch_for_a_molecule() -> None:
    name = "density, Agnesi, ZBL"
    potential = pe.load_potential(FOLDER / f"{slug(name)}.npz")
    values = np.load(FOLDER / f"{slug(name)}_values.npz")
    structure = molecule_of(name)
    result = potential.evaluate(structure)
    assert abs(result.energy - values["molecule_energy"]) < 1e-8 * len(structure.numbers)
    np.testing.assert_allclose(result.forces, values["molecule_forces"], rtol=0, atol=1e-7)
    matrix = hessian(structure, potential).reshape(values["molecule_hessian"].shape)
    np.testing.assert_allclose(matrix, values["molecule_hessian"], rtol=0, atol=1e-6)


def test_energy_forces_and_stress_are_equivariant(crystal) -> None:
    config = mace_config(interactions=("density", "nonlinear"), apply_cutoff=False, l_max=2)
    potential = random_potential(config, seed=2)
    before = potential.evaluate(crystal)
    moved = crystal._replace(
        positions=(crystal.positions + [0.3, -5.1, 2.2]) @ IMPROPER.T,
        cell=crystal.cell @ IMPROPER.T,
    )
    after = potential.evaluate(moved)
    assert_close(after.energies, before.energies)
    assert_close(after.forces, before.forces @ IMPROPER.T)
    assert_close(after.stress, IMPROPER @ before.stress @ IMPROPER.T)


def test_round_trip_of_a_checkpoint(tmp_path) -> None:
    config = mace_config(distance_transform="soft", pair_repulsion=True, interactions=("density",))
    potential = random_potential(config, seed=1)
    loaded = pe.load_potential(save_checkpoint(potential, tmp_path / "mace.npz"))
    assert loaded.config == config
    for one, other in zip(
        jax.tree.leaves(loaded.params), jax.tree.leaves(potential.params), strict=True
    ):
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"hidden_irreps": "4x0e + 2x1o"}, "hidden_irreps"),
        ({"hidden_irreps": "4x0e + 4x1e"}, "hidden_irreps"),
        ({"correlation": (5,)}, "correlation"),
        ({"correlation": (2, 2, 2)}, "correlation"),
        ({"interactions": ("residuall",)}, "interactions"),
        ({"distance_transform": "agnesy"}, "distance_transform"),
        ({"readouts": ("linear",) * 3}, "readouts"),
    ],
)
def test_a_configuration_out_of_range_is_refused(changes, word) -> None:
    with pytest.raises(pe.PhonopyEquivariantError, match=word):
        mace_config(**changes)


IRREPS = ("0e", "1o", "2e", "3o")


def test_number_of_invariant_polynomials() -> None:
    """One square for each irrep; a cubic invariant for each even triple that can form a triangle.

    000, 011, 022, 033, 112, 123, 222, 233 (arXiv:1910.06010 counts invariants this way).
    """
    counts = [equivariant_polynomials(IRREPS, "0e", order).shape[2] for order in (1, 2, 3)]
    assert counts == [1, 4, 8]
    # of one vector, the invariants are the powers of its square
    counts = [equivariant_polynomials(("1o",), "0e", order).shape[2] for order in (1, 2, 3, 4)]
    assert counts == [0, 1, 0, 1]


@pytest.mark.parametrize("output", ["0e", "1o", "2e", "1e"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_polynomials_transform_as_their_irrep(output: str, order: int) -> None:
    table = equivariant_polynomials(IRREPS, output, order)
    size = table.shape[2]
    np.testing.assert_allclose(
        np.einsum("amk,aml->kl", table, table), np.eye(size), rtol=0, atol=1e-13
    )
    matrices = turned_irreps(*IRREPS, "1e")
    blocks, turn = [matrices[key] for key in IRREPS], matrices[output]
    x = np.random.default_rng(0).normal(size=16)
    turned = np.concatenate(
        [
            block @ x[start : start + len(block)]
            for block, start in zip(blocks, (0, 1, 4, 9), strict=True)
        ]
    )

    def values(features: np.ndarray) -> np.ndarray:
        return np.einsum("amk,m->ak", table, features[monomials(16, order)].prod(axis=1))

    np.testing.assert_allclose(values(turned), turn @ values(x), rtol=0, atol=1e-12)


def test_contraction_acts_on_each_channel_by_itself() -> None:
    """The response counts on it: B[:, :, u] depends on x[:, :, u] alone."""
    orders = product_orders(IRREPS, ("0e", "1o"), 3)
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        weights = {
            key: jnp.asarray(rng.normal(size=(2, sum(order.sizes[i] for order in orders), 3)))
            for i, key in enumerate(("0e", "1o"))
        }
        x = jnp.asarray(rng.normal(size=(2, 16, 3)))
        one = {key: w[..., 1:2] for key, w in weights.items()}
        contract_jit = jax.jit(lambda x, weights: contract(x, weights, orders))
        whole, single = contract_jit(x, weights), contract_jit(x[..., 1:2], one)
    np.testing.assert_allclose(whole[..., 1:2], single, rtol=0, atol=1e-13)


def test_distance_transforms_and_pair_term_at_known_points() -> None:
    """Agnesi: 1 at zero. Soft: r beyond the covalent radii, 3/4 of their sum below. ZBL: Coulomb's
    law times the screening 0.99997 of the sum of coefficients at the origin."""
    with jax.enable_x64(True):
        radius = jnp.array([1.5, 1.5])
        near, far = 1e-6, 8.0
        some = agnesi_transform(jnp.array([near, far]), radius, (1.0805, 0.9183, 4.5791))
        assert some[0] == pytest.approx(1.0, abs=1e-12) and 0 < some[1] < 0.2
        soft = soft_transform(jnp.array([0.1, far]), radius, (4.0,))
        np.testing.assert_allclose(soft, [0.75 * 1.5, far], rtol=1e-3)
        numbers = (jnp.array([6.0]), jnp.array([8.0]))
        constants = (0.1818, 0.5099, 0.2802, 0.02817, 0.3, 0.4543)
        energy = zbl_energy(jnp.array([1e-7]), numbers, jnp.array([1.4]), 6.0, constants)
        coulomb = 14.3996 * 48 / 1e-7 * (0.1818 + 0.5099 + 0.2802 + 0.02817)
        assert energy[0] == pytest.approx(coulomb, rel=1e-5)
        assert zbl_energy(radius[:1], numbers, radius[:1], 6.0, constants)[0] == 0.0

"""Third derivatives of the energy against automatic differentiation, and their symmetry.

Permutation and sum rule hold even where a term is left out: changes of the adjoints, for one. Only
an independent third derivative finds that, so every kind of model is compared with one.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from conftest import BOTH_PARITIES, assert_close, small_config, three_atoms
from nequip_variants import variant
from phonopy import Phonopy
from test_gruneisen import slope
from test_mace import mace_config
from toy_model import toy_potential

from phonopy_equivariant.graph import pad_graph
from phonopy_equivariant.models.irreps import harmonics
from phonopy_equivariant.phonons.cells import (
    primitive_operations,
    repeated_primitive,
    supercell_images,
    supercell_of_primitive,
)
from phonopy_equivariant.phonons.residuals import (
    third_permutation_residual,
    third_sum_rule_residual,
)
from phonopy_equivariant.phonons.third_order import third_order_of_cells
from phonopy_equivariant.potential import Potential, node_energies, random_potential
from phonopy_equivariant.response import elastic
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants, lattice_response
from phonopy_equivariant.response.bloch.prepare import Motion
from phonopy_equivariant.response.symmetry.operations import choose
from phonopy_equivariant.response.third import lattice, motion
from phonopy_equivariant.response.third.derivatives import harmonic_derivatives
from phonopy_equivariant.response.third.lattice import lattice_third_derivatives
from phonopy_equivariant.response.third.motion import motion_derivatives
from phonopy_equivariant.response.third.strain import strain_derivatives
from phonopy_equivariant.response.third.sweep import FirstOrder, first_orders
from phonopy_equivariant.runtime.compilation import compiled
from phonopy_equivariant.structure import Structure, to_phonopy

MODELS = {
    "three layers": lambda: random_potential(small_config(num_interactions=3), seed=1),
    "both parities, norm, no species skip": lambda: random_potential(
        small_config(**BOTH_PARITIES, layer_norm=True, species_skip=False), seed=2
    ),
    "one layer": lambda: random_potential(small_config(num_interactions=1), seed=4),
    "what MACE needs": lambda: toy_potential(small_config(), seed=5),
    "MACE: residual, pair term, transform": lambda: random_potential(
        mace_config(interactions=("residual",), pair_repulsion=True, distance_transform="agnesi"),
        seed=1,
    ),
    "MACE: density, nonlinear": lambda: random_potential(
        mace_config(interactions=("density", "nonlinear"), apply_cutoff=False), seed=1
    ),
    # three layers: with fewer, energies have the reflections all the same
    "SevenNet: rotations alone, XPLOR": lambda: variant(
        "rotations alone", hidden_irreps="3x0e + 2x1e", l_max=1
    ),
}


def phonon_of(structure: Structure, matrix: object, symprec: float = 1e-5) -> Phonopy:
    return Phonopy(
        to_phonopy(structure),
        supercell_matrix=matrix,
        primitive_matrix="P",
        symprec=symprec,
    )


def twice_along(potential: Potential, structure: Structure, steps: np.ndarray) -> np.ndarray:
    """Return the second derivative of ∂E/∂x along two displacements of all atoms, (atoms, 3)."""
    with jax.enable_x64(True):
        graph = jax.tree.map(jnp.asarray, potential.graph(structure))

        @compiled()
        def along(x: jax.Array, one: jax.Array, two: jax.Array) -> jax.Array:
            gradient = jax.grad(
                lambda x: node_energies(potential.model, potential.params, graph, x).sum()
            )
            first = lambda x: jax.jvp(gradient, (x,), (one,))[1]  # noqa: E731
            return jax.jvp(first, (x,), (two,))[1]

        return np.asarray(along(graph.nodes["positions"], *steps))


@pytest.mark.parametrize("name", MODELS)
def test_equal_to_three_derivatives_of_the_supercell(name: str, crystal: Structure) -> None:
    """Contracted with two random displacements of the supercell's atoms: no element is missed.

    The supercell is skewed, so that q are thirds along no axis of the cell.
    """
    potential = MODELS[name]()
    phonon = phonon_of(three_atoms(crystal), [[1, 1, 0], [-1, 2, 0], [0, 0, 1]])
    compact, triplets = third_order_of_cells(phonon, potential, primitive_operations(phonon))
    # (0, 0, 0), (0, q, -q) and (q, q, q): what permutation and time reversal leave of nine
    assert len(triplets.irreducible) == 3 and triplets.source.size == 9
    steps = np.random.default_rng(1).normal(size=(2, len(phonon.supercell), 3))
    expected = twice_along(potential, repeated_primitive(phonon), steps)
    contracted = np.einsum("iJKabc,Jb,Kc->ia", compact, *steps)
    assert_close(contracted, expected[phonon.primitive.p2s_map])
    owner, images = supercell_images(phonon)
    rows = np.array(phonon.primitive.p2s_map)
    matrix = supercell_of_primitive(phonon)
    largest = np.abs(compact).max()
    assert third_permutation_residual(compact, images, owner, rows, matrix) < 1e-12 * largest
    assert third_sum_rule_residual(compact, owner) < 1e-12 * largest


def test_equal_to_the_derivative_of_second_order_force_constants(crystal: Structure) -> None:
    """A second road: Φ(Γ) of the supercell, differentiated forward along one atom."""
    potential = MODELS["three layers"]()
    phonon = phonon_of(three_atoms(crystal), [2, 1, 1])
    compact, _ = third_order_of_cells(phonon, potential, primitive_operations(phonon))
    supercell = repeated_primitive(phonon)
    row, axis = 1, 2
    displacements = np.zeros_like(supercell.positions)
    displacements[phonon.primitive.p2s_map[row], axis] = 1.0
    motion = Motion(np.zeros((3, 3)), displacements)
    response = lattice_response(potential, supercell, np.zeros((1, 3)), motion=motion)
    expected = response.values[1][0].real
    result = compact[row, :, :, axis].transpose(0, 2, 1, 3).reshape(expected.shape)
    assert_close(result, expected)
    qpoints = np.zeros((1, 3))
    assert_close(motion_derivatives(potential, supercell, motion, qpoints)[0], expected)


@pytest.mark.parametrize(
    "name",
    [
        "both parities, norm, no species skip",
        "MACE: density, nonlinear",
        "SevenNet: rotations alone, XPLOR",
    ],
)
def test_along_a_motion_of_cell_and_atoms(name: str, crystal: Structure) -> None:
    """dΦ(q)/dη against Φ(q) of cells that are strained and whose atoms are moved."""
    potential, structure = MODELS[name](), three_atoms(crystal)
    rng = np.random.default_rng(8)
    strain = rng.normal(size=(3, 3))
    # small: the nearest edge crosses the cutoff after 3e-3 Å
    motion = Motion(0.1 * (strain + strain.T), 0.3 * rng.normal(size=(3, 3)))
    qpoints = np.array([[0, 0, 0], [0.5, 0, 0.5], [0.13, 0.27, -0.41]])

    def moved(eta: float) -> np.ndarray:
        matrix = np.eye(3) + eta * motion.strain
        positions = structure.positions @ matrix + eta * motion.displacements
        changed = structure._replace(cell=structure.cell @ matrix, positions=positions)
        return lattice_force_constants(potential, changed, qpoints)

    found = motion_derivatives(potential, structure, motion, qpoints)
    assert_close(found, slope(moved, 2e-4), 1e-9)


def test_strain_as_one_program_and_from_the_host(crystal: Structure) -> None:
    """∂²E/∂ε∂u and ∂²E/∂ε∂ε; on a device other than the host it is one program."""
    potential, structure = MODELS["three layers"](), three_atoms(crystal)
    padded = pad_graph(potential.graph(structure))
    traced = elastic._strain_derivatives(potential.model, potential.params, padded, np.eye(6))
    mixed, second = strain_derivatives(potential, structure, elastic._STRAINS)
    assert_close(mixed, np.asarray(traced[0])[:, :3])
    assert_close(second, np.asarray(traced[1]))


def test_single_precision(crystal: Structure) -> None:
    double = MODELS["one layer"]()
    single = random_potential(double.config, seed=4, dtype="float32")
    pairs = np.array([[[0.13, 0.27, -0.41], [0.31, -0.05, 0.22]]])
    expected = lattice_third_derivatives(double, three_atoms(crystal), pairs)
    assert_close(lattice_third_derivatives(single, three_atoms(crystal), pairs), expected, 1e-4)


def test_laws_at_any_q(crystal: Structure) -> None:
    """Permutation, time reversal and the sum rule off every commensurate grid."""
    potential = MODELS["both parities, norm, no species skip"]()
    structure = three_atoms(crystal)
    one, two = np.array([0.13, 0.27, -0.41]), np.array([0.31, -0.05, 0.22])
    zero, shift = np.zeros(3), np.array([1.0, -2.0, 0.0])
    pairs = [(one, two), (two, -one - two), (-one, -two), (zero, one), (one + shift, two)]
    values = lattice_third_derivatives(potential, structure, np.array(pairs))
    assert_close(values[1], values[0].transpose(1, 2, 0))
    assert_close(values[2], values[0].conj())
    assert_close(values[4], values[0])
    atoms = len(structure.numbers)
    sums = values[3].reshape(atoms, 3, 3 * atoms, 3 * atoms).sum(axis=0)
    assert np.abs(sums).max() < 1e-12 * np.abs(values[3]).max()


def test_blocks_of_q_change_nothing(crystal: Structure, monkeypatch: pytest.MonkeyPatch) -> None:
    potential = MODELS["one layer"]()
    pairs = np.array([[[0.5, 0, 0], [0, 0.5, 0]], [[0.1, 0.2, 0.3], [0.25, 0, 0]]])
    expected = lattice_third_derivatives(potential, three_atoms(crystal), pairs)
    monkeypatch.setattr(lattice, "OPERATORS", 1)
    steps: list[tuple[int, int]] = []
    result = lattice_third_derivatives(
        potential, three_atoms(crystal), pairs, lambda *step: steps.append(step)
    )
    assert_close(result, expected, 1e-14)
    assert steps == [(1, 2), (2, 2)]


def test_blocks_along_a_motion_fit_into_memory(
    crystal: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    potential, structure = MODELS["one layer"](), three_atoms(crystal)
    moved = Motion(np.eye(3) / 3, np.zeros((3, 3)))
    qpoints = np.array([[0.1, 0.2, 0.3], [0.25, 0, 0], [0, 0.3, 0], [0.5, 0, 0]])
    sizes: list[int] = []

    def recorded(expansion: Any, block: np.ndarray, **options: bool) -> list[FirstOrder]:
        sizes.append(len(block))
        return first_orders(expansion, block, **options)

    monkeypatch.setattr(motion, "first_orders", recorded)
    expected = motion_derivatives(potential, structure, moved, qpoints)
    assert sizes == [1, 1, 3]  # the motion, real q, complex q
    assert_close(motion_derivatives(potential, structure, moved, qpoints, 1), expected, 1e-14)
    assert sizes[3:] == [1, 1, 1, 1, 1]


@pytest.mark.filterwarnings("ignore:.*Point group symmetries of supercell:UserWarning")
@pytest.mark.parametrize(
    ("prototype", "options", "matrix", "operations"),
    [
        ("wurtzite", {"a": 3.3, "c": 5.3}, [2, 2, 2], 12),
        ("zincblende", {"a": 4.7}, [2, 2, 1], 24),  # the supercell breaks most rotations
    ],
)
def test_symmetry_fills_what_is_not_computed(
    prototype: str, options: dict[str, float], matrix: list[int], operations: int
) -> None:
    """Against all triplets that permutation and time reversal leave; one group is nonsymmorphic."""
    atoms = bulk("NaCl", prototype, **options)
    potential = random_potential(small_config(num_interactions=1, **BOTH_PARITIES), seed=7)
    structure = Structure(atoms.numbers, atoms.positions, atoms.cell[:], np.ones(3, bool))
    phonon = phonon_of(structure, matrix)
    symmetry = primitive_operations(phonon)
    assert len(symmetry.rotations) == operations
    reduced, triplets = third_order_of_cells(phonon, potential, symmetry)
    identity = choose(symmetry, (symmetry.rotations == np.eye(3, dtype=int)).all(axis=(1, 2)))
    every, all_triplets = third_order_of_cells(phonon, potential, identity)
    assert len(triplets.irreducible) < len(all_triplets.irreducible)
    assert_close(reduced, every)


def test_derivatives_of_harmonics() -> None:
    """Against nested automatic differentiation, up to degree 4."""
    vectors = np.random.default_rng(0).normal(size=(3, 3))
    lengths = np.linalg.norm(vectors, axis=1)

    def function(r: jax.Array) -> jax.Array:
        return harmonics((r / jnp.linalg.norm(r))[None], 4)[0]

    @compiled()
    def both(vectors: jax.Array, lengths: jax.Array) -> tuple[list[jax.Array], ...]:
        result = harmonic_derivatives(vectors / lengths[:, None], lengths, 4)
        expected, nested = [], function
        for _ in result:
            expected.append(jnp.moveaxis(jax.vmap(nested)(vectors), 1, -1))
            nested = jax.jacfwd(nested)
        return list(result), expected

    for result, expected in zip(*both(vectors, lengths), strict=True):
        assert_close(result, expected)

"""Three roads to the same force constants: Bloch response, automatic differentiation, differences.

All are exact for a given energy function, so in float64 they agree to rounding: about 1e-13 of
the largest element for sums of some thousand terms; 1e-11 leaves room for other BLAS builds.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal as ase_crystal
from conftest import BOTH_PARITIES, assert_close, small_config, three_atoms
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from scipy.spatial.transform import Rotation
from toy_model import toy_potential

import phonopy_equivariant as pe
from phonopy_equivariant.models.irreps import harmonics
from phonopy_equivariant.phonons.cells import primitive_operations, supercell_of_primitive
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.response.autodiff.extended import extended_force_constants
from phonopy_equivariant.response.autodiff.hessian import hessian, structure_hessian_rows
from phonopy_equivariant.response.bloch import lattice
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants, lattice_response
from phonopy_equivariant.response.symmetry.little_group import little_groups, rotations_of_irreps
from phonopy_equivariant.response.symmetry.star import commensurate_grid, real_q
from phonopy_equivariant.structure import Structure, as_structure, to_ase, to_phonopy

# Γ, a point with 2q = G, and two general points
QPOINTS = np.array([[0.0, 0, 0], [0.5, 0, 0.5], [0.25, 0.1, -0.3], [0.33, 0.2, 0.7]])

MODELS = {
    "three layers": lambda: random_potential(small_config(num_interactions=3), seed=1),
    "both parities, norm, no species skip": lambda: random_potential(
        small_config(**BOTH_PARITIES, layer_norm=True, species_skip=False), seed=2
    ),
    "one layer": lambda: random_potential(small_config(num_interactions=1), seed=4),
    "what MACE needs": lambda: toy_potential(small_config(), seed=5),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Potential:
    return MODELS[request.param]()


# one of each program where the road in question does not depend on more
TWO_MODELS = pytest.mark.parametrize(
    "model", ["both parities, norm, no species skip", "what MACE needs"], indirect=True
)


def phonopy_of(atoms: object, supercell_matrix: object) -> Phonopy:
    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
    )
    return Phonopy(cell, supercell_matrix=supercell_matrix, primitive_matrix="P")


def test_bloch_response_equals_extended_graph(model: Potential, crystal: Structure) -> None:
    """Off the commensurate grid too: no supercell enters on either side."""
    crystal = three_atoms(crystal)
    expected = extended_force_constants(model, crystal, QPOINTS)
    result = lattice_force_constants(model, crystal, QPOINTS)
    primitive = to_phonopy(crystal)
    matrices = pe.dynamical_matrices(model, primitive, QPOINTS)
    roots = np.repeat(np.sqrt(primitive.masses), 3)
    for q, got, want, matrix in zip(QPOINTS, result, expected, matrices, strict=True):
        assert_close(got, want)
        assert_close(got, got.conj().T)
        # phonopy's gauge: D_ij(q) = e^{2πi q·(x_j - x_i)} Φ_ij(q) / sqrt(m_i m_j)
        phases = np.repeat(np.exp(2j * np.pi * primitive.scaled_positions @ q), 3)
        assert_close(matrix, np.outer(phases.conj(), phases) * want / np.outer(roots, roots))


@TWO_MODELS
def test_bloch_response_at_gamma_is_the_hessian_of_the_cell(
    model: Potential, crystal: Structure
) -> None:
    size = 3 * len(crystal.numbers)
    expected = hessian(crystal, model).reshape(size, size)
    result = lattice_force_constants(model, crystal, QPOINTS)[0]
    assert_close(result.real, expected)
    assert not result.imag.any()
    # translation invariance, raw: 1e-10 eV/Å² is asked of the package
    assert np.abs(result.real.reshape(size, -1, 3).sum(axis=1)).max() < 1e-11


@TWO_MODELS
def test_equilibrium_comes_out_of_the_expansion(model: Potential, crystal: Structure) -> None:
    """Forces, stress and features as reverse mode of the energy has them."""
    found = lattice_response(model, crystal, QPOINTS).equilibrium
    expected = model.evaluate(crystal)
    assert_close(found.forces, expected.forces)
    assert_close(found.stress, expected.stress)
    assert_close(found.features, expected.features)


@TWO_MODELS
def test_hessian_equals_central_differences(model: Potential, crystal: Structure) -> None:
    """At a step of 2e-5 Å truncation (4e-9) and rounding (1e-9) are far below 1e-7."""
    step, atom = 2e-5, 1
    row = hessian(crystal, model)[atom].transpose(1, 0, 2)
    for axis in range(3):
        forces = []
        for sign in (1, -1):
            positions = crystal.positions.copy()
            positions[atom, axis] += sign * step
            forces.append(model.evaluate(crystal._replace(positions=positions)).forces)
        difference = (forces[1] - forces[0]) / (2 * step)
        np.testing.assert_allclose(row[:, axis], difference, rtol=0, atol=1e-7 * np.abs(row).max())


def test_extended_graph_equals_supercell_at_commensurate_q(
    potential: Potential, crystal: Structure
) -> None:
    repeats = (2, 1, 3)
    atoms = len(crystal.numbers)
    supercell = to_ase(crystal).repeat(repeats)
    rows = structure_hessian_rows(potential, supercell, np.arange(atoms))
    cells = np.array([(a, b, c) for a in range(2) for b in range(1) for c in range(3)])
    q = np.array([0.5, 0.0, 1 / 3])
    blocks = rows.reshape(atoms, len(cells), atoms, 3, 3)
    phase = np.exp(2j * np.pi * cells @ q)
    expected = np.einsum("icjab,c->iajb", blocks, phase).reshape(3 * atoms, 3 * atoms)
    assert_close(extended_force_constants(potential, crystal, q[None])[0], expected)


def test_molecule_without_cell_at_gamma(potential: Potential, molecule: Structure) -> None:
    size = 3 * len(molecule.numbers)
    expected = hessian(molecule, potential).reshape(size, size)
    result = lattice_force_constants(potential, molecule, np.zeros((1, 3)))[0]
    assert_close(result.real, expected)
    # a box wider than the molecule by more than the cutoff changes nothing
    boxed = molecule._replace(cell=9.0 * np.eye(3), pbc=np.ones(3, bool))
    assert_close(lattice_force_constants(potential, boxed, np.zeros((1, 3)))[0].real, expected)


def test_blocks_of_q_and_real_arithmetic_change_nothing(
    potential: Potential, crystal: Structure
) -> None:
    expected = lattice_force_constants(potential, crystal, QPOINTS)
    assert_close(lattice_force_constants(potential, crystal, QPOINTS, max_memory=1), expected)
    # alone, q at which everything is real are computed with real numbers
    real = real_q(QPOINTS)
    assert 0 < real.sum() < len(QPOINTS)
    assert_close(lattice_force_constants(potential, crystal, QPOINTS[real]), expected[real])


def test_blocks_are_halved_until_they_fit_the_device(
    potential: Potential, crystal: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = lattice_force_constants(potential, crystal, QPOINTS)
    compute, sizes = lattice._block, []

    def small_device(*args: object) -> np.ndarray:
        sizes.append(len(args[2]))
        if sizes[-1] > 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return compute(*args)

    monkeypatch.setattr(lattice, "_block", small_device)
    assert_close(lattice_force_constants(potential, crystal, QPOINTS), expected)
    assert max(sizes) > 1

    def broken(*args: object) -> np.ndarray:
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(lattice, "_block", broken)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        lattice_force_constants(potential, crystal, QPOINTS)


CRYSTALS = {
    "silicon, non-diagonal": (bulk("Si"), [[-1, 1, 1], [1, -1, 1], [1, 1, -1]]),
    "one atom, point group broken": (bulk("Al"), np.diag([2, 3, 1])),
    "wurtzite, skewed supercell": (
        bulk("GaN", "wurtzite", a=3.19, c=5.19),
        [[2, 0, 0], [1, 2, 0], [0, 0, 1]],
    ),
    "quartz": (
        ase_crystal(
            ["Si", "O"],
            [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.2144)],
            spacegroup=152,
            cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
        ),
        np.diag([2, 1, 1]),
    ),
}


@pytest.fixture(scope="module")
def of_all_crystals() -> Potential:
    """Return one potential for the elements of all of them: its programs are compiled once."""
    return random_potential(small_config(species=(7, 8, 13, 14, 22, 31), cutoff=4.0), seed=6)


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.filterwarnings("ignore:.*Point group symmetries of supercell:UserWarning")
def test_force_constants_by_symmetry_equal_automatic_differentiation(
    name: str, of_all_crystals: Potential
) -> None:
    atoms, supercell_matrix = CRYSTALS[name]
    phonon = phonopy_of(atoms, supercell_matrix)
    expected = pe.force_constants(phonon, of_all_crystals, method="autodiff")
    report = pe.set_force_constants(phonon, of_all_crystals)
    assert_close(phonon.force_constants, expected)
    assert report.sum_rule < 1e-11
    assert report.permutation < 1e-11


def test_triclinic_supercell(potential: Potential, crystal: Structure) -> None:
    phonon = phonopy_of(to_ase(crystal), np.diag([2, 1, 2]))
    expected = pe.force_constants(phonon, potential, method="autodiff")
    assert_close(pe.force_constants(phonon, potential), expected)


def test_irreducible_points_of_fcc() -> None:
    """Textbook: 4x4x4 and 2x2x2 grids of an fcc lattice have 8 and 3 irreducible points."""
    for size, count in ((4, 8), (2, 3)):
        phonon = phonopy_of(bulk("Si"), np.diag([size] * 3))
        grid = commensurate_grid(supercell_of_primitive(phonon), primitive_operations(phonon))
        assert len(grid.irreducible) == count
        assert (np.bincount(grid.source) > 0).sum() == count


def test_unknown_method_is_refused(potential: Potential) -> None:
    phonon = phonopy_of(bulk("NaCl", "rocksalt", a=5.64), np.eye(3, dtype=int))
    with pytest.raises(pe.PhonopyEquivariantError, match="bloch, autodiff"):
        pe.force_constants(phonon, potential, method="dfpt")


def test_float32_stays_close(crystal: Structure) -> None:
    """Single precision keeps 1e-7 per operation; sums over layers lose a digit or two."""
    double = random_potential(small_config(), seed=1)
    single = random_potential(small_config(), seed=1, dtype="float32")
    expected = lattice_force_constants(double, crystal, QPOINTS)
    assert_close(lattice_force_constants(single, crystal, QPOINTS), expected, relative=3e-5)


def test_force_constants_in_phonopy(potential: Potential) -> None:
    """phonopy's forces on a displaced supercell are -Φ·u; MLP slot and setter must agree."""
    phonon = phonopy_of(bulk("NaCl", "rocksalt", a=5.64), np.diag([2, 2, 2]))
    pe.set_force_constants(phonon, potential)
    phonon.mlp = pe.PhonopyMLP(potential)
    supercell = as_structure(phonon.supercell)
    positions = supercell.positions.copy()
    # odd orders cancel between +u and -u, the third is left: (1e-4)² of the first
    positions[0, 0] += 1e-4
    forces = potential.evaluate(supercell._replace(positions=positions)).forces
    row = np.array(phonon.force_constants)[0, :, 0]
    np.testing.assert_allclose(forces, -1e-4 * row, atol=1e-7 * np.abs(row).max())
    energies, mlp_forces, stresses = phonon.mlp.evaluate([phonon.supercell])
    assert mlp_forces.shape == (1, len(phonon.supercell), 3)
    assert stresses.shape == (1, 6)
    np.testing.assert_allclose(energies[0], potential.evaluate(supercell).energy)


def test_one_atom_of_every_orbit_is_enough(of_all_crystals: Potential) -> None:
    """Little groups with and without time reversal, screw axes and glide planes; Γ to general q."""
    potential = of_all_crystals
    atoms = ase_crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0.3053, 0.3053, 0)],
        spacegroup=136,
        cellpar=[3.9, 3.9, 2.7, 90, 90, 90],
    )
    phonon = phonopy_of(atoms, np.diag([2, 2, 2]))
    symmetry = primitive_operations(phonon)
    qpoints = np.array(
        [
            [0.0, 0, 0],
            [0.5, 0, 0],
            [1 / 3, 1 / 3, 0],
            [0.2, 0.2, 0.5],
            [0.1, 0, 0.3],
            [0.1, 0.2, 0.3],
        ]
    )
    counts = [len(g.representatives) for g in little_groups(symmetry, qpoints)]
    assert min(counts) < max(counts) or max(counts) < len(atoms)
    reduced = lattice_response(potential, phonon.primitive, qpoints, symmetry=symmetry)
    every = lattice_response(potential, phonon.primitive, qpoints)
    assert_close(reduced.values, every.values)
    # whatever symmetry left to compute, forces and stress are those of all edges
    assert_close(reduced.equilibrium.stress, every.equilibrium.stress)
    np.testing.assert_allclose(reduced.equilibrium.forces, every.equilibrium.forces, atol=1e-12)
    computed = reduced.equilibrium.receivers
    assert_close(reduced.equilibrium.features, every.equilibrium.features[computed])


def test_rotations_of_irreps_are_a_representation() -> None:
    operations = primitive_operations(phonopy_of(bulk("Si"), np.diag([1, 1, 1])))
    turns = rotations_of_irreps(operations.cartesian, ["0e", "0o", "1e", "1o", "2e", "3o"])
    product = np.einsum("oab,pbc->opac", operations.cartesian, operations.cartesian)
    index = np.abs(product[:, :, None] - operations.cartesian).sum(axis=(3, 4)).argmin(axis=2)
    for turn in turns.values():
        assert_close(np.einsum("oab,pbc->opac", turn, turn), turn[index])
        assert_close(np.linalg.det(turn) ** 2, np.ones(len(turn)))
    assert_close(turns["0o"][:, 0, 0], np.linalg.det(operations.cartesian))


def test_rotations_of_irreps_turn_the_harmonics() -> None:
    some = Rotation.random(5, random_state=1).as_matrix()
    vectors = np.random.default_rng(2).normal(size=(7, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    turns = rotations_of_irreps(some, [f"{degree}e" for degree in range(5)])
    with jax.enable_x64(True):
        before = np.asarray(harmonics(jnp.asarray(vectors), 4))
        after = np.stack([harmonics(jnp.asarray(vectors @ x.T), 4) for x in some])
    for degree in range(5):
        part = slice(degree**2, (degree + 1) ** 2)
        turned = np.einsum("omn,xn->oxm", turns[f"{degree}e"], before[:, part])
        assert_close(after[..., part], turned)


def test_an_atom_without_neighbours_has_no_force_constants() -> None:
    potential = random_potential(small_config(), seed=1)
    far = Structure(
        np.array([potential.species[0]]), np.zeros((1, 3)), 50 * np.eye(3), np.ones(3, bool)
    )
    assert np.all(lattice_force_constants(potential, far, np.array([[0.1, 0.2, 0.3]])) == 0)

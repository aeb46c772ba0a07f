"""Laws every potential obeys: symmetry, smoothness, derivatives, independence of layout."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import BOTH_PARITIES, IMPROPER, NATURAL, assert_close, small_config

from phonopy_equivariant.graph import extended_graph, pad_graph
from phonopy_equivariant.models.convolution import edge_blocks
from phonopy_equivariant.potential import node_energies, random_potential

VARIANTS = {
    "natural parity": NATURAL,
    "both parities, norm, shared skip": BOTH_PARITIES | {"species_skip": False, "layer_norm": True},
}


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    return random_potential(small_config(**VARIANTS[request.param]), seed=2)


def test_energy_forces_and_stress_are_equivariant(variant, crystal):
    before = variant.evaluate(crystal)
    moved = crystal._replace(
        positions=(crystal.positions + [0.3, -5.1, 2.2]) @ IMPROPER.T,
        cell=crystal.cell @ IMPROPER.T,
    )
    after = variant.evaluate(moved)
    assert_close(after.energy, before.energy)
    assert_close(after.energies, before.energies)
    assert_close(after.forces, before.forces @ IMPROPER.T)
    assert_close(after.stress, IMPROPER @ before.stress @ IMPROPER.T)
    assert_close(before.stress, before.stress.T)


def test_images_and_order_of_atoms_do_not_matter(variant, crystal):
    before = variant.evaluate(crystal)
    order = np.array([3, 0, 4, 2, 1])
    shifts = np.array([[0, 0, 0], [1, -2, 0], [0, 0, 3], [-1, 0, 0], [0, 1, 1]])
    permuted = crystal._replace(
        numbers=crystal.numbers[order],
        positions=(crystal.positions + shifts @ crystal.cell)[order],
    )
    after = variant.evaluate(permuted)
    assert_close(after.energies, before.energies[order])
    assert_close(after.forces, before.forces[order])
    assert_close(after.stress, before.stress)


def test_forces_are_the_central_differences_of_the_energy(variant, crystal):
    forces = variant.evaluate(crystal).forces
    # truncation ~ step², rounding ~ 1e-15 eV / step: both below 1e-8 eV/Å at this step
    step = 3e-5
    numerical = np.zeros_like(forces)
    for atom, axis in np.ndindex(*forces.shape):
        energies = []
        for sign in (1, -1):
            positions = crystal.positions.copy()
            positions[atom, axis] += sign * step
            energies.append(variant.evaluate(crystal._replace(positions=positions)).energy)
        numerical[atom, axis] = -(energies[0] - energies[1]) / (2 * step)
    assert_close(forces, numerical, 1e-7)
    # no net force
    assert_close(forces - forces.mean(axis=0), forces, 1e-12)


def test_stress_is_the_central_difference_of_the_energy(variant, crystal):
    stress = variant.evaluate(crystal).stress
    step = 1e-5
    numerical = np.zeros((3, 3))
    for i in range(3):
        for j in range(i + 1):
            energies = []
            for sign in (1, -1):
                strain = np.zeros((3, 3))
                strain[i, j] += sign * step / 2
                strain[j, i] += sign * step / 2
                strained = crystal._replace(
                    positions=crystal.positions @ (np.eye(3) + strain),
                    cell=crystal.cell @ (np.eye(3) + strain),
                )
                energies.append(variant.evaluate(strained).energy)
            numerical[i, j] = numerical[j, i] = (energies[0] - energies[1]) / (2 * step)
    assert_close(stress, numerical / crystal.volume, 1e-7)


def test_a_supercell_repeats_the_cell(potential, crystal):
    images = np.array([[0, 0, 0], [1, 0, 0]])
    doubled = crystal._replace(
        numbers=np.tile(crystal.numbers, 2),
        positions=np.vstack([crystal.positions + shift @ crystal.cell for shift in images]),
        cell=crystal.cell * [[2], [1], [1]],
    )
    one, two = potential.evaluate(crystal), potential.evaluate(doubled)
    assert_close(two.energies, np.tile(one.energies, 2))
    assert_close(two.forces, np.tile(one.forces, (2, 1)))
    assert_close(two.stress, one.stress)


def test_a_molecule_in_a_large_cell_is_a_molecule(potential, molecule):
    boxed = molecule._replace(cell=np.eye(3) * 30.0, pbc=np.ones(3, bool))
    slab = molecule._replace(cell=np.eye(3) * 30.0, pbc=np.array([True, True, False]))
    free = potential.evaluate(molecule)
    assert not free.stress.any()
    for structure in (boxed, slab):
        bound = potential.evaluate(structure)
        assert_close(bound.energies, free.energies)
        assert_close(bound.forces, free.forces)


def test_an_isolated_atom_has_no_forces(potential, crystal):
    lone = crystal._replace(
        numbers=np.array([17, 11]),
        positions=np.array([[0.0, 0, 0], [0, 0, 50]]),
        cell=np.eye(3) * 100,
    )
    result = potential.evaluate(lone)
    assert np.isfinite(result.energies).all()
    assert not result.forces.any() and not result.stress.any()


def _energies(potential, graph):
    """Return site energies of a graph as it is, padded or not."""

    @jax.jit
    def function(graph):
        return node_energies(potential.model, potential.params, graph, graph.nodes["positions"])

    with jax.enable_x64(True):
        return np.asarray(function(graph))


def test_padding_changes_nothing(potential, crystal):
    graph = potential.graph(crystal)
    plain = _energies(potential, graph)
    assert_close(_energies(potential, pad_graph(graph, 19, 400))[:5], plain, 1e-13)
    wide, narrow = potential.evaluate_graph(graph, 19, 400), potential.evaluate(crystal)
    assert_close(narrow.energies, plain, 1e-13)
    assert_close(wide.forces, narrow.forces, 1e-13)
    assert_close(wide.stress, narrow.stress, 1e-13)


def test_blocks_of_edges_sum_to_the_whole(crystal):
    potential = random_potential(small_config(cutoff=7.0), seed=1)
    graph = potential.graph(crystal)
    count = int(graph.n_edge[0])
    padded = pad_graph(graph)
    # a number of edges that does not divide into blocks runs in a single piece
    whole = next(n for n in range(count, count + 64, 2) if edge_blocks(n) == 1)
    assert edge_blocks(len(padded.senders)) > 1
    single = pad_graph(graph, n_edge=whole)
    assert_close(_energies(potential, padded)[:5], _energies(potential, single)[:5], 1e-13)


def test_energy_is_smooth_where_an_atom_crosses_the_cutoff(potential, molecule):
    def at(distance):
        positions = np.array([[0.0, 0, 0], [1.2, 0.9, 0], [distance, 0, 0]])
        return potential.evaluate(
            molecule._replace(numbers=np.array([8, 11, 17]), positions=positions)
        )

    gap = 1e-5
    inside, middle, outside = (at(potential.cutoff + x) for x in (-gap, 0.0, gap))
    # C²: the trapezoidal rule for the work and the second difference of the force see no kink but
    # in the third derivative, of order p(p+1)(p+2)/c³ ~ 10: gap³ and gap² of that
    work = gap * (inside.forces[2, 0] + outside.forces[2, 0])
    assert abs(outside.energy - inside.energy + work) < 1e-13
    assert np.abs(inside.forces + outside.forces - 2 * middle.forces).max() < 1e-8
    # and the law is not empty: the atom is felt well inside
    near = at(potential.cutoff - 0.8)
    assert abs(near.energies[0] - outside.energies[0]) > 1e-4


def test_float32_agrees_with_float64(potential, crystal):
    single = random_potential(potential.config, seed=1, dtype="float32")
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(single.params))
    coarse, fine = single.evaluate(crystal), potential.evaluate(crystal)
    # 24 bits, and sums of some hundred terms
    assert_close(coarse.energies, fine.energies, 1e-5)
    assert_close(coarse.forces, fine.forces, 1e-5)
    assert_close(coarse.stress, fine.stress, 1e-5)
    assert np.abs(coarse.forces - fine.forces).max() > 0


def test_hessian_range_is_twice_the_receptive_field(potential, molecule):
    """A force follows an atom 2·T·cutoff away along a chain, and none further away."""
    reach, spacing = potential.hessian_range, 2.9
    atoms = int(reach / spacing) + 2
    assert (atoms - 2) * spacing < reach < (atoms - 1) * spacing
    chain = np.arange(atoms)[:, None] * [spacing, 0.0, 0.0]
    # a little zigzag: nothing vanishes by symmetry
    chain[:, 1] = 0.3 * np.sin(np.arange(atoms))
    structure = molecule._replace(numbers=np.full(atoms, 11), positions=chain)
    moved = structure._replace(positions=chain + (np.arange(atoms) == 0)[:, None] * 0.2)
    change = potential.evaluate(moved).forces - potential.evaluate(structure).forces
    assert np.abs(change[:2]).max() > 0
    assert not change[-1].any()


PROCESS = """
import sys
import phonopy_equivariant as pe
assert "jax" not in sys.modules, "importing the package imports jax"
import ase.build, numpy as np, jax
potential = pe.random_potential(pe.NequIPConfig(
    species=(11, 17), cutoff=3.5, num_interactions=2, hidden_irreps="4x0e + 2x1o",
    l_max=1, radial_width=8, radial_depth=1))
atoms = ase.build.bulk("NaCl", "rocksalt", a=5.64)
atoms.positions[1] += [0.1, 0.05, 0.0]
force = potential.evaluate(atoms).forces[1, 0]
energies = []
for sign in (1, -1):
    moved = atoms.copy()
    moved.positions[1, 0] += sign * 1e-5
    energies.append(potential.evaluate(moved).energy)
assert not jax.config.jax_enable_x64
print(force, -(energies[0] - energies[1]) / 2e-5)
"""


def test_a_process_without_x64_computes_in_float64_and_does_not_switch_it_on():
    environment = {key: value for key, value in os.environ.items() if key != "JAX_ENABLE_X64"}
    run = subprocess.run(
        [sys.executable, "-c", PROCESS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    force, numerical = map(float, run.stdout.split())
    # float32 energies would be off by 1e-7 eV / 2e-5 Å
    assert abs(force) > 1e-4 and force == pytest.approx(numerical, rel=1e-6)


def test_an_unknown_element_is_named(potential, crystal):
    foreign = crystal._replace(numbers=np.array([11, 17, 8, 79, 11]))
    with pytest.raises(ValueError, match="Au"):
        potential.evaluate(foreign)


def test_home_atoms_of_the_extended_graph_have_their_energies_in_the_crystal(potential, crystal):
    species = potential.species_index(crystal.numbers)
    graph, _, _ = extended_graph(crystal, potential.cutoff, potential.num_interactions, species)
    home = _energies(potential, graph)[:5]
    assert_close(home, potential.evaluate(crystal).energies, 1e-12)

"""Imaginary modes followed: directions of order parameters, a toy whose ground state is known."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import yaml
from ase import Atoms
from ase.build import bulk
from cli_helpers import assert_refused, command, poscar
from conftest import small_config
from jaxtyping import Array
from toy_model import build_toy

import phonopy_equivariant as pe
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.models.layered import LayeredModel
from phonopy_equivariant.models.weights import normal_numbers
from phonopy_equivariant.phonons.order_parameters import (
    commensurate_cell,
    distorted,
    order_parameter,
)
from phonopy_equivariant.phonons.same_crystal import are_same, standard_cell
from phonopy_equivariant.phonons.unstable_modes import ImaginaryModes, SmallQ, small_qpoints
from phonopy_equivariant.potential import Potential, make_potential
from phonopy_equivariant.response.symmetry.operations import obeyed, search
from phonopy_equivariant.structure import as_structure
from phonopy_equivariant.workflows import unstable as workflow

# The toy: CsCl of this lattice constant (Å). Cl holds the lattice, Na wants to leave its centre,
# and the tension between Na makes all of them leave to the same side.
SIDE = 3.2


def perovskite() -> Atoms:
    scaled = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Atoms("SrTiO3", scaled_positions=scaled, cell=3.9 * np.eye(3), pbc=True)


def fluorite() -> Atoms:
    return bulk("ZrO2", "fluorite", a=5.1)


def rotations_of_octahedra(antiphase: bool) -> np.ndarray:
    """Displacements of Sr, Ti and three O: one turn about each axis, antiphase along it or not."""
    vectors = np.zeros((5, 3, 3))
    # O at the centres of faces, 2 on z, 3 on y, 4 on x: those around an axis move tangentially
    turns = {0: [(2, 1, -1), (3, 2, 1)], 1: [(2, 0, 1), (4, 2, -1)], 2: [(3, 0, -1), (4, 1, 1)]}
    for axis, moves in turns.items():
        for atom, direction, sign in moves:
            vectors[atom, direction, axis] = sign
    columns = vectors.reshape(15, 3) / np.sqrt(2)
    return columns if antiphase else columns[:, 2:]


def polar_modes() -> np.ndarray:
    """Return one displacement along each axis of Ti against O."""
    vectors = np.zeros((5, 3, 3))
    vectors[1] = np.eye(3)
    vectors[2:] = -np.eye(3) / 3
    return vectors.reshape(15, 3) / np.linalg.norm(vectors[:, 0, 0])


def columns_of_oxygen() -> np.ndarray:
    """Return the mode of fluorite at X in which columns of O move along z, up and down by turns."""
    vectors = np.zeros((3, 3, 1))
    vectors[1:, 2] = 1  # the two O of a cell are a half step of both kinds of columns apart
    return vectors.reshape(9, 1) / np.sqrt(2)


# Isotropy subgroups in the tables of Stokes and Hatch, and of Howard and Stokes (Acta Cryst. B54,
# 782 (1998), doi:10.1107/S0108768198004200) for rotations of octahedra.
@pytest.mark.parametrize(
    ("crystal", "numerators", "order", "vectors", "numbers", "dimension"),
    [
        (perovskite(), (1, 1, 1), 2, rotations_of_octahedra(True), {140, 74, 167}, 3),
        (perovskite(), (1, 1, 0), 2, rotations_of_octahedra(False), {127}, 1),
        (perovskite(), (0, 0, 0), 1, polar_modes(), {99, 38, 160}, 3),
        (fluorite(), (1, 1, 0), 2, columns_of_oxygen(), {137}, 1),
    ],
    ids=["R of perovskite", "M of perovskite", "Gamma of perovskite", "X of fluorite"],
)
def test_directions_have_the_space_groups_of_the_tables(
    crystal: Atoms,
    numerators: tuple[int, int, int],
    order: int,
    vectors: np.ndarray,
    numbers: set[int],
    dimension: int,
) -> None:
    structure = as_structure(crystal)
    symmetry = obeyed(search(structure, 1e-5))
    place = SmallQ(np.array(numerators), order)
    scaled = crystal.get_scaled_positions()
    # from displacements that all cells have up to exp(2πi q·T) to phonopy's eigenvectors
    weights = np.repeat(np.exp(-2j * np.pi * scaled @ place.qpoint), 3)[:, None]
    modes = ImaginaryModes(place, -1.0, vectors * weights)
    parameter = order_parameter(structure, symmetry, modes)
    assert parameter.waves.shape[2] == dimension
    found = []
    for direction in parameter.directions:
        atoms, displacements = distorted(structure, parameter, direction)
        assert np.linalg.norm(displacements, axis=1).max() == pytest.approx(1)
        atoms.positions += 0.1 * displacements
        found.append(standard_cell(atoms, 1e-4).number)
    assert sorted(found) == sorted(numbers)


def test_labels_of_irreps_in_the_group_of_q() -> None:
    """A vector at Γ is T1u; turns of octahedra at R are a pseudovector on the cell's own centre."""
    structure = as_structure(perovskite())
    symmetry = obeyed(search(structure, 1e-5))
    for numerators, order, vectors, label in (
        ((0, 0, 0), 1, polar_modes(), "T1u"),
        ((1, 1, 1), 2, rotations_of_octahedra(True), "T2u"),
    ):
        place = SmallQ(np.array(numerators), order)
        phases = np.exp(-2j * np.pi * perovskite().get_scaled_positions() @ place.qpoint)
        modes = ImaginaryModes(place, -1.0, vectors * np.repeat(phases, 3)[:, None])
        assert order_parameter(structure, symmetry, modes).label == label


def test_directions_at_a_q_of_order_three() -> None:
    """One atom in a hexagonal cell moves along z at K: (1, -1/2, -1/2) and (1, -1, 0)."""
    crystal = Atoms("Na", cell=[[3, 0, 0], [-1.5, 1.5 * 3**0.5, 0], [0, 0, 4]], pbc=True)
    structure = as_structure(crystal)
    place = SmallQ(np.array([1, 1, 0]), 3)
    modes = ImaginaryModes(place, -1.0, np.array([[0], [0], [1]], complex))
    parameter = order_parameter(structure, obeyed(search(structure, 1e-5)), modes)
    patterns = set()
    for direction in parameter.directions:
        _, moves = distorted(structure, parameter, direction)
        np.testing.assert_allclose(moves[:, :2], 0, atol=1e-12)
        patterns.add(tuple(np.round(sorted(np.abs(moves[:, 2])), 6).tolist()))
    assert patterns == {(0.5, 0.5, 1.0), (0.0, 1.0, 1.0)}


def test_small_qpoints_are_one_of_each_star() -> None:
    """Simple cubic: Γ; X, M, R; of order three five kinds, of order four as many as counted."""
    symmetry = search(as_structure(bulk("Na", "sc", a=3.0)), 1e-5)
    places = small_qpoints(symmetry, 3)
    kinds = {tuple(sorted(np.abs(place.numerators).tolist())) + (place.order,) for place in places}
    assert len(places) == len(kinds) == 7
    expected = {(0, 0, 0, 1), (0, 0, 1, 2), (0, 1, 1, 2), (1, 1, 1, 2)}
    assert kinds == expected | {(0, 0, 1, 3), (0, 1, 1, 3), (1, 1, 1, 3)}


@pytest.mark.parametrize("numerators", [(1, 0, 0), (1, 2, 0), (3, 1, 2), (2, 0, 1)])
def test_commensurate_cells_are_the_smallest(numerators: tuple[int, int, int]) -> None:
    place = SmallQ(np.array(numerators), 4)
    cell = commensurate_cell(place)
    assert len(cell.images) == 4 == round(np.linalg.det(cell.basis))
    np.testing.assert_array_equal(cell.basis @ place.numerators % 4, 0)
    np.testing.assert_array_equal(cell.image_of(cell.images + cell.basis.sum(axis=0)), range(4))


def test_equal_crystals_in_different_settings() -> None:
    """Whatever the cell, origin and axes; and a crystal with other distances is another one."""
    crystal = fluorite()
    crystal.rattle(0.05, seed=2)
    turned = crystal.repeat((1, 2, 1))
    turned.positions += [0.3, 0.1, -0.2]
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    first, second = standard_cell(crystal, 1e-3), standard_cell(turned, 1e-3)
    assert are_same(first, second, 1e-3)
    crystal.rattle(0.05, seed=3)
    assert not are_same(first, standard_cell(crystal, 1e-3), 1e-3)


def test_masses_of_isotopes_are_refused() -> None:
    crystal = fluorite()
    crystal.set_masses([91.2, 16.0, 18.0])
    with pytest.raises(pe.PhonopyEquivariantError, match="different masses"):
        standard_cell(crystal, 1e-3)


# The toy potential


def pair_energy(distance: Array, sodium: Array) -> Array:
    """Return the energy (eV) of a pair: 0, 1 or 2 of its atoms are Na."""
    numeric = jnp if isinstance(distance, jax.Array) else np

    def switched(values: Array, first: float, last: float) -> Array:
        x = numeric.clip((distance - first) / (last - first), 0.0, 1.0)
        return values * (1 - x**3 * (10 - 15 * x + 6 * x**2))

    diagonal = np.sqrt(2) * SIDE
    lattice = (distance - SIDE) ** 2 * (distance - diagonal) ** 2
    chlorine = switched(12.0 * lattice, 5.0, 5.2)
    tension = switched(0.5 * lattice + 5.0 * distance, 3.7, 4.1)
    off = distance - np.sqrt(0.75) * SIDE
    double_well = switched(-0.3 * off**2 + 2.0 * off**4, 3.4, 3.8)
    return numeric.where(sodium == 0, chlorine, numeric.where(sodium == 1, double_well, tension))


@dataclasses.dataclass(frozen=True, eq=False)
class PairPotential(Potential):
    """A potential that is the pair energy and nothing else."""

    @property
    def model(self) -> LayeredModel:
        return build_pairs(self.config)


@functools.lru_cache
def build_pairs(config: NequIPConfig) -> LayeredModel:
    """Return the toy of other tests with this pair energy, half for each direction."""

    def pair(params: dict, distance: Array, z_i: Array, z_j: Array) -> Array:
        return 0.5 * pair_energy(distance, 2 - z_i - z_j)

    return dataclasses.replace(build_toy(config), pair=pair)


@pytest.fixture(scope="module")
def double_well() -> PairPotential:
    config = small_config(species=(11, 17), cutoff=5.2, num_interactions=1)
    model = build_pairs(config)
    params = jax.tree.map(lambda x: 0 * np.asarray(x), model.init(normal_numbers(0)))
    made = make_potential(config, params)
    return PairPotential(made.config, made.params, made.dtype, name="double well")


def lattice_sum(variables: np.ndarray) -> float:
    """Return the energy (eV) of a cell with strain and displaced Na, by sums over images."""
    strain = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    cell = SIDE * (np.eye(3) + variables[strain])
    offset = (0.5 + variables[6:]) @ cell
    images = np.array(list(np.ndindex(7, 7, 7))) - 3
    vectors = images @ cell
    same = np.linalg.norm(vectors[images.any(axis=1)], axis=1)
    total = 0.5 * pair_energy(same, np.zeros(len(same))).sum()
    total += 0.5 * pair_energy(same, np.full(len(same), 2)).sum()
    across = np.linalg.norm(vectors + offset, axis=1)
    return float(total + pair_energy(across, np.ones(len(across))).sum())


def salt() -> Atoms:
    return Atoms("ClNa", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=SIDE * np.eye(3), pbc=True)


@pytest.fixture(scope="module")
def tree(double_well: PairPotential, tmp_path_factory: pytest.TempPathFactory) -> pe.PhaseTree:
    folder = tmp_path_factory.mktemp("unstable")
    result = pe.follow_unstable_modes(salt(), double_well, folder=folder)
    content = yaml.safe_load((folder / "unstable.yaml").read_text())
    assert len(content["crystals"]) == len(result.phases) == len(list(folder.glob("*.vasp")))
    return result


def test_the_pair_potential_is_the_lattice_sum(double_well: PairPotential) -> None:
    variables = np.array([0.01, -0.02, 0.005, 0.01, 0.0, -0.01, 0.03, -0.05, 0.02])
    strain = variables[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]
    atoms = salt()
    atoms.set_cell(SIDE * (np.eye(3) + strain), scale_atoms=True)
    atoms.positions[1] += variables[6:] @ atoms.cell.array
    assert double_well.evaluate(atoms).energy == pytest.approx(lattice_sum(variables), abs=1e-10)


def test_the_ground_state_of_the_toy_is_found(tree: pe.PhaseTree) -> None:
    """The lowest of minima from random starts, by sums over the lattice and without symmetry."""
    rng = np.random.default_rng(1)
    minima = [
        scipy.optimize.minimize(
            lattice_sum, rng.uniform(-1, 1, 9) * np.r_[np.full(6, 0.02), np.full(3, 0.15)]
        ).fun
        for _ in range(8)
    ]
    assert tree.finished
    assert tree.phases[0].number == 221
    assert tree.phases[0].energy > min(minima) + 0.01
    assert tree.lowest.stable
    assert tree.lowest.energy == pytest.approx(min(minima), abs=1e-6)


def test_distortions_of_the_toy(tree: pe.PhaseTree) -> None:
    """Three directions from the cubic crystal; what is no minimum leads further down."""
    modes = tree.phases[0].modes
    assert modes is not None and len(modes) == 1
    assert (modes[0].irrep, modes[0].degeneracy, modes[0].cells) == ("T1u", 3, 1)
    first = [step for step in tree.distortions if step.parent == 0]
    assert {tree.phases[step.child].number for step in first if step.child} == {99, 38, 160}
    for step in tree.distortions:
        assert step.energies[0] == 0 and step.energies.min() < 0
        assert step.child is not None
        assert tree.phases[step.child].energy < tree.phases[step.parent].energy
    for number, phase in enumerate(tree.phases):
        assert phase.stable or any(step.parent == number for step in tree.distortions)


def test_energy_along_a_mode_starts_with_its_frequency(
    tree: pe.PhaseTree, double_well: PairPotential
) -> None:
    """E(s) = ω² Σ m u² / 2 to second order, and the frequency is that of D(q)."""
    step, root = tree.distortions[0], tree.phases[0]
    matrix = pe.dynamical_matrices(double_well, root.atoms, [[0.0, 0.0, 0.0]])[0]
    lowest = np.linalg.eigvalsh(matrix)[0]
    assert np.sign(lowest) * np.sqrt(-lowest) * 15.633302 == pytest.approx(
        step.modes.frequency, abs=1e-4
    )
    masses = root.atoms.get_masses()
    u = np.array([masses[::-1]]).T * np.array([1.0, -1.0])[:, None]  # centre of mass at rest
    sodium_moves = (step.amplitudes[1] * np.abs(u[:, 0]) / np.abs(u).max()) ** 2 @ masses
    assert step.energies[1] == pytest.approx(lowest * sodium_moves / 2, rel=0.02)


def test_limits_are_said(double_well: PairPotential) -> None:
    with pytest.warns(UserWarning, match="max_structures=2 is reached"):
        tree = pe.follow_unstable_modes(salt(), double_well, max_structures=2)
    assert not tree.finished and len(tree.phases) == 2
    assert "not everything" in tree.heading()
    with pytest.warns(UserWarning, match="needs a cell of 2 atoms"):
        tree = pe.follow_unstable_modes(salt(), double_well, max_atoms=1)
    assert not tree.finished and tree.phases[0].stable is False


def test_nothing_is_lost_when_it_is_interrupted(
    double_well: PairPotential, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    along = workflow._Search._along

    def interrupted(self: object, *arguments: object) -> object:
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return along(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(workflow._Search, "_along", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pe.follow_unstable_modes(salt(), double_well, folder=tmp_path)
    content = yaml.safe_load((tmp_path / "unstable.yaml").read_text())
    assert not content["finished"]
    assert len(content["crystals"]) == 3 == len(list(tmp_path.glob("phase-*.vasp")))


def test_the_command(tmp_path: Path) -> None:
    """A stable crystal: one row, files, and the answer."""
    from cli_helpers import model

    poscar(tmp_path)
    result = command("unstable", "POSCAR", "--model", model(), cwd=tmp_path)
    assert "1  Fm-3m (225)  2" in result.stdout and "stable" in result.stdout
    names = sorted(path.name for path in (tmp_path / "unstable").iterdir())
    settings = "unstable-settings.yaml"
    assert names == ["phase-01.vasp", settings, "unstable.pdf", "unstable.yaml"]
    refused = command(
        *("unstable", "POSCAR", "--model", model(), "--max-cells", 0), cwd=tmp_path, status=1
    )
    assert_refused(refused, "--max-cells 0", "positive whole number")

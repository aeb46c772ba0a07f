"""Exact mode: D(q) at every q, against supercells and phonopy itself; see test_response.py."""

from __future__ import annotations

from collections.abc import Callable

import cli_helpers
import numpy as np
import pytest
from ase import units
from ase.build import bulk
from conftest import small_config
from phonopy import Phonopy
from phonopy.physical_units import get_physical_units
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.phonons import exact_range
from phonopy_equivariant.phonons.cells import primitive_operations
from phonopy_equivariant.phonons.exact_images import ImageTable, image_matrix
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.response.autodiff.extended import extended_force_constants
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
from phonopy_equivariant.response.dynamical_matrix import mass_weighted
from phonopy_equivariant.response.symmetry.star import commensurate_grid, fill_star
from phonopy_equivariant.structure import Structure, to_phonopy

Q_OFF_GRID = np.array([[0.0, 0, 0], [0.25, 0.1, -0.3], [0.33, 0.2, 0.7], [1e-3, 0, 2e-3]])


def rock_salt(size: int = 2) -> Phonopy:
    atoms = bulk("NaCl", "rocksalt", a=cli_helpers.LATTICE)
    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
    )
    return Phonopy(cell, supercell_matrix=np.diag([size] * 3), primitive_matrix="P")


@pytest.fixture(scope="module")
def potential() -> Potential:
    """Return a potential with a range of 16 Å under which rock salt has real frequencies."""
    return cli_helpers.potential()


@pytest.fixture(scope="module")
def exact(potential: Potential) -> Phonopy:
    phonon = rock_salt()
    pe.use_exact_dynamical_matrix(phonon, potential)
    return phonon


def in_thz(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.sqrt(np.abs(values)) * rock_salt(1).unit_conversion_factor


@pytest.fixture(scope="module")
def matrices(potential: Potential) -> Callable[[np.ndarray], np.ndarray]:
    """Return D(q) at a list of q, always 40 at a time."""
    primitive = rock_salt(1).primitive

    def at(qpoints: np.ndarray) -> np.ndarray:
        padded = np.concatenate([qpoints, np.full((-len(qpoints) % 40, 3), 0.1)])
        blocks = padded.reshape(-1, 40, 3)
        found = [pe.dynamical_matrices(potential, primitive, block) for block in blocks]
        return np.concatenate(found)[: len(qpoints)]

    return at


@pytest.fixture(scope="module")
def frequencies(
    matrices: Callable[[np.ndarray], np.ndarray],
) -> Callable[[np.ndarray], np.ndarray]:
    """Return frequencies (THz) by direct diagonalisation at a list of q."""
    return lambda qpoints: in_thz(np.linalg.eigvalsh(matrices(qpoints)))


def test_on_the_grid_equals_the_supercell() -> None:
    """phonopy's own D(q) from the Hessian of a supercell, by automatic differentiation."""
    atoms = bulk("GaN", "wurtzite", a=3.19, c=5.19)
    model = random_potential(small_config(species=(7, 31), cutoff=4.0), seed=6)
    phonon = Phonopy(
        PhonopyAtoms(
            numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
        ),
        supercell_matrix=[2, 2, 1],
        primitive_matrix="P",
    )
    pe.set_force_constants(phonon, model, method="autodiff")
    qpoints = np.array([[0, 0, 0], [0.5, 0, 1], [-0.5, 1.5, 0], [0, 2.5, 1]])
    expected = phonon.run_qpoints(qpoints, with_dynamical_matrices=True).dynamical_matrices
    found = pe.dynamical_matrices(model, phonon.primitive, qpoints)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert np.abs(found).max() > 1e-3


def test_a_triclinic_cell(crystal: Structure) -> None:
    """Five atoms without symmetry: bands and mesh against the extended graph, off any grid."""
    model = random_potential(small_config(num_interactions=1), seed=4)
    phonon = Phonopy(to_phonopy(crystal), np.eye(3, dtype=int), primitive_matrix="P")
    report = pe.use_exact_dynamical_matrix(phonon, model)
    roots = np.repeat(np.sqrt(phonon.primitive.masses), 3)
    lattice = extended_force_constants(model, crystal, Q_OFF_GRID)
    squares = np.linalg.eigvalsh(lattice / np.outer(roots, roots))
    expected = np.sign(squares) * np.sqrt(np.abs(squares)) * phonon.unit_conversion_factor
    found = phonon.run_qpoints(Q_OFF_GRID).frequencies
    # the acoustic modes at Γ and beside it are square roots of rounding
    np.testing.assert_allclose(found[1:3], expected[1:3], rtol=0, atol=max(1e-6, report.error))
    assert expected[1:3].max() > 1
    mesh = phonon.run_mesh([3, 2, 1])
    assert sum(mesh.weights) == 6 and len(mesh.weights) < 6  # time reversal is left
    matrices = pe.dynamical_matrices(model, phonon.primitive, mesh.qpoints[1:])
    direct = np.linalg.eigvalsh(matrices)
    direct = np.sign(direct) * np.sqrt(np.abs(direct)) * phonon.unit_conversion_factor
    np.testing.assert_allclose(mesh.frequencies[1:], direct, rtol=0, atol=1e-6)


def test_the_range_is_found(
    potential: Potential,
    frequencies: Callable[[np.ndarray], np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A loose tolerance takes fewer cells, and the error reported is the error elsewhere too."""
    monkeypatch.setattr(exact_range, "FIRST_DIAMETER", 5.0)
    phonon = rock_salt()
    loose = pe.use_exact_dynamical_matrix(phonon, potential, tolerance=10.0)
    assert len(loose.attempts) == 1
    qpoints = np.random.default_rng(1).uniform(-1, 1, (40, 3))
    expected = frequencies(qpoints)
    error = np.abs(phonon.run_qpoints(qpoints).frequencies - expected).max()
    assert loose.error / 20 < error < 3 * loose.error
    tight = pe.use_exact_dynamical_matrix(phonon, potential)
    assert tight.error <= 1e-6 < loose.error
    assert len(tight.attempts) > 2
    assert tight.attempts[0].counts == loose.attempts[0].counts
    assert np.abs(phonon.run_qpoints(qpoints).frequencies - expected).max() < 1e-6
    assert "tolerance            1e-06 THz" in tight.lines()


def test_the_bound_holds_where_squares_cross_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ω² becomes any error of ω there: the report says how large, for every ω."""
    monkeypatch.setattr(exact_range, "FIRST_DIAMETER", 5.0)
    config = small_config(
        species=(11, 17), cutoff=3.3, hidden_irreps="4x0e + 4x1o", l_max=1, scale=20.0
    )
    unstable = random_potential(config, seed=37)
    atoms = bulk("NaCl", "rocksalt", a=5.2)
    cell = PhonopyAtoms(numbers=atoms.numbers, cell=atoms.cell[:], positions=atoms.positions)
    phonon = Phonopy(cell, supercell_matrix=np.eye(3, dtype=int), primitive_matrix="P")

    def squares(qpoints: np.ndarray) -> np.ndarray:
        return np.linalg.eigvalsh(pe.dynamical_matrices(unstable, phonon.primitive, qpoints))

    qpoints = np.random.default_rng(0).uniform(-0.5, 0.5, (80, 3))
    stable = squares(qpoints)[:, 0] > 0
    count = min(stable.sum(), (~stable).sum())
    assert count >= 10
    # between a q with a real lowest mode and one with an imaginary one
    ends = np.array([qpoints[stable][:count], qpoints[~stable][:count]])
    padded = np.concatenate([ends, np.zeros((2, 80 - count, 3))], axis=1)
    for _ in range(30):
        middle = padded.mean(axis=0)
        padded[np.where(squares(middle)[:, 0] > 0, 0, 1), np.arange(80)] = middle
    report = pe.use_exact_dynamical_matrix(phonon, unstable, tolerance=1e-3)
    exceeded = 0
    for points in (qpoints, padded[0]):
        expected = in_thz(squares(points))
        error = np.abs(phonon.run_qpoints(points).frequencies - expected)
        assert (error <= report.frequency_errors(expected)).all()
        exceeded += int((error > report.tolerance).sum())
    assert exceeded >= count  # or the bound below 1 THz is not needed
    assert report.frequency_errors(np.array([20.0]))[0] < 1.001 * report.tolerance
    assert "below 1 THz          error of ω² at most 0.002 THz²" in report.lines()


def test_bands(exact: Phonopy, frequencies: Callable[[np.ndarray], np.ndarray]) -> None:
    path = np.linspace([0, 0, 0], [0.5, 0.5, 1.0], 14)
    bands = exact.run_band_structure([path, path[:, [1, 2, 0]]], with_group_velocities=True)
    for found in bands.frequencies:  # the two paths are the same by symmetry
        np.testing.assert_allclose(found, frequencies(path), rtol=0, atol=1e-6)


def test_mesh_densities_and_thermal_properties(
    exact: Phonopy, frequencies: Callable[[np.ndarray], np.ndarray]
) -> None:
    mesh = exact.run_mesh([5, 5, 5], is_mesh_symmetry=False, with_eigenvectors=True)
    expected = frequencies(mesh.qpoints)
    np.testing.assert_allclose(mesh.frequencies, expected, rtol=0, atol=1e-6)

    points, sigma = np.linspace(-1, expected.max() + 1, 40), 0.3
    gauss = np.exp(-(((points[:, None, None] - expected) / sigma) ** 2) / 2)
    density = gauss.sum(axis=(1, 2)) / np.sqrt(2 * np.pi) / sigma / len(expected)
    exact.run_total_dos(sigma, points[0], points[-1], points[1] - points[0], False)
    np.testing.assert_allclose(exact.total_dos.dos[:40], density, rtol=0, atol=1e-6)
    exact.run_projected_dos(sigma, points[0], points[-1], points[1] - points[0], False)
    projected = exact.projected_dos.projected_dos.sum(axis=0)[:40]
    np.testing.assert_allclose(projected, density, rtol=0, atol=1e-6)

    exact.run_mesh([5, 5, 5])
    temperatures = np.array([20.0, 100.0, 300.0, 1000.0])
    exact.run_thermal_properties(temperatures=temperatures, cutoff_frequency=0.1)
    factors = get_physical_units()
    energies = expected[expected > 0.1] * factors.THzToEv
    thermal = factors.KB * temperatures[:, None]
    occupation = 1 / np.expm1(energies / thermal)
    free = energies / 2 - thermal * np.log1p(occupation)
    entropy = factors.KB * np.log1p(occupation) + energies * occupation / temperatures[:, None]
    capacity = factors.KB * (energies / thermal) ** 2 * occupation * (occupation + 1)
    found = exact.thermal_properties
    for ours, theirs, unit in (
        (free, found.free_energy, factors.EvTokJmol),
        (entropy, found.entropy, 1000 * factors.EvTokJmol),
        (capacity, found.heat_capacity, 1000 * factors.EvTokJmol),
    ):
        np.testing.assert_allclose(theirs, ours.sum(axis=1) / len(expected) * unit, rtol=1e-6)


def test_thermal_displacements(
    exact: Phonopy, matrices: Callable[[np.ndarray], np.ndarray]
) -> None:
    """<u²> = ħ/(m ω) (n + 1/2) |e|², the mean over q of the sum over modes."""
    mesh = exact.run_mesh([3, 3, 3], is_mesh_symmetry=False, with_eigenvectors=True)
    temperatures = np.array([0.0, 20.0, 300.0])
    exact.run_thermal_displacements(temperatures=temperatures, freq_min=0.1)
    values, vectors = np.linalg.eigh(matrices(mesh.qpoints))
    angular = 2e12 * np.pi * in_thz(values)
    masses = np.repeat(exact.primitive.masses, 3)[None, :, None] * units._amu
    expected = []
    for temperature in temperatures:
        ratio = units._hbar * angular / (units._k * max(temperature, 1e-3))
        with np.errstate(over="ignore", divide="ignore"):  # of acoustic modes at Γ
            occupation = 1 / np.expm1(ratio)
        size = np.where(angular > 2e11 * np.pi, units._hbar * (occupation + 0.5) / angular, 0.0)
        squares = np.abs(vectors) ** 2 * size[:, None, :] / masses
        expected.append(squares.sum(axis=2).mean(axis=0) * 1e20)
    found = exact.thermal_displacements.thermal_displacements
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_group_velocities_are_the_slopes_of_direct_bands(
    exact: Phonopy, frequencies: Callable[[np.ndarray], np.ndarray]
) -> None:
    """phonopy's analytic dD/dq; the central difference errs by the square of step / gap, 1e-9."""
    q, step = np.array([0.21, 0.13, 0.37]), 1e-5  # no degeneracies
    found = exact.run_qpoints([q], with_group_velocities=True).group_velocities[0]
    directions = np.eye(3) * step
    offsets = np.concatenate([directions, -directions]) @ exact.primitive.cell.T
    values = frequencies(q + offsets)
    slopes = (values[:3] - values[3:]).T / (2 * step)
    real = frequencies(q[None])[0] > 0.1  # phonopy gives no velocity to imaginary modes
    assert real.sum() > 3
    np.testing.assert_allclose(found[real], slopes[real], rtol=0, atol=2e-6 * np.abs(slopes).max())
    assert np.abs(slopes[real]).max() > 1


def test_irreps(exact: Phonopy, frequencies: Callable[[np.ndarray], np.ndarray]) -> None:
    """Textbook: two T1u at the centre of the zone of rock salt."""
    exact.run_irreps([0, 0, 0])
    assert exact.irreps._ir_labels == ["T1u", "T1u"]
    centre = frequencies(np.zeros((1, 3)))[0]
    np.testing.assert_allclose(exact.irreps.frequencies[3:], centre[3:], rtol=0, atol=1e-6)
    exact.run_irreps([0.5, 0.5, 0.5])
    edge = frequencies(np.full((1, 3), 0.5))[0]
    np.testing.assert_allclose(exact.irreps.frequencies, edge, rtol=0, atol=1e-6)


def test_everything_of_phonopy_equals_a_supercell_wide_enough() -> None:
    """With a range of 6.6 Å a supercell of 5×5×5 (16.4 Å across) is exact by itself."""
    short = random_potential(
        small_config(species=(11, 17), cutoff=3.3, num_interactions=1, scale=20.0), seed=10
    )
    phonons = rock_salt(5), rock_salt(1)
    pe.set_force_constants(phonons[0], short)
    pe.use_exact_dynamical_matrix(phonons[1], short)
    results = []
    for phonon in phonons:
        phonon.run_mesh([3, 3, 3], is_mesh_symmetry=False, with_eigenvectors=True)
        phonon.run_thermal_displacement_matrices(temperatures=[300], freq_min=0.1)
        levels = phonon.run_qpoints([[0.5, 0, 0]]).frequencies[0]
        gaps = np.abs(levels[:, None] - levels) + 9 * np.eye(6)
        alone = int(gaps.min(axis=1).argmax())  # a mode without partner: real, up to its sign
        assert gaps[alone].min() > 0.1
        phonon.run_modulations([2, 1, 1], [[[0.5, 0, 0], alone, 1.0, 0.0]])
        phonon.run_irreps([0.5, 0.5, 0.5])
        results.append(
            [
                phonon.mesh.frequencies,
                phonon.thermal_displacement_matrices.thermal_displacement_matrices,
                np.abs(phonon.modulation.modulations),
                phonon.irreps.frequencies,
                phonon.run_qpoints(Q_OFF_GRID, with_group_velocities=True).group_velocities[1:3],
            ]
        )
    for found, expected in zip(*results[::-1], strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * max(1.0, scale))


def test_the_object_phonopy_works_on(exact: Phonopy) -> None:
    """The one private attribute that is written: phonopy hands it out as dynamical_matrix."""
    assert isinstance(exact.dynamical_matrix.primitive, ImageTable)
    assert exact.force_constants is None


@pytest.mark.parametrize("what", ["masses", "Born charges"])
def test_a_dropped_exact_matrix_is_not_replaced_silently(what: str, potential: Potential) -> None:
    phonon = rock_salt()
    pe.set_force_constants(phonon, potential)
    pe.use_exact_dynamical_matrix(phonon, potential, tolerance=1.0)
    phonon.run_qpoints(Q_OFF_GRID)
    if what == "masses":
        phonon.masses = [20.0, 30.0]
    else:
        phonon.nac_params = {"born": np.zeros((2, 3, 3)), "dielectric": np.eye(3), "factor": 14.4}
    with pytest.raises(RuntimeError):
        phonon.run_qpoints(Q_OFF_GRID)
    with pytest.raises(RuntimeError):
        phonon.run_mesh([2, 2, 2])


def test_masses_set_before_are_honoured(potential: Potential) -> None:
    phonon = rock_salt()
    phonon.masses = [20.0, 30.0]
    pe.use_exact_dynamical_matrix(phonon, potential, tolerance=1.0)
    found = phonon.run_qpoints([[0, 0, 0]], with_dynamical_matrices=True).dynamical_matrices
    expected = pe.dynamical_matrices(potential, phonon.primitive, np.zeros((1, 3)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    default = pe.dynamical_matrices(potential, rock_salt().primitive, np.zeros((1, 3)))
    assert np.abs(found - default).max() > 1e-3


def test_a_tolerance_below_rounding_is_refused() -> None:
    """Springs between neighbours and noise of 1e-6: no grid brings the noise down."""
    phonon, random = rock_salt(), np.random.default_rng(0)

    def direct(qpoints: np.ndarray) -> np.ndarray:
        differences = qpoints - np.roll(qpoints, 1, axis=1)  # the twelve neighbours of fcc
        spring = 8 - np.cos(2 * np.pi * np.hstack([qpoints, differences])).sum(axis=1)
        noise = random.normal(size=(len(qpoints), 6, 6)) * 1e-6
        noise = noise + noise.transpose(0, 2, 1)
        return (spring[:, None, None] * np.eye(6) + noise).astype(complex)

    def weighted(qpoints: np.ndarray, values: np.ndarray) -> np.ndarray:
        return mass_weighted(phonon.primitive, qpoints, values)

    loose = exact_range.converged_matrix(phonon, direct, weighted, 1e-3, 1e3, 2**30)[1]
    assert len(loose) == 1
    with pytest.raises(pe.PhonopyEquivariantError, match=r"rounding of the potential.*tolerance="):
        exact_range.converged_matrix(phonon, direct, weighted, 1e-9, 1e3, 2**30)


def test_an_image_table_is_a_supercell_to_phonopy(potential: Potential) -> None:
    """The seam: phonopy's supercell of 3×2×2 cells and the list of images of 3×2×2 cells."""
    atoms = bulk("NaCl", "rocksalt", a=cli_helpers.LATTICE)
    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
    )
    counts = np.array([3, 2, 2])
    phonon = Phonopy(cell, np.diag(counts), primitive_matrix="P", is_symmetry=False)
    pe.set_force_constants(phonon, potential)
    symmetry = primitive_operations(phonon)
    grid = commensurate_grid(np.diag(counts), symmetry)
    values = lattice_force_constants(potential, phonon.primitive, grid.qpoints[grid.irreducible])
    table = image_matrix(phonon, counts, grid, fill_star(grid, symmetry, values))
    for q in Q_OFF_GRID:
        table.run(q)
        phonon.dynamical_matrix.run(q)
        np.testing.assert_allclose(
            table.dynamical_matrix, phonon.dynamical_matrix.dynamical_matrix, rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("tolerance", [0.0, -1e-3, np.nan])
def test_tolerances_that_mean_nothing_are_refused(potential: Potential, tolerance: float) -> None:
    with pytest.raises(pe.PhonopyEquivariantError, match="positive number as tolerance="):
        pe.use_exact_dynamical_matrix(rock_salt(1), potential, tolerance)


def test_grids_that_do_not_fit_are_refused(potential: Potential) -> None:
    with pytest.raises(pe.PhonopyEquivariantError, match=r"tolerance=.*max_memory"):
        pe.use_exact_dynamical_matrix(rock_salt(), potential, max_memory=10_000)


def test_probes_lie_between_the_points_of_a_grid() -> None:
    counts = np.array([4, 5, 7])
    distance = exact_range.probes(counts) * counts
    distance = np.abs(distance - np.rint(distance)).max(axis=1)
    assert distance.min() > 0.15

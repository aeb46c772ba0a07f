"""Exact mode with Born charges: the whole dipole-dipole interaction, once, at every q."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cli_helpers
import numpy as np
import pytest
from ase.build import bulk
from phonopy import Phonopy
from polar_helpers import QPOINTS, in_thz, phonopy_of, rock_salt, wurtzite

import phonopy_equivariant as pe
from phonopy_equivariant.io.build import has_born_charges
from phonopy_equivariant.io.crystals import read_crystal
from phonopy_equivariant.io.supercells import select_supercell, supercell_diameter
from phonopy_equivariant.phonons.cells import primitive_operations
from phonopy_equivariant.phonons.charges import obeying
from phonopy_equivariant.phonons.nac import (
    NAC_RANGE,
    PolarResponse,
    supercell_remarks,
)
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants

DIRECTIONS = ([1.0, 0, 0], [0.4, 0.4, 0.9], [-0.2, 0.7, 0.1])


@pytest.fixture(scope="module")
def potential() -> Potential:
    """Return a potential under which rock salt has real frequencies."""
    return cli_helpers.potential()


@pytest.fixture(scope="module")
def exact(potential: Potential) -> tuple[Phonopy, pe.ExactReport]:
    phonon = rock_salt()
    report = pe.use_exact_dynamical_matrix(phonon, potential, tolerance=1e-4)
    return phonon, report


def rule(phonon: Phonopy, potential: Potential, nac_range: float = NAC_RANGE) -> PolarResponse:
    """Return the rule on D(q) computed directly, without a grid and phonopy's kernels."""
    charges = obeying(phonon.nac_params, "test", primitive_operations(phonon))
    return PolarResponse(
        phonon,
        charges,
        nac_range,
        lambda qpoints: lattice_force_constants(potential, phonon.primitive, qpoints),
    )


@pytest.mark.parametrize("crystal", [rock_salt, wurtzite])
def test_splitting_at_gamma_is_phonopys(crystal: Any, potential: Potential) -> None:
    """phonopy's own correction of a supercell's force constants, three ways to Γ."""
    supercell, phonon = crystal(), crystal()
    pe.use_exact_dynamical_matrix(phonon, potential, tolerance=1e-2)
    pe.set_force_constants(supercell, potential)
    supercell.nac_params = phonon.nac_params  # with the sum rule
    levels = []
    for direction in DIRECTIONS:
        for close in ([0, 0, 0], 2e-6 * np.array(direction)):
            options: Any = {"nac_q_direction": direction}
            found = phonon.run_qpoints([close], **options).frequencies[0]
            expected = supercell.run_qpoints([close], **options).frequencies[0]
            optical = np.abs(expected) > 0.1  # acoustic ones are roots of rounding
            np.testing.assert_allclose(found[optical], expected[optical], rtol=0, atol=1e-6)
        levels.append(found)
    without = phonon.run_qpoints([[0, 0, 0]]).frequencies[0]
    assert np.abs(levels[0] - without).max() > 0.5
    if crystal is wurtzite:
        assert np.abs(levels[0] - levels[1]).max() > 0.05


def test_the_frequencies_approach_the_splitting(exact: tuple[Phonopy, Any]) -> None:
    """Towards Γ along a line the bands end at those of the direction: no gap, no dip."""
    phonon, _ = exact
    for direction in DIRECTIONS:
        steps = np.array([1e-4, 2e-4])[:, None] * np.array(direction)
        near = phonon.run_qpoints(steps).frequencies
        limit = phonon.run_qpoints([[0, 0, 0]], nac_q_direction=direction).frequencies[0]
        np.testing.assert_allclose(near[0, 3:], limit[3:], rtol=0, atol=1e-4)
        # quadratic in q
        difference = np.abs(near[:, 3:] - limit[3:])
        assert (difference[0] < 0.3 * difference[1] + 1e-6).all()


def test_trusted_points_are_the_potentials(
    exact: tuple[Phonopy, Any], potential: Potential
) -> None:
    """At Γ and at the q of the cells of nac_range nothing is added to the potential."""
    phonon, report = exact
    assert report.nac_cells == (3, 3, 3) and report.nac_range == 10.0
    qpoints = np.array([[1, 0, 0], [1, 1, 0], [2, 1, 0], [0, 0, 0], [-1, 1, 1]]) / 3
    expected = np.linalg.eigvalsh(pe.dynamical_matrices(potential, phonon.primitive, qpoints))
    found = phonon.run_qpoints(qpoints).frequencies
    real = np.abs(found) > 0.1
    np.testing.assert_allclose(found[real], in_thz(expected)[real], rtol=0, atol=1e-4)


def test_sound_is_the_potentials(exact: tuple[Phonopy, Any], potential: Potential) -> None:
    """A common translation has no dipole: near Γ acoustic branches are the potential's.

    The tolerance of 1e-4 THz is one of 4e-4 THz² of ω², 1e-3 of these ω of 0.2 THz and more.
    """
    phonon, _ = exact
    qpoints = 0.03 * np.array(DIRECTIONS)
    matrices = pe.dynamical_matrices(potential, phonon.primitive, qpoints)
    expected = in_thz(np.linalg.eigvalsh(matrices))
    found = phonon.run_qpoints(qpoints).frequencies
    np.testing.assert_allclose(found[:, :3], expected[:, :3], rtol=1e-3)
    assert (np.abs(found[:, 5] / expected[:, 5] - 1) > 0.05).all()


def test_phonopys_kernels_follow_the_rule(
    exact: tuple[Phonopy, pe.ExactReport], potential: Potential
) -> None:
    """Bands, mesh and q-points against the rule evaluated at each q, beyond the first zone too."""
    phonon, report = exact
    polar = rule(phonon, potential)

    def frequencies(qpoints: np.ndarray) -> np.ndarray:
        values = polar.short_range(qpoints)
        return in_thz(np.linalg.eigvalsh(polar.dynamical_matrices(qpoints, values)))

    qpoints = np.concatenate([QPOINTS, QPOINTS[:2] + [1, 0, -1]])
    expected = frequencies(qpoints)
    assert report.error < 2.5e-5
    found = phonon.run_qpoints(qpoints).frequencies
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    bands = phonon.run_band_structure([qpoints]).frequencies[0]
    np.testing.assert_allclose(bands, expected, rtol=0, atol=1e-4)
    mesh = phonon.run_mesh([3, 3, 3], is_gamma_center=True)
    points = mesh.qpoints[1:]
    np.testing.assert_allclose(mesh.frequencies[1:], frequencies(points), rtol=0, atol=1e-4)


def test_group_velocities_are_the_slopes(exact: tuple[Phonopy, Any]) -> None:
    """phonopy's analytic derivative, dipoles included; differences err by (step / gap)²."""
    phonon, _ = exact
    q, step = np.array([0.05, 0.03, 0.09]), 2e-5
    found = phonon.run_qpoints([q], with_group_velocities=True).group_velocities[0]
    offsets = np.concatenate([np.eye(3), -np.eye(3)]) * step @ phonon.primitive.cell.T
    values = phonon.run_qpoints(q + offsets).frequencies
    slopes = (values[:3] - values[3:]).T / (2 * step)
    np.testing.assert_allclose(found, slopes, rtol=0, atol=1e-4 * np.abs(slopes).max())
    assert np.abs(slopes[3:]).max() > 1


def test_everything_of_phonopy_runs(exact: tuple[Phonopy, Any]) -> None:
    phonon, _ = exact
    mesh = phonon.run_mesh([3, 3, 3], is_mesh_symmetry=False, with_eigenvectors=True)
    assert mesh.frequencies.shape == (27, 6)
    phonon.run_total_dos()
    phonon.run_projected_dos()
    phonon.run_thermal_displacements(temperatures=[300], freq_min=0.1)
    phonon.run_thermal_properties(temperatures=[300], cutoff_frequency=0.1)
    phonon.run_irreps([0, 0, 0])
    assert phonon.irreps._ir_labels == ["T1u", "T1u"]
    phonon.run_irreps([0, 0, 0], nac_q_direction=[1.0, 0, 0])
    levels = phonon.irreps.frequencies
    assert levels[5] - levels[4] > 0.5
    stability = pe.stability(phonon, cli_helpers.potential(), [3, 3, 3])
    assert not stability.imaginary and stability.sufficient


def test_the_report_says_what_was_done(exact: tuple[Phonopy, pe.ExactReport]) -> None:
    phonon, report = exact
    assert report.charges is not None
    np.testing.assert_allclose(report.charges.sum_rule, 0.002, atol=1e-12)
    parameters: Any = phonon.nac_params
    np.testing.assert_allclose(parameters["born"].sum(axis=0), 0, atol=1e-14)
    assert parameters["factor"] == 14.4
    lines = report.lines()
    assert any("off sum rule by 2.0e-03 e" in line for line in lines)
    assert any("NAC range" in line and "10 Å" in line and "3×3×3" in line for line in lines)
    assert report.to_dict()["nac_range"] == 10.0


def test_a_range_without_charges(one_layer: Potential) -> None:
    phonon = rock_salt()
    phonon.nac_params = None
    with pytest.raises(pe.PhonopyEquivariantError, match="nac_range= belongs to Born charges"):
        pe.use_exact_dynamical_matrix(phonon, one_layer, nac_range=8.0)


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan, np.inf, 1e-300, 1e9])
def test_a_range_that_is_none(value: float, one_layer: Potential) -> None:
    with pytest.raises(pe.PhonopyEquivariantError, match="nac_range="):
        pe.use_exact_dynamical_matrix(rock_salt(), one_layer, nac_range=value)


def test_wangs_method_is_refused(one_layer: Potential) -> None:
    phonon = rock_salt()
    parameters: Any = phonon.nac_params
    phonon.nac_params = parameters | {"method": "wang"}
    with pytest.raises(pe.PhonopyEquivariantError, match=r"nac_method=.*exact=False"):
        pe.use_exact_dynamical_matrix(phonon, one_layer)


def test_a_wide_supercell_is_warned_of() -> None:
    atoms = bulk("NaCl", "rocksalt", a=cli_helpers.LATTICE)
    phonon = phonopy_of(atoms, np.diag([5, 5, 5]), is_symmetry=False)
    phonon.nac_params = rock_salt(1).nac_params
    (remark,) = supercell_remarks(phonon)
    assert "exact=True" in remark and "16.2 Å" in remark
    assert supercell_remarks(rock_salt()) == []
    phonon.nac_params = None
    assert supercell_remarks(phonon) == []


def test_a_supercell_is_compared_with_the_whole_interaction(potential: Potential) -> None:
    """The error half-way between its q is that of phonopy's scheme against exact mode."""
    phonon = rock_salt()
    pe.set_force_constants(phonon, potential)
    stability = pe.stability(phonon, potential, [2, 2, 2])
    point = np.array([stability.worst])
    polar = rule(phonon, potential)
    expected = polar.dynamical_matrices(point, polar.short_range(point))
    found = phonon.run_qpoints(point).frequencies[0]
    error = np.abs(found - in_thz(np.linalg.eigvalsh(expected[0]))).max()
    np.testing.assert_allclose(stability.folding, error, rtol=1e-3)
    assert error > 1e-3
    assert "use exact=True" in stability.remedy and "larger" not in stability.remedy


def test_the_supercell_of_a_polar_crystal_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crystal = read_crystal(cli_helpers.poscar(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert not has_born_charges(crystal)
    (tmp_path / "BORN").write_text("14.4\n")
    assert has_born_charges(crystal)
    diameters = []
    for polar in (True, False):
        matrix, origin = select_supercell(crystal, polar=polar)
        diameters.append(supercell_diameter(crystal.unitcell, matrix))
        assert ("Born" in origin) == polar
    assert 10 <= diameters[0] < 15 < 20 <= diameters[1]


def test_a_crystal_without_symmetry(one_layer: Potential) -> None:
    """Four atoms anywhere, charges and medium without symmetry: kernels against the rule."""
    atoms = bulk("NaCl", "wurtzite", a=4.1, c=6.6)
    atoms.rattle(0.05, seed=1)
    phonon = phonopy_of(atoms, np.eye(3, dtype=int), is_symmetry=False)
    rng = np.random.default_rng(0)
    charges = rng.normal(size=(4, 3, 3)) * 0.2 + np.eye(3)
    charges -= charges.mean(axis=0)
    phonon.nac_params = {
        "born": charges,
        "dielectric": np.diag([2.0, 3.0, 4.0]),
        "factor": 14.4,
    }
    pe.use_exact_dynamical_matrix(phonon, one_layer, tolerance=1e-2)
    polar = rule(phonon, one_layer)
    values = polar.dynamical_matrices(QPOINTS[:3], polar.short_range(QPOINTS[:3]))
    expected = in_thz(np.linalg.eigvalsh(values))
    found = phonon.run_qpoints(QPOINTS[:3]).frequencies
    np.testing.assert_allclose(found**2, expected**2, rtol=0, atol=2e-2 * np.abs(expected).max())

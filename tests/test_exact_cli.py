"""``phonopy-equivariant run --exact``: phonopy's script and files on the exact dynamical matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import phonopy
import pytest
import yaml
from cli_helpers import command, installed, model, poscar, potential, shell, thermal_table
from phonopy.cui import phonopy_script

import phonopy_equivariant as pe
from phonopy_equivariant.phonons.exact_script import exact_calculation

BORN = "14.4\n2.6 0 0 0 2.6 0 0 0 2.6\n1.1 0 0 0 1.1 0 0 0 1.1\n-1.1 0 0 0 -1.1 0 0 0 -1.1\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("exact")
    poscar(folder)
    result = installed(
        *("run", "POSCAR", "--exact", "--model", model(), "--dim", 2, 2, 2),
        *("--band", "auto", "--band-points", 9, "--mesh", 5, 5, 5, "-t"),
        cwd=folder,
    )
    return folder, result.stdout


def direct_frequencies(folder: Path, qpoints: np.ndarray) -> np.ndarray:
    """Return frequencies (THz) by diagonalisation of ``pe.dynamical_matrices``."""
    phonon = phonopy.load(folder / "phonopy_params.yaml", produce_fc=False)
    matrices = pe.dynamical_matrices(potential(), phonon.primitive, qpoints)
    values = np.linalg.eigvalsh(matrices)
    return np.sign(values) * np.sqrt(np.abs(values)) * phonon.unit_conversion_factor


def test_bands_are_those_of_direct_diagonalisation(finished: tuple[Path, str]) -> None:
    bands = yaml.safe_load((finished[0] / "band.yaml").read_text())["phonon"]
    qpoints = np.array([point["q-position"] for point in bands])
    found = np.array([[band["frequency"] for band in point["band"]] for point in bands])
    # q have seven decimals in the file: with slopes of some 100 THz per unit of q, 1e-5 THz
    inside = np.linalg.norm(qpoints, axis=1) > 1e-3
    expected = direct_frequencies(finished[0], qpoints)
    np.testing.assert_allclose(found[inside], expected[inside], rtol=0, atol=1e-5)
    assert found.max() > 1


def test_the_file_holds_the_folded_force_constants(finished: tuple[Path, str]) -> None:
    """Plain phonopy folds: the same D(q) at commensurate q, another one between them."""
    phonon = phonopy.load(finished[0] / "phonopy_params.yaml")
    qpoints = np.array([[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0.25, 0.1, 0.0]])
    expected = direct_frequencies(finished[0], qpoints)
    found = phonon.run_qpoints(qpoints).frequencies
    np.testing.assert_allclose(found[1:3], expected[1:3], rtol=0, atol=2e-6)
    assert np.abs(found[3] - expected[3]).max() > 1e-3
    ours = thermal_table(finished[0])
    shell("phonopy phonopy_params.yaml --mesh 5 5 5 -t", finished[0])
    assert np.abs(thermal_table(finished[0]) - ours).max() > 1e-6


def test_the_range_is_reported(finished: tuple[Path, str]) -> None:
    lines = finished[1].splitlines()
    (errors,) = [line for line in lines if "range error of grids" in line]
    assert float(errors.split()[-2]) < 1e-6
    assert any("tolerance" in line and "1e-06 THz" in line for line in lines)


def test_irreps_and_modulations_pass_through(tmp_path: Path) -> None:
    poscar(tmp_path)
    words = ("run", "POSCAR", "--exact", "--model", model(), "--dim", 2, 2, 2)
    done = command(*words, "--exact-tolerance", 1.5, "--irreps", 0, 0, 0, cwd=tmp_path)
    assert "tolerance            1.5 THz" in done.stdout
    content = yaml.safe_load((tmp_path / "irreps.yaml").read_text())
    assert [mode["ir_label"] for mode in content["normal_modes"]] == ["T1u", "T1u"]


def test_born_charges(tmp_path: Path) -> None:
    """Bands split at Γ by path and --q-direction; plain phonopy reads the same from the file."""
    poscar(tmp_path)
    (tmp_path / "BORN").write_text(BORN)
    words = ("run", "POSCAR", "--exact", "--model", model(), "--dim", 2, "--exact-tolerance", 1e-3)
    done = command(*words, "--band", "auto", "--band-points", 5, "-t", cwd=tmp_path)
    assert "Born charges         off sum rule by" in done.stdout
    bands = yaml.safe_load((tmp_path / "band.yaml").read_text())["phonon"]
    assert (tmp_path / "thermal_properties.yaml").exists()
    (gamma, *_) = [point for point in bands if not np.any(point["q-position"])]
    levels = [band["frequency"] for band in gamma["band"]]
    assert levels[5] - levels[4] > 0.5 > levels[4] - levels[3]

    command(*words, "--qpoints", 0, 0, 0, "--q-direction", 1, 0, 0, cwd=tmp_path)
    points = yaml.safe_load((tmp_path / "qpoints.yaml").read_text())["phonon"]
    directed = [band["frequency"] for band in points[0]["band"]]
    np.testing.assert_allclose(directed[3:], levels[3:], rtol=0, atol=1e-6)

    phonon = phonopy.load(tmp_path / "phonopy_params.yaml")
    plain = phonon.run_qpoints([[0, 0, 0]], nac_q_direction=[1, 0, 0]).frequencies[0]
    np.testing.assert_allclose(plain[3:], levels[3:], rtol=0, atol=1e-6)

    command(*words, "--nonac", "--qpoints", 0, 0, 0, "--q-direction", 1, 0, 0, cwd=tmp_path)
    points = yaml.safe_load((tmp_path / "qpoints.yaml").read_text())["phonon"]
    without = [band["frequency"] for band in points[0]["band"]]
    np.testing.assert_allclose(without[3:], levels[3], rtol=0, atol=1e-6)


def test_the_range_of_dipoles(tmp_path: Path) -> None:
    poscar(tmp_path)
    words = ("run", "POSCAR", "--model", model(), "--dim", 1, "--qpoints", 0.1, 0, 0)
    refused = command(*words, "--nac-range", 8, cwd=tmp_path, status=2)
    assert "--nac-range without --exact" in refused.stderr
    (tmp_path / "BORN").write_text(BORN)
    words = (*words, "--exact", "--exact-tolerance", 0.1)
    done = command(*words, "--nac-range", 7, cwd=tmp_path)
    assert "NAC range            7 Å" in done.stdout
    assert "of 2×2×2 cells" in done.stdout
    wrong = command(*words, "--nac-range=-7", cwd=tmp_path, status=1)
    assert "--nac-range" in wrong.stderr.splitlines()[-1]
    wang = command(*words, "--nac-method", "wang", cwd=tmp_path, status=1)
    assert "leave --nac-method away" in wang.stderr.splitlines()[-1]


def test_another_primitive_cell_is_refused(finished: tuple[Path, str]) -> None:
    """What phonopy's script works on must be what the matrix was made for."""
    phonon = phonopy.load(finished[0] / "phonopy_params.yaml")
    other = phonopy.load(finished[0] / "phonopy_params.yaml")
    other.masses = [1.0, 2.0]
    original = phonopy_script._run_calculation
    expectation = pytest.raises(pe.PhonopyEquivariantError, match="primitive_matrix=")
    with expectation, exact_calculation(phonon.dynamical_matrix):
        phonopy_script._run_calculation(other, None, {}, 0)
    assert phonopy_script._run_calculation is original


def test_a_script_without_the_seam_is_refused(
    finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    phonon = phonopy.load(finished[0] / "phonopy_params.yaml")
    monkeypatch.delattr(phonopy_script, "_run_calculation")
    expectation = pytest.raises(pe.PhonopyEquivariantError, match=r"4\.7")
    with expectation, exact_calculation(phonon.dynamical_matrix):
        pass

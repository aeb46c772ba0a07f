"""``phonopy-equivariant run``: phonopy's numbers, files and options."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
import phonopy
import pytest
import yaml
from ase.build import bulk
from cli_helpers import (
    COMMAND,
    LATTICE,
    command,
    environment,
    installed,
    leftovers,
    model,
    poscar,
    potential,
    shell,
    thermal_table,
)
from phonopy import Phonopy
from phonopy.file_IO import is_file_phonopy_yaml
from phonopy.physical_units import get_physical_units

import phonopy_equivariant as pe
from phonopy_equivariant.structure import as_structure, to_phonopy
from phonopy_equivariant.workflows.script import run_phonopy

BORN = """14.400
2.6 0 0 0 2.6 0 0 0 2.6
1.1 0 0 0 1.1 0 0 0 1.1
-1.1 0 0 0 -1.1 0 0 0 -1.1
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """One run with bands, mesh, thermal properties and saved plots."""
    folder = tmp_path_factory.mktemp("run")
    poscar(folder)
    result = installed(
        *("run", "POSCAR", "--model", model(), "--dim", 2, 2, 2),
        *("--band", "auto", "--mesh", 11, 11, 11, "-t", "-ps"),
        cwd=folder,
    )
    return folder, result.stdout, result.stderr


def options_added(talk: str) -> str:
    """Return the options that ``run`` says it gives phonopy besides those of the user."""
    (line,) = [line for line in talk.splitlines() if "phonopy goes on with" in line]
    return line.partition("phonopy goes on with ")[2].rstrip(".")


def test_plain_phonopy_gives_identical_thermal_properties(
    finished: tuple[Path, str, str],
) -> None:
    folder, _, talk = finished
    ours = thermal_table(folder)
    assert options_added(talk) == "--exclude-gamma-acoustic --no-fc-symmetry"
    shell(f"phonopy phonopy_params.yaml --mesh 11 11 11 -t {options_added(talk)}", folder)
    np.testing.assert_array_equal(thermal_table(folder), ours)
    assert ours[:, 3].max() > 30


def test_thermal_properties_of_an_odd_mesh_leave_out_the_acoustic_modes_at_gamma(
    finished: tuple[Path, str, str],
) -> None:
    """A sum over the other modes of the mesh, each a harmonic oscillator."""
    content = yaml.safe_load((finished[0] / "mesh.yaml").read_text())
    weights = np.array([point["weight"] for point in content["phonon"]], float)
    bands = [[band["frequency"] for band in point["band"]] for point in content["phonon"]]
    qpoints = np.array([point["q-position"] for point in content["phonon"]])
    units = get_physical_units()  # phonopy's Boltzmann constant is off by 6e-7
    energies = np.array(bands) * units.THzToEv
    (gamma,) = np.flatnonzero(np.abs(qpoints).max(axis=1) == 0)
    assert np.abs(bands[gamma][:3]).max() < 1e-4  # THz
    energies[gamma, :3] = np.nan
    energies[energies <= 0] = np.nan  # imaginary modes
    weight = np.broadcast_to(weights[:, None], energies.shape) / weights.sum()
    for temperature, free_energy, entropy, capacity in thermal_table(finished[0])[1::20]:
        kt = units.KB * temperature
        x = energies / kt
        each = np.stack(
            [
                energies / 2 + kt * np.log1p(-np.exp(-x)),
                units.KB * (x / np.expm1(x) - np.log1p(-np.exp(-x))),
                units.KB * x**2 * np.exp(x) / np.expm1(x) ** 2,
            ]
        )
        total = np.nansum(each * weight, axis=(1, 2)) * units.EvTokJmol
        found = np.array([free_energy, entropy / 1000, capacity / 1000])
        # thermal_properties.yaml has seven decimals
        np.testing.assert_allclose(found, total, rtol=1e-7, atol=1e-6)


def test_the_file_holds_the_analytic_force_constants(finished: tuple[Path, str, str]) -> None:
    phonon = phonopy.load(finished[0] / "phonopy_params.yaml")
    expected = pe.force_constants(phonon, potential())
    # the file has 15 decimals, the compiled functions of two processes agree to rounding
    np.testing.assert_allclose(phonon.force_constants, expected, rtol=0, atol=1e-11)


def test_phonopys_files_plots_and_the_report(finished: tuple[Path, str, str]) -> None:
    folder, output, talk = finished
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "phonopy_params.yaml",
        "phonopy.yaml",
        "band.yaml",
        "mesh.yaml",
        "thermal_properties.yaml",
        "thermal_properties.pdf",
    }
    assert not leftovers(folder)
    assert is_file_phonopy_yaml(folder / "phonopy_params.yaml")
    assert "sum rule residual" in output
    *_, modes, supercell, _ = output.splitlines()
    assert "modes" in modes or "unstable" in modes or "artefact" in modes
    assert supercell.startswith("supercell  ") and "suffice" in supercell
    assert "--dim 2 2 2 (given by --dim), 16 atoms" in talk
    assert "Traceback" not in talk


def test_the_origin_of_the_force_constants_is_on_record(finished: tuple[Path, str, str]) -> None:
    text = (finished[0] / "phonopy_params.yaml").read_text()
    assert 'potential: "small"' in text
    assert "phonopy_equivariant" in text


def test_masses_are_honoured(tmp_path: Path, finished: tuple[Path, str, str]) -> None:
    poscar(tmp_path)
    command(
        *("run", "POSCAR", f"--model={model()}", "--dim=2", "--mesh", 4, 4, 4),
        *("--mass", 91.96, 141.8, "--nowritemesh"),
        cwd=tmp_path,
    )
    heavy = phonopy.load(tmp_path / "phonopy_params.yaml")
    np.testing.assert_allclose(heavy.masses, [91.96, 141.8])
    heavy.run_qpoints([[0.5, 0.5, 0.5]])
    light = phonopy.load(finished[0] / "phonopy_params.yaml")
    light.run_qpoints([[0.5, 0.5, 0.5]])
    # masses four times as large halve the frequencies; phonopy's masses have five digits
    ratio = light.qpoints.frequencies / heavy.qpoints.frequencies
    np.testing.assert_allclose(ratio, 2, rtol=1e-4)


def test_born_charges_are_found_as_phonopy_finds_them(tmp_path: Path) -> None:
    poscar(tmp_path)
    (tmp_path / "BORN").write_text(BORN)
    common = ("run", "POSCAR", "--model", model(), "--dim", 2, "-q", "--qpoints", 0.01, 0, 0)
    result = command(*common, cwd=tmp_path)
    assert result.stdout == ""
    phonon = phonopy.load(tmp_path / "phonopy_params.yaml", is_nac=True)
    assert phonon.nac_params is not None
    np.testing.assert_allclose(phonon.nac_params["born"][0], 1.1 * np.eye(3), atol=1e-8)
    command(*common, "--nonac", cwd=tmp_path)
    (tmp_path / "BORN").unlink()
    assert phonopy.load(tmp_path / "phonopy_params.yaml").nac_params is None


def test_relax_finds_the_minimum(tmp_path: Path) -> None:
    poscar(tmp_path, lattice=5.7)
    words = ("run", "POSCAR", "--model", model(), "--dim", 2, "--mesh", 2, 2, 2)
    unrelaxed = command(*words, cwd=tmp_path)
    assert "residual stress" in unrelaxed.stderr
    assert "use --relax" in unrelaxed.stderr
    relaxed = command(*words, "--relax", "--relax-fmax", "1e-6", cwd=tmp_path)
    assert "Relaxed in" in relaxed.stderr
    assert "residual stress" not in relaxed.stderr
    cell = phonopy.load(tmp_path / "phonopy_params.yaml").unitcell
    evaluation = potential().evaluate(cell)
    assert np.abs(evaluation.stress).max() * cell.volume / len(cell) < 1e-6


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "")]
)
def test_ctrl_c_leaves_the_old_file_and_nothing_half_written(
    tmp_path: Path, number: signal.Signals, status: int, word: str
) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("a shell's background job: it and its children ignore Ctrl-C")
    poscar(tmp_path)
    old = tmp_path / "phonopy_params.yaml"
    old.write_text("old: file\n")
    process = subprocess.Popen(
        [*COMMAND, "run", "POSCAR", "--model", model(), "--dim", "2", "--mesh", "4", "4", "4"],
        cwd=tmp_path,
        env=environment(JAX_ENABLE_COMPILATION_CACHE="false"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("Force constants of"):
            break
    assert any("--dim 2 2 2 (given by --dim), 16 atoms" in line for line in said)
    time.sleep(0.1)  # while it compiles
    process.send_signal(number)
    _, talk = process.communicate(timeout=120)
    assert process.returncode == status, talk
    assert "Traceback" not in talk
    assert word in talk
    assert sorted(path.name for path in tmp_path.iterdir()) == ["POSCAR", "phonopy_params.yaml"]
    assert old.read_text() == "old: file\n"


@pytest.mark.slow
def test_a_published_crystal_with_published_weights(shared: Path, tmp_path: Path) -> None:
    folder = shared / "dft" / "NaCl"
    file, weights = next(folder.glob("phonopy*.yaml*")), shared / "models/nequix-mp-1-pft.nqx"
    shutil.copy(folder / "BORN", tmp_path)
    words = ("--model", weights, "--mesh", 11, 11, 11, "-t")
    talk = command("run", file, *words, cwd=tmp_path).stderr
    ours = thermal_table(tmp_path)
    shell(f"phonopy phonopy_params.yaml --mesh 11 11 11 -t {options_added(talk)}", tmp_path)
    np.testing.assert_array_equal(thermal_table(tmp_path), ours)


def test_phonopys_remark_on_its_version_3_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes for centred cells, and a user of ``run`` has no choice to make."""
    cell = to_phonopy(as_structure(bulk("NaCl", "rocksalt", a=LATTICE, cubic=True)))
    monkeypatch.setattr("phonopy.scripts.phonopy.run", lambda: Phonopy(cell, np.eye(3, dtype=int)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="defaulted to 'auto'"):
            Phonopy(cell, np.eye(3, dtype=int))
        assert run_phonopy("phonopy_params.yaml", []) == 0

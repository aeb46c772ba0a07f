"""Thermal conductivity: phono3py on analytic force constants, its files, table and figure."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from ase.build import bulk
from cli_helpers import LATTICE, command, model
from cli_helpers import potential as small
from conftest import assert_close
from matplotlib.figure import Figure
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.phonons import stability
from phonopy_equivariant.phonons.conductivity import ThermalConductivity, read_conductivity
from phonopy_equivariant.phonons.interpolation import interpolate, interpolation_error
from phonopy_equivariant.potential import random_potential
from phonopy_equivariant.response import elastic
from phonopy_equivariant.response.third.lattice import lattice_third_derivatives
from phonopy_equivariant.structure import Structure, as_structure, to_phonopy

phono3py = pytest.importorskip("phono3py", reason="phono3py is not installed")
MESH = ("--mesh", "4", "4", "4")


def salt(folder: Path, lattice: float = LATTICE) -> None:
    bulk("NaCl", "rocksalt", a=lattice).write(folder / "POSCAR", format="vasp")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The command in a folder: its files, and what it said."""
    folder = tmp_path_factory.mktemp("kappa")
    salt(folder)
    words = ("kappa", "POSCAR", "--model", model(), "--dim", "2", *MESH, "--ts", "300", "600")
    result = command(*words, cwd=folder)
    return folder, result.stdout, result.stderr


def test_plain_phono3py_finds_the_same(finished: tuple[Path, str, str]) -> None:
    folder, output, said = finished
    conductivity = read_conductivity(folder / "kappa-m444.hdf5")
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of phono3py: the supercell breaks the point group
        plain = phono3py.load("phono3py_params.yaml", log_level=0)
    plain.mesh_numbers = [4, 4, 4]
    plain.init_phph_interaction()
    plain.run_thermal_conductivity(temperatures=[300.0, 600.0], log_level=0)
    np.testing.assert_allclose(
        conductivity.kappa, plain.thermal_conductivity.kappa[0], rtol=1e-7, atol=1e-9
    )
    assert "taking --br" in said and "No mesh" not in said and "warning" not in said
    assert "Grid point" not in output + said  # phono3py's own output is for -v
    assert "kappa-m444.hdf5, phono3py.yaml, kappa.pdf, kappa-settings.yaml" in said
    settings = yaml.safe_load((folder / "kappa-settings.yaml").read_text())
    assert settings["phono3py"] == {"mesh": [4, 4, 4], "ts": [300, 600]}
    assert (folder / "kappa.pdf").read_bytes().startswith(b"%PDF")
    assert f"{conductivity.kappa[0, 0]:.4g}" in output


def test_python_finds_the_same(finished: tuple[Path, str, str]) -> None:
    """phono3py's widths of degenerate modes change with the last digit of positions: 6e-3 of κ."""
    expected = read_conductivity(finished[0] / "kappa-m444.hdf5")
    atoms = bulk("NaCl", "rocksalt", a=LATTICE)
    result = pe.thermal_conductivity(atoms, small(), 2, mesh=[4, 4, 4], temperatures=[300.0, 600.0])
    np.testing.assert_allclose(result.isotropic(), expected.isotropic(), rtol=2e-2)
    np.testing.assert_allclose(result.frequencies, expected.frequencies, atol=1e-6)
    assert result.mesh == expected.mesh == (4, 4, 4)
    with pytest.raises(pe.PhonopyEquivariantError, match="give one of rta, lbte"):
        pe.thermal_conductivity(atoms, small(), method="exact")


def test_modes_add_up(finished: tuple[Path, str, str]) -> None:
    conductivity = read_conductivity(finished[0] / "kappa-m444.hdf5")
    frequencies, sums = conductivity.cumulative(600.0)
    assert (np.diff(frequencies) >= 0).all() and (np.diff(sums) >= -1e-12).all()
    np.testing.assert_allclose(sums[-1], conductivity.isotropic()[1])
    # a lifetime of 1 ps is a half width of 1/(4π) THz
    width = np.full_like(conductivity.linewidths, 1 / (4 * np.pi))
    same = ThermalConductivity(
        *(getattr(conductivity, x) for x in ("temperatures", "kappa", "mesh", "weights")),
        conductivity.frequencies,
        width,
        conductivity.mode_kappa,
    )
    np.testing.assert_allclose(same.lifetimes(), 1.0)


def test_imaginary_modes_are_named(tmp_path: Path) -> None:
    salt(tmp_path, 1.2 * LATTICE)
    words = ("kappa", "POSCAR", "--model", model(), "--dim", "2", *MESH, "--ts", "300")
    assert "phono3py leaves imaginary modes out" in command(*words, cwd=tmp_path).stderr


def test_a_small_supercell_of_second_order_is_said_with_the_option_to_widen_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stability, "SUFFICIENT", 1e-9)  # THz
    salt(tmp_path)
    words = ("kappa", "POSCAR", "--model", model(), "--dim", "2", "--mesh", "3", "3", "3")
    said = command(*words, "--ts", "300", cwd=tmp_path).stderr
    assert "warning: the supercell of second order does not suffice: frequencies are off by" in said
    assert "use a larger --dim-fc2." in said and "exact" not in said


def test_no_gruneisen_parameters_are_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At an instability strain has no answer; the conductivity is there all the same."""
    monkeypatch.setattr(elastic, "PULL_MARGIN", -1.0)  # the crystal counts as pulled apart
    salt(tmp_path)
    words = ("kappa", "POSCAR", "--model", model(), "--dim", "2", "--mesh", "3", "3", "3")
    done = command(*words, "--ts", "300", cwd=tmp_path)
    assert "The figure has no mode Grüneisen parameters. A mode at Γ without" in done.stderr
    assert "κ xx" in done.stdout
    assert (tmp_path / "kappa.pdf").read_bytes().startswith(b"%PDF")


def test_what_phono3py_computes_instead_of_conductivity(tmp_path: Path) -> None:
    salt(tmp_path)
    words = ("kappa", "POSCAR", "--model", model(), "--dim", "2", *MESH, "--gruneisen")
    said = command(*words, cwd=tmp_path).stderr
    assert "taking --br" not in said
    files = said.partition("Files: ")[2]
    assert "gruneisen.hdf5" in files and (tmp_path / "gruneisen.hdf5").exists()
    assert not (tmp_path / "kappa.pdf").exists()


def test_several_line_widths_make_several_conductivities(tmp_path: Path) -> None:
    salt(tmp_path)
    words = ("kappa", "POSCAR", "--model", model(), "--dim", "2", *MESH, "--sigma", "0.1", "0.2")
    said = command(*words, cwd=tmp_path).stderr
    assert "-s0.1.hdf5" in said and "-s0.2.hdf5 the last is shown" in said


def test_a_conductivity_without_modes_is_left_to_phono3py(tmp_path: Path) -> None:
    """The Wigner equation: the file has no parts of modes; phono3py's own table is shown."""
    salt(tmp_path)
    words = ("kappa", "POSCAR", "--model", model(), "--dim", "2", "--mesh", "3", "3", "3")
    result = command(*words, "--ts", "300", "--br", "--transport-type", "SMM19", cwd=tmp_path)
    assert (tmp_path / "kappa-m333.hdf5").exists() and not (tmp_path / "kappa.pdf").exists()
    assert "kappa-m333.hdf5" in result.stdout + result.stderr


def test_gruneisen_parameters_of_third_order_are_the_analytic_ones(tmp_path: Path) -> None:
    """First moments of force constants need a supercell that holds all of them, twice the cutoff.

    Forces and stress vanish in neither, and enter in neither.
    """
    config = dict(
        species=(11, 17),
        cutoff=2.9,
        num_interactions=1,
        hidden_irreps="4x0e",
        l_max=1,
        scale=20.0,
        avg_num_neighbors=6.0,
    )
    potential = random_potential(pe.NequIPConfig(**config), seed=2)
    atoms = bulk("NaCl", "rocksalt", a=5.0)
    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
    )
    crystal = phono3py.Phono3py(cell, supercell_matrix=[4, 4, 4], primitive_matrix="P")
    pe.set_third_order_force_constants(crystal, potential)
    from phono3py.phonon3.gruneisen import Gruneisen

    qpoints = np.array([[0.5, 0.0, 0.5], [0.5, 0.5, 0.5], [0.1, 0.2, 0.3]])
    theirs = Gruneisen(crystal.fc2, crystal.fc3, crystal.supercell, crystal.primitive)
    theirs.set_qpoints(qpoints)
    theirs.run()
    structure: Structure = as_structure(atoms)
    ours = pe.gruneisen_parameters(structure, potential, qpoints, relax=False)
    found = np.trace(theirs.gruneisen_parameters, axis1=2, axis2=3) / 3
    np.testing.assert_allclose(found, ours.parameters, rtol=1e-6, atol=1e-8)


def test_interpolation_is_exact_at_commensurate_q_and_better_in_larger_supercells() -> None:
    """Where the supercell has q, nothing is interpolated; between them the range decides."""
    potential = small()
    # third derivatives at q of sizes 2 are zero where every atom is a centre of inversion
    atoms = bulk("NaCl", "zincblende", a=5.2)
    cell = to_phonopy(as_structure(atoms))
    errors = []
    for size in (2, 3):
        crystal = phono3py.Phono3py(cell, supercell_matrix=[size] * 3, primitive_matrix="P")
        compact = pe.third_order_force_constants(crystal, potential)
        two = np.array([[1, 0, 1], [0, 1, 1]]) / size
        triplet = np.concatenate([-two.sum(axis=0, keepdims=True), two])
        exact = lattice_third_derivatives(potential, crystal.primitive, triplet[None, :2])[0]
        assert_close(interpolate(crystal, compact, triplet), exact)
        errors.append(interpolation_error(crystal, compact, potential))
    assert 0.001 < errors[1] < errors[0] / 2


def test_supercell_grows_until_it_interpolates(tmp_path: Path) -> None:
    salt(tmp_path)
    words = ("fc3", "POSCAR", "--model", model(), "--dim", "auto", "--dim-tolerance", "0.5")
    said = command(*words, cwd=tmp_path)
    tried = [line for line in said.stderr.splitlines() if line.startswith("Interpolation error")]
    assert len(tried) >= 1 and "aim 50.0%" in tried[-1]
    errors = [float(line.split()[2].rstrip("%,")) for line in tried]
    assert errors[-1] <= 50 and all(error > 50 for error in errors[:-1])
    assert f"interpolation error  {errors[-1]}%" in said.stdout
    refused = command(
        "fc3", "POSCAR", "--dim", "2", "--dim-tolerance", "0.1", cwd=tmp_path, status=2
    )
    assert "--dim-tolerance is a positive number with --dim auto" in refused.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("POSCAR", "--dim", "2", "--mesh", "0", "0", "0"), "give three positive whole numbers"),
        (("POSCAR", "--dim", "2", "--mesh", "0", "3", "3"), "give three positive whole numbers"),
        (("POSCAR", "--dim", "2", "--ts", "300", "nan"), "--ts: give temperatures in K"),
        (("POSCAR", "--dim", "2", "--ts", "-5"), "--ts: give temperatures in K"),
        (("POSCAR", "--dim", "2", "--tmin", "400", "--tmax", "300"), "the lower one first"),
        (("POSCAR", "--dim", "2", "--bmfp", "-1"), "--bmfp: give a positive length"),
        (("POSCAR", "--dim", "2", "--pypolymlp"), "--pypolymlp is another potential"),
        (("POSCAR", "--dim", "2", "-d"), "-d displaces atoms"),
        (("POSCAR", "--dim", "2", "--mehs", "3"), "did you mean --mesh"),
        (("--dim", "2", *MESH), "STRUCTURE is missing"),
    ],
)
def test_wrong_options_are_one_line(words: tuple[str, ...], text: str, tmp_path: Path) -> None:
    salt(tmp_path)
    result = command("kappa", *words, cwd=tmp_path, status=2)
    assert text in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["POSCAR"]


def test_files_without_conductivity_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "kappa-m444.hdf5"
    path.write_bytes(b"no HDF5")
    with pytest.raises(pe.PhonopyEquivariantError, match="cannot be read as thermal conductivity"):
        read_conductivity(path)
    with h5py.File(path, "w") as file:
        file["temperature"] = [300.0]
    with pytest.raises(pe.PhonopyEquivariantError, match="of a whole mesh"):
        read_conductivity(path)


def test_the_full_solution(tmp_path: Path) -> None:
    """phono3py's file has the parts of single modes in the relaxation time approximation only."""
    salt(tmp_path)
    words = ("kappa", "POSCAR", "--model", model(), "--dim", "2", "--mesh", "3", "3", "3")
    command(*words, "--ts", "300", "--lbte", cwd=tmp_path)
    with h5py.File(tmp_path / "kappa-m333.hdf5") as file:
        full, approximate = file["kappa"][0, 0], file["kappa_RTA"][0, 0]
    conductivity = read_conductivity(tmp_path / "kappa-m333.hdf5")
    np.testing.assert_allclose(conductivity.isotropic(), full, rtol=1e-8)
    np.testing.assert_allclose(conductivity.cumulative()[1][-1], approximate, rtol=1e-6)
    axes = conductivity.plot(Figure()).axes[1]
    assert ("of RTA" in axes.get_ylabel()) == (abs(full / approximate - 1) > 1e-6)


def test_born_charges(tmp_path: Path) -> None:
    """Another κ with charges, refused before the work if they mean nothing; the same in Python."""
    salt(tmp_path)
    charges = "1 0 0 0 1 0 0 0 1\n-1 0 0 0 -1 0 0 0 -1\n"
    (tmp_path / "BORN").write_text(f"14.4\n900 0 0 0 900 0 0 0 900\n{charges}")
    words = ("kappa", "POSCAR", "--model", model(), "--dim", "2", "--mesh", "3", "3", "3")
    refused = command(*words, cwd=tmp_path, status=1)
    assert "as of a metal" in refused.stderr.splitlines()[-1]
    assert not (tmp_path / "fc3.hdf5").exists()
    (tmp_path / "BORN").write_text(f"14.4\n2 0 0 0 2 0 0 0 2\n{charges}")
    done = command(*words, "--ts", "300", cwd=tmp_path)
    assert "Born charges: from BORN" in done.stderr
    nac_params = {
        "born": np.array([np.eye(3), -np.eye(3)]),
        "dielectric": 2 * np.eye(3),
        "factor": 14.4,
    }
    expected = read_conductivity(tmp_path / "kappa-m333.hdf5").frequencies
    atoms = bulk("NaCl", "rocksalt", a=LATTICE)
    for given, same in ((nac_params, True), (None, False)):
        result = pe.thermal_conductivity(
            atoms, small(), 2, mesh=[3, 3, 3], temperatures=[300.0], nac_params=given
        )
        assert np.allclose(result.frequencies, expected, atol=1e-5) == same


def test_one_atom_scatters_nothing_in_a_small_supercell() -> None:
    """An inversion centre at every atom of the supercell: third derivatives vanish."""
    sodium = bulk("Na", "fcc", a=LATTICE / 2**0.5)
    with warnings.catch_warnings(record=True) as remarks:  # of stress as well
        warnings.simplefilter("always")
        pe.thermal_conductivity(sodium, small(), 2, mesh=[3, 3, 3], temperatures=[300.0])
    assert any("all third-order force constants" in str(remark.message) for remark in remarks)
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        pe.thermal_conductivity(sodium, small(), 3, mesh=[3, 3, 3], temperatures=[300.0])
    assert not any("all third-order" in str(remark.message) for remark in remarks)


@pytest.mark.parametrize(
    "wrong",
    [{"temperatures": [-5.0]}, {"temperatures": []}, {"temperatures": [np.nan]}]
    + [{"mesh": [0, 3, 3]}, {"mesh": -4.0}, {"mesh": [3, 3]}],
)
def test_numbers_that_mean_nothing(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(pe.PhonopyEquivariantError, match=f"{name}=.*: give"):
        pe.thermal_conductivity(bulk("NaCl", "rocksalt", a=LATTICE), small(), **wrong)

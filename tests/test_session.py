"""What stands between a file and phonopy's object: units, masses, charges, files to keep."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import ase.io
import numpy as np
import phonopy
import pytest
import yaml
from ase.build import bulk
from cli_helpers import assert_refused, command, model, poscar
from phonopy import Phonopy
from phonopy.cui.settings import PhonopySettings
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.io.build import build_phonon, set_born_charges
from phonopy_equivariant.io.crystals import read_crystal
from phonopy_equivariant.io.outputs import check_output, write_atoms
from phonopy_equivariant.io.supercells import parse_dim
from phonopy_equivariant.phonons.exact import use_exact_dynamical_matrix
from phonopy_equivariant.potential import Potential

ONE = np.eye(3, dtype=int)


def salt(calculator: str | None = None, length: float = 1.0) -> Phonopy:
    atoms = bulk("NaCl", "rocksalt", a=5.7)
    cell = PhonopyAtoms(
        numbers=atoms.numbers,
        cell=atoms.cell.array / length,
        scaled_positions=atoms.get_scaled_positions(),
    )
    return Phonopy(cell, ONE, primitive_matrix="P", calculator=calculator)


@pytest.mark.parametrize("calculator", ["qe", "siesta", "cp2k"])
def test_an_object_in_other_units_is_refused(calculator: str, potential: Potential) -> None:
    phonon = salt(calculator, 0.529177)
    for call in (pe.set_force_constants, pe.force_constants, use_exact_dynamical_matrix):
        with pytest.raises(pe.PhonopyEquivariantError, match=f"in the units of {calculator}"):
            call(phonon, potential)


def test_masses_of_equivalent_atoms(tmp_path: Path) -> None:
    """phonopy would take the first one's for all."""
    atoms = bulk("Si", cubic=True)
    masses = atoms.get_masses()
    masses[5] = 30.0
    atoms.set_masses(masses)
    atoms.write(tmp_path / "isotope.extxyz")
    crystal = read_crystal(tmp_path / "isotope.extxyz")
    with pytest.raises(
        pe.PhonopyEquivariantError, match="different masses; .*primitive_matrix=.P."
    ):
        build_phonon(crystal, ONE)
    settings = PhonopySettings(load_phonopy_yaml=True)
    settings.primitive_matrix = "P"
    phonon = build_phonon(crystal, ONE, settings)
    np.testing.assert_allclose(phonon.primitive.masses, masses, rtol=1e-6)


def test_born_charges_of_another_primitive_cell(tmp_path: Path) -> None:
    phonon = salt()
    phonon.nac_params = {"born": np.array([ONE, -ONE]), "dielectric": 2.0 * ONE, "factor": 14.4}
    phonon.save(tmp_path / "phonopy_params.yaml")
    crystal = read_crystal(tmp_path / "phonopy_params.yaml")
    assert set_born_charges(build_phonon(crystal, ONE), crystal) == "phonopy_params.yaml"
    doubled = bulk("NaCl", "rocksalt", a=5.7).repeat((1, 1, 2))
    doubled.positions[0] += 0.1  # else the smaller cell is found again
    doubled.write(tmp_path / "POSCAR")
    other = build_phonon(read_crystal(tmp_path / "POSCAR"), ONE)
    with pytest.raises(pe.PhonopyEquivariantError, match="of 2 atoms, the primitive cell has 4"):
        set_born_charges(other, crystal)


def test_a_left_handed_supercell_is_refused() -> None:
    words = ["0", "-1", "-1", "-1", "0", "-1", "-1", "-1", "0"]
    with pytest.raises(pe.PhonopyEquivariantError, match="positive volume; exchange two rows"):
        parse_dim(words)


def test_configuration_file_and_masses_of_iupac(tmp_path: Path) -> None:
    poscar(tmp_path)
    (tmp_path / "c.conf").write_text("DIM = 3 3 3\n")
    words = ("run", "POSCAR", "--config", "c.conf", "--mass-ase-iupac2016", "--model", model())
    command(*words, cwd=tmp_path)
    assert salt().primitive.masses[1] == 35.453  # this process has phonopy's table again
    phonon = phonopy.load(tmp_path / "phonopy_params.yaml")
    np.testing.assert_array_equal(phonon.supercell_matrix, 3 * ONE)
    masses = dict(zip(phonon.primitive.symbols, phonon.primitive.masses, strict=True))
    assert masses["Cl"] == pytest.approx(35.45, abs=1e-6)  # phonopy's own: 35.453
    # what this package computed may be computed again
    check_output(tmp_path / "phonopy_params.yaml")
    content = yaml.safe_load((tmp_path / "phonopy_params.yaml").read_text())
    assert content["phonopy"]["configuration"]["force_constants"].startswith("analytic")


def test_force_constants_of_others_are_kept(tmp_path: Path) -> None:
    phonon = salt()
    phonon.force_constants = np.zeros((2, 2, 3, 3))
    path = tmp_path / "phonopy_params.yaml"
    phonon.save(path, settings={"force_constants": True})
    with pytest.raises(pe.PhonopyEquivariantError, match="force constants of another origin"):
        check_output(path)
    for name, file in (("FORCE_CONSTANTS", "FORCE_CONSTANTS"), ("hdf5", "force_constants.hdf5")):
        (tmp_path / file).write_text("dear")
        words = ("fc", "phonopy_params.yaml", "--format", name, "--model", model())
        result = command(*words, cwd=tmp_path, status=1)
        assert_refused(result, f"{file} exists", f"-o {file}")


def test_random_displacements_are_a_setup(tmp_path: Path) -> None:
    poscar(tmp_path)
    result = command("run", "POSCAR", "--rd", 3, "--model", model(), cwd=tmp_path, status=2)
    assert_refused(result, "contradictory", "--rd")


@pytest.mark.parametrize("name", ["POSCAR.gz", "POSCAR.xz", "a.extxyz.gz", "POSCAR"])
def test_compressed_structures_are_compressed(name: str, tmp_path: Path) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.7)
    write_atoms(atoms, tmp_path / name)
    read = ase.io.read(tmp_path / name)
    np.testing.assert_allclose(read.positions, atoms.positions, atol=1e-8)
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(Path(name).suffix, open)
    with opener(tmp_path / name, "rt") as file:
        assert file.read(1)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_files_behind_links_and_under_files(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    with pytest.raises(pe.PhonopyEquivariantError, match="Cannot write"):
        write_atomically(tmp_path / "real" / "file", b"new")

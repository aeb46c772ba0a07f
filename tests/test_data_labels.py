"""Labels under all the names that programs use: layouts drawn at random and read back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from cli_helpers import CONFIG, assert_refused, command
from data_helpers import assert_same, emt_record, every_kind

import phonopy_equivariant as pe
from phonopy_equivariant import PhonopyEquivariantError
from phonopy_equivariant.data import read_records, write_records
from phonopy_equivariant.data.checks import Survey, check_records
from phonopy_equivariant.data.duplicates import shared_structures
from phonopy_equivariant.data.statistics import is_isolated, reference_energies

PREFIXES = ("", "REF_", "ref_", "dft_", "DFT_", "QM_")
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def random_stress(rng: np.random.Generator) -> np.ndarray:
    matrix = 0.02 * rng.normal(size=(3, 3))
    return matrix + matrix.T


def stress_words(rng: np.random.Generator, stress: np.ndarray, volume: float) -> tuple[str, str]:
    """Return a name and numbers of a stress, or of the virial -V σ, nine or six of them."""
    name = rng.choice(["stress", "virial", "virials"])
    matrix = stress if name == "stress" else -volume * stress
    numbers = matrix.ravel() if rng.random() < 0.5 else [matrix[pair] for pair in VOIGT]
    return str(name), " ".join(repr(float(x)) for x in numbers)


@pytest.mark.parametrize("seed", range(40))
def test_random_layouts_of_extended_xyz(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    cell = 4 * np.eye(3) + 0.2 * rng.normal(size=(3, 3))
    positions, forces = rng.normal(size=(2, 2, 3))
    energy, stress = float(rng.normal()), random_stress(rng)
    prefix, has = str(rng.choice(PREFIXES)), rng.random(3) < 0.7
    nan_stress = rng.random() < 0.2
    lower = rng.random() < 0.5  # as NEP writes it
    words = [f'lattice="{" ".join(repr(float(x)) for x in cell.ravel())}"']
    columns = "species:S:1:pos:R:3"
    if has[0]:
        words.append(f"{prefix}energy={energy!r}")
        if rng.random() < 0.3:  # the energy beside the free energy does not count
            words[-1] = f"{prefix}free_energy={energy!r} {prefix}energy={energy + 1.0!r}"
    if has[1]:
        columns += f":{prefix}{rng.choice(['force', 'forces'])}:R:3"
    if has[2]:
        name, text = stress_words(rng, stress, abs(np.linalg.det(cell)))
        words.append(f'{prefix}{name}="{" ".join(["nan"] * 9) if nan_stress else text}"')
    words.append(f"properties={columns}")
    if not lower:
        words[0] = words[0].replace("lattice", "Lattice")
        words[-1] = words[-1].replace("properties", "Properties")
    rows = [
        " ".join(["Cu", *(repr(float(x)) for x in [*p, *(f if has[1] else ())])])
        for p, f in zip(positions, forces, strict=True)
    ]
    mark = "\ufeff" if rng.random() < 0.3 else ""
    text = "\n".join([f"{mark}2", " ".join(words), *rows, ""])
    (tmp_path / "a.xyz").write_text(text, encoding="utf-8")
    (record,) = read_records(tmp_path / "a.xyz")
    np.testing.assert_array_equal(record.structure.cell, cell)
    assert record.structure.pbc.all()
    assert record.energy == (energy if has[0] else None)
    assert (record.forces is not None) == has[1]
    if has[1]:
        np.testing.assert_array_equal(record.forces, forces)
    assert (record.stress is not None) == (has[2] and not nan_stress)
    if record.stress is not None:
        np.testing.assert_allclose(record.stress, stress, rtol=1e-12, atol=1e-15)


def frame(words: str, column: str = "", count: int = 1) -> str:
    text = f'1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3{column} {words}\n'
    return (text + f"Cu 0 0 0{' 0.5 0 0' if column else ''}\n") * count


def test_two_sets_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    path.write_text(frame("energy=-1.0 REF_energy=-1.0"))
    assert read_records(path)[0].energy == -1.0
    path.write_text(frame("energy=-1.0 REF_energy=-2.0"))
    with pytest.raises(PhonopyEquivariantError, match="REF_energy and energy.*energy_key"):
        read_records(path)
    assert read_records(path, energy_key="REF_energy")[0].energy == -2.0
    assert read_records(path, energy_key="energy")[0].energy == -1.0
    path.write_text(frame("energy=-1.0 free_energy=-1.1 REF_energy=-1.0"))
    assert read_records(path)[0].energy == -1.0
    path.write_text(frame('stress="1 0 0 0 1 0 0 0 1" virial="27 0 0 0 27 0 0 0 27"'))
    [problem] = check_records(read_records(path, unsound="keep"))
    assert "stress and virial differ by 2 eV/Å³" in problem.text


def test_a_virial_is_never_a_stress_and_a_key_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "a.xyz"
    path.write_text(frame('REF_virials="27 0 0 0 54 0 0 0 81" config=x'))
    (record,) = read_records(path, stress_key="REF_virials")
    np.testing.assert_allclose(record.stress, -np.diag([1.0, 2.0, 3.0]))
    with pytest.raises(PhonopyEquivariantError, match="no 'nothing' for the stress.*REF_virials"):
        read_records(path, stress_key="nothing")
    # a key that some records lack leaves those without the label
    path.write_text(frame("mine=-1.0") + frame("other=-2.0"))
    assert [r.energy for r in read_records(path, energy_key="mine")] == [-1.0, None]


def test_the_free_energy_counts_in_every_format(tmp_path: Path) -> None:
    atoms = bulk("Cu")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, free_energy=-1.1)
    ase.io.write(tmp_path / "a.traj", atoms)
    ase.io.write(tmp_path / "a.extxyz", atoms)
    with ase.db.connect(tmp_path / "a.db") as database:
        database.write(atoms)
    for name in ("a.traj", "a.extxyz", "a.db"):
        assert read_records(tmp_path / name)[0].energy == -1.1
        assert read_records(tmp_path / name, energy_key="energy")[0].energy == -1.0


def test_unnamed_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("1\nno layout\nCu 0 0 0 0.1 0.2 0.3\n")
    with pytest.raises(PhonopyEquivariantError, match=r"a.xyz:0: an atom has 7 columns"):
        read_records(tmp_path / "a.xyz")


@pytest.mark.parametrize("name", ["a.extxyz", "a.h5"])
def test_masses_are_read_back(name: str, tmp_path: Path) -> None:
    records = every_kind()
    masses = np.linspace(1.5, 9.0, len(records[0].structure.numbers))
    records[0] = dataclasses.replace(
        records[0], structure=records[0].structure._replace(masses=masses)
    )
    write_records(records, tmp_path / name)
    for got, expected in zip(read_records(tmp_path / name), records, strict=True):
        assert_same(got, expected)


def test_files_without_masses_stay_readable(tmp_path: Path) -> None:
    import h5py

    write_records(every_kind(), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["masses"]
        file.attrs["version"] = 1
    for got, expected in zip(read_records(tmp_path / "a.h5"), every_kind(), strict=True):
        assert_same(got, expected)


def test_masses_of_ase_files(tmp_path: Path) -> None:
    atoms = Atoms("LiH", cell=4 * np.eye(3), pbc=True, positions=[[0, 0, 0], [2, 2, 2]])
    atoms.set_masses([6.94, 2.014])
    ase.io.write(tmp_path / "a.traj", atoms)
    np.testing.assert_array_equal(
        read_records(tmp_path / "a.traj")[0].structure.masses, [6.94, 2.014]
    )


def test_isolated_atoms_set_the_energy_of_their_element() -> None:
    cube = emt_record(1)
    crystal = dataclasses.replace(cube, energy=-50.0)  # Au Cu3
    atom = cube.structure._replace(
        numbers=np.array([29]), positions=np.zeros((1, 3)), pbc=np.zeros(3, bool)
    )
    alone = dataclasses.replace(cube, structure=atom, energy=-10.0, forces=None, stress=None)
    assert reference_energies([crystal, alone]) == pytest.approx({29: -10.0, 79: -20.0})
    # in a large periodic box too, in a small one it is a crystal
    for edge, isolated in ((12.0, True), (2.5, False)):
        box = atom._replace(cell=edge * np.eye(3), pbc=np.ones(3, bool))
        assert is_isolated(box) == isolated


@pytest.mark.parametrize("seed", range(5))
def test_contradictory_copies_are_named_in_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    records: list[Any] = [emt_record(k) for k in range(12)]
    places = sorted(rng.choice(12, 2, replace=False).tolist())
    original, copy = (records[k] for k in places)
    copy = dataclasses.replace(original, energy=original.energy + 0.4, source=copy.source)
    records[places[1]] = copy
    # an exact copy with the same labels is no contradiction
    other = min({*range(12)} - {*places})
    records.append(dataclasses.replace(records[other], source="copy"))
    problems = [p for p in check_records(records) if "the same structure as" in p.text]
    assert [p.place for p in problems] == places
    assert "its energy differs by 0.1 eV/atom" in problems[0].text


@pytest.mark.parametrize("suffix", ["extxyz", "traj", "db", "json"])
@pytest.mark.parametrize("free", [True, False])
def test_the_free_energy_wins_in_every_format(suffix: str, free: bool, tmp_path: Path) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    stress = np.array([0.01, 0.02, 0.03, 0.001, 0.002, 0.003])
    results = {"energy": -1.0, "forces": np.full((8, 3), 0.1), "stress": stress}
    results |= {"free_energy": -1.1} if free else {}
    atoms.calc = SinglePointCalculator(atoms, **results)
    ase.io.write(tmp_path / f"a.{suffix}", atoms)
    (record,) = read_records(tmp_path / f"a.{suffix}")
    assert record.energy == (-1.1 if free else -1.0)
    np.testing.assert_allclose(record.forces, results["forces"])
    np.testing.assert_allclose([record.stress[pair] for pair in VOIGT], stress, atol=1e-8)


def test_a_nan_beside_the_label_that_is_meant_is_no_contradiction(tmp_path: Path) -> None:
    rows = "Na 0 0 0\nCl 2 2 2\n"
    (tmp_path / "a.extxyz").write_text(f"2\nenergy=nan REF_energy=-2\n{rows}")
    (record,) = read_records(tmp_path / "a.extxyz")
    assert record.energy == -2.0 and not record.contradictions


def test_a_virial_stress_is_a_stress(tmp_path: Path) -> None:
    words = 'Lattice="4 0 0 0 4 0 0 0 4" pbc="T T T"'
    words += ' virial_stress="1 0 0 0 1 0 0 0 1" my_virial="1 0 0 0 1 0 0 0 1"'
    (tmp_path / "a.extxyz").write_text(f"1\n{words}\nNa 0 0 0\n")
    for key, value in (("virial_stress", 1.0), ("my_virial", -1 / 64)):
        (record,) = read_records(tmp_path / "a.extxyz", stress_key=key)
        np.testing.assert_allclose(record.stress, value * np.eye(3))


def test_titles_in_latin_1_and_symbols_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.extxyz"
    path.write_bytes('1\nenergy=-1 title="für Müller"\nNa 0 0 0\n'.encode("latin-1"))
    assert read_records(path)[0].energy == -1.0
    for symbol in ("D", "Na1", "Xy"):
        path.write_text(f"1\nenergy=-1\n{symbol} 0 0 0\n")
        with pytest.raises(PhonopyEquivariantError, match=f"atoms '{symbol}', no element"):
            read_records(path)


@pytest.mark.parametrize("seed", range(3))
def test_images_are_the_same_place_and_contradict_across_sets(seed: int) -> None:
    """Unwrapped trajectories: atoms moved by lattice vectors are the same structure."""
    rng = np.random.default_rng(seed)
    records = [emt_record(k) for k in range(6)]
    structure = records[2].structure
    moved = structure.positions + rng.integers(-2, 3, (4, 3)) @ structure.cell
    image = dataclasses.replace(records[2], structure=structure._replace(positions=moved))
    other = dataclasses.replace(image, energy=image.energy + 0.4)
    surveys = [Survey(), Survey()]
    for survey, members in zip(surveys, (records, [emt_record(9), image, other]), strict=True):
        for record in members:
            survey.add(record)
    copies = shared_structures(surveys[0].marks, surveys[1].marks)
    assert [(copy.first, copy.second) for copy in copies] == [(2, 1), (2, 2)]
    assert not copies[0].difference
    assert copies[1].difference == "its energy differs by 0.1 eV/atom"
    # with one atom moved by less than a lattice vector it is another one
    aside = moved + np.array([[0.01, 0, 0], *np.zeros((3, 3))])
    aside = dataclasses.replace(other, structure=structure._replace(positions=aside))
    assert not [p for p in check_records([*records, aside]) if "the same structure" in p.text]


def test_a_stress_that_is_not_symmetric_is_named() -> None:
    skew = emt_record(1).stress + np.array([[0, 0.01, 0], [0, 0, 0], [0, 0, 0]])
    problems = check_records([dataclasses.replace(emt_record(1), stress=skew)])
    assert ["not symmetric, by 0.01 eV/Å³" in p.text for p in problems] == [True]


def test_absurd_forces_empty_files_and_foreign_hdf5(tmp_path: Path) -> None:
    import h5py

    record = emt_record(1)
    huge = dataclasses.replace(record, forces=1e6 * np.ones_like(record.forces))
    assert any("a force of 1.73e+06 eV/Å" in p.text for p in check_records([huge]))
    (tmp_path / "empty.extxyz").write_text("")
    with pytest.raises(PhonopyEquivariantError, match="empty.extxyz: has no records"):
        read_records(tmp_path / "empty.extxyz")
    with pytest.raises(PhonopyEquivariantError, match="nothing was written"):
        write_records([], tmp_path / "none.extxyz")
    assert not (tmp_path / "none.extxyz").exists()
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["coordinates"] = np.zeros(3)
    with pytest.raises(PhonopyEquivariantError, match="another program.*coordinates"):
        read_records(tmp_path / "other.h5")


CASES = {
    "REF_virials_key_of_mace.extxyz": "",
    "both_energy_and_REF_energy.extxyz": "choose one with energy_key",
    "energy_and_free_energy.extxyz": "",
    "isolated_atom_and_bulk.extxyz": "",
    "lower_case_properties_of_NEP.xyz": "",
    "nan_stress_of_clusters_in_bulk_set.extxyz": "",
}


@pytest.mark.parametrize("name", CASES)
def test_published_faults_through_the_command(name: str, shared: Path, tmp_path: Path) -> None:
    path = shared / "cases" / f"mlip-{name}"
    if not path.exists():
        pytest.skip("the folder ../shared/cases is absent")
    refused = CASES[name]
    words = ("dataset", "convert", path, "-o", "a.h5")
    result = command(*words, cwd=tmp_path, status=1 if refused else 0)
    if refused:
        assert_refused(result, refused)
        assert not list(tmp_path.iterdir())
        return
    records = read_records(tmp_path / "a.h5")
    if "virials" in name:
        assert np.abs(records[-1].stress).max() == pytest.approx(0.0202, abs=5e-5)
    if "free_energy" in name:
        assert records[0].energy == pytest.approx(0.34869056856415703, rel=1e-14)
    if "isolated" in name:
        assert reference_energies(records)[29] == -1000.0
    if "NEP" in name:
        assert records[0].forces is not None
    if "nan_stress" in name:
        assert len(records) == 5 and records[3].stress is None and records[3].forces is not None


def test_contradictory_case_through_the_command(shared: Path, tmp_path: Path) -> None:
    path = shared / "cases" / "mlip-same_structure_contradictory_energies.extxyz"
    if not path.exists():
        pytest.skip("the folder ../shared/cases is absent")
    result = command("dataset", "check", path, cwd=tmp_path, status=1)
    assert result.stdout.count("the same structure as") == 6


def test_unknown_key_of_the_energy_through_the_command(shared: Path, tmp_path: Path) -> None:
    """The energy is under a key that nobody knows: training on energies is refused, not dropped."""
    path = shared / "cases" / "mlip-TotEnergy_is_no_known_key.xyz"
    if not path.exists():
        pytest.skip("the folder ../shared/cases is absent")
    text = f"""
output: run
model: {{cutoff: 3.0, num_interactions: 1, hidden_irreps: 4x0e, l_max: 1}}
sets: [{{path: {path}}}]
loss: {{energy: {{}}, forces: {{}}}}
steps: 2
"""
    (tmp_path / "train.yaml").write_text(text)
    result = command("train", "train.yaml", cwd=tmp_path, status=1)
    assert_refused(result, "energy")
    assert not (tmp_path / "run" / "best.npz").exists()


def test_benzene_a_little_off_its_symmetry_through_the_command(
    shared: Path, tmp_path: Path
) -> None:
    """All 30 frequencies, whatever the forces that are left."""
    path = shared / "cases" / "mlip-benzene_relaxed_by_bfgs_fmax0.01.xyz"
    if not path.exists():
        pytest.skip("the folder ../shared/cases is absent")
    config = pe.NequIPConfig(**(CONFIG | {"species": (1, 6)}))
    model = pe.save_checkpoint(pe.random_potential(config, seed=0), tmp_path / "model.npz")
    command("molecule", path, "--model", model, cwd=tmp_path)
    content = yaml.safe_load((tmp_path / "vibrations.yaml").read_text("utf-8"))
    assert len(content["modes"]) == 30
    assert all(np.isfinite(mode["frequency"]) for mode in content["modes"])

"""Mistakes put into sound sets are found and named; sound sets have none."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.calculators.emt import EMT
from data_helpers import emt_record, every_kind

from phonopy_equivariant.data import ForceConstantsData, Record, read_records
from phonopy_equivariant.data.checks import check_records, unsoundness
from phonopy_equivariant.structure import as_structure

KCAL = units.kcal / units.mol
MIXED = [emt_record(seed, size=size) for size in (1, 2) for seed in range(6)]
STRAINED = [emt_record(seed, strain=0.02, move=0.02) for seed in range(30)]


def scaled(record: Record, energy: float = 1.0, forces: float = 1.0, stress: float = 1.0) -> Record:
    assert record.energy is not None and record.forces is not None and record.stress is not None
    return dataclasses.replace(
        record,
        energy=record.energy * energy,
        forces=record.forces * forces,
        stress=record.stress * stress,
    )


def turned_molecules(count: int = 12) -> list[Record]:
    """Return ethane with EMT, distorted, each copy turned and shifted at random."""
    from scipy.spatial.transform import Rotation

    rng, records = np.random.default_rng(0), []
    for turn in Rotation.random(count, random_state=1):
        atoms = molecule("C2H6")
        atoms.positions += rng.normal(scale=0.02, size=(len(atoms), 3))
        atoms.positions = atoms.positions @ turn.as_matrix() + rng.normal(size=3)
        atoms.calc = EMT()
        records.append(
            Record(as_structure(atoms), float(atoms.get_potential_energy()), atoms.get_forces())
        )
    return records


@pytest.mark.parametrize("records", [MIXED, STRAINED, turned_molecules()], ids=len)
def test_sound_sets_have_no_problems(records: list[Record]) -> None:
    assert check_records(records) == []


MISTAKES: dict[str, tuple[Callable[[Record], Record], str]] = {
    "energies in kcal/mol": (
        lambda r: scaled(r, energy=1 / KCAL),
        "2[0-9].* times the work of the forces.*energies are in kcal/mol",
    ),
    "forces in kcal/mol/Å": (
        lambda r: scaled(r, forces=1 / KCAL),
        "forces are in kcal/mol/Å, energies in eV",
    ),
    "energies in hartree": (
        lambda r: scaled(r, energy=1 / units.Hartree),
        "energies are in hartree",
    ),
    "forces in hartree/bohr": (
        lambda r: scaled(r, forces=units.Bohr / units.Hartree),
        "forces are in hartree/bohr",
    ),
    "gradients for forces": (lambda r: scaled(r, forces=-1), "wrong sign: they are gradients"),
    "energies per atom": (
        lambda r: scaled(r, energy=1 / len(r.structure.numbers)),
        "divided by the number of atoms",
    ),
    "all in kcal/mol": (
        lambda r: scaled(r, energy=1 / KCAL, forces=1 / KCAL),
        r"forces change by .* eV/Å per Å.*other units",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_units_and_signs_of_energies_and_forces(name: str) -> None:
    spoil, message = MISTAKES[name]
    problems = check_records([spoil(emt_record(seed)) for seed in range(8)])
    assert {(problem.source, problem.place) for problem in problems} == {("made up:0", None)}
    assert any(re.search(message, problem.text) for problem in problems), problems


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (-1.0, r"stress is perhaps in eV/Å³, with the opposite sign \(VASP's\)"),
        (1 / units.GPa, "stress is perhaps in GPa"),
        (-10 / units.GPa, r"stress is perhaps in kbar, with the opposite sign \(VASP's\)"),
    ],
)
def test_units_and_signs_of_stress(factor: float, message: str) -> None:
    problems = check_records([scaled(record, stress=factor) for record in STRAINED])
    assert any(re.search(message, problem.text) for problem in problems), problems


def test_stress_beyond_any_experiment() -> None:
    """Without energies the size alone speaks."""
    records = [dataclasses.replace(scaled(r, stress=1 / units.GPa), energy=None) for r in MIXED[:4]]
    assert any("GPa, kbar, or a virial" in problem.text for problem in check_records(records))


def test_records_one_by_one() -> None:
    good = [emt_record(seed) for seed in range(12)]
    positions = good[2].structure.positions.copy()
    positions[1] = positions[0] + 0.1
    nan = good[3].forces.copy()
    nan[1, 2] = np.nan
    bad = {
        2: (dataclasses.replace(good[2], structure=good[2].structure._replace(positions=positions)),
            "Atoms 1 and 2 are 0.173 Å apart"),
        3: (dataclasses.replace(good[3], forces=nan), "forces have entries that are not finite"),
        5: (dataclasses.replace(good[5], forces=None), "no forces"),
        6: (dataclasses.replace(good[6], energy=None, stress=None), "no energy and no stress"),
        7: (dataclasses.replace(good[7], energy=good[7].energy + 4 * 7), r"\+7.0 eV/atom off"),
        8: (dataclasses.replace(good[8], force_constants=ForceConstantsData(
            np.zeros((1, 3)), np.triu(np.ones((1, 12, 12))) + 0j)), "not Hermitian, by 1 eV"),
    }  # fmt: skip
    records = [bad[k][0] if k in bad else record for k, record in enumerate(good)]
    problems = {problem.place: problem for problem in check_records(records)}
    assert sorted(k for k in problems if k is not None) == sorted(bad)
    for k, (record, message) in bad.items():
        assert re.search(message, problems[k].text), problems[k].text
        assert problems[k].source == record.source


def test_required_labels() -> None:
    records = [dataclasses.replace(record, stress=None) for record in MIXED[:3]]
    assert check_records(records) == []
    problems = check_records(records, require=("forces", "stress"))
    assert [problem.text for problem in problems] == ["no stress"] * 3


def test_unsound_records() -> None:
    for record in every_kind():
        assert unsoundness(record) == ""
    record = emt_record(1)
    structure = record.structure
    cases = {
        "no atoms": dataclasses.replace(
            record, forces=None,
            structure=structure._replace(numbers=np.zeros(0, int), positions=np.zeros((0, 3)))),
        "no known element": dataclasses.replace(
            record, structure=structure._replace(numbers=np.array([0, 29, 29, 29]))),
        "no volume": dataclasses.replace(
            record, structure=structure._replace(cell=np.ones((3, 3)))),
        "energy is not a finite": dataclasses.replace(record, energy=float("inf")),
        "stress have entries": dataclasses.replace(record, stress=np.full((3, 3), np.nan)),
        r"forces of shape \(2, 3\)": dataclasses.replace(record, forces=np.zeros((2, 3))),
        "force constants of 6 columns": dataclasses.replace(
            record,
            force_constants=ForceConstantsData(np.zeros((1, 3)), np.zeros((1, 6, 6), complex))),
    }  # fmt: skip
    for message, spoiled in cases.items():
        assert re.search(message, unsoundness(spoiled)), message


@pytest.mark.parametrize("name", ["Si_PBEsol_pairs", "KCl_rd120", "AlN_rd200", "C_diamond_rd100"])
def test_published_sets_are_sound(name: str, shared: Path) -> None:
    records = read_records(shared / "sets" / f"{name}.extxyz.xz")
    assert check_records(records) == []
    assert all(record.forces is not None for record in records)


def test_published_molecules_are_sound(shared: Path) -> None:
    """kcal/mol, by the default of the reader; read as eV they are found out."""
    path = shared / "molecules" / "rmd17_benzene_train_01.npz"
    assert check_records(read_records(path)[:300]) == []
    problems = check_records(read_records(path, energy_unit="eV")[:300])
    assert any("forces change by" in problem.text for problem in problems)


@pytest.mark.parametrize("name", ["MgB2", "SrTiO3_PBEsol_222", "AlN_PBEsol_442"])
def test_published_phonons_are_read(name: str, shared: Path) -> None:
    path = shared / "dft" / name / "phonopy_params.yaml.xz"
    records = read_records(path)
    assert check_records(records) == []
    assert all(record.forces is not None for record in records)

"""Choosing, splitting, perturbing, and the numbers a model starts from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from data_helpers import emt_record, every_kind

from phonopy_equivariant import PhonopyEquivariantError
from phonopy_equivariant.data.perturb import Perturbation, perturbed, perturbed_records
from phonopy_equivariant.data.recipes import (
    Filter,
    filter_records,
    read_split,
    split_indices,
    write_split,
)
from phonopy_equivariant.data.statistics import average_neighbours, reference_energies, summarise
from phonopy_equivariant.structure import as_structure


def test_filter() -> None:
    records = [emt_record(seed) for seed in range(3)]
    forces = np.zeros((4, 3))
    forces[2] = [3.0, 0.0, 4.001]
    records[1] = dataclasses.replace(records[1], forces=forces)
    records[2] = dataclasses.replace(records[2], forces=None)
    gone: list[str] = []
    kept = list(filter_records(records, report=lambda record, why: gone.append(why)))
    assert kept == [records[0], records[2]]
    assert gone == ["a force of 5 eV/Å"]
    assert len(list(filter_records(records, Filter(max_force=None)))) == 3
    assert list(filter_records(records, Filter(labels=("forces",)))) == [records[0]]
    assert list(filter_records(records, Filter(elements=("Cu",)))) == []
    assert len(list(filter_records(records, Filter(elements=("Cu", "Au", "Ag"))))) == 2
    assert list(filter_records(records, Filter(max_atoms=3))) == []
    with pytest.raises(PhonopyEquivariantError, match="'Cx' is no element"):
        Filter(elements=("Cx",))
    with pytest.raises(PhonopyEquivariantError, match="'force' is no label"):
        Filter(labels=("force",))


def test_split_is_random_complete_and_repeatable() -> None:
    split = split_indices(1000)
    assert len(split["train"]) == 970  # 97/3
    assert sorted(split["train"] + split["valid"]) == list(range(1000))
    assert split == split_indices(1000, seed=0)
    assert split["valid"] != split_indices(1000, seed=1)["valid"]
    # not a block of neighbours in a trajectory: the mean of 30 uniform numbers
    assert abs(np.mean(split["valid"]) - 500) < 3 * 1000 / np.sqrt(12 * 30)
    assert [len(part) for part in split_indices(2).values()] == [1, 1]
    for count, fraction in ((1, 0.5), (10, 1.0), (10, 0.0)):
        with pytest.raises(PhonopyEquivariantError, match="cannot be split"):
            split_indices(count, fraction)


def test_given_split(tmp_path: Path) -> None:
    path = tmp_path / "split.yaml"
    write_split(split_indices(20, 0.8, seed=3), path)
    assert read_split(path, 20) == split_indices(20, 0.8, seed=3)
    path.write_text('{"train": [0, 2], "test": [1]}')
    assert read_split(path, 3) == {"train": [0, 2], "test": [1]}
    bad = {
        "train: [0, 3]": "train has 3, but there are 3 records",
        "train: [0, 1]\nvalid: [1]": "1 is given twice",
        "training: [0]": "give lists of indices under train:, valid:, test:",
        "train: [a]": "train has 'a'",
        "train: 2": "train is 2; give a list",
        "train: [": "cannot be read",
        "": "give lists",
    }
    for text, message in bad.items():
        path.write_text(text)
        with pytest.raises(PhonopyEquivariantError, match=message):
            read_split(path, 3)


@pytest.mark.parametrize("repeat", [(1, 1, 1), (2, 2, 2)])
def test_perturbations_have_the_widths_asked_for(repeat: tuple[int, int, int]) -> None:
    """Standard deviations of n samples are known to 1/√(2n)."""
    crystal = as_structure(bulk("NaCl", "rocksalt", a=5.7, cubic=True))
    options = Perturbation(positions=0.1, cell=0.05, repeat=repeat, seed=4)
    copies = list(perturbed(crystal, options, 400))
    start_cell = crystal.cell * np.array(repeat)[:, None]
    cells = np.array([copy.cell - start_cell for copy in copies])
    assert cells.std() == pytest.approx(0.05, rel=4 / np.sqrt(2 * cells.size))
    fractions = as_structure(bulk("NaCl", "rocksalt", a=5.7, cubic=True).repeat(repeat))
    at_rest = fractions.positions @ np.linalg.inv(start_cell)
    moves = np.array([copy.positions - at_rest @ copy.cell for copy in copies])
    assert moves.std() == pytest.approx(0.1, rel=4 / np.sqrt(2 * moves.size))
    assert abs(moves.mean()) < 4 * 0.1 / np.sqrt(moves.size)
    again = list(perturbed(crystal, options, 2))
    np.testing.assert_array_equal(again[1].positions, copies[1].positions)


def test_open_directions_keep_their_vectors() -> None:
    slab = as_structure(bulk("NaCl", "rocksalt", a=5.7))._replace(
        pbc=np.array([True, False, True]), cell=np.diag([3.0, 0.0, 4.0])
    )
    (copy,) = perturbed(slab, Perturbation(positions=0.0, cell=0.2), 1)
    np.testing.assert_array_equal(copy.cell[1], 0)
    assert np.abs(copy.cell - slab.cell)[[0, 2]].min() > 0
    molecule = slab._replace(pbc=np.zeros(3, bool), cell=np.zeros((3, 3)))
    (copy,) = perturbed(molecule, Perturbation(cell=0.2, positions=0.0), 1)
    np.testing.assert_allclose(copy.positions, molecule.positions)
    # copies along periodic directions alone
    for structure, atoms in ((slab, 8), (molecule, 2)):
        (copy,) = perturbed(structure, Perturbation(repeat=(2, 2, 2)), 1)
        assert len(copy.numbers) == len(structure.numbers) * atoms // 2
    with pytest.raises(PhonopyEquivariantError, match="widths that are not negative"):
        Perturbation(positions=-0.1)


def test_perturbed_records_are_labelled_by_the_potential(potential: object) -> None:
    crystal = as_structure(bulk("NaCl", "rocksalt", a=4.0))
    bare = list(perturbed_records(crystal, Perturbation(), 2, source="NaCl"))
    assert bare[1].labels == () and bare[1].source == "NaCl:1"
    (record,) = perturbed_records(crystal, Perturbation(), 1, potential)
    result = potential.evaluate(bare[0].structure)
    assert record.energy == result.energy
    np.testing.assert_array_equal(record.forces, result.forces)
    np.testing.assert_array_equal(record.stress, result.stress)


def test_reference_energies() -> None:
    """Energies that are sums over atoms are found exactly."""
    truth = {29: -3.5, 79: -2.25}
    records = [
        dataclasses.replace(record, energy=sum(truth[int(z)] for z in record.structure.numbers))
        for record in (emt_record(1), emt_record(1, size=2), emt_record(2))
    ]
    found = reference_energies(records)
    assert found == pytest.approx(truth)
    # one composition: the same share for all atoms
    alone = reference_energies(records[:1])
    assert sum(alone[int(z)] for z in records[0].structure.numbers) == pytest.approx(-12.75)
    with pytest.raises(PhonopyEquivariantError, match="No record has an energy"):
        reference_energies([dataclasses.replace(records[0], energy=None)])


def test_average_neighbours_of_rock_salt() -> None:
    """6 nearest neighbours, then 12 second ones at a/√2."""
    record = dataclasses.replace(
        emt_record(1), structure=as_structure(bulk("NaCl", "rocksalt", a=5.6)), forces=None
    )
    assert average_neighbours([record], 3.0) == 6
    assert average_neighbours([record, record], 4.0) == 18


def test_summary() -> None:
    records = every_kind()
    summary = summarise(iter(records))
    assert summary.records == 7 and summary.atoms == sum(len(r.structure.numbers) for r in records)
    assert summary.elements == (1, 8, 29, 79)
    assert summary.labels == {
        "energy": 3, "forces": 4, "stress": 2, "force_constants": 2, "spectrum": 2,
    }  # fmt: skip
    assert summary.sizes == (3, 12)
    forces = np.concatenate([r.forces for r in records if r.forces is not None])
    assert summary.force_max == pytest.approx(np.linalg.norm(forces, axis=1).max())
    assert summary.force_rms == pytest.approx(np.sqrt((forces**2).mean()))
    with pytest.raises(PhonopyEquivariantError, match="no records"):
        summarise([])

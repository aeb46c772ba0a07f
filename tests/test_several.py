"""All structures of files and folders: one list, good ones read, bad ones named."""

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.several import read_crystals

SALTS = [bulk("NaCl", "rocksalt", a) for a in (5.5, 5.6, 5.7)]


def pymatgen_dict(atoms, element=str):
    """Return what Structure.as_dict() has of a crystal."""
    sites = [
        {"species": [{"element": element(symbol), "occu": 1}], "abc": list(fractions)}
        for symbol, fractions in zip(atoms.symbols, atoms.get_scaled_positions(), strict=True)
    ]
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "lattice": {"matrix": atoms.cell.tolist()},
        "sites": sites,
    }


def read(*paths):
    return list(read_crystals(paths))


def assert_same(named, atoms):
    cell = named.crystal.unitcell
    assert list(cell.symbols) == list(atoms.symbols)
    np.testing.assert_allclose(cell.cell, atoms.cell.array, atol=1e-8)
    shift = cell.scaled_positions - atoms.get_scaled_positions()
    np.testing.assert_allclose(shift, np.rint(shift), atol=1e-8)


@pytest.mark.parametrize("name", ["frames.extxyz", "frames.db", "frames.traj", "frames.extxyz.gz"])
def test_every_frame_of_a_file_is_a_structure(name, tmp_path):
    ase.io.write(tmp_path / name, SALTS)
    listed = read(tmp_path / name)
    assert [named.name for named in listed] == [f"{tmp_path / name}#{k}" for k in range(3)]
    for named, atoms in zip(listed, SALTS, strict=True):
        assert_same(named, atoms)


def test_structures_of_pymatgen_one_a_line_or_in_one_document(tmp_path):
    records = [pymatgen_dict(atoms) for atoms in SALTS]
    records[1] = {"material_id": "mp-1", "structure": records[1]}
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "list.json").write_text(json.dumps(records))
    (tmp_path / "one.json").write_text(json.dumps(pymatgen_dict(SALTS[2], lambda x: f"{x}+")))
    for name in ("lines.jsonl", "list.json"):
        listed = read(tmp_path / name)
        for named, atoms in zip(listed, SALTS, strict=True):
            assert_same(named, atoms)
        assert [named.label for named in listed] == ["", "mp-1", ""]
    (named,) = read(tmp_path / "one.json")
    assert_same(named, SALTS[2])


def test_a_partly_occupied_site_and_a_torn_line_concern_one_structure(tmp_path):
    partly, good = pymatgen_dict(SALTS[0]), json.dumps(pymatgen_dict(SALTS[1]))
    partly["sites"][0]["species"][0]["occu"] = 0.5
    (tmp_path / "x.jsonl").write_text("\n".join([json.dumps(partly), good, good[:100]]))
    listed = read(tmp_path / "x.jsonl")
    assert "partly occupied" in listed[0].reason and listed[0].crystal is None
    assert_same(listed[1], SALTS[1])
    assert "no structure of pymatgen" in listed[2].reason


def test_blocks_of_a_cif(tmp_path):
    for k, atoms in enumerate(SALTS[:2]):
        ase.io.write(tmp_path / f"{k}.cif", atoms)
    text = "".join(
        (tmp_path / f"{k}.cif").read_text().replace("data_", f"data_{k}") for k in (0, 1)
    )
    (tmp_path / "two.cif").write_text(text)
    volumes = [named.crystal.unitcell.volume for named in read(tmp_path / "two.cif")]
    assert volumes == pytest.approx([SALTS[0].get_volume(), SALTS[1].get_volume()])


def test_folders_are_searched_and_garbage_is_named(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    ase.io.write(tmp_path / "a" / "b" / "POSCAR", SALTS[0])
    (tmp_path / "a" / "garbage.cif").write_text("no CIF")
    (tmp_path / "a" / "noise").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "a" / ".hidden").write_text("nothing")
    ase.io.write(tmp_path / "molecule.xyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]))
    listed = read(tmp_path, tmp_path / "a" / "b" / "POSCAR")  # named twice, read once
    reasons = {named.name.rpartition("/")[2]: named.reason for named in listed}
    assert list(reasons) == ["POSCAR", "garbage.cif", "noise", "molecule.xyz"]
    assert reasons.pop("POSCAR") == ""
    assert all(reason and "\n" not in reason for reason in reasons.values())


def test_paths_without_structures_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, words in ((tmp_path / "none", "no such file"), (tmp_path / "empty", "has no files")):
        with pytest.raises(PhonopyEquivariantError, match=words):
            read(path)

"""Files of records that are damaged, foreign or odd: refused by name, or read as they are meant."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from pathlib import Path

import pytest
from data_helpers import emt_record

import phonopy_equivariant as pe
from phonopy_equivariant import PhonopyEquivariantError
from phonopy_equivariant.data import iter_records, read_records, write_records
from phonopy_equivariant.potential import Potential

BAD = {
    "cut.extxyz": "2\nProperties=species:S:1:pos:R:3\nH 0 0 0\n",
    "word.extxyz": "1\nProperties=species:S:1:pos:R:3\nH 0 0 zero\n",
    "hessian.extxyz": '1\nProperties=species:S:1:pos:R:3 hessian="1 2 3"\nH 0 0 0\n',
    "nan.extxyz": "1\nProperties=species:S:1:pos:R:3 energy=nan\nH 0 0 0\n",
    "flat.extxyz": '1\nLattice="1 0 0 1 0 0 0 0 1" Properties=species:S:1:pos:R:3\nH 0 0 0\n',
    "empty.h5": "not HDF5",
    "empty.db": "not a database",
    "empty.traj": "not a trajectory",
    "empty.npz": "not an archive",
    "empty.p": "not a pickle",
    "empty.json": "[1, 2]",
    "empty.xml": "<modeling>",
    "empty.yaml": "a: 1",
    "FORCE_SETS": "64\n",
    "empty.dyn": "Dynamical matrix file\n",
    "unknown.dat": "1 2 3",
    "plain.json.xz": "{}",
    "plain.extxyz.gz": "1\\n",
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(BAD[name])
    with pytest.raises(PhonopyEquivariantError) as caught:
        read_records(tmp_path / name)
    message = str(caught.value)
    assert name in message and "\n" not in message
    if name.endswith("extxyz"):
        assert f"{name}:0: " in message


def test_empty_lines_between_configurations(tmp_path: Path) -> None:
    frame = "1\nProperties=species:S:1:pos:R:3 energy=-1.0\nH 0 0 0\n"
    (tmp_path / "a.extxyz").write_text("\n" + frame + "\n \n" + frame + frame + "\n\n")
    assert len(read_records(tmp_path / "a.extxyz")) == 3
    (tmp_path / "a.extxyz").write_text(frame + "\nnot a number\n")
    with pytest.raises(PhonopyEquivariantError, match=r"a.extxyz:1: "):
        read_records(tmp_path / "a.extxyz")


@pytest.mark.parametrize("level", ["PBE+U", "1 2 3", "T", "2.50", "none"])
def test_a_level_stays_text(level: str, tmp_path: Path) -> None:
    """ASE reads numbers and truth values where it can."""
    write_records([dataclasses.replace(emt_record(1), level=level)], tmp_path / "a.extxyz")
    assert read_records(tmp_path / "a.extxyz")[0].level == level


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE t (x)")
    before = path.read_bytes()
    with pytest.raises(PhonopyEquivariantError, match="no database of ASE"):
        read_records(path)
    assert path.read_bytes() == before


def test_a_checkpoint_is_no_set_of_records(tmp_path: Path, potential: Potential) -> None:
    path = pe.save_checkpoint(potential, tmp_path / "model.npz")
    with pytest.raises(PhonopyEquivariantError, match=r"model.npz: "):
        read_records(path)


def test_unsound_records_are_skipped_or_kept_as_asked(tmp_path: Path) -> None:
    good = "1\nProperties=species:S:1:pos:R:3 energy=-1.0\nH 0 0 0\n"
    (tmp_path / "a.extxyz").write_text(good + BAD["nan.extxyz"] + good)
    said: list[str] = []
    records = list(iter_records(tmp_path / "a.extxyz", unsound="skip", report=said.append))
    assert len(records) == 2
    assert said == [f"{tmp_path / 'a.extxyz'}:1: the energy is not a finite number; left out."]
    assert len(read_records(tmp_path / "a.extxyz", unsound="keep")) == 3


def test_options_and_formats_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    write_records([emt_record(1)], tmp_path / "a.extxyz")
    with pytest.raises(
        PhonopyEquivariantError, match="takes no option 'kind'; it takes energy_key"
    ):
        read_records(tmp_path / "a.extxyz", kind="forces")
    with pytest.raises(PhonopyEquivariantError, match="'xyz' is not known; choose one of extxyz"):
        read_records(tmp_path / "a.extxyz", format="xyz")
    with pytest.raises(PhonopyEquivariantError, match=r"name the file .extxyz"):
        write_records([], tmp_path / "a.db")
    with pytest.raises(PhonopyEquivariantError, match="does not exist"):
        read_records(tmp_path / "none.extxyz")


def test_an_interrupted_writer_leaves_the_old_file(tmp_path: Path) -> None:
    def broken() -> object:
        yield emt_record(1)
        raise KeyboardInterrupt

    for name in ("a.extxyz", "a.h5"):
        write_records([emt_record(2)], tmp_path / name)
        before = (tmp_path / name).read_bytes()
        with pytest.raises(KeyboardInterrupt):
            write_records(broken(), tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2

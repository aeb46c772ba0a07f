"""The command ``dataset``: each action on small made-up files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli_helpers import assert_refused, command, leftovers, model, poscar
from data_helpers import assert_same, emt_record, low_symmetry_phonon

from phonopy_equivariant.cli import run_command
from phonopy_equivariant.data import Record, read_records, write_records


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_records(made_up(), tmp_path / "set.extxyz")
    return tmp_path


def made_up() -> list[Record]:
    return [emt_record(seed, size=1 + seed % 2) for seed in range(20)]


def test_help_is_quick_and_names_every_action(tmp_path: Path) -> None:
    text = command("dataset", "--help", cwd=tmp_path).stdout
    for action in ("info", "check", "convert", "filter", "split", "perturb"):
        assert f"\n    {action} " in text
        assert "usage:" in command("dataset", action, "--help", cwd=tmp_path).stdout


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    import subprocess
    import sys

    script = (
        "import sys\nfrom phonopy_equivariant.cli import main\n"
        "try: main(['dataset', 'split', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'jax', 'ase', 'phonopy', 'h5py', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_info(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["dataset", "info", "set.extxyz", "--cutoff", "3.5"]) == 0
    text = capsys.readouterr().out
    assert "records          20" in text
    assert "elements         Cu Au" in text
    assert "level            EMT" in text
    assert "neighbours within 3.5 Å" in text and "energy of Au" in text


def test_convert_filter_and_split(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["dataset", "convert", "set.extxyz", "set.extxyz", "-o", "all.h5"]) == 0
    for got, expected in zip(read_records("all.h5"), made_up() * 2, strict=True):
        assert_same(got, expected)
    largest = sorted(np.linalg.norm(r.forces, axis=1).max() for r in made_up())
    limit = str((largest[11] + largest[12]) / 2)
    assert run_command(["dataset", "filter", "all.h5", "-o", "weak.h5", "--max-force", limit]) == 0
    assert "16 records left out: a force" in capsys.readouterr().err
    assert len(read_records("weak.h5")) == 24
    for source in ("all.h5", "set.extxyz"):
        assert (
            run_command(["dataset", "split", source, "-o", "part.extxyz.gz", "--fraction", "0.8"])
            == 0
        )
        split = yaml.safe_load(Path("part_split.yaml").read_text())
        records = read_records(source)
        for part in ("train", "valid"):
            for k, got in zip(split[part], read_records(f"part_{part}.extxyz.gz"), strict=True):
                assert_same(got, records[k])
        assert len(split["train"]) == 0.8 * len(records)
    Path("mine.yaml").write_text("train: [3, 1]\ntest: [0]\n")
    assert (
        run_command(["dataset", "split", "set.extxyz", "-o", "p.h5", "--split-file", "mine.yaml"])
        == 0
    )
    assert len(read_records("p_train.h5")) == 2 and len(read_records("p_test.h5")) == 1
    assert not leftovers(folder)


def test_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["dataset", "check", "set.extxyz"]) == 0
    records = made_up()
    records[4] = dataclasses.replace(records[4], energy=float("nan"))
    records[7] = dataclasses.replace(records[7], forces=None)
    write_records(records, "bad.extxyz")
    capsys.readouterr()
    assert run_command(["dataset", "check", "bad.extxyz"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "bad.extxyz:4: the energy is not a finite number",
        "bad.extxyz:7: no forces",
    ]
    assert run_command(["dataset", "check", "bad.extxyz", "-o", "good.h5"]) == 0
    assert len(read_records("good.h5")) == 18
    assert run_command(["dataset", "convert", "bad.extxyz", "-o", "kept.h5", "--skip-bad"]) == 0
    captured = capsys.readouterr().err
    assert "bad.extxyz:4: the energy is not a finite number; left out." in captured
    assert len(read_records("kept.h5")) == 19


def test_an_inconsistent_set_is_not_written(folder: Path) -> None:
    gradients = [dataclasses.replace(record, forces=-record.forces) for record in made_up()]
    write_records(gradients, "gradients.extxyz")
    result = command("dataset", "check", "gradients.extxyz", "-o", "x.h5", cwd=folder, status=1)
    assert_refused(result, "gradients.extxyz: the set as a whole is inconsistent")
    assert "they are gradients" in result.stdout
    assert not (folder / "x.h5").exists()


def test_phonopys_force_constants_become_training_data(folder: Path) -> None:
    low_symmetry_phonon((2, 1, 1)).save("params.yaml", settings={"force_constants": True})
    words = ["params.yaml", "-o", "phi.extxyz", "--kind", "force_constants", "--level", "PBE"]
    assert run_command(["dataset", "convert", *words]) == 0
    (record,) = read_records("phi.extxyz")
    assert record.level == "PBE" and record.force_constants.values.shape == (2, 9, 9)


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (["convert", "none.xyz", "-o", "a.h5"], "none.xyz does not exist"),
        (["convert", "set.extxyz", "-o", "a.csv"], "name the file .extxyz"),
        (["convert", "set.extxyz", "-o", "no/a.h5"], "Cannot write"),
        (["info", "set.extxyz", "--kind", "forces"], "takes no option 'kind'"),
        (["filter", "set.extxyz", "-o", "a.h5", "--elements", "Xx"], "'Xx' is no element"),
        (["split", "set.extxyz", "-o", "a.h5", "--fraction", "2"], "cannot be split"),
        (["perturb", "POSCAR", "-o", "a.h5", "--dim", "1", "2"], "--dim 1 2: give one number"),
        (["perturb", "POSCAR", "-o", "a.h5", "--count", "1", "2"], "--count has 2 numbers"),
        (
            ["perturb", "POSCAR", "-o", "a.h5", "--recipe", "table-2"],
            "--recipe table-2: there is",
        ),
        (  # before the model is looked for
            [
                "perturb",
                "POSCAR",
                "-o",
                "a.h5",
                "--recipe",
                "table-2",
                "--label",
                "--model",
                "none",
            ],
            "--recipe table-2: there is",
        ),
        (["perturb", "POSCAR", "-o", "a.h5", "--recipe", "table-1", "--dim", "2"], "its own --dim"),
    ],
)
def test_bad_input(
    folder: Path, words: list[str], phrase: str, capsys: pytest.CaptureFixture[str]
) -> None:
    poscar(folder)
    before = sorted(path.name for path in folder.iterdir())
    assert run_command(["dataset", *words]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert phrase in error and "unexpected" not in error
    assert sorted(path.name for path in folder.iterdir()) == before


def test_perturb(folder: Path) -> None:
    poscar(folder)
    words = ["POSCAR", "-o", "todo.extxyz", "--dim", "1", "--dim", "2", "--count", "4", "3"]
    assert run_command(["dataset", "perturb", *words]) == 0
    records = read_records("todo.extxyz")
    assert [len(record.structure.numbers) for record in records] == [2] * 4 + [16] * 3
    assert all(record.labels == () for record in records)
    command(
        "dataset", "perturb", "POSCAR", "-o", "done.h5", "--count", 2, "--label",
        "--model", model(), cwd=folder,
    )  # fmt: skip
    first = read_records("done.h5")[0]
    assert first.labels == ("energy", "forces", "stress") and first.level == "small"
    np.testing.assert_array_equal(first.structure.positions, records[0].structure.positions)


def test_perturb_by_the_recipe_of_the_paper(folder: Path) -> None:
    poscar(folder)
    command(
        "dataset", "perturb", "POSCAR", "POSCAR", "-o", "set.h5", "--recipe", "table-1",
        "--label", "--model", model(), cwd=folder,
    )  # fmt: skip
    train, valid = read_records("set_train.h5"), read_records("set_valid.h5")
    for records, sizes in ((train, [2] * 5 + [16] * 4), (valid, [2] * 2 + [16] * 2)):
        # a label with a large force may leave a record out, but none of these random weights does
        assert [len(record.structure.numbers) for record in records] == sizes * 2
        assert all(record.labels == ("energy", "forces", "stress") for record in records)
    rest, *perturbed = (record.structure for record in train[:9])
    cells = [copy.cell / (len(copy.numbers) // 2) ** (1 / 3) for copy in perturbed]
    strained = [not np.allclose(cell, rest.cell) for cell in cells]
    assert strained == [False, False, True, True] * 2
    assert not np.allclose(train[1].structure.positions, train[10].structure.positions)

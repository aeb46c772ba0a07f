"""Settings files, --json, and what a command says at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from cli_helpers import assert_refused, command, model, poscar

from phonopy_equivariant import cli
from phonopy_equivariant.cli.completion import subparsers
from phonopy_equivariant.cli.settings import write_settings

SETTINGS = "run-settings.yaml"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A run with options of ours and of phonopy's, as JSON."""
    folder = tmp_path_factory.mktemp("settings")
    poscar(folder)
    result = command(
        *("run", "POSCAR", "--model", model(), "--dim", 2, "--mesh", 3, 3, 3, "-t"),
        *("--tmax", "200", "--tolerance=1e-4", "--json"),
        cwd=folder,
    )
    return folder, result.stdout, result.stderr


def settings(folder: Path, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text)
    return name


def test_a_run_writes_its_options(first: tuple[Path, str, str]) -> None:
    content = yaml.safe_load((first[0] / SETTINGS).read_text())
    assert content["command"] == "run" and content["structure"] == "POSCAR"
    assert content["model"] == model() and content["dtype"] == "float64"
    assert content["dim"] == ["2"] and content["relax"] is False
    phonopy = {"mesh": [3, 3, 3], "t": True, "tmax": 200, "tolerance": "1e-4"}
    assert content["phonopy"] == phonopy
    assert not {"json", "quiet", "verbose", "settings", "function"} & content.keys()


def test_its_repetition_gives_the_same_files(first: tuple[Path, str, str], tmp_path: Path) -> None:
    poscar(tmp_path)
    (tmp_path / SETTINGS).write_bytes((first[0] / SETTINGS).read_bytes())
    said = command("run", "--settings", SETTINGS, cwd=tmp_path).stderr
    for name in ("phonopy_params.yaml", "thermal_properties.yaml", "mesh.yaml"):
        assert (tmp_path / name).read_bytes() == (first[0] / name).read_bytes()
    # what was read stays
    assert (tmp_path / SETTINGS).read_bytes() == (first[0] / SETTINGS).read_bytes()
    assert SETTINGS not in said


def test_words_of_the_command_line_win(first: tuple[Path, str, str], tmp_path: Path) -> None:
    poscar(tmp_path)
    file = settings(tmp_path, (first[0] / SETTINGS).read_text())
    words = ("run", "--settings", file, "--no-plots", "--dim", 1, "--mesh", 2, 2, 2)
    command(*words, "--tmax", 100, cwd=tmp_path)
    content = yaml.safe_load((tmp_path / SETTINGS).read_text())
    assert content["dim"] == ["1"] and content["no-plots"] is True
    assert content["phonopy"] == {"t": True, "tolerance": "1e-4", "mesh": [2, 2, 2], "tmax": 100}
    assert yaml.safe_load((tmp_path / "mesh.yaml").read_text())["mesh"] == [2, 2, 2]


def test_one_json_object_and_nothing_else_on_standard_output(
    first: tuple[Path, str, str],
) -> None:
    folder, output, said = first
    content = json.loads(output)
    assert content["command"] == "run" and output.count("\n") == 1
    for name in content["files"]:
        assert (folder / name).is_file()
    assert {"report.html", "thermal_properties.yaml", SETTINGS} <= set(content["files"])
    assert content["results"]["report"]["residual_force"] < 1e-9
    assert content["results"]["stability"]["mesh"] == [3, 3, 3]
    assert "sum rule residual" in said  # the table


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("structur: POSCAR", "unknown key 'structur'; did you mean 'structure'?"),
        ("command: qha", "use phonopy-equivariant qha --settings"),
        ("relax: 3", "mine.yaml: relax is true or false"),
        ("model: [a, b]", "mine.yaml: model has 2 values; give 1"),
        ("dtype: float16", "mine.yaml: dtype: invalid choice"),
        ("relax-fmax: much", "mine.yaml: relax-fmax: "),
        ("phonopy: [t]", "mine.yaml: phonopy has options below it"),
        ("phonopy: {mesch: 50}", "unknown option --mesch; did you mean --mesh?"),
        ("phonopy: {relax: true}", "--relax is no option of phonopy"),
        ("phonopy: {mesh: {x: 2}}", "mesh has values below it"),
        ("- run", "has no settings"),
        ("relax: [", "is no YAML"),
    ],
)
def test_bad_settings_are_one_line(tmp_path: Path, text: str, phrase: str) -> None:
    poscar(tmp_path)
    words = ("run", "POSCAR", "--settings", settings(tmp_path, text))
    assert_refused(command(*words, cwd=tmp_path, status=None), phrase)


def test_a_missing_settings_file(tmp_path: Path) -> None:
    result = command("elastic", "--settings", "none.yaml", cwd=tmp_path, status=1)
    assert_refused(result, "none.yaml", "No such file", "--settings")


def test_other_commands(tmp_path: Path) -> None:
    """The structure and a required option stand in the file; options that exclude each other."""
    poscar(tmp_path, lattice=5.7)
    file = settings(
        tmp_path, f"structure: POSCAR\noutput: relaxed.vasp\nmodel: {model()}\nfmax: 0.001\n"
    )
    result = command("relax", "--settings", file, "--json", cwd=tmp_path)
    content = json.loads(result.stdout)
    assert content["files"] == ["relaxed.vasp", "relax-settings.yaml"]
    assert content["results"]["relaxation"]["last"]["max_force"] < 0.001
    assert "Next: phonopy-equivariant run relaxed.vasp --band auto" in result.stderr
    again = yaml.safe_load((tmp_path / "relax-settings.yaml").read_text())
    assert again["fmax"] == 0.001 and again["fixed-cell"] is False
    file = settings(tmp_path, f"model: {model()}\nforce-sets: true\ndim: [1, 1, 1]\n")
    words = ("fc", "POSCAR", "--settings", file, "--format", "FORCE_CONSTANTS")
    command(*words, cwd=tmp_path)
    assert (tmp_path / "FORCE_CONSTANTS").is_file()


@pytest.mark.parametrize(
    "line",
    [
        "fc3 POSCAR --dim auto --dim-tolerance 0.02 --relax",
        "elastic POSCAR --relax --fmax 1e-6 --index 0",
        "gruneisen POSCAR --mesh 4 5 6",
        "qha POSCAR --anisotropic --grid 4 --volume-range -4 16 --dim 2 2 2",
        "sscha POSCAR --temperature 100 300.5 --dim 2 --seed 3",
        "unstable POSCAR --max-cells 4 --threshold 0.2",
        "converge POSCAR --tolerance 1e-4",
        "molecule CH4.xyz --relax --mass 12 1 1 1 1",
        "batch a.cif folder -o out --mesh 8 8 8 --scheduler tcp://node:8786 --bands",
        "evaluate dft other --model one two --relax",
    ],
)
def test_settings_are_the_arguments(line: str, tmp_path: Path) -> None:
    """What a command would write is what it reads."""
    command_name, *words = line.split()
    args = subparsers(cli._parser())[command_name].parse_args(words)
    path = write_settings(args, command_name, tmp_path)
    again = subparsers(cli._parser())[command_name].parse_args(["--settings", str(path)])
    read, given = (
        {key: list(value) if isinstance(value, tuple) else value for key, value in vars(a).items()}
        for a in (again, args)
    )
    for key in given.keys() - {"settings", "function"}:
        assert read[key] == given[key], key


def test_arguments_win_over_a_file(tmp_path: Path) -> None:
    file = tmp_path / settings(tmp_path, "structure: A\nrelax: true\nfmax: 0.1\n")
    words = ["B", f"--settings={file}", "--fmax", "0.2"]
    args = subparsers(cli._parser())["elastic"].parse_args(words)
    assert (args.structure, args.relax, args.fmax) == ("B", True, 0.2)
    file = tmp_path / settings(tmp_path, "structures: [A, B]\noutput: x\nworkers: 2\n")
    words = [f"--settings={file}", "--scheduler", "tcp://a:1", "-o", "y"]
    args = subparsers(cli._parser())["batch"].parse_args(words)
    assert (args.structures, args.output, args.workers) == (["A", "B"], "y", None)


def test_a_file_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    poscar(tmp_path)
    settings(tmp_path, "# mine\nrelax: true\n", "fc-settings.yaml")
    done = command("fc", "POSCAR", "--model", model(), "--dim", 1, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["files"] == ["phonopy_params.yaml"]
    assert json.loads(done.stdout)["results"].keys() == {"report", "stability"}
    assert (tmp_path / "fc-settings.yaml").read_text() == "# mine\nrelax: true\n"


def test_phonopy_speaks_when_it_is_asked_to(tmp_path: Path) -> None:
    poscar(tmp_path)
    words = ("run", "POSCAR", "--model", model(), "--dim", 1, "--mesh", 2, 2, 2, "--no-plots")
    quiet = command(*words, "-t", cwd=tmp_path)
    assert "heat capacity" not in quiet.stdout.lower() and "Free energy" not in quiet.stdout
    assert quiet.stderr.splitlines()[-1] == "Next: phonopy phonopy_params.yaml --band auto -p -s"
    assert "Free energy" not in quiet.stderr
    assert "Order|   Total" in command(*words, "--moment", cwd=tmp_path).stdout

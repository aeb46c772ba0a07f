"""A command leaves its process as it was, and its output is readable in any encoding."""

import io
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import jax
import pytest
from cli_helpers import environment, poscar
from nequip_zoo import path_of
from test_molecules import DATA, analysed, atoms_of

from phonopy_equivariant import cli
from phonopy_equivariant.cli import failures, start
from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.errors import PhonopyEquivariantError


@pytest.fixture
def carbon_dioxide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the words of a command that prints Å, cm⁻¹ and Greek letters."""
    monkeypatch.chdir(tmp_path)
    atoms_of("CO2").write("CO2.extxyz")
    return ["molecule", "CO2.extxyz", "--hessian", str(DATA / "CO2.npz")]


def printed(words: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what a command wrote to standard output and standard error of an encoding."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        cli.run_command(words)
    for stream in streams:
        stream.flush()
        assert stream.errors == "strict"
    return [stream.buffer.getvalue().decode(encoding) for stream in streams]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "koi8-r", "utf-8"])
def test_the_table_is_printed_in_any_encoding(carbon_dioxide, encoding, monkeypatch) -> None:
    text, talk = printed(carbon_dioxide, encoding, monkeypatch)
    assert "error" not in talk
    assert "?" not in text
    rows = [line.split() for line in text.splitlines()]
    table = {row[2]: float(row[0]) for row in rows if len(row) == 6 and row[1] in "12"}
    expected = {m.irrep: m.frequency for m in analysed("CO2").multiplets}
    assert sorted(table.values()) == pytest.approx(sorted(expected.values()), abs=0.006)
    if encoding == "ascii":
        assert set(table) == {"Sigmag+", "Sigmau+", "Piu"}
        assert rows[0][0] == "cm-1"
        assert "Dinfh" in text
        assert "atoms within " in text
        assert " A\n" in text
    elif encoding == "utf-8":
        assert set(table) == set(expected)
        assert rows[0][0] == "cm⁻¹"
    else:
        assert ("Å" in text) == (encoding == "latin-1")


def test_closed_output(carbon_dioxide, monkeypatch) -> None:
    """Python has None for a stream that a shell closed with >&-."""
    for name in ("stdout", "stderr"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, name, None)
            assert cli.run_command(carbon_dioxide) == 0
            assert getattr(sys, name) is None
    assert Path("vibrations.yaml").exists()


def test_errors_and_names_that_are_no_text_are_printed(carbon_dioxide, monkeypatch) -> None:
    name = os.fsdecode(b"caf\xe9.xyz")  # in the encoding of an older system
    _, talk = printed(["molecule", name], "utf-8", monkeypatch)
    assert "The structure file caf?.xyz does not exist" in talk


def snapshot() -> dict[str, object]:
    """Return what a command could change in a process that goes on."""
    return {
        "environment": dict(os.environ),
        "handlers": [signal.getsignal(number) for number in signal.valid_signals()],
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "hooks": (sys.unraisablehook, sys.excepthook, threading.excepthook, sys.displayhook),
        "arguments": list(sys.argv),
        "folder": Path.cwd(),
        "streams": (sys.stdout, sys.stderr, sys.stdout.errors, sys.stderr.errors),
        "warnings": list(warnings.filters),
    }


@pytest.mark.parametrize("entrance", [cli.run_command, cli.main])
def test_a_command_leaves_its_process_as_it_was(carbon_dioxide, entrance, monkeypatch) -> None:
    def end(_status: int) -> None:
        raise AssertionError("the interpreter was to end")

    monkeypatch.setattr(os, "_exit", end)
    poscar(Path())
    words = {
        0: [carbon_dioxide, ["--version"], ["run", "--help"]],
        1: [["run", "nowhere"], ["molecule", "CO2.extxyz", "--hessian", "nowhere.json"]],
        2: [["molecule"], ["run", "POSCAR", "--no-such-option"]],
    }
    before = snapshot()
    for status, commands in words.items():
        for command in commands:
            assert entrance(command) == status
            assert snapshot() == before


def test_ctrl_c_is_the_callers_in_a_process_that_goes_on(carbon_dioxide, monkeypatch) -> None:
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    before = snapshot()
    with pytest.raises(KeyboardInterrupt):
        cli.run_command(carbon_dioxide)
    assert snapshot() == before


def test_the_variable_that_hides_the_device_is_named(tmp_path: Path) -> None:
    """One process: JAX_PLATFORMS is the cause, --device is stronger, and it stays set."""
    atoms_of("H2O").write(tmp_path / "H2O.extxyz")
    code = (
        "import os, sys\n"
        "from phonopy_equivariant.cli import run_command, start, console\n"
        "print(run_command(['molecule', 'H2O.extxyz', '-q']))\n"
        "print(run_command(['models', 'import', sys.argv[1], 'out.npz']))\n"
        "start.start_jax('cpu', console.Console(quiet=True))\n"
        "import jax\n"
        "print(jax.default_backend(), os.environ['JAX_PLATFORMS'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path_of("natural"))],
        cwd=tmp_path,
        env=environment(JAX_PLATFORMS="tpu"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.split()[-4:] == ["1", "1", "cpu", "tpu"], done.stderr
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(lines) == 2
    for line in lines:
        assert "JAX_PLATFORMS=tpu in the environment" in line
        assert "unset the variable, or use --device cpu" in line


def test_a_device_that_jax_did_not_start_on_is_refused() -> None:
    if jax.default_backend() != "cpu":
        pytest.skip("JAX has not started on the CPU here")
    before = jax.config.jax_platforms
    with pytest.raises(PhonopyEquivariantError, match="already started on cpu"):
        start.start_jax("gpu", Console(quiet=True))
    assert jax.config.jax_platforms == before
    assert "plug-in" in failures.no_device("gpu")

"""What a terminal shows while a command works, and that nothing of it stays."""

from __future__ import annotations

import io
import os
import re
from contextlib import redirect_stderr
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from cli_helpers import LATTICE, command, environment, model, poscar, potential

import phonopy_equivariant as pe
from phonopy_equivariant.cli import bars, run_command
from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.runtime.compilation import compiled
from phonopy_equivariant.runtime.notes import listening, note

ESCAPE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and knows what one would show in the end."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """Return the lines that are left, by the few controls that rich uses."""
        lines, row, text = [""], 0, self.getvalue()
        position = 0
        while position < len(text):
            escape = ESCAPE.match(text, position)
            if escape:
                number, letter = escape.groups()
                if letter == "A":
                    row -= int(number or 1)
                elif letter == "K":
                    lines[row] = ""
                position = escape.end()
                continue
            character = text[position]
            if character == "\n":
                row += 1
                lines += [""] * (row == len(lines))
            elif character != "\r":
                lines[row] += character
            position += 1
        return [line for line in lines if line.strip()]

    @property
    def cursor_is_shown(self) -> bool:
        text = self.getvalue()
        return text.rfind("\x1b[?25h") >= text.rfind("\x1b[?25l")

    def shown(self, text: str) -> bool:
        """Tell whether a text was on the screen at some time."""
        return text in ESCAPE.sub("", self.getvalue())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal, which standard error is in a context of :func:`contextlib.redirect_stderr`."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


def test_a_stage_shows_notes_of_what_runs_inside_and_goes(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        console = Console()
        with console.stage("Force constants") as update:
            note("23 % of 60 q")
            draw()
            update("last")
            draw()
        console.say("done")
    assert terminal.shown("Force constants (23 % of 60 q)")
    assert terminal.shown("Force constants (last)")
    assert terminal.screen() == ["done"]
    assert terminal.cursor_is_shown


def test_bars_show_how_many_are_done(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        console = Console()
        for item in console.track("Volumes", [1, 2, 3]):
            note(f"step {item}")
            draw()
        with console.tally("Crystals", 5) as show:
            show(4, 1)
            draw()
    assert terminal.shown("Volumes (step 2)")
    assert re.search(r"Volumes \(step 3\).* 2/3", ESCAPE.sub("", terminal.getvalue()))
    assert re.search(r"Crystals .* 4/5 1 failed", ESCAPE.sub("", terminal.getvalue()))
    assert terminal.screen() == []


def test_what_another_program_prints_is_kept_and_its_grid_points_are_notes(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    with redirect_stderr(terminal), Console().kept_back("phono3py's conductivity"):
        print("======= Grid point 12 (7/56) =======")
        draw()
    assert terminal.shown("phono3py's conductivity (grid point 7 of 56)")
    assert terminal.screen() == []
    assert capsys.readouterr().out == ""


def test_a_stage_inside_a_bar_is_a_note_of_it(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        console = Console()
        for _ in console.track("Directions", [0]):
            with console.stage("Relaxing"):
                note("step 7")
                draw()
            draw()
    assert terminal.shown("Directions (Relaxing: step 7)")
    assert terminal.screen() == []


def test_nothing_is_drawn_when_quiet_or_into_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on some servers
    for stream, quiet in ((Terminal(), True), (io.StringIO(), False)):
        with redirect_stderr(stream):
            console = Console(quiet=quiet)
            with console.stage("Relaxing"):
                note("step 1")
            list(console.track("Volumes", [1]))
        assert "\r" not in stream.getvalue()
        assert "step 1" not in stream.getvalue()
        assert stream.getvalue() == ("" if quiet else "Relaxing ...\nVolumes ...\n")


def test_an_error_leaves_only_its_line(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)

    def fail(words: list[str]) -> int:
        for _ in Console().track("Volumes", [1, 2]):
            raise pe.PhonopyEquivariantError("no volume.")
        return 0

    monkeypatch.setattr("phonopy_equivariant.cli._dispatch", fail)
    with redirect_stderr(terminal):
        assert run_command(["qha"]) == 1
    assert terminal.screen() == ["phonopy-equivariant: error: no volume."]
    assert terminal.cursor_is_shown


def test_a_command_leaves_what_it_says_without_a_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    poscar(tmp_path, lattice=LATTICE + 0.05)
    words = ["relax", "POSCAR", "--model", model(), "-o", "relaxed.vasp"]
    plain = command(*words, cwd=tmp_path).stderr.splitlines()
    monkeypatch.chdir(tmp_path)
    changed = mock.patch.dict(os.environ, environment(TERM="xterm", COLUMNS="200"), clear=True)
    with changed, redirect_stderr(terminal):
        assert run_command(words) == 0
    said = [line for line in plain if not line.endswith(" ...")]
    times = re.compile(r": \d+\.\d s$")
    assert [line for line in terminal.screen() if not times.search(line)] == said
    assert terminal.shown("Relaxing")
    assert terminal.cursor_is_shown


def test_the_response_notes_its_share_and_ends_with_nothing() -> None:
    notes: list[str] = []
    qpoints = np.array([[0.1, 0.2, 0.3], [0, 0, 0.5], [0.3, 0.1, 0]])
    with listening(notes.append):
        pe.dynamical_matrices(potential(), bulk("NaCl", "rocksalt", a=LATTICE), qpoints)
    shares = [int(re.fullmatch(r"(\d+) % of 3 q", n)[1]) for n in notes if "%" in n]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert len(shares) == 2 * potential().num_interactions  # one for each atom in each layer
    assert notes[-1] == ""


def test_a_relaxation_notes_its_steps() -> None:
    notes: list[str] = []
    with listening(notes.append):
        pe.relax(bulk("NaCl", "rocksalt", a=LATTICE + 0.05), potential(), fmax=1e-3)
    steps = [n for n in notes if n.startswith("step")]
    assert re.fullmatch(r"step 0, force \d\.\de[+-]\d\d eV/Å, energy -?\d+\.\d{4} eV", steps[0])
    assert len(steps) > 2


def test_compiling_is_noted_once_for_a_size() -> None:
    @compiled()
    def double(x):
        return 2 * x

    notes: list[str] = []
    with listening(notes.append):
        double(jnp.zeros(3))
        double(jnp.ones(3))
    assert notes == ["compiling, once for this size", ""]


def draw() -> None:
    """Draw what a terminal shows now; by itself it is drawn ten times a second."""
    progress = bars._open[0].progress
    assert progress is not None
    progress.refresh()

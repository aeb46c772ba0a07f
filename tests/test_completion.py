"""The scripts of ``--print-completion``, tried in bash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cli_helpers import command, shell

# what bash does when Tab is pressed after the words
_TAB = """
COMP_WORDS=({words} "")
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
COMP_WORDS[$COMP_CWORD]='{begun}'
$(complete -p phonopy-equivariant | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    path = folder / "phonopy-equivariant"
    path.write_text(command("--print-completion", "bash", cwd=folder).stdout)
    return path


@pytest.mark.parametrize(
    ("words", "begun", "reply"),
    [
        ("", "grun", "gruneisen"),
        ("elastic POSCAR", "--rel", "--relax"),
        ("run", "--exact-t", "--exact-tolerance"),
        ("run POSCAR", "--td", "--td"),
        ("run POSCAR", "--mes", "--mesh"),
        ("run POSCAR --model", "pe-cr", "pe-crystal-3"),
        ("models show", "nequix-oam", "nequix-oam-1-pft"),
        ("relax", "NaC", "NaCl.cif"),
    ],
)
def test_bash_completes(script: Path, words: str, begun: str, reply: str) -> None:
    (script.parent / "NaCl.cif").touch()
    tab = _TAB.format(words=f"phonopy-equivariant {words}", begun=begun)
    answer = shell(f"set +eu; source ./{script.name}; {tab}", script.parent).split()
    assert reply in answer and all(word.startswith(begun) for word in answer), answer


@pytest.mark.parametrize("name", ["zsh", "fish", "tcsh"])
def test_other_shells_have_scripts(tmp_path: Path, name: str) -> None:
    text = command("--print-completion", name, cwd=tmp_path).stdout
    assert "exact-tolerance" in text and "pe-crystal-3" in text


def test_an_unknown_shell_is_refused(tmp_path: Path) -> None:
    result = command("--print-completion", "csh", cwd=tmp_path, status=2)
    assert "invalid choice" in result.stderr


def test_the_script_is_sound_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)

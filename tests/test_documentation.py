"""Blocks of code in the pages: each is checked, or says in the source why it is not run.

- Commands of ours, phonopy and phono3py are parsed; scripts of the repository have the options.
- Python: see test_documentation_python.py.
- YAML is read by what reads it. Outputs and contents of other files are ``text``.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ALL, FENCE, PAGES, ROOT, Block

from phonopy_equivariant import cli
from phonopy_equivariant.cli.completion import subparsers
from phonopy_equivariant.cli.kappa import _parser as kappa_parser
from phonopy_equivariant.cli.options import dim_last
from phonopy_equivariant.cli.run import _parser as run_parser
from phonopy_equivariant.cli.settings import words_passed_on
from phonopy_equivariant.training.config import read_config
from phonopy_equivariant.workflows.handover import UsageError, parse_shared
from phonopy_equivariant.workflows.kappa_options import phono3py_parser
from phonopy_equivariant.workflows.script import phonopy_parser, phonopy_settings

SHELLS = {"", "bash", "console", "sh"}
PROGRAMS = ("phonopy-equivariant", "phonopy", "phono3py")
# Programs of others in lines of shell, which are not checked.
OTHER_PROGRAMS = re.compile(
    r"((python -m )?pip install|python -m (venv|pytest|ruff|mypy)|mkdir|ase build|"
    r"phonopy-(vasp|qe)-born) "
)


def commands(text: str) -> Iterator[str]:
    """Yield the command lines of our program and phonopy in a block or in a help text."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        line = line.strip().removeprefix("$ ")
        for part in re.split(r" && | \|\|? |; ", line):
            if re.match(r"(phonopy-equivariant|phonopy|phono3py) (?!\.\.\.|must )", part):
                yield part


def words_of(line: str) -> list[str]:
    """Return a command line's words, as a shell takes them."""
    line = re.split(r"\s(?:>|2>|<)\s?|  +[a-zA-Zäöü(]", line)[0]  # explanations beside examples
    return shlex.split(line, comments=True)


def help_texts() -> Iterator[tuple[str, str]]:
    parser = cli._parser()
    yield "help", parser.epilog or ""
    for name, subparser in (
        *subparsers(parser).items(),
        *((f"models {k}", p) for k, p in subparsers(subparsers(parser)["models"]).items()),
        *((f"dataset {k}", p) for k, p in subparsers(subparsers(parser)["dataset"]).items()),
        ("run", run_parser()),
        ("kappa", kappa_parser()),
    ):
        yield f"help of {name}", subparser.epilog or ""


LINES = [
    *(
        (block.name, line)
        for block in ALL
        if block.language in SHELLS
        for line in commands(block.code)
    ),
    *((name, line) for name, text in help_texts() for line in commands(text)),
]


@functools.cache
def main_parser() -> argparse.ArgumentParser:
    return cli._parser()


@functools.cache
def shared_parser(command: str) -> argparse.ArgumentParser:
    return {
        "run": run_parser,
        "kappa": kappa_parser,
        "phonopy": phonopy_parser,
        "phono3py": phono3py_parser,
    }[command]()


def options_of(words: list[str]) -> set[str]:
    """Return the options that a command of ours knows."""
    command = next((word for word in words if re.fullmatch("[a-z0-9]+", word)), "")
    others = {"run": "phonopy", "kappa": "phono3py"}
    if command in others:
        parsers = [shared_parser(command), shared_parser(others[command])]
    else:
        parser = subparsers(main_parser())[command]
        parsers = [parser, *subparsers(parser).values()]
    return {name for parser in parsers for name in parser._option_string_actions}


def parse(words: list[str]) -> None:
    """Parse a command line as the program would, and compute nothing."""
    program, *words = words
    if program in ("phonopy", "phono3py"):
        shared_parser(program).parse_args(words)
    elif words[0] == "run":
        # a settings file changes the parser
        parser = run_parser() if "--settings" in words else shared_parser("run")
        theirs = words_passed_on(parser, words, "phonopy")
        phonopy = shared_parser("phonopy")
        phonopy_settings(parse_shared(dim_last(words[1:]), parser, phonopy, "", theirs)[1])
    elif words[0] == "kappa":
        parsers = shared_parser("kappa"), shared_parser("phono3py")
        parse_shared(dim_last(words[1:]), *parsers, "")
    else:
        main_parser().parse_args(words)


def is_synopsis(line: str) -> bool:
    return bool(re.search(r"\.\.\.|\[|OPTIONS|COMMAND", line.split("#")[0]))


def test_commands_have_the_options_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run-settings.yaml").write_text("command: run\nstructure: NaCl.cif\n")
    wrong = []
    for place, line in LINES:
        if is_synopsis(line):
            named = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", line.split("#")[0]))
            if not named <= options_of(line.split()[1:]) | {"--help"}:
                wrong.append(f"{place}: {line}: {named}")
            continue
        try:
            parse(words_of(line))
        except SystemExit as end:
            if end.code not in (0, None):
                wrong.append(f"{place}: {line}: {capsys.readouterr().err}")
        except UsageError as error:
            wrong.append(f"{place}: {line}: {error}")
    assert not wrong


def test_there_are_commands_to_check() -> None:
    assert len(LINES) > 120
    assert {"run", "elastic", "qha", "train"} <= {line.split()[1] for _, line in LINES}
    with pytest.raises(UsageError):
        parse(["phonopy-equivariant", "run", "POSCAR", "--relaxed"])


def known_options() -> set[str]:
    """Return every option of our commands, phonopy, phono3py and some other programs."""
    parsers = [main_parser(), *map(shared_parser, ("run", "kappa", "phonopy", "phono3py"))]
    for subparser in subparsers(main_parser()).values():
        parsers += [subparser, *subparsers(subparser).values()]
    return {name for p in parsers for name in p._option_string_actions}


# of phonopy-init, pytest, XLA and the scripts in benchmarks
OTHERS = {"--dist", "--no-deps", "--qe", "--abinit", "--xla_force_host_platform_device_count"} | {
    option
    for script in (ROOT / "benchmarks").glob("*.py")
    for option in re.findall(r'"(--[a-z-]+)"', script.read_text("utf-8"))
}


def test_options_in_sentences_exist() -> None:
    known = known_options() | OTHERS
    unknown = [
        (path.name, option)
        for path in PAGES
        for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCE.sub("", path.read_text("utf-8")))
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)
        if option not in known
    ]
    assert not unknown


def test_every_block_is_checked_or_marked() -> None:
    """Python and YAML have tests of their own; here are the others."""
    unchecked = []
    for block in ALL:
        if block.language == "text":
            assert not list(commands(block.code)), block.name
        elif block.language in SHELLS:
            unchecked += [f"{block.name}: {line}" for line in other_lines(block)]
        elif not re.fullmatch(r"\{[\w-]+\}|python|yaml", block.language):
            unchecked.append(f"{block.name}: {block.language}")
    assert not unchecked


def other_lines(block: Block) -> Iterator[str]:
    """Yield the lines of a block of shell that nothing checks; a console has a prompt."""
    if block.comment:
        assert re.fullmatch(r"<!-- (not run: .{10,}|test: .+) -->", block.comment), block.name
        return
    lines = re.sub(r"\\\n\s*", "", block.code).splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        for part in re.split(r" && |; ", line.split("#")[0].strip()):
            known = part.split(" ")[0] in {*PROGRAMS, "source", ""} or OTHER_PROGRAMS.match(part)
            if not known and not is_script_with_options(part):
                yield part


def is_script_with_options(line: str) -> bool:
    """Tell whether a line calls a script of the repository with options that it has."""
    call = re.match(r"(?:[A-Z_]+=\S+ )*python ((?:benchmarks|examples)/\S+\.py)(.*)", line)
    if call is None or not (ROOT / call[1]).is_file():
        return False
    source = (ROOT / call[1]).read_text("utf-8")
    return all(f'"{name}"' in source for name in re.findall(r"(?<!\S)--[a-z][\w-]*", call[2]))


def test_yaml_is_read_by_its_reader(tmp_path: Path) -> None:
    for block in ALL:
        if block.language != "yaml":
            continue
        path = tmp_path / "block.yaml"
        path.write_text(block.code)
        if block.page == "command_line.md":
            parse(["phonopy-equivariant", "run", "--settings", str(path)])
        else:
            assert read_config(path).steps > 0


def test_no_page_is_long() -> None:
    """1200 words of sentences, lists and headings; tables, code and formulas are not counted."""
    spec = importlib.util.spec_from_file_location("readability", ROOT / "benchmarks/readability.py")
    assert spec is not None and spec.loader is not None
    readability = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(readability)
    words = {path.name: readability.measure(path.read_text("utf-8")).words for path in PAGES}
    assert words["run.md"] > 500
    assert not {name: number for name, number in words.items() if number > 1200}

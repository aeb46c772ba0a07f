"""Blocks of code in the pages: each is checked, or says in the source why it is not run.

- Commands of ours, phonopy and phono3py are parsed; scripts of the repository have the options.
- Python runs with a small model. A comment before the block, invisible on the page, says why it
  does not: ``<!-- not run: REASON -->``, or ``<!-- test: NAME -->`` for the blocks of
  test_cli_docs.py. Names, parameters and attributes of results are looked up in those, too.
- YAML is read by what reads it. Outputs and contents of other files are ``text``.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import functools
import importlib.util
import inspect
import re
import shlex
import types
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from cli_helpers import CONFIG, SEED, poscar

import phonopy_equivariant as pe
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

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTES = [*sorted((ROOT / "docs" / "notes").glob("*.md")), ROOT / "examples" / "README.md"]
SHELLS = {"", "bash", "console", "sh"}
FENCE = re.compile(
    r"^((?:<!-- .*? -->\n)?)( *)```([\w{}-]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE
)
# What the small model stands for, and the crystal that is at rest in it.
MODELS = re.compile(r"\b(?:nequix-\w+-1(?:-pft)?|pe-crystal-3)\b")
CRYSTAL = ('bulk("MgO", "rocksalt", a=4.21)', 'bulk("NaCl", "rocksalt", a=5.6)')
# What a page has in hand before its first block.
BEFORE = {
    "exact_mode.md": "phonon, qpoints = pe.phonons('POSCAR', model, 2), [[0.1, 0.2, 0.3]]",
    "familiarity.md": "potential = pe.load_potential('pe-crystal-3')",
    "polar_crystals.md": (
        "from ase.build import bulk\n"
        "structure = bulk('NaCl', 'rocksalt', a=5.6)\n"
        "phonon = pe.phonons(structure, model, 2)\n"
        "born, epsilon = [np.eye(3), -np.eye(3)], 2.6 * np.eye(3)\n"
        "nac_params = {'born': born, 'dielectric': epsilon, 'factor': 14.399652}\n"
    ),
}
PROGRAMS = ("phonopy-equivariant", "phonopy", "phono3py")
# Programs of others in lines of shell, which are not checked.
OTHER_PROGRAMS = re.compile(
    r"((python -m )?pip install|python -m (venv|pytest|ruff|mypy)|mkdir|ase build|"
    r"phonopy-(vasp|qe)-born) "
)


class Block(NamedTuple):
    page: str
    line: int
    language: str
    comment: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> Iterator[Block]:
    text = path.read_text("utf-8")
    for match in FENCE.finditer(text):
        comment, indent, language, code = match.groups()
        code = re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
        line = text.count("\n", 0, match.start()) + 1
        name = f"{path.parent.name}/{path.name}" if path in NOTES else path.name
        yield Block(name, line, language, comment.strip(), code)


ALL = [block for path in (*PAGES, *NOTES) for block in blocks(path)]
PYTHON = [block for block in ALL if block.language == "python"]


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


class Instance(NamedTuple):
    """Something of a class, in a block that does not run."""

    kind: Any  # the class, or a type hint


def meaning(node: ast.expr, names: dict[str, Any]) -> Any:
    """Return what an expression in a block stands for, or None if that is of others.

    ``pe.a`` is the object itself, and ``pe.a(...)`` an instance of what it returns.
    """
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = meaning(node.value, names)
        if isinstance(owner, Instance):
            return member(owner.kind, node.attr)
        return None if owner is None else getattr(owner, node.attr)
    if isinstance(node, ast.Call):
        function = meaning(node.func, names)
        if isinstance(function, type):
            return Instance(function)
        return None if function is None else returned(function)
    if isinstance(node, ast.Subscript):
        owner = meaning(node.value, names)
        kinds = typing.get_args(owner.kind) if isinstance(owner, Instance) else ()
        is_tuple = kinds[1:] == (...,)
        return Instance(kinds[0]) if is_tuple else None
    return None


def returned(function: Any) -> Instance | None:
    """Return what a function of ours returns, as its hints say."""
    if isinstance(function, functools.partial):  # a method
        function = function.func
    try:
        kind = typing.get_type_hints(function).get("return")
    except NameError:  # imported for type checkers alone
        return None
    return None if isinstance(kind, types.UnionType | types.NoneType) else Instance(kind)


def member(kind: Any, name: str) -> Any:
    """Return an attribute of an instance; a class of ours must have it."""
    ours = str(getattr(kind, "__module__", "")).startswith("phonopy_equivariant")
    if not ours or not isinstance(kind, type):
        return None
    attribute = inspect.getattr_static(kind, name, None)
    if isinstance(attribute, property):
        return returned(attribute.fget)
    if inspect.isfunction(attribute):
        return functools.partial(attribute, None)
    hints = typing.get_type_hints(kind)
    assert name in hints or attribute is not None, f"{kind.__name__} has no {name}"
    return Instance(hints[name]) if name in hints else None


def test_attributes_of_results_are_found() -> None:
    def found(text: str) -> Any:
        return meaning(ast.parse(text, mode="eval").body, {"pe": pe})

    assert found("pe.qha('POSCAR')").kind is pe.QuasiHarmonic
    assert found("pe.follow_unstable_modes('POSCAR').lowest.symbol").kind is str
    assert found("pe.sscha('POSCAR').runs[0].free_energy").kind is float
    with pytest.raises(AssertionError, match="QuasiHarmonic has no expansions"):
        found("pe.qha('POSCAR').expansions")


@pytest.mark.parametrize("block", PYTHON, ids=[block.name for block in PYTHON])
def test_names_and_parameters_exist(block: Block) -> None:
    names: dict[str, Any] = {"pe": pe}
    tree = ast.parse(block.code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("phonopy_equivariant"):
            scope: dict[str, Any] = {}
            exec(ast.unparse(node), scope)
            names |= {k: v for k, v in scope.items() if k not in dir(builtins)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = meaning(node.value, names)
        if isinstance(node, ast.Attribute):
            meaning(node, names)
        function = meaning(node.func, names) if isinstance(node, ast.Call) else None
        if function is not None and not any(isinstance(a, ast.Starred) for a in node.args):
            keywords = {k.arg: None for k in node.keywords if k.arg}
            inspect.signature(function).bind(*node.args, **keywords)


# ten_lines.md runs with the model it names in tests/test_public_interface.py
RUN = sorted({block.page for block in PYTHON if not block.comment} - {"ten_lines.md"})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model that stands for published ones; rock salt is at rest in it near 5.6 Å."""
    small = pe.random_potential(pe.NequIPConfig(**CONFIG), seed=SEED)
    return str(pe.save_checkpoint(small, tmp_path_factory.mktemp("models") / "small.npz"))


@pytest.mark.parametrize("page", RUN)
def test_python_runs(
    page: str, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page one after the other, models replaced by a small one."""
    import matplotlib

    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)
    poscar(tmp_path)
    potential = pe.load_potential(checkpoint)
    scope: dict[str, Any] = {"pe": pe, "np": np, "model": checkpoint, "potential": potential}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(BEFORE.get(page, ""), scope)
        for block in PYTHON:
            if block.page == page and not block.comment:
                text = MODELS.sub(checkpoint, block.code).replace(*CRYSTAL)
                exec(compile(text, block.name, "exec"), scope)


def test_blocks_that_do_not_run_say_why() -> None:
    for block in PYTHON:
        if block.comment:
            assert re.fullmatch(r"<!-- (not run: .{10,}|test: .+) -->", block.comment), block.name
        for name in re.findall(r"tests/(\w+\.py)", block.comment):
            assert (ROOT / "tests" / name).is_file(), block.name


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

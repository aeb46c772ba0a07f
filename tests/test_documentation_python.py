"""Python in the pages runs with a small model, or a comment in the source says why it does not.

The comment stands before the block, invisible on the page: ``<!-- not run: REASON -->``, or
``<!-- test: NAME -->`` for the blocks of test_cli_docs.py. Names, parameters and attributes of
results are looked up in those, too.
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import re
import types
import typing
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from cli_helpers import CONFIG, SEED, poscar
from pages import PYTHON, ROOT, Block

import phonopy_equivariant as pe

# What the small model stands for, and the crystal that is at rest in it.
MODELS = re.compile(r"\b(?:nequix-\w+-1(?:-pft)?|pe-crystal-3)\b")
CRYSTAL = ('bulk("MgO", "rocksalt", a=4.21)', 'bulk("NaCl", "rocksalt", a=5.6)')


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

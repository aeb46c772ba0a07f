"""The order of the package's rooms: what a room may import, read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import phonopy_equivariant

PACKAGE = Path(phonopy_equivariant.__file__).parent

# A room may import itself and the rooms of earlier lines.
ROOMS = [
    "errors _version defaults frequencies",
    "files inert",
    "results",
    "structure",
    "catalogue features runtime",
    "models",
    "graph",
    "potential",
    "familiarity checkpoints",
    "response",
    "calculators",
    "phonons",
    "io",
    "molecules data evaluation",
    "training",
    "workflows",
    "cli",
]

# Libraries that a room does not know, so that it stays what it is.
FOREIGN = {
    "catalogue": {"jax", "phonopy"},
    "features": {"jax", "phonopy"},
    "models": {"phonopy", "optax"},
    "response": {"optax"},
    "phonons": {"haiku", "optax"},
    "workflows": {"haiku", "optax"},
}


def room(module: str) -> str:
    return module.split(".")[1]


def modules() -> list[tuple[str, Path]]:
    paths = sorted(PACKAGE.rglob("*.py"))
    names = [".".join(("phonopy_equivariant", *p.relative_to(PACKAGE).parts))[:-3] for p in paths]
    entrances = {"phonopy_equivariant.__init__", "phonopy_equivariant.__main__"}
    return [(n, p) for n, p in zip(names, paths, strict=True) if n not in entrances]


def imports(path: Path, package: bool) -> Iterator[str]:
    """Yield what a module imports, inside functions too, but for type checking alone."""
    tree = ast.parse(path.read_text("utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            module = str(node.module)
            if module == "phonopy_equivariant" and package:
                yield from (f"{module}.{alias.name}" for alias in node.names)
            else:
                yield module


def test_rooms_import_downwards_only():
    order = {name: k for k, line in enumerate(ROOMS) for name in line.split()}
    assert {room(name) for name, _ in modules()} == set(order)
    for name, path in modules():
        for target in imports(path, package=True):
            if target.startswith("phonopy_equivariant."):
                down = order[room(target)] < order[room(name)] or room(target) == room(name)
                assert down, f"{name} imports {target}"


def test_no_circle_of_modules():
    known = {name for name, _ in modules()}
    edges = {
        name: {t for t in imports(path, package=True) if t in known} for name, path in modules()
    }
    while edges:
        free = {name for name, targets in edges.items() if not targets & edges.keys()}
        assert free, f"a circle among {sorted(edges)}"
        edges = {name: targets for name, targets in edges.items() if name not in free}


@pytest.mark.parametrize("name", FOREIGN)
def test_rooms_do_not_know_libraries_of_others(name):
    for module, path in modules():
        if room(module) == name:
            used = {target.split(".")[0] for target in imports(path, package=False)}
            assert not used & FOREIGN[name], module

"""``phonopy-equivariant models``: which potentials there are, and where they lie."""

from __future__ import annotations

import argparse
from typing import Any

from phonopy_equivariant.cli.options import parser_arguments

_DESCRIPTION = "List, show, fetch and remove published potentials."

_EXAMPLES = """\
examples:
  phonopy-equivariant models list
  phonopy-equivariant models show nequix-mp-1-pft
  phonopy-equivariant models fetch nequix-mp-1-pft     before a job on a node without network
  phonopy-equivariant models remove nequix-mp-1

A model is fetched by itself the first time it is used, and kept in your cache folder. Its SHA-256
is checked each time. Files in the folder that the variable PHONOPY_EQUIVARIANT_MODELS names
(NAME.nqx) are taken first.
"""


def add_command(commands: Any) -> None:
    """Add the parser of ``models``."""
    parser = commands.add_parser(
        "models",
        help="list, show, fetch and remove potentials",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, function, text in (
        ("list", _list, "all models that load by name"),
        ("show", _show, "licence, level of theory, elements, citation, accuracy"),
        ("fetch", _fetch, "download a model and check its hash"),
        ("remove", _remove, "delete a model from your cache folder"),
    ):
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        action.set_defaults(function=function)
        if name != "list":
            action.add_argument("name", metavar="NAME", nargs="+", help="name of a model")


def _list(_args: argparse.Namespace) -> int:
    from phonopy_equivariant.checkpoints.registry import list_models, local_path
    from phonopy_equivariant.cli.console import print_table

    print_table(
        ("NAME", "THEORY", "ELEMENTS", "LICENCE", "HERE"),
        [
            (
                card.name,
                card.theory,
                len(card.elements),
                card.licence,
                "yes" if local_path(card.name) else "no",
            )
            for card in list_models()
        ],
    )
    return 0


def _show(args: argparse.Namespace) -> int:
    from phonopy_equivariant.interface.model_cards import summary_lines

    for index, name in enumerate(args.name):
        print("\n" * bool(index) + "\n".join(summary_lines(name)))
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from phonopy_equivariant.checkpoints.registry import fetch

    for name in args.name:
        print(f"{name}: {fetch(name)}")
    return 0


def _remove(args: argparse.Namespace) -> int:
    from phonopy_equivariant.checkpoints.registry import MODELS_VARIABLE, local_path, remove

    for name in args.name:
        removed = remove(name)
        print(f"{name}: {'removed' if removed else 'was not in the cache folder'}")
        left = local_path(name)
        if left is not None:
            print(f"{name}: {left} is yours (from {MODELS_VARIABLE}) and stays")
    return 0

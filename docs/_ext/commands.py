"""The directive ``commands``: every command with its options, read from the parsers themselves."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from phonopy_equivariant import cli
from phonopy_equivariant.cli.completion import subparsers
from phonopy_equivariant.cli.options import Parser


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class Commands(SphinxDirective):
    """A section for every command, and for every action of a command that has some."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        parsers = subparsers(cli._parser())
        # phonopy's options pass through these two, which have parsers of their own
        for name in ("run", "kappa"):
            parsers[name] = importlib.import_module(f"phonopy_equivariant.cli.{name}")._parser()
        return [_section(name, parser) for name, parser in parsers.items()]


def _section(name: str, parser: Parser) -> nodes.section:
    section = nodes.section(ids=[nodes.make_id(f"command {name}")], names=[name])
    section += nodes.title(text=name)
    section += nodes.paragraph(text=" ".join((parser.description or "").split()))
    section += nodes.literal_block(text=parser.format_usage().removeprefix("usage: ").strip())
    for action, subparser in subparsers(parser).items():
        section += _section(f"{name} {action}", subparser)
    for title, actions in parser.sections():
        rows = [(_words(a), _explanation(a, parser)) for a in actions if _shown(a)]
        if rows:
            section += nodes.rubric(text=title.capitalize())
            section += _definitions(rows)
    if parser.epilog:
        section += nodes.literal_block(text=parser.epilog.strip())
    return section


def _shown(action: argparse.Action) -> bool:
    hidden = isinstance(action, (argparse._HelpAction, argparse._SubParsersAction))
    return not hidden and action.help != argparse.SUPPRESS


def _words(action: argparse.Action) -> str:
    """Return an option with its value as ``--help`` shows it."""
    formatter = argparse.HelpFormatter("")
    return formatter._format_action_invocation(action)


def _explanation(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""


def _definitions(rows: list[tuple[str, str]]) -> nodes.definition_list:
    def items() -> Iterator[nodes.Node]:
        for words, text in rows:
            term = nodes.term("", "", nodes.literal(text=words))
            body = nodes.definition("", nodes.paragraph(text=text))
            yield nodes.definition_list_item("", term, body)

    return nodes.definition_list("", *items())

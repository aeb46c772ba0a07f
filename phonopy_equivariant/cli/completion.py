"""Scripts that complete commands, options, names of models and files in a shell.

A script is written once and holds all words, so that completion starts no Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

SHELLS = ("bash", "zsh", "fish", "tcsh")

# Arguments, by the name that the parsers have for them, whose value is a file or a folder.
_FILES = {
    *("structure", "structures", "settings", "config", "output", "hessian", "born", "raman"),
    *("references", "source", "files", "conf_filename"),
}


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the script of a shell for a parser with its commands.

    Raises
    ------
    PhonopyEquivariantError
        shtab, which writes the scripts, is not installed.

    """
    try:
        import shtab
    except ImportError as error:
        from phonopy_equivariant.errors import PhonopyEquivariantError

        raise PhonopyEquivariantError(
            "Completion scripts are written by shtab: pip install shtab"
        ) from error
    for command, subparser in subparsers(parser).items():
        if command in ("run", "kappa"):
            _add_options_passed_on(command, subparser)
        _set_completers(subparser)
    return shtab.complete(parser, shell)


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of a parser's commands; empty if it has none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _add_options_passed_on(command: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run`` and ``kappa``, which have parsers of their own, and phonopy's."""
    import importlib

    module = importlib.import_module(f"phonopy_equivariant.cli.{command}")
    for actions in (module._parser()._actions, _foreign_actions(command)):
        known = {name for action in parser._actions for name in action.option_strings}
        for action in actions:
            if not known & set(action.option_strings):
                parser._add_action(action)


def _foreign_actions(command: str) -> list[argparse.Action]:
    if command == "run":
        from phonopy_equivariant.workflows.script import phonopy_parser

        parser = phonopy_parser()
    else:
        import importlib.util

        if importlib.util.find_spec("phono3py") is None:
            return []
        from phonopy_equivariant.workflows.kappa_options import phono3py_parser

        parser = phono3py_parser()
    return [action for action in parser._actions if action.option_strings]


def _set_completers(parser: argparse.ArgumentParser) -> None:
    import shtab

    for action in parser._actions:
        completed: Any = None
        if action.dest == "model" or (action.dest == "name" and action.metavar == "NAME"):
            completed = shtab.cmd(_list_models())
        elif action.dest in _FILES:
            completed = shtab.FILE
        if completed is not None:
            action.complete = completed  # type: ignore[attr-defined]
    for action_parser in subparsers(parser).values():
        _set_completers(action_parser)


def _list_models() -> str:
    """Return a shell's command that prints names of models, and checkpoints in the folder."""
    from phonopy_equivariant.catalogue.cards import list_models

    names: Iterable[str] = (card.name for card in list_models())
    return f"printf '%s\\n' {' '.join(names)}; ls | grep -E '[.](npz|nqx|pth|ckpt|zip|model)$'"

"""Settings files: the options of a command as YAML, written by every run and read again.

A file of ``run`` begins like this. Names are those of the options without the hyphens in front;
options of phonopy stand under ``phonopy``:

    command: run
    structure: NaCl.cif
    relax: true
    phonopy:
      mesh: [20, 20, 20]
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of, require_known_keys

# Options that say how a run is watched and change none of its numbers.
_NOT_RECORDED = {"function", "settings", "json", "quiet", "verbose", "help"}
_FIRST_LINE = "# Settings written by phonopy-equivariant"


def settings_file(words: Sequence[str]) -> str | None:
    """Return the value of ``--settings`` in a command line; a missing value is argparse's error."""
    for word, following in itertools.zip_longest(words, words[1:], fillvalue="-"):
        if word == "--settings" and not following.startswith("-"):
            return following
        if word.startswith("--settings="):
            return word.partition("=")[2]
    return None


def take_settings(
    parser: argparse.ArgumentParser, path: str, words: Sequence[str], passes_on: str = ""
) -> dict[str, Any]:
    """Make the options in a settings file the defaults of a parser, so that words win over them.

    Parameters
    ----------
    parser, path
        The parser of the command; the file.
    words
        The command line: an option in it also replaces those of the file that exclude it.
    passes_on
        The program whose options may stand in the file, under its name.

    Returns
    -------
    dict
        Options of that program; empty if there are none.

    Raises
    ------
    PhonopyEquivariantError
        The file cannot be read, is of another command, or has a key or value that means nothing.

    """
    content = _read(path)
    command = parser.prog.split()[-1]
    actions = {_key(action): action for action in _recorded(parser)}
    of_command = content.pop("command", command)
    if of_command != command:
        raise PhonopyEquivariantError(
            f"{path} has settings of {of_command!r}, not of {command!r}; "
            f"use phonopy-equivariant {of_command} --settings {path}."
        )
    theirs = content.pop(passes_on, None) if passes_on else None
    if not isinstance(theirs, dict | None):
        raise PhonopyEquivariantError(f"{path}: {passes_on} has options below it: 'mesh: 50'.")
    names = ["command", *actions, *([passes_on] if passes_on else [])]
    require_known_keys(content, names, f"{path}: ")
    excluded = _excluded(parser, words)
    for key, value in content.items():
        action = actions[key]
        if value is None or action in excluded:
            continue
        action.default = _value(parser, action, value, f"{path}: {key}")
        action.required = False
        if not action.option_strings:
            action.nargs = "*" if action.nargs == "+" else "?"
    return theirs or {}


def words_passed_on(
    parser: argparse.ArgumentParser, words: Sequence[str], program: str
) -> list[str]:
    """Return options of another program in the file of ``--settings``, as words.

    The file's other options become defaults of the parser, as in :func:`take_settings`.
    """
    path = settings_file(words)
    return [] if path is None else as_words(take_settings(parser, path, words, program), path)


def as_words(options: Mapping[str, Any], path: str) -> list[str]:
    """Return options of another program in a settings file as words of a command line.

    Raises
    ------
    PhonopyEquivariantError
        A value is a mapping.

    """
    words = []
    for name, value in options.items():
        if isinstance(value, Mapping):
            raise PhonopyEquivariantError(f"{path}: {name} has values below it; give a list.")
        if value is None or value is False:
            continue
        words.append(f"--{name}" if len(str(name)) > 1 else f"-{name}")
        words += [] if value is True else _texts(value)
    return words


def as_options(words: Sequence[str]) -> dict[str, Any]:
    """Return options of another program in a command line as a settings file has them."""
    from phonopy_equivariant.workflows.handover import grouped_options

    options: dict[str, Any] = {}
    for name, *values_as_words in grouped_options(words):
        if name in ("-q", "-v"):
            continue
        name, attached, text = name.partition("=")
        values = [_number(word) for word in [*([text] if attached else []), *values_as_words]]
        options[name.lstrip("-")] = True if not values else values if values[1:] else values[0]
    return options


def write_settings(
    args: argparse.Namespace,
    command: str,
    folder: Path,
    theirs: tuple[str, Mapping[str, Any]] | None = None,
) -> str | None:
    """Write the options that a command ran with, and return the name of the file.

    A file that was read, or that somebody else wrote, stays as it is, and None is returned.

    Parameters
    ----------
    args
        All arguments of the command.
    command, folder
        Its name, and where the file goes.
    theirs
        Another program that it called, with the options.

    """
    from phonopy_equivariant._version import __version__

    path = folder / f"{command}-settings.yaml"
    if path.exists() and (_is_same(path, args.settings) or not _is_ours(path)):
        return None
    content: dict[str, Any] = {"command": command}
    content |= {
        name.replace("_", "-"): list(value) if isinstance(value, tuple) else value
        for name, value in vars(args).items()
        if name not in _NOT_RECORDED
    }
    if theirs is not None:
        content[theirs[0]] = dict(theirs[1])
    import yaml

    from phonopy_equivariant.files import write_atomically

    text = (
        f"{_FIRST_LINE} {__version__}. The same again, in the folder of the first run:\n"
        f"#   phonopy-equivariant {command} --settings {path}\n"
        "# null: not given, the command decides.\n"
    )
    text += yaml.dump(content, sort_keys=False, default_flow_style=None, allow_unicode=True)
    write_atomically(path, text.encode())
    return str(path)


def _read(path: str) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise PhonopyEquivariantError(
            f"Cannot read the settings file {path}: {error.strerror}; check --settings."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PhonopyEquivariantError(f"{path} is no YAML: {reason_of(error)}") from error
    if not isinstance(content, dict):
        raise PhonopyEquivariantError(f"{path} has no settings; a line is such as 'relax: true'.")
    return content


def _recorded(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.dest not in _NOT_RECORDED]


def _key(action: argparse.Action) -> str:
    return action.dest.replace("_", "-")


def _excluded(parser: argparse.ArgumentParser, words: Sequence[str]) -> set[argparse.Action]:
    """Return options that exclude one in the command line."""
    given = {word.partition("=")[0] for word in words}
    return {
        action
        for group in parser._mutually_exclusive_groups
        for other in group._group_actions
        for action in group._group_actions
        if action is not other and given & set(other.option_strings)
    }


def _value(parser: argparse.ArgumentParser, action: argparse.Action, value: Any, where: str) -> Any:
    """Return a value of the file as the parser makes it of words."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise PhonopyEquivariantError(f"{where} is true or false, not {value!r}.")
        return value
    if isinstance(value, bool | dict):
        raise PhonopyEquivariantError(f"{where} cannot be {value!r}; give it as on a command line.")
    words = _texts(value)
    count = action.nargs if isinstance(action.nargs, int) else 1
    if len(words) != count and action.nargs not in ("+", "*"):
        raise PhonopyEquivariantError(f"{where} has {len(words)} values; give {count}.")
    try:
        values = parser._get_values(action, words)
    except argparse.ArgumentError as error:
        raise PhonopyEquivariantError(f"{where}: {error.message}.") from error
    return values


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _number(word: str) -> int | float | str:
    """Return a number if it is written as Python writes it, so that no digit is lost."""
    for kind in (int, float):
        try:
            number = kind(word)
        except ValueError:
            continue
        if str(number) == word:
            return number
    return word


def _is_same(path: Path, other: str | None) -> bool:
    return other is not None and path.samefile(Path(other).expanduser())


def _is_ours(path: Path) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline().startswith(_FIRST_LINE)

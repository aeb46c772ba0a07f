"""Handing over to phonopy or phono3py: options of two programs in one command line, one process.

Their scripts read ``sys.argv`` and end in SystemExit.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from phonopy_equivariant.errors import PhonopyEquivariantError, unknown_option

_NEGATIVE_NUMBER = re.compile(r"-\d+$|-\d*\.\d+(e[-+]?\d+)?$|-\d+/\d+$", re.IGNORECASE)


class UsageError(PhonopyEquivariantError):
    """Options that nobody knows, or that contradict each other."""


class SplitArguments(NamedTuple):
    """A command line taken apart: our options, those of the program that goes on, other words."""

    ours: list[str]
    theirs: list[str]
    positional: list[str]


def split_arguments(
    words: Sequence[str], ours: argparse.ArgumentParser, theirs: argparse.ArgumentParser
) -> SplitArguments:
    """Sort words into our options, those of phonopy or phono3py, and positional words.

    Each option comes with its values, which it takes as argparse would: a positional word after
    an option that takes any number of values belongs to the option.

    Raises
    ------
    UsageError
        Neither parser has the option; the message offers the nearest one.

    """
    counts = _value_counts(theirs), _value_counts(ours)
    value_counts = counts[0] | counts[1]
    result = SplitArguments([], [], [])
    index = 0
    while index < len(words):
        word = words[index]
        name, attached, _ = word.partition("=")
        name = name.replace("_", "-") if name.startswith("--") else name
        num_words = 1
        if not is_option(word):
            result.positional.append(word)
        elif name in value_counts:
            if not attached:
                num_words += _count_values(words[index + 1 :], value_counts[name])
            target = result.ours if name in counts[1] else result.theirs
            target += [name + word[len(name) :], *words[index + 1 : index + num_words]]
        elif (
            re.fullmatch("-[A-Za-z]{2,}", word)
            and {f"-{x}" for x in word[1:]} <= value_counts.keys()
        ):
            for letter in word[1:]:  # -ps stands for -p -s
                (result.ours if f"-{letter}" in counts[1] else result.theirs).append(f"-{letter}")
        else:
            raise UsageError(unknown_option(name, value_counts))
        index += num_words
    return result


def parse_shared(
    words: Sequence[str],
    ours: argparse.ArgumentParser,
    theirs: argparse.ArgumentParser,
    example: str,
    defaults: Sequence[str] = (),
) -> tuple[argparse.Namespace, list[str]]:
    """Return our arguments, and the options of the program that goes on.

    ``defaults`` are further options of that program, in place of which those in ``words`` stand.

    Raises
    ------
    UsageError
        As :func:`split_arguments`; or there is no structure, of which ``example`` shows the place.

    """
    split = split_arguments(words, ours, theirs)
    needed = any(action.required and not action.option_strings for action in ours._actions)
    if needed and not split.positional:
        raise UsageError(
            "STRUCTURE is missing: the file stands before options with several values, as in "
            f"{example}"
        )
    args = ours.parse_args([*split.positional, *split.ours])
    options = _absent(defaults, split.theirs, ours, theirs) + split.theirs
    return args, options + ["-q"] * args.quiet + ["-v"] * args.verbose


def _absent(
    defaults: Sequence[str],
    words: Sequence[str],
    ours: argparse.ArgumentParser,
    theirs: argparse.ArgumentParser,
) -> list[str]:
    """Return those of ``defaults`` that ``words`` do not set."""
    split = split_arguments(defaults, ours, theirs)
    foreign = split.positional + split.ours
    if foreign:
        raise UsageError(f"{foreign[0]} is no option of {theirs.prog}")
    names = {name: action.dest for action in theirs._actions for name in action.option_strings}

    def option(group: Sequence[str]) -> str:
        return names[group[0].partition("=")[0]]

    given = {option(group) for group in grouped_options(words)}
    groups = [group for group in grouped_options(split.theirs) if option(group) not in given]
    return [word for group in groups for word in group]


def grouped_options(options: Sequence[str]) -> list[list[str]]:
    """Return each option together with its values."""
    groups: list[list[str]] = []
    for word in options:
        if is_option(word):
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def run_in_process(program: str, run: Callable[[], None], file: str, options: Sequence[str]) -> int:
    """Run the script of a program on a file and return its exit status.

    Raises
    ------
    PhonopyEquivariantError
        The program fails with an exception of its own.

    """
    try:
        with arguments([program, file, *options]):
            run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (BrokenPipeError, MemoryError, PhonopyEquivariantError):
        raise
    except OSError as error:
        raise PhonopyEquivariantError(
            f"{program} cannot write or read {error.filename or 'a file'}: {error.strerror}; "
            f"{file} is complete, so mend that and repeat with plain {program}."
        ) from error
    except BaseException as error:
        # Rust code of phonopy and phono3py panics with an exception that is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise PhonopyEquivariantError(
            f"{program} fails on these options ({type(error).__name__}: {one_line(str(error))}); "
            f"{file} is complete, so plain {program} repeats it without computing again."
        ) from error
    return 0


@contextlib.contextmanager
def arguments(words: list[str]) -> Iterator[None]:
    """Put words in place of ``sys.argv`` inside."""
    saved, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = saved


def one_line(text: str) -> str:
    """Return what a program printed, as one line of at most 300 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines)[-300:] or "no reason given"


def _value_counts(parser: argparse.ArgumentParser) -> dict[str, int | str | None]:
    """Return how many values each option takes, as argparse writes it."""
    return {name: action.nargs for action in parser._actions for name in action.option_strings}


def is_option(word: str) -> bool:
    """Tell whether a word is an option, and no negative number."""
    return len(word) > 1 and word.startswith("-") and not _NEGATIVE_NUMBER.match(word)


def _count_values(following: Sequence[str], count: int | str | None) -> int:
    free = next((k for k, word in enumerate(following) if is_option(word)), len(following))
    if isinstance(count, int):
        return min(count, free)
    return free if count in ("+", "*") else min(1, free)

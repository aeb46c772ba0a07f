"""Options that several subcommands share."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from phonopy_equivariant import defaults
from phonopy_equivariant.catalogue.bundled import DEFAULT_MODEL
from phonopy_equivariant.cli.settings import settings_file, take_settings
from phonopy_equivariant.errors import unknown_option

if TYPE_CHECKING:
    from phonopy_equivariant.workflows.options import RelaxationOptions

    # What parsers of commands, or of actions of a command, are added to.
    Commands: TypeAlias = argparse._SubParsersAction["Parser"]
else:
    Commands = argparse._SubParsersAction


# Options that help shows first: the first five of these that a command has.
_MOST_USED = (
    *("--model", "--relax", "--dim", "--exact", "--anisotropic", "--volumes", "--temperature"),
    *("--max-cells", "--mesh", "--tmax", "--format", "--no-plots", "--output"),
)
_FIRST = 5
# A shorter list of options needs no such order.
_SHORT = 7


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help with descriptions and examples as they are written, in 100 columns."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=28, width=100)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and name the way to the help."""

    passes_on = ""  # the program that takes the options which this parser does not know

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def sections(self) -> list[tuple[str, list[argparse.Action]]]:
        """Return titles and contents of the help: arguments, most used options, all others."""
        shown = [action for action in self._actions if action.help != argparse.SUPPRESS]
        positional = [action for action in shown if not action.option_strings]
        names = self._option_string_actions
        first = [names[name] for name in _MOST_USED if name in names][:_FIRST]
        if len(shown) - len(positional) <= _SHORT:
            first = []
        sections = [("arguments", positional), ("most used options", first)]
        groups = [g for g in self._action_groups if g is not self._optionals]
        for group in [*groups, self._optionals]:
            actions = [a for a in group._group_actions if a in shown and a not in first]
            title = "other options" if group is self._optionals else str(group.title)
            sections.append((title, [a for a in actions if a.option_strings]))
        return [(title, actions) for title, actions in sections if actions]

    def format_usage(self) -> str:
        """Return one line: what is required, and that there are options."""
        words = [self.prog]
        for action in self._actions:
            required = action.required or not action.option_strings
            if required and action.help != argparse.SUPPRESS:
                value = str(action.metavar or action.dest)
                more = isinstance(action, argparse._SubParsersAction) or action.nargs in ("+", "*")
                words += [*action.option_strings[:1], value + " ..." * more]
        return f"usage: {self.usage or ' '.join([*words, '[options]'])}\n"

    def format_help(self) -> str:
        """Return the help: usage, description, :meth:`sections`, examples."""
        formatter = self._get_formatter()
        formatter.add_text(self.format_usage())
        formatter.add_text(self.description)
        for title, actions in self.sections():
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse with the values of ``--dim`` last: the structure file may follow them.

        The file of ``--settings`` gives defaults, if the command has that option.
        """
        words = dim_last(sys.argv[1:] if args is None else args)
        path = settings_file(words) if "--settings" in self._option_string_actions else None
        if path is not None:
            take_settings(self, path, words, self.passes_on)
        parsed, unknown = super().parse_known_args(words, namespace)
        if unknown and self._subparsers is None:  # the command itself says so, and not the program
            option = unknown[0].partition("=")[0]
            if option.startswith("-"):
                self.error(unknown_option(option, self._option_string_actions))
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown


def dim_last(words: Sequence[str]) -> list[str]:
    """Move ``--dim`` and its numbers to the end of a command line; several stay in order."""
    words = list(words)
    if words.count("--dim") != 1:
        return words
    first = words.index("--dim")
    end = first + 2  # whatever follows first is meant as its value
    while end < len(words) and _are_numbers(words[end]):
        end += 1
    return words[:first] + words[end:] + words[first:end]


def _are_numbers(word: str) -> bool:
    try:
        return bool([float(number) for number in word.split()])
    except ValueError:
        return False


def finite_number(word: str) -> float:
    """Return the value of an option that is a number; not a number and infinity are refused."""
    value = float(word)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{word} is not a finite number")
    return value


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the choice of potential, its precision and the device."""
    group = parser.add_argument_group("potential")
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="M",
        help="a name from 'phonopy-equivariant models list', or the path of a checkpoint "
        "(.npz, .nqx, .pth, .ckpt, .nequip.zip, .model); default: %(default)s, part of the "
        "package, for a first look",
    )
    group.add_argument(
        "--dtype",
        choices=("float64", "float32"),
        default="float64",
        help="precision of the potential; default: %(default)s",
    )
    add_device_option(group)


def model_words(args: argparse.Namespace) -> str:
    """Return the option that names the model in a command to go on with; "" for the default."""
    return "" if args.model == DEFAULT_MODEL else f" --model {shlex.quote(args.model)}"


def add_device_option(group: argparse._ActionsContainer) -> None:
    """Add the choice between processor and graphics card."""
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="where to compute; auto takes a GPU if JAX finds one; default: %(default)s",
    )


def add_dim_option(group: argparse._ActionsContainer) -> None:
    """Add the supercell size."""
    group.add_argument(
        "--dim",
        nargs="+",
        metavar="N",
        help="supercell as one number, three numbers, or nine (rows of the matrix); default: the "
        "smallest of inscribed diameter 20 Å, 10 Å with Born charges",
    )


def add_relaxation_options(group: argparse._ActionsContainer) -> None:
    """Add the relaxation that comes before what a command computes."""
    group.add_argument(
        "--relax", action="store_true", help="relax atoms and cell first, in the space group"
    )
    group.add_argument(
        "--fmax",
        type=finite_number,
        metavar="F",
        help=f"largest force after the relaxation in eV/Å; default: {defaults.FMAX:g}",
    )


def relaxation_of(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> RelaxationOptions | None:
    """Return the options of the relaxation asked for, or None; contradictory words are an error."""
    from phonopy_equivariant.workflows.options import RelaxationOptions

    if args.fmax is not None and not args.relax:
        parser.error("contradictory options: --fmax without --relax; add --relax")
    fmax = defaults.FMAX if args.fmax is None else args.fmax
    return RelaxationOptions(fmax) if args.relax else None


def add_structure_arguments(
    parser: argparse.ArgumentParser, description: str = "structure file"
) -> None:
    """Add the arguments that name a structure file and one of its structures."""
    parser.add_argument("structure", metavar="STRUCTURE", help=description)
    parser.add_argument(
        "--index",
        type=int,
        metavar="I",
        help="which structure of a file with several: 0 is the first, -1 the last; default: -1",
    )


def add_logging_options(parser: argparse.ArgumentParser) -> None:
    """Add -q and -v."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    group.add_argument(
        "-v", "--verbose", action="store_true", help="say more, and show tracebacks of errors"
    )


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add --settings, --json, -q and -v."""
    parser.add_argument(
        "--settings",
        metavar="FILE",
        help="YAML file with options, as every run writes it (COMMAND-settings.yaml); options of "
        "the command line win",
    )
    add_json_option(parser)
    add_logging_options(parser)


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="results as one JSON object on standard output, all else on standard error",
    )


def parser_arguments(description: str, epilog: str) -> dict[str, Any]:
    """Return what every subcommand's parser is made with."""
    return {
        "description": description,
        "epilog": epilog,
        "formatter_class": HelpFormatter,
        "allow_abbrev": False,
    }

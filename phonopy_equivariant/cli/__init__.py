"""The command ``phonopy-equivariant``: parse and call.

Nothing heavy is imported before a subcommand runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from phonopy_equivariant.cli.bars import close_bars
from phonopy_equivariant.cli.batch import add_command as add_batch
from phonopy_equivariant.cli.completion import SHELLS, completion_script, subparsers
from phonopy_equivariant.cli.converge import add_command as add_converge
from phonopy_equivariant.cli.dataset import add_command as add_dataset
from phonopy_equivariant.cli.elastic import add_command as add_elastic
from phonopy_equivariant.cli.evaluate import add_command as add_evaluate
from phonopy_equivariant.cli.failures import exit_status, process_status
from phonopy_equivariant.cli.fc import add_command as add_fc
from phonopy_equivariant.cli.fc3 import add_command as add_fc3
from phonopy_equivariant.cli.gruneisen import add_command as add_gruneisen
from phonopy_equivariant.cli.kappa import add_command as add_kappa
from phonopy_equivariant.cli.kappa import main as kappa
from phonopy_equivariant.cli.models import add_command as add_models
from phonopy_equivariant.cli.molecule import add_command as add_molecule
from phonopy_equivariant.cli.options import Parser, parser_arguments
from phonopy_equivariant.cli.qha import add_command as add_qha
from phonopy_equivariant.cli.relax import add_command as add_relax
from phonopy_equivariant.cli.run import add_command as add_run
from phonopy_equivariant.cli.run import main as run
from phonopy_equivariant.cli.sscha import add_command as add_sscha
from phonopy_equivariant.cli.surroundings import surroundings_kept
from phonopy_equivariant.cli.train import add_command as add_train
from phonopy_equivariant.cli.unstable import add_command as add_unstable
from phonopy_equivariant.runtime.allocation import keep_freed_memory

PROGRAM = "phonopy-equivariant"

_DESCRIPTION = """\
Phonons from E(3)-equivariant potentials: analytic force constants in place of displaced
supercells. Everything after the force constants is phonopy's own.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant run NaCl.cif --band auto --mesh 20 20 20 --dos -p -s
      force constants, bands and density of states of a crystal, plotted into band_dos.pdf
  phonopy-equivariant run POSCAR --relax --mesh 20 20 20 -t
      relax atoms and cell with the potential first
  phonopy-equivariant fc phonopy_disp.yaml
      in place of all force calculations of a frozen-phonon run
  phonopy-equivariant fc3 POSCAR --dim 2 2 2
      third-order force constants, for phono3py
  phonopy-equivariant kappa POSCAR --dim 2 2 2 --mesh 11 11 11
      thermal conductivity, with phono3py
  phonopy-equivariant relax POSCAR -o POSCAR_relaxed
  phonopy-equivariant elastic POSCAR --relax
  phonopy-equivariant gruneisen POSCAR --relax
  phonopy-equivariant qha POSCAR --tmax 1500
  phonopy-equivariant converge POSCAR --relax
  phonopy-equivariant sscha POSCAR --temperature 300 600
  phonopy-equivariant unstable POSCAR
      follow imaginary modes to stable structures
  phonopy-equivariant molecule CH4.xyz --relax
  phonopy-equivariant batch structures/ -o screening
  phonopy-equivariant evaluate dft/ --model nequix-mp-1-pft nequix-oam-1-pft
  phonopy-equivariant train nacl.yaml
  phonopy-equivariant dataset info train.extxyz
  phonopy-equivariant models list

"phonopy-equivariant COMMAND --help" explains a command.
Exit status: 0 success, 1 an error in the input or on the way, 2 wrong usage, 130 Ctrl-C.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Be the process of the command with ``argv`` (default: its arguments); return its status.

    Ctrl-C and SIGTERM end the process. In a process that is to go on, use :func:`run_command`.
    """
    keep_freed_memory()
    words = list(sys.argv[1:] if argv is None else argv)
    return process_status(lambda: run_command(words))


def run_command(words: Sequence[str]) -> int:
    """Run the command with the words after its name; return its exit status.

    An error is one line on standard error and a status. Interpreter, signal handlers, environment
    and output streams are afterwards as they were. Ctrl-C raises ``KeyboardInterrupt``.
    """
    verbose = "-v" in words or "--verbose" in words
    command = next(iter(words), "")
    with surroundings_kept():
        return exit_status(lambda: _run(list(words)), verbose, command)


def _run(words: list[str]) -> int:
    try:
        return _dispatch(words)
    finally:
        close_bars()  # before an error is printed


def _dispatch(words: list[str]) -> int:
    shared = {"run": run, "kappa": kappa}  # their options are ours and phonopy's or phono3py's
    if words and words[0] in shared:
        return shared[words[0]](words[1:])
    parser = _parser()
    if words and words[0] not in subparsers(parser) and Path(words[0]).is_file():
        parser.error(f"{words[0]} is no command; did you mean '{PROGRAM} run {words[0]}'?")
    args = parser.parse_args(words)
    status: int = args.function(args)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=PROGRAM, **parser_arguments(_DESCRIPTION, _EXAMPLES))
    parser.add_argument("--version", action=_Version, nargs=0, help="show versions and exit")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=SHELLS,
        help="write a script that completes words in a shell, and exit",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    adders = (
        *(add_run, add_fc, add_relax, add_elastic, add_gruneisen, add_qha, add_fc3, add_kappa),
        *(add_sscha, add_unstable, add_converge, add_molecule, add_batch, add_evaluate),
        *(add_train, add_dataset, add_models),
    )
    for add_command in adders:
        add_command(commands)
    return parser


class _Completion(argparse.Action):
    """Print the completion script of a shell."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: object) -> None:
        print(completion_script(parser, str(arguments[1])))
        parser.exit()


class _Version(argparse.Action):
    """Print the version with those of the packages that numbers depend on."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import platform
        from importlib.metadata import version

        from phonopy_equivariant._version import __version__

        libraries = ", ".join(f"{name} {version(name)}" for name in ("phonopy", "ase", "jax"))
        print(f"{PROGRAM} {__version__} ({libraries}, Python {platform.python_version()})")
        parser.exit()

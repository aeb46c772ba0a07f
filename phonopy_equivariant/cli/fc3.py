"""``phonopy-equivariant fc3``: third-order force constants as files for phono3py."""

from __future__ import annotations

import argparse
import functools
from typing import Any

from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    add_logging_options,
    add_model_options,
    add_relaxation_options,
    add_structure_arguments,
    parser_arguments,
    relaxation_of,
)

_DESCRIPTION = """\
Compute third-order force constants (and those of second order) and write them for phono3py:
fc3.hdf5, fc2.hdf5 and phono3py_params.yaml. No supercell is displaced. STRUCTURE is any file that
ASE reads, or phono3py's YAML: phono3py_disp.yaml stands where forces would be computed, and this
one command replaces all of them.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant fc3 POSCAR --dim 2 2 2
  phonopy-equivariant fc3 POSCAR --dim 2 2 2 --dim-fc2 4 4 4 --relax
  phonopy-equivariant fc3 phono3py_disp.yaml            the supercells of the file

Then, for instance: phono3py phono3py_params.yaml --fc3 --fc2 --mesh 11 11 11 --br
phono3py must be installed: phonopy_equivariant[kappa].
"""


def add_command(commands: Any) -> None:
    """Add the parser of ``fc3``."""
    parser = commands.add_parser(
        "fc3",
        help="third-order force constants as files for phono3py",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    add_structure_arguments(parser, "structure file or phono3py_disp.yaml")
    add_model_options(parser)
    group = parser.add_argument_group("crystal")
    add_supercell_options(group)
    add_relaxation_options(group)
    add_logging_options(parser)
    parser.set_defaults(function=functools.partial(_main, parser))


def add_supercell_options(group: Any) -> None:
    """Add ``--dim`` and ``--dim-fc2``, the supercells of both orders."""
    group.add_argument(
        "--dim",
        nargs="+",
        metavar="N",
        help="supercell of third order as one number, three numbers, or nine (rows of the matrix); "
        "default: that of phono3py's file",
    )
    group.add_argument(
        "--dim-fc2",
        nargs="+",
        metavar="N",
        help="supercell of second order; default: that of phono3py's file, or else that of --dim",
    )


def _main(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.start import start_crystal
    from phonopy_equivariant.io.supercells import parse_dim
    from phonopy_equivariant.io.third_order import FILES, keep_others, require_phono3py

    relaxation = relaxation_of(parser, args)
    matrix, second = (None if x is None else parse_dim(x) for x in (args.dim, args.dim_fc2))
    console = Console(args.quiet, args.verbose, "fc3")
    require_phono3py()
    keep_others()
    crystal, potential = start_crystal(args, console, list(FILES))
    from phonopy_equivariant.workflows.third_order import ThirdOrderOptions, third_order_files

    options = ThirdOrderOptions(matrix, second, relaxation)
    report = third_order_files(crystal, potential, options, console)
    console.report("Third-order force constants", report.lines())
    return 0

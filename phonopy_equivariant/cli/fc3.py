"""``phonopy-equivariant fc3``: third-order force constants as files for phono3py."""

from __future__ import annotations

import argparse
import functools
from typing import Any

from phonopy_equivariant import defaults
from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    add_common_options,
    add_model_options,
    add_relaxation_options,
    add_structure_arguments,
    finite_number,
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
  phonopy-equivariant fc3 POSCAR --dim auto --dim-tolerance 0.02
  phonopy-equivariant fc3 phono3py_disp.yaml            the supercells of the file

Then, for instance: phono3py phono3py_params.yaml --fc3 --fc2 --mesh 11 11 11 --br
phono3py must be installed: pip install 'phono3py>=4.10,<4.11'.
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
    add_common_options(parser)
    parser.set_defaults(function=functools.partial(_main, parser))


def add_supercell_options(group: Any) -> None:
    """Add ``--dim`` and ``--dim-fc2``, the supercells of both orders."""
    group.add_argument(
        "--dim",
        nargs="+",
        metavar="N",
        help="supercell of third order as one number, three numbers, nine (rows of the matrix), or "
        "auto: one large enough for --dim-tolerance; default: that of phono3py's file",
    )
    group.add_argument(
        "--dim-tolerance",
        type=finite_number,
        metavar="X",
        help="largest interpolation error with --dim auto; default: "
        f"{defaults.THIRD_ORDER_TOLERANCE:g}",
    )
    group.add_argument(
        "--dim-fc2",
        nargs="+",
        metavar="N",
        help="supercell of second order; default: that of phono3py's file, or else that of --dim",
    )


def supercells_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of ThirdOrderOptions that the options of supercells stand for."""
    from phonopy_equivariant.io.supercells import parse_dim

    is_auto = args.dim == ["auto"]
    tolerance = args.dim_tolerance
    if tolerance is not None and not (is_auto and tolerance > 0):
        parser.error("contradictory options: --dim-tolerance is a positive number with --dim auto")
    if is_auto and tolerance is None:
        tolerance = defaults.THIRD_ORDER_TOLERANCE
    return {
        "supercell": None if is_auto or args.dim is None else parse_dim(args.dim),
        "second_supercell": None if args.dim_fc2 is None else parse_dim(args.dim_fc2),
        "tolerance": tolerance,
    }


def _main(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.start import start_crystal
    from phonopy_equivariant.io.third_order import FILES, keep_others, require_phono3py

    relaxation = relaxation_of(parser, args)
    supercells = supercells_of(parser, args)
    console = Console.of(args, "fc3")
    require_phono3py()
    keep_others()
    crystal, potential = start_crystal(args, console, list(FILES))
    from phonopy_equivariant.workflows.third_order import ThirdOrderOptions, third_order_files

    options = ThirdOrderOptions(relaxation=relaxation, **supercells)
    report = third_order_files(crystal, potential, options, console)
    console.report("Third-order force constants", report.lines())
    follow = "phono3py phono3py_params.yaml --fc3 --fc2 --mesh 11 11 11 --br"
    console.conclude({"report": report}, FILES, [follow])
    return 0

"""``phonopy-equivariant converge``: which mesh and which supercell suffice."""

from __future__ import annotations

import argparse
import functools
import os

from phonopy_equivariant import defaults
from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    Commands,
    add_common_options,
    add_model_options,
    add_relaxation_options,
    add_structure_arguments,
    finite_number,
    parser_arguments,
    relaxation_of,
)

_DESCRIPTION = """\
Which mesh and which supercell suffice. Meshes are made finer with the exact D(q), which needs no
supercell; then supercells are made larger on the last mesh. Free energy, entropy, heat capacity and
the highest frequency are watched.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant converge POSCAR --relax
  phonopy-equivariant converge NaCl.cif --tolerance 1e-4 --temperature 100 -o NaCl

files written into a folder (-o, default converge): converge.yaml, converge.pdf
"""


def add_command(commands: Commands) -> None:
    """Add the parser of ``converge``."""
    parser = commands.add_parser(
        "converge",
        help="which mesh and which supercell suffice",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    add_structure_arguments(parser)
    add_model_options(parser)
    group = parser.add_argument_group("convergence")
    group.add_argument(
        "--tolerance",
        type=finite_number,
        default=defaults.CONVERGENCE,
        metavar="X",
        help="largest change, of F in 3NkT, of S and Cv in 3Nk, and of the highest frequency; "
        "default: %(default)g",
    )
    group.add_argument(
        "--temperature",
        type=finite_number,
        default=300.0,
        metavar="T",
        help="in K; default: %(default)g",
    )
    group.add_argument(
        "--max-atoms",
        type=int,
        default=defaults.LARGEST_SUPERCELL,
        metavar="N",
        help="of the largest supercell; default: %(default)s",
    )
    add_relaxation_options(group)
    group.add_argument(
        "-o",
        "--output",
        default="converge",
        metavar="FOLDER",
        help="folder of the files; default: %(default)s",
    )
    add_common_options(parser)
    parser.set_defaults(function=functools.partial(_main, parser))


def _main(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.start import start_crystal
    from phonopy_equivariant.workflows.options import ConvergenceOptions

    relaxation = relaxation_of(parser, args)
    options = ConvergenceOptions(args.tolerance, args.temperature, relaxation, args.max_atoms)
    console = Console.of(args, "converge")
    crystal, potential = start_crystal(args, console, ["converge.yaml"], args.output)
    from phonopy_equivariant.workflows.convergence import converge_crystal

    result = converge_crystal(crystal, potential, options, console)
    result.write_yaml(os.path.join(args.output, "converge.yaml"))
    result.write_plot(args.output)
    console.table(result, result.heading())
    console.conclude({"convergence": result}, [args.output], folder=args.output)
    return 0

"""``phonopy-equivariant sscha``: self-consistent phonons at temperatures."""

from __future__ import annotations

import argparse
import functools
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from phonopy_equivariant.workflows.options import RelaxationOptions, SSCHAOptions

_DESCRIPTION = """\
Self-consistent harmonic phonons at one or several temperatures (SSCHA): phonopy's, started from the
analytic force constants. Supercells are displaced at random as the temperature and the force
constants say, and new force constants fitted to the forces, until they agree.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant sscha SrTiO3.cif --temperature 100 200 300 --dim 2 2 2
      the temperature at which a soft mode hardens
  phonopy-equivariant sscha MgO.cif --temperature 1000 --snapshots 400 --iterations 20 -o MgO

files written into a folder (-o, default sscha):
  sscha.yaml                free energies with errors, all iterations
  phonopy_params-300K.yaml  self-consistent force constants, one file for each temperature:
                            phonopy phonopy_params-300K.yaml --band auto -p
  sscha-300K.npz            the state after each iteration: the same command goes on from
                            there, with more --iterations too; --restart begins anew
"""


def add_command(commands: Commands) -> None:
    """Add the parser of ``sscha``."""
    parser = commands.add_parser(
        "sscha",
        help="self-consistent phonons at temperatures",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    add_structure_arguments(parser)
    add_model_options(parser)
    group = parser.add_argument_group("self-consistent phonons")
    group.add_argument(
        "--temperature",
        type=finite_number,
        nargs="+",
        default=[defaults.SSCHA_TEMPERATURE],
        metavar="T",
        help=f"temperatures in K; default: {defaults.SSCHA_TEMPERATURE:g}",
    )
    group.add_argument(
        "--dim",
        nargs="+",
        metavar="N",
        help="supercell as one number, three numbers, or nine (rows of the matrix); default: the "
        f"smallest of inscribed diameter {defaults.SSCHA_DIAMETER:g} Å",
    )
    add_relaxation_options(group)
    group.add_argument(
        "--mesh",
        type=int,
        nargs=3,
        metavar="N",
        help="mesh of the harmonic part of the free energy, best of odd numbers; default: that of "
        f"phonopy's length of {defaults.SSCHA_MESH:g} Å",
    )
    for option, default, text in (
        ("--snapshots", defaults.SNAPSHOTS, "displaced supercells of an iteration"),
        ("--iterations", defaults.ITERATIONS, "number of iterations"),
        ("--seed", 0, "of the random displacements"),
    ):
        group.add_argument(
            option, type=int, default=default, metavar="N", help=f"{text}; default: %(default)s"
        )
    group.add_argument(
        "--restart", action="store_true", help="begin anew where the folder has a state"
    )
    group.add_argument(
        "-o",
        "--output",
        default="sscha",
        metavar="FOLDER",
        help="folder of the files; default: %(default)s",
    )
    add_common_options(parser)
    parser.set_defaults(function=functools.partial(_main, parser))


def _main(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.start import start_crystal

    relaxation = relaxation_of(parser, args)
    options = _options(args, relaxation)
    console = Console.of(args, "sscha")
    crystal, potential = start_crystal(args, console, ["sscha.yaml"], args.output)
    from phonopy_equivariant.workflows.sscha import sscha_of_crystal

    result = sscha_of_crystal(crystal, potential, options, console)
    for run in result.runs:
        if console.verbosity > 1:
            console.table(run, f"{run.temperature:g} K, per primitive cell")
    console.table(result, "F and its standard error per primitive cell, above the crystal at rest")
    console.conclude({"sscha": result}, [args.output], folder=args.output)
    return 0


def _options(args: argparse.Namespace, relaxation: RelaxationOptions | None) -> SSCHAOptions:
    from phonopy_equivariant.io.supercells import parse_dim
    from phonopy_equivariant.workflows.options import SSCHAOptions

    return SSCHAOptions(
        temperatures=tuple(args.temperature),
        supercell=None if args.dim is None else parse_dim(args.dim),
        relaxation=relaxation,
        snapshots=args.snapshots,
        iterations=args.iterations,
        seed=args.seed,
        mesh=defaults.SSCHA_MESH if args.mesh is None else tuple(args.mesh),
        folder=args.output,
        restart=args.restart,
    )

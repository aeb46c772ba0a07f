"""``phonopy-equivariant elastic``: elastic constants, moduli and sound of a crystal."""

from __future__ import annotations

import argparse
import functools

from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    Commands,
    add_common_options,
    add_model_options,
    add_relaxation_options,
    add_structure_arguments,
    parser_arguments,
    relaxation_of,
)

_DESCRIPTION = """\
Elastic constants of a crystal from second derivatives of the energy, without strained cells:
clamped (atoms move with the cell) and relaxed; bulk and shear modulus of a polycrystal, stability,
velocities of sound, Debye temperature. A crystal under stress has other constants: --relax first.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant elastic POSCAR --relax
  phonopy-equivariant elastic MgO.cif --relax --model nequix-oam-1-pft -o MgO_elastic.yaml

The relaxed tensor is checked against the one that follows from sound waves, D(q) at small q.
"""


def add_command(commands: Commands) -> None:
    """Add the parser of ``elastic``."""
    parser = commands.add_parser(
        "elastic",
        help="elastic tensor, moduli, velocities of sound, Debye temperature",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    add_structure_arguments(parser)
    add_model_options(parser)
    group = parser.add_argument_group("crystal and output")
    add_relaxation_options(group)
    group.add_argument(
        "-o",
        "--output",
        default="elastic.yaml",
        metavar="FILE",
        help="file written; default: %(default)s",
    )
    add_common_options(parser)
    parser.set_defaults(function=functools.partial(_main, parser))


def _main(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.start import start_crystal

    relaxation = relaxation_of(parser, args)
    console = Console.of(args, "elastic")
    crystal, potential = start_crystal(args, console, [args.output])
    from phonopy_equivariant.workflows.elastic import elastic_properties

    result = elastic_properties(crystal, potential, relaxation, console)
    result.tensor.write_yaml(args.output)
    console.report("Elastic tensor", result.lines())
    results = {"tensor": result.tensor, "difference_from_sound_waves": result.difference}
    console.conclude(results, [args.output])
    return 0

"""``phonopy-equivariant gruneisen``: mode Grüneisen parameters on a mesh and along the bands."""

from __future__ import annotations

import argparse
import functools

from phonopy_equivariant import defaults
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
Mode Grüneisen parameters -∂ln ω/∂ln V from third derivatives of the energy: no cells of other
volumes, no supercell, atoms follow the strain. They are computed on a mesh, with their mean at some
temperatures, and along the path of SeeK-path, with a plot of the bands coloured by them. A crystal
under stress has other parameters: --relax first.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant gruneisen POSCAR --relax
  phonopy-equivariant gruneisen NaCl.cif --relax --mesh 20 20 20 --band-points 101 -o NaCl_gruneisen

files written (NAME: -o, default gruneisen), with the keys of phonopy's gruneisen.yaml:
  NAME_mesh.yaml, NAME_bands.yaml, NAME_bands.png
"""

_SUFFIXES = ("_mesh.yaml", "_bands.yaml", "_bands.png")


def add_command(commands: Commands) -> None:
    """Add the parser of ``gruneisen``."""
    parser = commands.add_parser(
        "gruneisen",
        help="mode Grüneisen parameters: mesh, mean, bands coloured by them",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    add_structure_arguments(parser)
    add_model_options(parser)
    group = parser.add_argument_group("crystal and output")
    add_relaxation_options(group)
    group.add_argument(
        "--mesh",
        type=int,
        nargs=3,
        default=defaults.GRUNEISEN_MESH,
        metavar="N",
        help=f"Γ-centred mesh; default: {' '.join(map(str, defaults.GRUNEISEN_MESH))}",
    )
    group.add_argument(
        "--band-points",
        type=int,
        default=defaults.BAND_POINTS,
        metavar="N",
        help="q of each segment of the path; default: %(default)s",
    )
    group.add_argument(
        "-o",
        "--output",
        default="gruneisen",
        metavar="NAME",
        help="what the files are called; default: %(default)s",
    )
    add_common_options(parser)
    parser.set_defaults(function=functools.partial(_main, parser))


def _main(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.start import start_crystal

    relaxation = relaxation_of(parser, args)
    console = Console.of(args, "gruneisen")
    files = [args.output + suffix for suffix in _SUFFIXES]
    crystal, potential = start_crystal(args, console, files)
    from phonopy_equivariant.workflows.gruneisen import gruneisen_of_crystal

    mesh, bands = gruneisen_of_crystal(
        crystal, potential, relaxation, args.mesh, args.band_points, console
    )
    mesh.write_yaml(files[0])
    bands.write_yaml(files[1])
    bands.write_plot(files[2])
    console.table(mesh)
    console.conclude({"mesh": mesh, "bands": bands}, files)
    return 0

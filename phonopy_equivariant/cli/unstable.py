"""``phonopy-equivariant unstable``: follow imaginary modes to stable structures."""

from __future__ import annotations

import argparse
import functools

from phonopy_equivariant import defaults
from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    Commands,
    add_common_options,
    add_model_options,
    add_structure_arguments,
    finite_number,
    parser_arguments,
)

_DESCRIPTION = """\
Follow the imaginary modes of a crystal to structures that have none. The crystal is relaxed in its
space group. Imaginary modes are looked for at Γ and at the q of small supercells. For each, in
every direction of high symmetry, the distorted cell is relaxed in its space group, and what comes
out is looked at in the same way.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant unstable BaTiO3.cif --model nequix-oam-1-pft
  phonopy-equivariant unstable SrTiO3.cif --max-cells 4 --max-atoms 80 -o SrTiO3

files written into a folder (-o, default unstable), anew with every crystal, so that Ctrl-C loses
nothing:
  unstable.yaml   crystals, energies, space groups, modes, energies along the modes
  phase-NN.vasp   the crystals
  unstable.pdf    energies of the crystals and what leads to what, at the end
"""


def add_command(commands: Commands) -> None:
    """Add the parser of ``unstable``."""
    parser = commands.add_parser(
        "unstable",
        help="follow imaginary modes to stable structures",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    add_structure_arguments(parser)
    add_model_options(parser)
    group = parser.add_argument_group("search")
    group.add_argument(
        "--max-cells",
        type=int,
        default=defaults.MAX_CELLS,
        metavar="N",
        help="largest supercell, in primitive cells, whose q are looked at; 2 is Γ and the zone "
        "boundary; default: %(default)s",
    )
    group.add_argument(
        "--max-atoms",
        type=int,
        default=defaults.MAX_ATOMS,
        metavar="N",
        help="largest number of atoms of a distorted cell; default: %(default)s",
    )
    group.add_argument(
        "--max-structures",
        type=int,
        default=defaults.MAX_STRUCTURES,
        metavar="N",
        help="number of crystals after which to stop; default: %(default)s",
    )
    group.add_argument(
        "--threshold",
        type=finite_number,
        default=defaults.THRESHOLD,
        metavar="THZ",
        help="how far below zero a frequency counts as imaginary in THz; default: %(default)g",
    )
    group.add_argument(
        "--fmax",
        type=finite_number,
        default=defaults.FMAX,
        metavar="F",
        help="largest force after a relaxation in eV/Å; default: %(default)g",
    )
    parser.add_argument(
        "-o",
        "--output",
        default="unstable",
        metavar="FOLDER",
        help="folder of the files; default: %(default)s",
    )
    add_common_options(parser)
    parser.set_defaults(function=_main)


def _main(args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.start import start_crystal
    from phonopy_equivariant.workflows.options import UnstableOptions

    options = UnstableOptions(
        args.max_cells, args.max_atoms, args.max_structures, args.threshold, args.fmax
    )
    console = Console.of(args, "unstable")
    crystal, potential = start_crystal(args, console, ["unstable.yaml"], args.output)
    from phonopy_equivariant.workflows.unstable import unstable_crystal, write_tree

    write = functools.partial(write_tree, args.output)
    tree = unstable_crystal(crystal, potential, options, console, write)
    write(tree)
    tree.write_plot(args.output)
    console.table(tree, tree.heading())
    console.conclude({"phases": tree}, [args.output], folder=args.output)
    return 0

"""``phonopy-equivariant fc``: force constants, or forces of displaced supercells, as files."""

from __future__ import annotations

import argparse

from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    Commands,
    add_common_options,
    add_dim_option,
    add_model_options,
    add_structure_arguments,
    parser_arguments,
)

_DESCRIPTION = """\
Compute force constants and write them for phonopy. STRUCTURE is any file that ASE reads, or
phonopy's YAML: phonopy_disp.yaml stands where a frozen-phonon run would start its force
calculations, and this one command replaces all of them.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant fc POSCAR --dim 2 2 2             writes phonopy_params.yaml
  phonopy-equivariant fc phonopy_disp.yaml              the same, with the supercell of the file
  phonopy-equivariant fc phonopy_disp.yaml --format FORCE_CONSTANTS
  phonopy-equivariant fc phonopy_disp.yaml --format hdf5
  phonopy-equivariant fc phonopy_disp.yaml --force-sets
      forces of the displaced supercells in FORCE_SETS, as phonopy-init -f makes it

Then, for instance: phonopy phonopy_params.yaml --mesh 20 20 20 -t
FORCE_CONSTANTS, force_constants.hdf5 and FORCE_SETS are in the units of the calculator that
phonopy_disp.yaml names; phonopy_params.yaml is in eV and Å.
"""

_FILES = {
    "yaml": "phonopy_params.yaml",
    "FORCE_CONSTANTS": "FORCE_CONSTANTS",
    "hdf5": "force_constants.hdf5",
}


def add_command(commands: Commands) -> None:
    """Add the parser of ``fc``."""
    parser = commands.add_parser(
        "fc",
        help="force constants as a file for phonopy",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    add_structure_arguments(parser, "structure file or phonopy_disp.yaml")
    add_model_options(parser)
    group = parser.add_argument_group("crystal and output")
    add_dim_option(group)
    output = group.add_mutually_exclusive_group()
    output.add_argument(
        "--format",
        choices=tuple(_FILES),
        default="yaml",
        help="file of the force constants; default: yaml, which is phonopy_params.yaml",
    )
    output.add_argument(
        "--force-sets",
        action="store_true",
        help="write the forces of the displaced supercells (FORCE_SETS) instead",
    )
    group.add_argument("-o", "--output", metavar="FILE", help="name of the file written")
    group.add_argument("--nonac", action="store_true", help="leave Born charges out of the file")
    add_common_options(parser)
    parser.set_defaults(function=_main)


def _main(args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.start import start_potential
    from phonopy_equivariant.io.crystals import read_crystal
    from phonopy_equivariant.io.outputs import check_output, keep_existing
    from phonopy_equivariant.io.supercells import parse_dim, select_supercell
    from phonopy_equivariant.workflows.force_sets import require_displacements

    console = Console.of(args, "fc")
    output = args.output or ("FORCE_SETS" if args.force_sets else _FILES[args.format])
    crystal = read_crystal(args.structure, args.index, console.say)
    check_output(output)
    if args.force_sets:
        require_displacements(crystal)
    if args.output is None and (args.force_sets or args.format != "yaml"):
        keep_existing(output)
    matrix = None if args.dim is None else parse_dim(args.dim)
    if matrix is not None:  # displacements of another supercell, before JAX starts
        select_supercell(crystal, matrix)
    potential = start_potential(args, console, crystal.unitcell)
    from phonopy_equivariant.workflows.force_constants import force_constants_file, force_sets_file
    from phonopy_equivariant.workflows.options import PhononOptions

    options = PhononOptions(matrix)
    if args.force_sets:
        force_sets_file(crystal, potential, options, output, console)
        console.conclude({}, [output])
        return 0
    result = force_constants_file(
        crystal, potential, options, output, args.format, console, born=not args.nonac
    )
    console.report("Force constants", result.lines())
    follow = [f"phonopy {output} --mesh 20 20 20 -t"] if args.format == "yaml" else []
    results = {"report": result.report, "stability": result.stability}
    console.conclude(results, [output], follow)
    return 0

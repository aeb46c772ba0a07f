"""``phonopy-equivariant relax``: a relaxed structure as a file."""

from __future__ import annotations

import argparse
import shlex

from phonopy_equivariant import defaults
from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    Commands,
    add_common_options,
    add_model_options,
    add_structure_arguments,
    finite_number,
    model_words,
    parser_arguments,
)

_DESCRIPTION = """\
Relax atoms and cell of a crystal with a potential, in its space group. STRUCTURE is any file that
ASE reads, or phonopy's YAML; OUT is written in the format that its name stands for in ASE.
Selective dynamics and other constraints of the file are honoured and stand in OUT.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant relax POSCAR -o POSCAR_relaxed
  phonopy-equivariant relax NaCl.cif -o NaCl.extxyz --fmax 1e-6
  phonopy-equivariant relax POSCAR -o POSCAR_relaxed --fixed-cell

POSCAR keeps all digits; .extxyz and .cif keep fewer, and with them less of the symmetry is exact.
"""


def add_command(commands: Commands) -> None:
    """Add the parser of ``relax``."""
    parser = commands.add_parser(
        "relax",
        help="relax atoms and cell in the space group",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    add_structure_arguments(parser)
    parser.add_argument("-o", "--output", metavar="OUT", required=True, help="file written")
    add_model_options(parser)
    group = parser.add_argument_group("relaxation")
    group.add_argument(
        "--fmax",
        type=finite_number,
        default=defaults.FMAX,
        metavar="F",
        help="largest force at the end, eV/Å; default: %(default)g",
    )
    group.add_argument("--fixed-cell", action="store_true", help="keep the lattice vectors")
    group.add_argument(
        "--tolerance",
        type=finite_number,
        default=defaults.SYMPREC,
        metavar="D",
        help="distance in Å within which symmetry is recognised and made exact; default: "
        "%(default)g",
    )
    add_common_options(parser)
    parser.set_defaults(function=_main)


def _main(args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.start import start_potential
    from phonopy_equivariant.io.crystals import read_atoms
    from phonopy_equivariant.io.outputs import (
        check_constraints,
        check_output,
        output_format,
        write_atoms,
    )

    console = Console.of(args, "relax")
    atoms = read_atoms(args.structure, args.index, console.say)
    output_format(args.output)
    check_output(args.output)
    check_constraints(atoms, args.output)
    potential = start_potential(args, console, atoms)
    from phonopy_equivariant.checkpoints.summary import familiarity_remarks
    from phonopy_equivariant.workflows.options import RelaxationOptions
    from phonopy_equivariant.workflows.relaxation import relax_structure

    options = RelaxationOptions(args.fmax, not args.fixed_cell, args.tolerance)
    result = relax_structure(atoms, potential, options, console)
    for remark in familiarity_remarks(potential, result.relaxed):
        console.warn(remark)
    write_atoms(result.relaxed, args.output)
    console.report("Relaxation", result.lines())
    console.conclude(
        {"relaxation": result},
        [args.output],
        [f"phonopy-equivariant run {shlex.quote(args.output)} --band auto{model_words(args)}"],
    )
    return 0

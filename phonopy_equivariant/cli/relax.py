"""``phonopy-equivariant relax``: a relaxed structure as a file."""

from __future__ import annotations

import argparse
from typing import Any

from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    add_logging_options,
    add_model_options,
    add_structure_arguments,
    finite_number,
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


def add_command(commands: Any) -> None:
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
        default=1e-4,
        metavar="F",
        help="largest force at the end, eV/Å; default: 1e-4",
    )
    group.add_argument("--fixed-cell", action="store_true", help="keep the lattice vectors")
    group.add_argument(
        "--tolerance",
        type=finite_number,
        default=1e-4,
        metavar="D",
        help="distance in Å within which symmetry is recognised and made exact; default: 1e-4",
    )
    add_logging_options(parser)
    parser.set_defaults(function=_main)


def _main(args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.start import start_potential, warn_if_far, watched
    from phonopy_equivariant.io.crystals import read_atoms
    from phonopy_equivariant.io.outputs import (
        check_constraints,
        check_output,
        output_format,
        write_atoms,
    )

    console = Console(args.quiet, args.verbose)
    atoms = read_atoms(args.structure, args.index, console.say)
    output_format(args.output)
    check_output(args.output)
    check_constraints(atoms, args.output)
    potential = start_potential(args, console, atoms)
    from phonopy_equivariant.calculators.relax import distance, relax, symmetrise

    cell = not args.fixed_cell
    start = symmetrise(atoms, args.tolerance, cell)
    with watched(console) as (show, steps):
        relaxed = relax(start, potential, args.fmax, cell, args.tolerance, callback=show)
    warn_if_far(console, potential, relaxed)
    write_atoms(relaxed, args.output)
    first, last = steps[0], steps[-1]
    console.report(
        "Relaxation",
        [
            f"potential  {potential.name}",
            f"symmetry   atoms moved by up to {distance(atoms, start):.1e} Å to make it exact",
            f"steps      {last.step}",
            f"energy     {first.energy:.6f} -> {last.energy:.6f} eV",
            f"force      {first.max_force:.1e} -> {last.max_force:.1e} eV/Å",
            f"stress     {first.max_stress:.1e} -> {last.max_stress:.1e} GPa",
            f"volume     {atoms.get_volume():.4f} -> {relaxed.get_volume():.4f} Å³",
        ],
    )
    console.say(f"The relaxed structure is in {args.output}.")
    return 0

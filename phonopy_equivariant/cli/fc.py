"""``phonopy-equivariant fc``: force constants, or forces of displaced supercells, as files."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    add_dim_option,
    add_logging_options,
    add_model_options,
    add_structure_arguments,
    parser_arguments,
)

if TYPE_CHECKING:
    from phonopy import Phonopy

    from phonopy_equivariant.io.crystals import Crystal
    from phonopy_equivariant.potential import Potential

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


def add_command(commands: Any) -> None:
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
    what = group.add_mutually_exclusive_group()
    what.add_argument(
        "--format",
        choices=tuple(_FILES),
        default="yaml",
        help="file of the force constants; default: yaml, which is phonopy_params.yaml",
    )
    what.add_argument(
        "--force-sets",
        action="store_true",
        help="write the forces of the displaced supercells (FORCE_SETS) instead",
    )
    group.add_argument("-o", "--output", metavar="FILE", help="name of the file written")
    group.add_argument("--nonac", action="store_true", help="leave Born charges out of the file")
    add_logging_options(parser)
    parser.set_defaults(function=_main)


def _main(args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.start import begin_response, start_potential
    from phonopy_equivariant.io.build import build_phonon
    from phonopy_equivariant.io.crystals import read_crystal
    from phonopy_equivariant.io.outputs import (
        check_output,
        keep_existing,
    )
    from phonopy_equivariant.io.supercells import supercell_line
    from phonopy_equivariant.workflows.force_sets import require_displacements
    from phonopy_equivariant.workflows.session import select_supercell

    console = Console(args.quiet, args.verbose)
    output = args.output or ("FORCE_SETS" if args.force_sets else _FILES[args.format])
    crystal = read_crystal(args.structure, args.index, console.say)
    check_output(output)
    if args.force_sets:
        require_displacements(crystal)
    if args.output is None and (args.force_sets or args.format != "yaml"):
        keep_existing(output)
    if args.dim is not None:
        select_supercell(crystal, args.dim)  # malformed numbers, before JAX starts
    potential = start_potential(args, console, crystal.unitcell)
    if not args.force_sets:
        begin_response(potential, console)
    matrix, origin = select_supercell(crystal, args.dim)
    console.say(supercell_line(crystal.unitcell, matrix, origin))
    with console.stage("Symmetry of the supercell"):
        phonon = build_phonon(crystal, matrix)
    if args.force_sets:
        _write_force_sets(phonon, potential, crystal, output, console)
    else:
        _write_force_constants(args, phonon, potential, crystal, output, console)
    return 0


def _write_force_sets(
    phonon: Phonopy, potential: Potential, crystal: Crystal, output: str, console: Console
) -> None:
    from phonopy_equivariant.cli.start import warn_if_far
    from phonopy_equivariant.workflows.force_sets import compute_force_sets, write_force_sets

    dataset = compute_force_sets(phonon, potential, crystal, console.track)
    warn_if_far(console, potential, phonon.supercell)
    write_force_sets(dataset, output)
    console.say(f"Forces are in {output}.")


def _write_force_constants(
    args: argparse.Namespace,
    phonon: Phonopy,
    potential: Potential,
    crystal: Crystal,
    output: str,
    console: Console,
) -> None:
    from phonopy_equivariant.cli.start import warn_if_far
    from phonopy_equivariant.io.build import set_born_charges
    from phonopy_equivariant.io.outputs import write_force_constants, write_params
    from phonopy_equivariant.workflows.session import (
        compute_force_constants,
        equilibrium_remarks,
        mode_stability,
        provenance,
    )

    with_born = args.format == "yaml" and not args.nonac
    born = set_born_charges(phonon, crystal) if with_born else None
    if born:
        console.say(f"Born charges: from {born}")
    with console.stage(f"Force constants of {len(phonon.supercell)} atoms"):
        report = compute_force_constants(phonon, potential)
    warn_if_far(console, potential, phonon.primitive, report.familiarity)
    for remark in equilibrium_remarks(report.residual_force, report.residual_stress):
        console.warn(remark.replace("use --relax", "use phonopy-equivariant relax"))
    for remark in report.symmetry.remarks():
        console.warn(remark)
    if args.format == "yaml":
        write_params(phonon, output, provenance(potential))
    else:
        write_force_constants(phonon, output, args.format, crystal)
    with console.stage("Imaginary modes, and whether the supercell suffices"):
        found = mode_stability(phonon, potential)
    for remark in found.remarks():
        console.warn(remark)
    console.report("Force constants", report.lines() + found.lines())
    console.say(f"Force constants are in {output}.")

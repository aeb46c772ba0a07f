"""``phonopy-equivariant run``: from a structure to phonopy's output files."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import time
from typing import TYPE_CHECKING

from phonopy_equivariant import defaults
from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    Commands,
    Parser,
    add_common_options,
    add_dim_option,
    add_model_options,
    add_structure_arguments,
    dim_last,
    finite_number,
    model_words,
    parser_arguments,
)
from phonopy_equivariant.cli.settings import as_options, words_passed_on

if TYPE_CHECKING:
    from phonopy_equivariant.workflows.calculations import Calculations
    from phonopy_equivariant.workflows.run import CrystalPhonons

PROGRAM = "phonopy-equivariant run"

_DESCRIPTION = """\
Compute the phonons of a crystal: analytic force constants from a potential into
phonopy_params.yaml, then phonopy itself with all its options; a figure in phonons.png and a report
in report.html. STRUCTURE is a CIF, a POSCAR, any other file that ASE reads, an input of another
code, or phonopy's YAML (docs/structure_files.md).
"""

_EXAMPLES = """\
options of phonopy pass through; those used most:
  --band auto              band structure along the path of SeeK-path   band.yaml
  --mesh 20 20 20          mesh sampling                                mesh.yaml
  -t [--tmax 2000]         thermal properties on the mesh               thermal_properties.yaml
  --dos, --pdos auto       total and projected density of states        total_dos.dat, ...
  --td, --tdm              mean square displacements                    thermal_displacements.yaml
  --irreps 0 0 0           irreducible representations at q             irreps.yaml
  --gv                     group velocities with --mesh or --qpoints
  --mass 28 28             masses of the atoms of the primitive cell (isotopes)
  --q-direction 1 0 0      from where Gamma is approached, with Born charges
  --nonac                  no non-analytical correction, though there is a BORN file
  -p, -p -s                show plots, or save them as PDF
  -t, --dos and the like get a mesh if none is given; several of them run one after the other.
  "phonopy --help" lists all of them, "phonopy phonopy_params.yaml OPTIONS" repeats any of them
  later without computing force constants again.

examples:
  phonopy-equivariant run NaCl.cif --band auto --mesh 20 20 20 --dos -p -s
  phonopy-equivariant run POSCAR --model nequix-oam-1-pft --dim 4 4 4 --mesh 20 20 20 --pdos auto
  phonopy-equivariant run POSCAR --relax --mesh 20 20 20 -t --tmax 2000 --tstep 50
  phonopy-equivariant run POSCAR --exact --band auto
  phonopy-equivariant run phonopy_disp.yaml --band auto
      the cells of an earlier phonopy-init, Born charges and calculator units included
"""


def add_command(commands: Commands) -> None:
    """Add ``run`` to the list of commands."""
    parser = commands.add_parser(
        "run",
        help="phonons of a structure: force constants, then phonopy with all its options",
        add_help=False,
    )
    parser.set_defaults(function=lambda _args: main([]))


def main(words: list[str]) -> int:
    """Run ``phonopy-equivariant run`` with the words after ``run``."""
    parser = _parser()
    if not words or "-h" in words or "--help" in words:
        parser.print_help()
        return 0 if words else 2
    from phonopy_equivariant.workflows.calculations import plan_calculations
    from phonopy_equivariant.workflows.handover import UsageError, parse_shared
    from phonopy_equivariant.workflows.script import phonopy_parser

    try:
        args, options = parse_shared(
            dim_last(words),
            parser,
            phonopy_parser(),
            "run POSCAR --mesh 20 20 20",
            words_passed_on(parser, words, parser.passes_on),
        )
        if args.relax_fmax is not None and not args.relax:
            raise UsageError("contradictory options: --relax-fmax without --relax; add --relax.")
        if args.exact_tolerance is not None and not args.exact:
            raise UsageError(
                "contradictory options: --exact-tolerance without --exact; add --exact."
            )
        if args.nac_range is not None and not args.exact:
            raise UsageError("contradictory options: --nac-range without --exact; add --exact.")
        plan = plan_calculations(options)
    except UsageError as error:
        parser.error(str(error).rstrip("."))
    return _run(args, options, plan, shlex.join(["phonopy-equivariant", "run", *words]))


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        usage="phonopy-equivariant run STRUCTURE [options] [options of phonopy]",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    parser.passes_on = "phonopy"
    add_structure_arguments(parser)
    add_model_options(parser)
    group = parser.add_argument_group("crystal")
    add_dim_option(group)
    group.add_argument(
        "--exact",
        action="store_true",
        help="no supercell: D(q) at every q as the potential has it, the range of its force "
        "constants found (docs/exact_mode.md)",
    )
    group.add_argument(
        "--exact-tolerance",
        type=finite_number,
        metavar="THZ",
        help="largest error of a frequency with --exact in THz; default: 1e-6, 1e-4 with "
        "--dtype float32, 1e-3 with Born charges",
    )
    group.add_argument(
        "--nac-range",
        type=finite_number,
        metavar="L",
        help="with --exact and Born charges: size in Å of the cells at whose q the potential is "
        "trusted with dipoles (docs/polar_crystals.md); default: 10",
    )
    group.add_argument(
        "--relax",
        action="store_true",
        help="relax atoms and cell with the potential first, in the space group",
    )
    group.add_argument(
        "--relax-fmax",
        type=finite_number,
        metavar="F",
        help=f"largest force after the relaxation in eV/Å; default: {defaults.FMAX:g}",
    )
    group.add_argument(
        "--irreps-table",
        action="store_true",
        help="table of the optical modes at Gamma: irreps, infrared and Raman activity; "
        "gamma_modes.yaml",
    )
    group.add_argument(
        "--no-plots",
        action="store_true",
        help="no phonons.png (bands, density of states, thermal properties) and no report.html",
    )
    add_common_options(parser)
    return parser


def _run(
    args: argparse.Namespace, user_options: list[str], plan: Calculations, command: str
) -> int:
    from phonopy_equivariant.cli.start import start_potential
    from phonopy_equivariant.io.crystals import read_crystal
    from phonopy_equivariant.io.outputs import FIGURE_FILE, PAGE_FILE, PARAMS_FILE, check_output
    from phonopy_equivariant.io.supercells import parse_dim, select_supercell

    console = Console.of(args, "run")
    settings = plan.first
    for remark in plan.warnings:
        console.warn(remark)
    for remark in plan.remarks:
        console.say(remark)
    crystal = read_crystal(args.structure, args.index, console.say)
    in_thz = settings.frequency_conversion_factor is None
    if not args.no_plots and not in_thz:
        console.say("With --factor there is no figure and no report: they are in THz.")
    pictures = in_thz and not args.no_plots
    for path in (PARAMS_FILE, *((FIGURE_FILE, PAGE_FILE) if pictures else ())):
        check_output(path)
    matrix = settings.supercell_matrix if args.dim is None else parse_dim(args.dim)
    if matrix is not None:  # memory, before JAX starts
        select_supercell(dataclasses.replace(crystal, dataset=None), matrix)
    potential = start_potential(args, console, crystal.unitcell)
    from phonopy_equivariant.workflows.options import PhononOptions, RelaxationOptions
    from phonopy_equivariant.workflows.pictures import Recorder, new_files, write_pictures
    from phonopy_equivariant.workflows.run import crystal_phonons, run_script
    from phonopy_equivariant.workflows.script import prints_results

    fmax = defaults.FMAX if args.relax_fmax is None else args.relax_fmax
    relaxation = RelaxationOptions(fmax, symprec=settings.symmetry_tolerance or defaults.SYMPREC)
    options = PhononOptions(
        matrix,
        relaxation if args.relax else None,
        args.exact,
        args.exact_tolerance,
        args.nac_range,
    )
    result = crystal_phonons(crystal, potential, options, plan, console, args.irreps_table)
    recorder, started = Recorder() if pictures else None, time.time()
    shown = any(map(prints_results, plan.settings))
    with console.kept_back("phonopy's bands and meshes", shown) as show:
        status = run_script(result, potential, plan, user_options, console, recorder)
        if status:
            show()
    if result.modes is not None:
        console.table(result.modes, result.modes.heading())
    console.report("Exact mode" if args.exact else "Force constants", result.lines())
    if status:
        return status
    if recorder is not None:
        with console.stage("Figure and report"):
            write_pictures(result, potential, recorder, command, console.warnings, console.wording)
    results = {"report": result.report, "stability": result.stability, "gamma_modes": result.modes}
    theirs = ("phonopy", as_options(user_options))
    console.conclude(results, new_files(started), _next_commands(args, plan, result), theirs=theirs)
    return status


def _next_commands(
    args: argparse.Namespace, plan: Calculations, result: CrystalPhonons
) -> list[str]:
    if result.stability.lowest < 0:
        return [f"phonopy-equivariant unstable {shlex.quote(args.structure)}{model_words(args)}"]
    if args.exact:  # phonopy alone would interpolate
        return []
    if all(settings.band_paths is None for settings in plan.settings):
        return ["phonopy phonopy_params.yaml --band auto -p -s"]
    if not any(settings.is_thermal_properties for settings in plan.settings):
        return ["phonopy phonopy_params.yaml --mesh 50 -t"]
    return []

"""``phonopy-equivariant run``: from a structure to phonopy's output files."""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from typing import TYPE_CHECKING, Any

from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    Parser,
    add_dim_option,
    add_logging_options,
    add_model_options,
    add_structure_arguments,
    dim_last,
    finite_number,
    parser_arguments,
)

if TYPE_CHECKING:
    from phonopy_equivariant.workflows.calculations import Calculations

PROGRAM = "phonopy-equivariant run"

_DESCRIPTION = """\
Compute the phonons of a crystal: analytic force constants from a potential into
phonopy_params.yaml, then phonopy itself with all its options. STRUCTURE is a CIF, a POSCAR, any
other file that ASE reads, an input of another code, or phonopy's YAML (docs/structure_files.md).
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


def add_command(commands: Any) -> None:
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
    from phonopy_equivariant.workflows.script import UsageError, split_arguments

    try:
        split = split_arguments(dim_last(words), parser)
        if not split.positional:
            raise UsageError(
                "STRUCTURE is missing: the file stands before options with several values, as in "
                "run POSCAR --mesh 20 20 20"
            )
        args = parser.parse_args([*split.positional, *split.ours])
        if args.relax_fmax is not None and not args.relax:
            raise UsageError("contradictory options: --relax-fmax without --relax; add --relax.")
        if args.exact_tolerance is not None and not args.exact:
            raise UsageError(
                "contradictory options: --exact-tolerance without --exact; add --exact."
            )
        options = split.phonopys + ["-q"] * args.quiet + ["-v"] * args.verbose
        plan = plan_calculations(options)
    except UsageError as error:
        parser.error(str(error).rstrip("."))
    return _run(args, options, plan)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        usage="phonopy-equivariant run STRUCTURE [options] [options of phonopy]",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    add_structure_arguments(parser)
    add_model_options(parser)
    group = parser.add_argument_group("crystal")
    add_dim_option(group)
    group.add_argument(
        "--exact",
        action="store_true",
        help="no supercell: D(q) at every q as the potential has it, the range of its force "
        "constants found (docs/exact_mode.md); not with Born charges",
    )
    group.add_argument(
        "--exact-tolerance",
        type=finite_number,
        metavar="THZ",
        help="largest error of a frequency with --exact in THz; default: 1e-6, and 1e-4 with "
        "--dtype float32",
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
        help="largest force after the relaxation in eV/Å; default: 1e-4",
    )
    group.add_argument(
        "--irreps-table",
        action="store_true",
        help="table of the optical modes at Gamma: irreps, infrared and Raman activity; "
        "gamma_modes.yaml",
    )
    add_logging_options(parser)
    return parser


def _run(args: argparse.Namespace, asked: list[str], plan: Calculations) -> int:
    from phonopy_equivariant.cli.start import relaxed_crystal, start_potential
    from phonopy_equivariant.io.crystals import read_crystal
    from phonopy_equivariant.io.outputs import PARAMS_FILE, check_output
    from phonopy_equivariant.io.supercells import dim_text, parse_dim, supercell_line
    from phonopy_equivariant.workflows.session import select_supercell

    console = Console(args.quiet, args.verbose)
    settings = plan.first
    for remark in plan.warnings:
        console.warn(remark)
    for remark in plan.remarks:
        console.say(remark)
    # displaced supercells of a file are of no use here
    crystal = read_crystal(args.structure, args.index, console.say)
    crystal = dataclasses.replace(crystal, dataset=None)
    check_output(PARAMS_FILE)
    symprec = settings.symmetry_tolerance or 1e-5
    dim = args.dim
    if dim is None and settings.supercell_matrix is not None:  # DIM of --config
        dim = dim_text(settings.supercell_matrix).split()
    if dim is not None:
        select_supercell(crystal, dim, symprec)  # malformed numbers, before JAX starts
    if args.relax and settings.primitive_matrix is None:
        # what phonopy's options and files say of the primitive cell is refused before the work
        _phonon(args, crystal, parse_dim(["1"]), plan)
    potential = start_potential(args, console, crystal.unitcell)
    if args.relax:
        crystal = relaxed_crystal(
            crystal, potential, args.relax_fmax, console, settings.symmetry_tolerance
        )
    matrix, origin = select_supercell(crystal, dim, symprec)
    if dim is not None and args.dim is None:
        origin = "DIM of --config"
    console.say(supercell_line(crystal.unitcell, matrix, origin))
    with console.stage("Symmetry of the supercell"):
        phonon, born = _phonon(args, crystal, matrix, plan)
    if born:
        console.say(f"Born charges: from {born}")
    if args.exact:
        status, lines = _run_exact(phonon, potential, args.exact_tolerance, plan, console)
    else:
        status, lines = _run_supercell(phonon, potential, asked, plan, console)
    if args.irreps_table:
        _print_gamma_modes(phonon, console)
    console.report("Exact mode" if args.exact else "Force constants", lines)
    return status


def _phonon(
    args: argparse.Namespace, crystal: Any, matrix: Any, plan: Calculations
) -> tuple[Any, str | None]:
    """Return phonopy's object and the source of its Born charges; refuse what it cannot do."""
    from phonopy_equivariant.io.build import build_phonon, check_indices, set_born_charges

    phonon = build_phonon(crystal, matrix, plan.first)
    for each in plan.settings:
        check_indices(phonon, each)
    if args.irreps_table:
        from phonopy_equivariant.phonons.gamma_modes import check_primitive

        check_primitive(phonon)
    return phonon, set_born_charges(phonon, crystal, plan.first)


def _run_supercell(
    phonon: Any, potential: Any, asked: list[str], plan: Calculations, console: Console
) -> tuple[int, list[str]]:
    """Run phonopy's script on force constants of the supercell; return its status and a report."""
    from phonopy_equivariant.io.outputs import PARAMS_FILE, write_params
    from phonopy_equivariant.workflows.script import run_phonopy
    from phonopy_equivariant.workflows.session import (
        compute_force_constants,
        provenance,
        skips_projection,
        symmetry_options,
    )

    with console.stage(f"Force constants of {len(phonon.supercell)} atoms"):
        report = compute_force_constants(phonon, potential)
    _warn(console, potential, phonon, report)
    write_params(phonon, PARAMS_FILE, provenance(potential))
    lines = report.lines() + _check_modes(phonon, potential, plan, console)
    options = plan.options + ["--no-fc-symmetry"] * skips_projection(report)
    options += symmetry_options(report.symmetry)
    chosen = " ".join(word for word in options if word not in asked)
    console.say(f"Force constants are in {PARAMS_FILE}; phonopy goes on with {chosen}.")
    return run_phonopy(PARAMS_FILE, options, plan.settings[1:]), lines


def _run_exact(
    phonon: Any, potential: Any, tolerance: float | None, plan: Calculations, console: Console
) -> tuple[int, list[str]]:
    """Run phonopy's script without folding error and return its status and a report."""
    from phonopy_equivariant.io.outputs import PARAMS_FILE, write_params
    from phonopy_equivariant.phonons.exact import use_exact_dynamical_matrix
    from phonopy_equivariant.phonons.exact_script import (
        exact_calculation,
        folded_force_constants,
    )
    from phonopy_equivariant.workflows.script import run_phonopy
    from phonopy_equivariant.workflows.session import provenance, symmetry_options

    with console.stage("Exact dynamical matrix"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "isotopes on equivalent sites")  # said below
        report = use_exact_dynamical_matrix(phonon, potential, tolerance)
    _warn(console, potential, phonon, report)
    lines = report.lines() + _check_modes(phonon, potential, plan, console)
    matrix = phonon.dynamical_matrix
    phonon.force_constants = folded_force_constants(phonon, matrix)
    write_params(phonon, PARAMS_FILE, provenance(potential))
    console.say(
        f"{PARAMS_FILE} holds force constants folded into the supercell; phonopy goes on without "
        "the supercell."
    )
    with exact_calculation(matrix):
        options = [*plan.options, "--no-fc-symmetry", *symmetry_options(report.symmetry)]
        return run_phonopy(PARAMS_FILE, options, plan.settings[1:]), lines


def _warn(console: Console, potential: Any, phonon: Any, report: Any) -> None:
    """Warn of a crystal far from the training data, not at rest, or of less symmetry."""
    from phonopy_equivariant.cli.start import warn_if_far
    from phonopy_equivariant.workflows.session import equilibrium_remarks

    warn_if_far(console, potential, phonon.primitive, report.familiarity)
    remarks = equilibrium_remarks(report.residual_force, report.residual_stress)
    for remark in [*remarks, *report.symmetry.remarks()]:
        console.warn(remark)


def _check_modes(phonon: Any, potential: Any, plan: Calculations, console: Console) -> list[str]:
    """Warn of imaginary modes; return what the report says of them and of the supercell."""
    from phonopy_equivariant.workflows.session import mode_stability

    with console.stage("Imaginary modes, and whether the supercell suffices"):
        found = mode_stability(phonon, potential, plan.mesh)
    for remark in found.remarks():
        console.warn(remark)
    return found.lines()


def _print_gamma_modes(phonon: Any, console: Console) -> None:
    from phonopy_equivariant.cli.console import print_table
    from phonopy_equivariant.phonons.gamma_modes import gamma_modes

    result = gamma_modes(phonon)
    result.write("gamma_modes.yaml")
    if console.verbosity:
        print_table(result.columns(), result.rows())
        print(result.heading(), flush=True)

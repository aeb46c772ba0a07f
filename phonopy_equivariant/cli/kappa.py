"""``phonopy-equivariant kappa``: from a structure to phono3py's thermal conductivity."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.fc3 import add_supercell_options, supercells_of
from phonopy_equivariant.cli.options import (
    Commands,
    Parser,
    add_common_options,
    add_model_options,
    add_relaxation_options,
    add_structure_arguments,
    dim_last,
    parser_arguments,
    relaxation_of,
)
from phonopy_equivariant.cli.settings import as_options, words_passed_on

if TYPE_CHECKING:
    from phonopy_equivariant.workflows.kappa_options import KappaPlan

PROGRAM = "phonopy-equivariant kappa"

_DESCRIPTION = """\
Compute the lattice thermal conductivity of a crystal: analytic force constants of second and third
order from a potential, then phono3py itself with all its options. STRUCTURE is any file that ASE
reads, or phono3py's YAML.
"""

_EXAMPLES = """\
options of phono3py pass through; those used most:
  --mesh 19 19 19          mesh of q                          kappa-m191919.hdf5
  --br, --lbte             relaxation time approximation (default), or the full solution
  --ts 100 300 500         temperatures in K
  --isotope                scattering by natural isotopes
  --bmfp 1                 boundary mean free path in micrometres
  --nonac                  no non-analytical correction, though there is a BORN file
  "phono3py --help" lists all of them; "phono3py phono3py_params.yaml OPTIONS" repeats any of them
  later without computing force constants again. κ(T), κ up to a frequency and lifetimes are drawn
  into kappa.pdf.

examples:
  phonopy-equivariant kappa POSCAR --dim 3 3 3 --dim-fc2 4 4 4 --relax --mesh 19 19 19 --isotope
  phonopy-equivariant kappa POSCAR --dim 2 2 2 --mesh 11 11 11 --lbte --ts 300
phono3py must be installed: pip install 'phono3py>=4.10,<4.11'.
"""


def add_command(commands: Commands) -> None:
    """Add ``kappa`` to the list of commands."""
    parser = commands.add_parser(
        "kappa",
        help="thermal conductivity: force constants, then phono3py with all its options",
        add_help=False,
    )
    parser.set_defaults(function=lambda _args: main([]))


def main(words: list[str]) -> int:
    """Run ``phonopy-equivariant kappa`` with the words after ``kappa``."""
    parser = _parser()
    if not words or "-h" in words or "--help" in words:
        parser.print_help()
        return 0 if words else 2
    from phonopy_equivariant.workflows.handover import UsageError, parse_shared
    from phonopy_equivariant.workflows.kappa_options import phono3py_parser, plan_kappa

    try:
        args, options = parse_shared(
            dim_last(words),
            parser,
            phono3py_parser(),
            "kappa POSCAR --mesh 11 11 11",
            words_passed_on(parser, words, parser.passes_on),
        )
        plan = plan_kappa(options)
    except UsageError as error:
        parser.error(str(error).rstrip("."))
    return _run(parser, args, options, plan)


def _parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        usage="phonopy-equivariant kappa STRUCTURE [options] [options of phono3py]",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    parser.passes_on = "phono3py"
    add_structure_arguments(parser, "structure file or phono3py's YAML")
    add_model_options(parser)
    group = parser.add_argument_group("crystal")
    add_supercell_options(group)
    add_relaxation_options(group)
    add_common_options(parser)
    return parser


def _run(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    user_options: list[str],
    plan: KappaPlan,
) -> int:
    from phonopy_equivariant.cli.start import start_crystal
    from phonopy_equivariant.io.third_order import FILES, keep_others
    from phonopy_equivariant.workflows.kappa import (
        PLOT,
        conductivity_files,
        draw_conductivity,
        phono3py_files,
    )
    from phonopy_equivariant.workflows.third_order import ThirdOrderOptions

    relaxation = relaxation_of(parser, args)
    supercells = supercells_of(parser, args)
    console = Console.of(args, "kappa")
    for remark in plan.remarks:
        console.say(remark)
    keep_others()
    crystal, potential = start_crystal(args, console, [*FILES, PLOT])
    options = ThirdOrderOptions(relaxation=relaxation, **supercells)
    phono3py, report = phono3py_files(crystal, potential, options, plan, console)
    with console.kept_back("phono3py's conductivity") as show:
        result = conductivity_files(report, plan)
        if result.status or result.conductivity is None:
            show()
    files = [*FILES, *result.files]
    if result.conductivity is not None:
        draw_conductivity(result.conductivity, phono3py, potential, console)
        files.append(PLOT)
    console.report("Third-order force constants", result.report.lines())
    if result.conductivity is not None:
        if len(result.conductivities) > 1:
            console.say(f"Of {', '.join(result.conductivities)} the last is shown.")
        console.table(result.conductivity)
    results = {"report": result.report, "conductivity": result.conductivity}
    console.conclude(results, files, theirs=("phono3py", as_options(user_options)))
    return result.status

"""``phonopy-equivariant evaluate``: potentials against reference phonons."""

from __future__ import annotations

import argparse
import functools
from typing import Any

from phonopy_equivariant.catalogue.bundled import DEFAULT_MODEL
from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    add_common_options,
    add_device_option,
    add_relaxation_options,
    finite_number,
    parser_arguments,
    relaxation_of,
)

_DESCRIPTION = """\
Compare the phonons of potentials with reference phonons, DFT's usually: error of the dynamical
matrix, frequencies, free energy, entropy, heat capacity, stability, density of states, for each
crystal and over all. The model gets the reference's cells; nothing is relaxed unless asked for.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant evaluate phonopy_params.yaml
  phonopy-equivariant evaluate dft/ --model nequix-mp-1-pft nequix-oam-1-pft -o evaluation
      every folder in dft/ that has a phonopy_params.yaml, .xz too; both models side by side

Files are phonopy's, with forces or force constants in them or beside them (FORCE_SETS).
"""


def add_command(commands: Any) -> None:
    """Add the parser of ``evaluate``."""
    parser = commands.add_parser(
        "evaluate",
        help="errors of potentials against reference phonons",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    parser.add_argument(
        "references",
        nargs="+",
        metavar="REFERENCE",
        help="phonopy's file, or a folder with one, or with folders that have one",
    )
    group = parser.add_argument_group("potentials")
    group.add_argument(
        "--model",
        nargs="+",
        default=[DEFAULT_MODEL],
        metavar="M",
        help="names or checkpoints, as in run; default: %(default)s",
    )
    group.add_argument(
        "--dtype",
        choices=("float64", "float32"),
        default="float64",
        help="precision of the potentials; default: %(default)s",
    )
    add_device_option(group)
    group = parser.add_argument_group("comparison and output")
    add_relaxation_options(group)
    group.add_argument(
        "--mesh",
        nargs=3,
        type=int,
        default=(11, 11, 11),
        metavar="N",
        help="phonopy's mesh; default: 11 11 11",
    )
    group.add_argument(
        "--temperature",
        type=finite_number,
        default=300.0,
        metavar="T",
        help="of F, S and Cv in K; default: %(default)g",
    )
    group.add_argument(
        "-o",
        "--output",
        default="evaluation",
        metavar="NAME",
        help="NAME.html, the report, and NAME.csv are written; default: %(default)s",
    )
    add_common_options(parser)
    parser.set_defaults(function=functools.partial(_main, parser))


def _main(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    relaxation = relaxation_of(parser, args)
    if min(args.mesh) < 1:
        parser.error(f"argument --mesh: {min(args.mesh)} is not a positive number of points")
    if args.temperature < 0:
        parser.error(f"argument --temperature: {args.temperature:g} K is below absolute zero")
    console = Console.of(args, "evaluate")
    from phonopy_equivariant.checkpoints.load import resolve
    from phonopy_equivariant.cli.start import start_jax
    from phonopy_equivariant.evaluation.references import find_references
    from phonopy_equivariant.io.outputs import check_output

    find_references(args.references)
    paths = [resolve(model) for model in args.model]
    outputs = [f"{args.output}.html", f"{args.output}.csv"]
    for path in outputs:
        check_output(path)
    with console.stage("Starting JAX"):
        start_jax(args.device, console)
        from phonopy_equivariant.checkpoints.load import load_potential

        potentials = [load_potential(path, dtype=args.dtype) for path in paths]
    from phonopy_equivariant.workflows.evaluation import evaluate
    from phonopy_equivariant.workflows.options import EvaluationOptions

    options = EvaluationOptions(tuple(args.mesh), args.temperature, relaxation, bands=True)
    result = evaluate(args.references, potentials, options, console)
    result.write_html(outputs[0])
    result.write_csv(outputs[1])
    console.report("Mean absolute errors", result.lines())
    console.conclude({"evaluation": result}, outputs)
    return 1 if result.failures else 0

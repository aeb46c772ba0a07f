"""``phonopy-equivariant batch``: the phonons of many crystals, on the workers of Dask."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonopy_equivariant import defaults
from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    Commands,
    add_common_options,
    add_dim_option,
    add_model_options,
    add_relaxation_options,
    finite_number,
    parser_arguments,
    relaxation_of,
)

if TYPE_CHECKING:
    from phonopy_equivariant.workflows.options import BatchOptions

_DESCRIPTION = """\
Compute the phonons of many crystals, each as run does: a record with space group, residuals,
frequencies, imaginary modes, F, S and Cv for every structure, or the reason why there is none.
Structures are files, files with several structures, folders, databases of ASE, JSON of pymatgen.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant batch structures/ -o screening --model nequix-mp-1-pft --relax
  phonopy-equivariant batch *.cif candidates.db -o screening --force-constants
      phonopy_params.yaml.xz of each crystal in screening/crystals
  phonopy-equivariant batch structures/ -o screening --scheduler tcp://node7:8786
      on the workers of a Dask cluster that runs already

FOLDER gets records.jsonl, one line as soon as a structure is done, and in the end table.csv (or
.parquet), report.html and manifest.json. The same command again goes on where it was stopped.
"""


def add_command(commands: Commands) -> None:
    """Add the parser of ``batch``."""
    parser = commands.add_parser(
        "batch", help="phonons of many crystals", **parser_arguments(_DESCRIPTION, _EXAMPLES)
    )
    parser.add_argument(
        "structures", nargs="+", metavar="STRUCTURES", help="files and folders of structures"
    )
    parser.add_argument(
        "-o", "--output", required=True, metavar="FOLDER", help="folder of everything written"
    )
    add_model_options(parser)
    _add_crystal_options(parser)
    _add_engine_options(parser)
    add_common_options(parser)
    parser.set_defaults(function=functools.partial(_main, parser))


def _add_crystal_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("crystals")
    add_dim_option(group)
    group.add_argument("--exact", action="store_true", help="no supercell, as in run")
    group.add_argument(
        "--exact-tolerance", type=finite_number, metavar="THZ", help="as in run, with --exact"
    )
    add_relaxation_options(group)
    group.add_argument(
        "--tolerance",
        type=finite_number,
        default=defaults.PHONOPY_SYMPREC,
        metavar="S",
        help="distance in Å within which symmetry is recognised; default: %(default)g",
    )
    group.add_argument(
        "--mesh",
        nargs="+",
        type=finite_number,
        default=[defaults.PHONON_MESH],
        metavar="N",
        help=f"phonopy's mesh, three numbers or a length; default: {defaults.PHONON_MESH:g} Å",
    )
    group.add_argument(
        "--temperatures",
        nargs="+",
        type=finite_number,
        default=[300.0],
        metavar="T",
        help="of F, S and Cv in K; default: 300",
    )
    for option, what in (
        ("--force-constants", "phonopy_params.yaml.xz"),
        ("--bands", "band.yaml.xz along the path of SeeK-path"),
        ("--dos", "total_dos.dat.xz"),
    ):
        group.add_argument(option, action="store_true", help=f"keep {what} of each crystal")


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workers and output")
    engine = group.add_mutually_exclusive_group()
    engine.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes of this computer; default: one for each core, one with --device gpu",
    )
    engine.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask cluster, tcp://host:port, in their place"
    )
    group.add_argument(
        "--retry-failed", action="store_true", help="compute again what failed before"
    )
    group.add_argument(
        "--table", choices=("csv", "parquet"), default="csv", help="default: %(default)s"
    )


def _main(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    options = _options(parser, args)
    console = Console.of(args, "batch")
    from phonopy_equivariant.workflows.batch.result import require_parquet
    from phonopy_equivariant.workflows.batch.run import batch

    if args.table == "parquet":
        require_parquet()
    result = batch(
        args.structures,
        args.output,
        args.model,
        options,
        dtype=args.dtype,
        device=args.device,
        workers=1 if args.workers is None and args.device == "gpu" else args.workers,
        scheduler=args.scheduler,
        retry=args.retry_failed,
        progress=console,
    )
    folder = Path(args.output)
    table, report = folder / f"table.{args.table}", folder / "report.html"
    write = result.write_parquet if args.table == "parquet" else result.write_csv
    write(table)
    result.write_html(report)
    console.report("Many crystals", result.lines())
    console.conclude({"batch": result}, [str(report), str(table)], folder=args.output)
    return 1 if result.failures else 0


def _options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> BatchOptions:
    """Return what is asked for; contradictory words end the program."""
    from phonopy_equivariant.io.supercells import parse_dim
    from phonopy_equivariant.workflows.options import BatchOptions, PhononOptions

    if args.exact_tolerance is not None and not args.exact:
        parser.error("contradictory options: --exact-tolerance without --exact; add --exact")
    if len(args.mesh) not in (1, 3) or min(args.mesh) <= 0:
        parser.error("argument --mesh: give three positive numbers or a length")
    if min(args.temperatures) < 0:
        parser.error(f"argument --temperatures: {min(args.temperatures):g} K is below zero")
    if args.tolerance <= 0:
        parser.error("argument --tolerance: give a positive distance")
    if args.workers is not None and args.workers < 1:
        parser.error("argument --workers: give a positive number")
    mesh: Any = args.mesh[0] if len(args.mesh) == 1 else tuple(int(number) for number in args.mesh)
    matrix = None if args.dim is None else parse_dim(args.dim)
    relaxation = relaxation_of(parser, args)
    phonons = PhononOptions(matrix, relaxation, args.exact, args.exact_tolerance)
    keep = (args.force_constants, args.bands, args.dos)
    temperatures = tuple(dict.fromkeys(args.temperatures))
    return BatchOptions(phonons, mesh, temperatures, args.tolerance, *keep)

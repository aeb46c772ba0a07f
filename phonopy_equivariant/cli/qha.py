"""``phonopy-equivariant qha``: thermal expansion and what follows, at constant pressure."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Any

from phonopy_equivariant import defaults
from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    add_common_options,
    add_dim_option,
    add_model_options,
    add_structure_arguments,
    finite_number,
    parser_arguments,
)

if TYPE_CHECKING:
    from phonopy_equivariant.workflows.options import QHAOptions

_DESCRIPTION = """\
Quasi-harmonic approximation: thermal expansion, bulk modulus, heat capacity, Gibbs energy and
Grüneisen parameter at constant pressure. The crystal is relaxed. At volumes around it atoms and the
shape of the cell are relaxed, force constants and free energies computed, and phonopy fits them.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant qha POSCAR
  phonopy-equivariant qha MgO.cif --model nequix-oam-1-pft --tmax 2000 --pressure 10 -o MgO_10GPa
  phonopy-equivariant qha Al2O3.cif --anisotropic
      a and c each have their own thermal expansion: the free energy on a grid of both
  phonopy-equivariant qha NaCl.cif --volumes 15 --volume-range -4 16 --keep

files written into a folder (-o, default qha), named as phonopy names them, with plots as PDF:
  helmholtz-volume.dat, volume-temperature.dat, thermal_expansion.dat, bulk_modulus-temperature.dat,
  Cp-temperature.dat, gibbs-temperature.dat, gruneisen-temperature.dat, e-v.dat, qha.pdf, ...
  qha.yaml                 what the table shows, at all temperatures
  phonopy_params-NN.yaml   the phonons of each volume, with --keep

Volumes with imaginary modes are left out; five must remain. Thermal expansion is computed a second
time at one volume, from Grüneisen parameters and elastic constants, and shown beside it.
"""


def add_command(commands: Any) -> None:
    """Add the parser of ``qha``."""
    parser = commands.add_parser(
        "qha",
        help="thermal expansion, bulk modulus, heat capacity at constant pressure",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    add_structure_arguments(parser)
    add_model_options(parser)
    group = parser.add_argument_group("volumes")
    group.add_argument(
        "--volumes",
        type=int,
        metavar="N",
        help=f"number of volumes; default: {defaults.VOLUMES}",
    )
    low, high = defaults.VOLUME_RANGE
    group.add_argument(
        "--volume-range",
        type=finite_number,
        nargs=2,
        default=defaults.VOLUME_RANGE,
        metavar=("LOW", "HIGH"),
        help="change of the volume at rest in %%; with --anisotropic a length changes by a third "
        f"of it; default: {low:g} {high:g}",
    )
    group.add_argument(
        "--anisotropic",
        action="store_true",
        help="a grid of the free lengths of the cell in place of volumes: tetragonal, trigonal, "
        "hexagonal, orthorhombic",
    )
    group.add_argument(
        "--grid",
        type=int,
        metavar="N",
        help="lengths along each axis with --anisotropic; default: 5 along two axes, 4 along three",
    )
    _add_number(group, "--pressure", 0.0, "P", "pressure in GPa")
    _add_number(group, "--fmax", defaults.VOLUME_FMAX, "F", "largest force at each volume in eV/Å")
    _add_phonons(parser)
    _add_results(parser)
    add_common_options(parser)
    parser.set_defaults(function=functools.partial(_main, parser))


def _add_phonons(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("phonons")
    add_dim_option(group)
    group.add_argument(
        "--exact", action="store_true", help="no supercell: D(q) as the potential has it"
    )
    group.add_argument(
        "--exact-tolerance",
        type=finite_number,
        metavar="THZ",
        help="largest error of a frequency with --exact in THz; default: 1e-6, 1e-4 with "
        "--dtype float32, 1e-3 with Born charges",
    )
    group.add_argument(
        "--mesh",
        type=int,
        nargs=3,
        metavar="N",
        help=f"mesh with Γ, the same at every volume; default: that of phonopy's length of "
        f"{defaults.MESH:g} Å",
    )
    group.add_argument(
        "--nonac", action="store_true", help="no Born charges, though there is a BORN file"
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    _add_number(group, "--tmax", defaults.T_MAX, "T", "highest temperature in K")
    _add_number(group, "--tstep", defaults.T_STEP, "T", "step of temperature in K")
    group.add_argument(
        "--eos",
        metavar="NAME",
        help="equation of state: vinet, birch_murnaghan or murnaghan; default: vinet",
    )
    group.add_argument(
        "--no-comparison",
        action="store_true",
        help="no thermal expansion from Grüneisen parameters and elastic constants at one volume",
    )
    group.add_argument(
        "--keep", action="store_true", help="keep phonopy_params-NN.yaml of each volume"
    )
    group.add_argument(
        "-o",
        "--output",
        default="qha",
        metavar="FOLDER",
        help="folder of the files; default: %(default)s",
    )


def _add_number(
    group: argparse._ActionsContainer, option: str, default: float, metavar: str, text: str
) -> None:
    group.add_argument(
        option,
        type=finite_number,
        default=default,
        metavar=metavar,
        help=f"{text}; default: %(default)g",
    )


def _main(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    for option, value in (("--volumes", args.volumes), ("--eos", args.eos)):
        if args.anisotropic and value is not None:
            parser.error(f"contradictory options: {option} with --anisotropic; leave one away")
    if args.grid is not None and not args.anisotropic:
        parser.error("contradictory options: --grid without --anisotropic; add --anisotropic")
    if args.exact_tolerance is not None and not args.exact:
        parser.error("contradictory options: --exact-tolerance without --exact; add --exact")
    from phonopy_equivariant.cli.start import start_crystal

    options = _options(args)
    console = Console.of(args, "qha")
    crystal, potential = start_crystal(args, console, ["e-v.dat", "qha.yaml"], args.output)
    if args.nonac:
        crystal = dataclasses.replace(crystal, nac_params=None)
    from phonopy_equivariant.phonons.expansion_comparison import (
        compare_axial_expansions,
        compare_expansions,
    )
    from phonopy_equivariant.workflows.qha import anisotropic_qha_of_crystal, qha_of_crystal

    result: Any
    if args.anisotropic:
        result = anisotropic_qha_of_crystal(crystal, potential, options, console)
        comparison = compare_axial_expansions(result)
    else:
        result = qha_of_crystal(crystal, potential, options, console)
        comparison = compare_expansions(result)
    with console.stage("Files and plots"):
        result.write_yaml(os.path.join(args.output, "qha.yaml"))
        result.write(args.output)
        result.write_plots(args.output)
    console.table(result)
    if comparison is not None:
        console.table(comparison, comparison.heading())
    results = {"qha": result, "comparison": comparison}
    console.conclude(results, [args.output], folder=args.output)
    return 0


def _options(args: argparse.Namespace) -> QHAOptions:
    from phonopy_equivariant.io.supercells import parse_dim
    from phonopy_equivariant.workflows.options import PhononOptions, QHAOptions

    matrix = None if args.dim is None else parse_dim(args.dim)
    return QHAOptions(
        phonons=PhononOptions(matrix, None, args.exact, args.exact_tolerance),
        volumes=defaults.VOLUMES if args.volumes is None else args.volumes,
        volume_range=tuple(args.volume_range),
        grid=args.grid,
        mesh=defaults.MESH if args.mesh is None else args.mesh,
        tmax=args.tmax,
        tstep=args.tstep,
        pressure=args.pressure,
        eos="vinet" if args.eos is None else args.eos,
        fmax=args.fmax,
        nac_params=None if args.nonac else "BORN",
        compare=not args.no_comparison,
        keep=args.output if args.keep else None,
    )

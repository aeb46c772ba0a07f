"""``phonopy-equivariant molecule``: vibrations of a molecule, their symmetry and spectra."""

from __future__ import annotations

import argparse
import functools
from typing import TYPE_CHECKING

from phonopy_equivariant import defaults
from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    Commands,
    add_common_options,
    add_model_options,
    add_structure_arguments,
    finite_number,
    parser_arguments,
)

if TYPE_CHECKING:
    from ase import Atoms

_DESCRIPTION = """\
Vibrations of a molecule from the analytic Hessian of a potential, or from a Hessian in a file:
frequencies in cm⁻¹, irreducible representations, infrared and Raman activity, thermochemistry.
STRUCTURE is any file that ASE reads (.xyz, .mol, .extxyz, ...), or phonopy's YAML of one molecule
in a box. Translations and rotations are removed by projection.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant molecule CH4.xyz --relax
      relax to 1e-7 eV/Å by Newton steps, then all of the below
  phonopy-equivariant molecule CO2.xyz --hessian CO2.json
      a Hessian of any code: ASE's VibrationsData (.json), .npz, phonopy's force constants
  phonopy-equivariant molecule phonopy_params.yaml --hessian phonopy_params.yaml --born BORN
      infrared intensities in km/mol from Born charges
  phonopy-equivariant molecule H2O.xyz --hessian H2O.npz --born H2O.npz --raman H2O.npz
  phonopy-equivariant molecule HOD.xyz --relax --mass 15.995 1.008 2.014
      isotopes: a mass for each atom

files written (NAME: -o, default vibrations):
  NAME.yaml     everything: frequencies, irreps, intensities, eigenvectors, thermochemistry
  NAME.xyz      a frame for each mode with its displacements (extended XYZ: OVITO, ASE)
  NAME.molden   modes to animate (Molden, Jmol, Avogadro, IQmol)
  NAME.png      infrared and Raman spectrum, sticks and broadened
  NAME.json     the Hessian with the structure, as ASE's VibrationsData

.npz files hold hessian (N, 3, N, 3) in eV/Å², dipole_derivatives (N, 3, 3) in e [atom, dipole,
displacement], polarizability_derivatives (N, 3, 3, 3) in Å² [atom, α, α, displacement].
"""


def add_command(commands: Commands) -> None:
    """Add the parser of ``molecule``."""
    parser = commands.add_parser(
        "molecule",
        help="vibrations of a molecule: irreps, infrared and Raman, thermochemistry",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    add_structure_arguments(parser)
    add_model_options(parser)
    group = parser.add_argument_group("molecule")
    group.add_argument(
        "--relax", action="store_true", help="relax first by Newton steps with the Hessian"
    )
    group.add_argument(
        "--fmax",
        type=finite_number,
        metavar="F",
        help=f"largest force after the relaxation in eV/Å; default: {defaults.MOLECULE_FMAX:g}",
    )
    group.add_argument(
        "--mass",
        type=finite_number,
        nargs="+",
        metavar="M",
        help="mass of each atom in amu (isotopes)",
    )
    group.add_argument(
        "--symmetry-tolerance",
        type=finite_number,
        default=defaults.SYMMETRY_TOLERANCE,
        metavar="D",
        help="how far (Å) atoms may be off the symmetry of the point group; default: %(default)s",
    )
    group = parser.add_argument_group("from files in place of the potential")
    group.add_argument("--hessian", metavar="FILE", help="Hessian: .json, .npz, phonopy's files")
    group.add_argument("--born", metavar="FILE", help="dipole derivatives: BORN or .npz")
    group.add_argument("--raman", metavar="FILE", help="polarizability derivatives: .npz")
    group = parser.add_argument_group("thermochemistry and output")
    for option, default, metavar, text in (
        ("--temperature", defaults.TEMPERATURE, "T", "K"),
        ("--pressure", defaults.PRESSURE, "P", "Pa"),
        ("--spin", 0.0, "S", "total electronic spin"),
        ("--width", defaults.LINE_WIDTH, "W", "line width in the plot, cm⁻¹"),
    ):
        group.add_argument(
            option,
            type=finite_number,
            default=default,
            metavar=metavar,
            help=f"{text}; default: %(default)g",
        )
    group.add_argument(
        "-o",
        "--output",
        default="vibrations",
        metavar="NAME",
        help="what the files are called; default: %(default)s",
    )
    add_common_options(parser)
    parser.set_defaults(function=functools.partial(_main, parser))


def _main(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from phonopy_equivariant.errors import PhonopyEquivariantError
    from phonopy_equivariant.io.outputs import check_output
    from phonopy_equivariant.molecules.structure import (
        as_molecule,
        read_molecule,
        refuse_constraints,
    )
    from phonopy_equivariant.workflows.molecule import (
        SUFFIXES,
        molecule_vibrations,
    )
    from phonopy_equivariant.workflows.options import MoleculeOptions

    if args.relax and args.hessian:
        parser.error(
            "contradictory options: --relax and --hessian; a Hessian belongs to its structure"
        )
    if args.fmax is not None and not args.relax:
        parser.error("contradictory options: --fmax without --relax; add --relax")
    if not args.width > 0:
        raise PhonopyEquivariantError("--width is a line width: give a positive number in cm⁻¹.")
    console = Console.of(args, "molecule")
    atoms = read_molecule(args.structure, args.index, console.say)
    if args.mass is not None:
        _set_masses(atoms, args.mass)
    molecule = as_molecule(atoms)  # a crystal is refused before JAX starts
    if args.relax:
        refuse_constraints(atoms)
    for suffix in SUFFIXES:
        check_output(args.output + suffix)
    potential = None
    if args.hessian is None:
        from phonopy_equivariant.cli.start import start_potential

        potential = start_potential(args, console, molecule)
    options = MoleculeOptions(
        args.hessian,
        args.born,
        args.raman,
        args.relax,
        defaults.MOLECULE_FMAX if args.fmax is None else args.fmax,
        args.symmetry_tolerance,
        args.temperature,
        args.pressure,
        args.spin,
    )
    result = molecule_vibrations(
        atoms if potential is None else molecule, potential, options, console
    )
    with console.stage("Writing files and the spectrum"):
        result.write(args.output, args.width)
    if result.vibrations.multiplets:
        console.table(result.vibrations)
    console.report("Molecule", result.lines())
    results = {"vibrations": result.vibrations, "gas": result.gas, "source": result.source}
    console.conclude(results, [args.output + suffix for suffix in SUFFIXES])
    return 0


def _set_masses(atoms: Atoms, masses: list[float]) -> None:
    from phonopy_equivariant.errors import PhonopyEquivariantError

    if len(masses) != len(atoms) or min(masses) <= 0:
        raise PhonopyEquivariantError(
            f"--mass has {len(masses)} values; give a positive one for each of the "
            f"{len(atoms)} atoms."
        )
    atoms.set_masses(masses)

"""``phonopy-equivariant molecule``: vibrations of a molecule, their symmetry and spectra."""

from __future__ import annotations

import argparse
import functools
from typing import TYPE_CHECKING, Any

from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.options import (
    add_logging_options,
    add_model_options,
    add_structure_arguments,
    finite_number,
    parser_arguments,
)

if TYPE_CHECKING:
    from ase import Atoms

    from phonopy_equivariant.molecules.analysis import MolecularVibrations

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


def add_command(commands: Any) -> None:
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
        help="largest force after the relaxation in eV/Å; default: 1e-7",
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
        default=0.01,
        metavar="D",
        help="how far (Å) atoms may be off the symmetry of the point group; default: %(default)s",
    )
    group = parser.add_argument_group("from files in place of the potential")
    group.add_argument("--hessian", metavar="FILE", help="Hessian: .json, .npz, phonopy's files")
    group.add_argument("--born", metavar="FILE", help="dipole derivatives: BORN or .npz")
    group.add_argument("--raman", metavar="FILE", help="polarizability derivatives: .npz")
    group = parser.add_argument_group("thermochemistry and output")
    group.add_argument(
        "--temperature", type=finite_number, default=298.15, metavar="T", help="K; 298.15"
    )
    group.add_argument(
        "--pressure", type=finite_number, default=101325.0, metavar="P", help="Pa; 101325"
    )
    group.add_argument(
        "--spin",
        type=finite_number,
        default=0.0,
        metavar="S",
        help="total electronic spin; default: 0",
    )
    group.add_argument(
        "--width",
        type=finite_number,
        default=10.0,
        metavar="W",
        help="line width in the plot, cm⁻¹; 10",
    )
    group.add_argument(
        "-o",
        "--output",
        default="vibrations",
        metavar="NAME",
        help="what the files are called; default: %(default)s",
    )
    add_logging_options(parser)
    parser.set_defaults(function=functools.partial(_main, parser))


def _main(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from phonopy_equivariant.errors import PhonopyEquivariantError
    from phonopy_equivariant.io.outputs import check_output
    from phonopy_equivariant.molecules.structure import (
        as_molecule,
        read_molecule,
        refuse_constraints,
    )

    if args.relax and args.hessian:
        parser.error(
            "contradictory options: --relax and --hessian; a Hessian belongs to its structure"
        )
    if args.fmax is not None and not args.relax:
        parser.error("contradictory options: --fmax without --relax; add --relax")
    if not args.width > 0:
        raise PhonopyEquivariantError("--width is a line width: give a positive number in cm⁻¹.")
    console = Console(args.quiet, args.verbose)
    atoms = read_molecule(args.structure, args.index, console.say)
    if args.mass is not None:
        _set_masses(atoms, args.mass)
    as_molecule(atoms)  # a crystal is refused before JAX starts
    if args.relax:
        refuse_constraints(atoms)
    for suffix in _SUFFIXES:
        check_output(args.output + suffix)
    result, source = _analyse(args, console, atoms)
    _report(args, console, result, source)
    return 0


_SUFFIXES = (".yaml", ".xyz", ".molden", ".png", ".json")


def _set_masses(atoms: Atoms, masses: list[float]) -> None:
    from phonopy_equivariant.errors import PhonopyEquivariantError

    if len(masses) != len(atoms) or min(masses) <= 0:
        raise PhonopyEquivariantError(
            f"--mass has {len(masses)} values; give a positive one for each of the "
            f"{len(atoms)} atoms."
        )
    atoms.set_masses(masses)


def _analyse(
    args: argparse.Namespace, console: Console, atoms: Atoms
) -> tuple[MolecularVibrations, dict[str, str]]:
    from phonopy_equivariant.molecules.analysis import analyse_hessian, vibrations
    from phonopy_equivariant.molecules.derivatives import (
        read_dipole_derivatives,
        read_hessian,
        read_polarizability_derivatives,
    )

    dipole = None if args.born is None else read_dipole_derivatives(args.born, atoms)
    alpha = None if args.raman is None else read_polarizability_derivatives(args.raman, atoms)
    more = (args.symmetry_tolerance, dipole, alpha)
    if args.hessian is not None:
        values = read_hessian(args.hessian, atoms)
        with console.stage("Normal modes and symmetry"):
            return analyse_hessian(atoms, values, *more), {"hessian": str(args.hessian)}
    from phonopy_equivariant.cli.start import start_potential, warn_if_far
    from phonopy_equivariant.molecules.structure import as_molecule

    molecule = as_molecule(atoms)
    potential = start_potential(args, console, molecule)
    if args.relax:
        molecule = _relaxed(args, console, molecule, potential)
    with console.stage(f"Hessian of {len(molecule)} atoms, normal modes and symmetry"):
        result = vibrations(molecule, potential, *more)
    warn_if_far(console, potential, molecule)
    source = {"potential": potential.name, "potential_sha256": potential.sha256}
    return result, source | {"dtype": potential.dtype}


def _relaxed(args: argparse.Namespace, console: Console, molecule: Atoms, potential: Any) -> Atoms:
    from phonopy_equivariant.molecules.relaxation import FMAX, NewtonStep, relax

    last: list[NewtonStep] = []
    with console.stage("Relaxing") as update:

        def show(step: NewtonStep) -> None:
            last[:] = [step]
            line = f"step {step.step}, force {step.max_force:.1e} eV/Å"
            update(f"Relaxing: {line}")
            console.detail(f"  {line}")

        fmax = FMAX if args.fmax is None else args.fmax
        relaxed = relax(molecule, potential, fmax, callback=show)
    console.say(f"Relaxed in {last[0].step} Newton steps: force {last[0].max_force:.1e} eV/Å")
    return relaxed


def _report(
    args: argparse.Namespace,
    console: Console,
    result: MolecularVibrations,
    source: dict[str, str],
) -> None:
    from phonopy_equivariant.cli.console import print_table
    from phonopy_equivariant.molecules.report import (
        remarks,
        summary_lines,
        table_columns,
        table_rows,
    )
    from phonopy_equivariant.molecules.spectrum import plot_spectrum
    from phonopy_equivariant.molecules.writers import (
        write_hessian,
        write_molden,
        write_xyz,
        write_yaml,
    )

    gas = result.thermochemistry(args.temperature, args.pressure, args.spin)
    for remark in remarks(result, gas.spin):
        console.warn(remark)
    write_yaml(result, f"{args.output}.yaml", gas, source)
    write_xyz(result, f"{args.output}.xyz")
    write_molden(result, f"{args.output}.molden")
    write_hessian(result, f"{args.output}.json")
    with console.stage("Plotting the spectrum"):
        plot_spectrum(result, f"{args.output}.png", args.width)
    if console.verbosity:
        if result.multiplets:
            print_table(table_columns(result), table_rows(result))
        console.report("Molecule", summary_lines(result, gas))
    console.say(f"Files: {', '.join(args.output + suffix for suffix in _SUFFIXES)}")

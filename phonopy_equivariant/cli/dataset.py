"""``phonopy-equivariant dataset``: look at, convert, choose from, check and make training data."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable

from phonopy_equivariant import defaults
from phonopy_equivariant.cli.options import (
    Commands,
    add_logging_options,
    add_model_options,
    finite_number,
    parser_arguments,
)

_DESCRIPTION = """\
Training data: structures with energies, forces, stresses, Hessians, force constants or spectra.
FILES are recognised by name and content: extended XYZ (.gz, .xz too), HDF5, ASE databases and
trajectories, phonopy (phonopy_params.yaml[.xz], FORCE_SETS, FORCE_CONSTANTS,
force_constants.hdf5), vasprun.xml, ph.x and q2r.x of Quantum ESPRESSO, MPtrj, MPF.2021, sGDML and
rMD17 (.npz). Written are extended XYZ and HDF5 (.h5, for large sets). Nothing in a file is run.
"""

_EXAMPLES = """\
examples:
  phonopy-equivariant dataset info train.extxyz.xz --cutoff 6
  phonopy-equivariant dataset check train.extxyz
  phonopy-equivariant dataset convert vasprun.xml.* -o md.extxyz --level PBE
  phonopy-equivariant dataset convert phonopy_params.yaml -o phi.h5 --kind force_constants
  phonopy-equivariant dataset filter MPtrj.json -o NaCl.h5 --elements Na Cl
  phonopy-equivariant dataset split md.extxyz -o md.extxyz
  phonopy-equivariant dataset perturb POSCAR -o todo.extxyz --dim 1 --dim 2 --count 100 20

"phonopy-equivariant dataset ACTION --help" explains an action.
"""


def add_command(commands: Commands) -> None:
    """Add the parser of ``dataset``."""
    parser = commands.add_parser(
        "dataset",
        help="look at, convert, filter, split, check and make training data",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for add_action in (_add_info, _add_check, _add_convert, _add_filter, _add_split, _add_perturb):
        add_action(actions)


def _action(actions: Commands, name: str, text: str, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=text, **parser_arguments(description, "")
    )
    parser.set_defaults(function=_on_demand(name))
    return parser


def _on_demand(name: str) -> Callable[[argparse.Namespace], int]:
    """Return a function that imports what an action needs when it is called."""

    def call(args: argparse.Namespace) -> int:
        place = "dataset_perturb" if name == "perturb" else "dataset_actions"
        module = importlib.import_module(f"phonopy_equivariant.cli.{place}")
        status: int = getattr(module, name)(args)
        return status

    return call


def _add_info(actions: Commands) -> None:
    parser = _action(actions, "info", "what a set contains", "Say what each file contains.")
    parser.add_argument(
        "--cutoff",
        type=finite_number,
        metavar="R",
        help="also the average number of neighbours within R Å, and energies per element by "
        "least squares, over all files",
    )
    _add_reading(parser)


def _add_check(actions: Commands) -> None:
    parser = _action(
        actions,
        "check",
        "find what is wrong",
        "Report, by file and index (from 0): numbers that are not finite, overlapping atoms,\n"
        "missing labels, labels that contradict each other, absurd forces, equal structures with\n"
        "other labels or in two of the files (training and validation), energies that do not fit\n"
        "the forces or the stress (units, signs, energies per atom), outliers. Exit status 1 if\n"
        "anything is wrong.",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help="write the records without those that are wrong by themselves; refused where the "
        "set as a whole is inconsistent",
    )
    parser.add_argument(
        "--require",
        nargs="+",
        choices=("energy", "forces", "stress"),
        metavar="LABEL",
        help="energy, forces, stress: labels that each record must have; default: those that "
        "most have",
    )
    _add_reading(parser)


def _add_convert(actions: Commands) -> None:
    parser = _action(
        actions, "convert", "read any format, write one", "Write all records of FILES to one file."
    )
    _add_output(parser)
    _add_reading(parser)


def _add_filter(actions: Commands) -> None:
    parser = _action(
        actions,
        "filter",
        "choose by force, element, size, label",
        "Write the records of FILES that fulfil all conditions. The force limit is that of Fang\n"
        "et al., arXiv:2403.11347.",
    )
    _add_output(parser)
    parser.add_argument(
        "--max-force",
        type=finite_number,
        default=defaults.MAX_FORCE,
        metavar="F",
        help="largest force on an atom, eV/Å; default: %(default)g (inf: none)",
    )
    parser.add_argument("--elements", nargs="+", default=(), metavar="EL", help="no others")
    parser.add_argument("--max-atoms", type=int, metavar="N", help="largest number of atoms")
    parser.add_argument(
        "--labels",
        nargs="+",
        default=(),
        metavar="LABEL",
        help="must have: energy, forces, stress, force_constants, spectrum",
    )
    _add_reading(parser)


def _add_split(actions: Commands) -> None:
    parser = _action(
        actions,
        "split",
        "training and validation sets",
        "Write OUT_train, OUT_valid (and OUT_test, if the split file has one), and the split\n"
        "itself as OUT_split.yaml.",
    )
    _add_output(parser)
    parser.add_argument(
        "--fraction",
        type=finite_number,
        default=defaults.TRAINING_FRACTION,
        metavar="X",
        help="for training; default: %(default)g",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--split-file",
        metavar="YAML",
        help="a given split: lists of indices, from 0, under train:, valid: and test:",
    )
    _add_reading(parser)


def _add_perturb(actions: Commands) -> None:
    parser = _action(
        actions,
        "perturb",
        "perturbed copies of crystals",
        "Write perturbed copies of each STRUCTURE: normal random changes of every component of\n"
        "the cell vectors and of the positions, with the widths of Fang et al.,\n"
        "arXiv:2403.11347.\n"
        "Without --label they are structures only, for a first-principles code. With --recipe\n"
        "the copies are in OUT_train and OUT_valid.",
    )
    parser.add_argument("structures", metavar="STRUCTURE", nargs="+", help="structure files")
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="table-1: what the paper made of each crystal, 9 structures for training and 4 for "
        "validation: at rest; positions perturbed, positions and cell perturbed, of the cell and "
        "of 2×2×2 cells; with --label those with a force above "
        f"{defaults.MAX_FORCE:g} eV/Å are left out",
    )
    _add_output(parser)
    parser.add_argument(
        "--dim",
        nargs="+",
        action="append",
        type=int,
        metavar="N",
        help="copies of the cell, one number or three; may be given again; default: 1 1 1",
    )
    parser.add_argument(
        "--count",
        nargs="+",
        type=int,
        metavar="N",
        help="perturbed structures, for each --dim, as many as you can label; default: 100, about "
        "what a potential of one crystal needed from nothing (docs/notes/training.md)",
    )
    for option, width in (
        ("--positions", defaults.PERTURBED_POSITIONS),
        ("--cell", defaults.PERTURBED_CELL),
    ):
        parser.add_argument(
            option,
            type=finite_number,
            metavar="S",
            help=f"width, Å; default: {width:g}",
        )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--label",
        action="store_true",
        help="compute energy, forces and stress with the potential",
    )
    add_model_options(parser)
    add_logging_options(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="file written: .extxyz (also .gz, .xz) or .h5",
    )


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="files of any format above")
    group = parser.add_argument_group(
        "reading", "What the format of a file does not take is refused."
    )
    group.add_argument("--format", metavar="NAME", help="where it is not recognised by itself")
    group.add_argument("--level", metavar="TEXT", help="level of theory, such as PBE")
    group.add_argument(
        "--energy-key",
        metavar="KEY",
        help="name in extended XYZ, a database or a trajectory; default: names such as REF_energy "
        "win over energy, and free_energy wins over energy",
    )
    group.add_argument("--forces-key", metavar="KEY", help="likewise")
    group.add_argument(
        "--stress-key", metavar="KEY", help='likewise; a name with "virial" in it is a virial (eV)'
    )
    group.add_argument(
        "--cell", metavar="YAML", help="phonopy: file with the cells of FORCE_SETS, FORCE_CONSTANTS"
    )
    group.add_argument(
        "--kind", choices=("all", "forces", "force_constants"), help="phonopy: what to read"
    )
    group.add_argument(
        "--produce-force-constants",
        action="store_true",
        default=None,
        help="phonopy: derive force constants from forces",
    )
    group.add_argument("--selection", metavar="QUERY", help="ASE's query for a database")
    group.add_argument(
        "--energy",
        choices=("uncorrected", "corrected"),
        help="MPtrj: VASP's energies, or those with the MP2020 corrections",
    )
    group.add_argument("--energy-unit", metavar="UNIT", help=".npz: kcal/mol, eV, hartree, ...")
    group.add_argument("--length-unit", metavar="UNIT", help=".npz: Ang, bohr, nm")
    group.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out records with numbers that are not finite or impossible structures, "
        "naming each, instead of stopping",
    )
    add_logging_options(parser)

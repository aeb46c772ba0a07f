"""``phonopy-equivariant models``: which there are, where they lie, conversion, programs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from phonopy_equivariant.cli.options import Commands, parser_arguments

if TYPE_CHECKING:
    from phonopy_equivariant.cli.console import Console

_DESCRIPTION = "List, show, fetch, remove and prepare potentials; convert those of other projects."

_EXAMPLES = """\
examples:
  phonopy-equivariant models list
  phonopy-equivariant models show nequix-mp-1-pft
  phonopy-equivariant models fetch nequix-mp-1-pft     before a job on a node without network
  phonopy-equivariant models remove nequix-mp-1
  phonopy-equivariant models import my_mace.model my_mace.npz
  phonopy-equivariant models audit sevennet-0
  phonopy-equivariant models prepare nequix-mp-1-pft   compile its programs beforehand

The model marked "bundled" comes with the package. Any other is fetched by itself the first time it
is used, and kept in your cache folder. The SHA-256 is checked each time. Files in the folder that
the variable PHONOPY_EQUIVARIANT_MODELS names (NAME.nqx) are taken first.
"""


def add_command(commands: Commands) -> None:
    """Add the parser of ``models``."""
    parser = commands.add_parser(
        "models",
        help="list, show, fetch, remove and convert potentials",
        **parser_arguments(_DESCRIPTION, _EXAMPLES),
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, function, text in (
        ("list", _list, "all models that load by name"),
        ("show", _show, "licence, level of theory, elements, citation, accuracy"),
        ("fetch", _fetch, "download a model and check its hash"),
        ("remove", _remove, "delete a model from your cache folder"),
    ):
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        action.set_defaults(function=function)
        if name != "list":
            what = "name or file of a model" if name == "show" else "name of a model"
            action.add_argument("name", metavar="NAME", nargs="+", help=what)
    _add_import(actions)
    _add_audit(actions)
    _add_prepare(actions)


_AUDIT = """\
Measure what laws a potential obeys and how smooth it is, on five atoms in a cell without symmetry
and on bonds of two elements: how forces change under rotations and reflections, the sum rule,
rounding in single precision, and which derivatives of a bond's energy jump at the cutoff and at
inner radii.

Force constants need second derivatives, Grüneisen parameters third ones. 'run', 'elastic' and
'gruneisen' warn of neighbours near a radius where what they need jumps.
"""

_AUDIT_EXAMPLES = """\
examples:
  phonopy-equivariant models audit nequix-mp-1-pft
  phonopy-equivariant models audit sevennet-0 my_model.npz
"""


def _add_audit(actions: Commands) -> None:
    action = actions.add_parser(
        "audit",
        help="measure a model's symmetry, smoothness and rounding",
        **parser_arguments(_AUDIT, _AUDIT_EXAMPLES),
    )
    action.set_defaults(function=_audit)
    action.add_argument("name", metavar="NAME", nargs="+", help="name or file of a model")


def _audit(args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.console import Console
    from phonopy_equivariant.cli.start import start_jax

    start_jax("cpu", Console())
    from phonopy_equivariant.evaluation.audit import audit

    for index, name in enumerate(args.name):
        print("\n" * bool(index) + "\n".join(audit(name).lines()))
    return 0


_PREPARE = """\
Compile the programs that force constants need, once for a model and all crystals, and keep them;
with --third-order also those of elastic, gruneisen, fc3 and kappa.

Nothing depends on it: the first run with a model compiles them as well, in some seconds. It is for
images of containers and for cluster nodes, where each run would be the first. Programs are only fit
for the kind of processor and the versions that they were compiled with; the folder is that of
JAX_COMPILATION_CACHE_DIR. Relaxations compile programs of their own.
"""

_PREPARE_EXAMPLES = """\
examples:
  phonopy-equivariant models prepare pe-crystal-3
  phonopy-equivariant models prepare nequix-mp-1-pft my_model.npz --dtype float32
  phonopy-equivariant models prepare pe-crystal-3 --third-order
  phonopy-equivariant models prepare --clear
"""


def _add_prepare(actions: Commands) -> None:
    action = actions.add_parser(
        "prepare",
        help="compile a model's programs before they are needed, or remove all",
        **parser_arguments(_PREPARE, _PREPARE_EXAMPLES),
    )
    action.set_defaults(function=_prepare)
    action.add_argument("name", metavar="NAME", nargs="*", help="name or file of a model")
    action.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    action.add_argument(
        "--third-order",
        action="store_true",
        help="also the programs of elastic, gruneisen, fc3 and kappa",
    )
    action.add_argument("--clear", action="store_true", help="first remove all kept programs")


def _prepare(args: argparse.Namespace) -> int:
    from phonopy_equivariant.cli.console import Console
    from phonopy_equivariant.cli.start import start_jax
    from phonopy_equivariant.errors import PhonopyEquivariantError

    if not args.name and not args.clear:
        raise PhonopyEquivariantError("Name a model to prepare, or give --clear.")
    console = Console()
    start_jax("cpu", console)
    from phonopy_equivariant.runtime import programs

    if programs.folder() is None:
        raise PhonopyEquivariantError(
            "Compiled programs cannot be kept: let JAX_COMPILATION_CACHE_DIR name a folder that "
            "can be written, and do not set JAX_ENABLE_COMPILATION_CACHE=false."
        )
    if args.clear:
        removed = programs.clear()
        print(f"removed {removed.files} programs, {removed.size / 1e6:.1f} MB")
    for name in args.name:
        _prepare_model(name, args.dtype, args.third_order, console)
    return 0


def _prepare_model(name: str, dtype: str, third_order: bool, console: Console) -> None:
    import time

    from phonopy_equivariant.checkpoints.load import load_potential
    from phonopy_equivariant.response.bloch.rehearsal import rehearse
    from phonopy_equivariant.response.third.rehearsal import rehearse_third_order
    from phonopy_equivariant.runtime import programs

    potential = load_potential(name, dtype=dtype)
    kept_before, start = programs.stored(), time.perf_counter()
    begun = rehearse(potential)
    if third_order:
        begun = begun + rehearse_third_order(potential)
    for program in console.track(f"Compiling the programs of {potential.name}", begun):
        program.program()
    seconds, kept = time.perf_counter() - start, programs.stored()
    print(
        f"{potential.name}: {len(begun)} programs, {seconds:.1f} s, "
        f"{(kept.size - kept_before.size) / 1e6:.1f} MB more in {programs.folder()}"
    )


_IMPORT = """\
Convert a model of another project into a checkpoint of this package.

Files of SevenNet (.pth), nequip (.ckpt, .nequip.zip) and mace-torch (.model) are read without
torch, and nothing in them is executed. They also load as they are (--model FILE); a model with
several heads or modalities has to be converted, with one of them named. A converted model loads
faster.

With --compare a model of mace-torch is opened by mace-torch too, which runs whatever code is in the
file, and written only if energies and forces agree on a random structure. That needs torch and
mace-torch: pip install '.[mace]' in a copy of the repository.
"""

_IMPORT_EXAMPLES = """\
examples:
  phonopy-equivariant models import my_mace.model my_mace.npz
  phonopy-equivariant models import two_heads.model pbe.npz --head pbe
  phonopy-equivariant models import checkpoint_sevennet_mf_0.pth pbe.npz --head PBE
  phonopy-equivariant models import my_model.nequip.zip my_model.npz
  phonopy-equivariant run POSCAR --model my_mace.npz --band auto
"""


def _add_import(actions: Commands) -> None:
    action = actions.add_parser(
        "import",
        help="convert a model of SevenNet, nequip or mace-torch",
        **parser_arguments(_IMPORT, _IMPORT_EXAMPLES),
    )
    action.set_defaults(function=_import)
    action.add_argument(
        "source",
        metavar="FILE",
        help="a .pth file of SevenNet, .ckpt or .nequip.zip of nequip, .model of mace-torch",
    )
    action.add_argument("output", metavar="OUT", help="checkpoint to write; .npz is added")
    action.add_argument(
        "--head", metavar="NAME", help="head or modality to take, where there are several"
    )
    action.add_argument(
        "--compare",
        action="store_true",
        help="compare with mace-torch, which runs the code in the file",
    )


def _import(args: argparse.Namespace) -> int:
    from pathlib import Path

    from phonopy_equivariant.checkpoints.converted import convert

    source, output = Path(args.source).expanduser(), Path(args.output).expanduser()
    if output.suffix != ".npz":
        output = output.with_name(output.name + ".npz")
    conversion = convert(source, output, args.head, args.compare)
    potential = conversion.potential
    deviation = ""
    if conversion.energy_deviation is not None:
        deviation = (
            f"; deviation from mace-torch {conversion.energy_deviation:.0e} eV/atom, "
            f"{conversion.force_deviation:.0e} eV/Å"
        )
    print(
        f"{conversion.path}: {len(potential.species)} elements, cutoff {potential.cutoff:g} Å, "
        f"{potential.num_interactions} layers{deviation}"
    )
    return 0


def _list(_args: argparse.Namespace) -> int:
    from phonopy_equivariant.catalogue.cards import list_models, local_path
    from phonopy_equivariant.cli.console import print_table

    print_table(
        ("NAME", "THEORY", "ELEMENTS", "LICENCE", "HERE"),
        [
            (
                card.name,
                card.theory,
                len(card.elements),
                card.licence,
                "bundled" if card.bundled else "yes" if local_path(card.name) else "no",
            )
            for card in list_models()
        ],
    )
    return 0


def _show(args: argparse.Namespace) -> int:
    from phonopy_equivariant.checkpoints.summary import summary_lines

    for index, name in enumerate(args.name):
        print("\n" * bool(index) + "\n".join(summary_lines(name)))
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from phonopy_equivariant.checkpoints.load import fetch

    for name in args.name:
        print(f"{name}: {fetch(name)}")
    return 0


def _remove(args: argparse.Namespace) -> int:
    from phonopy_equivariant.catalogue.cards import MODELS_VARIABLE, local_path
    from phonopy_equivariant.checkpoints.fetch import remove

    for name in args.name:
        removed = remove(name)
        print(f"{name}: {'removed' if removed else 'was not in the cache folder'}")
        users_file = local_path(name)
        if users_file is not None:
            print(f"{name}: {users_file} is yours (from {MODELS_VARIABLE}) and stays")
    return 0

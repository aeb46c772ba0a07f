"""``phonopy-equivariant dataset perturb``: perturbed copies of crystals as training structures."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.dataset_actions import counted, part_name, say_written
from phonopy_equivariant.data.formats import iter_records, output_format, write_records
from phonopy_equivariant.data.record import Record
from phonopy_equivariant.defaults import MAX_FORCE, PERTURBED_CELL, PERTURBED_POSITIONS
from phonopy_equivariant.errors import PhonopyEquivariantError

if TYPE_CHECKING:
    from phonopy_equivariant.data.perturb import Perturbation
    from phonopy_equivariant.potential import Potential
    from phonopy_equivariant.structure import Structure

_COPIES = 100  # of a crystal, unless told otherwise


def perturb(args: argparse.Namespace) -> int:
    """Write perturbed copies of crystals."""
    console = Console(args.quiet, args.verbose)
    output_format(Path(args.output))
    given = [name for name in ("dim", "count", "positions", "cell") if getattr(args, name)]
    if args.recipe is not None and given:
        raise PhonopyEquivariantError(f"--recipe has its own --{given[0]}; leave one away.")
    options = [] if args.recipe else _perturbations(args)
    if args.recipe:
        from phonopy_equivariant.data.perturb import shares_of

        shares_of(args.recipe)  # a wrong name fails before the potential is loaded
    structures = [(name, _structure(name, console)) for name in args.structures]
    potential = None
    if args.label:
        from phonopy_equivariant.cli.start import start_potential

        potential = start_potential(args, console, structures[0][1])
    if args.recipe:
        return _perturb_by_recipe(args, console, structures, potential)
    from phonopy_equivariant.data.perturb import perturbed_records

    perturbed_copies = [
        perturbed_records(structure, option, count, potential, f"{name} {option.repeat}")
        for name, structure in structures
        for option, count in options
    ]
    with console.stage("Perturbing structures") as update:
        records = counted(itertools.chain.from_iterable(perturbed_copies), update, every=1)
        count = write_records(records, args.output)
    say_written(console, count, args.output)
    return 0


def _perturbations(args: argparse.Namespace) -> list[tuple[Perturbation, int]]:
    """Return how a crystal is perturbed and how often, for each --dim."""
    from phonopy_equivariant.data.perturb import Perturbation

    dims, counts = args.dim or [[1]], args.count or [_COPIES]
    if len(dims) != len(counts):
        raise PhonopyEquivariantError(
            f"--count has {len(counts)} numbers for {len(dims)} --dim; give one for each."
        )
    positions = PERTURBED_POSITIONS if args.positions is None else args.positions
    cell = PERTURBED_CELL if args.cell is None else args.cell
    return [
        (Perturbation(positions, cell, _repeat(dim), args.seed + k), count)
        for k, (dim, count) in enumerate(zip(dims, counts, strict=True))
    ]


def _perturb_by_recipe(
    args: argparse.Namespace,
    console: Console,
    structures: list[tuple[str, Structure]],
    potential: Potential | None,
) -> int:
    """Write OUT_train and OUT_valid of a recipe."""
    from phonopy_equivariant.data.perturb import recipe_records
    from phonopy_equivariant.data.recipes import Filter
    from phonopy_equivariant.io.outputs import check_output

    paths = {part: part_name(args.output, part) for part in ("train", "valid")}
    for path in paths.values():
        check_output(path)
    parts: dict[str, list[Record]] = {part: [] for part in paths}
    limit, left_out = Filter(), 0
    with console.stage("Perturbing structures") as update:
        for k, (name, structure) in enumerate(structures):
            for part, record in recipe_records(
                structure, args.recipe, args.seed + k, potential, name
            ):
                if limit.reason(record):
                    left_out += 1
                    continue
                parts[part].append(record)
                update(f"{sum(map(len, parts.values()))} records")
    if left_out:
        console.say(f"{left_out} records left out: a force above {MAX_FORCE:g} eV/Å")
    for part, path in paths.items():
        say_written(console, write_records(iter(parts[part]), path), str(path))
    return 0


def _structure(path: str, console: Console) -> Structure:
    from phonopy_equivariant.io.crystals import read_crystal
    from phonopy_equivariant.structure import as_structure

    if ".xyz" not in Path(path).name and ".extxyz" not in Path(path).name:
        return as_structure(read_crystal(path, report=console.say).unitcell)
    *others, record = iter_records(path)
    if others:
        console.say(f"{path}: the last of {len(others) + 1} structures is perturbed")
    return record.structure


def _repeat(dim: list[int]) -> tuple[int, int, int]:
    if len(dim) not in (1, 3):
        raise PhonopyEquivariantError(
            f"--dim {' '.join(map(str, dim))}: give one number or three, as in --dim 2 2 2."
        )
    first, second, third = dim * (3 // len(dim))
    return first, second, third

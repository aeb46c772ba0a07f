"""The actions of ``phonopy-equivariant dataset``."""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase.data import chemical_symbols

from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.data.formats import iter_records, output_format, write_records
from phonopy_equivariant.data.record import Record
from phonopy_equivariant.errors import PhonopyEquivariantError

if TYPE_CHECKING:
    from phonopy_equivariant.data.checks import Problem, Survey
    from phonopy_equivariant.data.statistics import Summary

# options of the command line that are options of a reader, by the same names
_READING = (
    *("format", "level", "energy_key", "forces_key", "stress_key", "cell", "kind"),
    *("produce_force_constants", "selection", "energy", "energy_unit", "length_unit"),
)
_UPDATE_EVERY = 200  # records between two updates of what is shown


def info(args: argparse.Namespace) -> int:
    """Print a summary of each file."""
    from phonopy_equivariant.data.statistics import (
        average_neighbours,
        reference_energies,
        summarise,
    )

    console = Console(args.quiet, args.verbose)
    all_records: list[Record] = []
    for name in args.files:
        records = _records(args, console, [name])
        if args.cutoff:
            records = _keeping(records, all_records)
        console.report(name, _summary_lines(summarise(records)))
    if args.cutoff:
        neighbours = average_neighbours(all_records, args.cutoff)
        lines = [f"neighbours within {args.cutoff:g} Å  {neighbours:.4f}"]
        if any(record.energy is not None for record in all_records):
            fit = reference_energies(all_records)
            lines += [f"energy of {chemical_symbols[z]:<2}  {fit[z]:.6f} eV" for z in sorted(fit)]
        console.report("all files", lines)
    return 0


def check(args: argparse.Namespace) -> int:
    """Print the problems of the files; with ``--output`` write the records without problems."""
    from phonopy_equivariant.data.formats import open_records

    console = Console(args.quiet, args.verbose)
    if args.output:
        output_format(Path(args.output))
    num_problems, sound = 0, []
    surveys: list[Survey] = []
    for name in args.files:
        with console.stage(f"Reading {name}"):
            records = open_records(name, **_options(args))
        with console.stage(f"Checking {len(records)} records of {name}") as update:
            surveys.append(_survey(records, args.require, update))
            problems = [*surveys[-1].problems(), *_repeated(surveys)]
        for problem in problems:
            print(f"{problem.source}: {problem.text}", flush=True)
        num_problems += len(problems)
        if args.output and any(problem.place is None for problem in problems):
            raise PhonopyEquivariantError(
                f"{name}: the set as a whole is inconsistent, so nothing was written; "
                "convert its units first."
            )
        problem_places = {problem.place for problem in problems}
        sound.append(_without(records, problem_places))
        console.say(f"{name}: {len(records)} records, {len(problems)} problems")
    if args.output:
        count = write_records(itertools.chain.from_iterable(sound), args.output)
        say_written(console, count, args.output)
        return 0
    return 1 if num_problems else 0


def _without(records: Sequence[Record], places: set[int | None]) -> Iterator[Record]:
    return (record for place, record in enumerate(records) if place not in places)


def _survey(
    records: Sequence[Record], require: Iterable[str] | None, update: Callable[[str], None]
) -> Survey:
    from phonopy_equivariant.data.checks import Survey

    survey = Survey(require)
    for record in counted(iter(records), update):
        survey.add(record)
    return survey


def _repeated(surveys: Sequence[Survey]) -> Iterator[Problem]:
    """Yield a problem for each structure of the last file that an earlier file has too."""
    from phonopy_equivariant.data.checks import Problem
    from phonopy_equivariant.data.duplicates import shared_structures

    *earlier, latest = surveys
    for survey in earlier:
        for first, second, difference in shared_structures(survey.marks, latest.marks):
            text = f"the same structure as {survey.sources[first]}"
            text += f", but {difference}" if difference else ": in training and validation?"
            yield Problem(latest.sources[second], text, second)


def convert(args: argparse.Namespace) -> int:
    """Write all records to one file."""
    console = Console(args.quiet, args.verbose)
    count = write_records(_records(args, console, args.files), args.output)
    say_written(console, count, args.output)
    return 0


def filter(args: argparse.Namespace) -> int:
    """Write the records that fulfil all conditions."""
    from phonopy_equivariant.data.recipes import Filter, filter_records

    console = Console(args.quiet, args.verbose)
    options = Filter(args.max_force, tuple(args.elements), args.max_atoms, tuple(args.labels))
    reasons: Counter[str] = Counter()

    def report(record: Record, reason: str) -> None:
        reasons[reason.split(" of ")[0]] += 1
        console.detail(f"{record.source}: {reason}")

    records = filter_records(_records(args, console, args.files), options, report)
    count = write_records(records, args.output)
    for reason, number in reasons.most_common():
        console.say(f"{number} records left out: {reason}")
    say_written(console, count, args.output)
    return 0


def split(args: argparse.Namespace) -> int:
    """Write training and validation sets."""
    from phonopy_equivariant.data.recipes import read_split, split_indices, write_split
    from phonopy_equivariant.io.outputs import check_output

    console = Console(args.quiet, args.verbose)
    output_format(Path(args.output))
    # records of HDF5 files are read again for each part, all others stay in memory
    streamed = all(Path(name).suffix in (".h5", ".hdf5") for name in args.files)
    in_memory = [] if streamed else list(_records(args, console, args.files))
    count = sum(1 for _ in _records(args, console, args.files)) if streamed else len(in_memory)
    parts = (
        split_indices(count, args.fraction, args.seed)
        if args.split_file is None
        else read_split(args.split_file, count)
    )
    paths = {part: part_name(args.output, part) for part in parts}
    for path in paths.values():
        check_output(path)
    for part, indices in parts.items():
        members = set(indices)
        source = _records(args, console, args.files) if streamed else in_memory
        records = (record for k, record in enumerate(source) if k in members)
        say_written(console, write_records(records, paths[part]), str(paths[part]))
    name = part_name(Path(args.output).name.partition(".")[0] + ".yaml", "split").name
    split_file = Path(args.output).expanduser().with_name(name)
    write_split(parts, split_file)
    console.say(f"The split is in {split_file}.")
    return 0


def _records(args: argparse.Namespace, console: Console, files: list[str]) -> Iterator[Record]:
    """Yield the records of files, showing how many were read."""
    mode, options = "skip" if args.skip_bad else "raise", _options(args)
    for name in files:
        with console.stage(f"Reading {name}") as update:
            records = iter_records(name, unsound=mode, report=console.warn, **options)
            yield from counted(records, update)


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the command line says to a reader."""
    options = {name: getattr(args, name) for name in _READING}
    return {name: value for name, value in options.items() if value is not None}


def counted(
    records: Iterator[Record], update: Callable[[str], None], every: int = _UPDATE_EVERY
) -> Iterator[Record]:
    """Yield records, and show how many there were."""
    for count, record in enumerate(records, 1):
        if count % every == 0:
            update(f"{count} records")
        yield record


def _keeping(records: Iterator[Record], collected: list[Record]) -> Iterator[Record]:
    for record in records:
        collected.append(record)
        yield record


def _summary_lines(summary: Summary) -> list[str]:
    elements = " ".join(chemical_symbols[z] for z in summary.elements)
    low_high = summary.energy_range
    rows = [
        ("records", f"{summary.records}"),
        ("atoms", f"{summary.atoms} ({summary.sizes[0]} to {summary.sizes[1]} in a record)"),
        ("elements", elements),
        *((name.replace("_", " "), f"{count} records") for name, count in summary.labels.items()),
        low_high and ("energies", f"{low_high[0]:.6f} to {low_high[1]:.6f} eV/atom"),
        summary.force_max is not None
        and (
            "size of forces",
            f"rms {summary.force_rms:.4g}, largest {summary.force_max:.4g} eV/Å",
        ),
        summary.stress_max is not None and ("stresses", f"up to {summary.stress_max:.4g} eV/Å³"),
        summary.levels and ("level", ", ".join(summary.levels)),
    ]
    return [f"{row[0]:<16} {row[1]}" for row in rows if row]


def part_name(output: str, part: str) -> Path:
    """Return OUT_PART with the suffix of OUT."""
    path = Path(output).expanduser()
    stem, dot, suffix = path.name.partition(".")
    return path.with_name(f"{stem}_{part}{dot}{suffix}")


def say_written(console: Console, count: int, output: str) -> None:
    """Say where records are."""
    console.say(f"{count} records are in {output}.")

"""phonopy's own script in process: which options it takes, what they say, and the run itself.

``phonopy.scripts.phonopy.run`` reads ``sys.argv`` and ends in SystemExit. Its options are
checked here before any force constants are computed.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import re
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from phonopy import Phonopy
from phonopy.cui.phonopy_argparse import get_run_parser
from phonopy.cui.settings import PhonopyConfParser, PhonopySettings
from phonopy.structure.atomic_data import get_atomic_data, set_atomic_data

from phonopy_equivariant.errors import PhonopyEquivariantError, nearest
from phonopy_equivariant.phonons.exact_script import Calculation, wrapped_calculation
from phonopy_equivariant.phonons.permutations import composed_permutations

_NEGATIVE_NUMBER = re.compile(r"-\d+$|-\d*\.\d+(e[-+]?\d+)?$|-\d+/\d+$", re.IGNORECASE)
_NOT_FINITE = re.compile(r"[-+]?(nan|inf|infinity)", re.IGNORECASE)

# settings of phonopy that would put other force constants, or none, in place of ours
_CONTRADICTIONS = {
    "create_displacements": "-d creates displacements, which analytic force constants do without",
    "use_pypolymlp": "--pypolymlp is another potential",
    "sscha_iterations": "--sscha needs --pypolymlp",
}
# phonopy drops the value 0 of these options without a word and takes its default: names in its
# settings and in its parser, and what to say.
_POSITIVE = (
    (*["symmetry_tolerance"] * 2, "--tolerance: give a positive distance in Å"),
    ("temperature_step", "tstep", "--tstep: give a positive number of kelvin"),
    ("max_temperature", "tmax", "--tmax: give a positive number of kelvin"),
    ("frequency_pitch", "fpitch", "--fpitch: give a positive frequency in THz"),
    ("sigma", "sigma", "--sigma is a line width: give positive numbers in THz"),
    (*["frequency_conversion_factor"] * 2, "--factor: give a positive number"),
    ("group_velocity_delta_q", "gv_delta_q", "--gv-delta-q: give a positive number in 1/Å"),
)
# A mesh with more points, or of a longer length (Å), does not fit into memory.
_MOST_POINTS, _LONGEST = 1e8, 1000.0


class UsageError(PhonopyEquivariantError):
    """Options that phonopy does not know, or that contradict each other."""


class SplitArguments(NamedTuple):
    """A command line taken apart."""

    ours: list[str]
    phonopys: list[str]
    positional: list[str]


def split_arguments(words: Sequence[str], ours: argparse.ArgumentParser) -> SplitArguments:
    """Sort words into our options, phonopy's options and positional words.

    Each option comes with its values, which it takes as argparse would: a positional word after
    an option that takes any number of values belongs to the option.

    Raises
    ------
    UsageError
        Neither we nor phonopy have the option; the message offers the nearest one.

    """
    counts = _value_counts(_phonopy_parser()), _value_counts(ours)
    value_counts = counts[0] | counts[1]
    result = SplitArguments([], [], [])
    index = 0
    while index < len(words):
        word = words[index]
        name, attached, _ = word.partition("=")
        name = name.replace("_", "-") if name.startswith("--") else name
        num_words = 1
        if not _is_option(word):
            result.positional.append(word)
        elif name in value_counts:
            if not attached:
                num_words += _count_values(words[index + 1 :], value_counts[name])
            target = result.ours if name in counts[1] else result.phonopys
            target += [name + word[len(name) :], *words[index + 1 : index + num_words]]
        elif (
            re.fullmatch("-[A-Za-z]{2,}", word)
            and {f"-{x}" for x in word[1:]} <= value_counts.keys()
        ):
            for letter in word[1:]:  # -ps stands for -p -s
                (result.ours if f"-{letter}" in counts[1] else result.phonopys).append(f"-{letter}")
        else:
            near = nearest(name, value_counts)
            hint = f"; did you mean {near}?" if near else ""
            raise UsageError(f"unknown option {name}{hint}")
        index += num_words
    return result


def phonopy_settings(options: Sequence[str]) -> PhonopySettings:
    """Return what phonopy's options and their ``--config`` file say.

    Raises
    ------
    UsageError
        phonopy refuses them, or they contradict analytic force constants.

    """
    parsed = _parse(options)
    settings = parsed.settings
    if settings.random_displacements and settings.random_displacement_temperature is None:
        raise UsageError(
            "contradictory options: --rd displaces atoms for force calculations; leave it away, "
            "or give a temperature (--rd-temperature)."
        )
    for name, reason in _CONTRADICTIONS.items():
        if getattr(settings, name, None):
            raise UsageError(f"contradictory options: {reason}; leave it away.")
    if settings.read_force_constants is False:
        raise UsageError(
            "contradictory options: --noreadfc makes phonopy ignore the force constants that "
            "this command computes; leave it away."
        )
    _check_finite(parsed.confs)
    _check_positive(settings, options)
    _check_ranges(settings)
    return settings


def phonopy_tags(options: Sequence[str]) -> dict[str, Any]:
    """Return phonopy's tags with their values, as options and ``--config`` file give them.

    Raises
    ------
    UsageError
        phonopy refuses them.

    """
    return dict(_parse(options).confs)


def grouped_options(options: Sequence[str]) -> list[list[str]]:
    """Return each option together with its values."""
    groups: list[list[str]] = []
    for word in options:
        if _is_option(word):
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def option_names() -> dict[str, str]:
    """Return under which name phonopy's parser keeps each option."""
    return {name: a.dest for a in _phonopy_parser()._actions for name in a.option_strings}


def run_phonopy(file: str, options: Sequence[str], further: Sequence[PhonopySettings] = ()) -> int:
    """Run phonopy's script on a phonopy YAML file and return its exit status.

    Parameters
    ----------
    file, options
        The file, and options of the first calculation.
    further
        Settings of the calculations after the first. The script would drop these calculations; here
        they run on the same cells and force constants.

    Raises
    ------
    PhonopyEquivariantError
        phonopy fails with an exception of its own.

    """
    from phonopy.scripts.phonopy import run

    def all_of_them(calculate: Calculation) -> Calculation:
        def calculation(phonon: Phonopy, settings: PhonopySettings, *arguments: Any) -> None:
            for calculation_settings in (settings, *further):
                calculate(phonon, calculation_settings, *arguments)

        return calculation

    wrapped = wrapped_calculation(all_of_them) if further else contextlib.nullcontext()
    try:
        with (
            _arguments(["phonopy", file, *options]),
            _masses_kept(),
            composed_permutations(),
            wrapped,
            warnings.catch_warnings(),
        ):
            # our file has the primitive cell; phonopy would explain how its version 3 chose one
            warnings.filterwarnings("ignore", "primitive_matrix defaulted to 'auto'")
            run()  # type: ignore[no-untyped-call]
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (BrokenPipeError, MemoryError, PhonopyEquivariantError):
        raise
    except OSError as error:
        raise PhonopyEquivariantError(
            f"phonopy cannot write or read {error.filename or 'a file'}: {error.strerror}; {file} "
            "is complete, so mend that and repeat with plain phonopy."
        ) from error
    except BaseException as error:
        # phonopy's Rust code panics with an exception that is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise PhonopyEquivariantError(
            f"phonopy fails on these options ({type(error).__name__}: {_one_line(str(error))}); "
            f"{file} is complete, so plain phonopy repeats it without computing again."
        ) from error
    return 0


def _parse(options: Sequence[str]) -> PhonopyConfParser:
    parser = _phonopy_parser()
    talk = io.StringIO()
    try:
        with contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk):
            args = parser.parse_args(["phonopy_params.yaml", *options])
            return PhonopyConfParser(filename=args.conf_filename, args=args, load_phonopy_yaml=True)
    except UsageError:
        raise
    except (SystemExit, OSError, ValueError, LookupError, TypeError) as error:
        message = talk.getvalue() or str(error)
        raise UsageError(f"phonopy refuses its options: {_one_line(message)}") from error


def _check_finite(tags: Mapping[str, Any]) -> None:
    """Refuse values of phonopy's tags that are not a number, or infinite."""
    for tag, value in tags.items():
        for word in str(value).replace(",", " ").split():
            if tag != "band_labels" and _NOT_FINITE.fullmatch(word):
                raise UsageError(f"{tag.upper()}: {word} is not a finite number.")


def _check_positive(settings: PhonopySettings, options: Sequence[str]) -> None:
    """Refuse zero and negative numbers where phonopy needs positive ones."""
    parsed = _phonopy_parser().parse_args(["phonopy_params.yaml", *options])
    for in_settings, in_parser, message in _POSITIVE:
        for value in (getattr(parsed, in_parser), getattr(settings, in_settings)):
            if value is not None and not (np.array(value, float) > 0).all():
                raise UsageError(f"{message}.")


def _check_ranges(settings: PhonopySettings) -> None:
    """Refuse numbers that phonopy takes and fails on later, or makes empty files of."""
    if settings.mesh_numbers is not None and not _is_mesh(settings.mesh_numbers):
        raise UsageError(
            "--mesh: give three positive whole numbers, as in --mesh 20 20 20, or a length of "
            f"{_LONGEST:g} Å at most."
        )
    if not 0 <= settings.min_temperature <= settings.max_temperature:
        raise UsageError("--tmin, --tmax: give temperatures from 0 K on, the lower one first.")
    if settings.band_points is not None and settings.band_points < 2:
        raise UsageError("--band-points: a segment of a path has two points at least.")
    lowest, highest = settings.min_frequency, settings.max_frequency
    if lowest is not None and highest is not None and not lowest < highest:
        raise UsageError("--fmin, --fmax: give the lower frequency as --fmin.")


def _is_mesh(mesh: Any) -> bool:
    """Tell whether phonopy can sample with one length, three numbers or a matrix."""
    numbers = np.asarray(mesh, float)
    if numbers.ndim == 0:
        return bool(0 < numbers <= _LONGEST)
    points = np.abs(np.linalg.det(numbers)) if numbers.ndim == 2 else np.prod(numbers)
    return bool((numbers.ndim == 2 or (numbers > 0).all()) and 0 < points <= _MOST_POINTS)


def _phonopy_parser() -> argparse.ArgumentParser:
    with _arguments(["phonopy"]):  # it rewrites sys.argv
        parser: argparse.ArgumentParser = get_run_parser()[0]

    def refuse(message: str) -> NoReturn:
        raise UsageError(f"phonopy refuses its options: {message}")

    parser.error = refuse  # type: ignore[method-assign]
    return parser


@contextlib.contextmanager
def _masses_kept() -> Iterator[None]:
    """Put phonopy's table of masses back: --mass-ase-iupac2016 changes it for the whole process."""
    saved = copy.deepcopy(get_atomic_data())
    try:
        yield
    finally:
        set_atomic_data(saved)


@contextlib.contextmanager
def _arguments(words: list[str]) -> Iterator[None]:
    saved, sys.argv = sys.argv, words
    try:
        yield
    finally:
        sys.argv = saved


def _value_counts(parser: argparse.ArgumentParser) -> dict[str, int | str | None]:
    """Return how many values each option takes, as argparse writes it."""
    return {name: action.nargs for action in parser._actions for name in action.option_strings}


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not _NEGATIVE_NUMBER.match(word)


def _count_values(following: Sequence[str], count: int | str | None) -> int:
    free = next((k for k, word in enumerate(following) if _is_option(word)), len(following))
    if isinstance(count, int):
        return min(count, free)
    return free if count in ("+", "*") else min(1, free)


def _one_line(text: str) -> str:
    lines: Collection[str] = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines)[-300:] or "no reason given"

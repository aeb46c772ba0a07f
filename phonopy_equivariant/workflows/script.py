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
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from phonopy import Phonopy
from phonopy.cui.phonopy_argparse import get_run_parser
from phonopy.cui.settings import PhonopyConfParser, PhonopySettings
from phonopy.structure.atomic_data import get_atomic_data, set_atomic_data

from phonopy_equivariant.phonons.exact_script import Calculation, can_wrap, wrapped_calculation
from phonopy_equivariant.phonons.permutations import composed_permutations
from phonopy_equivariant.workflows.handover import UsageError, arguments, one_line, run_in_process

_NOT_FINITE = re.compile(r"[-+]?(nan|inf|infinity)", re.IGNORECASE)

# phonopy's notices on meshes without the symmetry of a centred cell
_NOTICES = (
    ".*[Pp]oint-group symmetry reduction is disabled",
    ".*rebuilt as a generalized regular grid",
)

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
# Options whose numbers phonopy counts without naming the option.
_COUNTED = (
    (
        "--mesh",
        "mesh_numbers",
        (1, 3, 9),
        "three whole numbers, as in --mesh 20 20 20, or a length",
    ),
    ("--irreps", "irreps_qpoint", (3, 4), "a q-point, and a tolerance if need be"),
)
# A mesh with more points, or of a longer length (Å), does not fit into memory.
_MOST_POINTS, _LONGEST = 1e8, 1000.0


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


def option_names() -> dict[str, str]:
    """Return under which name phonopy's parser keeps each option."""
    return {name: a.dest for a in phonopy_parser()._actions for name in a.option_strings}


def prints_results(settings: PhonopySettings) -> bool:
    """Tell whether phonopy prints results that its files lack, or a short table."""
    return bool(settings.is_moment or settings.run_mode == "irreps")


def run_phonopy(
    file: str,
    options: Sequence[str],
    further: Sequence[PhonopySettings] = (),
    observe: Callable[[Phonopy], None] | None = None,
) -> int:
    """Run phonopy's script on a phonopy YAML file and return its exit status.

    Parameters
    ----------
    file, options
        The file, and options of the first calculation.
    further
        Settings of the calculations after the first. The script would drop these calculations; here
        they run on the same cells and force constants.
    observe
        Called with the script's object after each calculation, unless the installed phonopy has
        another script than :func:`.wrapped_calculation` knows.

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
                if observe is not None:
                    observe(phonon)

        return calculation

    needed = bool(further) or (observe is not None and can_wrap())
    wrapped = wrapped_calculation(all_of_them) if needed else contextlib.nullcontext()
    with _masses_kept(), composed_permutations(), wrapped, warnings.catch_warnings():
        # our file has the primitive cell; phonopy would explain how its version 3 chose one
        warnings.filterwarnings("ignore", "primitive_matrix defaulted to 'auto'")
        if "-v" not in options:  # these cost time or name a mesh, and change no result
            for message in _NOTICES:
                warnings.filterwarnings("ignore", message, RuntimeWarning)
        return run_in_process("phonopy", run, file, options)


def _parse(options: Sequence[str]) -> PhonopyConfParser:
    parser = phonopy_parser()
    talk = io.StringIO()
    try:
        with contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk):
            args = parser.parse_args(["phonopy_params.yaml", *options])
            _check_counts(args)
            return PhonopyConfParser(filename=args.conf_filename, args=args, load_phonopy_yaml=True)
    except UsageError:
        raise
    except (SystemExit, OSError, ValueError, LookupError, TypeError) as error:
        message = talk.getvalue() or str(error)
        raise UsageError(f"phonopy refuses its options: {one_line(message)}") from error


def _check_counts(args: argparse.Namespace) -> None:
    for option, name, counts, remedy in _COUNTED:
        given = " ".join(getattr(args, name) or []).split()
        if given and len(given) not in counts:
            raise UsageError(f"{option} {' '.join(given)}: give {remedy}.")


def _check_finite(tags: Mapping[str, Any]) -> None:
    """Refuse values of phonopy's tags that are not a number, or infinite."""
    for tag, value in tags.items():
        for word in str(value).replace(",", " ").split():
            if tag != "band_labels" and _NOT_FINITE.fullmatch(word):
                raise UsageError(f"{tag.upper()}: {word} is not a finite number.")


def _check_positive(settings: PhonopySettings, options: Sequence[str]) -> None:
    """Refuse zero and negative numbers where phonopy needs positive ones."""
    parsed = phonopy_parser().parse_args(["phonopy_params.yaml", *options])
    for in_settings, in_parser, message in _POSITIVE:
        for value in (getattr(parsed, in_parser), getattr(settings, in_settings)):
            if value is not None and not (np.array(value, float) > 0).all():
                raise UsageError(f"{message}.")


def _check_ranges(settings: PhonopySettings) -> None:
    """Refuse numbers that phonopy takes and fails on later, or makes empty files of."""
    if settings.mesh_numbers is not None and not is_mesh(settings.mesh_numbers):
        raise UsageError(
            "--mesh: give three positive whole numbers, as in --mesh 20 20 20, or a length of "
            f"{_LONGEST:g} Å at most."
        )
    if not 0 <= settings.min_temperature <= settings.max_temperature:
        raise UsageError("--tmin, --tmax: give temperatures from 0 K on, the lower one first.")
    if settings.nac_q_direction is not None and not np.any(settings.nac_q_direction):
        raise UsageError("--q-direction: 0 0 0 is no direction.")
    if settings.band_points is not None and settings.band_points < 2:
        raise UsageError("--band-points: a segment of a path has two points at least.")
    lowest, highest = settings.min_frequency, settings.max_frequency
    if lowest is not None and highest is not None and not lowest < highest:
        raise UsageError("--fmin, --fmax: give the lower frequency as --fmin.")


def is_mesh(mesh: Any) -> bool:
    """Tell whether phonopy can sample with one length, three numbers or a matrix."""
    numbers = np.asarray(mesh, float)
    if numbers.shape not in ((), (3,), (3, 3)):
        return False
    if numbers.ndim == 0:
        return bool(0 < numbers <= _LONGEST)
    points = np.abs(np.linalg.det(numbers)) if numbers.ndim == 2 else np.prod(numbers)
    return bool((numbers.ndim == 2 or (numbers > 0).all()) and 0 < points <= _MOST_POINTS)


def phonopy_parser() -> argparse.ArgumentParser:
    """Return phonopy's parser of options, which raises UsageError where it refuses them."""
    with arguments(["phonopy"]):  # it rewrites sys.argv
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

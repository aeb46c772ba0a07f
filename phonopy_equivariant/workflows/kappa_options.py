"""Options of phono3py's script: which it takes, what they say, and which mean nothing."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

from phonopy_equivariant.defaults import PHONON_MESH
from phonopy_equivariant.io.third_order import FILES, require_phono3py
from phonopy_equivariant.workflows.handover import UsageError, arguments, one_line
from phonopy_equivariant.workflows.script import is_mesh

# Names of phono3py's parser: what it computes instead of κ, and other sources of force constants.
_OTHERS = (
    *("is_gruneisen", "is_joint_dos", "is_imag_self_energy", "is_real_self_energy"),
    *("is_spectral_function", "write_grid_points", "show_num_triplets", "write_phonon"),
)
_CONTRADICTIONS = {
    "is_displacement": "-d displaces atoms, which analytic force constants do without",
    "random_displacements": "--rd displaces atoms, which analytic force constants do without",
    "use_pypolymlp": "--pypolymlp is another potential",
    "show_symfc_memory_usage": "--show-symfc-memory is about fits to displacements",
}


class KappaPlan(NamedTuple):
    """Options of phono3py's script, and the choices made for the user."""

    options: list[str]
    remarks: tuple[str, ...]
    is_nac: bool = True  # whether phono3py looks for BORN


def phono3py_parser() -> argparse.ArgumentParser:
    """Return phono3py's parser of options, which raises UsageError where it refuses them.

    Raises
    ------
    PhonopyEquivariantError
        phono3py is not installed.

    """
    require_phono3py()
    from phono3py.cui.phono3py_argparse import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        get_run_parser,
    )

    with arguments(["phono3py"]):  # it rewrites sys.argv
        parser: argparse.ArgumentParser = get_run_parser()[0]

    def refuse(message: str) -> NoReturn:
        raise UsageError(f"phono3py refuses its options: {message}")

    parser.error = refuse  # type: ignore[method-assign]
    return parser


def plan_kappa(options: Sequence[str]) -> KappaPlan:
    """Check phono3py's options; without a method RTA is taken, without a mesh a common one.

    Raises
    ------
    UsageError
        phono3py refuses the options, or they contradict analytic force constants.

    """
    options, remarks = list(options), []
    args = _parse(options)
    for name, reason in _CONTRADICTIONS.items():
        if getattr(args, name, None):
            raise UsageError(f"contradictory options: {reason}; leave it away.")
    other = any(getattr(args, name, None) for name in _OTHERS)
    if not (other or args.is_bterta or args.is_lbte):
        options.append("--br")
        remarks.append("No method is given: taking --br, the relaxation time approximation.")
    if args.mesh_numbers is None and args.conf_filename is None:
        options += ["--mesh", f"{PHONON_MESH:g}"]
        remarks.append(f"No mesh is given: taking --mesh {PHONON_MESH:g}.")
    settings = _settings(_parse(options))
    _check_numbers(settings)
    return KappaPlan(options, tuple(remarks), settings.is_nac)


def is_temperature(value: float | int) -> bool:
    """Tell whether a number is a temperature, in K."""
    return bool(0 <= value < np.inf)


def _check_numbers(settings: Any) -> None:
    """Refuse numbers that phono3py takes, and fails on later or computes nonsense with."""
    if settings.mesh_numbers is not None and not is_mesh(settings.mesh_numbers):
        raise UsageError("--mesh: give three positive whole numbers, or a length in Å.")
    temperatures = settings.temperatures
    if temperatures is not None and not all(map(is_temperature, temperatures)):
        raise UsageError("--ts: give temperatures in K, from 0.")
    lowest, highest = settings.min_temperature, settings.max_temperature
    if not (is_temperature(lowest) and is_temperature(highest) and lowest <= highest):
        raise UsageError("--tmin, --tmax: give temperatures from 0 K on, the lower one first.")
    if not settings.temperature_step > 0:
        raise UsageError("--tstep: give a positive number of kelvin.")
    if settings.boundary_mfp is not None and not settings.boundary_mfp > 0:
        raise UsageError("--bmfp: give a positive length in micrometres.")


def _parse(options: Sequence[str]) -> argparse.Namespace:
    parser = phono3py_parser()
    talk = io.StringIO()
    try:
        with contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk):
            return parser.parse_args([FILES[0], *options])
    except UsageError:
        raise
    except (SystemExit, OSError, ValueError, LookupError, TypeError) as error:
        message = talk.getvalue() or str(error)
        raise UsageError(f"phono3py refuses its options: {one_line(message)}") from error


def _settings(args: argparse.Namespace) -> Any:
    """Let phono3py read the values of its options."""
    from phono3py.cui.settings import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        Phono3pyConfParser,
    )

    talk = io.StringIO()
    try:
        with contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk):
            parsed = Phono3pyConfParser(
                filename=args.conf_filename, args=args, load_phono3py_yaml=True
            )
            return parsed.settings
    except (SystemExit, OSError, ValueError, LookupError, TypeError) as error:
        message = talk.getvalue() or str(error)
        raise UsageError(f"phono3py refuses its options: {one_line(message)}") from error

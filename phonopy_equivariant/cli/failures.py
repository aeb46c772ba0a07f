"""What the command does with an exception: one line on standard error and an exit status."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable

from phonopy_equivariant.cli.interrupts import Terminated, leave, signals_caught
from phonopy_equivariant.cli.wording import as_options
from phonopy_equivariant.errors import PhonopyEquivariantError, pip_install, reason_of

SUCCESS, FAILURE, INTERRUPTED, TERMINATED = 0, 1, 130, 128 + signal.SIGTERM

_REMEDIES = {
    errno.ENOSPC: "free space on this disk, or work in another folder",
    getattr(errno, "EDQUOT", -1): "your quota is used up: free space, or work in another folder",
    errno.EFBIG: "the file would exceed the size allowed here (ulimit -f)",
    errno.EACCES: "check the permissions, or work in another folder",
    errno.EPERM: "check the permissions, or work in another folder",
    errno.EROFS: "the file system is read-only: work in another folder",
}


def exit_status(function: Callable[[], int], verbose: bool, command: str = "") -> int:
    """Return the status of ``function``; errors become a line and a status of their own.

    The line names options of ``command`` where the library names parameters. ``verbose``
    shows the traceback as well. What ends a process passes: Ctrl-C, SIGTERM and a
    reader of the output that has gone.
    """
    try:
        status = function()
        sys.stdout.flush()
        return status
    except SystemExit as request:
        return _status_of(request)
    except BrokenPipeError:
        raise
    except Exception as error:  # the last resort: no traceback at the user
        if verbose:
            import traceback

            traceback.print_exc()
        _say(f"error: {as_options(describe(error), command)}")
        return FAILURE


def process_status(function: Callable[[], int]) -> int:
    """Return the status of ``function`` for a process that is the command and nothing else.

    Ctrl-C and SIGTERM end the process here.
    """
    try:
        with signals_caught():
            return function()
    except Terminated:
        leave(TERMINATED)
    except KeyboardInterrupt:
        _say("interrupted")
        leave(INTERRUPTED)
    except BrokenPipeError:
        # the reader of a pipe has gone (... | head): nothing to say, nothing to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE


def describe(error: BaseException) -> str:
    """Return one line for an exception: what happened, and the remedy."""
    if isinstance(error, PhonopyEquivariantError):
        return reason_of(error, 10_000)
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
        name = f"{error.filename}: " if error.filename else ""
        remedy = _REMEDIES.get(error.errno or 0, "check the file and its folder")
        return f"{name}{reason}; {remedy}."
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "out of memory; choose a smaller supercell (--dim) or --dtype float32."
    if "Unable to initialize backend" in str(error):
        return no_device("auto")
    summary = reason_of(error, 300)
    return (
        f"{type(error).__name__}: {summary} (unexpected: -v shows where; please report it "
        "with the input file)"
    )


def no_device(option: str) -> str:
    """Return what to say where JAX finds no device of ``--device option``."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms and option == "auto":
        return (
            f"JAX_PLATFORMS={platforms} in the environment: JAX finds no such device; unset the "
            "variable, or use --device cpu."
        )
    return (
        f"--device {option}: JAX finds no such device; install its plug-in "
        f"({pip_install('cuda12')}), or use --device cpu."
    )


def _status_of(request: SystemExit) -> int:
    if request.code is None:
        return SUCCESS
    if isinstance(request.code, int):
        return request.code
    _say(str(request.code))
    return FAILURE


def _say(line: str) -> None:
    print(f"phonopy-equivariant: {line}", file=sys.stderr)

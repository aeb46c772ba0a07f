"""Ctrl-C and SIGTERM, which batch systems send, end the command wherever it is."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

_DELAY = 0.05  # s


class Terminated(BaseException):
    """SIGTERM has come."""


@contextlib.contextmanager
def signals_caught() -> Iterator[None]:
    """Make SIGTERM unwind like Ctrl-C inside, and neither of them get lost.

    Both arrive as exceptions. While XLA compiles, Python mostly runs in a callback of JAX for the
    garbage collector, and ignores exceptions there after printing them: such a one is raised
    again a moment later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread, which is not ours
        return
    handler, hook = signal.signal(signal.SIGTERM, _terminate), sys.unraisablehook
    if hasattr(signal, "setitimer"):
        sys.unraisablehook = _raise_later
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        sys.unraisablehook = hook


def leave(status: int) -> NoReturn:
    """End the process at once, when all files are in order.

    XLA compiles on in other threads; taking the interpreter down under them ends in a
    segmentation fault (jaxlib 0.10.1) in place of the status.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(status)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _raise_later(ignored: sys.UnraisableHookArgs) -> None:
    if not issubclass(ignored.exc_type, (KeyboardInterrupt, Terminated)):
        sys.__unraisablehook__(ignored)
        return
    kind = ignored.exc_type

    def raise_again(_signal: int, _frame: FrameType | None) -> None:
        raise kind

    signal.signal(signal.SIGALRM, raise_again)
    signal.setitimer(signal.ITIMER_REAL, _DELAY)

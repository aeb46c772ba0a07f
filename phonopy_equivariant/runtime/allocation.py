"""Freed memory that stays with the process, on Linux with glibc.

A program that XLA compiled for the CPU takes its temporary arrays anew in each run. glibc gives
large blocks back to the system as soon as they are free, and Linux fills every page with zeros
when it is touched next: up to 45 % of the time of a training step (docs/notes/training.md).
"""

from __future__ import annotations

import ctypes
import os
import platform

# mallopt's parameters (malloc.h) and values: never give memory back, no blocks outside the heap,
# and one heap for all threads (the heaps of other threads hold no large blocks).
_SETTINGS = {"trim threshold": (-1, -1), "mmap max": (-4, 0), "arena max": (-8, 1)}


def keep_freed_memory() -> bool:
    """Make the process keep the memory it frees, for the next run of a program.

    Training steps on the CPU then take 0.55 to 0.9 of the time; forces of small cells as long as
    before. The command line calls this; a Python program may, best before it imports JAX. It
    holds for the whole process, which then stays as large as it has ever been.

    Returns
    -------
    bool
        False where nothing was changed: without glibc, or where the environment has settings of
        its own (``MALLOC_...``, ``GLIBC_TUNABLES``).

    """
    configured = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if configured or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.values())

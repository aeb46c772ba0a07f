"""Compilation of JAX functions: one place for the compiler's settings."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from phonopy_equivariant.runtime import programs
from phonopy_equivariant.runtime.cache import enable_at_first_use
from phonopy_equivariant.runtime.forks import check_process

# On the CPU level 1 compiles forces in 0.8 of the time of the default and runs them as fast
# (within 5 %, the noise of the measurement); on other devices XLA's defaults stay.
_CPU_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 1}

# Share of the memory maps that Linux allows a process (65530, unless it is told otherwise). A
# program for the CPU takes 800 to 1800 of them, and beyond the limit XLA ends in a segmentation
# fault.
_MAPS_SHARE = 0.6


@contextlib.contextmanager
def x64_mode() -> Iterator[None]:
    """Let JAX compute in 64 bits inside the context; every use of JAX here is in one.

    Raises
    ------
    PhonopyEquivariantError
        JAX would hang in this process, see :mod:`.forks`.

    """
    check_process()
    with jax.enable_x64(True):
        yield


class Compiled:
    """``jax.jit`` in 64-bit mode, with the compiler options of the device it first runs on.

    64-bit mode is a context of each call: the package never sets JAX's global flag. A process
    that sees structures of many sizes forgets its compiled functions before they fill the memory
    maps it may have. With ``keep`` traced programs are kept on disk, see :mod:`.programs`.
    """

    def __init__(
        self, function: Callable[..., Any], static_argnums: Sequence[int] = (), keep: bool = False
    ):
        self._function = function
        self._static = tuple(static_argnums)
        self._keep = keep
        self._jitted: Any = None
        self._traced = 0
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any) -> Any:
        """Run the compiled function, compiling it for new shapes or static arguments."""
        before = self._traced
        with x64_mode():
            result = self.jitted(*args)
        if self._traced > before and memory_maps() > _MAPS_SHARE * maps_allowed():
            jax.clear_caches()
            gc.collect()
        return result

    @property
    def jitted(self) -> Any:
        """The function ``jax.jit`` made, for ``lower`` and the like inside 64-bit mode."""
        if self._jitted is None:
            enable_at_first_use()
            self._jitted = jax.jit(
                self._traceable(), static_argnums=self._static, compiler_options=_options()
            )
        return self._jitted

    def _traceable(self) -> Callable[..., Any]:
        """Return the function for JAX to trace.

        JAX's caches are the only ones: this runs whenever they lack a program, so that programs
        that come back after clearing are counted too, and none outlives its place there.
        """

        @functools.wraps(self._function)
        def function(*args: Any) -> Any:
            self._traced += 1
            static = tuple(args[k] for k in self._static)
            keys = [getattr(x, "key", "") for x in static]
            folder = programs.folder() if self._keep and all(keys) else None
            if folder is None:
                return self._function(*args)
            arrays = tuple(x for k, x in enumerate(args) if k not in self._static)
            name = " ".join([self._function.__name__.strip("_"), self._function.__module__, *keys])
            return programs.load_or_trace(folder, jax.jit(self._with(static)), name, arrays)

        return function

    def _with(self, static: tuple[Any, ...]) -> Callable[..., Any]:
        """Return the function of its array arguments alone."""

        def function(*arrays: Any) -> Any:
            fixed, rest = iter(static), iter(arrays)
            count = len(static) + len(arrays)
            return self._function(
                *(next(fixed if k in self._static else rest) for k in range(count))
            )

        return function


def compiled(
    static_argnums: Sequence[int] = (), keep: bool = False
) -> Callable[[Callable[..., Any]], Compiled]:
    """Decorate a function of arrays with :class:`Compiled`."""

    def decorate(function: Callable[..., Any]) -> Compiled:
        return Compiled(function, static_argnums, keep)

    return decorate


def _options() -> dict[str, Any] | None:
    return _CPU_OPTIONS if jax.default_backend() == "cpu" else None


def memory_maps() -> int:
    """Return how many memory maps this process has; 0 where the system does not tell."""
    try:
        with open("/proc/self/maps", "rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return 0


def maps_allowed() -> int:
    """Return how many memory maps a process may have on this system."""
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text("ascii"))
    except (OSError, ValueError):
        return 65530

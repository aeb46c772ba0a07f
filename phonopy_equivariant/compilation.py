"""Compilation of JAX functions: one place for the compiler's settings."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

# On the CPU level 1 compiles forces in 0.8 of the time of the default and runs them as fast
# (within 5 %, the noise of the measurement); on other devices XLA's defaults stay.
_CPU_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 1}

# Share of the memory maps that Linux allows a process (65530, unless it is told otherwise). A
# program for the CPU takes 800 to 1800 of them, and beyond the limit XLA ends in a segmentation
# fault.
_MAPS_SHARE = 0.6


class Compiled:
    """``jax.jit`` in 64-bit mode, with the compiler options of the device it first runs on.

    64-bit mode is a context of each call: the package never sets JAX's global flag. A process
    that sees structures of many sizes forgets its compiled functions before they fill the memory
    maps it may have.
    """

    def __init__(self, function: Callable[..., Any], static_argnums: Sequence[int] = ()):
        self._function = function
        self._static = tuple(static_argnums)
        self._jitted: Any = None
        self._traced = 0
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any) -> Any:
        """Run the compiled function, compiling it for new shapes or static arguments."""
        before = self._traced
        with jax.enable_x64(True):
            result = self.jitted(*args)
        if self._traced > before and memory_maps() > _MAPS_SHARE * maps_allowed():
            jax.clear_caches()
            gc.collect()
        return result

    @property
    def jitted(self) -> Any:
        """The function ``jax.jit`` made, for ``lower`` and the like inside 64-bit mode."""
        if self._jitted is None:
            options = _CPU_OPTIONS if jax.default_backend() == "cpu" else None
            self._jitted = jax.jit(
                self._counted(), static_argnums=self._static, compiler_options=options
            )
        return self._jitted

    def _counted(self) -> Callable[..., Any]:
        """Return the function as it is, counting how often JAX traces it."""

        @functools.wraps(self._function)
        def function(*args: Any) -> Any:
            self._traced += 1
            return self._function(*args)

        return function


def compiled(static_argnums: Sequence[int] = ()) -> Callable[[Callable[..., Any]], Compiled]:
    """Decorate a function of arrays with :class:`Compiled`."""

    def decorate(function: Callable[..., Any]) -> Compiled:
        return Compiled(function, static_argnums)

    return decorate


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

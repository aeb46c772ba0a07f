"""Compilation of JAX functions: one place for the compiler's settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

# On the CPU level 1 compiles forces in 0.8 of the time of the default and runs them as fast
# (within 5 %, the noise of the measurement); on other devices XLA's defaults stay.
_CPU_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 1}


class Compiled:
    """``jax.jit`` in 64-bit mode, with the compiler options of the device it first runs on.

    64-bit mode is a context of each call: the package never sets JAX's global flag.
    """

    def __init__(self, function: Callable[..., Any], static_argnums: Sequence[int] = ()):
        self._function = function
        self._static = tuple(static_argnums)
        self._jitted: Any = None
        self.__doc__ = function.__doc__

    def __call__(self, *args: Any) -> Any:
        """Run the compiled function, compiling it for new shapes or static arguments."""
        with jax.enable_x64(True):
            return self.jitted(*args)

    @property
    def jitted(self) -> Any:
        """The function ``jax.jit`` made, for ``lower`` and the like inside 64-bit mode."""
        if self._jitted is None:
            options = _CPU_OPTIONS if jax.default_backend() == "cpu" else None
            self._jitted = jax.jit(
                self._function, static_argnums=self._static, compiler_options=options
            )
        return self._jitted


def compiled(static_argnums: Sequence[int] = ()) -> Callable[[Callable[..., Any]], Compiled]:
    """Decorate a function of arrays with :class:`Compiled`."""

    def decorate(function: Callable[..., Any]) -> Compiled:
        return Compiled(function, static_argnums)

    return decorate

"""Compilation of JAX functions: one place for the compiler's settings."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax._src import config as private  # nothing public is thread-local

from phonopy_equivariant.runtime import programs
from phonopy_equivariant.runtime.cache import enable_at_first_use
from phonopy_equivariant.runtime.forks import check_process
from phonopy_equivariant.runtime.notes import note

# On the CPU level 1 compiles forces in 0.8 of the time of the default and runs them as fast
# (within 5 %, the noise of the measurement); on other devices XLA's defaults stay.
_CPU_OPTIONS: dict[str, Any] = {"xla_backend_optimization_level": 1}

# Kept programs are what the user of a new model waits for. Without XLA's emitters for fusions the
# programs of nequix-mp-1-pft compile in 0.4 of the time; then `edge_terms` takes a quarter longer
# and the others no longer. Forces and training, whose programs run for hours, have the emitters.
_KEPT_CPU_OPTIONS: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}

# Share of the memory maps that Linux allows a process (65530, unless it is told otherwise). A
# program for the CPU takes 800 to 1800 of them, and beyond the limit XLA ends in a segmentation
# fault.
_MAPS_SHARE = 0.6

# What a program serves as a rule: its shapes are those of a crystal, rounded up.
SIZE = "this size"

_ALL: list[weakref.ref[Compiled]] = []
_generation = 0  # how often all functions were forgotten


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


class Begun(NamedTuple):
    """A program that is there, or will be when it is compiled."""

    results: Any  # structure, shapes and dtypes of what it returns
    executable: Future[Callable[..., Any]]  # of the arguments that are not static
    once_for: str = SIZE

    def program(self) -> Callable[..., Any]:
        """Return the program once it is compiled."""
        if not self.executable.done():
            note(f"compiling, once for {self.once_for}")
            self.executable.result()
            note("")
        return self.executable.result()


class Compiled:
    """A function of arrays, compiled in 64-bit mode with the compiler options of its device.

    64-bit mode is a context of each call: the package never sets JAX's global flag. A process
    that sees structures of many sizes forgets its compiled functions before they fill the memory
    maps it may have. With ``keep`` programs are kept on disk, see :mod:`.programs`; such functions
    cannot be called while JAX traces. ``once_for`` tells who waits what a program serves.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        static_argnums: Sequence[int] = (),
        keep: bool = False,
        once_for: str = SIZE,
    ):
        self._function = function
        self._static = tuple(static_argnums)
        self._keep = keep
        self._once_for = once_for
        self._jitted: dict[str, Any] = {}  # by name
        self._programs: dict[Any, Begun] = {}
        self._lock = threading.RLock()
        self.begun = 0  # programs loaded or compiled
        self.traced = 0  # how often JAX traced the function: never for programs from disk
        self.__doc__ = function.__doc__
        _ALL.append(weakref.ref(self))

    def __call__(self, *args: Any) -> Any:
        """Run the compiled function, compiling it for new shapes or static arguments."""
        with x64_mode():
            if self._keep:
                return self.begin(args).program()(*self._arrays(args))
            before = self.traced
            result = self.jitted(*args)
        if self.traced > before:
            note("")
            self.begun += 1
            _spare_memory_maps()
        return result

    def begin(self, args: Sequence[Any], workers: Executor | None = None) -> Begun:
        """Load, or begin to compile, the program for arguments; to be called in 64-bit mode.

        Parameters
        ----------
        args
            Arguments, or their shapes and dtypes in place of arrays.
        workers
            Where to compile a program that is not on disk; default: here, before this returns.

        """
        key = self._key(args)
        begun = self._programs.get(key)
        if begun is not None:
            return begun
        with self._lock:
            begun = self._programs.get(key)
            if begun is None:
                begun = self._load_or_compile(args, key, workers)
                self.begun += 1
                self._programs[key] = begun
        return begun

    @property
    def jitted(self) -> Any:
        """The function ``jax.jit`` made, for ``lower`` and the like inside 64-bit mode."""
        return self._jit(self._function.__name__)

    def _jit(self, name: str) -> Any:
        """Return the function ``jax.jit`` made under a name, which keys of JAX's cache contain."""
        if name not in self._jitted:
            enable_at_first_use()
            options = _known(_options(self._keep))
            self._jitted[name] = jax.jit(
                self._counted(name), static_argnums=self._static, compiler_options=options
            )
        return self._jitted[name]

    def forget(self) -> None:
        """Forget all programs; those on disk stay there."""
        self._programs, self._jitted = {}, {}

    def _load_or_compile(self, args: Sequence[Any], key: Any, workers: Executor | None) -> Begun:
        place = self._place(args, key)
        future: Future[Callable[..., Any]] = Future()
        executable = None if place is None else programs.load(place)
        if executable is not None:
            _spare_memory_maps()
            future.set_result(executable)
            return Begun(executable.out_info, future, self._once_for)
        # Kept programs have a name that none in JAX's cache has: what comes from there lacks
        # functions when it is written again (seen in jax 0.10.1). A program that cannot be kept,
        # as the source has changed since, is cached by JAX under the other name.
        name = self._function.__name__
        lowered = (
            self._jit(name if place is None else f"kept_{name.strip('_')}").trace(*args).lower()
        )

        def compile_now() -> Callable[..., Any]:
            outside = contextlib.nullcontext() if place is None else _outside_of_cache()
            with x64_mode(), outside:
                executable: Callable[..., Any] = lowered.compile()
            if place is not None:
                programs.keep(place, executable)
            _spare_memory_maps()
            return executable

        if workers is None:
            future.set_result(compile_now())
            note("")
        else:
            future = workers.submit(compile_now)
        return Begun(lowered.out_info, future, self._once_for)

    def _counted(self, name: str) -> Callable[..., Any]:
        """Return the function for JAX to trace; JAX's caches are the only ones of its traces."""

        @functools.wraps(self._function)
        def function(*args: Any) -> Any:
            self.traced += 1
            note(f"compiling, once for {self._once_for}")
            return self._function(*args)

        function.__name__ = name
        return function

    def _arrays(self, args: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(x for k, x in enumerate(args) if k not in self._static)

    def _key(self, args: Sequence[Any]) -> Any:
        """Return the static arguments, and structure, shapes and dtypes of the others."""
        leaves, structure = jax.tree.flatten(self._arrays(args))
        static = tuple(args[k] for k in self._static)
        return static, structure, tuple((x.shape, x.dtype) for x in leaves)

    def _place(self, args: Sequence[Any], key: Any) -> Path | None:
        """Return the file of a program; None where a static argument has no key."""
        words = [getattr(args[k], "key", "") for k in self._static]
        if not all(words):
            return None
        name = " ".join([self._function.__name__.strip("_"), self._function.__module__, *words])
        return programs.place_of(name, key[1:], _options(self._keep))


def compiled(
    static_argnums: Sequence[int] = (), keep: bool = False, once_for: str = SIZE
) -> Callable[[Callable[..., Any]], Compiled]:
    """Decorate a function of arrays with :class:`Compiled`."""

    def decorate(function: Callable[..., Any]) -> Compiled:
        return Compiled(function, static_argnums, keep, once_for)

    return decorate


def _outside_of_cache() -> Any:
    """Write nothing into JAX's persistent cache in this context: what is kept is not kept twice."""
    return private.persistent_cache_min_compile_time_secs(math.inf)


def forget() -> None:
    """Forget all compiled functions, as in a new process; kept programs stay on disk."""
    global _generation
    _generation += 1
    for reference in _ALL:
        function = reference()
        if function is not None:
            function.forget()
    jax.clear_caches()
    gc.collect()


def count_programs() -> int:
    """Return how many programs this process has got, from the compiler or from disk.

    Those that were forgotten and came back count again.
    """
    functions = (reference() for reference in _ALL)
    return sum(function.begun for function in functions if function is not None)


def generation() -> int:
    """Return how often all compiled functions were forgotten."""
    return _generation


def _spare_memory_maps() -> None:
    if memory_maps() > _MAPS_SHARE * maps_allowed():
        forget()


def _options(keep: bool) -> dict[str, Any]:
    if jax.default_backend() != "cpu":
        return {}
    return _CPU_OPTIONS | _KEPT_CPU_OPTIONS if keep else _CPU_OPTIONS


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """Leave out the options that this version of XLA does not have."""
    return {name: value for name, value in options.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" in str(error):
            return False
        raise
    return True


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

"""One BLAS thread for the many small matrix products of a response.

With threads of its own BLAS gains nothing on them and takes up to twice the processor time. Where
another process wants the processor, its threads wait for each other in every product: measured,
60 s in place of 4 s for a crystal of 72 atoms (docs/notes/performance.md).
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]


class _Before:
    """What all contexts of the process give back."""

    lock = threading.Lock()
    entered = 0  # contexts that are entered now, in any thread
    threads: tuple[int, ...] = ()  # of each BLAS library when none was entered


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS use one thread inside the context.

    Contexts of several threads may overlap: the first that is left gives BLAS its threads back for
    all of them, as OpenBLAS takes a number from one thread at a time.
    """
    libraries = _libraries()
    with _Before.lock:
        if not _Before.entered:
            _Before.threads = tuple(library.num_threads for library in libraries)
        _Before.entered += 1
        for library in libraries:
            library.set_num_threads(1)
    try:
        yield
    finally:
        with _Before.lock:
            _Before.entered -= 1
            for library, threads in zip(libraries, _Before.threads, strict=True):
                library.set_num_threads(threads)


@functools.cache
def _libraries() -> list[Any]:
    """Return the BLAS libraries that are loaded at the first use; NumPy's is all that counts."""
    controller: Any = ThreadpoolController()
    return list(controller.select(user_api="blas").lib_controllers)

"""Forked processes: JAX hangs for ever in a child of a process that has started it.

The child has the memory of JAX but not its threads, which a fork does not copy.
"""

from __future__ import annotations

import os

from jax._src import xla_bridge  # nothing public tells whether JAX has started

from phonopy_equivariant.errors import PhonopyEquivariantError


class _State:
    started = False  # had JAX started when this process forked last?
    broken = False  # is this process a child of such a fork?


def check_process() -> None:
    """Raise in a process that was forked after JAX had started.

    Raises
    ------
    PhonopyEquivariantError
        As said; the message names the ways to start a process that work.

    """
    if _State.broken:
        raise PhonopyEquivariantError(
            "This process was forked after JAX had started in its parent, and JAX would hang in "
            "it for ever: start workers with multiprocessing.get_context('spawn') or "
            "'forkserver' (joblib: backend 'loky'; DataLoader: "
            "multiprocessing_context='forkserver'), or fork before anything is computed."
        )


def _before() -> None:
    _State.started = xla_bridge.backends_are_initialized()


def _after_in_child() -> None:
    _State.broken = _State.started


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_before, after_in_child=_after_in_child)

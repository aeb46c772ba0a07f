"""The Dask cluster of a run: processes of this computer, or one that is there already."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

from phonopy_equivariant.errors import PhonopyEquivariantError, pip_install, reason_of
from phonopy_equivariant.io.memory import available_memory

# Bytes that a worker needs: JAX, phonopy, the programs of a potential, a crystal of a few atoms.
WORKER_MEMORY = 3 * 2**29
_ANSWER = 20  # s, in which a scheduler answers

_LOCAL_CONFIG = {
    # a worker that does not get along with its share is ended, its crystal tried again alone
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.scheduler.allowed-failures": 0,
    "distributed.worker.profile.enabled": False,  # takes Python's lock a hundred times a second
    "distributed.worker.multiprocessing-method": "spawn",  # JAX hangs in forked processes
}


def require_dask() -> None:
    """Raise if Dask is not installed.

    Raises
    ------
    PhonopyEquivariantError
        As said.

    """
    try:
        import dask  # noqa: F401  # whether both are there
        import distributed  # noqa: F401
    except ImportError as error:
        raise PhonopyEquivariantError(
            f"Many crystals need Dask: {pip_install('batch')}."
        ) from error


@contextlib.contextmanager
def connected(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """Yield a ``distributed.Client`` of a new local cluster, or of the scheduler at an address.

    Parameters
    ----------
    workers
        Processes of the local cluster; default: one for each core that has memory for it.
    scheduler
        Address, ``tcp://host:port``, of a cluster that somebody else started.

    Raises
    ------
    PhonopyEquivariantError
        Dask is not installed, or no scheduler answers.

    """
    require_dask()
    import dask
    from distributed import Client, LocalCluster

    for name in [
        name for name in logging.root.manager.loggerDict if name.startswith("distributed")
    ]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is said here
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=_ANSWER, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise PhonopyEquivariantError(
                f"No Dask scheduler answers at {scheduler} ({reason_of(error)}); check the "
                "address, tcp://host:port, and that it runs."
            ) from error
        with client:
            yield client
        return
    with (
        dask.config.set(_LOCAL_CONFIG),
        LocalCluster(
            n_workers=workers or default_workers(),
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def default_workers() -> int:
    """Return how many workers this computer has cores and memory for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = available_memory()
    fitting = (cores or 1) if memory is None else memory // WORKER_MEMORY
    return max(1, min(cores or 1, fitting))

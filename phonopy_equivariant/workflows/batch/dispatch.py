"""Structures to the workers of a Dask cluster and outcomes back, whatever dies on the way.

Dask distributes nothing by itself here: every structure is sent to one worker. A worker has two,
one of them waiting, so that it never idles. A worker that is gone took one structure down with it,
the one it computed. That one is tried once more when nothing else runs anywhere; if its worker dies
again, that is its outcome.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from phonopy_equivariant.errors import PhonopyEquivariantError

# Structures that a worker has: one is computed, the others wait.
_AHEAD = 2
_POLL = 0.5  # s, between looks for workers that are gone
_FETCH = 5.0  # s, for a value to come from its worker before it is looked for again
KILLED = (
    "its worker died twice, the second time with nothing else running: out of memory, or a crash "
    "of a library; choose a smaller supercell= or fewer workers."
)


@runtime_checkable
class Job(Protocol):
    """What is sent to a worker."""

    @property
    def key(self) -> str:
        """A name of its own."""


Work = TypeVar("Work", bound=Job)
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Delivery(Generic[Work, Value]):
    """A job that is done: its value, or the reason why there is none."""

    job: Work
    value: Value | None
    reason: str = ""


class Needs(NamedTuple):
    """What a job wants of its worker: programs of a shape, and memory (bytes) at the least."""

    shape: object
    memory: int = 0


def dispatched(
    client: Any,
    jobs: Iterable[Work],
    function: Callable[[Work], Value],
    needs: Callable[[Work], Needs],
) -> Iterator[Delivery[Work, Value]]:
    """Yield the values of a function of jobs as workers compute them, in any order.

    Parameters
    ----------
    client
        Dask's ``Client``.
    jobs, function
        What is computed; both are pickled. Jobs that come first start first.
    needs
        Shape and memory of a job.

    Raises
    ------
    PhonopyEquivariantError
        The scheduler is gone. What the function raises is raised here too.

    """
    dispatch = _Dispatch(client, jobs, function, needs)
    while dispatch.unfinished:
        yield from dispatch.fill()
        yield from dispatch.collect()


class _Dispatch(Generic[Work, Value]):
    """Which job is where."""

    def __init__(
        self,
        client: Any,
        jobs: Iterable[Work],
        function: Callable[[Work], Value],
        needs: Callable[[Work], Needs],
    ):
        self._client, self._function, self._needs = client, function, needs
        self._waiting: dict[object, deque[Work]] = {}  # by shape
        for job in jobs:
            self._waiting.setdefault(needs(job).shape, deque()).append(job)
        self._suspects: deque[Work] = deque()  # each took a worker down
        self._running: dict[Any, tuple[Work, str]] = {}  # future -> job, address; oldest first
        self._deaths: Counter[str] = Counter()
        self._shapes: dict[str, object] = {}  # of the last job of each worker
        self._memory: dict[str, int] = {}  # of each worker, bytes; 0 if unlimited
        self._looked = -_POLL

    @property
    def unfinished(self) -> bool:
        """Whether any job is neither done nor given up."""
        return bool(self._waiting or self._suspects or self._running)

    def fill(self) -> Iterator[Delivery[Work, Value]]:
        """Send jobs to workers that have fewer than they should; yield those that fit nowhere."""
        yield from self._look()
        for address, memory in self._memory.items():
            load = sum(where == address for _, where in self._running.values())
            while load < _AHEAD and (job := self._next(address)) is not None:
                if self._fits(job, memory):
                    self._send(job, address)
                    load += 1
                elif not any(self._fits(job, other) for other in self._memory.values()):
                    yield Delivery(job, None, self._too_large(job))
                else:
                    self._waiting.setdefault(self._needs(job).shape, deque()).append(job)
                    break
        if self._suspects and self._memory and not self._running and not self._waiting:
            self._send(self._suspects.popleft(), next(iter(self._memory)))

    def collect(self) -> Iterator[Delivery[Work, Value]]:
        """Wait a moment; yield what is done."""
        from distributed import wait

        if not self._running:
            if self.unfinished:
                time.sleep(_POLL)
            return
        ended = contextlib.suppress(TimeoutError, CancelledError)
        with self._client.as_current(), ended:
            wait(list(self._running), timeout=_POLL, return_when="FIRST_COMPLETED")
        for future in [future for future in self._running if future.status != "pending"]:
            if future not in self._running:  # went with its worker meanwhile
                continue
            if future.status == "finished":
                value = self._gathered(future)
                if value is not None:
                    yield Delivery(self._running.pop(future)[0], value)
            elif future.status == "error":
                yield from self._raised(future)
            else:  # cancelled: by the loss of the scheduler, or of what was computed already
                self._check_scheduler()
                self._again(self._running.pop(future)[0])

    def _gathered(self, future: Any) -> Value | None:
        """Return the value of a finished job; None if its worker does not hand it out (now)."""
        try:
            value: Value = future.result(timeout=_FETCH)
        except (TimeoutError, OSError):
            self._check_scheduler()
            return None
        return value

    def _raised(self, future: Any) -> Iterator[Delivery[Work, Value]]:
        from distributed import KilledWorker

        error = future.exception()
        if not isinstance(error, KilledWorker):
            raise error
        address = self._running[future][1]
        yield from self._lose(address)

    def _look(self) -> Iterator[Delivery[Work, Value]]:
        """Ask the scheduler which workers there are; jobs of those that are gone come back."""
        if time.monotonic() - self._looked < _POLL:
            return
        self._looked = time.monotonic()
        self._check_scheduler()
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        self._memory = {address: info["memory_limit"] or 0 for address, info in workers.items()}
        for address in {where for _, where in self._running.values()} - self._memory.keys():
            yield from self._lose(address)

    def _lose(self, address: str) -> Iterator[Delivery[Work, Value]]:
        """Take back the jobs of a worker that died: the oldest of them was being computed.

        Values that it had not handed out went with it.
        """
        for known in (self._memory, self._shapes):
            known.pop(address, None)
        futures = [f for f, (_, where) in self._running.items() if where == address]
        finished = [f.status == "finished" for f in futures]
        lost = [self._running.pop(f)[0] for f in futures]
        self._client.cancel(futures, force=True)
        guilty = next((j for j, done in zip(lost, finished, strict=True) if not done), None)
        for job in reversed(lost):
            if job is not guilty:
                self._again(job)
        if guilty is None:
            return
        self._deaths[guilty.key] += 1
        if self._deaths[guilty.key] > 1:
            yield Delivery(guilty, None, KILLED)
        else:
            self._suspects.append(guilty)

    def _again(self, job: Work) -> None:
        self._waiting.setdefault(self._needs(job).shape, deque()).appendleft(job)

    def _next(self, address: str) -> Work | None:
        """Return a job of the shape that a worker had last, or else of one that no other has."""
        if not self._waiting:
            return None
        shape = self._shapes.get(address)
        if shape not in self._waiting:
            others = Counter(self._shapes.values())
            shape = min(self._waiting, key=lambda shape: others[shape])
        queue = self._waiting[shape]
        job = queue.popleft()
        if not queue:
            del self._waiting[shape]
        self._shapes[address] = shape
        return job

    def _send(self, job: Work, address: str) -> None:
        future = self._client.submit(
            self._function,
            job,
            key=f"{job.key}-{self._deaths[job.key]}-{time.monotonic_ns()}",
            workers=[address],
            allow_other_workers=False,
            pure=False,
        )
        self._running[future] = (job, address)

    def _fits(self, job: Work, memory: int) -> bool:
        return not memory or self._needs(job).memory <= memory

    def _too_large(self, job: Work) -> str:
        needed, largest = self._needs(job).memory / 2**30, max(self._memory.values()) / 2**30
        return (
            f"needs at least {needed:.1f} GiB of memory, and workers have {largest:.1f} GiB; "
            "choose a smaller supercell= or fewer workers."
        )

    def _check_scheduler(self) -> None:
        if self._client.status != "running":
            raise PhonopyEquivariantError(
                "The scheduler is gone; what is finished is kept: start it, and this run, again."
            )

"""Make the batches of the next step in a thread while the device computes this step."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from phonopy_equivariant.training.samples import Cursor, Microbatch, Samples

Cursors = tuple[Cursor, ...]
# A set's batch, and the cursor after it.
Drawn = tuple[list[Microbatch], Cursor]


class Ahead:
    """The batches of all sets at given places, and a thread that makes the following ones."""

    def __init__(self, sets: Sequence[Samples]):
        self._sets = sets
        self._worker = ThreadPoolExecutor(1, "batches")
        self._following: tuple[Cursors, Future[list[Drawn]]] | None = None

    def draw(self, cursors: Cursors) -> list[Drawn]:
        """Return every set's batch at its cursor and the cursor after it."""
        prepared = self._following
        if prepared is None or prepared[0] != cursors:
            prepared = cursors, self._worker.submit(self._draw, cursors)
        drawn = prepared[1].result()
        following = tuple(cursor for _, cursor in drawn)
        self._following = following, self._worker.submit(self._draw, following)
        return drawn

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown(cancel_futures=True)

    def _draw(self, cursors: Cursors) -> list[Drawn]:
        return [samples.next(c) for samples, c in zip(self._sets, cursors, strict=True)]

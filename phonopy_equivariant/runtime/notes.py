"""Notes of long computations on how far they are, for whoever shows them.

Deep functions do not know who started them. They note where they are; a listener that was set
around the call (:class:`.workflows.progress.Progress` does it on a terminal) gets the text. Without
a listener a note costs nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Listener = Callable[[str], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def note(text: str) -> None:
    """Tell the listener where the computation is; an empty text ends what was told before."""
    listener = _listener.get()
    if listener is not None:
        listener(text)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Give a listener all notes of this thread while the context is open."""
    before = _listener.get()
    _listener.set(listener)
    try:
        yield
    finally:
        _listener.set(before)  # not by token: a generator may end in another context


class Share:
    """Notes what share of a work is done.

    Parameters
    ----------
    total
        Its size, in whatever unit.
    of
        What the work is, as in ``"60 q"``.

    """

    def __init__(self, total: int, of: str):
        self.total, self.of = total, of
        self._done = 0.0

    def advance(self, amount: float) -> None:
        """Note that more is done, in the unit of the total."""
        self._done = min(self._done + amount, self.total)  # a last block may be filled up
        note(f"{int(100 * self._done / self.total + 1e-6)} % of {self.of}")

"""What is under way, on the last line of a terminal: a spinner or a bar, gone at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from phonopy_equivariant.runtime.notes import listening

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_open: list[Bar] = []


class Bar:
    """One work that is shown: its title, a note in brackets, and how much of it is done.

    A work inside another one has no line of its own: it is a note of ``outer``.
    """

    def __init__(self, title: str, outer: Bar | None, progress: Progress | None, total: int | None):
        self._title, self._outer, self.progress = title, outer, progress
        if progress is not None:
            self._task = progress.add_task(title, total=total, failed="")

    def note(self, text: str) -> None:
        """Show a text behind the title."""
        if self._outer is not None:
            self._outer.note(f"{self._title}: {text}" if text else self._title)
        elif self.progress is not None:
            description = f"{self._title} ({text})" if text else self._title
            self.progress.update(self._task, description=description)

    def count(self, done: int, failed: int | None = None) -> None:
        """Show how many parts are done, and how many of them failed."""
        if self.progress is not None:
            text = "" if failed is None else f"{failed} failed"
            self.progress.update(self._task, completed=done, failed=text)

    def close(self) -> None:
        """Clean the line."""
        if self in _open:
            _open.remove(self)
            if self.progress is not None:
                self.progress.stop()
            if self._outer is not None:
                self._outer.note("")


@contextlib.contextmanager
def opened(console: Console, title: str, total: int | None = None) -> Iterator[Bar]:
    """Show a work while the context is open, with notes of what runs inside.

    With a ``total`` there is a bar.
    """
    outer = _open[-1] if _open else None
    progress = _progress(console, total is not None) if outer is None else None
    bar = Bar(title, outer, progress, total)
    _open.append(bar)
    try:
        bar.note("")
        if progress is not None:
            progress.start()
        with listening(bar.note):
            yield bar
    finally:
        bar.close()


def close_bars() -> None:
    """Take away what an error or Ctrl-C left on the terminal, and show the cursor again."""
    for bar in reversed(tuple(_open)):
        bar.close()


def _progress(console: Console, has_total: bool) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    title = TextColumn("{task.description}", markup=False)
    columns: list[ProgressColumn] = [SpinnerColumn(), title]
    if has_total:
        failed = TextColumn("{task.fields[failed]}", markup=False)
        columns += [BarColumn(), MofNCompleteColumn(), failed, TimeRemainingColumn()]
    else:
        columns += [TimeElapsedColumn()]
    # standard output is of others: rich would take what they print to standard error
    return Progress(*columns, console=console, transient=True, redirect_stdout=False)

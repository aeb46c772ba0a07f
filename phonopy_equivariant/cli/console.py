"""What the command says: progress and remarks on standard error, reports on standard output."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from phonopy_equivariant.cli.wording import as_options

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from phonopy_equivariant.results import Result

Item = TypeVar("Item")

# A stage that took longer than this (s) leaves a line behind when it ends.
_WORTH_A_LINE = 2.0


class Console:
    """Speaks to the user: ``verbosity`` 0 errors only, 1 remarks and reports, 2 everything.

    Parameters of the library become options of ``command``.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False, command: str = ""):
        from rich.console import Console as RichConsole

        self.verbosity = 0 if quiet else 2 if verbose else 1
        self.warnings: list[str] = []  # that were printed
        self._command = command
        self._error = RichConsole(stderr=True, highlight=False, soft_wrap=True)

    @property
    def error(self) -> RichConsole:
        """Rich's console on standard error, for bars of one's own."""
        return self._error

    @property
    def is_terminal(self) -> bool:
        """Whether somebody may be looking at a bar."""
        return self._error.is_terminal

    def say(self, line: str) -> None:
        """Print a remark."""
        if self.verbosity:
            self._error.print(self.wording(line), markup=False)

    def detail(self, line: str) -> None:
        """Print what only -v shows."""
        if self.verbosity > 1:
            self._error.print(line, markup=False)

    def warn(self, line: str) -> None:
        """Print a warning; -q does not silence it."""
        text = self.wording(line)
        self.warnings.append(text)
        self._error.print(f"phonopy-equivariant: warning: {text}", markup=False)

    def wording(self, line: str) -> str:
        """Return a message with the options of the command in place of parameters."""
        return as_options(line, self._command)

    def report(self, title: str, lines: Iterable[str]) -> None:
        """Print a table of lines on standard output."""
        if self.verbosity:
            body = [self.wording(line) for line in lines]
            width = max(map(len, [title, *body]))
            print("\n".join([title, "-" * width, *body, "-" * width]), flush=True)

    def table(self, result: Result, heading: str = "") -> None:
        """Print the table of a result on standard output, and a line below it."""
        if self.verbosity:
            print_table(result.columns(), result.rows())
            if heading:
                print(heading, flush=True)

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[Callable[[str], None]]:
        """Show that something is under way: a spinner on a terminal, else a line when it starts.

        Yields a function that changes the spinner's text. A spinner that turned for more than
        two seconds leaves a line with its time.
        """
        start = time.perf_counter()
        if not self.verbosity:
            yield _ignore
        elif not self._error.is_terminal:
            self.say(f"{title} ...")
            yield _ignore
        else:
            with self._error.status(title) as status:
                yield status.update
            seconds = time.perf_counter() - start
            if seconds > _WORTH_A_LINE:
                self.say(f"{title}: {seconds:.1f} s")

    def track(self, title: str, items: Sequence[Item]) -> Iterator[Item]:
        """Yield the items with a progress bar on a terminal, else with one line."""
        if not self.verbosity or not self._error.is_terminal:
            if self.verbosity:
                self.say(f"{title} ...")
            yield from items
            return
        from rich.progress import track

        yield from track(items, title, console=self._error, transient=True)

    @contextlib.contextmanager
    def tally(self, title: str, total: int) -> Iterator[Callable[[int, int], None]]:
        """Show how many of ``total`` are done: a bar on a terminal, else a line for each tenth.

        Yields a function that takes the numbers of those that are done and of those that failed.
        """
        if not self.verbosity:
            yield lambda _done, _failed: None
        elif not self._error.is_terminal:
            self.say(f"{title} ({total}) ...")
            yield self._tenths(title, total)
        else:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

            columns = ("{task.description}", BarColumn(), MofNCompleteColumn())
            remaining = TimeRemainingColumn()
            failures = "{task.fields[failed]} failed"
            with Progress(*columns, failures, remaining, console=self._error) as bar:
                task = bar.add_task(title, total=total, failed=0)
                yield lambda done, failed: bar.update(task, completed=done, failed=failed)

    def _tenths(self, title: str, total: int) -> Callable[[int, int], None]:
        start = time.perf_counter()

        def show(done: int, failed: int) -> None:
            if 10 * done // total > 10 * (done - 1) // total:
                seconds = time.perf_counter() - start
                self.say(f"{title}: {done} of {total}, {failed} failed, {seconds:.0f} s")

        return show


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a plain table on standard output, as wide as it needs to be."""
    table = [list(columns), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[k]) for row in table) for k in range(len(columns))]
    for row in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def _ignore(_text: str) -> None:
    pass

"""What the command says: progress and remarks on standard error, reports on standard output."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from phonopy_equivariant.cli.bars import opened
from phonopy_equivariant.cli.settings import write_settings
from phonopy_equivariant.cli.wording import as_options
from phonopy_equivariant.runtime.notes import note

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from phonopy_equivariant.results import Result

Item = TypeVar("Item")

# as phono3py counts
_GRID_POINT = re.compile(r"Grid point \d+ \((\d+)/(\d+)\)")

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
        self._arguments: argparse.Namespace | None = None
        self._json: IO[str] | None = None
        self._error = RichConsole(stderr=True, highlight=False, soft_wrap=True)

    @classmethod
    def of(cls, args: argparse.Namespace, command: str) -> Console:
        """Return the console that the options -q, -v and --json ask for.

        With --json what anybody prints on standard output goes to standard error from here on;
        ``surroundings_kept`` puts it back.
        """
        console = cls(args.quiet, args.verbose, command)
        console._arguments = args
        if args.json:
            console._json, sys.stdout = sys.stdout, sys.stderr
        return console

    @property
    def error(self) -> RichConsole:
        """Rich's console on standard error, for bars of one's own."""
        return self._error

    @property
    def is_terminal(self) -> bool:
        """Whether somebody may be looking at a bar."""
        # rich alone would draw it into a file where FORCE_COLOR is set
        return self._error.is_terminal and self._error.file.isatty()

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
    def kept_back(self, title: str, shown: bool = False) -> Iterator[Callable[[], None]]:
        """Keep what another program prints on standard output from the user, except with -v.

        Yields a function that prints it on standard error after all; an exception does the same.
        With ``shown`` it is printed as it comes. Otherwise a terminal shows the title meanwhile.
        """
        if shown or self.verbosity > 1:
            yield lambda: None
            return
        output, kept = sys.stdout, _Kept()

        def show() -> None:
            sys.stderr.write(kept.getvalue())

        sys.stdout = kept
        try:
            with self.stage(title) if self._shows_bars else contextlib.nullcontext():
                yield show
        except Exception:
            show()
            raise
        finally:
            sys.stdout = output

    def conclude(
        self,
        results: Mapping[str, Any],
        files: Sequence[str] = (),
        follow: Sequence[str] = (),
        folder: str = "",
        theirs: tuple[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """End a command: settings file, names of the files, what to try next, JSON if asked for.

        Parameters
        ----------
        results
            What the command computed, by name: for --json.
        files
            What it wrote.
        follow
            Commands that go on from here.
        folder
            Where the settings file goes.
        theirs
            As in :func:`.write_settings`.

        """
        assert self._arguments is not None
        files = [*files]
        if hasattr(self._arguments, "settings"):
            settings = write_settings(self._arguments, self._command, Path(folder), theirs)
            files += [settings] if settings else []
        self.say(f"Files: {', '.join(files)}")
        for line in follow:
            self.say(f"Next: {line}")
        if self._json is not None:
            _write_json(self._json.write, self._command, results, files, self.warnings)

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[Callable[[str], None]]:
        """Show that something is under way: a spinner on a terminal, else a line when it starts.

        Yields a function that shows a text behind the title, as what runs inside does by itself
        (:func:`.runtime.notes.note`). A spinner that turned for more than two seconds leaves a
        line with its time.
        """
        start = time.perf_counter()
        if not self._shows_bars:
            if self.verbosity:
                self.say(f"{title} ...")
            yield _ignore
            return
        with opened(self._error, title) as bar:
            yield bar.note
        seconds = time.perf_counter() - start
        if seconds > _WORTH_A_LINE:
            self.say(f"{title}: {seconds:.1f} s")

    def track(self, title: str, items: Sequence[Item]) -> Iterator[Item]:
        """Yield the items with a bar on a terminal, else with one line."""
        if not self._shows_bars:
            if self.verbosity:
                self.say(f"{title} ...")
            yield from items
            return
        with opened(self._error, title, len(items)) as bar:
            for done, item in enumerate(items):
                bar.count(done)
                yield item

    @contextlib.contextmanager
    def tally(self, title: str, total: int) -> Iterator[Callable[[int, int], None]]:
        """Show how many of ``total`` are done: a bar on a terminal, else a line for each tenth.

        Yields a function that takes the numbers of those that are done and of those that failed.
        """
        if not self.verbosity:
            yield lambda _done, _failed: None
        elif not self._shows_bars:
            self.say(f"{title} ({total}) ...")
            yield self._tenths(title, total)
        else:
            with opened(self._error, title, total) as bar:
                yield bar.count

    @property
    def _shows_bars(self) -> bool:
        return self.verbosity > 0 and self.is_terminal

    def _tenths(self, title: str, total: int) -> Callable[[int, int], None]:
        start = time.perf_counter()

        def show(done: int, failed: int) -> None:
            if 10 * done // total > 10 * (done - 1) // total:
                seconds = time.perf_counter() - start
                self.say(f"{title}: {done} of {total}, {failed} failed, {seconds:.0f} s")

        return show


class _Kept(io.StringIO):
    """What phono3py prints: its grid points are notes."""

    def write(self, text: str) -> int:
        """Keep a text."""
        place = _GRID_POINT.search(text)
        if place:
            note(f"grid point {place[1]} of {place[2]}")
        return super().write(text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a plain table on standard output, as wide as it needs to be."""
    table = [list(columns), *[[str(cell) for cell in row] for row in rows]]
    widths = [max(len(row[k]) for row in table) for k in range(len(columns))]
    for row in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(line.rstrip() + "\n")


def _write_json(
    write: Callable[[str], object],
    command: str,
    results: Mapping[str, Any],
    files: Sequence[str],
    remarks: Sequence[str],
) -> None:
    from phonopy_equivariant._version import __version__
    from phonopy_equivariant.results import Result, plain

    def values(result: Any) -> Any:
        return result.to_dict() if isinstance(result, Result) else plain(result)

    content = {
        "command": command,
        "version": __version__,
        "files": list(files),
        "warnings": list(remarks),
        "results": {name: values(r) for name, r in results.items() if r is not None},
    }
    write(json.dumps(_finite(content), ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    """Return null in place of numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ignore(_text: str) -> None:
    pass

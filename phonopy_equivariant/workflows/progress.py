"""How workflows speak while they run; the command line's console does it on a terminal."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")


@runtime_checkable
class Progress(Protocol):
    """How a running workflow reports to the user."""

    def say(self, line: str) -> None:
        """Report a choice that was made."""

    def detail(self, line: str) -> None:
        """Report a detail that few users need."""

    def warn(self, line: str) -> None:
        """Report a problem that the user should act on."""

    def stage(self, title: str) -> contextlib.AbstractContextManager[Callable[[str], None]]:
        """Show a stage of the work while the context is open; yields a function that updates it."""

    def track(self, title: str, items: Sequence[Item]) -> Iterable[Item]:
        """Yield items, and show how many are done."""

    def tally(
        self, title: str, total: int
    ) -> contextlib.AbstractContextManager[Callable[[int, int], None]]:
        """Show how many of ``total`` are done; yields a function of done and failed ones."""


class Silent:
    """A progress that only warns, as Python does."""

    def say(self, line: str) -> None:
        """Say nothing."""

    def detail(self, line: str) -> None:
        """Say nothing."""

    def warn(self, line: str) -> None:
        """Warn with a ``UserWarning``."""
        warnings.warn(line, stacklevel=4)

    def stage(self, title: str) -> contextlib.AbstractContextManager[Callable[[str], None]]:
        """Show nothing."""
        return contextlib.nullcontext(lambda _text: None)

    def track(self, title: str, items: Sequence[Item]) -> Iterable[Item]:
        """Yield the items."""
        return items

    def tally(
        self, title: str, total: int
    ) -> contextlib.AbstractContextManager[Callable[[int, int], None]]:
        """Show nothing."""
        return contextlib.nullcontext(lambda _done, _failed: None)

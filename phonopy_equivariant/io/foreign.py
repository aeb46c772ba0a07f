"""Calls of other packages' readers: without their noise, and with their errors in one line."""

from __future__ import annotations

import contextlib
import io
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from phonopy_equivariant.errors import PhonopyEquivariantError

Item = TypeVar("Item")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep warnings and prints of foreign code from the user, who can do nothing about them."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def guarded(
    items: Iterator[Item], refusal: Callable[[Exception, int], PhonopyEquivariantError]
) -> Iterator[Item]:
    """Yield what a reader yields; what it raises on garbage, at which index, becomes a refusal."""
    for index in itertools.count():
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:  # readers raise anything
            raise refusal(error, index) from error
        yield item

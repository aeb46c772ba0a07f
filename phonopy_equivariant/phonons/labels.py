"""Labels of places on an axis that do not overlap."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

_MARKUP = re.compile(r"\$|\\[a-z]+|[{}_^]")
_CHARACTER = 0.014  # width as a share of an axis of 13 cm, letters of 10 points


def staggered(
    places: Sequence[float], labels: Sequence[str], length: float, scale: float = 1.0
) -> list[int]:
    """Return in which row each label stands, counted from the axis.

    Parameters
    ----------
    places, labels
        Places on the axis, ascending, and the labels centred there, which may hold mathtext.
    length
        Of the axis, in the unit of the places.
    scale
        Width of the letters, 1 for the axis and the letters of a band structure.

    Examples
    --------
    >>> staggered([0.0, 0.5, 0.52, 1.0], ["Γ", "X|U", "K", "Γ"], 1.0)
    [0, 0, 1, 0]

    """
    ends: dict[int, float] = {}
    rows = []
    for place, label in zip(places, labels, strict=True):
        half = (len(_MARKUP.sub("", label)) + 1) * _CHARACTER * scale * length / 2
        row = next(k for k in itertools.count() if place - half >= ends.get(k, -length))
        ends[row] = place + half
        rows.append(row)
    return rows

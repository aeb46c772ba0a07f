"""Which structure of a file with several is meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from phonopy_equivariant.errors import PhonopyEquivariantError

Frame = TypeVar("Frame")


def take_frame(frames: Sequence[Frame], index: int | None, report: Callable[[str], None]) -> Frame:
    """Return one of the frames, the last by default; say so if there are others.

    Raises
    ------
    PhonopyEquivariantError
        There is no such frame.

    """
    count = len(frames)
    if index is None:
        if count > 1:
            report(
                f"The file has {count} structures; the last is taken, others with index=0 to "
                f"{count - 2}."
            )
        return frames[-1]
    if not -count <= index < count:
        holds = "one structure" if count == 1 else f"{count} structures"
        raise PhonopyEquivariantError(
            f"has {holds}, none of index={index}; the first is 0, the last -1."
        )
    return frames[index]

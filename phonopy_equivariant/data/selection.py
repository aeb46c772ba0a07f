"""Parts and unions of sequences of records, which may lie in a file and are read in their turn."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import overload

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from phonopy_equivariant.data.record import LABELS, Record


class Selection(Sequence[Record]):
    """Some records of another sequence, in an order of their own.

    Parameters
    ----------
    records
        Read whenever one of them is asked for.
    places
        Of the records that are meant.
    labels
        Labels that the records keep.

    """

    def __init__(
        self,
        records: Sequence[Record],
        places: Sequence[int] | Int[ndarray, " records"],
        labels: Collection[str] = LABELS,
    ):
        self._records, self._places = records, np.asarray(places, int)
        self._labels = frozenset(labels)
        if isinstance(records, Selection):
            self._records, self._places = records._records, records._places[self._places]
            self._labels &= records._labels

    def __iter__(self) -> Iterator[Record]:
        places = self._places.tolist()
        read = getattr(self._records, "at", None)  # of files: many at once
        records = map(self._records.__getitem__, places) if read is None else read(places)
        return (self._only(record) for record in records)

    @property
    def places(self) -> Int[ndarray, " records"]:
        """Where the records are in the sequence they come from."""
        return self._places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Selection: ...

    def __getitem__(self, index: int | slice) -> Record | Selection:
        if isinstance(index, slice):
            return Selection(self._records, self._places[index], self._labels)
        return self._only(self._records[int(self._places[index])])

    def _only(self, record: Record) -> Record:
        return record if self._labels.issuperset(LABELS) else record.only(self._labels)


class Union(Sequence[Record]):
    """Several sequences of records, one after another."""

    def __init__(self, sequences: Sequence[Sequence[Record]]):
        self._sequences = sequences
        self._starts = np.cumsum([0, *map(len, sequences)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __iter__(self) -> Iterator[Record]:
        for records in self._sequences:
            yield from records

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Selection: ...

    def __getitem__(self, index: int | slice) -> Record | Selection:
        if isinstance(index, slice):
            return Selection(self, range(*index.indices(len(self))))
        place = range(len(self))[index]
        sequence = int(np.searchsorted(self._starts, place, side="right")) - 1
        return self._sequences[sequence][place - int(self._starts[sequence])]

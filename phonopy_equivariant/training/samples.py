"""From records to batches: which structures a step sees, and along which directions.

Everything random is drawn from a counter-based generator (Philox) whose key is the seed and the
set, and whose counter is the epoch and the place in it: no hidden state, so that a run resumed
at any step sees what the uninterrupted run would have seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jraph
import numpy as np
from numpy import ndarray

from phonopy_equivariant.data.record import ForceConstantsData, Record, Spectrum
from phonopy_equivariant.data.selection import Selection
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.training.batches import (
    GRAPH_TERMS,
    Graphs,
    ValueCache,
    budget,
    fill,
    is_gamma,
    pack,
    with_samples,
    with_shares,
)
from phonopy_equivariant.training.config import LossConfig, SetConfig
from phonopy_equivariant.training.spectral import Batch, group_means, make_batch, make_cell

# Epochs of the generator that are no epochs of the training.
SPLIT, VALIDATION = 2**62, 2**62 + 1


class Cursor(NamedTuple):
    """Where a set's order stands: the next batch of this epoch."""

    epoch: int = 0
    batch: int = 0


class Microbatch(NamedTuple):
    """What one call of a loss takes; a step adds several."""

    loss: LossConfig  # with the terms that the set has data for
    batch: Batch


def random_generator(seed: int, stream: int, epoch: int, place: int = 0) -> np.random.Generator:
    """Return the generator of one place in one epoch of one set."""
    key = np.array([seed, stream], np.uint64)
    counter = np.array([0, 0, place, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def split(count: int, share: float, seed: int, stream: int) -> tuple[ndarray, ndarray]:
    """Return the indices of training and of validation records.

    A ``share`` of all records, and at least one, goes to validation unless the share is zero; at
    least one is left for training.
    """
    order = random_generator(seed, stream, SPLIT).permutation(count)
    num_validation = min(max(1, round(share * count)), count - 1) if share else 0
    return order[num_validation:], order[:num_validation]


class Samples:
    """The records of one set, made into batches when their turn comes.

    Parameters
    ----------
    potential
        Whose cutoff and species the graphs have.
    records
        Those without data for any term are left out; some must be left. They are read again
        whenever they are needed, except that graphs of a small set are kept.
    options, loss
        Of the set; the terms of the loss.
    seed, stream
        Key of the generator.
    devices
        A batch is spread over this many.

    Attributes
    ----------
    counts
        How many records have data for each term of the set.
    graphs
        Of the records.

    """

    def __init__(
        self,
        potential: Potential,
        records: Sequence[Record],
        options: SetConfig,
        loss: LossConfig,
        seed: int,
        stream: int,
        devices: int = 1,
    ):
        term_names = options.terms or loss.terms
        table = np.array([[_has(record, name) for name in term_names] for record in records], bool)
        table = table.reshape(-1, len(term_names))
        self.counts = dict(zip(term_names, table.sum(axis=0).tolist(), strict=True))
        self.loss = _usable(self.counts, loss, options)
        self.records = Selection(records, np.flatnonzero(table.any(axis=1)))
        self.weight = options.weight
        self._key, self._devices = (seed, stream), devices
        self.graphs = Graphs(potential, self.records)
        self._terms = [
            name for name in self.loss.terms if name in GRAPH_TERMS and self.graphs.has[name].any()
        ]
        self._cells = ValueCache(lambda place: make_cell(potential, self.records[place].structure))
        self._epoch_batches: tuple[int, list[list[ndarray]]] = (-1, [])
        self.budget = budget(self.graphs.sizes, -(-options.batch_size // devices))

    def next(self, cursor: Cursor) -> tuple[list[Microbatch], Cursor]:
        """Return the batch at the cursor and the cursor after it."""
        batches = self._epoch(cursor.epoch)
        places = batches[cursor.batch]
        following = Cursor(cursor.epoch, cursor.batch + 1)
        if following.batch == len(batches):
            following = Cursor(cursor.epoch + 1, 0)
        return list(self._microbatches([places], cursor.epoch, cursor.batch)), following

    def all(self) -> Iterator[Microbatch]:
        """Yield the whole set, for validation: means over the set, always the same samples."""
        packs = self._grouped(np.arange(len(self.records)))
        return self._microbatches(packs, VALIDATION, 0)

    def _epoch(self, epoch: int) -> list[list[ndarray]]:
        """Return the batches of an epoch; those of the epoch asked for last are kept."""
        if self._epoch_batches[0] != epoch:
            order = random_generator(*self._key, epoch).permutation(len(self.records))
            self._epoch_batches = epoch, self._grouped(order)
        return self._epoch_batches[1]

    def _grouped(self, order: ndarray) -> list[list[ndarray]]:
        """Return batches as lists of structures for each device."""
        filled = fill(order.tolist(), self.graphs.sizes, self.budget)
        return [filled[k : k + self._devices] for k in range(0, len(filled), self._devices)]

    def _microbatches(
        self, groups: list[list[ndarray]], epoch: int, place: int
    ) -> Iterator[Microbatch]:
        """Yield microbatches of some batches; their losses are means over all these batches."""
        generator = random_generator(*self._key, epoch, 1 + place)
        if self._terms:
            yield from self._graph_batches(groups, generator)
        places = [k for group in groups for batch in group for k in batch.tolist()]
        yield from self._lattice_batches(places, generator)

    def _graph_batches(
        self, groups: list[list[ndarray]], generator: np.random.Generator
    ) -> Iterator[Microbatch]:
        absent = dict.fromkeys(t for t in self.loss.terms if t not in self._terms)
        loss = dataclasses.replace(self.loss, **absent)
        factors = self._factors(np.concatenate([batch for group in groups for batch in group]))
        for group in groups:
            graphs = [
                [with_shares(self._sampled(k, loss, generator), factors) for k in batch.tolist()]
                for batch in group
            ]
            packed = [pack(batch, self.budget, graphs[0][0]) for batch in graphs]
            if self._devices == 1:
                yield Microbatch(loss, packed[0])
            else:
                packed += [pack([], self.budget, graphs[0][0])] * (self._devices - len(packed))
                yield Microbatch(loss, jax.tree.map(lambda *x: np.stack(x), *packed))

    def _factors(self, places: ndarray) -> dict[str, float]:
        """Return the set's weight over how many structures, or atoms, have data for a term."""
        atoms = self.graphs.sizes[places, 0]
        counts = {name: self.graphs.has[name][places] for name in self._terms}
        return {
            name: self.weight / max(float(np.sum(has * (atoms if name == "forces" else 1))), 1.0)
            for name, has in counts.items()
        }

    def _sampled(
        self, index: int, loss: LossConfig, generator: np.random.Generator
    ) -> jraph.GraphsTuple:
        """Return a structure, with random directions where Hessians are compared."""
        if loss.hessian is None:
            return self.graphs[index]
        record = self.records[index]
        matrix = None
        if is_gamma(record) and record.force_constants is not None:
            matrix = record.force_constants.values[0].real
        return with_samples(self.graphs[index], matrix, loss.hessian, generator)

    def _lattice_batches(
        self, places: Sequence[int], generator: np.random.Generator
    ) -> Iterator[Microbatch]:
        """Yield cells with Φ(q) or frequencies, which need the Bloch response, one at a time."""
        for name in ("hessian", "spectrum"):
            term = getattr(self.loss, name)
            with_data = [k for k in places if term and _lattice_data(self.records[k], name)]
            for k in with_data:
                labels = _lattice_data(self.records[k], name)
                assert labels is not None  # the record is among those with data
                q = _draw(generator, len(labels.qpoints), term.qpoints)
                target = (
                    {"force_constants": labels.values}
                    if isinstance(labels, ForceConstantsData)
                    else {"eigenvalues": group_means(labels.frequencies, term.degeneracy)}
                )
                share = {name: self.weight / len(with_data)}
                batch = make_batch(
                    self._cells[k], labels.qpoints, q, share, **target, multiple=self._devices
                )
                yield Microbatch(LossConfig(**{name: term}), batch)


def _lattice_data(record: Record, term: str) -> ForceConstantsData | Spectrum | None:
    """Return the data a term compares at wave vectors; a Hessian at Γ is in the graph instead."""
    if term == "spectrum":
        return record.spectrum
    return None if is_gamma(record) else record.force_constants


def _usable(counts: dict[str, int], loss: LossConfig, options: SetConfig) -> LossConfig:
    """Return the loss without the terms that no record of a set has data for."""
    if not any(counts.values()):
        raise PhonopyEquivariantError(
            f"{options.path}: no record has data for {', '.join(counts)}; add a term to loss, "
            "or leave this set out."
        )
    absent = dict.fromkeys(name for name in loss.terms if not counts.get(name))
    return dataclasses.replace(loss, **absent)


def _has(record: Record, term: str) -> bool:
    """Tell whether a record has data for a term of the loss."""
    if term == "stress" and not record.structure.pbc.all():
        return False
    return getattr(record, "force_constants" if term == "hessian" else term) is not None


def _draw(generator: np.random.Generator, count: int, size: int) -> ndarray:
    indices: ndarray = generator.choice(count, min(count, size), replace=False)
    return indices

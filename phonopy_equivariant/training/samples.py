"""From records to batches: which structures a step sees, and along which directions.

Everything random is drawn from a counter-based generator (Philox) whose key is the seed and the
set, and whose counter is the epoch and the place in it: no hidden state, so that a run resumed
at any step sees what the uninterrupted run would have seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jraph
import numpy as np
from numpy import ndarray

from phonopy_equivariant.data.record import Record
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.training.batches import (
    budget,
    fill,
    is_gamma,
    labelled_graph,
    pack,
    shared_out,
    with_samples,
)
from phonopy_equivariant.training.config import LossConfig, SetConfig
from phonopy_equivariant.training.spectral import Cell, group_means, make_batch, make_cell

GRAPH_TERMS = ("energy", "forces", "stress", "hessian")

# Epochs of the generator that are no epochs of the training.
SPLIT, VALIDATION = 2**62, 2**62 + 1


class Cursor(NamedTuple):
    """Where a set's order stands: the next batch of this epoch."""

    epoch: int = 0
    batch: int = 0


class Microbatch(NamedTuple):
    """What one call of a loss takes; a step adds several."""

    loss: LossConfig  # with the terms that the set has data for
    batch: Any  # a padded graph, or a LatticeBatch


def random_generator(seed: int, stream: int, epoch: int, place: int = 0) -> np.random.Generator:
    """Return the generator of one place in one epoch of one set."""
    key = np.array([seed, stream], np.uint64)
    counter = np.array([0, 0, place, epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def split(count: int, share: float, seed: int, stream: int) -> tuple[ndarray, ndarray]:
    """Return indices for training and for validation, a share of all; at least one of each."""
    order = random_generator(seed, stream, SPLIT).permutation(count)
    held = min(max(1, round(share * count)), count - 1) if share else 0
    return order[held:], order[:held]


class Samples:
    """The records of one set, as graphs and cells ready for batches.

    Parameters
    ----------
    potential
        Whose cutoff and species the graphs have.
    records
        Those without data for any term are left out; some must be left.
    options, loss
        Of the set; the terms of the loss.
    seed, stream
        Key of the generator.
    devices
        A batch is spread over this many.

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
        self.loss = _usable(records, loss, options)
        self.records = [r for r in records if any(_has(r, name) for name in self.loss.terms)]
        self.weight = options.weight
        self._key, self._devices = (seed, stream), devices
        self._graphs = [labelled_graph(potential, record) for record in self.records]
        self._terms = [
            name
            for name in self.loss.terms
            if name in GRAPH_TERMS
            and any(graph.globals["share"][name][0] for graph in self._graphs)
        ]
        self._cells: dict[int, Cell] = {
            index: make_cell(potential, record.structure)
            for index, record in enumerate(self.records)
            if self._matrix(record) or self._spectrum(record)
        }
        self._kept: tuple[int, list[list[ndarray]]] = (-1, [])
        self.budget = budget(self._graphs, -(-options.batch_size // devices))

    def next(self, cursor: Cursor) -> tuple[list[Microbatch], Cursor]:
        """Return the batch at the cursor and the cursor after it."""
        batches = self._epoch(cursor.epoch)
        chosen = batches[cursor.batch]
        following = Cursor(cursor.epoch, cursor.batch + 1)
        if following.batch == len(batches):
            following = Cursor(cursor.epoch + 1, 0)
        return self._microbatches([chosen], cursor.epoch, cursor.batch), following

    def all(self) -> list[Microbatch]:
        """Return the whole set, for validation: means over the set, always the same samples."""
        packs = self._grouped(np.arange(len(self.records)))
        return self._microbatches(packs, VALIDATION, 0)

    def _epoch(self, epoch: int) -> list[list[ndarray]]:
        """Return the batches of an epoch; those of the last one asked for are kept."""
        if self._kept[0] != epoch:
            order = random_generator(*self._key, epoch).permutation(len(self.records))
            self._kept = epoch, self._grouped(order)
        return self._kept[1]

    def _grouped(self, order: ndarray) -> list[list[ndarray]]:
        """Return batches as lists of structures for each device."""
        filled = fill(order.tolist(), self._graphs, self.budget)
        return [filled[k : k + self._devices] for k in range(0, len(filled), self._devices)]

    def _matrix(self, record: Record) -> bool:
        """Tell whether the Bloch response is needed for the record's force constants."""
        known = record.force_constants is not None and not is_gamma(record)
        return known and self.loss.hessian is not None

    def _spectrum(self, record: Record) -> bool:
        return record.spectrum is not None and self.loss.spectrum is not None

    def _microbatches(
        self, groups: list[list[ndarray]], epoch: int, place: int
    ) -> list[Microbatch]:
        """Return what the losses of some batches take, their means running over all of them."""
        generator = random_generator(*self._key, epoch, 1 + place)
        some = np.concatenate([part for group in groups for part in group]).tolist()
        return self._graph_batches(groups, generator) + self._lattice_batches(some, generator)

    def _graph_batches(
        self, groups: list[list[ndarray]], generator: np.random.Generator
    ) -> list[Microbatch]:
        if not self._terms:
            return []
        absent: dict[str, Any] = {t: None for t in self.loss.terms if t not in self._terms}
        loss = dataclasses.replace(self.loss, **absent)
        parts = [part for group in groups for part in group]
        sizes = np.cumsum([len(part) for part in parts])[:-1]
        graphs = [
            self._sampled(index, loss, generator) for part in parts for index in part.tolist()
        ]
        graphs = shared_out(graphs, loss, self.weight)
        packed = [
            pack([graphs[k] for k in chosen], self.budget, graphs[0])
            for chosen in np.split(np.arange(len(graphs)), sizes)
        ]
        if self._devices == 1:
            return [Microbatch(loss, graph) for graph in packed]
        packed += [pack([], self.budget, graphs[0])] * (-len(packed) % self._devices)
        return [
            Microbatch(loss, jax.tree.map(lambda *x: np.stack(x), *packed[k : k + self._devices]))
            for k in range(0, len(packed), self._devices)
        ]

    def _sampled(
        self, index: int, loss: LossConfig, generator: np.random.Generator
    ) -> jraph.GraphsTuple:
        """Return a structure, with random directions where Hessians are compared."""
        if loss.hessian is None:
            return self._graphs[index]
        record = self.records[index]
        matrix = None
        if is_gamma(record) and record.force_constants is not None:
            matrix = record.force_constants.values[0].real
        return with_samples(self._graphs[index], matrix, loss.hessian, generator)

    def _lattice_batches(
        self, some: Sequence[int], generator: np.random.Generator
    ) -> list[Microbatch]:
        matrices = [index for index in some if self._matrix(self.records[index])]
        spectra = [index for index in some if self._spectrum(self.records[index])]
        found = []
        for index in matrices:
            term, data = self.loss.hessian, self.records[index].force_constants
            assert term is not None and data is not None
            q = _draw(generator, len(data.qpoints), term.qpoints)
            batch = make_batch(
                self._cells[index],
                data.qpoints,
                q,
                {"hessian": self.weight / len(matrices)},
                force_constants=data.values,
                multiple=self._devices,
            )
            found.append(Microbatch(LossConfig(hessian=term), batch))
        for index in spectra:
            some_term, spectrum = self.loss.spectrum, self.records[index].spectrum
            assert some_term is not None and spectrum is not None
            q = _draw(generator, len(spectrum.qpoints), some_term.qpoints)
            batch = make_batch(
                self._cells[index],
                spectrum.qpoints,
                q,
                {"spectrum": self.weight / len(spectra)},
                eigenvalues=group_means(spectrum.frequencies, some_term.degeneracy),
                multiple=self._devices,
            )
            found.append(Microbatch(LossConfig(spectrum=some_term), batch))
        return found


def _usable(records: Sequence[Record], loss: LossConfig, options: SetConfig) -> LossConfig:
    """Return the loss without the terms that no record has data for."""
    wanted = options.terms or loss.terms
    found = {name for name in wanted if any(_has(record, name) for record in records)}
    if not found:
        raise PhonopyEquivariantError(
            f"{options.path}: no record has data for {', '.join(wanted)}; add a term to loss, "
            "or leave this set out."
        )
    absent: dict[str, Any] = {name: None for name in loss.terms if name not in found}
    return dataclasses.replace(loss, **absent)


def _has(record: Record, term: str) -> bool:
    """Tell whether a record has data for a term of the loss."""
    if term == "stress" and not record.structure.pbc.all():
        return False
    return getattr(record, "force_constants" if term == "hessian" else term) is not None


def _draw(generator: np.random.Generator, count: int, wanted: int) -> ndarray:
    chosen: ndarray = generator.choice(count, min(count, wanted), replace=False)
    return chosen

"""Measure what the features of a potential are on its training structures; see :mod:`.features`.

A threshold gives the distance of structures that are of the same kind as the training structures
but were held out from training. Structures beyond it are far from the training data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.features import FeatureReference, compare
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.structure import Structure, StructureLike, as_structure

# Share of the mean variance that is added to every variance: directions in which the training
# structures do not vary would count without bound.
RIDGE = 1e-3


def fit_familiarity(
    potential: Potential,
    training: Iterable[StructureLike],
    held_out: Iterable[StructureLike],
    quantile: float = 0.99,
) -> Potential:
    """Return the potential with a reference to tell far structures by.

    :func:`phonopy_equivariant.save_checkpoint` keeps it, and :meth:`Potential.familiarity` uses
    it. Whoever changes the weights afterwards must fit again.

    Parameters
    ----------
    potential
        After its training.
    training
        Structures (ASE's, phonopy's) that it was trained on, or a fair sample of them.
    held_out
        Structures of the same kind that it was not trained on: they set the threshold.
    quantile
        Which share of them the threshold lets pass.

    Raises
    ------
    PhonopyEquivariantError
        Structures that do not vary, held-out ones with elements absent from training, or a
        quantile outside 0 to 1.

    """
    if not 0 < quantile < 1:
        raise PhonopyEquivariantError(f"quantile={quantile}: give a number between 0 and 1.")
    counts, means, whitening = _moments(potential, training)
    fitted = FeatureReference(counts, means, whitening, np.inf, quantile)
    distances = [compare(fitted, f, z).distance for f, z in _features(potential, held_out)]
    threshold = float(np.quantile(distances, quantile)) if distances else np.nan
    if not np.isfinite(threshold):
        raise PhonopyEquivariantError(
            "The held-out structures give no threshold: give some whose elements all occur in "
            "the training structures."
        )
    return dataclasses.replace(potential, reference=fitted._replace(threshold=threshold))


def _features(
    potential: Potential, structures: Iterable[StructureLike]
) -> Iterator[tuple[ndarray, ndarray]]:
    """Yield features and species of each structure, by size, so that each program compiles once."""
    # graphs are built twice, as those of a large set would not fit into memory together

    def size(structure: Structure) -> tuple[int, int]:
        graph = potential.graph(structure)
        return int(graph.n_node[0]), int(graph.n_edge[0])

    for structure in sorted(map(as_structure, structures), key=size):
        species = potential.species_index(structure.numbers)
        yield potential.evaluate(structure).features, species


def _moments(
    potential: Potential, training: Iterable[StructureLike]
) -> tuple[ndarray, ndarray, ndarray]:
    """Return counts, means and whitening matrix."""
    counts = np.zeros(len(potential.species))
    sums: float | ndarray = 0.0
    squares: float | ndarray = 0.0
    for features, species in _features(potential, training):
        one_hot = np.eye(len(counts))[species]
        counts += one_hot.sum(axis=0)
        sums = sums + one_hot.T @ features
        squares = squares + features.T @ features
    means = sums / np.maximum(counts, 1)[:, None]
    scatter = squares - (counts[:, None] * means).T @ means
    freedom = counts.sum() - (counts > 0).sum()
    variance = np.trace(scatter) / max(freedom, 1) / len(scatter)
    # differences of sums: those of structures that are all alike leave rounding
    total = np.trace(np.atleast_2d(squares)) / max(counts.sum(), 1) / len(scatter)
    if not variance > 1e-12 * total:
        raise PhonopyEquivariantError(
            "The training structures are too few or all alike: give structures whose atoms have "
            "more than one surrounding."
        )
    covariance = scatter / freedom + RIDGE * variance * np.eye(len(scatter))
    whitening = np.linalg.inv(np.linalg.cholesky(covariance)).T
    single = np.float32
    return counts.astype(single), means.astype(single), whitening.astype(single)

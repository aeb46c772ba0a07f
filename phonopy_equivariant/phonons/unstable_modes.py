"""Imaginary modes at the small commensurate q: where a crystal is unstable, and along what.

A q of order n (n·q is a reciprocal lattice vector) fits into a supercell of n primitive cells. D(q)
is computed there exactly, without a supercell. Of q that the space group or time reversal relate,
one is looked at.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy import ndarray
from phonopy.physical_units import get_physical_units

from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.dynamical_matrix import dynamical_matrices
from phonopy_equivariant.response.symmetry.operations import Operations
from phonopy_equivariant.structure import Structure, masses_of

# THz: modes closer than this are degenerate. Crystals have their symmetry to rounding here.
_DEGENERATE = 1e-3


class SmallQ(NamedTuple):
    """A q that fits into a supercell of ``order`` primitive cells."""

    numerators: Int[ndarray, "3"]
    order: int

    @property
    def qpoint(self) -> Float[ndarray, "3"]:
        """In units of the reciprocal vectors, between -1/2 and 1/2."""
        return self.numerators / self.order


@dataclasses.dataclass(frozen=True, eq=False)
class ImaginaryModes:
    """A degenerate set of imaginary modes.

    Parameters
    ----------
    place
        Their q.
    frequency
        THz, negative.
    vectors
        Mass-weighted eigenvectors of D(q) in phonopy's convention, as columns.

    """

    place: SmallQ
    frequency: float
    vectors: Complex[ndarray, "coordinates modes"]


def small_qpoints(symmetry: Operations, max_order: int) -> list[SmallQ]:
    """Return the q of orders up to ``max_order``, one of those that symmetry relates; Γ is first.

    Parameters
    ----------
    symmetry
        Of the primitive cell.
    max_order
        Largest number of primitive cells of a supercell that q fits into.

    """
    turns = np.rint(np.linalg.inv(symmetry.rotations)).astype(int).transpose(0, 2, 1)
    turns = np.concatenate([turns, -turns])
    points = []
    for order in range(1, max_order + 1):
        numerators = np.array(list(np.ndindex(order, order, order)))
        numerators = numerators[np.gcd.reduce(np.c_[numerators, np.full(order**3, order)], 1) == 1]
        seen: set[tuple[int, ...]] = set()
        for point in _nearest_to_zero(numerators, order):
            if tuple(point % order) not in seen:
                seen.update(map(tuple, (turns @ point % order).tolist()))
                points.append(SmallQ(point, order))
    return points


def _nearest_to_zero(numerators: Int[ndarray, "q 3"], order: int) -> Int[ndarray, "q 3"]:
    """Return q between -1/2 and 1/2, the shortest and most positive first."""
    centred = np.where(2 * numerators > order, numerators - order, numerators)
    keys = (*(-centred.T[::-1]), np.abs(centred).sum(axis=1))
    return centred[np.lexsort(keys)]


def mode_frequencies(
    potential: Potential, primitive: Structure, places: list[SmallQ]
) -> tuple[Float[ndarray, "q modes"], Complex[ndarray, "q coordinates modes"]]:
    """Return frequencies (THz, negative if imaginary), ascending, and eigenvectors of D(q).

    The three translations at Γ are put far above all other modes.
    """
    matrices = dynamical_matrices(
        potential, primitive, np.array([place.qpoint for place in places])
    )
    masses = masses_of(primitive)
    translations = np.kron(np.sqrt(masses / masses.sum())[:, None], np.eye(3))
    far = 1.0 + 10.0 * float(np.abs(matrices).sum(axis=2).max())
    optical = np.eye(len(translations)) - translations @ translations.T
    for index, place in enumerate(places):
        if place.order == 1:
            shifted = far * translations @ translations.T
            matrices[index] = optical @ matrices[index] @ optical + shifted
    squares, vectors = np.linalg.eigh(matrices)
    frequencies = np.sign(squares) * np.sqrt(np.abs(squares))
    return frequencies * get_physical_units().DefaultToTHz, vectors


def imaginary_modes(
    places: list[SmallQ],
    frequencies: Float[ndarray, "q modes"],
    vectors: Complex[ndarray, "q coordinates modes"],
    threshold: float,
) -> list[ImaginaryModes]:
    """Return degenerate sets of modes below ``-threshold`` (THz), the lowest first."""
    sets = []
    for place, ascending, columns in zip(places, frequencies, vectors, strict=True):
        edges = np.flatnonzero(np.diff(ascending) > _DEGENERATE) + 1
        for bands in np.split(np.arange(len(ascending)), edges):
            frequency = float(ascending[bands].mean())
            if frequency < -threshold:
                sets.append(ImaginaryModes(place, frequency, columns[:, bands]))
    return sorted(sets, key=lambda modes: modes.frequency)

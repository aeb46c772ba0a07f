"""How far force constants reach: a grid of q refined until nothing is missing between its points.

Force constants reach 2·T·cutoff in principle and decay long before. The grid is refined until
Fourier interpolation from it meets Φ(q) computed directly at q between its points, where the
interpolation is worst.

The error is one number ε in THz, and its meaning is an error of ω², because ω = sign(ω²)·√|ω²| has
an infinite slope at zero:

    |δ(ω²)| ≤ 2ε·max(|ω|, ω_0),    ω_0 = 1 THz

From ω_0 on this is an error ε of ω. Below, the error of ω is ε·ω_0/|ω|, and up to 2·√(ε·ω_0)
where ω² crosses zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy import ndarray
from phonopy import Phonopy
from phonopy.harmonic.dynamical_matrix import DynamicalMatrix

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.frequencies import signed_root
from phonopy_equivariant.phonons.cells import primitive_operations
from phonopy_equivariant.phonons.exact_images import image_matrix
from phonopy_equivariant.response.symmetry.star import commensurate_grid, fill_star
from phonopy_equivariant.structure import inscribed_radius

FIRST_DIAMETER = 30.0  # Å, of the sphere inscribed in the cells of the first grid
GROWTH = 1.4  # largest factor from one grid to the next
PROBES = 12
SAFETY = 4.0  # errors elsewhere were up to 2.7 times the largest one at the probed q
LOWEST = 1.0  # THz; frequencies below are promised through ω² only

# Φ(q) in the lattice gauge and D(q) in phonopy's from a list of q
Direct = Callable[[Float[ndarray, "q 3"]], Complex[ndarray, "q columns columns"]]


class Attempt(NamedTuple):
    """One grid and the largest error between its points."""

    counts: tuple[int, int, int]
    diameter: float  # Å, of the sphere inscribed in its cells
    computed: int  # q computed directly
    error: float  # THz, see frequency_errors


def frequency_errors(
    error: float, frequencies: Float[ndarray, "*shape"]
) -> Float[ndarray, "*shape"]:
    """Return the largest errors (THz) of frequencies whose ω² is off by 2·error·max(|ω|, ω_0).

    From 1 THz on this is the error itself, to first order. Below, it grows as error·ω_0/|ω|, up
    to 2·√(error·ω_0) where ω² and its neighbour have opposite signs.
    """
    size = np.abs(frequencies)
    # a signed square root changes most towards zero and across
    lower = size**2 - 2 * error * np.maximum(size, LOWEST)
    return size - signed_root(lower)


def converged_matrix(
    phonon: Phonopy,
    direct: Direct,
    mass_weighted: Callable[[ndarray, ndarray], ndarray],
    tolerance: float,
    full_range: float,
    max_memory: int,
    kind: Callable[..., DynamicalMatrix] = DynamicalMatrix,
    parity: bool = True,
) -> tuple[DynamicalMatrix, list[Attempt]]:
    """Return a dynamical matrix without range error above ``tolerance``, and the way to it.

    Parameters
    ----------
    phonon, direct, mass_weighted
        Crystal; Φ(q) of a list of q in the lattice gauge; D(q) from q and Φ(q).
    tolerance
        Largest error (THz), in the sense of this module; a quarter of it is left at the probed q.
    full_range
        Length (Å) beyond which there are no force constants.
    max_memory
        Bytes the force constants may take.
    kind
        Class of the dynamical matrix, see :func:`.exact_images.image_matrix`.
    parity
        Whether Φ(q) obeys reflections of the crystal, and not its rotations alone.

    Raises
    ------
    PhonopyEquivariantError
        The error stops falling above ``tolerance`` (rounding of the potential), or the grid does
        not fit into memory.

    """
    heights = 1 / np.linalg.norm(np.linalg.inv(phonon.primitive.cell), axis=0)
    symmetry = primitive_operations(phonon, parity)
    diameter, attempts = FIRST_DIAMETER, list[Attempt]()
    while True:
        # equal heights must give equal numbers: the grid keeps the point group
        counts = np.ceil(diameter / heights - 1e-6).astype(int)
        _check_memory(len(phonon.primitive), counts, max_memory)
        grid = commensurate_grid(np.diag(counts), symmetry)
        between = probes(counts)
        qpoints = np.concatenate([grid.qpoints[grid.irreducible], between])
        values = direct(qpoints)
        at_grid, at_probes = values[: -len(between)], values[-len(between) :]
        matrix = image_matrix(phonon, counts, grid, fill_star(grid, symmetry, at_grid), kind)
        error = _deviation(phonon, matrix, between, mass_weighted(between, at_probes))
        width = 2 * inscribed_radius(phonon.primitive.cell * counts[:, None])
        attempts.append(Attempt(_triple(counts), width, len(qpoints), error))
        if SAFETY * error <= tolerance or width >= 2 * full_range:
            return matrix, attempts
        _check_progress(attempts, tolerance)
        # at least one cell more along the shortest direction
        diameter = max(_next_diameter(attempts, tolerance), (counts * heights).min() + 1e-3)


def probes(counts: Int[ndarray, "3"]) -> Float[ndarray, "probes 3"]:
    """Return q between the points of a grid: half way along one to three axes, and anywhere."""
    random = np.random.default_rng(20)
    nearest = random.integers(0, counts, (PROBES, 3))
    offset = random.uniform(0.2, 0.8, (PROBES, 3))
    halves = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]]) / 2
    offset[: len(halves)] = halves
    return (nearest + offset) / counts


def _deviation(
    phonon: Phonopy, matrix: DynamicalMatrix, qpoints: ndarray, expected: ndarray
) -> float:
    """Return the smallest ε with |δ(ω²)| ≤ 2ε·max(|ω|, ω_0) at all q, THz.

    With D and ΔD (THz²) the matrix and its error, and W = 2·max(√|D|, ω_0) taken of the
    eigenvalues of D, ε = ‖W^{-1/2}·ΔD·W^{-1/2}‖: then -εW ≤ ΔD ≤ εW, and eigenvalues follow.
    """
    largest = 0.0
    for q, direct in zip(qpoints, expected, strict=True):
        matrix.run(q)
        squares, vectors = np.linalg.eigh(direct)
        frequencies = np.sqrt(np.abs(squares)) * phonon.unit_conversion_factor
        root = (2 * np.maximum(frequencies, LOWEST)) ** -0.5 * phonon.unit_conversion_factor
        turned = vectors.conj().T @ (matrix.dynamical_matrix - direct) @ vectors
        largest = max(largest, float(np.linalg.norm(root[:, None] * turned * root, 2)))
    return largest


def _next_diameter(attempts: list[Attempt], tolerance: float) -> float:
    """Return where an exponential through the last two errors meets the tolerance."""
    last = attempts[-1]
    largest = GROWTH * last.diameter
    if len(attempts) == 1:
        return largest
    previous = attempts[-2]
    rate = math.log(previous.error / last.error) / (last.diameter - previous.diameter)
    if rate <= 0:
        return largest
    return min(largest, last.diameter + math.log(SAFETY * last.error / tolerance) / rate)


def _check_progress(attempts: list[Attempt], tolerance: float) -> None:
    if len(attempts) < 3 or attempts[-1].error < 0.5 * attempts[-2].error:
        return
    if attempts[-1].diameter < 1.1 * attempts[-2].diameter:
        return  # too short a step to tell
    smallest = min(attempt.error for attempt in attempts)
    raise PhonopyEquivariantError(
        f"Frequencies stay uncertain by {smallest:.1g} THz however fine the grid of q, more than "
        f"the tolerance of {tolerance:g}: this is the rounding of the potential; choose "
        f'dtype="float64", or a tolerance= above {smallest:.1g}.'
    )


def _check_memory(atoms: int, counts: Int[ndarray, "3"], max_memory: int) -> None:
    # Φ(q) of the grid, complex, twice, and force constants with their vectors
    required = math.prod(int(c) for c in counts) * atoms**2 * 9 * 8 * 6
    if required > max_memory:
        raise PhonopyEquivariantError(
            f"Exact mode needs force constants on {'×'.join(map(str, counts))} cells, "
            f"{required / 1e9:.1f} GB, more than {max_memory / 1e9:.1f} GB; raise "
            "tolerance= or, in Python, max_memory=, or use a supercell (exact=False, "
            "pe.set_force_constants)."
        )


def _triple(counts: Int[ndarray, "3"]) -> tuple[int, int, int]:
    first, second, third = (int(c) for c in counts)
    return first, second, third

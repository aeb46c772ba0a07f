"""Whether imaginary modes between the commensurate q of a supercell are real or artefacts.

Between its commensurate q a supercell only interpolates D(q), from force constants that are folded
back into it. Computing D(q) directly at these q shows the error.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from numpy import ndarray
from phonopy import Phonopy

from phonopy_equivariant.frequencies import signed_root
from phonopy_equivariant.phonons.cells import primitive_operations
from phonopy_equivariant.phonons.charges import obeying
from phonopy_equivariant.phonons.nac import NAC_RANGE, PolarResponse
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
from phonopy_equivariant.response.dynamical_matrix import mass_weighted

# Half-way from Γ to the next q of a supercell, in units of its reciprocal vectors. In five crystals
# the largest error there is 0.7 to 2 times the largest at 100 random q, except where a frequency
# crosses zero: square roots exaggerate errors then.
MIDDLES = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]) / 2
# Regions of q whose lowest imaginary mode is computed directly.
MAX_CHECKS = 6
# Largest product of atoms and q that are computed, so that this takes no longer than the force
# constants; one q half-way and two of imaginary modes are computed in any case.
CHECKED_ATOMS = 64


class DirectCheck(NamedTuple):
    """The lowest frequency at one q, interpolated from a supercell and computed directly."""

    qpoint: tuple[float, ...]
    interpolated: float  # THz, negative if imaginary
    exact: float  # THz


class Folding(NamedTuple):
    """What D(q) computed directly says of that of a supercell."""

    checks: tuple[DirectCheck, ...]
    error: float | None  # THz, largest half-way between q of the supercell; None if not computed
    worst: tuple[float, ...]  # the q of that error


def are_commensurate(
    qpoints: Float[ndarray, "q 3"], columns: Int[ndarray, "3 3"]
) -> Bool[ndarray, " q"]:
    """Return which q belong to a supercell, whose vectors are ``columns`` in primitive ones."""
    multiples = qpoints @ columns
    return np.abs(multiples - np.rint(multiples)).max(axis=1) < 1e-6


def lowest_of_regions(
    qpoints: Float[ndarray, "q 3"],
    lowest: Float[ndarray, " q"],
    columns: Int[ndarray, "3 3"],
    atoms: int,
) -> Float[ndarray, "suspects 3"]:
    """Return the q of the lowest imaginary mode of each region, that of Γ first.

    A region is what is next to one q of the supercell.
    """
    order = np.argsort(lowest)[: int((lowest < 0).sum())]
    size = round(abs(np.linalg.det(columns)))
    nearest = np.rint(qpoints[order] @ columns) @ np.linalg.inv(columns)
    region = np.rint(nearest * size).astype(int) % size
    first_of_region = np.sort(np.unique(region, axis=0, return_index=True)[1])
    gamma_first = first_of_region[np.argsort(region[first_of_region].any(axis=1), kind="stable")]
    return qpoints[order[gamma_first[: min(MAX_CHECKS, max(2, CHECKED_ATOMS // atoms))]]]


def between(columns: Int[ndarray, "3 3"], atoms: int) -> Float[ndarray, "between 3"]:
    """Return q half-way between the commensurate q; cells of few atoms get more of them."""
    return MIDDLES[: max(1, CHECKED_ATOMS // atoms)] @ np.linalg.inv(columns)


def compute_directly(
    phonon: Phonopy,
    potential: Potential,
    suspects: Float[ndarray, "suspects 3"],
    columns: Int[ndarray, "3 3"],
    max_memory: int,
) -> Folding:
    """Compare D(q) of the force constants with D(q) computed directly.

    With Born charges the direct one has the whole interaction of dipoles, as in exact mode: see
    :mod:`.nac`. phonopy's correction stays in the other.
    """
    primitive = phonon.primitive
    middles = between(columns, len(primitive))
    points = np.concatenate([middles, suspects])
    symmetry = primitive_operations(phonon, potential.parity)

    def values(qpoints: Float[ndarray, "q 3"]) -> Complex[ndarray, "q columns columns"]:
        return lattice_force_constants(potential, primitive, qpoints, max_memory, symmetry)

    if phonon.nac_params is None:
        direct = mass_weighted(primitive, points, values(points))
    else:
        charges = obeying(phonon.nac_params, "phonon.nac_params", primitive_operations(phonon))
        polar = PolarResponse(phonon, charges, NAC_RANGE, values, potential.parity)
        direct = polar.dynamical_matrices(points, polar.short_range(points))
    matrix: Any = phonon.dynamical_matrix
    checks, errors = [], []
    for q, expected in zip(points, direct, strict=True):
        matrix.run(q)
        matrices = np.stack([matrix.dynamical_matrix, expected])
        squares = np.linalg.eigvalsh(matrices)
        frequencies = signed_root(squares) * phonon.unit_conversion_factor
        checks.append(
            DirectCheck(triple(q), float(frequencies[0].min()), float(frequencies[1].min()))
        )
        errors.append(float(np.abs(frequencies[0] - frequencies[1]).max()))
    worst = int(np.argmax(errors[: len(middles)]))
    return Folding(tuple(checks[len(middles) :]), errors[worst], triple(middles[worst]))


def triple(q: Float[ndarray, "3"]) -> tuple[float, ...]:
    """Return q as plain numbers."""
    return tuple(float(component) for component in q)

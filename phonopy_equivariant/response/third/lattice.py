"""Third derivatives of the energy of a crystal for any list of pairs of q."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray

from phonopy_equivariant.models.irreps import dimension
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.symmetry.operations import Operations
from phonopy_equivariant.response.symmetry.star import equivalent_q, real_q
from phonopy_equivariant.response.third.expansion import ThirdExpansion, expand_to_third_order
from phonopy_equivariant.response.third.rehearsal import begin_third_order_programs
from phonopy_equivariant.response.third.star import conjugated, irreps_of, rotate, stars
from phonopy_equivariant.response.third.sweep import FirstOrder, first_orders
from phonopy_equivariant.response.third.triplet import third_derivatives
from phonopy_equivariant.runtime.blas import one_blas_thread
from phonopy_equivariant.runtime.compilation import x64_mode
from phonopy_equivariant.runtime.notes import note

# Bytes that the operators of one receiver may take for a block of q.
OPERATORS = 2**28


def lattice_third_derivatives(
    potential: Potential,
    primitive: Any,
    pairs: Float[ndarray, "pairs 2 3"],
    track: Callable[[int, int], None] | None = None,
    symmetry: Operations | None = None,
) -> Complex[ndarray, "pairs columns columns columns"]:
    """Return Φ3(q_1, q_2, -q_1 - q_2) in the lattice gauge, (pairs, 3n, 3n, 3n), eV/Å³.

    Φ3_ijk = sum over S, S' of Φ(0i, Sj, S'k) e^{2πi (q_2·S + q_3·S')}, S being integer cell
    vectors of ``primitive`` and q in units of its reciprocal vectors. It is exact at every q; no
    supercell is involved. First orders of all q that occur are kept.

    Parameters
    ----------
    potential, primitive
        A layered potential; an ASE, phonopy or own structure, periodic in three directions.
    pairs
        q_1 and q_2, in units of the reciprocal lattice vectors.
    track
        Called with the number of pairs that are done, and of all.
    symmetry
        Operations that the structure obeys to rounding and the potential keeps: first orders at one
        q of each star are then enough.

    Returns
    -------
    ndarray, shape=(pairs, 3n, 3n, 3n), eV/Å³
        Columns are (atom, axis).

    Raises
    ------
    PhonopyEquivariantError
        Numbers that are not finite.

    """
    with x64_mode(), one_blas_thread():
        values = _third_derivatives(potential, primitive, pairs, track, symmetry)
    return potential.require_finite(values)


def _third_derivatives(
    potential: Potential,
    primitive: Any,
    pairs: Float[ndarray, "pairs 2 3"],
    track: Callable[[int, int], None] | None,
    symmetry: Operations | None,
) -> Complex[ndarray, "pairs columns columns columns"]:
    pairs = np.asarray(pairs, float).reshape(-1, 2, 3)
    begin_third_order_programs(potential)
    crystal = expand_to_third_order(potential, primitive, symmetry)
    columns = 3 * len(crystal.species)
    result = np.empty((len(pairs), columns, columns, columns), complex)
    triplets = np.concatenate([pairs, -pairs.sum(axis=1, keepdims=True)], axis=1)
    different, place, conjugate = _up_to_sign(triplets.reshape(-1, 3))
    place, conjugate = place.reshape(-1, 3), conjugate.reshape(-1, 3)
    kept = _of_stars(crystal, different, symmetry)
    for pair in range(len(pairs)):
        changes = [
            conjugated(kept[q]) if reverse else kept[q]
            for q, reverse in zip(place[pair], conjugate[pair], strict=True)
        ]
        result[pair] = third_derivatives(crystal, changes)
        if track is not None:
            track(pair + 1, len(pairs))
    return result


def _up_to_sign(
    qpoints: Float[ndarray, "q 3"],
) -> tuple[Float[ndarray, "different 3"], ndarray, ndarray]:
    """Return the q that differ by more than sign and reciprocal vectors.

    Also the position of every q among them, and whether it is the negative of that one.
    """
    different = np.empty((0, 3))
    place, conjugate = np.zeros(len(qpoints), int), np.zeros(len(qpoints), bool)
    for k, q in enumerate(qpoints):
        same, opposite = equivalent_q(different, q), equivalent_q(different, -q)
        if not (same | opposite).any():
            different = np.concatenate([different, q[None]])
            place[k] = len(different) - 1
            continue
        place[k] = np.flatnonzero(same | opposite)[0]
        conjugate[k] = not same[place[k]]
    return different, place, conjugate


def _of_stars(
    crystal: ThirdExpansion, qpoints: Float[ndarray, "q 3"], symmetry: Operations | None
) -> list[FirstOrder]:
    """Return the first orders at all q, with symmetry from one q of each star."""
    if symmetry is None or irreps_of(crystal) is None:
        return _kept(crystal, qpoints)
    star = stars(symmetry, qpoints)
    sources = np.unique(star.source)
    computed = dict(zip(sources, _kept(crystal, qpoints[sources]), strict=True))
    result = []
    for q, (source, operation) in enumerate(zip(star.source, star.operation, strict=True)):
        changes = computed[source]
        if q != source:
            changes = rotate(crystal, symmetry, int(operation), qpoints[source], changes)
        result.append(conjugated(changes) if star.conjugate[q] else changes)
    return result


def _kept(crystal: ThirdExpansion, qpoints: Float[ndarray, "q 3"]) -> list[FirstOrder]:
    """Return the first orders at all q, in blocks of real and of complex numbers."""
    kept: list[FirstOrder | None] = [None] * len(qpoints)
    real = real_q(qpoints)
    size = block_size(crystal)
    for group in (np.flatnonzero(real), np.flatnonzero(~real)):
        for start in range(0, len(group), size):
            block = group[start : start + size]
            note(f"first-order changes at {len(qpoints)} q")
            for q, changes in zip(block, first_orders(crystal, qpoints[block]), strict=True):
                kept[q] = changes
    return [changes for changes in kept if changes is not None]


def block_size(crystal: ThirdExpansion) -> int:
    """Return for how many q at once the operators of one receiver fit into memory."""
    largest = max(
        4 * layer.layout.num_components(key) * dimension(key) * width
        for layer in crystal.run.model.layers
        for key, width in layer.layout.inputs.items()
        if key in layer.layout.groups
    )
    return max(1, OPERATORS // (3 * 16 * len(crystal.species) * largest))

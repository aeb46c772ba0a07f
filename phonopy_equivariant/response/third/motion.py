"""The derivative of Φ(q) along a motion of cell and atoms, from third derivatives of the energy.

A motion changes edge vectors by tangents, δr_e = τ_e = dr_e/dη, the same in all cells: it is a
displacement with q = 0 that belongs to no end of an edge. With it as the first of the three
displacements of :mod:`.triplet`, and -q and q as wave vectors of the others,

    dΦ(q)/dη = sum_e C_e[τ, δ2r, δ3r]
       + terms of :mod:`.triplet` in which the motion changes messages or adjoints
       + sum over (p, s), edges:  (μ_i·∂∂K)[τ, δ_p r]·e^{2πi q_s·S} δ_s g_j
                                  + δ_sη_i·mix(∂∂K[τ, δ_p r] g_j)
       + sum over (s, m), edges:  δ_sμ_i·(∂K·τ)·e^{2πi q_m·S} δ_m g_j
       + sum over atoms, as there.

No program depends on the crystal, as for third-order force constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray

from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.prepare import Motion
from phonopy_equivariant.response.symmetry.star import real_q
from phonopy_equivariant.response.third.atoms import third_derivatives_of_atoms
from phonopy_equivariant.response.third.derivatives import POSITION_OF_PAIR
from phonopy_equivariant.response.third.expansion import (
    Moved,
    MovedLayer,
    ThirdExpansion,
    expand_to_third_order,
)
from phonopy_equivariant.response.third.lattice import block_size
from phonopy_equivariant.response.third.phases import plain_sums
from phonopy_equivariant.response.third.rehearsal import begin_third_order_programs
from phonopy_equivariant.response.third.star import conjugated
from phonopy_equivariant.response.third.sweep import FirstOrder, first_orders
from phonopy_equivariant.response.third.triplet import (
    columns_of,
    from_one_displacement,
    from_two_displacements,
)
from phonopy_equivariant.runtime.blas import one_blas_thread
from phonopy_equivariant.runtime.compilation import x64_mode


def motion_derivatives(
    potential: Potential, primitive: Any, motion: Motion, qpoints: Float[ndarray, "q 3"]
) -> Complex[ndarray, "q columns columns"]:
    """Return dΦ(q)/dη in the lattice gauge at fixed fractional q, (n_q, 3n, 3n), eV/Å².

    Parameters
    ----------
    potential, primitive
        A layered potential; an ASE, phonopy or own structure, periodic in three directions.
    motion
        How cell and atoms move with η.
    qpoints
        In units of the reciprocal lattice vectors.

    Raises
    ------
    PhonopyEquivariantError
        Numbers that are not finite.

    """
    qpoints = np.asarray(qpoints, float).reshape(-1, 3)
    with x64_mode(), one_blas_thread():
        begin_third_order_programs(potential)
        crystal = expand_to_third_order(potential, primitive)
        crystal = crystal._replace(moved=_moved(crystal, primitive, motion))
        columns = 3 * len(crystal.species)
        result = np.empty((len(qpoints), columns, columns), complex)
        along = first_orders(crystal, np.zeros((1, 3)), along_motion=True)[0]
        real, size = real_q(qpoints), block_size(crystal)
        for group in (np.flatnonzero(real), np.flatnonzero(~real)):
            for start in range(0, len(group), size):
                block = group[start : start + size]
                for q, changes in zip(block, first_orders(crystal, qpoints[block]), strict=True):
                    result[q] = _derivative(crystal, along, changes)
    return potential.require_finite(result)


def _moved(crystal: ThirdExpansion, primitive: Any, motion: Motion) -> Moved:
    """Return the tangents of all edges, and derivatives of which one is along them."""
    strain, displacements = np.asarray(motion.strain), np.asarray(motion.displacements)
    tangents = crystal.vectors @ strain
    tangents += displacements[crystal.senders] - displacements[crystal.receivers]

    def along(values: ndarray) -> ndarray:
        return np.einsum("ez,ez...->e...", tangents, values)

    layers = [
        MovedLayer(
            along(layer.source),
            along(layer.second_source[:, POSITION_OF_PAIR]),
            along(layer.adjoint),
            along(layer.second_adjoint[:, POSITION_OF_PAIR]),
        )
        for layer in crystal.layers
    ]
    return Moved(tangents, tuple(layers), along(crystal.bond))


def _derivative(
    crystal: ThirdExpansion, along: FirstOrder, changes: FirstOrder
) -> Complex[ndarray, "columns columns"]:
    """Return dΦ/dη at one q from the first orders along the motion and at q."""
    triplet = [along, conjugated(changes), changes]
    result = third_derivatives_of_atoms(crystal, triplet)
    result += from_one_displacement(crystal, triplet, motion=0)
    result += from_two_displacements(crystal, triplet, motion=0)
    # rows belong to -q, columns to q
    return result[0] + _mixed(*triplet[1:]) + _mixed(*triplet[:0:-1]).T + _bond(crystal, changes)


def _mixed(one: FirstOrder, two: FirstOrder) -> ndarray:
    """Return the terms of a derivative of edges along the motion, of two changes one from each.

    Of ``one`` a displaced end or a change of messages, of ``two`` changes of adjoints or messages.
    """
    total = np.zeros((columns_of(one), columns_of(two)), complex)
    for first, second in zip(one.layers, two.layers, strict=True):
        assert first.moved_source is not None and first.moved_adjoint is not None
        displaced = first.moved_source
        if first.right is not None:
            displaced = displaced + first.right[:, 3]
        total += _overlap(displaced, second.slope)
        if second.sent is not None:
            total += _overlap(first.moved_adjoint, second.sent)
    return total


def _overlap(left: ndarray, right: ndarray) -> ndarray:
    """Return sums over atoms and components of (atoms, columns, flat), for pairs of columns."""
    return np.einsum("icf,idf->cd", left, right, optimize=True)


def _bond(crystal: ThirdExpansion, changes: FirstOrder) -> ndarray:
    """Return the terms of two displaced ends and the motion of an edge."""
    moved, bond = crystal.moved, changes.moved_bond
    assert moved is not None and bond is not None
    atoms = len(crystal.species)
    index = np.arange(atoms)
    cross = bond.transpose(0, 2, 1, 3)  # -q at the receiver, q at the sender
    result = -(cross + cross.conj().transpose(2, 3, 0, 1)).astype(complex)
    for ends in (crystal.receivers, crystal.senders):
        result[index, :, index] += plain_sums(crystal, moved.bond, ends)
    return result.reshape(3 * atoms, 3 * atoms)

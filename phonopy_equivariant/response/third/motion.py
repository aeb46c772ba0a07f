"""The derivative of Φ(q) along a motion of cell and atoms, from third derivatives of the energy.

A motion changes edge vectors by tangents, δr_e = τ_e = dr_e/dη, the same in all cells: it is a
displacement with q = 0 that belongs to no end of an edge. With it as the first of the three
displacements of :mod:`.triplet`, and -q and q as wave vectors of the others,

    dΦ(q)/dη = sum_e c_e'[δ2r, δ3r]
       + sum over (p, s), edges:  a_e'[δ_p r]·e^{2πi q_s·S} δ_s g_j + δ_sη_i·b_e'[δ_p r]
                                  + δ_sη_i·mix((∂K·τ) e^{2πi q_p·S} δ_p g_j)
       + sum over atoms as there,
    a_e' = μ_i·∂∂K[τ] + δ_1μ_i·∂K,    b_e' = mix(∂∂K[τ] g_j + ∂K δ_1 g_j),
    c_e' = C_e[τ] + (μ_i·∂∂K) δ_1 g_j + δ_1η_i·mix(∂∂K g_j).

No program depends on the crystal, as for third-order force constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray

from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.lattice import MAX_MEMORY
from phonopy_equivariant.response.bloch.prepare import Motion
from phonopy_equivariant.response.symmetry.star import real_q
from phonopy_equivariant.response.third.atoms import third_derivatives_of_atoms
from phonopy_equivariant.response.third.derivatives import POSITION_OF_PAIR
from phonopy_equivariant.response.third.edges import third_edge_terms, third_geometry
from phonopy_equivariant.response.third.expansion import (
    Moved,
    MovedLayer,
    ThirdExpansion,
    expand_to_third_order,
)
from phonopy_equivariant.response.third.flat import pack, unpack
from phonopy_equivariant.response.third.lattice import block_size
from phonopy_equivariant.response.third.phases import plain_sums
from phonopy_equivariant.response.third.rehearsal import begin_third_order_programs
from phonopy_equivariant.response.third.star import conjugated
from phonopy_equivariant.response.third.sweep import FirstOrder, first_orders
from phonopy_equivariant.runtime.blas import one_blas_thread
from phonopy_equivariant.runtime.compilation import x64_mode


def motion_derivatives(
    potential: Potential,
    primitive: Any,
    motion: Motion,
    qpoints: Float[ndarray, "q 3"],
    max_memory: int = MAX_MEMORY,
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
    max_memory
        Bytes that first-order changes at a block of q may take.

    Raises
    ------
    PhonopyEquivariantError
        Numbers that are not finite.

    """
    qpoints = np.asarray(qpoints, float).reshape(-1, 3)
    with x64_mode(), one_blas_thread():
        begin_third_order_programs(potential)
        crystal = along_motion(expand_to_third_order(potential, primitive), motion)
        along = first_orders(crystal, np.zeros((1, 3)), along_motion=True)[0]
        crystal = _with_changes(crystal, along)
        columns = 3 * len(crystal.species)
        result = np.empty((len(qpoints), columns, columns), complex)
        real = real_q(qpoints)
        size = max(1, min(block_size(crystal), max_memory // _bytes_of_one_q(crystal)))
        for group in (np.flatnonzero(real), np.flatnonzero(~real)):
            for start in range(0, len(group), size):
                block = group[start : start + size]
                for q, changes in zip(block, first_orders(crystal, qpoints[block]), strict=True):
                    result[q] = _derivative(crystal, along, changes)
    return potential.require_finite(result)


def _bytes_of_one_q(crystal: ThirdExpansion) -> int:
    """Return what the changes at one q take, which grows with the square of the atoms."""
    components = sum(
        layer.second_source.shape[-1] + layer.second_adjoint.shape[-1] for layer in crystal.layers
    )
    # of every layer up to six complex numbers for each component, atom and column
    return 6 * 16 * 3 * len(crystal.species) ** 2 * int(components)


def along_motion(crystal: ThirdExpansion, motion: Motion) -> ThirdExpansion:
    """Return the crystal with the tangents of all edges and derivatives along them."""
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
    return crystal._replace(moved=Moved(tangents, tuple(layers), along(crystal.bond)))


def _with_changes(crystal: ThirdExpansion, along: FirstOrder) -> ThirdExpansion:
    """Return the crystal with what changes of messages and adjoints add to its derivatives."""
    assert crystal.moved is not None
    run, layers, bond = crystal.run, list(crystal.moved.layers), crystal.moved.bond
    ends = crystal.species[crystal.receivers], crystal.species[crystal.senders]
    edges = run.edges(third_geometry, run.model, (run.shared,), (crystal.vectors, *ends))
    for t, changes in enumerate(along.layers):
        layer = crystal.layers[t]
        bond = bond + _contracted(layer.second_source, changes.slope[crystal.receivers, 0])
        if changes.sent is None or changes.received is None:
            continue
        bond = bond + _contracted(layer.second_adjoint, changes.sent[crystal.senders, 0])
        sent = unpack(changes.sent[:, 0], layer.messages)
        # as messages and adjoints of the expansion itself
        sent = {key: sent[key][crystal.senders] for key in changes.received}
        received = {key: x[crystal.receivers] for key, x in changes.received.items()}
        items = (edges, *ends, sent, received)
        terms = run.edges(third_edge_terms, run.kinds[t], (run.layers[t],), items)
        moved = layers[t]
        layers[t] = moved._replace(
            second_source=moved.second_source + pack(terms.source, layer.mixed),
            second_adjoint=moved.second_adjoint + pack(terms.adjoint, layer.messages),
        )
    return crystal._replace(moved=crystal.moved._replace(layers=tuple(layers), bond=bond))


def _contracted(pairs: ndarray, changes: ndarray) -> Float[ndarray, "edges 3 3"]:
    """Return products of (edges, 6, flat) and (edges, flat) as matrices."""
    return (pairs @ changes[..., None])[:, POSITION_OF_PAIR, 0]


def _derivative(
    crystal: ThirdExpansion, along: FirstOrder, changes: FirstOrder
) -> Complex[ndarray, "columns columns"]:
    """Return dΦ/dη at one q from the first orders along the motion and at q."""
    opposite = conjugated(changes)
    # rows belong to -q, columns to q
    result = third_derivatives_of_atoms(crystal, [along, opposite, changes])[0]
    mixed = _mixed(opposite, changes)
    return result + mixed + mixed.conj().T + _bond(crystal, changes)


def _mixed(one: FirstOrder, two: FirstOrder) -> ndarray:
    """Return the terms of a derivative of edges along the motion, of two changes one from each.

    Of ``one`` a displaced end or a change of messages, of ``two`` changes of adjoints or messages.
    """
    total: ndarray = np.zeros((3 * len(one.layers[0].mixed),) * 2)
    for first, second in zip(one.layers, two.layers, strict=True):
        assert first.moved_source is not None and first.moved_adjoint is not None
        displaced = first.moved_source
        if first.right is not None:
            displaced = displaced + first.right[:, 0]
        total = total + _overlap(displaced, second.slope)
        if second.sent is not None:
            total = total + _overlap(first.moved_adjoint, second.sent)
    return total


def _overlap(left: ndarray, right: ndarray) -> ndarray:
    """Return sums over atoms and components of (atoms, columns, flat), for pairs of columns."""
    columns = left.shape[1]
    rows, others = (x.swapaxes(0, 1).reshape(columns, -1) for x in (left, right))
    return np.asarray(rows @ others.T)


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

"""Third derivatives of the energy at three wave vectors whose sum is a reciprocal lattice vector.

Displacements u_1, u_2, u_3 with wave vectors q_1, q_2, q_3 change an edge vector by
δ_p r_e = e^{2πi q_p·S} u_j - u_i. By the 2n+1 theorem the third derivative follows from
first-order changes of features and of adjoints (:mod:`.sweep`):

    Φ3 = sum_e C_e[δ1r, δ2r, δ3r]                       C = sum over layers of μ ∂∂∂K g, + V'''
       + sum over s, edges:  (μ_i·∂∂K)[δr, δr]·e^{2πi q_s·S} δ_s g_j + δ_sη_i·mix(∂∂K[δr, δr] g_j)
       + sum over d, m, s, edges:  δ_sμ_i·(∂K·δ_d r_e)·e^{2πi q_m·S} δ_m g_j
       + sum over atoms:  φ'''[δ1y, δ2y, δ3y] + sum over s of δ_sν·activate''[δy, δy]

Nothing is conjugated but where -q appears. Displacements stand on the receiver i, where an edge
has the phase one, or on the sender j, where the three phases together are one: so every product
is one of tables at a single q.

X. Gonze, Phys. Rev. A 52, 1096 (1995).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Complex
from numpy import ndarray

from phonopy_equivariant.response.bloch.arrays import Features
from phonopy_equivariant.response.third.derivatives import POSITION_OF_PAIR
from phonopy_equivariant.response.third.expansion import ThirdExpansion, ThirdLayer
from phonopy_equivariant.response.third.flat import Shapes, pack, unpack
from phonopy_equivariant.response.third.nodes import second_change
from phonopy_equivariant.response.third.sweep import FirstOrder

_CYCLES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
_ORDERS = tuple(itertools.permutations(range(3)))


def third_derivatives(
    crystal: ThirdExpansion, changes: Sequence[FirstOrder]
) -> Complex[ndarray, "columns columns columns"]:
    """Return Φ3 in the lattice gauge from the first orders at three q (eV/Å³).

    To be called in 64-bit mode. The sum of the three q must be a reciprocal lattice vector. Columns are (atom, axis).
    """
    result = _from_nodes(crystal, changes)
    result += _from_one_displacement(crystal, changes)
    result += _from_two_displacements(crystal, changes)
    result += _from_three_displacements(crystal, changes)
    return result


def _ordered(values: ndarray, order: Sequence[int]) -> ndarray:
    """Return values whose axes are the displacements ``order``, with axes 0, 1, 2."""
    return values.transpose(np.argsort(order))


def _from_one_displacement(crystal: ThirdExpansion, changes: Sequence[FirstOrder]) -> ndarray:
    """Return the terms of one displaced end, one change of messages and one of adjoints."""
    columns = 3 * len(crystal.species)
    result = np.zeros((columns,) * 3, complex)
    for displaced, sent, adjoint in _ORDERS:
        total = 0.0
        for one, two in zip(changes[sent].layers[1:], changes[adjoint].layers[1:], strict=True):
            total = total + two.left @ one.sent.swapaxes(1, 2)[:, None]  # (j, 3, adjoint, sent)
            total = total - (one.right @ two.slope.swapaxes(1, 2)[:, None]).swapaxes(2, 3)
        if len(crystal.layers) > 1:
            result += _ordered(total.reshape((columns,) * 3), (displaced, adjoint, sent))
    return result


def _from_two_displacements(crystal: ThirdExpansion, changes: Sequence[FirstOrder]) -> ndarray:
    """Return the terms of two displaced ends and one change of messages or adjoints."""
    atoms = len(crystal.species)
    result = np.zeros((3 * atoms,) * 3, complex)
    index = np.arange(atoms)
    for here, there, other in _ORDERS:  # displaced at the receiver and at the sender
        total = 0.0
        for one, two, three in zip(
            changes[there].layers, changes[other].layers, changes[here].layers, strict=True
        ):
            # (i, j, 6, columns)
            total = total - one.second_source @ two.slope.swapaxes(1, 2)[:, None]
            if three.second_adjoint is not None:
                total = total - three.second_adjoint.conj() @ two.sent.swapaxes(1, 2)[None]
        total = total[:, :, POSITION_OF_PAIR].transpose(0, 2, 1, 3, 4)  # (i, z, j, w, columns)
        if here < there:
            total[index, :, index] += changes[other].same
        result += _ordered(total.reshape((3 * atoms,) * 3), (here, there, other))
    return result


def _from_three_displacements(crystal: ThirdExpansion, changes: Sequence[FirstOrder]) -> ndarray:
    """Return the terms of three displaced ends of an edge."""
    atoms = len(crystal.species)
    flat = crystal.bond.reshape(-1, 27)
    plain = np.zeros((atoms, 27))
    np.add.at(plain, crystal.senders, flat)
    np.subtract.at(plain, crystal.receivers, flat)
    index = np.arange(atoms)
    result = np.zeros((atoms, 3, atoms, 3, atoms, 3), complex)
    result[index, :, index, :, index, :] += plain.reshape(-1, 3, 3, 3)
    result = result.reshape((3 * atoms,) * 3)
    for one, two, three in _CYCLES:
        part = np.zeros((atoms, 3, atoms, 3, atoms, 3), complex)
        # one and two at the receiver, three at the sender
        part[index, :, index] += changes[three].bond.transpose(0, 2, 3, 1, 4)
        result += _ordered(part.reshape((3 * atoms,) * 3), (one, two, three))
        part = np.zeros((atoms, 3, atoms, 3, atoms, 3), complex)
        # one at the receiver, two and three at the sender
        blocks = changes[one].bond.conj().transpose(1, 3, 4, 0, 2)  # (j, w, v, i, z)
        part[index, :, index] -= blocks
        result += _ordered(part.reshape((3 * atoms,) * 3), (two, three, one))
    return result


def _from_nodes(crystal: ThirdExpansion, changes: Sequence[FirstOrder]) -> ndarray:
    """Return the terms of the atoms."""
    atoms = len(crystal.species)
    # products of real columns are the fewest: the pair of displacements with more real parts
    real = [not np.iscomplexobj(x.same) for x in changes]
    first, second, third = max(_CYCLES, key=lambda x: real[x[0]] + real[x[1]])
    result = np.zeros((3 * atoms,) * 3, complex)
    for t, layer in enumerate(crystal.layers):
        one, two, three = (changes[p].layers[t] for p in (first, second, third))
        for i in range(atoms):
            pairs = [
                (x.mixed[i], None if x.later is None else x.later[i]) for x in (one, two)
            ]
            slope, updated = _second_changes(crystal, t, layer, i, pairs)
            part = slope @ three.mixed[i].T
            if updated is not None and three.later is not None:
                part += updated @ three.later[i].T
            result += _ordered(part.reshape((3 * atoms,) * 3), (first, second, third))
    return result


def _second_changes(
    crystal: ThirdExpansion,
    t: int,
    layer: ThirdLayer,
    i: int,
    pairs: list[tuple[ndarray, ndarray | None]],
) -> tuple[ndarray, ndarray | None]:
    """Return the second-order changes of η and h' for all pairs of columns, (columns², ...)."""
    run = crystal.run
    parts = [_real_parts(*x) for x in pairs]
    left, right = ([y for y, _ in x] for x in parts)
    later = parts[0][0][1] is not None
    columns = len(left[0])
    # every part of the first with every part of the second, column by column
    combinations = list(itertools.product(range(len(left)), range(len(right))))

    def rows(side: int, shapes: Shapes, place: int) -> Features:
        stacked = []
        for combination in combinations:
            values = parts[side][combination[side]][place]
            assert values is not None
            repeated = np.repeat(values, columns, 0) if side == 0 else np.tile(values, (columns, 1))
            stacked.append(repeated)
        return unpack(np.concatenate(stacked), shapes)

    items = tuple(
        (rows(side, layer.mixed, 0), rows(side, layer.updated, 1) if later else {})
        for side in range(2)
    )
    point = {name: {k: x[i : i + 1] for k, x in value.items()}
             for name, value in layer.point._asdict().items()}
    shared = (*run.of_layer(t)[:1], type(layer.point)(**point), crystal.species[i : i + 1])
    slope, updated = run.changes(second_change, run.kinds[t], shared, (items,))

    def combined(features: Features, shapes: Shapes) -> ndarray:
        flat = pack(features, shapes).reshape(len(combinations), columns**2, -1)
        total = 0.0
        for factor, value in zip(combinations, flat, strict=True):
            total = total + 1j ** sum(factor) * value if any(factor) else total + value
        return total

    return combined(slope, layer.mixed), combined(updated, layer.updated) if updated else None


def _real_parts(mixed: ndarray, later: ndarray | None) -> list[tuple[ndarray, ndarray | None]]:
    """Return real and imaginary parts of a change; the real part alone where it is real."""
    if not np.iscomplexobj(mixed):
        return [(mixed, later)]
    if later is None:
        return [(mixed.real, None), (mixed.imag, None)]
    return [(mixed.real, later.real), (mixed.imag, later.imag)]

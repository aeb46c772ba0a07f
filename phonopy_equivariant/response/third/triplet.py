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

from phonopy_equivariant.response.third.atoms import third_derivatives_of_atoms
from phonopy_equivariant.response.third.derivatives import POSITION_OF_PAIR
from phonopy_equivariant.response.third.expansion import ThirdExpansion
from phonopy_equivariant.response.third.sweep import FirstOrder

_CYCLES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
_ORDERS = tuple(itertools.permutations(range(3)))


def third_derivatives(
    crystal: ThirdExpansion, changes: Sequence[FirstOrder]
) -> Complex[ndarray, "columns columns columns"]:
    """Return Φ3 in the lattice gauge from the first orders at three q (eV/Å³).

    To be called in 64-bit mode. The sum of the three q must be a reciprocal lattice vector.
    Columns are (atom, axis).
    """
    result = third_derivatives_of_atoms(crystal, changes)
    result += _from_one_displacement(crystal, changes)
    result += _from_two_displacements(crystal, changes)
    result += _from_three_displacements(crystal, changes)
    return result


def _ordered(values: ndarray, order: Sequence[int]) -> ndarray:
    """Return values whose axes are the displacements ``order``, with axes 0, 1, 2."""
    return values.transpose(np.argsort(order))


def _of_atoms(table: ndarray, change: ndarray) -> ndarray:
    """Return products of (atoms, .., rows, flat) and (atoms, columns, flat) at every atom."""
    atoms, columns, size = change.shape
    product = table.reshape(atoms, -1, size) @ change.swapaxes(1, 2)
    return product.reshape(*table.shape[:-1], columns)


def _from_one_displacement(crystal: ThirdExpansion, changes: Sequence[FirstOrder]) -> ndarray:
    """Return the terms of one displaced end, one change of messages and one of adjoints."""
    atoms = len(crystal.species)
    result = np.zeros((3 * atoms,) * 3, complex)
    for displaced, sent, adjoint in _ORDERS:
        total = np.zeros((atoms, 3, 3 * atoms, 3 * atoms), complex)  # (.., adjoint, sent)
        for one, two in zip(changes[sent].layers, changes[adjoint].layers, strict=True):
            if one.sent is None or one.right is None or two.left is None:
                continue
            total += _of_atoms(two.left, one.sent)
            total -= _of_atoms(one.right, two.slope).swapaxes(2, 3)
        result += _ordered(total.reshape(result.shape), (displaced, adjoint, sent))
    return result


def _from_two_displacements(crystal: ThirdExpansion, changes: Sequence[FirstOrder]) -> ndarray:
    """Return the terms of two displaced ends and one change of messages or adjoints."""
    atoms = len(crystal.species)
    result = np.zeros((3 * atoms,) * 3, complex)
    index = np.arange(atoms)
    for here, there, other in _ORDERS:  # displaced at the receiver and at the sender
        sums = np.zeros((atoms, atoms, 6, 3 * atoms), complex)
        for one, two, three in zip(
            changes[there].layers, changes[other].layers, changes[here].layers, strict=True
        ):
            assert one.second_source is not None
            sums -= _of_atoms(one.second_source, two.slope)
            if three.second_adjoint is not None and two.sent is not None:
                sums -= (three.second_adjoint @ two.sent.conj().swapaxes(1, 2)[None]).conj()
        total = sums[:, :, POSITION_OF_PAIR].transpose(0, 2, 1, 3, 4)  # (i, z, j, w, columns)
        same = changes[other].same
        if here < there and same is not None:
            total[index, :, index] += same
        result += _ordered(total.reshape(result.shape), (here, there, other))
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
        near, far = changes[three].bond, changes[one].bond
        assert near is not None and far is not None
        part = np.zeros((atoms, 3, atoms, 3, atoms, 3), complex)
        # one and two at the receiver, three at the sender
        part[index, :, index] += near.transpose(0, 2, 3, 1, 4)
        result += _ordered(part.reshape((3 * atoms,) * 3), (one, two, three))
        part = np.zeros((atoms, 3, atoms, 3, atoms, 3), complex)
        # one at the receiver, two and three at the sender
        blocks = far.conj().transpose(1, 3, 4, 0, 2)  # (j, w, v, i, z)
        part[index, :, index] -= blocks
        result += _ordered(part.reshape((3 * atoms,) * 3), (two, three, one))
    return result

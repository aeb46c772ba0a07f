"""First orders at one q of every star, rotated to the others.

An operation {R|τ} that takes atom j to x_j' + T_j takes a lattice displacement at q to one at
q' = R^{-T} q. Every quantity here belongs to an atom i, or to i and a displaced atom j, and has
axes of vectors and of irreps (D of R):

    X_{i'j'}(q') = e^{2πi q'·(T_j - T_i)} (R ⊗ .. ⊗ D) X_ij(q),    X(-q) = X(q)^*.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from phonopy_equivariant.response.symmetry.little_group import rotations_of_irreps
from phonopy_equivariant.response.symmetry.operations import Operations
from phonopy_equivariant.response.symmetry.star import equivalent_q, real_q
from phonopy_equivariant.response.third.derivatives import on_pairs_of_axes
from phonopy_equivariant.response.third.expansion import ThirdExpansion, ThirdLayer
from phonopy_equivariant.response.third.flat import Shapes, irrep_name, known_irreps
from phonopy_equivariant.response.third.gates import gate_changes
from phonopy_equivariant.response.third.sweep import FirstOrder, LayerChanges


class Star(NamedTuple):
    """How every q of a list follows from one of them."""

    source: Int[ndarray, " q"]  # its position in the list
    operation: Int[ndarray, " q"]
    conjugate: ndarray  # (q,) bool: time reversal after the operation


class _Turn(NamedTuple):
    """An operation at one q."""

    before: Int[ndarray, " atoms"]  # j of j'
    rotation: Float[ndarray, "3 3"]
    pairs: Float[ndarray, "6 6"]  # R ⊗ R on symmetric pairs of axes
    irreps: dict[str, Float[ndarray, "m m"]]
    phase: ndarray  # of i', j'; real where all else is


def stars(symmetry: Operations, qpoints: Float[ndarray, "q 3"]) -> Star:
    """Return the stars of q: the first of each is the source of all."""
    count = len(qpoints)
    source, operation = np.full(count, -1), np.zeros(count, int)
    conjugate = np.zeros(count, bool)
    inverse_transposed = np.linalg.inv(symmetry.rotations).transpose(0, 2, 1)
    identity = int(np.argmin(np.abs(symmetry.rotations - np.eye(3, dtype=int)).sum(axis=(1, 2))))
    for q in range(count):
        if source[q] >= 0:
            continue
        images = inverse_transposed @ qpoints[q]
        for flip in (False, True):
            reached = equivalent_q(-images[:, None] if flip else images[:, None], qpoints)
            fresh = (source < 0) & reached.any(axis=0)
            source[fresh], conjugate[fresh] = q, flip
            operation[fresh] = reached.argmax(axis=0)[fresh]
        operation[q], conjugate[q] = identity, False
    return Star(source, operation, conjugate)


def irreps_of(crystal: ThirdExpansion) -> list[str] | None:
    """Return all irreps of a model's features; None if a feature does not say which it is."""
    shapes = [y for x in crystal.layers for y in (x.mixed, x.messages, x.updated)]
    return known_irreps(shapes)


def rotate(
    crystal: ThirdExpansion,
    symmetry: Operations,
    operation: int,
    q: Float[ndarray, "3"],
    changes: FirstOrder,
) -> FirstOrder:
    """Return the first orders at R^{-T} q from those at q."""
    turn = _turn(crystal, symmetry, operation, q)
    layers = [
        _turned_layer(turn, layer, values)
        for layer, values in zip(crystal.layers, changes.layers, strict=True)
    ]
    rotation, before = turn.rotation, turn.before
    atoms = len(before)
    assert changes.same is not None and changes.bond is not None
    same = changes.same.reshape(atoms, 3, 3, atoms, 3)[before][:, :, :, before]
    same = np.einsum("xz,yw,cd,izwjd->ixyjc", rotation, rotation, rotation, same, optimize=True)
    same = same * turn.phase[:, None, None, :, None]
    bond = changes.bond[before][:, before]
    bond = np.einsum("xz,yw,cd,ijzwd->ijxyc", rotation, rotation, rotation, bond, optimize=True)
    bond = bond * turn.phase[:, :, None, None, None]
    return FirstOrder(tuple(layers), same.reshape(changes.same.shape), bond)


def conjugated(changes: FirstOrder) -> FirstOrder:
    """Return the first orders at -q."""
    return jax.tree.map(np.conj, changes)


def _turn(
    crystal: ThirdExpansion, symmetry: Operations, operation: int, q: Float[ndarray, "3"]
) -> _Turn:
    rotation = symmetry.cartesian[operation]
    before = np.argsort(symmetry.image[operation])
    moved = np.linalg.inv(symmetry.rotations[operation]).T @ q
    angle = 2 * np.pi * (symmetry.translation[operation][before] @ moved)
    phase = np.exp(1j * (angle - angle[:, None]))
    irreps = rotations_of_irreps(rotation[None], irreps_of(crystal) or [])
    return _Turn(
        before,
        rotation,
        on_pairs_of_axes(rotation),
        {name: matrix[0] for name, matrix in irreps.items()},
        phase.real if real_q(q) else phase,
    )


def _turned_layer(turn: _Turn, layer: ThirdLayer, values: LayerChanges) -> LayerChanges:
    def rows(array: ndarray | None, shapes: Shapes, vector: bool = False) -> ndarray | None:
        """Turn (atoms, columns, flat), or (atoms, 3, columns, flat)."""
        if array is None:
            return None
        atoms, size = len(turn.before), array.shape[-1]
        columns = array.reshape(atoms, -1, atoms, 3, size)[turn.before][:, :, turn.before]
        columns = turn.rotation @ _turned_irreps(turn, columns, shapes)
        if vector:
            columns = (turn.rotation @ columns.reshape(atoms, 3, -1)).reshape(columns.shape)
        columns *= turn.phase[:, None, :, None, None]
        return columns.reshape(array.shape)

    def pairs(array: ndarray | None, shapes: Shapes) -> ndarray | None:
        """Turn (i, j, 6, flat)."""
        if array is None:
            return None
        moved = _turned_irreps(turn, array[turn.before][:, turn.before], shapes)
        return turn.pairs @ moved * turn.phase[:, :, None, None]

    mixed, later = rows(values.mixed, layer.mixed), rows(values.later, layer.updated)
    slope, second_source = rows(values.slope, layer.mixed), pairs(values.second_source, layer.mixed)
    assert mixed is not None and slope is not None and second_source is not None
    return LayerChanges(
        mixed,
        slope,
        second_source,
        later,
        rows(values.sent, layer.messages),
        rows(values.right, layer.mixed, vector=True),
        rows(values.left, layer.messages, vector=True),
        pairs(values.second_adjoint, layer.messages),
        None if layer.gates is None else gate_changes(layer.gates, mixed, later),
    )


def _turned_irreps(turn: _Turn, values: ndarray, shapes: Shapes) -> ndarray:
    """Return features with every irrep turned, (..., flat)."""
    result, start = np.empty(values.shape, values.dtype), 0
    for key, (m, u) in shapes.items():
        part = slice(start, start + m * u)
        shape = (*values.shape[:-1], m, u)
        # real numbers act on real and imaginary parts alike
        one, two = (x[..., part].view(result.real.dtype) for x in (values, result))
        one, two = (x.reshape(*shape[:-1], -1) for x in (one, two))
        np.matmul(turn.irreps[irrep_name(key)], one, out=two)
        start += m * u
    return result

"""What the nonlinear functions of the atoms add to third derivatives of the energy.

At every atom and layer, for displacements 1, 2 and 3,

    φ'''[δ1y, δ2y, δ3y] + sum over three choices of s of δ_sν·activate''[δy, δy].

For every pair of columns of two displacements a program gives the second-order changes of η and
h' (:mod:`.nodes`); with the third displacement follow matrix products.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Complex
from numpy import ndarray

from phonopy_equivariant.response.bloch.arrays import Features
from phonopy_equivariant.response.third.expansion import ThirdExpansion
from phonopy_equivariant.response.third.flat import Shapes, pack, unpack
from phonopy_equivariant.response.third.gates import third_derivatives_of_gates
from phonopy_equivariant.response.third.nodes import second_change
from phonopy_equivariant.response.third.sweep import FirstOrder

# Bytes that the changes along pairs of columns may take.
PAIRS = 2**26

# δy and δν of one atom, (columns, ...); no δν in the last layer
AtomChange = tuple[ndarray, ndarray | None]

_CYCLES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))


def third_derivatives_of_atoms(
    crystal: ThirdExpansion, changes: Sequence[FirstOrder]
) -> Complex[ndarray, "one two three"]:
    """Return the terms of all atoms from the first orders at three q (eV/Å³)."""
    # real numbers have the fewest products: two displacements as real as possible are paired
    real = [not np.iscomplexobj(x.layers[0].mixed) for x in changes]
    order = max(_CYCLES, key=lambda x: real[x[0]] + real[x[1]])
    sizes = [changes[p].layers[0].mixed.shape[1] for p in order]
    total = np.zeros(sizes, complex)
    generic = [t for t, layer in enumerate(crystal.layers) if layer.gates is None]
    for t, i in itertools.product(generic, range(len(crystal.species))):
        layers = [changes[p].layers[t] for p in order]
        one, two, three = ((x.mixed[i], None if x.later is None else x.later[i]) for x in layers)
        width = sum(len(x[0]) for x in (one[0].T, two[0].T))
        block = max(1, PAIRS // (8 * 16 * sizes[1] * width))
        for start in range(0, sizes[0], block):
            rows = slice(start, start + block)
            part = one[0][rows], None if one[1] is None else one[1][rows]
            slope, updated = _second_changes(crystal, t, i, (part, two))
            values = slope @ three[0].T
            if updated is not None and three[1] is not None:
                values = values + updated @ three[1].T
            total[rows] += values.reshape(-1, *sizes[1:])
    total = total.transpose(np.argsort(order))
    for t, layer in enumerate(crystal.layers):
        gates = [x.layers[t].gates for x in changes]
        if layer.gates is not None:
            total += third_derivatives_of_gates(layer.gates, [x for x in gates if x is not None])
    return total


def _second_changes(
    crystal: ThirdExpansion, t: int, i: int, pair: tuple[AtomChange, AtomChange]
) -> tuple[ndarray, ndarray | None]:
    """Return the second-order changes of η and h' for all pairs of columns, one after another."""
    run, layer = crystal.run, crystal.layers[t]
    first, second = (_real_parts(x) for x in pair)
    # every part of the first with every part of the second
    parts = list(itertools.product(range(len(first)), range(len(second))))
    rows, columns = len(pair[0][0]), len(pair[1][0])
    # row by row of the first, column by column of the second
    left = _features([first[k] for k, _ in parts], layer.mixed, layer.updated)
    right = _features([second[k] for _, k in parts], layer.mixed, layer.updated)
    left = jax.tree.map(lambda x: np.repeat(x, columns, axis=1), left)
    right = jax.tree.map(lambda x: np.tile(x, (1, rows, 1, 1)), right)
    items = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (left, right))
    point = jax.tree.map(lambda x: x[i : i + 1], layer.point)
    shared = (run.layers[t], point, crystal.species[i : i + 1])
    slope, updated = run.changes(second_change, run.kinds[t], shared, (items,))
    factors = np.array([1j ** ((k > 0) + (m > 0)) for k, m in parts])
    return (
        _combined(slope, layer.mixed, factors),
        _combined(updated, layer.updated, factors) if updated else None,
    )


def _features(parts: list[AtomChange], mixed: Shapes, updated: Shapes) -> tuple[Features, Features]:
    """Return changes of some parts as features, (parts, columns, ...)."""
    later = [x for _, x in parts if x is not None]
    return (
        unpack(np.stack([x for x, _ in parts]), mixed),
        unpack(np.stack(later), updated) if later else {},
    )


def _combined(features: Features, shapes: Shapes, factors: ndarray) -> ndarray:
    """Return complex numbers from products of real and imaginary parts."""
    flat = pack(features, shapes)
    flat = flat.reshape(len(factors), -1, flat.shape[-1])
    if len(factors) == 1:
        return flat[0]
    result = np.zeros(flat.shape[1:], complex)
    for factor, value in zip(factors, flat, strict=True):
        if factor.imag:
            result.imag += value
        elif factor.real > 0:
            result.real += value
        else:
            result.real -= value
    return result


def _real_parts(change: AtomChange) -> list[AtomChange]:
    """Return real and imaginary parts of a change; the real part alone where it is real."""
    mixed, later = change
    if not np.iscomplexobj(mixed):
        return [change]
    if later is None:
        return [(mixed.real, None), (mixed.imag, None)]
    return [(mixed.real, later.real), (mixed.imag, later.imag)]

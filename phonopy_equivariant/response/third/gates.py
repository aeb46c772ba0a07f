"""Third derivatives of gated features at the atoms, without a program: channel by channel.

A layer ν·gate(norm(y)), ν being a constant covector, is a sum over channels of functions of few
numbers. With z = norm(y) and a gate σ(g) v, the terms of three changes (z, ν)_p are, for one gate
and the components m of what it multiplies,

    S σ''' g1 g2 g3 + σ'' sum_s ω_s g g + σ' sum_s (P of the two others) g_s,
    S = sum ν v,  ω_p = sum (ν z_p + ν_p v),  P_pq = sum (ν_p z_q + z_p ν_q),

and those of a scalar the first two with S = ν, ω_p = ν_p. All else comes from the norm, whose
second- and third-order changes are few vectors times scalars,

    z = W s y,  s = (y·M y + ε)^{-1/2},  z_pq = W (s_q y_p + s_p y_q + s_pq y),

so that it adds products of columns with matrices of pairs of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.models.activation import second_moment
from phonopy_equivariant.models.irreps import dimension
from phonopy_equivariant.models.layered import Gated, Params
from phonopy_equivariant.response.third.flat import Shapes

# Bytes that one array of pairs of columns may take.
PAIRS = 2**26


class _Gated(NamedTuple):
    """Where components that a gate multiplies lie in y and h', and its position among the gates."""

    mixed: slice
    updated: slice
    components: int
    gates: slice


class GateExpansion(NamedTuple):
    """A layer's gates at all atoms; channels are the scalars, then the gates.

    ``orders`` are φ and its derivatives along each channel, ``slopes`` the derivatives of the
    nonlinearities that changes of ν meet.
    """

    channels: ndarray  # positions in y
    scalars: ndarray  # positions in h'
    gated: tuple[_Gated, ...]
    orders: Float[ndarray, "4 atoms channels"]
    slopes: Float[ndarray, "4 atoms channels"]
    weight: Float[ndarray, " y"]  # W
    metric: Float[ndarray, " y"] | None  # M; None without a norm
    mixed: Float[ndarray, "atoms y"]
    inverse: Float[ndarray, " atoms"]  # s
    normed: Float[ndarray, "atoms y"]  # z
    later: Float[ndarray, "atoms h"]  # ν


class NormChanges(NamedTuple):
    """Changes of a norm along the columns of one displacement."""

    overlap: ndarray  # y·M y_p (atoms, columns)
    scalar: ndarray  # s_p (atoms, columns)
    mixed: ndarray  # y_p (atoms, columns, y)
    slope: ndarray  # change of W ∂φ/∂z (atoms, columns, y)
    level: ndarray  # what a change of s is multiplied with (atoms, columns)


class GateChanges(NamedTuple):
    """Changes along the columns of one displacement, channels before columns."""

    value: ndarray  # (atoms, channels, columns)
    weight: ndarray  # ω (atoms, channels, columns)
    gated: tuple[ndarray, ...]  # ν_p, then z_p (atoms, u, columns, 2m)
    norm: NormChanges | None


def expand_gates(
    gated: Gated,
    params: Params,
    shapes: tuple[Shapes, Shapes],
    mixed: Float[ndarray, "atoms y"],
    later: Float[ndarray, "atoms h"],
) -> GateExpansion:
    """Expand ν·gate(norm(y)) at every atom; ``shapes`` are those of y and of h'."""
    start, ends = _starts(shapes[0]), _starts(shapes[1])
    width = gated.outputs["0e"]
    positions = [start["0e"] + np.arange(width)]
    scalars = [ends["0e"] + np.arange(width)]
    if "0o" in gated.outputs:
        odd = np.arange(gated.outputs["0o"])
        positions.append(start["0o"] + odd)
        scalars.append(ends["0o"] + odd)
    even, blocks, first = width, [], 0
    for key, u in gated.outputs.items():
        m = dimension(key)
        if m > 1:
            y, h = (slice(x[key], x[key] + m * u) for x in (start, ends))
            blocks.append(_Gated(y, h, m, slice(first, first + u)))
            first += u
    positions.append(start["0e"] + width + np.arange(first))
    channels = np.concatenate(positions)
    size, count = len(channels), len(np.concatenate(scalars))
    normed, inverse, weight, metric = _norm(gated, params, shapes[0], mixed)
    slopes = np.empty((4, len(mixed), size), mixed.dtype)
    argument = normed[:, channels]
    is_odd = (np.arange(size) >= even) & (np.arange(size) < count)
    slopes[:, :, ~is_odd] = _silu(argument[:, ~is_odd])
    slopes[:, :, is_odd] = _tanh(argument[:, is_odd])
    factors = np.concatenate(
        [
            later[:, np.concatenate(scalars)],
            *[_sum(later[:, x.updated], normed[:, x.mixed], x.components) for x in blocks],
        ],
        axis=1,
    )
    return GateExpansion(
        channels,
        np.concatenate(scalars),
        tuple(blocks),
        factors * slopes,
        slopes,
        weight,
        metric,
        mixed,
        inverse,
        normed,
        later,
    )


def gate_changes(gates: GateExpansion, mixed: ndarray, later: ndarray | None) -> GateChanges:
    """Return the changes along columns, from δy and δν (..., atoms, columns, flat)."""
    if later is None:
        later = np.zeros((*mixed.shape[:-1], gates.later.shape[-1]), mixed.dtype)
    value, overlap, scalar = mixed, None, None
    if gates.metric is not None:
        overlap = (mixed @ (gates.metric * gates.mixed)[..., None])[..., 0]
        scalar = -overlap * gates.inverse[:, None] ** 3
        value = mixed * gates.inverse[:, None, None] + scalar[..., None] * gates.mixed[:, None]
        value *= gates.weight
    by_channel, scalars = value[..., gates.channels], len(gates.scalars)
    omega = np.zeros_like(by_channel)
    omega[..., :scalars] = later[..., gates.scalars]
    pairs = []
    for block in gates.gated:
        z, nu = value[..., block.mixed], later[..., block.updated]
        m = block.components
        omega[..., _shifted(block.gates, scalars)] = _sum(
            gates.later[:, None, block.updated], z, m
        ) + _sum(nu, gates.normed[:, None, block.mixed], m)
        both = np.concatenate([nu, z], axis=-1).reshape(*z.shape[:-1], 2 * m, -1)
        pairs.append(np.ascontiguousarray(np.moveaxis(both, -1, -3)))
    norm = None
    if overlap is not None and scalar is not None:
        slope = _slope(gates, value, by_channel, omega, later)
        slope *= gates.weight
        level = (slope @ gates.mixed[..., None])[..., 0]
        level += (mixed @ (gates.weight * _gradient(gates))[..., None])[..., 0]
        norm = NormChanges(overlap, scalar, mixed, slope, level)
    return GateChanges(
        np.ascontiguousarray(by_channel.swapaxes(-1, -2)),
        np.ascontiguousarray(omega.swapaxes(-1, -2)),
        tuple(pairs),
        norm,
    )


def third_derivatives_of_gates(gates: GateExpansion, changes: Sequence[GateChanges]) -> ndarray:
    """Return the terms of all atoms for three displacements, each with its columns."""
    channels, sizes = changes[0].value.shape[1], [x.value.shape[2] for x in changes]
    total: ndarray = np.zeros(sizes)
    block = max(1, PAIRS // (16 * channels * sizes[0] * max(sizes[1:])))
    for start in range(0, len(gates.mixed), block):
        atoms = slice(start, start + block)
        total = total + _of_atoms(gates, changes, atoms)
    norms = [x.norm for x in changes if x.norm is not None]
    return total + _of_norms(gates, norms) if norms else total


def _of_atoms(gates: GateExpansion, changes: Sequence[GateChanges], atoms: slice) -> ndarray:
    """Return the terms of the gates of some atoms."""
    slope, bend, third = (
        gates.slopes[1, atoms, :, None, None],
        gates.slopes[2, atoms, :, None, None],
        gates.orders[3, atoms, :, None, None],
    )
    values, weights = ([getattr(x, n)[atoms] for x in changes] for n in ("value", "weight"))
    one = bend * _outer(values[0], values[1])
    two = bend * (_outer(weights[0], values[1]) + _outer(values[0], weights[1]))
    two += third * _outer(values[0], values[1])
    scalars, slope = len(gates.scalars), slope[:, len(gates.scalars) :]
    total = _contracted(one, weights[2])
    if not gates.gated:
        return np.asarray(total + _contracted(two, values[2]))
    pair = slope * _pairs(changes[0], changes[1], atoms)
    two[:, scalars:] += pair
    total = total + _contracted(two, values[2])
    pair = slope * _pairs(changes[0], changes[2], atoms)
    total = total + _contracted(pair, values[1][:, scalars:]).transpose(0, 2, 1)
    pair = slope * _pairs(changes[1], changes[2], atoms)
    return np.asarray(total + _contracted(pair, values[0][:, scalars:]).transpose(2, 0, 1))


def _of_norms(gates: GateExpansion, norms: Sequence[NormChanges]) -> ndarray:
    """Return the terms of second- and third-order changes of the norm."""
    inverse = gates.inverse
    flat = np.sum(gates.weight * _gradient(gates) * gates.mixed, axis=1)
    triple = (-15 * flat * inverse**7)[:, None] * norms[0].overlap
    last = _outer(triple, norms[1].overlap)
    total: ndarray = np.zeros([x.scalar.shape[1] for x in norms])
    for first, second, other in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
        p, r, q = norms[first], norms[second], norms[other]
        inner = (p.mixed * gates.metric) @ r.mixed.swapaxes(1, 2)
        curved = 3 * inverse[:, None, None] ** 5 * _outer(p.overlap, r.overlap)
        curved = curved - inverse[:, None, None] ** 3 * inner
        mixed = p.mixed @ r.slope.swapaxes(1, 2) + p.slope @ r.mixed.swapaxes(1, 2)
        matrices = [mixed, curved, (3 * flat * inverse**5)[:, None, None] * inner]
        vectors = [q.scalar, q.level, q.overlap]
        if other == 2:
            matrices, vectors = [*matrices, last], [*vectors, q.overlap]
        part = _contracted(np.stack(matrices, axis=1), np.stack(vectors, axis=1))
        total = total + part.transpose(np.argsort((first, second, other)))
    return total


def _slope(
    gates: GateExpansion, value: ndarray, channel: ndarray, omega: ndarray, later: ndarray
) -> ndarray:
    """Return the change of ∂φ/∂z."""
    result = np.zeros(value.shape, value.dtype)
    slope, scalars = gates.slopes[1][:, None], len(gates.scalars)
    result[..., gates.channels] = gates.orders[2][:, None] * channel + slope * omega
    for block in gates.gated:
        part = _shifted(block.gates, scalars)
        m, shape = block.components, result[..., block.mixed].shape
        changed = _split(gates.later[:, None, block.updated], m)
        changed = changed * (slope[..., part] * channel[..., part])[..., None, :]
        changed = changed + (
            gates.slopes[0][:, None, None, part] * _split(later[..., block.updated], m)
        )
        result[..., block.mixed] = changed.reshape(shape)
    return result


def _gradient(gates: GateExpansion) -> Float[ndarray, "atoms y"]:
    """Return ∂φ/∂z."""
    result = np.zeros(gates.mixed.shape, gates.mixed.dtype)
    result[:, gates.channels] = gates.orders[1]
    scalars = len(gates.scalars)
    for block in gates.gated:
        part = gates.slopes[0][:, None, _shifted(block.gates, scalars)]
        parts = part * _split(gates.later[:, block.updated], block.components)
        result[:, block.mixed] = parts.reshape(len(result), -1)
    return result


def _norm(
    gated: Gated, params: Params, shapes: Shapes, mixed: ndarray
) -> tuple[ndarray, ndarray, ndarray, ndarray | None]:
    """Return z, s, W and M; without a norm z = y."""
    mixed_size, atoms = mixed.shape[1], len(mixed)
    weight = np.ones(mixed_size, mixed.dtype)
    if not gated.norm:
        return mixed, np.ones(atoms, mixed.dtype), weight, None
    metric, starts = np.empty_like(weight), _starts(shapes)
    for key, (m, u) in shapes.items():
        part = slice(starts[key], starts[key] + m * u)
        weight[part] = np.tile(np.asarray(params[gated.norm][key]), m)
        metric[part] = 1 / (m**2 * len(shapes))
    inverse = (np.sum(metric * mixed**2, axis=1) + gated.epsilon) ** -0.5
    return weight * mixed * inverse[:, None], inverse, weight, metric


def _pairs(left: GateChanges, right: GateChanges, atoms: slice) -> ndarray:
    """Return P of all gates and pairs of columns, (atoms, gates, columns, columns)."""
    parts = []
    for one, two in zip(left.gated, right.gated, strict=True):
        half = two.shape[-1] // 2
        swapped = np.concatenate([two[atoms, ..., half:], two[atoms, ..., :half]], axis=-1)
        parts.append(one[atoms] @ swapped.swapaxes(-1, -2))
    return np.concatenate(parts, axis=1)


def _contracted(pairs: ndarray, last: ndarray) -> ndarray:
    """Return sum over atoms and channels of (.., a, b) and (.., c)."""
    shape = (*pairs.shape[2:], last.shape[2])
    left, right = pairs.reshape(-1, shape[0] * shape[1]).T, last.reshape(-1, shape[2])
    if np.iscomplexobj(right) and not np.iscomplexobj(left):
        return (left @ right.real + 1j * (left @ right.imag)).reshape(shape)
    return (left @ right).reshape(shape)


def _outer(left: ndarray, right: ndarray) -> ndarray:
    """Return products of all pairs of columns."""
    return left[..., :, None] * right[..., None, :]


def _split(flat: ndarray, components: int) -> ndarray:
    """Return (..., m, u)."""
    return flat.reshape(*flat.shape[:-1], components, -1)


def _sum(left: ndarray, right: ndarray, components: int) -> ndarray:
    """Return sums of products over components, (..., u)."""
    return (_split(left, components) * _split(right, components)).sum(axis=-2)


def _shifted(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)


def _starts(shapes: Shapes) -> dict[str, int]:
    """Return where every key begins on the flat axis."""
    sizes = np.cumsum([0, *[m * u for m, u in shapes.values()]])
    return dict(zip(shapes, map(int, sizes), strict=False))


def _silu(x: ndarray) -> ndarray:
    """Return the normalised SiLU and three derivatives."""
    s = 1 / (1 + np.exp(-x))
    first = s * (1 - s)
    second = first * (1 - 2 * s)
    third = first * (1 - 6 * first)
    values = [x * s, s + x * first, 2 * first + x * second, 3 * second + x * third]
    return np.stack(values) / second_moment("silu")


def _tanh(x: ndarray) -> ndarray:
    """Return the normalised hyperbolic tangent and three derivatives."""
    t = np.tanh(x)
    first = 1 - t**2
    values = [t, first, -2 * t * first, first * (6 * t**2 - 2)]
    return np.stack(values) / second_moment("tanh")

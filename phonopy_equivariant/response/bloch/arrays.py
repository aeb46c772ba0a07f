"""Array operations that are the same on the host (NumPy) and in a traced program (JAX).

The response is written once. On the host its products of large arrays are matrix products of BLAS,
whose shapes may be anything; under ``jax.jit`` they become part of one program.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

Array = Any  # NumPy's or JAX's
Features = dict[str, Any]  # of such arrays, as in models.irreps


def on_host(x: Array) -> bool:
    """Tell whether an array is NumPy's."""
    return isinstance(x, np.ndarray)


def contract(subscripts: str, left: Array, right: Array) -> Array:
    """Return the Einstein sum of two arrays; on the host as one batched matrix product.

    Every index that one array alone has must be in the result.
    """
    if not (on_host(left) and on_host(right)):
        return jnp.einsum(subscripts, left, right)
    plan = _plan(subscripts)
    sizes = left.shape, right.shape
    batch, rows, summed, columns = (
        tuple(sizes[side][axis] for side, axis in group) for group in plan.groups
    )
    b, r, m, c = (math.prod(group) for group in (batch, rows, summed, columns))
    product = np.matmul(
        left.transpose(plan.left).reshape(b, r, m), right.transpose(plan.right).reshape(b, m, c)
    )
    return product.reshape(batch + rows + columns).transpose(plan.output)


class _Plan(NamedTuple):
    """How an Einstein sum becomes a matrix product."""

    left: tuple[int, ...]  # order of axes: batch, rows, summed
    right: tuple[int, ...]  # batch, summed, columns
    output: tuple[int, ...]  # of the result, from batch, rows, columns
    # (0 left or 1 right, axis) of batch, rows, summed, columns
    groups: tuple[tuple[tuple[int, int], ...], ...]


@functools.cache
def _plan(subscripts: str) -> _Plan:
    inputs, output = subscripts.split("->")
    left, right = inputs.split(",")
    batch = [x for x in left if x in right and x in output]
    summed = [x for x in left if x in right and x not in output]
    rows = [x for x in left if x not in right]
    columns = [x for x in right if x not in left]
    names = batch + rows + columns
    return _Plan(
        tuple(left.index(x) for x in batch + rows + summed),
        tuple(right.index(x) for x in batch + summed + columns),
        tuple(names.index(x) for x in output),
        (
            *(tuple((0, left.index(x)) for x in group) for group in (batch, rows, summed)),
            tuple((1, right.index(x)) for x in columns),
        ),
    )


def segment_sum(values: Array, segments: Int[Array, " rows"], count: int) -> Array:
    """Return sums of rows with equal ``segments``, (count, ...)."""
    if not on_host(values):
        return jax.ops.segment_sum(values, segments, count)
    result = np.zeros((count, *values.shape[1:]), values.dtype)
    if len(segments):
        order = np.argsort(segments, kind="stable")
        ordered = segments[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
        moved = values if (order[1:] > order[:-1]).all() else values[order]
        result[ordered[starts]] = np.add.reduceat(moved, starts, axis=0)
    return result


def add_to_real(values: Float[Array, "q s ..."], real: Float[Array, "#q ..."]) -> Array:
    """Return values with an array added to their real part; on the host in place."""
    if not on_host(values):
        return values.at[:, 0].add(real)
    values[:, 0] += real
    return values


def complex_parts(real: Array, imaginary: Array) -> Array:
    """Return real and imaginary parts on an axis after the first."""
    stack = np.stack if on_host(real) else jnp.stack
    return stack([real, imaginary], axis=1)


def hermitian(matrix: Float[Array, "q s c d"]) -> Float[Array, "q s d c"]:
    """Return the Hermitian conjugate."""
    swapped = matrix.swapaxes(2, 3)
    if matrix.shape[1] == 1:
        return swapped
    return complex_parts(swapped[:, 0], -swapped[:, 1])


def eye(size: int, like: Array) -> Array:
    """Return the unit matrix in the dtype and module of an array."""
    return (np if on_host(like) else jnp).eye(size, dtype=like.dtype)


def concatenate(arrays: list[Array], axis: int) -> Array:
    """Return arrays one after the other."""
    return (np if on_host(arrays[0]) else jnp).concatenate(arrays, axis=axis)

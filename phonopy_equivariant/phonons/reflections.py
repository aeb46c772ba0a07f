"""How far a potential without parity breaks the improper operations of a crystal.

Such a potential obeys the proper operations exactly. They are half of a group with improper ones,
and the other half is one improper operation times them, so that one operation measures it all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray

from phonopy_equivariant.response.symmetry.operations import Operations
from phonopy_equivariant.response.symmetry.star import Grid, equivalent_q, fill_star

# points without symmetry
GENERAL = np.array([[0.13, 0.29, -0.41], [0.37, -0.08, 0.22]])

Values = Complex[ndarray, "q columns columns"]


def broken_between(
    symmetry: Operations, direct: Callable[[Float[ndarray, "q 3"]], Values]
) -> float | None:
    """Return the largest |Φ(q') - g Φ(q)| of two general q and an improper operation g, eV/Å².

    ``direct`` gives Φ(q) in the lattice gauge. None without an improper operation.
    """
    operation = _improper(symmetry)
    if operation is None:
        return None
    images = _images(symmetry, operation, GENERAL)
    values = direct(np.concatenate([GENERAL, images]))
    count = len(GENERAL)
    return _largest(symmetry, operation, images, values[:count], values[count:])


def broken_on_grid(symmetry: Operations, grid: Grid, values: ndarray) -> float | None:
    """Return the largest |Φ(q') - g Φ(q)| on a grid of q that an improper operation g maps on.

    ``values`` are Φ(q) of all its q. None without such an operation.
    """
    operation = _improper(symmetry)
    if operation is None:
        return None
    images = _images(symmetry, operation, grid.qpoints)
    same = equivalent_q(images[:, None], grid.qpoints)
    if not same.any(axis=1).all():  # the supercell breaks the point group
        return None
    shape = (len(grid.qpoints), 3 * symmetry.image.shape[1], -1)
    flat = values.reshape(shape)
    return _largest(symmetry, operation, images, flat, flat[same.argmax(axis=1)])


def _improper(symmetry: Operations) -> int | None:
    improper = np.flatnonzero(np.linalg.det(symmetry.cartesian) < 0)
    return int(improper[0]) if len(improper) else None


def _images(
    symmetry: Operations, operation: int, qpoints: Float[ndarray, "q 3"]
) -> Float[ndarray, "q 3"]:
    return qpoints @ np.linalg.inv(symmetry.rotations[operation])


def _largest(
    symmetry: Operations,
    operation: int,
    images: Float[ndarray, "q 3"],
    values: Values,
    at_images: Values,
) -> float:
    count = len(images)
    every = np.arange(count)
    star = Grid(images, every, every, np.full(count, operation), np.zeros(count, bool))
    moved = fill_star(star, symmetry, values)
    return float(np.abs(moved.reshape(at_images.shape) - at_images).max())

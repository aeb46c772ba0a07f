"""Features of all irreps on one flat axis, as matrix products want them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from numpy import ndarray

from phonopy_equivariant.models.representations import parse_irrep
from phonopy_equivariant.response.bloch.arrays import Features
from phonopy_equivariant.response.symmetry.little_group import irrep_of

# (2l+1, u) of every key, keys in order: how features lie in a flat axis
Shapes = dict[str, tuple[int, int]]


def irrep_name(key: str) -> str:
    """Return the irrep in the name of a feature, ``"skip 1o"`` for one."""
    return irrep_of(key).split()[-1]


def known_irreps(shapes: Iterable[Shapes]) -> list[str] | None:
    """Return the irreps of features; None if the name of one does not say which it is."""
    keys = {irrep_name(key) for features in shapes for key in features}
    try:
        return [str(parse_irrep(key)) for key in sorted(keys)]
    except ValueError:
        return None


def shapes_of(features: Features) -> Shapes:
    """Return the shapes of features, keys in order."""
    return {key: features[key].shape[-2:] for key in sorted(features)}


def pack(features: Features, shapes: Shapes) -> ndarray:
    """Return features on one flat last axis; zero where a key is missing."""
    like = next(iter(features.values()))
    parts = []
    for key, (m, u) in shapes.items():
        value = features.get(key)
        if value is None:
            value = np.zeros((*like.shape[:-2], m, u), like.dtype)
        parts.append(value.reshape(*like.shape[:-2], m * u))
    return np.concatenate(parts, axis=-1)


def unpack(flat: ndarray, shapes: Shapes) -> Features:
    """Return the features that lie in a flat last axis."""
    result, start = {}, 0
    for key, (m, u) in shapes.items():
        result[key] = flat[..., start : start + m * u].reshape(*flat.shape[:-1], m, u)
        start += m * u
    return result


def real_rows(values: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return rows of real numbers, imaginary parts after the real ones, and the way back.

    What is linear in a row may be computed for both parts by themselves.
    """
    if not any(np.iscomplexobj(x) for x in jax.tree.leaves(values)):
        return values, lambda results: results

    def complex_rows(results: Any) -> Any:
        def one(x: ndarray) -> ndarray:
            half = len(x) // 2
            return x[:half] + 1j * x[half:]

        return jax.tree.map(one, results)

    return jax.tree.map(lambda x: np.concatenate([x.real, x.imag]), values), complex_rows

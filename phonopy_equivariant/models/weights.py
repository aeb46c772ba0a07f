"""Weights of haiku modules: what they are at first, drawn on the host.

JAX would compile a program for each shape that it draws, which takes longer than a training step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array
from numpy import ndarray

# A weight, or its shape alone.
Leaf = ndarray | np.float64 | jax.ShapeDtypeStruct
# The weights of haiku modules, {module: {weight: leaf}}.
Weights = dict[str, dict[str, Leaf]]
# (shape, spread, mean) -> a leaf of the parameters: normal numbers of this spread about the mean
Draw = Callable[[tuple[int, ...], float, float], Leaf]


def normal_numbers(seed: int) -> Draw:
    """Return a function that draws weights (float64) with NumPy; equal seeds draw equal ones."""
    generator = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...], spread: float, mean: float) -> ndarray | np.float64:
        return mean + spread * generator.standard_normal(shape)

    return draw


def shapes_only(shape: tuple[int, ...], spread: float, mean: float) -> jax.ShapeDtypeStruct:
    """Return the shape in place of a weight: what parameters have to look like."""
    return jax.ShapeDtypeStruct(shape, np.float64)


def weight(
    name: str, shape: tuple[int, ...], dtype: DTypeLike, spread: float = 0.0, mean: float = 0.0
) -> Array:
    """Return a weight of the running haiku module; at first it is mean + spread · normal."""
    initial: Any = (spread, mean)  # for init of transform: haiku itself never makes a weight
    return hk.get_parameter(name, shape, dtype, initial)


def transform(functions: Callable[[], Any]) -> tuple[Callable[[Draw], Weights], Any]:
    """Return (init, pure functions) of haiku modules.

    Parameters
    ----------
    functions
        As ``hk.multi_transform`` takes it: makes the modules and returns a function that uses
        every weight once, and the functions to transform.

    Returns
    -------
    tuple
        ``init`` draws the parameters ``{module: {weight: value}}``. JAX follows shapes through it
        and neither computes nor compiles anything. The pure functions have the parameters as
        their first argument.

    """

    def prepared() -> Any:
        use_all, pure_functions = functions()

        def use_all_with(create: Any) -> None:
            with hk.custom_creator(create):
                use_all()

        return use_all_with, pure_functions

    transformed = hk.without_apply_rng(hk.multi_transform(prepared))

    def init(draw: Draw) -> Weights:
        weights: Weights = {}

        def create(_next: Any, shape: Any, dtype: Any, initial: Any, context: Any) -> Any:
            weights.setdefault(context.module_name, {})[context.name] = draw(tuple(shape), *initial)
            return jnp.zeros(shape, dtype)

        with jax.enable_x64(True):
            jax.eval_shape(lambda: transformed.init(None, create))
        return weights

    return init, transformed.apply

"""Scalar nonlinearities normalised to unit second moment, as e3nn's gate has them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


@functools.cache
def second_moment(name: str) -> float:
    """Return the root mean square of a nonlinearity over normally distributed input.

    The quadrature is that of ``e3nn_jax.normalize_function``: a million and one quantiles of
    the normal distribution, whose result (SiLU: 1.67656) published weights were trained with.
    Here it is always float64; e3nn's depends on the precision it is traced in.
    """
    from scipy.special import erfinv, expit  # where programs are traced

    functions: dict[str, Callable[[Any], Any]] = {"silu": lambda x: x * expit(x), "tanh": np.tanh}
    quantiles = np.sqrt(2) * erfinv(np.linspace(-1.0, 1.0, 1_000_003)[1:-1])
    return float(np.sqrt(np.mean(functions[name](quantiles) ** 2)))


def silu(x: Array) -> Array:
    """Return the normalised SiLU, for even scalars and gates."""
    return jax.nn.silu(x) / second_moment("silu")


def tanh(x: Array) -> Array:
    """Return the normalised hyperbolic tangent, for odd scalars."""
    return jnp.tanh(x) / second_moment("tanh")

"""One step of the optimiser: optax's AdamW with clipping, a schedule and a moving average."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from phonopy_equivariant.models.layered import Params
from phonopy_equivariant.runtime.compilation import compiled, x64_mode
from phonopy_equivariant.training.config import OptimiserConfig


class TrainState(NamedTuple):
    """All that a step changes on the device."""

    step: Int[Array, ""]
    params: Params
    average: Params  # exponential moving average of params
    moments: optax.OptState


def transformation(config: OptimiserConfig) -> optax.GradientTransformation:
    """Return the transformation of a gradient into a step, without the learning rate.

    Weight decay applies to arrays with two or more axes, not to scales, biases and energies of
    atoms, which are vectors.
    """
    transformations = [optax.clip_by_global_norm(config.clip)] if config.clip else []
    transformations.append(optax.scale_by_adam())
    if config.weight_decay:
        transformations.append(
            optax.add_decayed_weights(
                config.weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
            )
        )
    return optax.chain(*transformations)


def schedule(config: OptimiserConfig, steps: int) -> optax.Schedule:
    """Return the learning rate as a function of the step; ``plateau`` is a factor beside it."""
    peak, warmup = config.learning_rate, min(config.warmup_steps, steps)
    if config.schedule == "cosine":
        after_warmup = optax.cosine_decay_schedule(peak, max(steps - warmup, 1), config.final)
    else:
        after_warmup = optax.constant_schedule(peak)
    # the first step has a rate above zero
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optax.join_schedules([rise, after_warmup], [warmup])


def start(config: OptimiserConfig, params: Params) -> TrainState:
    """Return the state before the first step."""
    with x64_mode():
        moments = transformation(config).init(params)
        return TrainState(jnp.zeros((), jnp.int32), params, params, moments)


@compiled(static_argnums=(0, 1))
def update(
    config: OptimiserConfig, steps: int, state: TrainState, gradient: Params, factor: Array
) -> tuple[TrainState, Float[Array, ""], Float[Array, ""]]:
    """Return the state after one step, the norm of the gradient, and the learning rate.

    The moving average starts with a decay of 1/10, (1 + t)/(10 + t), up to ``ema``.
    """
    # optax mixes dtypes, whatever the caller allows
    with jax.numpy_dtype_promotion("standard"):
        updates, moments = transformation(config).update(gradient, state.moments, state.params)
        rate = schedule(config, steps)(state.step) * factor
        norm = optax.tree.norm(gradient)
    params = jax.tree.map(lambda p, u: p - rate.astype(p.dtype) * u, state.params, updates)
    t = state.step.astype(rate.dtype)
    decay = jnp.minimum(jnp.asarray(config.ema, rate.dtype), (1 + t) / (10 + t))
    average = jax.tree.map(
        lambda a, p: p if not config.ema else (a - (1 - decay).astype(p.dtype) * (a - p)),
        state.average,
        params,
    )
    return TrainState(state.step + 1, params, average, moments), norm, rate

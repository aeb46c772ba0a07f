"""Loss and gradient of a batch, on one device or spread over all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.runtime.compilation import compiled
from phonopy_equivariant.training.config import LossConfig
from phonopy_equivariant.training.losses import Metrics, graph_loss
from phonopy_equivariant.training.spectral import Batch, LatticeBatch, spectral_loss

Loss = tuple[Float[Array, ""], Metrics]
LossGradient = tuple[Float[Array, ""], Params]
# What is summed over devices: a loss, with its gradient or without.
Summed = TypeVar("Summed")
AXIS = "data"


def device_mesh() -> Mesh | None:
    """Return all visible devices in a row, or None where there is one."""
    devices = jax.devices()
    return Mesh(np.array(devices), (AXIS,)) if len(devices) > 1 else None


@compiled(static_argnums=(0, 1, 2))
def loss_and_gradient(
    model: LayeredModel, loss: LossConfig, mesh: Mesh | None, params: Params, batch: Batch
) -> tuple[Loss, Params]:
    """Return loss, metrics and the gradient with respect to ``params``.

    A batch for several devices has their graphs on a leading axis, or its q spread over them.
    """

    def function(params: Params, batch: Batch) -> tuple[Loss, Params]:
        return jax.value_and_grad(_loss, 2, has_aux=True)(model, loss, params, batch)

    return _spread(function, mesh, batch)(params, batch)


@compiled(static_argnums=(0, 1, 2))
def loss_alone(
    model: LayeredModel, loss: LossConfig, mesh: Mesh | None, params: Params, batch: Batch
) -> Loss:
    """Return loss and metrics."""
    return _spread(lambda p, b: _loss(model, loss, p, b), mesh, batch)(params, batch)


@compiled()
def accumulate(total: LossGradient, addend: LossGradient) -> LossGradient:
    """Return the sums of two losses and of their gradients."""
    summed: LossGradient = jax.tree.map(jnp.add, total, addend)
    return summed


def _loss(model: LayeredModel, loss: LossConfig, params: Params, batch: Batch) -> Loss:
    if isinstance(batch, LatticeBatch):
        return spectral_loss(model, loss, params, batch)
    return graph_loss(model, loss, params, batch)


def _spread(
    function: Callable[[Params, Batch], Summed], mesh: Mesh | None, batch: Batch
) -> Callable[[Params, Batch], Summed]:
    """Return a function whose results are summed over the devices of the mesh."""
    if mesh is None:
        return function
    lattice = isinstance(batch, LatticeBatch)
    specs: LatticeBatch | PartitionSpec
    everywhere, divided = PartitionSpec(), PartitionSpec(AXIS)
    if lattice:
        spread = ("phases", "share", "force_constants", "eigenvalues")
        fields = dict.fromkeys(LatticeBatch._fields, everywhere) | dict.fromkeys(spread, divided)
        specs = LatticeBatch(**fields)  # type: ignore[arg-type]  # specifications in its form
    else:
        specs = divided

    def on_device(params: Params, batch: Batch) -> Summed:
        local = batch if lattice else jax.tree.map(lambda x: x[0], batch)
        total: Summed = jax.lax.psum(function(params, local), AXIS)
        return total

    # without check_vma JAX leaves the sum of the gradients over the devices to us
    return jax.shard_map(
        on_device, mesh=mesh, in_specs=(everywhere, specs), out_specs=everywhere, check_vma=False
    )

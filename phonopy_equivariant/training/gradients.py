"""Loss and gradient of a batch, on one device or spread over all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.runtime.compilation import compiled
from phonopy_equivariant.training.config import LossConfig
from phonopy_equivariant.training.losses import Metrics, graph_loss
from phonopy_equivariant.training.spectral import LatticeBatch, spectral_loss

Loss = tuple[Float[Array, ""], Metrics]
AXIS = "data"


def device_mesh() -> Mesh | None:
    """Return all visible devices in a row, or None where there is one."""
    devices = jax.devices()
    return Mesh(np.array(devices), (AXIS,)) if len(devices) > 1 else None


@compiled(static_argnums=(0, 1, 2))
def loss_and_gradient(
    model: LayeredModel, loss: LossConfig, mesh: Mesh | None, params: Params, batch: Any
) -> tuple[Loss, Params]:
    """Return loss, metrics and the gradient with respect to ``params``.

    A batch for several devices has their graphs on a leading axis, or its q spread over them.
    """

    def function(params: Params, batch: Any) -> tuple[Loss, Params]:
        return jax.value_and_grad(_loss, 2, has_aux=True)(model, loss, params, batch)

    return _spread(function, mesh, batch)(params, batch)


@compiled(static_argnums=(0, 1, 2))
def loss_alone(
    model: LayeredModel, loss: LossConfig, mesh: Mesh | None, params: Params, batch: Any
) -> Loss:
    """Return loss and metrics."""
    return _spread(lambda p, b: _loss(model, loss, p, b), mesh, batch)(params, batch)


@compiled()
def accumulate(left: Any, right: Any) -> Any:
    """Return the sum of two gradients."""
    return jax.tree.map(jnp.add, left, right)


def _loss(model: LayeredModel, loss: LossConfig, params: Params, batch: Any) -> Loss:
    if isinstance(batch, LatticeBatch):
        return spectral_loss(model, loss, params, batch)
    return graph_loss(model, loss, params, batch)


def _spread(function: Callable[..., Any], mesh: Mesh | None, batch: Any) -> Callable[..., Any]:
    """Return a function whose results are summed over the devices of the mesh."""
    if mesh is None:
        return function
    lattice = isinstance(batch, LatticeBatch)
    everywhere, divided = PartitionSpec(), PartitionSpec(AXIS)
    if lattice:
        spread = ("phases", "share", "force_constants", "eigenvalues")
        of: dict[str, Any] = {name: everywhere for name in LatticeBatch._fields}
        specs: Any = LatticeBatch(**(of | dict.fromkeys(spread, divided)))
    else:
        specs = divided

    def local(params: Params, part: Any) -> Any:
        mine = part if lattice else jax.tree.map(lambda x: x[0], part)
        return jax.lax.psum(function(params, mine), AXIS)

    # without check_vma JAX leaves the sum of the gradients over the devices to us
    return jax.shard_map(
        local, mesh=mesh, in_specs=(everywhere, specs), out_specs=everywhere, check_vma=False
    )

"""Upstream's training step, run in an environment that has upstream's package, optax and ase.

    python upstream_training.py MODEL.nqx CELLS.json (efs|hessian) REPEATS

efs: the loss of ``nequix.train`` (energy, forces, stress), hessian: that of ``nequix.pft.train``,
which adds one column of the Hessian; gradient, clipping, AdamW and moving average as there.
Prints one line of JSON: wall time of the first step, of the best later one, bytes of XLA's
temporaries, peak memory of the process. Needs nothing of phonopy_equivariant.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import types
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
import numpy as np
import optax
from ase import Atoms

# upstream's modules of training import loggers, which a step does not use; they are imported after
# these stand-ins, hence E402
for name in ("wandb", "wandb_osh", "wandb_osh.hooks", "cloudpickle"):
    sys.modules.setdefault(name, types.ModuleType(name))
sys.modules["wandb_osh.hooks"].TriggerWandbSyncHook = None  # type: ignore[attr-defined]  # a stand-in

from nequix.data import (  # noqa: E402
    atomic_numbers_to_indices,
    dict_to_graphstuple,
    preprocess_graph,
)
from nequix.model import load_model, weight_decay_mask  # noqa: E402
from nequix.pft.train import loss as pft_loss  # noqa: E402
from nequix.train import loss as efs_loss  # noqa: E402


def main() -> None:
    """Time one task."""
    path, cells, task, repeats = sys.argv[1:]
    model, config = load_model(path, False)
    graphs = [
        graph_of(cell, config, index)
        for index, cell in enumerate(json.loads(Path(cells).read_text()))
    ]
    batch = jraph.batch_np(graphs)
    batch = jraph.pad_with_graphs(
        batch, int(batch.n_node.sum()) + 1, int(batch.n_edge.sum()) + 1, len(graphs) + 1
    )
    optimiser = optax.chain(
        optax.clip_by_global_norm(10.0),
        optax.adamw(1e-3, weight_decay=1e-3, mask=weight_decay_mask(model)),
    )

    def loss(model: eqx.Module, batch: jraph.GraphsTuple) -> tuple[jax.Array, dict[str, jax.Array]]:
        if task == "efs":
            return efs_loss(model, batch, 20.0, 20.0, 5.0, "mae")
        return pft_loss(model, batch)

    @eqx.filter_jit
    def step(model, average, count, moments, batch):  # type: ignore[no-untyped-def]  # theirs are untyped
        (value, _), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(model, batch)
        updates, moments = optimiser.update(gradient, moments, eqx.filter(model, eqx.is_array))
        model = eqx.apply_updates(model, updates)
        decay = jnp.minimum(0.999, (1 + count) / (10 + count))
        old, static = eqx.partition(average, eqx.is_array)
        new = jax.tree.map(
            lambda a, p: a * decay + p * (1 - decay), old, eqx.filter(model, eqx.is_array)
        )
        return model, eqx.combine(static, new), moments, value

    state = (model, model, optimiser.init(eqx.filter(model, eqx.is_array)))
    times = []
    for count in range(int(repeats) + 1):
        start = time.perf_counter()
        *found, value = step(state[0], state[1], jnp.array(count), state[2], batch)
        jax.block_until_ready(value)
        state = (found[0], found[1], found[2])
        times.append(time.perf_counter() - start)
    compiled = step.lower(state[0], state[1], jnp.array(0), state[2], batch).compile()
    temporaries = compiled.compiled.memory_analysis().temp_size_in_bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {"first": times[0], "best": min(times[1:]), "temporaries": temporaries, "peak": peak}
        )
    )


def graph_of(cell: dict, config: dict, seed: int) -> jraph.GraphsTuple:
    """Return a graph with labels, whose values do not matter for the time."""
    atoms = Atoms(numbers=cell["numbers"], cell=cell["cell"], positions=cell["positions"], pbc=True)
    indices = atomic_numbers_to_indices(config["atomic_numbers"])
    graph = dict_to_graphstuple(preprocess_graph(atoms, indices, config["cutoff"], False))
    rng = np.random.default_rng(seed)
    shape = graph.nodes["positions"].shape
    direction = np.zeros(shape, np.float32)
    direction[0, 0] = 1
    labels = {
        "forces": rng.normal(size=shape).astype(np.float32),
        "vs": direction,
        "hessian_col": rng.normal(size=shape).astype(np.float32),
    }
    return graph._replace(
        nodes=graph.nodes | labels,
        globals=graph.globals
        | {"energy": np.zeros(1, np.float32), "stress": np.zeros((1, 3, 3), np.float32)},
    )


if __name__ == "__main__":
    main()

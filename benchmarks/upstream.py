"""Upstream's road to force constants, run in an environment that has upstream's package.

    python upstream.py MODEL.nqx CELLS.json (b|d|D) REPEATS

b: forces of the cells with ``nequix.calculator.NequixCalculator``; D: its ``get_hessian``; d: the
same operations for a few rows, from which the time of all rows follows.
Prints one line of JSON with the first and the best later wall time; every repeat strains the
cells anew. Needs nequix and ase, nothing of phonopy_equivariant.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
import numpy as np
from ase import Atoms
from nequix.calculator import NequixCalculator
from nequix.data import dict_to_graphstuple, preprocess_graph

ROWS = 1, 4


def hessian_seconds(calculator: NequixCalculator, atoms: Atoms) -> tuple[float, float]:
    """Return the first call's time and that of a whole Hessian, from the slope over a few rows.

    The operations are those of ``nequix.pft.hessian.hessian_linearized``, linearised once and
    mapped over the rows one by one, with the number of rows left open.
    """
    graph = dict_to_graphstuple(
        preprocess_graph(atoms, calculator.atom_indices, calculator.cutoff, False)
    )
    graph = calculator._pad_graph_jax(graph, True)

    @eqx.filter_jit
    def rows(model: object, graph: jraph.GraphsTuple, count: jax.Array) -> jax.Array:
        cells = jnp.repeat(
            graph.globals["cell"],
            graph.n_edge,
            axis=0,
            total_repeat_length=graph.edges["shifts"].shape[0],
        )
        offsets = jnp.einsum("ij,ijk->ik", graph.edges["shifts"], cells)

        def energy(positions: jax.Array) -> jax.Array:
            vectors = positions[graph.senders] - positions[graph.receivers] + offsets
            species = graph.nodes["species"]
            return model.node_energies(vectors, species, graph.senders, graph.receivers).sum()

        positions = graph.nodes["positions"]
        _, product = jax.linearize(jax.grad(energy), positions)

        def one(row: jax.Array, found: jax.Array) -> jax.Array:
            unit = jnp.zeros(positions.size).at[row].set(1.0).reshape(positions.shape)
            return found.at[row].set(product(unit))

        empty = jnp.zeros((ROWS[1], *positions.shape))
        return jax.lax.fori_loop(0, count, one, empty)

    start = time.perf_counter()
    rows(calculator.model, graph, jnp.array(0)).block_until_ready()
    first = time.perf_counter() - start
    times = []
    for count in (0, *ROWS):
        start = time.perf_counter()
        rows(calculator.model, graph, jnp.array(count)).block_until_ready()
        times.append(time.perf_counter() - start)
    slope = (times[2] - times[1]) / (ROWS[1] - ROWS[0])
    return first, times[0] + slope * 3 * len(atoms)


def main() -> None:
    """Time one task."""
    model, name, task, repeats = sys.argv[1:]
    structures = json.loads(Path(name).read_text())
    calculator = NequixCalculator(model_path=model, use_kernel=False)
    times = []
    for index in range(int(repeats) + 1):
        cells = [
            Atoms(
                numbers=cell["numbers"],
                cell=np.array(cell["cell"]) * (1 + 1e-4 * index),
                scaled_positions=cell["scaled_positions"],
                pbc=True,
            )
            for cell in structures
        ]
        if task == "d":
            first, whole = hessian_seconds(calculator, cells[0])
            times += [first, whole]
            break
        start = time.perf_counter()
        for atoms in cells:
            if task == "D":
                calculator.get_hessian(atoms)
            else:
                atoms.calc = calculator
                atoms.get_forces()
        times.append(time.perf_counter() - start)
    print(json.dumps({"first": times[0], "best": min(times[1:] or times)}))


if __name__ == "__main__":
    main()

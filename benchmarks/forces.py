"""Compile and run time of a force call and of one Hessian row, beside upstream's package.

    python benchmarks/forces.py MODEL.nqx [--upstream PYTHON] [--dtype float32]

Two-atom silicon and 64 atoms of rock salt. "First" is the wall time of the first call, tracing
and compilation included, without any compilation cache; "run" is the best of ten later calls on
rattled positions. Upstream runs in an environment of its own as a child process. One thing at
a time: nothing else may run on the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import bulk

UPSTREAM = """
import json, sys, time, numpy as np, jax, equinox as eqx, jax.numpy as jnp
from ase.build import bulk
from nequix.calculator import NequixCalculator
from nequix.data import preprocess_graph, dict_to_graphstuple
calculator = NequixCalculator(model_path=sys.argv[1], use_kernel=False)
cells = {"Si 2": bulk("Si"), "NaCl 64": bulk("NaCl", "rocksalt", a=5.64) * (4, 4, 2)}
def timed(function, atoms):
    times = []
    for seed in range(11):
        some = atoms.copy(); some.rattle(0.01, seed=seed)
        start = time.perf_counter(); function(some); times.append(time.perf_counter() - start)
    return times[0], min(times[1:])
def forces(atoms):
    atoms.calc = calculator
    atoms.get_forces()
@eqx.filter_jit
def row(model, graph, direction):
    cell = jnp.repeat(graph.globals["cell"], graph.n_edge, axis=0,
                      total_repeat_length=graph.edges["shifts"].shape[0])
    offsets = jnp.einsum("ij,ijk->ik", graph.edges["shifts"], cell)
    def energy(p):
        r = p[graph.senders] - p[graph.receivers] + offsets
        return model.node_energies(r, graph.nodes["species"], graph.senders, graph.receivers).sum()
    return jax.jvp(jax.grad(energy), (graph.nodes["positions"],), (direction,))[1]
def hessian_row(atoms):
    graph = dict_to_graphstuple(
        preprocess_graph(atoms, calculator.atom_indices, calculator.cutoff, False))
    graph = calculator._pad_graph_jax(graph, False)
    direction = np.zeros(graph.nodes["positions"].shape, np.float32); direction[0, 0] = 1
    np.array(row(calculator.model, graph, direction))
found = {}
for name, atoms in cells.items():
    found[name + " forces"] = timed(forces, atoms)
    found[name + " row"] = timed(hessian_row, atoms)
print(json.dumps(found))
"""


def timed(function: Callable[[Atoms], object], atoms: Atoms) -> tuple[float, float]:
    """Return the time of the first call and the best of ten later ones."""
    times = []
    for seed in range(11):
        some = atoms.copy()
        some.rattle(0.01, seed=seed)
        start = time.perf_counter()
        function(some)
        times.append(time.perf_counter() - start)
    return times[0], min(times[1:])


def own(model: str, dtype: str) -> dict[str, tuple[float, float]]:
    """Return this package's times."""
    import phonopy_equivariant as pe
    from phonopy_equivariant.response.autodiff.hessian import directional_derivative

    potential = pe.load_potential(model, dtype=dtype)
    cells = {"Si 2": bulk("Si"), "NaCl 64": bulk("NaCl", "rocksalt", a=5.64) * (4, 4, 2)}
    found = {}
    for name, atoms in cells.items():
        direction = np.zeros((len(atoms), 3))
        direction[0, 0] = 1.0
        found[f"{name} forces"] = timed(potential.evaluate, atoms)
        found[f"{name} row"] = timed(
            lambda some, d=direction: directional_derivative(potential, some, d), atoms
        )
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--upstream", default="", help="Python of an environment with nequix")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    ours = own(options.model, options.dtype)
    theirs = {}
    if options.upstream:
        command = [options.upstream, "-c", UPSTREAM, options.model]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        theirs = json.loads(done.stdout.strip().splitlines()[-1])
    print("| call | first s | upstream | ratio | run ms | upstream | ratio |\n|" + "---|" * 7)
    for name, (first, run) in ours.items():
        other = theirs.get(name, (float("nan"), float("nan")))
        print(
            f"| {name} | {first:.2f} | {other[0]:.2f} | {other[0] / first:.1f} "
            f"| {1e3 * run:.1f} | {1e3 * other[1]:.1f} | {other[1] / run:.1f} |"
        )


if __name__ == "__main__":
    main()

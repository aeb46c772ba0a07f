"""Time and memory of force constants against atoms in the primitive cell and number of q.

    python benchmarks/scaling.py MODEL.nqx [--dtype float32] [--atoms 2,8,16,32,64,100]

Cells of silicon repeated and rattled by 0.01 Å, so that no symmetry is left; Γ alone and the
eight q of 2x2x2. Each size runs in a process of its own: peak memory is that of the process.
"First" is the first call, compilation included; "run" a second call on another structure.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import numpy as np
from ase.build import bulk, make_supercell

import phonopy_equivariant as pe
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants

CELLS = {
    2: np.diag([1, 1, 1]),
    8: np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]),
    16: np.diag([2, 2, 2]),
    32: np.diag([4, 2, 2]),
    64: 2 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]),
    100: np.diag([5, 5, 2]),
}


def one(model: str, dtype: str, atoms: int, size: int) -> None:
    """Measure one cell in this process and print a row."""
    potential = pe.load_potential(model, dtype=dtype)
    qpoints = np.indices((size,) * 3).reshape(3, -1).T / size
    times = []
    for seed in range(2):
        cell = make_supercell(bulk("Si"), CELLS[atoms])
        cell.rattle(0.01, seed=seed)
        start = time.perf_counter()
        found = lattice_force_constants(potential, cell, qpoints)
        times.append(time.perf_counter() - start)
    residual = np.abs(found[0].reshape(3 * atoms, -1, 3).sum(axis=1)).max()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"| {atoms} | {len(qpoints)} | {times[0]:.1f} | {times[1]:.2f} | {memory:.2f} "
        f"| {residual:.1e} |",
        flush=True,
    )


def main() -> None:
    """Run all sizes, each in a child process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--atoms", default="2,8,16,32,64,100")
    parser.add_argument("--one", default="", help="ATOMS,SIZE: measure in this process")
    options = parser.parse_args()
    if options.one:
        atoms, size = map(int, options.one.split(","))
        one(options.model, options.dtype, atoms, size)
        return
    print("| atoms | q | first s | run s | peak GiB | sum rule at Γ, eV/Å² |\n|" + "---|" * 6)
    for atoms in map(int, options.atoms.split(",")):
        for size in (1, 2):
            command = [sys.executable, __file__, options.model, "--dtype", options.dtype]
            sys.stdout.flush()
            subprocess.run([*command, "--one", f"{atoms},{size}"], check=False)


if __name__ == "__main__":
    main()

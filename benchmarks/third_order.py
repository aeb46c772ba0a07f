"""Third-order force constants beside phono3py's displacements: processor time and differences.

    python benchmarks/third_order.py --model nequix-mp-1-pft Si NaCl

For each crystal, warm (every program has run on another crystal of the same potential before):

a. ``pe.third_order_force_constants``;
b. phono3py's displaced supercells (0.03 Å) with this package's batched forces, and ``produce_fc3``;
c. with ``--random``: random displacements with symfc, as many supercells as phono3py estimates.

Times are seconds of all threads of the process, which other processes on the machine disturb less
than seconds of a clock; those are in brackets.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from phono3py import Phono3py
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe

QUARTZ = crystal(
    ["Si", "O"],
    [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.2144)],
    spacegroup=152,
    cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
)
RUTILE = crystal(
    ["Ti", "O"],
    [(0, 0, 0), (0.3049, 0.3049, 0)],
    spacegroup=136,
    cellpar=[4.594, 4.594, 2.959, 90, 90, 90],
)
PEROVSKITE = crystal(
    ["Sr", "Ti", "O"],
    [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)],
    spacegroup=221,
    cellpar=[3.905, 3.905, 3.905, 90, 90, 90],
)
# name -> cell, supercell, primitive matrix
CRYSTALS: dict[str, tuple[Atoms, list[int], str]] = {
    "Si": (bulk("Si", a=5.43, cubic=True), [2, 2, 2], "F"),
    "Si216": (bulk("Si", a=5.43, cubic=True), [3, 3, 3], "F"),
    "NaCl": (bulk("NaCl", "rocksalt", a=5.64, cubic=True), [2, 2, 2], "F"),
    "NaCl216": (bulk("NaCl", "rocksalt", a=5.64, cubic=True), [3, 3, 3], "F"),
    "GaN": (bulk("GaN", "wurtzite", a=3.19, c=5.19), [3, 3, 2], "P"),
    "TiO2": (RUTILE, [2, 2, 3], "P"),
    "SiO2": (QUARTZ, [2, 2, 2], "P"),
    "SrTiO3": (PEROVSKITE, [2, 2, 2], "P"),
    "SrTiO3_135": (PEROVSKITE, [3, 3, 3], "P"),
}


def phono3py_of(name: str) -> Phono3py:
    """Return phono3py's object of one of the crystals."""
    atoms, matrix, primitive = CRYSTALS[name]
    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
    )
    return Phono3py(cell, supercell_matrix=matrix, primitive_matrix=primitive)


def timed(function: Callable[[], object]) -> tuple[object, str]:
    """Return the result and seconds of the processor and of the clock."""
    wall, processor = time.perf_counter(), time.process_time()
    result = function()
    seconds = time.process_time() - processor, time.perf_counter() - wall
    return result, f"{seconds[0]:.2f} s ({seconds[1]:.2f} s)"


def displaced(
    made: Phono3py, potential: pe.Potential, limit: int, fc_calculator: str | None = None
) -> Iterator[str]:
    """Yield what finite displacements take; a share of the supercells stands for all."""
    cells = [cell for cell in made.supercells_with_displacements if cell is not None]
    mlp = pe.PhonopyMLP(potential)
    measured = cells[:limit]
    mlp.evaluate(measured)  # compiles the program of this batch
    result, seconds = timed(lambda: mlp.evaluate(measured)[1])
    share = "" if len(measured) == len(cells) else f", {len(measured)} of them"
    yield f"{len(cells)} supercells{share}: {seconds}"
    if share:
        return
    made.forces = result
    options = {} if fc_calculator is None else {"fc_calculator": fc_calculator}
    _, seconds = timed(lambda: made.produce_fc3(is_compact_fc=True, **options))
    yield f"phono3py: {seconds}"


def main() -> int:
    """Time the crystals of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crystals", nargs="*", default=list(CRYSTALS), metavar="CRYSTAL")
    parser.add_argument("--model", default="pe-crystal-3")
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--limit", type=int, default=20, help="supercells whose forces are timed")
    args = parser.parse_args()
    potential = pe.load_potential(args.model, dtype="float64")
    pe.third_order_force_constants(phono3py_of("SrTiO3"), potential)
    for name in args.crystals:
        made = phono3py_of(name)
        analytic, seconds = timed(lambda made=made: pe.third_order_force_constants(made, potential))
        print(f"{name}, {len(made.supercell)} atoms\n   analytic: {seconds}", flush=True)
        made.generate_displacements(distance=0.03)
        for line in displaced(made, potential, args.limit):
            print("   displaced,", line, flush=True)
        if made.fc3 is not None:
            largest = np.abs(analytic).max()
            print(
                f"   difference {np.abs(made.fc3 - analytic).max() / largest:.1e} of {largest:.2f}"
            )
        if args.random:
            other = phono3py_of(name)
            other.generate_displacements(distance=0.03, number_of_snapshots="auto", random_seed=1)
            for line in displaced(other, potential, args.limit, "symfc"):
                print("   random,", line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

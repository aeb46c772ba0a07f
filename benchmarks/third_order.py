"""Third-order force constants beside phono3py's displacements: processor time and differences.

    python benchmarks/third_order.py --model nequix-mp-1-pft Si NaCl

For each crystal, warm (every program has run on another crystal of the same potential before):

a. ``pe.third_order_force_constants``, the best of three, each with a structure new to the process;
b. forces of phono3py's displaced supercells (0.03 Å) with this package, batched;
c. with ``--random``: those of random displacements, as many supercells as phono3py estimates.

Forces are timed for the first ``--limit`` supercells and scaled to all; what phono3py and symfc
make of them is not counted. Times are seconds of all threads of the process, which other processes
on the machine disturb less than seconds of a clock; those are in brackets.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

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
# C. J. Howard, R. J. Hill, B. E. Reichert, Acta Cryst. B 44, 116 (1988), monoclinic
BADDELEYITE = crystal(
    ["Zr", "O", "O"],
    [(0.2754, 0.0395, 0.2083), (0.0700, 0.3317, 0.3447), (0.4496, 0.7569, 0.4792)],
    spacegroup=14,
    cellpar=[5.1505, 5.2116, 5.3173, 90, 99.23, 90],
)
PEROVSKITE = crystal(
    ["Sr", "Ti", "O"],
    [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)],
    spacegroup=221,
    cellpar=[3.905, 3.905, 3.905, 90, 90, 90],
)
# orthorhombic ZrO2, Pbca: 24 atoms, for memory; not among those timed by default
ORTHORHOMBIC = crystal(
    ["Zr", "O", "O"],
    [(0.8843, 0.0332, 0.2558), (0.7911, 0.3713, 0.1310), (0.9779, 0.7477, 0.4948)],
    spacegroup=61,
    cellpar=[10.0861, 5.2615, 5.0910, 90, 90, 90],
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
    "ZrO2": (BADDELEYITE, [2, 2, 2], "P"),
    "ZrO2_24": (ORTHORHOMBIC, [2, 2, 2], "P"),
}


def phono3py_of(name: str, strain: float = 0.0) -> Phono3py:
    """Return phono3py's object of one of the crystals, stretched alike in all directions."""
    atoms, matrix, primitive = CRYSTALS[name]
    cell = PhonopyAtoms(
        numbers=atoms.numbers,
        cell=atoms.cell[:] * (1 + strain),
        scaled_positions=atoms.get_scaled_positions(),
    )
    return Phono3py(cell, supercell_matrix=matrix, primitive_matrix=primitive)


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Return seconds of the processor and of the clock."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return time.process_time() - processor, time.perf_counter() - wall


def analytic(name: str, potential: pe.Potential) -> tuple[float, float]:
    """Return what third-order force constants take, the best of three."""
    made = [phono3py_of(name, 1e-4 * k) for k in range(3)]
    return min(timed(lambda x=x: pe.third_order_force_constants(x, potential)) for x in made)


def forces(made: Phono3py, potential: pe.Potential, limit: int) -> tuple[int, tuple[float, float]]:
    """Return the number of displaced supercells, and what their forces take."""
    cells = [cell for cell in made.supercells_with_displacements if cell is not None]
    mlp = pe.PhonopyMLP(potential)
    measured = cells[:limit]
    mlp.evaluate(measured)  # compiles the program of this batch
    processor, wall = timed(lambda: mlp.evaluate(measured))
    share = len(cells) / len(measured)
    return len(cells), (share * processor, share * wall)


def row(name: str, potential: pe.Potential, limit: int, random: bool) -> dict[str, float]:
    """Print one crystal and return the ratios of finite displacements to (a)."""
    made, seconds = phono3py_of(name), analytic(name, potential)
    print(f"{name}, {len(made.supercell)} atoms: (a) {written(seconds)}", flush=True)
    ratios: dict[str, float] = {}
    if not limit:
        return ratios
    made.generate_displacements(distance=0.03)
    roads = {"b": made}
    if random:
        roads["c"] = phono3py_of(name)
        roads["c"].generate_displacements(distance=0.03, number_of_snapshots="auto", random_seed=1)
    for road, displaced in roads.items():
        count, taken = forces(displaced, potential, limit)
        ratios[road] = taken[0] / seconds[0]
        print(
            f"   ({road}) {count} supercells {written(taken)}, {road}/a {ratios[road]:.1f}",
            flush=True,
        )
    return ratios


def written(seconds: tuple[float, float]) -> str:
    """Return seconds of the processor, those of the clock in brackets."""
    return f"{seconds[0]:.2f} s ({seconds[1]:.2f} s)"


def main() -> int:
    """Time the crystals of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crystals", nargs="*", default=list(CRYSTALS)[:-1], metavar="CRYSTAL")
    parser.add_argument("--model", default="pe-crystal-3")
    parser.add_argument("--random", action="store_true")
    parser.add_argument(
        "--limit", type=int, default=20, help="supercells whose forces are timed; 0: (a) alone"
    )
    args = parser.parse_args()
    pe.keep_freed_memory()  # as the command does
    potential = pe.load_potential(args.model, dtype="float64")
    pe.third_order_force_constants(phono3py_of("SrTiO3", -1e-4), potential)
    rows = [row(name, potential, args.limit, args.random) for name in args.crystals]
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")
    for road in rows[0]:
        ratios = np.array([x[road] for x in rows])
        mean = np.exp(np.log(ratios).mean())
        print(f"{road}/a: geometric mean {mean:.1f}, least {ratios.min():.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

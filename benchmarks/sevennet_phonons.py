"""Force constants with SevenNet-l3i5 by two roads, in one run.

    python benchmarks/sevennet_phonons.py [--model checkpoint_l3i5.pth] [--only Si,NaCl,quartz]

(a) this package's Bloch response, float64; (b) phonopy finite displacements of 0.01 Å with
SevenNet's own ASE calculator, which is in single precision. Needs torch and sevenn. The structures
of both are the same. Each timed call sees a strain that the process has not seen; the first call of
(a), which compiles, is reported apart. Wall times, the best of the repeats for (a), the second call
for (b).
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from mace_phonons import finite_displacements
from phonons import crystals, phonon_of

import phonopy_equivariant as pe

REPEATS = 3


def measure(name: str, potential: pe.Potential, calculator: object) -> None:
    """Print the row of one crystal."""
    atoms = crystals()[name]
    times, analytic = [], []
    for index in range(REPEATS + 1):
        phonon = phonon_of(atoms, 1e-4 * index)
        start = time.perf_counter()
        analytic.append(pe.force_constants(phonon, potential))
        times.append(time.perf_counter() - start)
    phonon = phonon_of(atoms, 0.0)
    displaced = finite_displacements(phonon, calculator)
    strained = phonon_of(atoms, 1e-4)
    start = time.perf_counter()
    finite_displacements(strained, calculator)
    seconds = time.perf_counter() - start
    best = min(times[1:])
    deviation = np.abs(analytic[0] - displaced).max() / np.abs(displaced).max()
    print(
        f"| {name} | {len(phonon.primitive)}/{len(phonon.supercell)} | "
        f"{len(phonon.displacements)} | {times[0]:.1f} | {best:.2f} | {seconds:.1f} | "
        f"{seconds / best:.0f} | {deviation:.0e} |",
        flush=True,
    )


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="its file; default: that in the installed sevenn")
    parser.add_argument("--only", default="Si,NaCl")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    from sevenn.calculator import SevenNetCalculator

    calculator = SevenNetCalculator(args.model or "7net-l3i5", device="cpu")
    potential = pe.load_potential(args.model or "sevennet-l3i5")
    print("| crystal | prim/super | displ. | (a) first, s | (a), s | (b), s | b/a | deviation |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.only.split(","):
        measure(name, potential, calculator)


if __name__ == "__main__":
    main()

"""Upstream's road to force constants, run in an environment that has upstream's package.

    python upstream.py MODEL.nqx CELLS.json (b|d) REPEATS

b: forces of the cells with ``nequix.calculator.NequixCalculator``; d: its ``get_hessian``.
Prints one line of JSON with the first and the best later wall time; every repeat strains the
cells anew. Needs nequix and ase, nothing of phonopy_equivariant.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from nequix.calculator import NequixCalculator


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
        start = time.perf_counter()
        for atoms in cells:
            if task == "d":
                calculator.get_hessian(atoms)
            else:
                atoms.calc = calculator
                atoms.get_forces()
        times.append(time.perf_counter() - start)
    print(json.dumps({"first": times[0], "best": min(times[1:] or times)}))


if __name__ == "__main__":
    main()

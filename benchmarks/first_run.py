"""Wall time and peak memory of the first command, from empty caches and again.

    python benchmarks/first_run.py [STRUCTURE] [MODEL]

Runs ``phonopy-equivariant run STRUCTURE --band auto --mesh 20 20 20 -t`` twice in an empty folder
with an empty cache folder. The model must be at hand (PHONOPY_EQUIVARIANT_MODELS, or fetched).
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "Si.cif"


def main() -> None:
    """Run the command twice."""
    structure = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else EXAMPLE
    model = sys.argv[2] if len(sys.argv) > 2 else "nequix-mp-1-pft"
    command = ["phonopy-equivariant", "run", str(structure), "--model", model]
    command += ["--band", "auto", "--mesh", "20", "20", "20", "-t"]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"XDG_CACHE_HOME": f"{folder}/cache"}
        for caches in ("empty", "filled"):
            start = time.perf_counter()
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, check=True
            )
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            method = [line for line in done.stdout.splitlines() if line.startswith("method")]
            print(f"caches {caches}: {seconds:.1f} s, peak {peak:.2f} GiB; {' '.join(method)}")


if __name__ == "__main__":
    main()

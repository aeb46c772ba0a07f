"""Time and memory of a training step, beside upstream's, as a Markdown table.

    python benchmarks/training.py MODEL.nqx [--upstream PYTHON] [--repeats 5] [--only TEXT]

Same architecture and weights, same structures, same batch, float32, AdamW with clipping and moving
average on both sides; freed memory stays with our process, as in the command ``train``
(``MALLOC_TOP_PAD_=131072`` in the environment leaves it to glibc); batches are made beforehand on
both sides. Every row is a process of its own. "First" is the first step with tracing and
compilation, without any compilation cache; "step"
the best later one. "Temporaries" are XLA's buffers of the loss and its gradient, "peak" the
largest resident memory of the process, compilation included. Upstream's Hessian loss is one column
of the Hessian for each structure, which is one Hessian-vector product, as in our ``probes``; ours
in ``columns`` are three, ``pairs`` is one element. The last rows, at wave vectors of the primitive
cell, have no counterpart upstream. One thing at a time: nothing else may run on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

SMALL, LARGE, PRIMITIVE, CUBIC = "4 x NaCl 8", "1 x NaCl 64", "NaCl 2", "NaCl 8"
TASKS = [  # structures, what is compared, upstream's task
    (SMALL, "energy, forces, stress", "efs"),
    (SMALL, "the same + probes", "hessian"),
    (SMALL, "the same + columns", ""),
    (SMALL, "the same + pairs", ""),
    (LARGE, "energy, forces, stress", "efs"),
    (LARGE, "the same + probes", "hessian"),
    (PRIMITIVE, "Phi(q) at 4 q", ""),
    (PRIMITIVE, "frequencies at 4 q", ""),
    (CUBIC, "Phi(q) at 1 q", ""),
]


def structures(name: str) -> list[Atoms]:
    """Return the rattled cells of a row."""
    if name == PRIMITIVE:
        return [bulk("NaCl", "rocksalt", a=5.64)]
    cell = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    if name == CUBIC:
        return [cell]
    cells = [cell.copy() for _ in range(4)] if name == SMALL else [cell * 2]
    for seed, some in enumerate(cells):
        some.rattle(0.05, seed=seed)
    return cells


def child(model: str, name: str, what: str, repeats: int) -> dict[str, float]:
    """Time our step in this process."""
    import jax

    import phonopy_equivariant as pe

    pe.keep_freed_memory()  # as the command does
    from phonopy_equivariant.training import config, gradients, optimiser
    from phonopy_equivariant.training.samples import Cursor, Samples

    estimator = what.rsplit(" ", 1)[-1]
    terms: dict[str, Any] = {}
    if name not in (PRIMITIVE, CUBIC):
        terms = {"energy": config.Term(), "forces": config.Term(), "stress": config.Term()}
    if estimator in ("probes", "columns", "pairs"):
        terms["hessian"] = config.HessianTerm(estimator=estimator)  # type: ignore[arg-type]  # one of three
    if what.startswith("Phi"):
        terms = {"hessian": config.HessianTerm(qpoints=int(what.split()[2]))}
    elif what.startswith("frequencies"):
        terms = {"spectrum": config.SpectrumTerm(qpoints=4)}
    potential = pe.load_potential(model, dtype="float32")
    wave_vectors = name in (PRIMITIVE, CUBIC)
    records = [record(atoms, wave_vectors) for atoms in structures(name)]
    some = config.SetConfig("", batch_size=len(records))
    samples = Samples(potential, records, some, config.LossConfig(**terms), 0, 0)
    [(loss, batch)], _ = samples.next(Cursor())
    options = config.OptimiserConfig(weight_decay=1e-3)
    state = optimiser.start(options, potential.params)
    factor, times = np.ones(()), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        (_, _), gradient = gradients.loss_and_gradient(
            potential.model, loss, None, state.params, batch
        )
        state, _, _ = optimiser.update(options, 1000, state, gradient, factor)
        jax.block_until_ready(state)
        times.append(time.perf_counter() - start)
    with jax.enable_x64(True):
        lowered = gradients.loss_and_gradient.jitted.lower(
            potential.model, loss, None, state.params, batch
        )
    temporaries = lowered.compile().memory_analysis().temp_size_in_bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"first": times[0], "best": min(times[1:]), "temporaries": temporaries, "peak": peak}


def record(atoms: Atoms, wave_vectors: bool) -> Any:
    """Return a record whose labels are random: their values do not matter for the time."""
    from phonopy_equivariant.data import ForceConstantsData, Record, Spectrum
    from phonopy_equivariant.structure import as_structure

    rng = np.random.default_rng(0)
    count, columns = len(atoms), 3 * len(atoms)
    q = rng.uniform(-0.5, 0.5, (4, 3)) if wave_vectors else np.zeros((1, 3))
    matrix = rng.normal(size=(len(q), columns, columns))
    return Record(
        as_structure(atoms),
        energy=0.0,
        forces=rng.normal(size=(count, 3)),
        stress=np.zeros((3, 3)),
        force_constants=ForceConstantsData(q, (matrix + matrix.transpose(0, 2, 1)).astype(complex)),
        spectrum=Spectrum(q, np.sort(rng.uniform(0, 9, (len(q), columns)))),
    )


def run(command: list[str]) -> dict[str, float]:
    """Run a child process without a compilation cache; return the JSON of its last line."""
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def upstream(options: argparse.Namespace, name: str, task: str, folder: Path) -> dict[str, float]:
    """Time upstream's step in its own environment."""
    cells = [
        {
            "numbers": atoms.numbers.tolist(),
            "cell": atoms.cell.array.tolist(),
            "positions": atoms.positions.tolist(),
        }
        for atoms in structures(name)
    ]
    path = folder / "cells.json"
    path.write_text(json.dumps(cells))
    script = str(Path(__file__).with_name("upstream_training.py"))
    words = [options.upstream, script, options.model, str(path), task, str(options.repeats)]
    return run(words)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--upstream", default="", help="Python of an environment with nequix")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.model, *options.child, options.repeats)))
        return
    print(
        "| batch | compared | step ms | upstream | ratio | steps/s | first s | upstream "
        "| temporaries MB | upstream | peak MB | upstream |\n" + "|---" * 12 + "|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, what, task in TASKS:
            if options.only not in f"{name} {what}":
                continue
            words = [sys.executable, __file__, options.model, "--repeats", str(options.repeats)]
            ours = run([*words, "--child", name, what])
            theirs: dict[str, float] = {}
            if task and options.upstream:
                theirs = upstream(options, name, task, Path(folder))
            print(row(name, what, ours, theirs), flush=True)


def row(name: str, what: str, ours: dict[str, float], theirs: dict[str, float]) -> str:
    """Return one line of the table."""
    ratio = f"{theirs['best'] / ours['best']:.2f}" if theirs else ""

    def other(key: str, factor: float, digits: int) -> str:
        return f"{theirs[key] * factor:.{digits}f}" if theirs else ""

    cells = [
        *(name, what),
        *(f"{1e3 * ours['best']:.0f}", other("best", 1e3, 0), ratio, f"{1 / ours['best']:.2f}"),
        *(f"{ours['first']:.1f}", other("first", 1, 1)),
        *(f"{ours['temporaries'] / 1e6:.0f}", other("temporaries", 1e-6, 0)),
        *(f"{ours['peak'] / 1e3:.0f}", other("peak", 1e-3, 0)),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

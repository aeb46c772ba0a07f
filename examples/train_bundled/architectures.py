"""Accuracy against cost of a few architectures, trained on the bundled data for the same time.

    python architectures.py TEACHER FOLDER [--minutes 5] [--only NAME ...]

Two trainings run at once, one on each of two cores, at a constant learning rate; errors are those
of ``judge.py`` on held-out crystals of one size, so that few programs compile. Times are taken
afterwards with nothing else running. Results go to FOLDER/architectures.json; what is there is not
done again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from judge import judge
from labels import Teacher, lattice_force_constants, load_teacher, padded_cell, use_cache

from phonopy_equivariant.data import Record, read_records

HERE = Path(__file__).parent
NEQUIP = {"cutoff": 5.0, "num_interactions": 2, "l_max": 2, "radial_width": 64}
THIN = {"l_max": 1, "radial_width": 16}
MACE = {
    "architecture": "mace",
    "cutoff": 5.0,
    "num_interactions": 2,
    "l_max": 3,
    "correlation": [3],
    "radial_widths": [32, 32],
}
CANDIDATES: dict[str, dict[str, Any]] = {
    "small": {"hidden_irreps": "32x0e + 16x1o + 8x2e"},
    "medium": {"hidden_irreps": "64x0e + 32x1o + 16x2e"},
    "medium, norm": {"hidden_irreps": "64x0e + 32x1o + 16x2e", "layer_norm": True},
    "l = 1": {"hidden_irreps": "64x0e + 64x1o", "l_max": 1},
    "three layers": {"hidden_irreps": "32x0e + 32x1o + 16x2e", "num_interactions": 3},
    "medium, radial 32": {"hidden_irreps": "64x0e + 32x1o + 16x2e", "radial_width": 32},
    "medium, radial 16": {"hidden_irreps": "64x0e + 32x1o + 16x2e", "radial_width": 16},
    "l = 1, radial 16": THIN | {"hidden_irreps": "64x0e + 64x1o"},
    "l = 1, three layers": THIN | {"hidden_irreps": "64x0e + 64x1o", "num_interactions": 3},
    "l = 1, wide": THIN | {"hidden_irreps": "128x0e + 128x1o"},
    "MACE, scalars": MACE | {"hidden_irreps": "64x0e"},
    "MACE, vectors": MACE | {"hidden_irreps": "32x0e + 32x1o", "l_max": 2},
    "6 Å": {"hidden_irreps": "64x0e + 32x1o + 16x2e", "cutoff": 6.0},
}
CRYSTALS = 30
POINTS = 400
ENOUGH = 10**7  # steps; time ends a training


def settings(folder: Path, name: str) -> Path:
    """Write the settings of one candidate and return their file."""
    config = yaml.safe_load((HERE / "bundled.yaml").read_text("utf-8"))
    output = folder / "architectures" / "".join(c if c.isalnum() else "_" for c in name)
    output.mkdir(parents=True, exist_ok=True)
    model = CANDIDATES[name]
    config["model"] = model if "architecture" in model else NEQUIP | model
    config["steps"] = ENOUGH
    config["optimiser"] |= {"schedule": "constant", "learning_rate": 3e-3, "ema": 0.99}
    config["output"] = str(output)
    for some in config["sets"]:
        some["path"] = str(folder / some["path"])
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config), "utf-8")
    return path


def start(path: Path, core: int) -> subprocess.Popen[bytes]:
    """Start a training on one core."""
    words = [sys.executable, "-m", "phonopy_equivariant", "train", str(path), "-q"]

    def pin() -> None:
        os.sched_setaffinity(0, {core})

    return subprocess.Popen(words, preexec_fn=pin)


def train_together(paths: list[Path], minutes: float) -> None:
    """Train candidates beside each other from their first steps for some minutes."""
    running = [start(path, core) for core, path in enumerate(paths)]
    logs = [path.with_suffix("") / "log.csv" for path in paths]
    # compilation does not count: a line after the head comes after some steps
    while not all(log.exists() and log.read_text("utf-8").count("\n") > 1 for log in logs):
        if any(process.poll() is not None for process in running):
            sys.exit("A training ended early: see above.")
        time.sleep(1)
    time.sleep(60 * minutes)
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process, path in zip(running, paths, strict=True):
        process.wait()
        trained(path).write_text(f"{minutes:g}\n", "utf-8")


def trained(path: Path) -> Path:
    """Return the file that says for how many minutes a candidate was trained."""
    return path.with_suffix("") / "minutes"


def alike(teacher: Teacher, records: list[Record]) -> list[Record]:
    """Return the crystals at rest whose padded cells have the commonest shape."""
    resting = [r for r in records if r.force_constants is not None and r.structure.pbc.all()]
    shapes = []
    for record in resting:
        cell = padded_cell(teacher, record.structure)
        shapes.append((len(cell.species), len(cell.senders), cell.slots.shape[1]))
    common = Counter(shapes).most_common(1)[0][0]
    return [r for r, shape in zip(resting, shapes, strict=True) if shape == common][:CRYSTALS]


def milliseconds(potential: Teacher, records: list[Record]) -> float:
    """Return the time of Φ at one q, the mean over crystals, each the best of five."""
    times = []
    for record in records:
        best = np.inf
        for _ in range(5):
            begin = time.perf_counter()
            lattice_force_constants(potential, record.structure, np.array([[0.1, 0.2, 0.3]]))
            best = min(best, time.perf_counter() - begin)
        times.append(best)
    return 1e3 * float(np.mean(times))


def main() -> None:
    """Train what is not trained, judge, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("teacher")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--only", nargs="+", default=list(CANDIDATES))
    options = parser.parse_args()
    folder = options.folder.resolve()
    warnings.simplefilter("ignore")
    use_cache(str(folder / "compiled"))
    report = folder / "architectures.json"
    found = json.loads(report.read_text("utf-8")) if report.exists() else {}
    missing = [name for name in options.only if name not in found]
    paths = [
        path for path in (settings(folder, name) for name in missing) if not trained(path).exists()
    ]
    for k in range(0, len(paths), 2):
        train_together(paths[k : k + 2], options.minutes)
    held_out = list(read_records(folder / "held_out.h5"))
    teacher = load_teacher(options.teacher, "float32")
    crystals = alike(teacher, held_out)
    points = [r for r in held_out if r.force_constants is None][:POINTS]
    for name in missing:
        path = settings(folder, name).with_suffix("")
        student = load_teacher(str(path / "last.npz"), "float32")
        errors = judge(teacher, student, points + crystals, CRYSTALS, options.folder / "judged")
        steps = int((path / "log.csv").read_text("utf-8").split("\n")[-2].split(",")[0])
        cost = {"steps": steps, "ms": milliseconds(student, crystals[:5])}
        minutes = float(trained(path).read_text("utf-8"))
        found[name] = {"minutes": minutes} | cost | errors
        report.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""What the programs of the figures share: a training that is done once, and spreads over seeds."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

import phonopy_equivariant as pe
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.training.config import make_config

SPEED = "speed.json"


def train_once(settings: Mapping[str, Any]) -> bool:
    """Train a potential unless it is there; return whether it was trained now.

    Parameters
    ----------
    settings
        As in a training file, paths relative to the current folder. ``output`` is the folder that
        gets the potential and, at the end, ``speed.json``: number of updates, seconds in all, and
        updates per second of processor time, compilation left out; other work slows it. A training
        is there if it has this file; one that was ended goes on.

    """
    config = make_config(dict(settings), Path.cwd())
    kept = Path(config.output) / SPEED
    if kept.exists():
        return False
    times: list[tuple[int, float]] = []
    begin = time.perf_counter()
    pe.keep_freed_memory()  # updates take half the time
    pe.train(config, callback=lambda report: times.append((report.step, time.process_time())))
    measured = {"steps": config.steps, "seconds": time.perf_counter() - begin}
    if len(times) > 1:
        (first, start), (last, end) = times[0], times[-1]
        measured["steps_per_second"] = (last - first) / (end - start)
    write_atomically(kept, json.dumps(measured).encode())
    speed = measured.get("steps_per_second", float("nan"))
    print(f"{kept.parent.name}: {config.steps} steps, {speed:.1f} a second", flush=True)
    return True


def speed_of(folder: Path, pattern: str) -> float:
    """Return the median over trainings of updates per second of processor time."""
    speeds = [json.loads(path.read_text("utf-8")) for path in folder.glob(f"{pattern}/{SPEED}")]
    return float(np.median([speed["steps_per_second"] for speed in speeds]))


def spread(values: Sequence[float] | ndarray) -> tuple[float, float]:
    """Return mean and standard deviation over seeds; of one seed the deviation is not a number."""
    array = np.asarray(values, float)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan")


def in_words(values: Sequence[float] | ndarray, digits: int = 3) -> str:
    """Return ``mean ± standard deviation``; the mean alone of one seed."""
    mean, deviation = spread(values)
    text = f"{mean:.{digits}f}"
    return f"{text} ± {deviation:.{digits}f}" if np.isfinite(deviation) else text

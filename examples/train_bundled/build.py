"""The bundled potential from a teacher's file, by one command; it resumes where it was ended.

    python build.py TEACHER FOLDER [--install] [--trial]

Structures, relaxation and labels (``generate.py``, one worker per core), the split by groups
(``collect.py``), training (``bundled.yaml``, then ``refine.yaml``, by ``parallel.py``), errors on
held-out structures (``judge.py``), and the checkpoint with its card. ``--install`` writes the two
files into the package. ``--trial`` goes through all but the card, which takes more structures,
with a few of them and few steps, in FOLDER/trial.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from phonopy_equivariant.data import read_records

HERE = Path(__file__).parent
STAGES = ("bundled", "refine")
PROCESSES = 2  # the batch is theirs together: more of them would want other rates
TRIAL = {"steps": 20, "checkpoint_every": 10, "log_every": 10}


def run(*words: object) -> subprocess.Popen[bytes]:
    """Start one of the scripts beside this one."""
    return subprocess.Popen([sys.executable, *map(str, words)], cwd=HERE)


def wait(*processes: subprocess.Popen[bytes]) -> None:
    """Wait for scripts, and end where one failed."""
    if any([process.wait() for process in processes]):
        sys.exit("A step failed: see above; the same command goes on from there.")


def elements(folder: Path) -> list[int]:
    """Return the atomic numbers of all records, held-out ones included."""
    records = [r for part in ("train", "held_out") for r in read_records(folder / f"{part}.h5")]
    return sorted({int(z) for record in records for z in record.structure.numbers})


def _forget_stale(folder: Path) -> None:
    """Remove a second stage that began from another first one."""
    first, second = folder / "student" / "last.npz", folder / "refined" / "state.npz"
    if second.exists() and (not first.exists() or second.stat().st_mtime < first.stat().st_mtime):
        shutil.rmtree(second.parent)


def main() -> None:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("teacher", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--install", action="store_true", help="into the package")
    parser.add_argument("--trial", action="store_true", help="a few structures and steps")
    options = parser.parse_args()
    if options.trial and options.install:
        parser.error("the weights of a trial are not for the package")
    teacher, folder = options.teacher.resolve(), options.folder.resolve()
    if options.trial:
        folder = folder / "trial"
    folder.mkdir(parents=True, exist_ok=True)
    trial = ["--trial"] * options.trial
    workers = len(os.sched_getaffinity(0))
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    shares = [f"{k}/{workers}" for k in range(workers)]
    wait(*(run("generate.py", teacher, folder, "--worker", share, *trial) for share in shares))
    wait(run("collect.py", folder))
    _forget_stale(folder)
    for stage in STAGES:
        settings = yaml.safe_load((HERE / f"{stage}.yaml").read_text("utf-8"))
        if "model" in settings:  # a trial has held-out structures of elements it does not train on
            settings["model"]["species"] = elements(folder)
        text = yaml.safe_dump(settings | (TRIAL if options.trial else {}), sort_keys=False)
        (folder / f"{stage}.yaml").write_text(text, "utf-8")
        wait(run("parallel.py", folder / f"{stage}.yaml", "--processes", min(PROCESSES, workers)))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        del os.environ[name]
    student = folder / "refined" / "last.npz"
    report = folder / "errors.json"
    wait(run("judge.py", teacher, student, folder / "held_out.h5", "--json", report))
    if not options.trial:
        wait(run("finish.py", student, folder, report, *["--install"] * options.install))
    print(json.dumps(json.loads(report.read_text("utf-8")), indent=1))


if __name__ == "__main__":
    main()

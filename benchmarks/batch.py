"""Phonons of a thousand crystals by ``phonopy-equivariant batch``: throughput, overhead, memory.

    python benchmarks/batch.py [MODEL] [--folder OUT] [--count 1000] [--roads loop one two]
                               [--one-core]
    python benchmarks/batch.py --kills 10

Compounds of the prototypes of ``examples/train_bundled``, known ones and others, built from space
groups and ionic radii, at most 12 atoms in the primitive cell, in a fixed shuffled order. Roads:

loop   what a worker runs, called for one crystal after the other in one process;
one    ``batch`` with one worker;
two    ``batch`` with two workers.

All records of the roads are compared to the last digit. Processor and wall times include the start
of the processes. With ``--one-core`` all processes of ``loop`` and of ``one`` are held to the same
core: the loop's XLA takes all cores otherwise, a worker's one. Memory is the resident size of all
processes of the command together, read each second. With ``--kills`` the command, a worker and the
scheduler of a cluster of their own are killed with SIGKILL at as many random moments each; then
nothing may be lost or there twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ase import Atoms
from ase.io import write

ROOT = Path(__file__).parents[1]
MAX_ATOMS = 12
IGNORED = ("seconds", "name")


def crystals(count: int, species: tuple[int, ...]) -> list[Atoms]:
    """Return compounds of all prototypes that a model covers, shuffled."""
    sys.path.insert(0, str(ROOT / "examples" / "train_bundled"))
    from fill import draw

    drawn: list[Atoms] = []
    for prototype, _, atoms in draw(seed=0, times=12):
        if set(atoms.numbers) <= set(species) and len(atoms) <= MAX_ATOMS:
            drawn.append(Atoms(atoms, info={"name": f"{prototype} {atoms.symbols}"}))
    order = np.random.default_rng(0).permutation(len(drawn))[:count]
    return [drawn[k] for k in order]


def listed(options: argparse.Namespace) -> Path:
    """Return the file of structures, made the first time."""
    import phonopy_equivariant as pe

    path = Path(options.folder / "structures.extxyz")
    if not path.exists():
        options.folder.mkdir(parents=True, exist_ok=True)
        write(path, crystals(options.count, pe.load_potential(options.model).species))
    return path


def plain_loop(options: argparse.Namespace) -> None:
    """Compute every structure in this process, as a script of one's own would."""
    from phonopy_equivariant.checkpoints.fetch import file_sha256
    from phonopy_equivariant.checkpoints.load import resolve
    from phonopy_equivariant.workflows.batch.records import Setup, Task, compute
    from phonopy_equivariant.workflows.batch.run import _listed
    from phonopy_equivariant.workflows.options import BatchOptions, PhononOptions

    sha256 = file_sha256(resolve(options.model))
    wanted = BatchOptions()
    if options.dim:
        wanted = BatchOptions(PhononOptions(options.dim * np.eye(3, dtype=int)), (5, 5, 5))
    setup = Setup(options.model, sha256, "float64", "auto", wanted)
    with open(options.folder / "loop.jsonl", "w", encoding="utf-8") as file:
        for key, named in _listed(options.folder / "structures.extxyz"):
            task = Task(key, named.name, named.label, named.crystal)
            file.write(json.dumps(compute(task, setup).record) + "\n")
            file.flush()


def command(options: argparse.Namespace, road: str) -> list[str]:
    """Return the command line of a road."""
    if road == "loop":
        here = [sys.executable, __file__, options.model, "--folder", str(options.folder)]
        return [*here, "--roads", "in-process", *(["--dim", str(options.dim)] * bool(options.dim))]
    words = [str(options.folder / "structures.extxyz"), "-o", str(options.folder / road)]
    words += ["--model", options.model, "--workers", {"one": "1", "two": "2"}[road]]
    words += ["--dim", str(options.dim), "--mesh", "5", "5", "5"] * bool(options.dim)
    return [sys.executable, "-m", "phonopy_equivariant", "batch", *words]


def records(options: argparse.Namespace, road: str) -> dict[str, dict[str, Any]]:
    """Return the records of a road by key."""
    inside = "loop.jsonl" if road == "loop" else f"{road}/records.jsonl"
    path = options.folder / inside
    if not path.exists():
        return {}
    lines = path.read_text("utf-8").splitlines()
    return {record["key"]: record for record in map(json.loads, lines)}


def tree(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return a process and all that it started."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory(process: subprocess.Popen[bytes]) -> float:
    """Return the resident size (GiB) of a process and all that it started."""
    total = 0
    for each in tree(process):
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**30


def measure(options: argparse.Namespace, road: str) -> dict[str, Any]:
    """Run a road; return wall time and memory over the number of finished structures."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    cores = os.sched_getaffinity(0)
    if options.one_core and road != "two":
        os.sched_setaffinity(0, {min(cores)})  # the processes started below inherit it
    start, samples = time.perf_counter(), []
    with open(options.folder / f"{road}.log", "wb") as log:
        process = subprocess.Popen(
            command(options, road), env=os.environ | one_thread, stdout=log, stderr=log
        )
        while process.poll() is None:
            samples.append((len(records(options, road)), memory(process)))
            time.sleep(1.0)
    seconds = time.perf_counter() - start
    os.sched_setaffinity(0, cores)
    return {"road": road, "seconds": seconds, "status": process.returncode, "memory": samples}


def report(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Print times, memory, and whether all roads agree."""
    for row in rows:
        found = records(options, row["road"])
        failed = [record for record in found.values() if record["state"] == "failed"]
        computing = sum(record["seconds"] for record in found.values())
        print(
            f"{row['road']:6s} {len(found)} structures, {len(failed)} failed, "
            f"{row['seconds']:.0f} s, {computing:.0f} s of them in crystals, "
            f"{3600 * len(found) / row['seconds']:.0f} an hour"
        )
        last = len(found)
        for low, high in ((last // 10, last // 5), (last // 5, last // 2), (last // 2, last)):
            inside = [size for count, size in row["memory"] if low <= count < high]
            if inside:
                print(f"       memory, structures {low} to {high}: {np.median(inside):.2f} GiB")
    for reason in sorted({record["reason"] for record in failed}):
        print(f"       {sum(r['reason'] == reason for r in failed):4d} {reason}")
    first, *others = (records(options, row["road"]) for row in rows)
    for row, other in zip(rows[1:], others, strict=True):
        differing = [k for k in first if stripped(first[k]) != stripped(other.get(k, {}))]
        print(f"{row['road']}: {len(differing)} records differ from those of {rows[0]['road']}")


def stripped(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without times."""
    return {key: value for key, value in record.items() if key not in IGNORED}


def small_model(options: argparse.Namespace) -> str:
    """Return the file of a potential with random weights that computes a crystal in a moment."""
    import phonopy_equivariant as pe

    path = options.folder / "small.npz"
    if not path.exists():
        species = pe.load_potential(options.model).species
        config = pe.NequIPConfig(
            species=species,
            cutoff=4.0,
            num_interactions=2,
            hidden_irreps="4x0e + 3x1o",
            l_max=1,
            num_radial_basis=4,
            radial_width=8,
            radial_depth=1,
            avg_num_neighbors=12.0,
        )
        pe.save_checkpoint(pe.random_potential(config, seed=0), path)
    return str(path)


class Cluster:
    """A scheduler and two workers that somebody else started, as on a real cluster."""

    def __init__(self, folder: Path):
        place = folder / "scheduler.json"
        place.unlink(missing_ok=True)
        python = [sys.executable, "-m"]
        quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        words = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
        words += ["--no-dashboard", "--scheduler-file", str(place)]
        self.scheduler = subprocess.Popen(python + words, **quiet)
        words = ["distributed.cli.dask_worker", "--scheduler-file", str(place), "--nworkers", "2"]
        words += ["--nthreads", "1", "--no-dashboard", "--death-timeout", "10"]
        self.workers = subprocess.Popen(python + words, **quiet)
        while not place.exists():
            time.sleep(0.1)
        self.address = json.loads(place.read_text("utf-8"))["address"]

    def end(self) -> None:
        """Kill all of it."""
        for process in (*tree(self.workers), *tree(self.scheduler)):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


def batch_of_small(options: argparse.Namespace, target: str, *more: str) -> subprocess.Popen[bytes]:
    """Start a run of the small model in the folder of a target."""
    words = [str(options.folder / "structures.extxyz"), "-o", str(options.folder / target)]
    words += ["--model", small_model(options), "--dim", "2", "--mesh", "5", "5", "5", *more]
    command = [sys.executable, "-m", "phonopy_equivariant", "batch", *words]
    with open(options.folder / f"{target}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def wait_for(options: argparse.Namespace, target: str, count: int, process: Any) -> bool:
    """Wait for a number of records; return whether the run still goes on then."""
    while len(records(options, target)) < count and process.poll() is None:
        time.sleep(0.05)
    return process.poll() is None


def kill_all(options: argparse.Namespace) -> None:
    """Kill each kind of process at random moments, and count what is there in the end."""
    chance, total = random.Random(0), options.count
    for target in ("command", "worker", "scheduler"):
        kills, again = 0, 0
        cluster = Cluster(options.folder) if target == "scheduler" else None
        more = ["--scheduler", cluster.address] if cluster else ["--workers", "2"]
        process = batch_of_small(options, target, *more)
        for k in range(options.kills):
            if not wait_for(options, target, (k + 1) * total // (options.kills + 2), process):
                break
            time.sleep(chance.random())
            if target == "worker":
                spawned = [p for p in tree(process) if "spawn_main" in " ".join(p.cmdline())]
                chance.choice(spawned).kill()
            elif cluster:
                os.kill(cluster.scheduler.pid, signal.SIGKILL)
            else:
                process.kill()
            kills += 1
            if target != "worker":
                process.wait()
                again += 1
                if cluster:
                    cluster.end()
                    cluster = Cluster(options.folder)
                    more = ["--scheduler", cluster.address]
                process = batch_of_small(options, target, *more)
        status = process.wait()
        if cluster:
            cluster.end()
        lines = (options.folder / target / "records.jsonl").read_text("utf-8").splitlines()
        found = list(map(json.loads, lines))
        keys = {record["key"] for record in found}
        failed = [record["reason"] for record in found if record["state"] == "failed"]
        print(
            f"{target}: {kills} kills, started again {again} times, status {status}: "
            f"{len(lines)} records of {len(keys)} structures, {total} in all; "
            f"{len(failed)} failed: {set(failed)}"
        )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="pe-crystal-3")
    parser.add_argument("--folder", type=Path, default=Path("batch_benchmark"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--roads", nargs="*", default=["loop", "one", "two"])
    parser.add_argument("--dim", type=int, help="supercell N N N and mesh 5 5 5: quick crystals")
    parser.add_argument("--one-core", action="store_true", help="loop and one on the same core")
    parser.add_argument("--kills", type=int, default=0, help="random moments for each process")
    options = parser.parse_args()
    listed(options)
    if options.roads == ["in-process"]:
        plain_loop(options)
        return
    if options.kills:
        kill_all(options)
        return
    rows = []
    for road in options.roads:
        rows.append(measure(options, road))
        (options.folder / "rows.json").write_text(json.dumps(rows), "utf-8")
    report(options, rows)


if __name__ == "__main__":
    main()

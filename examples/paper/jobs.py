"""A queue of jobs: each writes one file, whole or not at all, and is done once the file is there.

A queue that was ended is started again by the same command. Several processes may work on the same
folder at the same time: a job is locked while one of them does it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from phonopy_equivariant.data import Record, read_records, write_records
from phonopy_equivariant.files import replacing


class Job(NamedTuple):
    """What makes one file.

    ``make(scratch, path)`` may use the folder ``scratch`` as it likes and writes the file ``path``.
    """

    file_name: str
    make: Callable[[Path, Path], None]


def record_job(name: str, make: Callable[[Path], Record]) -> Job:
    """Return the job that writes one record to ``NAME.extxyz``."""

    def write(scratch: Path, path: Path) -> None:
        write_records([make(scratch)], path)

    return Job(f"{name}.extxyz", write)


def run(folder: Path, jobs: Iterable[Job], wait: bool = False) -> None:
    """Do the jobs that are not done, one after the other.

    Parameters
    ----------
    folder
        Where their files are.
    jobs
        In the order in which they are done.
    wait
        Whether to wait for a job that another process is doing, because later jobs need its file;
        by default it is left to that process.

    """
    folder.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        path = folder / job.file_name
        with _locked(folder / f".{job.file_name}.lock", wait) as locked:
            if not locked or path.exists():
                continue
            scratch = folder / f"scratch-{job.file_name}"
            shutil.rmtree(scratch, ignore_errors=True)  # of a job that was ended
            scratch.mkdir()
            start, cpu = time.time(), _cpu_seconds()
            with replacing(path) as temporary:
                job.make(scratch.resolve(), temporary)
            shutil.rmtree(scratch)
            elapsed = f"{time.time() - start:.0f} s, {_cpu_seconds() - cpu:.0f} s of one core"
            print(f"{time.strftime('%F %T')} {job.file_name}: {elapsed}", flush=True)


def collect(work: Path, data: Path, sets: Mapping[str, Sequence[str]]) -> bool:
    """Write the sets of records whose jobs are all done; return whether that is all of them.

    Parameters
    ----------
    work
        Folder of the jobs' files.
    data
        Where the sets go: ``NAME.extxyz.xz``.
    sets
        Names of the jobs of each set, in the order of the records.

    """
    data.mkdir(parents=True, exist_ok=True)
    complete = True
    for name, members in sets.items():
        paths = [work / f"{member}.extxyz" for member in members]
        done = [path for path in paths if path.exists()]
        if len(done) == len(paths):
            target = data / f"{name}.extxyz.xz"
            write_records([record for path in paths for record in read_records(path)], target)
            print(f"{target.name}: {len(paths)} records, {target.stat().st_size / 1024:.0f} kB")
        else:
            print(f"{name}: {len(done)} of {len(paths)} jobs are done; nothing written")
            complete = False
    return complete


def arguments(doc: str, stages: Sequence[str]) -> argparse.Namespace:
    """Return the command line: ``run`` or ``collect``, the folder and for ``run`` the stages."""
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("action", choices=("run", "collect"))
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(stages)}")
    parser.add_argument("--work", type=Path, required=True, help="folder of the jobs' files")
    parsed = parser.parse_intermixed_args()
    unknown = set(parsed.stages) - set(stages)
    if unknown:
        parser.error(f"no stage {', '.join(sorted(unknown))}; choose of {', '.join(stages)}")
    return parsed


def main(
    doc: str,
    stages: Sequence[str],
    run_stages: Callable[[Path, Sequence[str]], None],
    collect_all: Callable[[Path, Path], bool],
) -> int:
    """Run or collect, as the command line says; return the exit status."""
    parsed = arguments(doc, stages)
    if parsed.action == "collect":
        return 0 if collect_all(parsed.work, Path(__file__).parent / "data") else 1
    run_stages(parsed.work, parsed.stages or stages)
    return 0


def _cpu_seconds() -> float:
    return sum(os.times()[:4])  # of this process and of the programs it called


@contextlib.contextmanager
def _locked(path: Path, wait: bool) -> Iterator[bool]:
    """Hold a lock that ends with the process; yield whether it was to be had."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True

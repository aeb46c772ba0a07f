"""Jobs on Dask's workers: each is delivered once, whatever is killed."""

import contextlib
import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.workflows.batch import dispatch
from phonopy_equivariant.workflows.batch.cluster import connected
from phonopy_equivariant.workflows.batch.dispatch import KILLED, Needs, dispatched
from phonopy_equivariant.workflows.batch.records import prepare_process

pytest.importorskip("distributed")
# what Dask leaves behind when its processes are killed is not ours to close
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


class Job(NamedTuple):
    """What a worker does: write its name into the log, and end as it is told."""

    key: str
    log: str
    deaths: int = 0  # how often it takes its worker down
    seconds: float = 0.01
    shape: int = 0
    memory: int = 0


def perform(job):
    with open(job.log, "a", encoding="utf-8") as file:
        file.write(f"{job.key} {os.getpid()}\n")
    if tries(job) <= job.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.key == "raises":
        raise PhonopyEquivariantError("as told")
    time.sleep(job.seconds)
    return job.key


def tries(job):
    return sum(line.split()[0] == job.key for line in Path(job.log).read_text("utf-8").splitlines())


def needs(job):
    return Needs(job.shape, job.memory)


@pytest.fixture(scope="module")
def client():
    with connected(2, None) as client:
        yield client


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "log")


def deliveries(client, jobs):
    return {d.job.key: (d.value, d.reason) for d in dispatched(client, jobs, perform, needs)}


def test_every_job_is_delivered_once_and_shapes_keep_to_their_workers(client, log):
    jobs = [Job(f"j{k}", log, shape=k % 2, seconds=0.03) for k in range(30)]
    delivered = [d.job.key for d in dispatched(client, jobs, perform, needs)]
    assert sorted(delivered) == sorted(job.key for job in jobs)
    shape_of = {job.key: job.shape for job in jobs}
    started = [line.split() for line in Path(log).read_text("utf-8").splitlines()]
    workers = {pid for _, pid in started}
    shapes = [[shape_of[key] for key, where in started if where == pid] for pid in workers]
    assert {of_worker[0] for of_worker in shapes} == {0, 1}
    for of_worker in shapes:
        # a worker leaves its shape once at most: when none is waiting, to help with the other
        assert sum(a != b for a, b in itertools.pairwise(of_worker)) <= 1


def test_what_kills_its_worker_is_tried_once_more_and_then_given_up(client, log):
    jobs = [Job(f"j{k}", log) for k in range(8)]
    jobs[2:2] = [Job("deadly", log, deaths=99), Job("once", log, deaths=1)]
    delivered = deliveries(client, jobs)
    assert delivered.pop("deadly") == (None, KILLED)
    assert delivered == {job.key: (job.key, "") for job in jobs if job.key != "deadly"}
    assert tries(Job("deadly", log)) == 2
    assert tries(Job("once", log)) == 2


def test_workers_killed_at_random_moments_lose_nothing(client, log, monkeypatch):
    monkeypatch.setattr(dispatch, "_FETCH", 0.5)  # s, for values that went with their worker
    jobs = [Job(f"j{k}", log, seconds=0.05) for k in range(120)]
    chance, kills = random.Random(0), 0
    delivered = []
    for delivery in dispatched(client, jobs, perform, needs):
        delivered.append(delivery)
        if kills < 3 and len(delivered) == 10 * (kills + 1):
            kills += 1
            time.sleep(0.05 * chance.random())
            pid = int(Path(log).read_text("utf-8").split()[-1])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert kills == 3
    assert sorted(d.job.key for d in delivered) == sorted(job.key for job in jobs)
    assert all(d.value == d.job.key for d in delivered)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_workers_keep_freed_memory_although_dask_gives_it_back(client):
    assert client.submit(prepare_process, pure=False).result()


def test_an_error_of_the_function_is_raised_here(client, log):
    with pytest.raises(PhonopyEquivariantError, match="as told"):
        deliveries(client, [Job("raises", log)])


def test_what_fits_into_no_worker_is_not_sent(client, log):
    jobs = [Job("large", log, memory=2**50), Job("small", log)]
    delivered = deliveries(client, jobs)
    assert delivered["small"] == ("small", "")
    assert "needs at least 1048576.0 GiB" in delivered["large"][1]
    assert tries(Job("large", log)) == 0


def test_an_address_where_nobody_answers_is_said():
    with (
        pytest.raises(PhonopyEquivariantError, match="No Dask scheduler answers at nowhere"),
        connected(None, "nowhere"),
    ):
        pass


def test_a_scheduler_that_is_killed_is_said(tmp_path, log):
    """A cluster that somebody else started: what it computed until then has been delivered."""
    place = tmp_path / "scheduler.json"
    words = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1"]
    words += ["--port", "0", "--no-dashboard", "--scheduler-file", str(place)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet["env"] = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    scheduler = subprocess.Popen(words, **quiet)
    worker = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(place)]
        + ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "20"],
        **quiet,
    )
    try:
        while not place.exists():
            time.sleep(0.1)
        address = json.loads(place.read_text("utf-8"))["address"]
        delivered = []
        with (
            pytest.raises(PhonopyEquivariantError, match="scheduler is gone"),
            connected(None, address) as client,
        ):
            for delivery in dispatched(
                client, [Job(f"j{k}", log) for k in range(999)], perform, needs
            ):
                delivered.append(delivery.job.key)
                if len(delivered) == 5:
                    threading.Timer(0.1, scheduler.kill).start()
        assert 5 <= len(delivered) == len(set(delivered)) < 999
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()

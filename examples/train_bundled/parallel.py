"""A training spread over processes of one core each, whose gradients are averaged.

    python parallel.py CONFIG.yaml [--processes 2]

Each process draws batches of its own of ``batch_size`` structures, so that a step has that many
times the number of processes; weights begin the same. On a CPU, programs of this size gain little
from more threads, and several devices in one process wait for one allocator; processes do neither
(README.md). The first writes to the output folder, the others to ``process-K`` in it; the same
command goes on where all were ended.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import signal
import sys
from multiprocessing import connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

TIMEOUT = 3600.0  # s; reading data takes some processes longer than others


@dataclasses.dataclass(frozen=True)
class Share:
    """One process among the others."""

    rank: int
    count: int
    barrier: Any
    memory: str  # name of a block with (2, count, size) single-precision numbers


class Exchange:
    """A block of memory in which each process has a row of numbers."""

    def __init__(self, share: Share, size: int):
        self._share = share
        self._memory = SharedMemory(share.memory)
        # two halves in turn: the next step writes while others may still read this one
        shape = (2, share.count, size)
        self._halves: np.ndarray = np.ndarray(shape, np.float32, buffer=self._memory.buf)
        self._turn = 0

    def all(self, mine: np.ndarray) -> np.ndarray:
        """Return the rows of all processes, when they are there."""
        self._turn = 1 - self._turn
        half: np.ndarray = self._halves[self._turn]
        half[self._share.rank] = mine
        self._share.barrier.wait(TIMEOUT)
        return half


def train(path: str, share: Share) -> None:
    """Train in this process, on its own core."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[share.rank]})
    from phonopy_equivariant.runtime.allocation import keep_freed_memory

    keep_freed_memory()
    import jax
    from jax.flatten_util import ravel_pytree

    import phonopy_equivariant as pe
    from phonopy_equivariant.training.config import read_config
    from phonopy_equivariant.training.loop import Trainer
    from phonopy_equivariant.training.samples import Samples

    class Member(Trainer):
        """A trainer that takes the mean of all gradients, each of other batches."""

        def _samples(self, index: int, records: list[Any], held_out: bool = False) -> Samples:
            config = self.config
            some, seed = config.sets[index], config.seed + share.rank
            return Samples(self._potential, records, some, config.loss, seed, index, self._devices)

        def _gradient(self, batches: Any) -> Any:
            loss, metrics, gradient = super()._gradient(batches)
            rows = exchange.all(np.asarray(flatten(gradient)))
            return loss, metrics, back(rows.sum(axis=0) / np.float32(share.count))

        def _save(self) -> None:
            # an interruption finds the processes at different steps: only common ones are kept
            step = self.progress.step
            if step % self.config.checkpoint_every == 0 or step == self.config.steps:
                share.barrier.wait(TIMEOUT)  # nearly at once: an end in between parts them
                super()._save()

    pe.enable_compilation_cache()
    config = read_config(path)
    output = f"{config.output}/process-{share.rank}" if share.rank else config.output
    config = dataclasses.replace(config, output=output)
    trainer = Member(config)
    flatten = jax.jit(lambda tree: ravel_pytree(tree)[0])
    flat, unravel = ravel_pytree(trainer.state.params)
    back = jax.jit(unravel)
    exchange = Exchange(share, flat.size)
    rows = exchange.all(np.asarray(flat))
    if (rows != rows[0]).any():
        sys.exit(
            f"{config.output}: the processes have different weights, as they ended while they "
            "saved them; begin in another folder with finetune_from: last.npz of this one."
        )

    def tell(report: Any) -> None:
        if share.rank == 0:
            print(
                f"{report.step}/{report.steps} loss {report.values['train_loss']:.4f}", flush=True
            )

    try:
        trainer.run(tell)
    except BaseException:
        share.barrier.abort()
        raise
    finally:
        trainer.close()


def main() -> None:
    """Start the processes, and end where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--megabytes", type=int, default=256, help="for the gradients of all")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    memory = SharedMemory(create=True, size=options.megabytes * 2**20)
    barrier = context.Barrier(options.processes)
    shares = [Share(k, options.processes, barrier, memory.name) for k in range(options.processes)]
    members = [context.Process(target=train, args=(options.config, share)) for share in shares]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for member in members:
            member.start()
        # one that ends early would leave the others waiting
        while all(member.exitcode is None for member in members):
            connection.wait([member.sentinel for member in members])
        if any(member.exitcode for member in members):
            barrier.abort()
        for member in members:
            member.join()
    finally:
        for member in filter(lambda some: some.pid, members):
            member.terminate()
            member.join()
        memory.close()
        memory.unlink()
    sys.exit(any(member.exitcode for member in members))


if __name__ == "__main__":
    main()

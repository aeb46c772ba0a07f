"""All programs of a potential at once: loaded from disk, or compiled side by side.

The programs of the host-driven response depend on the potential alone. A rehearsal runs the
response of one atom with one edge without computing anything: in place of the result of a program
it goes on with zeros of the same shape, so that a program can still be compiled while the next
ones are traced.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.columns import PairTable, bloch_force_constants
from phonopy_equivariant.response.bloch.execution import PROGRAMS, Function, Host, host_driven
from phonopy_equivariant.response.bloch.expansion import expand
from phonopy_equivariant.response.bloch.network import Network
from phonopy_equivariant.runtime.compilation import Begun, generation, x64_mode

# More compile no faster: XLA compiles each program with several threads itself.
_WORKERS = 4


# Which programs were begun, and when: (model, dtype) -> generation of compiled functions
_begun: dict[tuple[LayeredModel, str], int] = {}


class Rehearsal(Host):
    """A host that begins programs and goes on with zeros in place of their results."""

    def __init__(self, model: LayeredModel, params: Params, workers: Executor):
        super().__init__(model, params)
        self.workers = workers
        self.begun: list[Begun] = []

    def _run(self, function: Function, shape: Any, arguments: tuple[Any, ...]) -> Any:
        begun = PROGRAMS[function].begin(arguments, self.workers)
        self.begun.append(begun)
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), begun.results)


def begin_programs(potential: Potential) -> bool:
    """Load or begin to compile all programs that the response of a potential needs, once.

    Returns before all are compiled; whoever needs one waits for it. On devices other than the
    processor there is nothing to begin: programs depend on the crystal there.

    Returns
    -------
    bool
        Whether programs are being compiled.

    """
    key = potential.model, potential.dtype
    if not host_driven() or _begun.get(key) == generation():
        return False
    return not all(program.executable.done() for program in rehearse(potential))


def rehearse(potential: Potential) -> list[Begun]:
    """Load or begin to compile all programs of the host-driven response; return them."""
    _begun[potential.model, potential.dtype] = generation()
    workers = ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1))
    try:
        with x64_mode():
            run = Rehearsal(potential.model, potential.params, workers)
            _respond_once(run, potential)
    finally:
        workers.shutdown(wait=False)
    return run.begun


def _respond_once(run: Host, potential: Potential) -> None:
    """Compute the response of one atom to its own displacement, through one edge."""
    first = np.zeros(1, np.int32)
    vectors = np.array([[potential.cutoff / 2, 0.0, 0.0]], potential.dtype)
    expansion = expand(run, Network(vectors, first, first, first))
    filled = np.ones((1, 1), potential.dtype)
    table = PairTable(first[:, None], filled, filled[None, None])
    bloch_force_constants(run, expansion, first, table)

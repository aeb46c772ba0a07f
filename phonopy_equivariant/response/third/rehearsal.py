"""All programs of third order at once, as :mod:`.bloch.rehearsal` does for second order."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from phonopy_equivariant.models.layered import LayeredModel
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.execution import host_driven
from phonopy_equivariant.response.bloch.network import Network
from phonopy_equivariant.response.bloch.rehearsal import Rehearsal
from phonopy_equivariant.response.third.expansion import ThirdHost, crystal_of_network
from phonopy_equivariant.response.third.sweep import first_orders
from phonopy_equivariant.response.third.triplet import third_derivatives
from phonopy_equivariant.runtime.compilation import Begun, generation, x64_mode

_WORKERS = 4

# Which programs were begun, and when: (model, dtype) -> generation of compiled functions
_begun: dict[tuple[LayeredModel, str], int] = {}


class _ThirdRehearsal(Rehearsal, ThirdHost):
    """A host of third order that begins programs and goes on with zeros."""


def begin_third_order_programs(potential: Potential) -> None:
    """Load or begin to compile all programs of third order, once.

    Returns before all are compiled; whoever needs one waits for it.
    """
    key = potential.model, potential.dtype
    if host_driven() and _begun.get(key) != generation():
        rehearse_third_order(potential)


def rehearse_third_order(potential: Potential) -> list[Begun]:
    """Load or begin to compile all programs of third-order force constants; return them."""
    _begun[potential.model, potential.dtype] = generation()
    workers = ThreadPoolExecutor(min(_WORKERS, os.cpu_count() or 1))
    first = np.zeros(1, np.int32)
    vectors = np.array([[potential.cutoff / 2, 0.0, 0.0]], potential.dtype)
    network = Network(vectors, first, first, first)
    try:
        with x64_mode():
            run = _ThirdRehearsal(potential.model, potential.params, workers)
            # one atom that displaces itself, through one edge
            crystal = crystal_of_network(run, network, np.zeros((1, 3), int))
            changes = first_orders(crystal, np.zeros((1, 3)))
            third_derivatives(crystal, changes * 3)
    finally:
        workers.shutdown(wait=False)
    return run.begun

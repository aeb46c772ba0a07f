"""Φ(q) of a crystal for any list of q: network, expansion once, then blocks of q."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Complex, Float
from numpy import ndarray

from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.columns import PairTable, bloch_force_constants
from phonopy_equivariant.response.bloch.equilibrium import Equilibrium
from phonopy_equivariant.response.bloch.execution import Host, Traced
from phonopy_equivariant.response.bloch.expansion import Expansion
from phonopy_equivariant.response.bloch.prepare import Lattice, Motion, equilibrium_of, prepare
from phonopy_equivariant.response.symmetry.little_group import (
    Completion,
    LittleGroup,
    completion,
    irrep_of,
    little_groups,
    orbits,
    pick_q,
    sum_over_group,
)
from phonopy_equivariant.response.symmetry.operations import Operations
from phonopy_equivariant.response.symmetry.star import real_q
from phonopy_equivariant.runtime.blas import one_blas_thread
from phonopy_equivariant.runtime.compilation import compiled, x64_mode
from phonopy_equivariant.runtime.notes import Share, note

# Bytes that one block of q may take unless the caller says otherwise.
MAX_MEMORY = 4 * 2**30


class LatticeResponse(NamedTuple):
    """Φ(q), with a motion dΦ(q)/dη after it, and forces, stress and features on the way there."""

    values: Complex[ndarray, "orders q columns columns"]  # eV/Å²
    equilibrium: Equilibrium


def lattice_force_constants(
    potential: Potential,
    primitive: Any,
    qpoints: Float[ndarray, "q 3"],
    max_memory: int = MAX_MEMORY,
    symmetry: Operations | None = None,
) -> Complex[ndarray, "q columns columns"]:
    """Return Φ(q) in the lattice gauge, (n_q, 3n, 3n), eV/Å².

    Φ_ij(q) = sum_S Φ(0i, Sj) e^{2πi q·S}, S the integer cell vectors of ``primitive`` and q in
    units of its reciprocal vectors. Exact at every q; no supercell is involved.

    Parameters
    ----------
    potential, primitive
        A layered potential; an ASE, phonopy or own structure, periodic in three directions
        (others need q = 0 along their open directions).
    qpoints
        Points in units of the reciprocal lattice vectors.
    max_memory
        Bytes that a block of q may take, by an estimate; more q at once are faster. Where the
        device has less, blocks are halved until they fit.
    symmetry
        The space group of ``primitive``: only one atom of every orbit of the little group of q
        is then computed. Without it all are, to the same result.

    """
    return lattice_response(potential, primitive, qpoints, max_memory, symmetry).values[0]


def lattice_response(
    potential: Potential,
    primitive: Any,
    qpoints: Float[ndarray, "q 3"],
    max_memory: int = MAX_MEMORY,
    symmetry: Operations | None = None,
    motion: Motion | None = None,
) -> LatticeResponse:
    """Return Φ(q), and with a motion dΦ(q)/dη after it, and what else the expansion tells.

    The derivative is one forward derivative through expansion and Bloch response along the
    tangents of all edge vectors: at fixed fractional q the phases of the lattice gauge change
    neither with the cell nor with positions. The group must keep the motion as well.
    """
    qpoints = np.asarray(qpoints, float).reshape(-1, 3)
    groups = _useful_groups(symmetry, qpoints)
    if symmetry is None or groups is None:
        lattice = prepare(potential, primitive, motion=motion)
        values = respond(potential, lattice, qpoints, max_memory)
        return LatticeResponse(values, equilibrium_of(lattice))
    needed = np.unique(np.concatenate([group.representatives for group in groups]))
    some_orbits = orbits(symmetry, needed, _irreps(potential))
    lattice = prepare(potential, primitive, some_orbits, motion)
    values = respond(potential, lattice, qpoints, max_memory, symmetry, groups)
    return LatticeResponse(values, equilibrium_of(lattice, symmetry))


def respond(
    potential: Potential,
    lattice: Lattice,
    qpoints: Float[ndarray, "q 3"],
    max_memory: int = MAX_MEMORY,
    symmetry: Operations | None = None,
    groups: Sequence[LittleGroup] = (),
) -> Complex[ndarray, "orders q columns columns"]:
    """Return Φ(q) of a prepared crystal, and its derivative if it was prepared with a motion.

    With the little groups of all q only one atom of every orbit is computed; the crystal was
    prepared for at least those.

    Raises
    ------
    PhonopyEquivariantError
        Numbers that are not finite.

    """
    columns = 3 * len(lattice.species)
    orders = 1 if lattice.slope is None else 2
    if not len(qpoints):
        return np.empty((orders, 0, columns, columns), complex)
    parts = 1 if real_q(qpoints).all() else 2  # real numbers, or complex ones
    full = None
    if symmetry is not None:
        irreps = _irreps(potential)
        full = completion(symmetry, qpoints, groups, lattice.receivers, irreps, parts)
    size = block_size(potential, lattice, parts, len(qpoints), max_memory // orders)
    result = _in_blocks(potential, lattice, qpoints, parts, full, size)
    if symmetry is not None:
        for q, group in enumerate(groups):
            for order in result:
                order[q] = sum_over_group(symmetry, qpoints[q], group, order[q])
    return potential.require_finite(result)


def _useful_groups(
    symmetry: Operations | None, qpoints: Float[ndarray, "q 3"]
) -> list[LittleGroup] | None:
    """Return the little groups, or None where they relate no atoms at some q."""
    if symmetry is None or not len(qpoints):
        return None
    groups = little_groups(symmetry, qpoints)
    # one q without symmetry makes all atoms receivers; others may still gain
    least = min(len(group.representatives) for group in groups)
    return groups if least < symmetry.image.shape[1] else None


def _irreps(potential: Potential) -> list[str]:
    """Return the irreps of all features."""
    layouts = [layer.layout for layer in potential.model.layers]
    return sorted({irrep_of(key) for some in layouts for key in [*some.inputs, *some.outputs]})


def block_size(
    potential: Potential, lattice: Lattice, parts: int, count: int, max_memory: int
) -> int:
    """Return how many q go into one block: all, in equal blocks that fit the memory."""
    atoms, slots = len(lattice.species), lattice.slots.shape[1]
    width = max(
        layer.layout.num_components(key) * layer.layout.inputs[key] * (3 if key != "0e" else 1)
        for layer in potential.model.layers
        for key in layer.layout.groups
    )
    itemsize = np.dtype(potential.dtype).itemsize
    pairs = len(lattice.receivers) * atoms
    operator = 3 * parts * pairs * width
    columns = 8 * parts * 3 * pairs * width
    fixed = 2 * pairs * slots * width
    fitting = (max_memory / itemsize - fixed) / (operator + columns)
    blocks = -(-count // max(1, int(fitting)))
    return -(-count // blocks)


def _in_blocks(
    potential: Potential,
    lattice: Lattice,
    qpoints: ndarray,
    parts: int,
    full: Completion | None,
    size: int,
) -> ndarray:
    """Return Φ(q), ``size`` q at once, or fewer where the device has no memory for so many."""
    found: list[ndarray] = []
    start = 0
    share = Share(len(qpoints), f"{len(qpoints)} q")
    while start < len(qpoints):
        block = np.arange(start, start + size)
        # the last block is filled up with its last q, or shorter where nothing has to be compiled
        last = len(qpoints) - 1
        block = block[block <= last] if lattice.on_host else np.minimum(block, last)
        try:
            values = _block(potential, lattice, qpoints[block], parts, pick_q(full, block), share)
        except jax.errors.JaxRuntimeError as error:
            if size == 1 or "RESOURCE_EXHAUSTED" not in str(error):
                raise
            size = -(-size // 2)
            continue
        found.append(values[:, : len(qpoints) - start])
        start += size
    note("")
    return np.concatenate(found, axis=1)


def _block(
    potential: Potential,
    lattice: Lattice,
    qpoints: ndarray,
    parts: int,
    full: Completion | None,
    share: Share,
) -> ndarray:
    """Return Φ(q) of one block and its derivative along the motion, if there is one.

    With ``full`` the weighted sum over its receivers.
    """
    rows = slice(None) if full is None else full.rows
    slots, filled = (x[rows].reshape(-1, x.shape[2]) for x in (lattice.slots, lattice.filled))
    angles = 2 * np.pi * (qpoints @ lattice.shifts.T)
    real = real_q(qpoints)
    sines = np.where(real[:, None], 0.0, np.sin(angles))
    phases = np.stack([np.cos(angles), sines][:parts], axis=1)[:, :, slots]
    weighted = (phases * filled).astype(potential.dtype)
    if lattice.on_host:
        table = PairTable(slots, filled, weighted, full, real)
        receivers = len(slots) // len(lattice.species)
        part = len(qpoints) / (receivers * len(lattice.expansion.layers))
        run = Host(potential.model, potential.params, lambda: share.advance(part))
        with x64_mode(), one_blas_thread():
            values = (bloch_force_constants(run, lattice.expansion, lattice.species, table),)
    else:
        values = _bloch(
            potential.model,
            potential.params,
            lattice.expansion,
            lattice.species,
            slots,
            filled,
            weighted,
            full,
            lattice.slope,
        )
        share.advance(float(len(qpoints)))
    found = np.stack([np.asarray(x, float) for x in values]).astype(complex)
    return found[:, :, 0] if parts == 1 else found[:, :, 0] + 1j * found[:, :, 1]


@compiled(static_argnums=(0,), keep=True)
def _bloch(
    model: LayeredModel,
    params: Params,
    expansion: Expansion,
    species: Array,
    slots: Array,
    filled: Array,
    phases: Array,
    full: Completion | None,
    slope: Expansion | None,
) -> tuple[Array, ...]:
    table = PairTable(slots, filled, phases, full)

    def function(some: Expansion) -> Array:
        return bloch_force_constants(Traced(model, params), some, species, table)

    if slope is None:
        return (function(expansion),)
    return jax.jvp(function, (expansion,), (slope,))

"""Losses on Φ(q) and on spectra: reverse mode through the Bloch response.

One evaluation of the Bloch response gives the whole Φ(q) of a primitive cell, at any q, for a
few times the cost of a gradient; with it at hand there is nothing to sample but q. Losses are,
with n atoms and means over the q drawn,

    (1/n) sum_ij ρ(‖ΔΦ_ij(q)‖)           Φ in the lattice gauge, complex
    (1/n) sum_k |s(λ_k) - s(λ'_g(k))|²    λ = ω², s as in SpectrumTerm

λ' is the mean of the target's eigenvalues over the degenerate group g(k) that k belongs to. The
second sum is then a symmetric function of the model's eigenvalues within every group, and has a
derivative where they are degenerate.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Int
from numpy import ndarray
from phonopy.physical_units import get_physical_units

from phonopy_equivariant.graph import bucket_size, edge_bucket
from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.columns import PairTable, bloch_force_constants
from phonopy_equivariant.response.bloch.execution import Traced
from phonopy_equivariant.response.bloch.expansion import expand
from phonopy_equivariant.response.bloch.network import Network
from phonopy_equivariant.response.bloch.prepare import pair_slots
from phonopy_equivariant.response.symmetry.star import real_q
from phonopy_equivariant.structure import Structure, masses_of
from phonopy_equivariant.training.config import HessianTerm, LossConfig, SpectrumTerm
from phonopy_equivariant.training.losses import Metrics, rho, sums

# THz² per eV/Å²/amu
THZ2 = get_physical_units().DefaultToTHz ** 2

# Diagonal element (THz²) of columns that are padding, above any eigenvalue.
_BEYOND = 1e6


# on the host or on a device
Values = ndarray | Array


class Cell(NamedTuple):
    """A primitive cell, padded to bucket sizes; all that does not depend on q."""

    atoms: int
    vectors: Float[ndarray, "edges 3"]
    senders: Int[ndarray, " edges"]
    receivers: Int[ndarray, " edges"]
    species: Int[ndarray, " padded"]
    shifts: Int[ndarray, "real 3"]
    slots: Int[ndarray, "pairs m"]
    filled: Float[ndarray, "pairs m"]
    inverse_root_mass: Float[ndarray, " columns"]  # amu^-½, zero on padding


class LatticeBatch(NamedTuple):
    """One cell at some q, with targets; arrays with axis ``q`` may be spread over devices."""

    vectors: Values  # (edges, 3)
    senders: Values  # (edges,)
    receivers: Values  # (edges,)
    species: Values  # (padded,)
    slots: Values  # (pairs, m)
    filled: Values  # (pairs, m)
    inverse_root_mass: Values  # (columns,)
    phases: Values  # (q, s, pairs, m)
    share: dict[str, Values]  # (q,) weights in the mean, set weight included, for each term
    force_constants: Values  # (q, s, columns, columns)
    eigenvalues: Values  # (q, columns) THz², means over degenerate groups


# What one evaluation of a loss takes: a padded graph of structures, or one cell at some q.
Batch = jraph.GraphsTuple | LatticeBatch


def make_cell(potential: Potential, structure: Structure, padded: int | None = None) -> Cell:
    """Return the padded cell of a structure, ``padded`` atoms in all if given.

    Padding atoms have no edges, so that their rows and columns of Φ vanish; padding edges join
    atom 0 to itself beyond the cutoff.
    """
    graph = potential.graph(structure)
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    shifts = np.asarray(graph.edges["shifts"])
    positions, cell = graph.nodes["positions"], graph.globals["cell"][0]
    vectors = positions[senders] + shifts @ cell - positions[receivers]
    atoms = len(structure.numbers)
    padded = bucket_size(atoms, 2) if padded is None else padded
    padding = edge_bucket(len(senders)) - len(senders)
    slots, filled = pair_slots(senders, receivers, padded)
    slot_padding = ((0, 0), (0, bucket_size(slots.shape[1]) - slots.shape[1]))
    zeros = np.zeros(padding, np.int32)
    inverse_root_mass = np.zeros(3 * padded)
    inverse_root_mass[: 3 * atoms] = np.repeat(masses_of(structure), 3) ** -0.5
    return Cell(
        atoms,
        np.concatenate([vectors, np.tile([1e3, 0.0, 0.0], (padding, 1))]),
        np.concatenate([senders, zeros]),
        np.concatenate([receivers, zeros]),
        np.pad(graph.nodes["species"], (0, padded - atoms)).astype(np.int32),
        shifts,
        np.pad(slots, slot_padding),
        np.pad(filled, slot_padding),
        inverse_root_mass,
    )


def make_batch(
    cell: Cell,
    qpoints: Float[ndarray, "q 3"],
    drawn: Int[ndarray, " drawn"],
    share: dict[str, float],
    force_constants: Complex[ndarray, "q columns columns"] | None = None,
    eigenvalues: Float[ndarray, "q columns"] | None = None,
    multiple: int = 1,
) -> LatticeBatch:
    """Return a cell at the q drawn with its targets, q padded to a multiple of ``multiple``."""
    count = len(drawn)
    padded = np.concatenate([qpoints[drawn], np.zeros((-count % multiple, 3))])
    angles = 2 * np.pi * (padded @ cell.shifts.T)
    # of all q, so that every choice from them has the same shape
    parts = 1 if real_q(qpoints).all() else 2
    phases = np.stack([np.cos(angles), np.sin(angles)][:parts], axis=1)
    phases = np.concatenate(  # slots of padding edges are never filled
        [phases, np.zeros((*phases.shape[:2], len(cell.senders) - len(cell.shifts)))], axis=2
    )
    columns = len(cell.inverse_root_mass)
    matrices = np.zeros((len(padded), parts, columns, columns))
    values = np.zeros((len(padded), columns))
    if force_constants is not None:
        real, target = slice(3 * cell.atoms), force_constants[drawn]  # the rest is padding
        matrices[:count, 0, real, real] = target.real
        matrices[:count, 1:, real, real] = target.imag[:, None][:, : parts - 1]
    if eigenvalues is not None:
        values[:count, : 3 * cell.atoms] = eigenvalues[drawn]
    weights = np.zeros(len(padded))
    weights[:count] = 1 / count
    return LatticeBatch(
        *cell[1:5],
        cell.slots,
        cell.filled,
        cell.inverse_root_mass,
        phases[:, :, cell.slots] * cell.filled,
        {name: value * weights for name, value in share.items()},
        matrices,
        values,
    )


def group_means(
    frequencies: Float[ndarray, "q columns"], degeneracy: float
) -> Float[ndarray, "q columns"]:
    """Return eigenvalues sign(f)·f² (THz²), each the mean over its degenerate group.

    A group is a run of ascending frequencies with steps below ``degeneracy`` (THz).
    """
    ordered = np.sort(frequencies, axis=1)
    values = np.sign(ordered) * ordered**2
    result = np.empty_like(values)
    for q, row in enumerate(ordered):
        starts = np.concatenate([[0], 1 + np.flatnonzero(np.diff(row) >= degeneracy), [len(row)]])
        for start, stop in zip(starts[:-1], starts[1:], strict=True):
            result[q, start:stop] = values[q, start:stop].mean()
    return result


def spectral_loss(
    model: LayeredModel, loss: LossConfig, params: Params, batch: LatticeBatch
) -> tuple[Float[Array, ""], Metrics]:
    """Return the loss of one cell and the sums its metrics are made of.

    Parameters
    ----------
    model, loss
        Static: the functions of the potential, and the terms this batch has data for.
    params, batch
        Of the model; a cell at some q.

    """
    values = force_constants(model, params, batch).astype(batch.eigenvalues.dtype)
    real = jnp.asarray(batch.inverse_root_mass) > 0
    total, metrics = jnp.zeros(()), {}
    if loss.hessian is not None:
        value, metrics["hessian"] = _matrix_term(loss.hessian, values, batch, real)
        total = total + loss.hessian.weight * value
    if loss.spectrum is not None:
        value, metrics["spectrum"] = _spectrum_term(loss.spectrum, values, batch, real)
        total = total + loss.spectrum.weight * value
    return total, metrics


def force_constants(
    model: LayeredModel, params: Params, batch: LatticeBatch
) -> Float[Array, "q s columns columns"]:
    """Return Φ(q) (eV/Å²), real and imaginary part on axis ``s``."""
    dtype = jax.tree.leaves(params)[0].dtype
    network = Network(batch.vectors.astype(dtype), batch.senders, batch.receivers, batch.species)
    run = Traced(model, params)
    expansion = expand(run, network)
    table = PairTable(batch.slots, batch.filled.astype(dtype), batch.phases.astype(dtype))
    return bloch_force_constants(run, expansion, batch.species, table)


def eigenvalues(matrix: Complex[Array, "... n n"] | Float[Array, "... n n"]) -> Array:
    """Return ascending eigenvalues of Hermitian matrices.

    Their derivative is diag(V^† dA V): sums over a degenerate group have the right one, whatever
    basis V has there, and no difference of eigenvalues is divided by.
    """
    vectors = jax.lax.stop_gradient(jnp.linalg.eigh(matrix)[1])
    values = jnp.einsum("...ak,...ab,...bk->...k", vectors.conj(), matrix, vectors)
    return jnp.real(values)


def smooth_root(values: Float[Array, "..."], smoothing: float) -> Float[Array, "..."]:
    """Return λ/(λ² + s⁴)^¼: sign(λ)√|λ| far from zero, λ/s at zero, smooth throughout."""
    return values / (values**2 + smoothing**4) ** 0.25


def _matrix_term(
    term: HessianTerm,
    values: Float[Array, "q s columns columns"],
    batch: LatticeBatch,
    real: Bool[Array, " columns"],
) -> tuple[Array, Array]:
    share = jnp.asarray(batch.share["hessian"])
    atoms = jnp.sum(real).astype(share.dtype) / 3
    square = jnp.sum((values - batch.force_constants) ** 2, axis=1)
    q, columns = square.shape[:2]
    blocks = square.reshape(q, columns // 3, 3, columns // 3, 3).sum(axis=(2, 4))
    by_column = jnp.sum(blocks, axis=1)
    costs = rho(term, blocks) if term.over == "block" else rho(term, by_column)
    value = jnp.sum(share * costs.reshape(q, -1).sum(axis=1)) / atoms
    return value, sums(by_column.sum(axis=1) / atoms, share > 0)


def _spectrum_term(
    term: SpectrumTerm,
    values: Float[Array, "q s columns columns"],
    batch: LatticeBatch,
    real: Bool[Array, " columns"],
) -> tuple[Array, Array]:
    share = jnp.asarray(batch.share["spectrum"])
    weights = batch.inverse_root_mass.astype(values.dtype)
    scaled = THZ2 * values * weights[:, None] * weights
    matrix = scaled[:, 0] if scaled.shape[1] == 1 else jax.lax.complex(scaled[:, 0], scaled[:, 1])
    matrix = matrix + jnp.diag(jnp.where(real, 0.0, _BEYOND)).astype(matrix.dtype)
    # ascending, so that padding comes last
    counted = jnp.arange(len(real)) < jnp.sum(real)
    squares = jnp.where(counted, eigenvalues(matrix), 0.0)
    target = jnp.asarray(batch.eigenvalues)
    roots = smooth_root(squares, term.smoothing) - smooth_root(target, term.smoothing)
    residual = roots if term.form == "root" else squares - target
    atoms = jnp.sum(real).astype(share.dtype) / 3
    value = jnp.sum(share * jnp.sum(residual**2, axis=1)) / atoms
    return value, sums(jnp.sum(jnp.abs(roots), axis=1) / (3 * atoms), share > 0)

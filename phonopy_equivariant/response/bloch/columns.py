"""Φ(q) on the primitive cell: the Bloch response of a layered potential.

A lattice displacement with wave vector q moves image S of atom j by u_j e^{2πi q·S}. Every
first-order change carries the same phase, so an edge to an image carries the phase in place of a
copy of the atom, and the whole calculation stays on the primitive cell:

    δr_e = e^{2πi q·S} u_j - u_i
    δy_i = sum_e [ source_e·δr_e ] + mix( sum_e e^{2πi q·S} K_e δg_j , δh_i )
    δh'  = activate'(δy),   δg = message'(δh)

and the second derivative follows from first-order changes alone (the 2n+1 theorem of density-
functional perturbation theory, Gonze, Phys. Rev. A 52, 1096 (1995)):

    Φ_cd(q) = sum_e δr_e^{c*}·bond_e·δr_e^d + sum_t { sum_i δy^{c*}·φ''·δy^d
              + [ sum_e δr_e^{c*}·adjoint_e·e^{2πi q·S} δg_j^d + h.c. ] }

Per q only phases change: edges with the same (i, j) collapse into M_ij(q) = sum_S e^{2πi q·S} K.
Everything is a sum over receivers i. With a :class:`.little_group.Completion` only one atom of
every orbit is a receiver, and the result is the weighted sum over those alone.
Complex numbers are kept as real and imaginary part on an axis of their own, ``s``, which has
length one where 2q is a reciprocal lattice vector and everything is real.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from phonopy_equivariant.response.bloch import local
from phonopy_equivariant.response.bloch.arrays import (
    Array,
    Features,
    add_to_real,
    complex_parts,
    contract,
    eye,
    hermitian,
    on_host,
)
from phonopy_equivariant.response.bloch.execution import Execution
from phonopy_equivariant.response.bloch.expansion import Expansion, LayerExpansion
from phonopy_equivariant.response.symmetry.little_group import Completion, irrep_of


class PairTable(NamedTuple):
    """Edges sorted into pairs of atoms: pair i·n + j holds its images in ``m`` slots.

    ``phases`` is e^{2πi q·S} of every slot, zero where a slot is empty. Receivers i are those of
    ``completion``, or all n atoms. Where ``real`` is true, all imaginary parts are zero.
    """

    slots: Int[Array, "pairs m"]
    filled: Float[Array, "pairs m"]
    phases: Float[Array, "q s pairs m"]
    completion: Completion | None = None
    real: Bool[Array, " q"] | None = None

    def own(self, values: Array) -> Array:
        """Return the rows of the receivers, of those of the expansion."""
        return values if self.completion is None else values[self.completion.rows]

    def is_receiver(self, atoms: int) -> Float[Array, "receivers atoms"]:
        """Return a 0/1 matrix: entry (r, i) is 1 if receiver r is atom i."""
        identity = eye(atoms, self.filled)
        return identity if self.completion is None else identity[self.completion.receivers]

    def weight(self, receivers: int) -> Float[Array, "q receivers"]:
        """Return how many atoms each receiver stands for."""
        if self.completion is None:
            module = np if on_host(self.filled) else jnp
            return module.ones((len(self.phases), receivers), self.filled.dtype)
        return self.completion.weight.astype(self.filled.dtype)


def bloch_force_constants(
    run: Execution, expansion: Expansion, species: Int[Array, " atoms"], table: PairTable
) -> Float[Array, "q s columns columns"]:
    """Return Φ(q) in the lattice gauge (eV/Å²), real and imaginary part on axis ``s``."""
    receiver_of = table.is_receiver(len(species))
    weight = table.weight(len(receiver_of))
    own_species = species if table.completion is None else species[table.completion.receivers]
    result = _bond_part(expansion.bond, table, receiver_of, weight)
    changes: Features = {}  # δh of the receivers, {irrep: (receivers, q, s, columns, 2l+1, u)}
    sent: Features = {}  # δg of the receivers
    for t, every in enumerate(expansion.layers):
        terms = _own_terms(every, table)
        source = _source_part(terms.source, table, receiver_of)
        messages = {key: _all_atoms(key, x, table) for key, x in sent.items()}
        if messages:
            half = _adjoint_part(terms.adjoint, messages, table, receiver_of, weight)
            result = result + half + hermitian(half)
        changes, sent, curvature = _node_part(
            run, t, terms, table, own_species, (messages, changes, source, weight)
        )
        result = result + curvature
    return result


def _own_terms(terms: LayerExpansion, table: PairTable) -> LayerExpansion:
    """Select this block's receivers from the receivers of the expansion; edges stay."""
    return terms._replace(
        point=jax.tree.map(table.own, terms.point),
        product=None if terms.product is None else jax.tree.map(table.own, terms.product),
    )


def _all_atoms(
    key: str, values: Float[Array, "receivers q s columns m u"], table: PairTable
) -> Float[Array, "atoms q s columns m u"]:
    """Return responses of all atoms from those of the receivers (see :mod:`.little_group`)."""
    full = table.completion
    if full is None:
        return values
    _, q, s, columns, m, u = values.shape
    atoms, dtype = columns // 3, values.dtype
    rotation, turn = full.rotation.astype(dtype), full.turn[irrep_of(key)].astype(dtype)
    phase = full.phase.astype(dtype)[..., None, None, None]  # (q, s, i', j', 1, 1, 1)
    sign = full.sign.astype(dtype)[:, :, None, None, None, None]
    ordered = values.reshape(-1, q, s, atoms, 3, m, u).transpose(1, 0, 3, 4, 5, 2, 6)
    blocks = np.arange(q)[:, None, None]
    # (q, i', j', z n, s u)
    picked = ordered[blocks, full.source[:, :, None], full.column]
    picked = picked.reshape(q, atoms, atoms, 3 * m, s * u)
    # one matrix for both rotations: (w m), (z n)
    both = rotation[:, :, :, None, :, None] * turn[:, :, None, :, None, :]
    both = both.reshape(q, atoms, 1, 3 * m, 3 * m)
    turned = (both @ picked).reshape(q, atoms, atoms, 3, m, s, u)
    real = turned[..., 0, :] * phase[:, 0]
    if s == 1:
        parts = real[:, None]
    else:
        imaginary = turned[..., 1, :] * sign
        parts = complex_parts(
            real - imaginary * phase[:, 1],
            turned[..., 0, :] * phase[:, 1] + imaginary * phase[:, 0],
        )
    # (q, s, i', j', w, m, u)
    return parts.transpose(2, 0, 1, 3, 4, 5, 6).reshape(atoms, q, s, columns, m, u)


def _assemble(values: Float[Array, "edges ..."], table: PairTable) -> Float[Array, "pairs q s ..."]:
    """Return sum_S e^{2πi q·S} x_e for every pair: one matrix product serves all q."""
    q, s, pairs, slots = table.phases.shape
    slotted = values[table.slots.reshape(-1)].reshape(pairs, slots, -1)
    left = table.phases.transpose(2, 0, 1, 3).reshape(pairs, q * s, slots)
    return (left @ slotted).reshape(pairs, q, s, *values.shape[1:])


def _row_sums(values: Float[Array, "edges ..."], table: PairTable, atoms: int) -> Array:
    """Return sum_e x_e over the images of every pair without phase, (i, j, ...)."""
    pairs, slots = table.slots.shape
    slotted = values[table.slots.reshape(-1)].reshape(pairs, slots, -1)
    return (table.filled[:, None] @ slotted).reshape(-1, atoms, *values.shape[1:])


def _bond_part(
    bond: Float[Array, "edges 3 3"],
    table: PairTable,
    receiver_of: Float[Array, "receivers atoms"],
    weight: Float[Array, "q receivers"],
) -> Float[Array, "q s columns columns"]:
    """Return sum_e δr^{c*}·bond·δr^d for unit displacements c, d."""
    blocks = _assemble(bond, table)  # (pairs, q, s, 3, 3)
    receivers, atoms = receiver_of.shape
    q, s = blocks.shape[1:3]
    rows = weight.T[:, :, None] * receiver_of[:, None, :]  # (receivers, q, atoms)
    blocks = blocks.reshape(receivers, atoms, q, s, 3, 3)
    upper = contract("rqi,rjqsvw->qsivjw", rows, blocks).reshape(q, s, 3 * atoms, 3 * atoms)
    plain = _row_sums(bond, table, atoms)
    diagonal = contract("rqi,rvw->qivw", rows, plain.sum(axis=1))
    diagonal = diagonal + contract("qr,rjvw->qjvw", weight, plain)
    local_part = contract("qivw,ij->qivjw", diagonal, eye(atoms, bond))
    return add_to_real(-(upper + hermitian(upper)), local_part.reshape(-1, 3 * atoms, 3 * atoms))


def _source_part(
    source: Features, table: PairTable, receiver_of: Float[Array, "receivers atoms"]
) -> Features:
    """Return δy_i = sum_e source_e·δr_e for columns (j, z), (i, q, s, columns, 2l+1, w)."""
    receivers, atoms = receiver_of.shape
    result = {}
    for key, values in source.items():
        blocks = _assemble(values, table)
        _, q, s, _, m, w = blocks.shape
        moved = blocks.reshape(receivers, atoms, q, s, 3, m, w).transpose(2, 3, 0, 1, 4, 5, 6)
        own = _row_sums(values, table, atoms).sum(axis=1)  # (i, 3, m, w)
        local_part = contract("izmw,ij->ijzmw", own, receiver_of)
        moved = add_to_real(moved, -local_part[None])
        result[key] = moved.transpose(2, 0, 1, 3, 4, 5, 6).reshape(receivers, q, s, 3 * atoms, m, w)
    return result


def _node_part(
    run: Execution,
    t: int,
    terms: LayerExpansion,
    table: PairTable,
    species: Int[Array, " receivers"],
    given: tuple[Features, Features, Features, Float[Array, "q receivers"]],
) -> tuple[Features, Features, Float[Array, "q s columns columns"]]:
    """Return δh', δg' of the receivers and their part δy^{c*}·φ''·δy of Φ.

    ``given`` are δg of all atoms, δh of the receivers (both empty for the first layer), the
    source part of δy, and the weights of the receivers. δy = mix( sum_j M_ij(q) δg_j, δh_i ) +
    source. One receiver i at a time: M_i then stays in cache between its assembly and its use,
    and memory does not grow with the square of the number of atoms.
    """
    messages, changes, source, weight = given
    receivers = len(species)
    q, s, pairs, slots = table.phases.shape
    atoms = pairs // receivers
    index = table.slots.reshape(receivers, atoms * slots)
    # (receivers, q, s, atoms, slots)
    phases = table.phases.reshape(q, s, receivers, atoms, slots).transpose(2, 0, 1, 3, 4)
    # (q, u, rows, atoms · b)
    lefts = {
        key: x.transpose(1, 5, 2, 3, 0, 4).reshape(q, x.shape[5], -1, atoms * x.shape[4])
        for key, x in messages.items()
    }
    params = run.of_layer(t)

    def receiver(at_atom: Any, at_q: Any, shared: Any) -> tuple[Any, Array]:
        own_index, *at_atom = at_atom
        lefts, real = shared
        own_phases, own_weight, own_changes, own = at_q
        sums = {
            key: _row_product(run, t, key, terms, lefts[key], own_index, own_phases)
            for key in (run.kinds[t].layer.layout.groups if lefts else ())
        }
        leading = next(iter(own.values())).shape[:3]
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), (sums, own_changes, own))
        at_atom = jax.tree.map(lambda x: x[None], at_atom)
        mixed, curved, updated, sent = run.rows(
            local.respond, run.kinds[t], (*params, *at_atom), (flat,), _zero_rows(real, leading)
        )
        part = sum(_inner(mixed[key], curved[key], leading, own_weight) for key in mixed)
        return jax.tree.map(lambda x: x.reshape(*leading, *x.shape[1:]), (updated, sent)), part

    (updated, sent), part = run.over_receivers(
        receiver,
        (index, terms.point, terms.product, species),
        (phases, weight.T, changes, source),
        (lefts, table.real),
        weight,
    )
    return updated, sent, part


def _zero_rows(
    real: Bool[Array, " q"] | None, leading: tuple[int, int, int]
) -> Bool[Array, " rows"] | None:
    """Tell which rows (q, s, columns) are imaginary parts at q where everything is real."""
    q, s, columns = leading
    if real is None or s == 1 or not real.any():
        return None
    return np.repeat(np.stack([np.zeros(q, bool), real], axis=1).reshape(-1), columns)


def _row_product(
    run: Execution,
    t: int,
    key: str,
    terms: LayerExpansion,
    left: Float[Array, "q u rows inner"],
    index: Int[Array, " neighbours"],
    phases: Float[Array, "q s atoms m"],
) -> Float[Array, "q s columns a u"]:
    """Return sum_j M_ij(q) δg_j of one receiver: a matrix product for each q and channel."""
    kernel = run.kernel(t, key, terms.radial[key], terms.angular[key], index)
    _, a, b, u = kernel.shape
    q, s, atoms, slots = phases.shape
    factors = phases.transpose(2, 0, 1, 3).reshape(atoms, q * s, slots)
    operator = factors @ kernel.reshape(atoms, slots, -1)
    operator = operator.reshape(atoms, q, s, a, b, u)
    operator = operator.transpose(1, 5, 0, 4, 2, 3).reshape(q, u, atoms * b, s * a)
    product = (left @ operator).reshape(q, u, s, -1, s, a)
    if s == 1:
        return product[:, :, :, :, 0].transpose(0, 2, 3, 4, 1)
    parts = complex_parts(
        product[:, :, 0, :, 0] - product[:, :, 1, :, 1],
        product[:, :, 1, :, 0] + product[:, :, 0, :, 1],
    )
    return parts.transpose(0, 1, 3, 4, 2)


def _adjoint_part(
    adjoint: Features,
    messages: Features,
    table: PairTable,
    receiver_of: Float[Array, "receivers atoms"],
    weight: Float[Array, "q receivers"],
) -> Float[Array, "q s columns columns"]:
    """Return sum_e δr_e^{c*}·adjoint_e·e^{2πi q·S} δg_j^d."""
    receivers, atoms = receiver_of.shape
    total: Any = 0.0
    for key, values in adjoint.items():
        change = messages[key]
        _, q, s, columns = change.shape[:4]
        flat = change.transpose(1, 2, 3, 0, 4, 5).reshape(q, s, columns, atoms, -1)
        blocks = _assemble(values, table).reshape(receivers, atoms, q, s, 3, -1)
        # conj(e^{2πi q·S} u_j) meets e^{2πi q·S}: the phase drops out
        rows = _row_sums(values, table, atoms).reshape(receivers, atoms, 3, -1)
        own = contract("qr,rjzx->qjzx", weight, rows)
        local_part = contract("qjzx,qsdjx->qsjzd", own, flat)
        moved = contract("rjqszx,qtdjx->qstrzd", blocks, flat)
        far = moved[:, :, 0]
        if s == 2:
            far = complex_parts(moved[:, 0, 0] - moved[:, 1, 1], moved[:, 0, 1] + moved[:, 1, 0])
        far = contract("qsrzd,ri->qsizd", far * weight[:, None, :, None, None], receiver_of)
        total = total + (local_part - far).reshape(q, s, 3 * atoms, columns)
    return total


def _inner(
    left: Float[Array, "rows m w"],
    right: Float[Array, "rows m w"],
    leading: tuple[int, int, int],
    weight: Float[Array, " q"],
) -> Float[Array, "q s columns columns"]:
    """Return the weighted sum of x^{c*}·y^d over the components of one receiver."""
    q, s, columns = leading
    # one product of all parts: slices of real and imaginary part would be copied
    x = left.reshape(q, s * columns, -1) * weight[:, None, None]
    products = x @ right.reshape(q, s * columns, -1).swapaxes(1, 2)
    products = products.reshape(q, s, columns, s, columns)
    if s == 1:
        return products[:, :, :, 0]
    real = products[:, 0, :, 0] + products[:, 1, :, 1]
    return complex_parts(real, products[:, 0, :, 1] - products[:, 1, :, 0])

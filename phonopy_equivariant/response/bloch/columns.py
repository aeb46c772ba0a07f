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

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phonopy_equivariant.models.irreps import Features, expand_paths
from phonopy_equivariant.models.layered import Layer, LayeredModel, Params
from phonopy_equivariant.response.bloch.expansion import Expansion, LayerExpansion
from phonopy_equivariant.response.bloch.node import activation, node_function
from phonopy_equivariant.response.symmetry.little_group import Completion, irrep_of


class PairTable(NamedTuple):
    """Edges sorted into pairs of atoms: pair i·n + j holds its images in ``m`` slots.

    ``phases`` is e^{2πi q·S} of every slot, zero where a slot is empty. Receivers i are those of
    ``completion``, or all n atoms.
    """

    slots: Int[Array, "pairs m"]
    filled: Float[Array, "pairs m"]
    phases: Float[Array, "q s pairs m"]
    completion: Completion | None = None

    def own(self, values: Array) -> Array:
        """Return the rows of the receivers, of those of the expansion."""
        return values if self.completion is None else values[self.completion.rows]

    def is_receiver(self, atoms: int, dtype: Any) -> Float[Array, "receivers atoms"]:
        """Return one where a receiver is an atom."""
        identity = jnp.eye(atoms, dtype=dtype)
        return identity if self.completion is None else identity[self.completion.receivers]

    def weight(self, receivers: int, dtype: Any) -> Float[Array, "q receivers"]:
        """Return how many atoms each receiver stands for."""
        if self.completion is None:
            return jnp.ones((len(self.phases), receivers), dtype)
        return jnp.asarray(self.completion.weight, dtype)


def bloch_force_constants(
    model: LayeredModel,
    params: Params,
    expansion: Expansion,
    species: Int[Array, " atoms"],
    table: PairTable,
) -> Float[Array, "q s columns columns"]:
    """Return Φ(q) in the lattice gauge (eV/Å²), real and imaginary part on axis ``s``."""
    atoms = len(species)
    receiver_of = table.is_receiver(atoms, expansion.bond.dtype)
    weight = table.weight(len(receiver_of), expansion.bond.dtype)
    own_species = species if table.completion is None else species[table.completion.receivers]
    result = _bond_part(expansion.bond, table, receiver_of, weight)
    changes: Features | None = None  # δh, {irrep: (q, s, columns, receivers, 2l+1, u)}
    for layer, layer_params, every in zip(
        model.layers, params["layers"], expansion.layers, strict=True
    ):
        terms = _own_terms(every, table)
        mixed = _source_part(terms.source, table, receiver_of)
        if changes is not None:
            own_messages = _message_changes(layer, layer_params, terms, changes, own_species)
            messages = {key: _all_atoms(key, x, table) for key, x in own_messages.items()}
            half = _adjoint_part(terms.adjoint, messages, table, receiver_of, weight)
            result = result + half + _hermitian(half)
            carried = _carried(layer, layer_params, terms, messages, changes, table, own_species)
            mixed = {key: mixed[key] + x if key in mixed else x for key, x in carried.items()}
        leading = (*result.shape[:2], 3 * atoms)
        for key, value in terms.mixed.items():  # parts of y that no edge of this layer reaches
            mixed.setdefault(key, jnp.zeros((*leading, *value.shape), value.dtype))
        changes, curved = _node_changes(layer, layer_params, terms, mixed, own_species)
        result = result + sum(_inner(mixed[key], curved[key], weight) for key in mixed)
    return result


def _own_terms(terms: LayerExpansion, table: PairTable) -> LayerExpansion:
    """Return the expansion at the receivers of this block of q; edges stay as they are."""
    features, mixed, later = (
        {key: table.own(x) for key, x in some.items()}
        for some in (terms.features, terms.mixed, terms.later)
    )
    product = None if terms.product is None else jax.tree.map(table.own, terms.product)
    return terms._replace(features=features, mixed=mixed, later=later, product=product)


def _all_atoms(
    key: str, values: Float[Array, "q s columns receivers m u"], table: PairTable
) -> Float[Array, "q s columns atoms m u"]:
    """Return responses of all atoms from those of the receivers (see :mod:`.little_group`)."""
    full = table.completion
    if full is None:
        return values
    q, s, columns, receivers, m, u = values.shape
    atoms = columns // 3
    dtype = values.dtype

    def at_q(x: Array, source: Any, column: Any, rotation: Any, turn: Any) -> Array:
        # one matrix for both rotations: (w m), (z n)
        both = rotation[:, :, None, :, None] * turn[:, None, :, None, :]
        picked = x[source[:, None], column]  # (i', j', z, n, s, u)
        picked = picked.reshape(atoms, atoms, 3 * m, s * u)
        return jnp.einsum("iab,ijbx->ijax", both.reshape(atoms, 3 * m, 3 * m), picked)

    ordered = values.reshape(q, s, atoms, 3, receivers, m, u).transpose(0, 4, 2, 3, 5, 1, 6)
    turned = jax.vmap(at_q)(
        ordered,
        full.source,
        full.column,
        jnp.asarray(full.rotation, dtype),
        jnp.asarray(full.turn[irrep_of(key)], dtype),
    ).reshape(q, atoms, atoms, 3, m, s, u)
    phase = jnp.asarray(full.phase, dtype)[..., None, None, None]  # (q, s, i', j', 1, 1, 1)
    parts = [turned[:, :, :, :, :, 0] * phase[:, 0]]
    if s == 2:
        sign = jnp.asarray(full.sign, dtype)[:, :, None, None, None, None]
        imaginary = turned[:, :, :, :, :, 1] * sign
        parts = [
            parts[0] - imaginary * phase[:, 1],
            turned[:, :, :, :, :, 0] * phase[:, 1] + imaginary * phase[:, 0],
        ]
    # (s, q, i', j', w, m, u)
    return jnp.stack(parts).transpose(1, 0, 3, 4, 2, 5, 6).reshape(q, s, columns, atoms, m, u)


def _assemble(values: Float[Array, "edges ..."], table: PairTable) -> Float[Array, "pairs q s ..."]:
    """Return sum_S e^{2πi q·S} x_e for every pair."""
    return _phase_sums(values[table.slots.reshape(-1)], table)


def _phase_sums(
    slotted: Float[Array, "slots ..."], table: PairTable
) -> Float[Array, "pairs q s ..."]:
    """Return phase-weighted sums over the slots of a pair: one matrix product serves all q."""
    q, s, pairs, slots = table.phases.shape
    left = table.phases.transpose(2, 0, 1, 3).reshape(pairs, q * s, slots)
    product = jnp.einsum("pqm,pmx->pqx", left, slotted.reshape(pairs, slots, -1))
    return product.reshape(pairs, q, s, *slotted.shape[1:])


def _row_sums(values: Float[Array, "edges ..."], table: PairTable, atoms: int) -> Array:
    """Return sum_e x_e over the images of every pair without phase, (i, j, ...)."""
    picked = values[table.slots] * table.filled.reshape(
        *table.filled.shape, *[1] * (values.ndim - 1)
    )
    return picked.sum(axis=1).reshape(-1, atoms, *values.shape[1:])


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
    upper = jnp.einsum("rqi,rjqsvw->qsivjw", rows, blocks).reshape(q, s, 3 * atoms, 3 * atoms)
    plain = _row_sums(bond, table, atoms)
    diagonal = jnp.einsum("rqi,rvw->qivw", rows, plain.sum(axis=1))
    diagonal = diagonal + jnp.einsum("qr,rjvw->qjvw", weight, plain)
    local = jnp.einsum("qivw,ij->qivjw", diagonal, jnp.eye(atoms, dtype=bond.dtype))
    result = -(upper + _hermitian(upper))
    return result.at[:, 0].add(local.reshape(-1, 3 * atoms, 3 * atoms))


def _source_part(
    source: Features, table: PairTable, receiver_of: Float[Array, "receivers atoms"]
) -> Features:
    """Return δy_i = sum_e source_e·δr_e for columns (j, z), (q, s, columns, i, 2l+1, w)."""
    receivers, atoms = receiver_of.shape
    result = {}
    for key, values in source.items():
        blocks = _assemble(values, table)
        _, q, s, _, m, w = blocks.shape
        moved = blocks.reshape(receivers, atoms, q, s, 3, m, w).transpose(2, 3, 1, 4, 0, 5, 6)
        own = _row_sums(values, table, atoms).sum(axis=1)  # (i, 3, m, w)
        local = jnp.einsum("izmw,ij->jzimw", own, receiver_of)
        moved = moved.at[:, 0].add(-local)
        result[key] = moved.reshape(q, s, 3 * atoms, receivers, m, w)
    return result


def _message_changes(
    layer: Layer,
    params: Params,
    terms: LayerExpansion,
    changes: Features,
    species: Int[Array, " atoms"],
) -> Features:
    def tangent(change: Features) -> Features:
        return jax.jvp(lambda h: layer.message(params, h, species), (terms.features,), (change,))[1]

    return _over_columns(tangent, changes)


def _node_changes(
    layer: Layer,
    params: Params,
    terms: LayerExpansion,
    mixed: Features,
    species: Int[Array, " atoms"],
) -> tuple[Features, Features]:
    """Return δh' = activate'(δy) and φ''·δy."""
    slope = jax.grad(node_function(layer, params, terms.later, species, terms.product))
    activate = activation(layer, params, species, terms.product)

    def tangent(change: Features) -> tuple[Features, Features]:
        return jax.jvp(lambda y: (activate(y), slope(y)), (terms.mixed,), (change,))[1]

    return _over_columns(tangent, mixed)


def _over_columns(function: Callable[[Features], Any], columns: Features) -> Any:
    """Apply a function of features to every (q, s, column)."""
    leading = jax.tree.leaves(columns)[0].shape[:3]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), columns)
    result = jax.vmap(function)(flat)
    return jax.tree.map(lambda x: x.reshape(*leading, *x.shape[1:]), result)


def _carried(
    layer: Layer,
    params: Params,
    terms: LayerExpansion,
    messages: Features,
    changes: Features,
    table: PairTable,
    species: Int[Array, " atoms"],
) -> Features:
    """Return mix( sum_j M_ij(q) δg_j, δh_i ), (q, s, columns, i, 2l+1, w).

    One receiver i at a time: M_i then stays in cache between its assembly and its use, and
    memory does not grow with the square of the number of atoms.
    """
    receivers = len(species)
    q, s, pairs, slots = table.phases.shape
    atoms = pairs // receivers
    index = table.slots.reshape(receivers, atoms * slots)
    phases = table.phases.reshape(q, s, receivers, atoms, slots).transpose(2, 3, 0, 1, 4)
    lefts = {
        key: x.transpose(0, 5, 1, 2, 3, 4).reshape(q, x.shape[5], -1, atoms * x.shape[4])
        for key, x in messages.items()
    }

    def receiver(inputs: tuple[Any, ...]) -> Features:
        own_index, own_phases, own_species, own_changes = inputs
        sums = {
            key: _row_product(layer, key, terms, lefts[key], own_index, own_phases)
            for key in layer.layout.groups
        }
        leading = jax.tree.leaves(own_changes)[0].shape[:3]
        count = leading[0] * leading[1] * leading[2]

        def flat(tree: Features) -> Features:
            return {key: x.reshape(count, *x.shape[3:]) for key, x in tree.items()}

        mixed = layer.mix(params, flat(sums), flat(own_changes), jnp.full(count, own_species))
        return {key: x.reshape(*leading, *x.shape[1:]) for key, x in mixed.items()}

    by_receiver = {key: jnp.moveaxis(x, 3, 0) for key, x in changes.items()}
    carried = jax.lax.map(receiver, (index, phases, species, by_receiver))
    return {key: jnp.moveaxis(x, 0, 3) for key, x in carried.items()}


def _row_product(
    layer: Layer,
    key: str,
    terms: LayerExpansion,
    left: Float[Array, "q u rows inner"],
    index: Int[Array, " neighbours"],
    phases: Float[Array, "atoms q s m"],
) -> Float[Array, "q s columns a u"]:
    """Return sum_j M_ij(q) δg_j of one receiver: a matrix product for each q and channel."""
    # the factors are gathered into the slots, not the ten times larger kernel
    radial = expand_paths(layer.layout.groups[key], terms.radial[key][index])
    kernel = radial[:, :, None, :] * terms.angular[key][index][:, :, :, None]
    _, a, b, u = kernel.shape
    atoms, q, s, slots = phases.shape
    operator = jnp.einsum(
        "jxm,jmy->jxy", phases.reshape(atoms, q * s, slots), kernel.reshape(atoms, slots, -1)
    ).reshape(atoms, q, s, a, b, u)
    operator = operator.transpose(1, 5, 0, 4, 2, 3).reshape(q, u, atoms * b, s * a)
    product = jnp.einsum("qucy,quyx->qucx", left, operator).reshape(q, u, s, -1, s, a)
    if s == 1:
        parts = [product[:, :, 0, :, 0]]
    else:
        parts = [
            product[:, :, 0, :, 0] - product[:, :, 1, :, 1],
            product[:, :, 1, :, 0] + product[:, :, 0, :, 1],
        ]
    return jnp.stack([part.transpose(0, 2, 3, 1) for part in parts], axis=1)


def _adjoint_part(
    adjoint: Features,
    messages: Features,
    table: PairTable,
    receiver_of: Float[Array, "receivers atoms"],
    weight: Float[Array, "q receivers"],
) -> Float[Array, "q s columns columns"]:
    """Return sum_e δr_e^{c*}·adjoint_e·e^{2πi q·S} δg_j^d."""
    receivers, atoms = receiver_of.shape
    parts = []
    for key, values in adjoint.items():
        change = messages[key]
        q, s, columns = change.shape[:3]
        flat = change.reshape(q, s, columns, atoms, -1)
        blocks = _assemble(values, table).reshape(receivers, atoms, q, s, 3, -1)
        # conj(e^{2πi q·S} u_j) meets e^{2πi q·S}: the phase drops out
        rows = _row_sums(values, table, atoms).reshape(receivers, atoms, 3, -1)
        own = jnp.einsum("qr,rjzx->qjzx", weight, rows)
        local = jnp.einsum("qjzx,qsdjx->qsjzd", own, flat)
        moved = jnp.einsum("rjqszx,qtdjx->qstrzd", blocks, flat)
        if s == 1:
            far = moved[:, :, 0]
        else:
            far = jnp.stack(
                [moved[:, 0, 0] - moved[:, 1, 1], moved[:, 0, 1] + moved[:, 1, 0]], axis=1
            )
        far = far * weight[:, None, :, None, None]
        far = jnp.einsum("qsrzd,ri->qsizd", far, receiver_of)
        parts.append((local - far).reshape(q, s, 3 * atoms, columns))
    return jnp.sum(jnp.stack(parts), axis=0)


def _inner(
    left: Float[Array, "q s columns receivers ..."],
    right: Float[Array, "q s columns receivers ..."],
    weight: Float[Array, "q receivers"],
) -> Float[Array, "q s columns columns"]:
    """Return the weighted sum of x^{c*}·y^d over receivers and components."""
    q, s, columns = left.shape[:3]
    left = left * weight[:, None, None, :, None, None]
    # one product of all parts: slices of real and imaginary part would be copied
    x, y = left.reshape(q, s * columns, -1), right.reshape(q, s * columns, -1)
    products = jnp.einsum("qcx,qdx->qcd", x, y).reshape(q, s, columns, s, columns)
    if s == 1:
        return products[:, :, :, 0]
    real = products[:, 0, :, 0] + products[:, 1, :, 1]
    return jnp.stack([real, products[:, 0, :, 1] - products[:, 1, :, 0]], axis=1)


def _hermitian(matrix: Float[Array, "q s c d"]) -> Float[Array, "q s d c"]:
    """Return the Hermitian conjugate."""
    swapped = jnp.swapaxes(matrix, 2, 3)
    return swapped if matrix.shape[1] == 1 else swapped.at[:, 1].multiply(-1)

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
from phonopy_equivariant.response.expansion import Expansion, LayerExpansion, node_function


class PairTable(NamedTuple):
    """Edges sorted into pairs of atoms: pair i·n + j holds its images in ``m`` slots.

    ``phases`` is e^{2πi q·S} of every slot, zero where a slot is empty.
    """

    slots: Int[Array, "pairs m"]
    filled: Float[Array, "pairs m"]
    phases: Float[Array, "q s pairs m"]


def bloch_force_constants(
    model: LayeredModel,
    params: Params,
    expansion: Expansion,
    species: Int[Array, " atoms"],
    table: PairTable,
) -> Float[Array, "q s columns columns"]:
    """Return Φ(q) in the lattice gauge (eV/Å²), real and imaginary part on axis ``s``."""
    result = _bond_part(expansion.bond, table, len(species))
    changes: Features | None = None  # δh, {irrep: (q, s, columns, atoms, 2l+1, u)}
    for layer, layer_params, terms in zip(
        model.layers, params["layers"], expansion.layers, strict=True
    ):
        mixed = _source_part(terms.source, table, len(species))
        if changes is not None:
            messages = _message_changes(layer, layer_params, terms, changes, species)
            half = _adjoint_part(terms.adjoint, messages, table, len(species))
            result = result + half + _hermitian(half)
            carried = _carried(layer, layer_params, terms, messages, changes, table, species)
            mixed = {key: mixed[key] + x if key in mixed else x for key, x in carried.items()}
        leading = (*result.shape[:2], 3 * len(species))
        for key, value in terms.mixed.items():  # parts of y that no edge of this layer reaches
            mixed.setdefault(key, jnp.zeros((*leading, *value.shape), value.dtype))
        changes, curved = _node_changes(layer, layer_params, terms, mixed, species)
        result = result + sum(_inner(mixed[key], curved[key]) for key in mixed)
    return result


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
    return picked.sum(axis=1).reshape(atoms, atoms, *values.shape[1:])


def _bond_part(
    bond: Float[Array, "edges 3 3"], table: PairTable, atoms: int
) -> Float[Array, "q s columns columns"]:
    """Return sum_e δr^{c*}·bond·δr^d for unit displacements c, d."""
    blocks = _assemble(bond, table)  # (pairs, q, s, 3, 3)
    q, s = blocks.shape[1:3]
    blocks = blocks.reshape(atoms, atoms, q, s, 3, 3)
    upper = blocks.transpose(2, 3, 0, 4, 1, 5).reshape(q, s, 3 * atoms, 3 * atoms)
    plain = _row_sums(bond, table, atoms)
    diagonal = plain.sum(axis=1) + plain.sum(axis=0)
    local = jnp.einsum("ivw,ij->ivjw", diagonal, jnp.eye(atoms, dtype=bond.dtype))
    result = -(upper + _hermitian(upper))
    return result.at[:, 0].add(local.reshape(3 * atoms, 3 * atoms))


def _source_part(source: Features, table: PairTable, atoms: int) -> Features:
    """Return δy_i = sum_e source_e·δr_e for columns (j, z), (q, s, columns, i, 2l+1, w)."""
    result = {}
    for key, values in source.items():
        blocks = _assemble(values, table)
        _, q, s, _, m, w = blocks.shape
        moved = blocks.reshape(atoms, atoms, q, s, 3, m, w).transpose(2, 3, 1, 4, 0, 5, 6)
        own = _row_sums(values, table, atoms).sum(axis=1)  # (i, 3, m, w)
        local = jnp.einsum("izmw,ij->jzimw", own, jnp.eye(atoms, dtype=values.dtype))
        moved = moved.at[:, 0].add(-local)
        result[key] = moved.reshape(q, s, 3 * atoms, atoms, m, w)
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
    slope = jax.grad(node_function(layer, params, terms.later, species))

    def tangent(change: Features) -> tuple[Features, Features]:
        return jax.jvp(
            lambda y: (layer.activate(params, y, species), slope(y)), (terms.mixed,), (change,)
        )[1]

    return _over_columns(tangent, mixed)


def _over_columns(function: Callable[[Features], Any], columns: Features) -> Any:
    """Apply a function of features to every (q, s, column)."""
    leading = jax.tree.leaves(columns)[0].shape[:3]
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), columns)
    return jax.tree.map(lambda x: x.reshape(*leading, *x.shape[1:]), jax.vmap(function)(flat))


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
    atoms = len(species)
    q, s, _, slots = table.phases.shape
    index = table.slots.reshape(atoms, atoms * slots)
    phases = table.phases.reshape(q, s, atoms, atoms, slots).transpose(2, 3, 0, 1, 4)
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
    # the barrier keeps the transposition of the factors out of the loop over their product
    radial, angular = jax.lax.optimization_barrier(
        (radial.transpose(0, 2, 1), terms.angular[key][index].transpose(0, 2, 1))
    )
    kernel = radial[:, :, None, :] * angular[:, None, :, :]
    _, u, b, a = kernel.shape
    atoms, q, s, slots = phases.shape
    operator = jnp.einsum(
        "jxm,jmy->jxy", phases.reshape(atoms, q * s, slots), kernel.reshape(atoms, slots, -1)
    ).reshape(atoms, q, s, u, b, a)
    # components ``a`` stay together on the way to the layout of the matrix product
    operator = operator.transpose(1, 3, 0, 4, 2, 5).reshape(q, u, atoms * b, s * a)
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
    adjoint: Features, messages: Features, table: PairTable, atoms: int
) -> Float[Array, "q s columns columns"]:
    """Return sum_e δr_e^{c*}·adjoint_e·e^{2πi q·S} δg_j^d."""
    parts = []
    for key, values in adjoint.items():
        change = messages[key]
        q, s, columns = change.shape[:3]
        flat = change.reshape(q, s, columns, atoms, -1)
        blocks = _assemble(values, table).reshape(atoms, atoms, q, s, 3, -1)
        # conj(e^{2πi q·S} u_j) meets e^{2πi q·S}: the phase drops out
        own = _row_sums(values, table, atoms).sum(axis=0).reshape(atoms, 3, -1)
        local = jnp.einsum("jzx,qsdjx->qsjzd", own, flat)
        moved = jnp.einsum("ijqszx,qtdjx->qstizd", blocks, flat)
        if s == 1:
            far = moved[:, :, 0]
        else:
            far = jnp.stack(
                [moved[:, 0, 0] - moved[:, 1, 1], moved[:, 0, 1] + moved[:, 1, 0]], axis=1
            )
        parts.append((local - far).reshape(q, s, 3 * atoms, columns))
    return jnp.sum(jnp.stack(parts), axis=0)


def _inner(
    left: Float[Array, "q s columns ..."], right: Float[Array, "q s columns ..."]
) -> Float[Array, "q s columns columns"]:
    """Return sum x^{c*}·y^d over all atoms and components."""
    q, s, columns = left.shape[:3]
    x, y = left.reshape(q, s, columns, -1), right.reshape(q, s, columns, -1)
    real = jnp.einsum("qscx,qsdx->qcd", x, y)
    if s == 1:
        return real[:, None]
    imaginary = jnp.einsum("qcx,qdx->qcd", x[:, 0], y[:, 1])
    return jnp.stack([real, imaginary - jnp.einsum("qcx,qdx->qcd", x[:, 1], y[:, 0])], axis=1)


def _hermitian(matrix: Float[Array, "q s c d"]) -> Float[Array, "q s d c"]:
    """Return the Hermitian conjugate."""
    swapped = jnp.swapaxes(matrix, 2, 3)
    return swapped if matrix.shape[1] == 1 else swapped.at[:, 1].multiply(-1)

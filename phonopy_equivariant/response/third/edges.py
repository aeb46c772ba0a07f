"""Terms of one edge to third order in its vector: compiled once for a kind of layer.

As in :mod:`.bloch.local`: arrays whose first axis counts edges come in and go out, and nothing
knows how many atoms a crystal has. Pairs of axes are the six of :data:`.derivatives.PAIRS_OF_AXES`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phonopy_equivariant.models.convolution import couple
from phonopy_equivariant.models.irreps import (
    Features,
    coupling,
    expand_paths,
    split_radial,
)
from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.response.bloch.local import Kind
from phonopy_equivariant.response.third.derivatives import (
    PAIRS_OF_AXES,
    ProductTerms,
    harmonic_derivatives,
    third_of_product,
    three_derivatives,
)


class ThirdGeometry(NamedTuple):
    """Functions of an edge vector that all layers share, with three derivatives along it."""

    unit: Float[Array, "edges 3"]
    distance: Float[Array, " edges"]
    harmonics: Float[Array, "edges m"]
    gradient: Float[Array, "edges 3 m"]
    second: Float[Array, "edges 3 3 m"]
    third: Float[Array, "edges 3 3 3 m"]
    basis: Float[Array, "edges 4 k"]  # radial basis and three derivatives along the distance


class ThirdEdgeTerms(NamedTuple):
    """What one layer makes of each edge."""

    radial: Features  # R and its derivative (edges, 2, paths, u)
    angular: Features  # G and its gradient (edges, 4, a, b)
    source: Features  # mix(∂K·g_j) (edges, 3, 2l+1, w)
    second_source: Features  # mix(∂∂K·g_j) (edges, 6, 2l+1, w)
    adjoint: Features  # μ_i·∂K (edges, 3, b, u)
    second_adjoint: Features  # μ_i·∂∂K (edges, 6, b, u)
    returned: Features  # K^T μ_i (edges, b, u)
    bond: Float[Array, "edges 3 3 3"]  # μ_i·∂∂∂K·g_j


def third_geometry(
    model: LayeredModel,
    shared: Params,
    vectors: Float[Array, "edges 3"],
    z_i: Int[Array, " edges"],
    z_j: Int[Array, " edges"],
) -> ThirdGeometry:
    """Return harmonics and radial basis of every edge with three derivatives."""
    distance = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
    unit = vectors / distance[:, None]
    basis = three_derivatives(lambda r: model.basis(shared, r, z_i, z_j), distance)
    return ThirdGeometry(unit, distance, *harmonic_derivatives(unit, distance, model.l_max), basis)


def third_pair_term(
    model: LayeredModel,
    shared: Params,
    edges: ThirdGeometry,
    z_i: Int[Array, " edges"],
    z_j: Int[Array, " edges"],
) -> Float[Array, "edges 3 3 3"]:
    """Return the third derivative of the pair term of each edge."""
    pair = model.pair
    assert pair is not None
    _, *slopes = three_derivatives(lambda r: pair(shared, r, z_i, z_j), edges.distance).T
    flat = jnp.zeros_like(edges.unit)
    terms = ProductTerms(flat, jnp.zeros((*flat.shape, 3), flat.dtype), flat, tuple(slopes))
    return third_of_product(edges.unit, edges.distance, terms)


def third_edge_terms(
    kind: Kind,
    params: Params,
    edges: ThirdGeometry,
    z_i: Int[Array, " edges"],
    z_j: Int[Array, " edges"],
    sent: Features,
    received: Features,
) -> ThirdEdgeTerms:
    """Return the expansion of one layer in the vectors of edges to third order.

    ``sent`` are messages g_j of the senders, ``received`` adjoints μ_i of the receivers.
    """
    layout = kind.layer.layout
    radial = _radial_derivatives(kind, params, edges.basis, z_i, z_j)
    split = [split_radial(layout, radial[:, k]) for k in range(4)]
    count, dtype = len(edges.unit), edges.unit.dtype
    upper, lower = PAIRS_OF_AXES.T
    weights = jnp.zeros((count, 4, edges.harmonics.shape[1]), dtype)
    angular, first, second, adjoint, second_adjoint, returned = {}, {}, {}, {}, {}, {}
    for key, groups in layout.groups.items():
        constant = (layout.scale * coupling(key, groups, layout.l_max)).astype(dtype)
        g = jnp.tensordot(edges.harmonics, constant, 1)  # G (edges, a, b)
        slope = jnp.tensordot(edges.gradient, constant, 1)
        bend = jnp.tensordot(edges.second[:, upper, lower], constant, 1)
        angular[key] = jnp.concatenate([g[:, None], slope], axis=1)
        radials = jnp.stack([expand_paths(groups, x[key]) for x in split], axis=1)
        weighted = radials * received[key][:, None]  # (edges, derivative, a, u)
        overlap = jnp.einsum("ekau,ebu->ekab", weighted, sent[key])
        weights = weights + jnp.einsum("ekab,mab->ekm", overlap, constant)
        coupled = couple(g, sent[key])  # (edges, a, u)
        slopes = jnp.einsum("ezab,ebu->ezau", slope, sent[key])
        bends = jnp.einsum("epab,ebu->epau", bend, sent[key])
        terms = radials[:, :3, None]
        first[key] = _first(edges.unit, coupled[:, None] * radials[:, 1:2], slopes * terms[:, 0])
        second[key] = _second(
            edges,
            coupled[:, None] * radials[:, 1:3],
            slopes * terms[:, 1],
            bends * terms[:, 0],
        )
        back = jnp.einsum("ekau,eab->ekbu", weighted[:, :3], g)
        back_slopes = jnp.einsum("ekau,ezab->ekzbu", weighted[:, :2], slope)
        back_bends = jnp.einsum("eau,epab->epbu", weighted[:, 0], bend)
        returned[key] = back[:, 0]
        adjoint[key] = _first(edges.unit, back[:, 1:2], back_slopes[:, 0])
        second_adjoint[key] = _second(edges, back[:, 1:3], back_slopes[:, 1], back_bends)
    return ThirdEdgeTerms(
        {key: jnp.stack([split[0][key], split[1][key]], axis=1) for key in layout.groups},
        angular,
        _mixed(kind, params, first, z_i),
        _mixed(kind, params, second, z_i),
        adjoint,
        second_adjoint,
        returned,
        _bond(edges, weights),
    )


def _radial_derivatives(
    kind: Kind,
    params: Params,
    basis: Float[Array, "edges 4 k"],
    z_i: Int[Array, " edges"],
    z_j: Int[Array, " edges"],
) -> Float[Array, "edges 4 functions"]:
    """Return the radial functions and three derivatives, from those of the basis."""
    value, first, second, third = (basis[:, k] for k in range(4))

    def along(step: Array) -> Array:
        x = step[:, None]
        moved = value + x * (first + x * (second / 2 + x * third / 6))
        return kind.layer.radial(params, moved, z_i, z_j)

    return three_derivatives(along, jnp.zeros_like(value[:, 0]))


def _first(
    unit: Float[Array, "edges 3"],
    radial: Float[Array, "edges 1 x u"],
    angular: Float[Array, "edges 3 x u"],
) -> Float[Array, "edges 3 x u"]:
    """Return R' n G + R ∂G, already multiplied by what they act on."""
    return unit[:, :, None, None] * radial + angular


def _second(
    edges: ThirdGeometry,
    radial: Float[Array, "edges 2 x u"],
    slopes: Float[Array, "edges 3 x u"],
    angular: Float[Array, "edges 6 x u"],
) -> Float[Array, "edges 6 x u"]:
    """Return ∂∂R G + ∂R ∂G + ∂G ∂R + R ∂∂G from R'G and R''G, R' ∂G and R ∂∂G."""
    upper, lower = PAIRS_OF_AXES.T
    unit = edges.unit
    along = (unit[:, upper] * unit[:, lower])[:, :, None, None]
    same = (upper == lower).astype(unit.dtype)[:, None, None]
    across = (same - along) / edges.distance[:, None, None, None]
    mixed = unit[:, upper, None, None] * slopes[:, lower]
    mixed = mixed + unit[:, lower, None, None] * slopes[:, upper]
    return along * radial[:, 1:2] + across * radial[:, :1] + mixed + angular


def _mixed(kind: Kind, params: Params, changes: Features, z_i: Int[Array, " edges"]) -> Features:
    """Return mix of the rows of every edge, {key: (edges, rows, m, w)}."""
    count, rows = next(iter(changes.values())).shape[:2]
    flat = {key: x.reshape(count * rows, *x.shape[2:]) for key, x in changes.items()}
    mixed = kind.layer.mix(params, flat, None, jnp.repeat(z_i, rows))
    return {key: x.reshape(count, rows, *x.shape[1:]) for key, x in mixed.items()}


def _bond(edges: ThirdGeometry, weights: Float[Array, "edges 4 m"]) -> Float[Array, "edges 3 3 3"]:
    """Return the third derivative of sum_m f_m(|r|) Y_m(r), given f and its derivatives."""
    value, first, second, third = (weights[:, k] for k in range(4))
    y = edges.harmonics
    terms = ProductTerms(
        first_first=jnp.einsum("em,ezm->ez", first, edges.gradient),
        first_second=jnp.einsum("em,ezwm->ezw", first, edges.second),
        second_first=jnp.einsum("em,ezm->ez", second, edges.gradient),
        value_derivatives=(
            jnp.sum(first * y, axis=-1),
            jnp.sum(second * y, axis=-1),
            jnp.sum(third * y, axis=-1),
        ),
    )
    plain = jnp.einsum("em,ezwvm->ezwv", value, edges.third)
    return plain + third_of_product(edges.unit, edges.distance, terms)

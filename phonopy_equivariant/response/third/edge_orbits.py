"""Terms of one edge of every orbit, turned to the others.

An operation {R|τ} that takes atom j to x_j' + T_j takes the edge (j, S) -> i to
(j', R S + T_j - T_i) -> i'. What a layer makes of an edge turns with it, as features do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from phonopy_equivariant.models.irreps import LayerLayout, coupling
from phonopy_equivariant.response.bloch.arrays import Features
from phonopy_equivariant.response.bloch.network import Network
from phonopy_equivariant.response.symmetry.little_group import rotations_of_irreps
from phonopy_equivariant.response.symmetry.operations import Operations
from phonopy_equivariant.response.third.derivatives import on_pairs_of_axes
from phonopy_equivariant.response.third.edges import ThirdEdgeTerms, ThirdGeometry
from phonopy_equivariant.response.third.flat import irrep_name


class EdgeOrbits(NamedTuple):
    """Every edge as the image of one that represents its orbit."""

    representatives: Int[ndarray, " orbits"]
    place: Int[ndarray, " edges"]  # of its representative
    rotation: Float[ndarray, "edges 3 3"]
    pairs: Float[ndarray, "edges 6 6"]  # R ⊗ R on symmetric pairs of axes
    irreps: dict[str, Float[ndarray, "edges m m"]]


def edge_orbits(
    symmetry: Operations, network: Network, shifts: Int[ndarray, "edges 3"], irreps: list[str]
) -> EdgeOrbits | None:
    """Return the orbits of edges under operations that the structure obeys.

    None if the image of an edge is none: it is as long as the cutoff, to rounding.
    """
    images = _images(symmetry, network, shifts)
    if images is None:
        return None
    count = len(shifts)
    source, operation = np.full(count, -1), np.zeros(count, int)
    for edge in range(count):
        if source[edge] < 0:
            source[images[:, edge]] = edge
            operation[images[:, edge]] = np.arange(len(images))
    representatives, place = np.unique(source, return_inverse=True)
    cartesian = symmetry.cartesian
    turns = rotations_of_irreps(cartesian, irreps)
    return EdgeOrbits(
        representatives,
        place,
        cartesian[operation],
        on_pairs_of_axes(cartesian)[operation],
        {name: turn[operation] for name, turn in turns.items()},
    )


def turned(orbits: EdgeOrbits, terms: ThirdEdgeTerms) -> ThirdEdgeTerms:
    """Return the terms of all edges from those of the representatives, but for ``angular``."""
    return ThirdEdgeTerms(
        {key: x[orbits.place] for key, x in terms.radial.items()},
        {},
        _features(orbits, terms.source, orbits.rotation),
        _features(orbits, terms.second_source, orbits.pairs),
        _features(orbits, terms.adjoint, orbits.rotation),
        _features(orbits, terms.second_adjoint, orbits.pairs),
        {key: _irrep(orbits, key, x[orbits.place]) for key, x in terms.returned.items()},
        _bond(orbits, terms.bond),
    )


def angular_derivatives(layout: LayerLayout, edges: ThirdGeometry) -> Features:
    """Return G and its gradient of all edges, (edges, 4, a, b), on the host."""
    values = np.concatenate([edges.harmonics[:, None], edges.gradient], axis=1)
    return {
        key: np.tensordot(values, layout.scale * coupling(key, groups, layout.l_max), 1)
        for key, groups in layout.groups.items()
    }


def _bond(orbits: EdgeOrbits, values: Any) -> Any:
    """Return third derivatives along all edges from those along the representatives."""
    bond: Any = values[orbits.place]
    for _ in range(3):  # the first axis turns and becomes the last
        bond = np.moveaxis(orbits.rotation @ bond.reshape(-1, 3, 9), 1, 2).reshape(bond.shape)
    return bond


def _features(
    orbits: EdgeOrbits, features: Features, rows: Float[ndarray, "edges r r"]
) -> Features:
    """Turn features (orbits, rows, m, u), the rows being axes or pairs of axes."""
    result = {}
    for key, x in features.items():
        values = rows @ x[orbits.place].reshape(len(rows), x.shape[1], -1)
        result[key] = _irrep(orbits, key, values.reshape(-1, *x.shape[1:]))
    return result


def _irrep(orbits: EdgeOrbits, key: str, values: Any) -> Any:
    """Turn features (edges, .., m, u) of one irrep."""
    matrix = orbits.irreps[irrep_name(key)]
    between = [1] * (values.ndim - 3)
    return matrix.reshape(len(matrix), *between, *matrix.shape[1:]) @ values


def _images(
    symmetry: Operations, network: Network, shifts: Int[ndarray, "edges 3"]
) -> Int[ndarray, "ops edges"] | None:
    """Return the edge that every operation takes each edge to."""
    senders, receivers = network.senders, network.receivers
    moved = shifts @ symmetry.rotations.transpose(0, 2, 1)
    moved = moved + symmetry.translation[:, senders] - symmetry.translation[:, receivers]
    ends = symmetry.image[:, receivers], symmetry.image[:, senders]
    reach = 1 + max(int(np.abs(moved).max()), int(np.abs(shifts).max()))
    atoms, span = len(network.species), 2 * reach + 1

    def code(i: ndarray, j: ndarray, cells: ndarray) -> ndarray:
        offset = cells + reach
        result = i * atoms + j
        for axis in range(3):
            result = result * span + offset[..., axis]
        return result

    codes = code(receivers.astype(int), senders.astype(int), shifts)
    order = np.argsort(codes)
    wanted = code(*ends, moved)
    place = np.minimum(np.searchsorted(codes[order], wanted), len(codes) - 1)
    images = order[place]
    return images if (codes[images] == wanted).all() else None

"""MACE's product basis: polynomials of an atom's features, channel by channel.

With the basis U of :mod:`.symmetric_basis` and weights w for each species z and channel u,

    B_κ[i, κ, u] = sum_ν sum_k w^ν[z_i, k, u] sum_m U^ν[κ, m, k] x_m1[i, u] ··· x_mν[i, u].

Few monomials occur (77 of the 816 cubic ones of l <= 3 in an invariant), so the factors of those
are picked out by a matrix product each, whose transposes are matrix products again.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import haiku as hk
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpy import ndarray

from phonopy_equivariant.models.irreps import Features, dimension
from phonopy_equivariant.models.symmetric_basis import equivariant_polynomials, monomials
from phonopy_equivariant.models.weights import weight


class Order(NamedTuple):
    """The monomials of one order that occur, and what all outputs make of them.

    ``factors`` (monomials, ν) are components of x; ``coefficients`` (rows, monomials) have rows
    output by output, within one κ by κ, within one basis polynomial by basis polynomial.
    """

    factors: Int[ndarray, "monomials order"]
    coefficients: Float[ndarray, "rows monomials"]
    sizes: tuple[int, ...]  # basis polynomials of each output


@functools.cache
def product_orders(
    irreps: tuple[str, ...], outputs: tuple[str, ...], correlation: int
) -> tuple[Order, ...]:
    """Return the tables of all orders up to ``correlation``."""
    components = sum(dimension(key) for key in irreps)
    orders = []
    for order in range(1, correlation + 1):
        tables = [equivariant_polynomials(irreps, output, order) for output in outputs]
        rows = np.concatenate(
            [np.swapaxes(table, 1, 2).reshape(-1, table.shape[1]) for table in tables]
        )
        occurring = np.flatnonzero(np.abs(rows).max(axis=0, initial=0.0) > 1e-12)
        factors = monomials(components, order)[occurring]
        orders.append(Order(factors, rows[:, occurring], tuple(table.shape[2] for table in tables)))
    return tuple(orders)


def reachable(irreps: tuple[str, ...], outputs: Sequence[str], correlation: int) -> list[str]:
    """Return the outputs that some product of the features transforms as."""
    return [
        output
        for output in outputs
        if any(
            equivariant_polynomials(irreps, output, order).shape[2]
            for order in range(1, correlation + 1)
        )
    ]


def contract(
    x: Float[Array, "atoms m u"], weights: Features, orders: tuple[Order, ...]
) -> Float[Array, "atoms k u"]:
    """Return B, the components of all outputs in one axis.

    ``weights`` are ``{output: (atoms, basis, u)}``, basis polynomials order by order.
    """
    outputs = list(weights)
    terms: dict[str, list[Array]] = {key: [] for key in outputs}
    for order in orders:
        if not len(order.factors):
            continue
        products = jnp.matmul(order.coefficients.astype(x.dtype), _monomials(x, order.factors))
        start = 0
        for key, size in zip(outputs, order.sizes, strict=True):
            stop = start + dimension(key) * size
            block = products[:, start:stop]
            terms[key].append(block.reshape(len(x), dimension(key), size, x.shape[2]))
            start = stop
    sums = [
        jnp.sum(jnp.concatenate(terms[key], axis=2) * weights[key][:, None], axis=2)
        for key in outputs
    ]
    return jnp.concatenate(sums, axis=1)


def _monomials(
    x: Float[Array, "atoms m u"], factors: Int[ndarray, "monomials order"]
) -> Float[Array, "atoms monomials u"]:
    product = None
    for column in factors.T:
        selection = np.zeros((len(column), x.shape[1]))
        selection[np.arange(len(column)), column] = 1.0
        factor = jnp.matmul(selection.astype(x.dtype), x)
        product = factor if product is None else product * factor
    assert product is not None
    return product


class ProductBasis(hk.Module):
    """The products of one layer with their weights."""

    def __init__(
        self,
        irreps: tuple[str, ...],
        outputs: tuple[str, ...],
        correlation: int,
        num_species: int | None,
        name: str,
    ):
        super().__init__(name)
        self.orders = product_orders(irreps, outputs, correlation)
        self.outputs = outputs
        self.num_species = num_species

    def __call__(
        self, x: Float[Array, "atoms m u"], species: Int[Array, " atoms"]
    ) -> Float[Array, "atoms k u"]:
        """Return the products of all outputs, components in one axis."""
        index = jnp.zeros_like(species) if self.num_species is None else species
        weights = {}
        for position, key in enumerate(self.outputs):
            basis = sum(order.sizes[position] for order in self.orders)
            shape = (self.num_species or 1, basis, x.shape[2])
            weights[key] = weight(key, shape, x.dtype, basis**-0.5)[index]
        return contract(x, weights, self.orders)

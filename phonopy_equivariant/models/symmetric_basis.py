"""Equivariant polynomials: the basis that MACE's product basis is a linear combination of.

Symmetric products of order ν of features that carry one copy of each of some irreps,

    B_κ(x) = sum_{m1 <= ... <= mν} U[κ, (m1 ... mν)] x_m1 ··· x_mν,

transform as a given irrep for certain coefficients U. They are found by coupling irreps one after
the other with Clebsch-Gordan coefficients (arXiv:2206.07697, eq. 10; Batatia et al.), and as
products commute, paths that differ in the order of their factors are linearly dependent. The
basis here has one polynomial for each independent one: a fixed sequence of coupling paths, each
made orthogonal to those before it, with the paths that add nothing left out. It is a function of
the irreps alone, and any other choice of coupling coefficients is a linear combination of it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from phonopy_equivariant.models.representations import Irrep, parse_irrep, products

# Paths are kept or dropped by what is left of unit vectors; rounding leaves 1e-15.
INDEPENDENT = 1e-6


def component_slices(irreps: tuple[str, ...]) -> tuple[slice, ...]:
    """Return where the components of each irrep stand when all stand in one axis."""
    stops = np.cumsum([parse_irrep(key).dim for key in irreps])
    return tuple(
        slice(int(stop) - parse_irrep(key).dim, int(stop))
        for key, stop in zip(irreps, stops, strict=True)
    )


@functools.cache
def monomials(components: int, order: int) -> Int[ndarray, "monomials order"]:
    """Return the index tuples m1 <= ... <= mν of all monomials, in lexicographic order."""
    tuples = itertools.combinations_with_replacement(range(components), order)
    return np.array(list(tuples), int).reshape(-1, order)


@functools.cache
def monomial_position(components: int, order: int) -> Int[ndarray, "..."]:
    """Return the position in :func:`monomials` for every index tuple, sorted or not."""
    position = np.zeros((components,) * order, int)
    found = monomials(components, order)
    for permuted in itertools.permutations(range(order)):
        position[tuple(found[:, permuted].T)] = np.arange(len(found))
    return position


@functools.cache
def equivariant_polynomials(
    irreps: tuple[str, ...], output: str, order: int
) -> Float[ndarray, "kappa monomials basis"]:
    """Return U of a basis of the polynomials of one order that transform as ``output``.

    Parameters
    ----------
    irreps
        Irreps of the features, one copy each, such as ``("0e", "1o", "2e")``.
    output
        Irrep of the result, 2l+1 = ``kappa`` components.
    order
        Degree of the polynomials, at least 1.

    Returns
    -------
    ndarray, shape=(2l+1, monomials, basis)
        Orthonormal in the coefficients; ``basis`` may be zero.

    """
    slices = component_slices(irreps)
    total = slices[-1].stop
    positions = monomial_position(total, order)
    shape = (parse_irrep(output).dim, len(monomials(total, order)))
    columns: list[ndarray] = []
    for factors in itertools.combinations_with_replacement(range(len(irreps)), order):
        block: list[ndarray] = []  # other sets of irreps have other monomials
        chosen = [irreps[index] for index in factors]
        where = positions[np.ix_(*[np.r_[slices[index]] for index in factors])].ravel()
        for tensor in _coupling_paths(chosen, parse_irrep(output)):
            column = np.zeros(shape)
            for row, values in zip(column, tensor, strict=True):
                np.add.at(row, where, values.ravel())
            rest = column.ravel()
            if np.linalg.norm(rest) < INDEPENDENT:  # vanishes, as factors of one irrep commute
                continue
            rest = rest / np.linalg.norm(rest)
            for other in block * 2:  # twice: to rounding
                rest = rest - (other @ rest) * other
            if np.linalg.norm(rest) > INDEPENDENT:
                block.append(rest / np.linalg.norm(rest))
        columns += block
    stacked = np.array(columns).reshape(len(columns), *shape)
    return np.moveaxis(stacked, 0, -1)


def _coupling_paths(factors: list[str], output: Irrep) -> Iterator[ndarray]:
    """Yield tensors (2l+1, components of each factor), one for each way to couple to ``output``."""
    import e3nn_jax as e3nn  # a second of imports that kept programs do without

    def grow(irrep: Irrep, tensor: ndarray, rest: list[str]) -> Iterator[ndarray]:
        if not rest:
            if irrep == output:
                yield tensor
            return
        factor = parse_irrep(rest[0])
        for target in products(irrep, factor):
            if len(rest) == 1 and target != output:
                continue
            coefficients = e3nn.clebsch_gordan(irrep.degree, factor.degree, target.degree)
            yield from grow(target, np.einsum("i...,ijk->k...j", tensor, coefficients), rest[1:])

    first = parse_irrep(factors[0])
    yield from grow(first, np.eye(first.dim), factors[1:])

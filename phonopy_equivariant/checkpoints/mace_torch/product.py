"""Weights of mace-torch's symmetric contractions in the basis of this package."""

from __future__ import annotations

import numpy as np
from numpy import ndarray

from phonopy_equivariant.checkpoints.mace_torch.ledger import Ledger
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.mace import LayerShape
from phonopy_equivariant.models.symmetric_basis import (
    equivariant_polynomials,
    monomial_position,
    monomials,
)

# Coefficients of a model trained in single precision are rounded to 6e-8.
OUTSIDE_BASIS = 1e-5


def product_weights(ledger: Ledger, place: str, shape: LayerShape) -> dict[str, ndarray]:
    """Return the weights (species, basis, u) of each output, orders one after the other.

    A model holds full or reduced sets of coupling coefficients. Both are linear combinations of
    the basis of :mod:`~phonopy_equivariant.models.symmetric_basis`.

    Raises
    ------
    PhonopyEquivariantError
        The coefficients are not equivariant.

    """
    module = ledger.read_module(place, ["SymmetricContraction"])
    result = {}
    contractions = module.parts["contractions"].parts
    for index, (_, key) in enumerate(module.attribute("irreps_out")):
        contraction = contractions[str(index)]
        if key not in shape.outputs:
            continue
        top = int(contraction.attribute("correlation"))
        # their list starts with the order below the highest
        lower = contraction.parts["weights"]
        weights = [lower.tensor(str(k)) for k in reversed(range(top - 1))]
        weights.append(contraction.tensor("weights_max"))
        of_orders = []
        for order in range(1, top + 1):
            table = contraction.tensor(f"U_matrix_{order}")
            change = _change_of_basis(table, tuple(shape.targets), key, order, place)
            of_orders.append(np.einsum("kp,zpu->zku", change, weights[order - 1]))
        result[key] = np.concatenate(of_orders, axis=1)
    return result


def _change_of_basis(
    table: ndarray, irreps: tuple[str, ...], output: str, order: int, place: str
) -> ndarray:
    """Return T with (their polynomials) = (ours) T, (basis, their paths)."""
    basis = equivariant_polynomials(irreps, output, order)
    if table.ndim == order + 1:  # an invariant has no axis for its one component
        table = table[None]
    components = table.shape[1]
    position = monomial_position(components, order).ravel()
    theirs = np.zeros((len(table), len(monomials(components, order)), table.shape[-1]))
    for sums, rows in zip(theirs, table.reshape(len(table), -1, table.shape[-1]), strict=True):
        np.add.at(sums, position, rows)
    change: ndarray = np.einsum("amk,amp->kp", basis, theirs)
    outside = np.abs(theirs - np.einsum("amk,kp->amp", basis, change)).max(initial=0.0)
    if outside > OUTSIDE_BASIS * max(1.0, np.abs(theirs).max(initial=0.0)):
        raise PhonopyEquivariantError(
            f"{place}: the coefficients of order {order} for {output} are not equivariant "
            f"(by {outside:.1g}); the model is damaged or of an unknown kind."
        )
    return change

"""First-order changes of features and of adjoints at q: one sweep forward, one backward.

A displacement u_j with wave vector q changes an edge vector by δr_e = e^{2πi q·S} u_j - u_i.
Forward, features change as in :mod:`.bloch.columns`. Backward, from the last layer down,

    δη   = φ''·δy + activate'^T·δν,    δμ = mix^T·δη
    δκ_j = sum over edges sent by j of e^{-2πi q·S} [ K^T·δμ_i + (μ_i·∂K)·δr_e ]
    δν of the layer before = mix^T·δη + message^T·δκ

Third derivatives need these and a few tables with the edges summed over images, X(q) standing
for sum_S e^{2πi q·S} X_e and X(-q) = X(q)^*:

    right_i[z]  = mix( sum_j ∂_zK_ij(q)·δg_j ),    left_j[z] = sum_i ∂_zK_ij(-q)^T·δμ_i.

Columns are (atom, axis). Arrays are real where 2q is a reciprocal lattice vector.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.response.bloch import local
from phonopy_equivariant.response.bloch.arrays import Features
from phonopy_equivariant.response.third.derivatives import POSITION_OF_PAIR
from phonopy_equivariant.response.third.expansion import ThirdExpansion, ThirdLayer
from phonopy_equivariant.response.third.flat import Shapes, pack, real_rows, unpack
from phonopy_equivariant.response.third.gates import GateChanges, gate_changes
from phonopy_equivariant.response.third.nodes import mix_rows, respond_adjoint
from phonopy_equivariant.response.third.phases import Phases, plain_sums


class LayerChanges(NamedTuple):
    """Changes of one layer; from ``sent`` on None in the first layer.

    All arrays begin with an axis of q while a block of q is computed, and have none afterwards.
    ``later`` is None in the last layer.
    """

    mixed: ndarray  # δy (atoms, columns, y)
    slope: ndarray  # δη (atoms, columns, y)
    second_source: ndarray  # mix(∂∂K·g)(q) (i, j, 6, y)
    later: ndarray | None  # δν (atoms, columns, h')
    sent: ndarray | None  # δg (atoms, columns, g)
    right: ndarray | None  # (atoms, 3, columns, y)
    left: ndarray | None  # (atoms, 3, columns, g)
    second_adjoint: ndarray | None  # μ·∂∂K(q) (i, j, 6, g)
    gates: GateChanges | None  # where the layer is a gate


class FirstOrder(NamedTuple):
    """What third derivatives need of one q."""

    layers: tuple[LayerChanges, ...]
    same: ndarray  # (atoms, 3, 3, columns): two displacements of one atom, one other change
    bond: ndarray  # sum_S e^{2πi q·S} of the third derivative of edges (i, j, 3, 3, 3)


class _Forward(NamedTuple):
    """What the forward sweep finds in one layer, (q, atoms, ...)."""

    mixed: ndarray
    curved: ndarray  # φ''·δy
    sent: ndarray | None
    right: ndarray | None


def first_orders(crystal: ThirdExpansion, qpoints: Float[ndarray, "q 3"]) -> list[FirstOrder]:
    """Return the first-order changes at a block of q; to be called in 64-bit mode.

    Numbers are real if 2q is a reciprocal lattice vector for all q of the block.
    """
    block = _Block(crystal, np.asarray(qpoints, float))
    changes = block.backward(block.forward())
    return [jax.tree.map(lambda x, q=q: x[q], changes) for q in range(len(qpoints))]


class _Block:
    """The two sweeps at a block of q. Rows of one atom are (q, columns)."""

    def __init__(self, crystal: ThirdExpansion, qpoints: Float[ndarray, "q 3"]):
        self.crystal, self.run = crystal, crystal.run
        self.atoms = len(crystal.species)
        self.q, self.columns = len(qpoints), 3 * self.atoms
        self.phases = Phases(crystal, qpoints)

    def forward(self) -> list[_Forward]:
        """Return what the sweep finds in every layer."""
        results = []
        changes: ndarray | None = None  # δh
        sent: ndarray | None = None
        for t, layer in enumerate(self.crystal.layers):
            sums: list[Features] = []
            right = None
            if sent is not None:
                sums, right = self._gathered(t, layer, sent)
            mixed, curved, updated, following = self._respond(t, layer, sums, changes)
            results.append(_Forward(mixed, curved, sent, right))
            changes, sent = updated, following
        return results

    def backward(self, forward: list[_Forward]) -> FirstOrder:
        """Return the changes of all layers, with an axis of q in front."""
        layers: list[LayerChanges] = []
        same: ndarray = np.zeros((self.q, self.atoms, 6, self.columns), self.phases.dtype)
        adjoints: tuple[ndarray | None, ndarray | None] = (None, None)
        for t in reversed(range(len(forward))):
            layer, found = self.crystal.layers[t], forward[t]
            later, slope, mu, direct = self._respond_adjoint(t, layer, found.curved, adjoints)
            second_source = self.phases.at_q(layer.second_source)
            same += self._same_from_source(layer, second_source, slope)
            left = second_adjoint = None
            if found.sent is not None:
                returned, left = self._returned(t, layer, mu)
                adjoints = direct, returned
                second_adjoint = self.phases.at_q(layer.second_adjoint)
                same += self._same_from_adjoint(layer, second_adjoint, found.sent)
            layers.append(
                LayerChanges(
                    found.mixed,
                    slope,
                    second_source,
                    later,
                    found.sent,
                    found.right,
                    left,
                    second_adjoint,
                    None if layer.gates is None else gate_changes(layer.gates, found.mixed, later),
                )
            )
        bond = self.phases.at_q(self.crystal.bond)
        return FirstOrder(tuple(reversed(layers)), same[:, :, POSITION_OF_PAIR], bond)

    def _rows(self, values: ndarray, i: int, shapes: Shapes) -> Features:
        """Return the rows of one atom from (q, atoms, columns, flat)."""
        return unpack(values[:, i].reshape(self.q * self.columns, -1), shapes)

    def _stacked(self, rows: list[Features], shapes: Shapes) -> ndarray:
        """Return (q, atoms, columns, flat) from the rows of every atom."""
        flat = np.stack([pack(x, shapes) for x in rows])
        return flat.reshape(self.atoms, self.q, self.columns, -1).swapaxes(0, 1)

    def _run_rows(self, function: Any, t: int, i: int, items: Any) -> Any:
        """Return a linear function of the rows of one atom."""
        rows, restored = real_rows(items)
        layer = self.crystal.layers[t]
        point, product = jax.tree.map(lambda x: x[i : i + 1], (layer.point, layer.product))
        shared = (*self.run.of_layer(t), point, product, self.crystal.species[i : i + 1])
        return restored(self.run.rows(function, self.run.kinds[t], shared, (rows,), None))

    def _from_source(self, layer: ThirdLayer) -> ndarray:
        """Return sum_e source_e·δr_e, (q, i, columns, y)."""
        moved = self.phases.at_q(layer.source)  # (q, i, j, 3, y)
        index = np.arange(self.atoms)
        moved[:, index, index] -= plain_sums(self.crystal, layer.source, self.crystal.receivers)
        return moved.reshape(self.q, self.atoms, self.columns, -1)

    def _gathered(self, t: int, layer: ThirdLayer, sent: ndarray) -> tuple[list[Features], ndarray]:
        """Return sum_j K_ij(q) δg_j of every atom, and ``right``."""
        lefts = {
            # (q, u, columns, atoms · b)
            key: x.transpose(0, 4, 2, 1, 3).reshape(self.q, x.shape[4], self.columns, -1)
            for key, x in unpack(sent, layer.messages).items()
            if key in layer.radial
        }
        sums, right = [], []
        kind, params = self.run.kinds[t], self.run.layers[t]
        for i in range(self.atoms):
            gathered, slopes = {}, {}
            for key, left in lefts.items():
                product = left @ self.phases.operator(t, key, i)  # (q, u, columns, 4 · a)
                product = product.reshape(*product.shape[:3], 4, -1).transpose(3, 0, 2, 4, 1)
                gathered[key] = product[0].reshape(-1, *product.shape[3:])
                slopes[key] = product[1:].reshape(-1, *product.shape[3:])
            sums.append(gathered)
            rows, restored = real_rows(slopes)
            shared = (params, self.crystal.species[i : i + 1])
            mixed = restored(self.run.rows(mix_rows, kind, shared, (rows,), None))
            right.append(pack(mixed, layer.mixed).reshape(3, self.q, self.columns, -1))
        return sums, np.stack(right).transpose(2, 0, 1, 3, 4)

    def _respond(
        self, t: int, layer: ThirdLayer, sums: list[Features], changes: ndarray | None
    ) -> tuple[ndarray, ndarray, ndarray, ndarray | None]:
        """Return δy, φ''·δy, δh' and δg' of all atoms; no δg' after the last layer."""
        last = t == len(self.crystal.layers) - 1
        source = self._from_source(layer)
        results = []
        for i in range(self.atoms):
            items: tuple[Features, Features, Features] = ({}, {}, {})
            if changes is not None:
                before = self.crystal.layers[t - 1].updated
                items = (sums[i], self._rows(changes, i, before), {})
            items = (*items[:2], self._rows(source, i, layer.mixed))
            results.append(self._run_rows(local.respond, t, i, items))
        mixed, curved, updated, sent = (list(x) for x in zip(*results, strict=True))
        return (
            self._stacked(mixed, layer.mixed),
            self._stacked(curved, layer.mixed),
            self._stacked(updated, layer.updated),
            None if last else self._stacked(sent, self.crystal.layers[t + 1].messages),
        )

    def _respond_adjoint(
        self,
        t: int,
        layer: ThirdLayer,
        curved: ndarray,
        adjoints: tuple[ndarray | None, ndarray | None],
    ) -> tuple[ndarray | None, ndarray, list[Features], ndarray | None]:
        """Return δν, δη, δμ and the part of δν of the layer before that no message carries."""
        direct, returned = adjoints
        results = []
        for i in range(self.atoms):
            items: tuple[Features, Features] = ({}, {})
            if direct is not None and returned is not None:
                following = self.crystal.layers[t + 1].messages
                items = (
                    self._rows(direct, i, layer.updated),
                    self._rows(returned, i, following),
                )
            rows = (self._rows(curved, i, layer.mixed), *items)
            results.append(self._run_rows(respond_adjoint, t, i, rows))
        later, eta, mu, nu = (list(x) for x in zip(*results, strict=True))
        return (
            None if direct is None else self._stacked(later, layer.updated),
            self._stacked(eta, layer.mixed),
            mu,
            self._stacked(nu, self.crystal.layers[t - 1].updated) if t else None,
        )

    def _returned(self, t: int, layer: ThirdLayer, mu: list[Features]) -> tuple[ndarray, ndarray]:
        """Return δκ of every atom, (q, atoms, columns, g), and ``left``."""
        sums: Features = {}
        for i in range(self.atoms):
            for key, change in mu[i].items():
                operator = self.phases.operator(t, key, i)
                _, u, inner, a = operator.shape
                by_channel = change.reshape(self.q, self.columns, a // 4, u)
                # the conjugate of K(q) is K(-q)
                right = by_channel.conj().transpose(0, 3, 2, 1)  # (q, u, a, columns)
                part = operator.reshape(self.q, u, inner * 4, a // 4) @ right
                sums[key] = sums[key] + part if key in sums else part
        blocks = {
            # (4, q, atoms, columns, b, u)
            key: x.conj()
            .reshape(self.q, x.shape[1], self.atoms, -1, 4, self.columns)
            .transpose(4, 0, 2, 5, 3, 1)
            for key, x in sums.items()
        }
        flat = pack(blocks, layer.messages)
        left = np.ascontiguousarray(flat[1:].transpose(1, 2, 0, 3, 4))
        back = self.phases.at_q(layer.adjoint).conj()  # (q, i, j, 3, g)
        far = back.transpose(0, 2, 1, 3, 4)
        returned = flat[0].reshape(far.shape) - far
        index = np.arange(self.atoms)
        returned[:, index, index] += plain_sums(self.crystal, layer.adjoint, self.crystal.senders)
        return returned.reshape(flat.shape[1:]), left

    def _same_from_source(self, layer: ThirdLayer, at_q: ndarray, slope: ndarray) -> ndarray:
        """Return mix(∂∂K·g)·δη with both displacements on the receiver, and on the sender."""
        change = slope.swapaxes(2, 3)  # (q, i, y, columns)
        here = plain_sums(self.crystal, layer.second_source, self.crystal.receivers)
        there = at_q.conj() @ change[:, :, None]
        return np.asarray(here @ change + there.sum(axis=1))

    def _same_from_adjoint(self, layer: ThirdLayer, at_q: ndarray, sent: ndarray) -> ndarray:
        """Return (μ·∂∂K)·δg with both displacements on the sender, and on the receiver."""
        change = sent.swapaxes(2, 3)  # (q, j, g, columns)
        there = plain_sums(self.crystal, layer.second_adjoint, self.crystal.senders)
        here = at_q @ change[:, None]
        return np.asarray(there @ change + here.sum(axis=2))

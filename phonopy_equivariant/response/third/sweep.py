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

A motion of cell and atoms, :mod:`.motion`, is one more column at q = 0: it changes edge vectors by
its tangents.
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

    Of a crystal with a motion there are the changes and what is along the motion, and none of the
    tables of displaced ends.

    All arrays begin with an axis of q while a block of q is computed, and have none afterwards.
    ``later`` is None in the last layer.
    """

    mixed: ndarray  # δy (atoms, columns, y)
    slope: ndarray  # δη (atoms, columns, y)
    second_source: ndarray | None  # mix(∂∂K·g)(q) (i, j, 6, y)
    later: ndarray | None  # δν (atoms, columns, h')
    sent: ndarray | None  # δg (atoms, columns, g)
    right: ndarray | None  # (atoms, 3, columns, y); with a motion along that, (atoms, 1, ...)
    left: ndarray | None  # (atoms, 3, columns, g); None with a motion
    second_adjoint: ndarray | None  # μ·∂∂K(q) (i, j, 6, g)
    gates: GateChanges | None  # where the layer is a gate
    received: Features | None = None  # δμ of the column that is a motion {key: (atoms, a, u)}
    # with a motion: one displacement, one derivative along the motion
    moved_source: ndarray | None = None  # (atoms, columns, y)
    moved_adjoint: ndarray | None = None  # (atoms, columns, g)


class FirstOrder(NamedTuple):
    """What third derivatives need of one q."""

    layers: tuple[LayerChanges, ...]
    # (atoms, 3, 3, columns): two displacements of one atom, one other change
    same: ndarray | None
    bond: ndarray | None  # sum_S e^{2πi q·S} of the third derivative of edges (i, j, 3, 3, 3)
    moved_bond: ndarray | None = None  # of which one is along the motion (i, j, 3, 3)


class _Forward(NamedTuple):
    """What the forward sweep finds in one layer, (q, atoms, ...)."""

    mixed: ndarray
    curved: ndarray  # φ''·δy
    sent: ndarray | None
    right: ndarray | None


def first_orders(
    crystal: ThirdExpansion, qpoints: Float[ndarray, "q 3"], along_motion: bool = False
) -> list[FirstOrder]:
    """Return the first-order changes at a block of q; to be called in 64-bit mode.

    Numbers are real if 2q is a reciprocal lattice vector for all q of the block. With
    ``along_motion`` q is zero, and the only column is the motion that the crystal was expanded for.
    """
    block = _Block(crystal, np.asarray(qpoints, float), along_motion)
    changes = block.backward(block.forward())
    return [jax.tree.map(lambda x, q=q: x[q], changes) for q in range(len(qpoints))]


class _Block:
    """The two sweeps at a block of q. Rows of one atom are (q, columns)."""

    def __init__(self, crystal: ThirdExpansion, qpoints: Float[ndarray, "q 3"], along_motion: bool):
        self.crystal, self.run = crystal, crystal.run
        self.atoms = len(crystal.species)
        self.along_motion = along_motion
        self.q, self.columns = len(qpoints), 1 if along_motion else 3 * self.atoms
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
        moved = self.crystal.moved
        same: ndarray = np.zeros((self.q, self.atoms, 6, self.columns), self.phases.dtype)
        adjoints: tuple[ndarray | None, ndarray | None] = (None, None)
        for t in reversed(range(len(forward))):
            layer, found = self.crystal.layers[t], forward[t]
            later, slope, mu, direct = self._respond_adjoint(t, layer, found.curved, adjoints)
            left = second_source = second_adjoint = None
            if moved is None:
                second_source = self.phases.at_q(layer.second_source)
                same += self._same_from_source(layer, second_source, slope)
            if found.sent is not None:
                returned, left = self._returned(t, layer, mu)
                adjoints = direct, returned
            if found.sent is not None and moved is None:
                second_adjoint = self.phases.at_q(layer.second_adjoint)
                same += self._same_from_adjoint(layer, second_adjoint, found.sent)
            source, adjoint = self._moved(t)
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
                    self._received(mu) if self.along_motion else None,
                    source,
                    adjoint,
                )
            )
        if moved is not None:
            at_q = self.phases.at_q(moved.bond)
            return FirstOrder(tuple(reversed(layers)), None, None, at_q)
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

    def _source(self, t: int) -> ndarray:
        """Return sum_e source_e·δr_e, (q, i, columns, y)."""
        if not self.along_motion:
            return self._at_receivers(self.crystal.layers[t].source)
        assert self.crystal.moved is not None
        values = self.crystal.moved.layers[t].source
        return plain_sums(self.crystal, values, self.crystal.receivers)[None, :, None]

    def _adjoint(self, t: int) -> ndarray:
        """Return sum_e adjoint_e·δr_e, (q, j, columns, g)."""
        if not self.along_motion:
            return self._at_senders(self.crystal.layers[t].adjoint)
        assert self.crystal.moved is not None
        values = self.crystal.moved.layers[t].adjoint
        return plain_sums(self.crystal, values, self.crystal.senders)[None, :, None]

    def _received(self, mu: list[Features]) -> Features:
        """Return δμ of all atoms for the only column, (1, atoms, a, u)."""
        return {key: np.stack([x[key][0] for x in mu])[None] for key in mu[0]}

    def _moved(self, t: int) -> tuple[ndarray | None, ndarray | None]:
        """Return the changes of :meth:`_source` and :meth:`_adjoint` along the motion."""
        moved = self.crystal.moved
        if moved is None or self.along_motion:
            return None, None
        layer = moved.layers[t]
        return self._at_receivers(layer.second_source), self._at_senders(layer.second_adjoint)

    def _at_receivers(self, values: ndarray) -> ndarray:
        """Return sum_e x_e·(e^{2πi q·S} u_j - u_i) at the receivers, (q, i, columns, flat)."""
        moved = self.phases.at_q(values)  # (q, i, j, 3, flat)
        index = np.arange(self.atoms)
        moved[:, index, index] -= plain_sums(self.crystal, values, self.crystal.receivers)
        return moved.reshape(self.q, self.atoms, 3 * self.atoms, -1)

    def _at_senders(self, values: ndarray) -> ndarray:
        """Return sum_e e^{-2πi q·S} x_e·(e^{2πi q·S} u_j - u_i) at the senders."""
        moved = -self.phases.at_q(values).conj().transpose(0, 2, 1, 3, 4)  # (q, j, i, 3, flat)
        index = np.arange(self.atoms)
        moved[:, index, index] += plain_sums(self.crystal, values, self.crystal.senders)
        return moved.reshape(self.q, self.atoms, 3 * self.atoms, -1)

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
                product = product.reshape(*product.shape[:3], self.phases.derivatives, -1)
                product = product.transpose(3, 0, 2, 4, 1)
                gathered[key] = product[0].reshape(-1, *product.shape[3:])
                slopes[key] = product[1:].reshape(-1, *product.shape[3:])
            sums.append(gathered)
            rows, restored = real_rows(slopes)
            shared = (params, self.crystal.species[i : i + 1])
            mixed = restored(self.run.rows(mix_rows, kind, shared, (rows,), None))
            mixed_rows = pack(mixed, layer.mixed)
            right.append(mixed_rows.reshape(-1, self.q, self.columns, mixed_rows.shape[-1]))
        return sums, np.stack(right).transpose(2, 0, 1, 3, 4)

    def _respond(
        self, t: int, layer: ThirdLayer, sums: list[Features], changes: ndarray | None
    ) -> tuple[ndarray, ndarray, ndarray, ndarray | None]:
        """Return δy, φ''·δy, δh' and δg' of all atoms; no δg' after the last layer."""
        last = t == len(self.crystal.layers) - 1
        source = self._source(t)
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

    def _returned(
        self, t: int, layer: ThirdLayer, mu: list[Features]
    ) -> tuple[ndarray, ndarray | None]:
        """Return δκ of every atom, (q, atoms, columns, g), and ``left``."""
        sums: Features = {}
        with_left = self.crystal.moved is None
        rows = self.phases.derivatives if with_left else 1
        for i in range(self.atoms):
            for key, change in mu[i].items():
                operator = self.phases.operator(t, key, i)
                _, u, inner, _ = operator.shape
                operator = operator.reshape(self.q, u, inner, self.phases.derivatives, -1)
                by_channel = change.reshape(self.q, self.columns, operator.shape[-1], u)
                # the conjugate of K(q) is K(-q)
                right = by_channel.conj().transpose(0, 3, 2, 1)  # (q, u, a, columns)
                part = operator[:, :, :, :rows].reshape(self.q, u, inner * rows, -1) @ right
                sums[key] = sums[key] + part if key in sums else part
        blocks = {
            # (rows, q, atoms, columns, b, u)
            key: x.conj()
            .reshape(self.q, x.shape[1], self.atoms, -1, rows, self.columns)
            .transpose(4, 0, 2, 5, 3, 1)
            for key, x in sums.items()
        }
        flat = pack(blocks, layer.messages)
        left = np.ascontiguousarray(flat[1:].transpose(1, 2, 0, 3, 4)) if with_left else None
        return flat[0] + self._adjoint(t), left

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

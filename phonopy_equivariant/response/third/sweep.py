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

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.response.bloch import local
from phonopy_equivariant.response.bloch.arrays import Features
from phonopy_equivariant.response.symmetry.star import real_q
from phonopy_equivariant.response.third.derivatives import POSITION_OF_PAIR
from phonopy_equivariant.response.third.expansion import ThirdExpansion, ThirdLayer, pack, unpack
from phonopy_equivariant.response.third.nodes import mix_rows, respond_adjoint
from phonopy_equivariant.runtime.compilation import x64_mode


class LayerChanges(NamedTuple):
    """Changes of one layer at one q; the fields after ``slope`` are None in the first layer.

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


class FirstOrder(NamedTuple):
    """What third derivatives need of one q."""

    layers: tuple[LayerChanges, ...]
    same: ndarray  # (atoms, 3, 3, columns): two displacements of one atom, one other change
    bond: ndarray  # sum_S e^{2πi q·S} of the third derivative of edges (i, j, 3, 3, 3)


def first_order(crystal: ThirdExpansion, q: Float[ndarray, "3"]) -> FirstOrder:
    """Return the first-order changes at one q, in units of the reciprocal lattice vectors."""
    with x64_mode():
        return _Sweep(crystal, np.asarray(q, float)).result()


class _Sweep:
    """The two sweeps at one q."""

    def __init__(self, crystal: ThirdExpansion, q: Float[ndarray, "3"]):
        self.crystal, self.run = crystal, crystal.run
        self.atoms = len(crystal.species)
        self.columns = 3 * self.atoms
        angle = 2 * np.pi * (crystal.shifts @ q)
        self.real = bool(real_q(q))
        phases = np.cos(angle) if self.real else np.exp(1j * angle)
        self.phases = phases[crystal.slots] * crystal.filled

    def result(self) -> FirstOrder:
        forward = self._forward()
        return self._backward(forward)

    # sums over images

    def at_q(self, values: Float[ndarray, "edges ..."]) -> ndarray:
        """Return sum_S e^{2πi q·S} x_e of every pair, (i, j, ...)."""
        return _image_sums(self.phases, self.crystal.slots, values)

    def plain(self, values: Float[ndarray, "edges ..."]) -> ndarray:
        """Return sum_S x_e of every pair."""
        return _image_sums(self.crystal.filled, self.crystal.slots, values)

    # forward

    def _forward(self) -> list[tuple[ndarray, ndarray, ndarray | None, ndarray | None]]:
        """Return δy, φ''·δy, δg and ``right`` of every layer."""
        results = []
        changes: ndarray | None = None  # δh
        sent: ndarray | None = None
        for t, layer in enumerate(self.crystal.layers):
            source = self._from_source(layer)
            sums, right = None, None
            if sent is not None:
                sums, right = self._gathered(t, layer, sent)
            mixed, curved, updated, following = self._respond(t, layer, source, sums, changes)
            results.append((mixed, curved, sent, right))
            changes, sent = updated, following
        return results

    def _from_source(self, layer: ThirdLayer) -> ndarray:
        """Return sum_e source_e·δr_e, (i, columns, y)."""
        moved = self.at_q(layer.source)  # (i, j, 3, y)
        own = self.plain(layer.source).sum(axis=1)
        index = np.arange(self.atoms)
        moved[index, index] -= own
        return moved.reshape(self.atoms, self.columns, -1)

    def _gathered(
        self, t: int, layer: ThirdLayer, sent: ndarray
    ) -> tuple[list[Features], ndarray]:
        """Return sum_j K_ij(q) δg_j of every atom, and ``right``."""
        lefts = {
            # (u, columns, atoms · b)
            key: x.transpose(3, 1, 0, 2).reshape(x.shape[3], self.columns, -1)
            for key, x in unpack(sent, layer.messages).items()
            if key in layer.radial
        }
        sums, right = [], []
        for i in range(self.atoms):
            rows: list[Features] = [{}, {}]
            for key, left in lefts.items():
                operator = self._operator(t, layer, key, i)
                u, inner, _, a = operator.shape
                product = left @ operator.reshape(u, inner, 4 * a)
                product = product.reshape(u, self.columns, 4, a).transpose(2, 1, 3, 0)
                rows[0][key], rows[1][key] = product[0], product[1:].reshape(-1, a, u)
            sums.append(rows[0])
            right.append(self._mixed(t, layer, i, rows[1]))
        return sums, np.stack(right)

    def _operator(self, t: int, layer: ThirdLayer, key: str, i: int) -> ndarray:
        """Return K_ij(q) and its gradient for one receiver, (u, atoms · b, 4, a)."""
        index = self.crystal.slots[i].reshape(-1)
        paths = self.run.kinds[t].layer.layout.path_of_component(key)
        radial = layer.radial[key][index][:, :, paths].transpose(1, 0, 3, 2)  # (2, edges, u, a)
        angular = layer.angular[key][index].transpose(0, 3, 1, 2)  # (edges, b, 4, a)
        unit = self.crystal.unit[index]
        kernel = radial[0][:, :, None, None] * angular[:, None]
        kernel[:, :, :, 1:] += (
            (radial[1][:, :, None] * angular[:, None, :, 0])[:, :, :, None]
            * unit[:, None, None, :, None]
        )
        _, u, b, _, a = kernel.shape
        slots = self.phases.shape[2]
        flat = kernel.reshape(self.atoms, slots, -1)
        operator = _phase_product(self.phases[i][:, None], flat).reshape(self.atoms, u, b, 4, a)
        return operator.transpose(1, 0, 2, 3, 4).reshape(u, self.atoms * b, 4, a)

    def _mixed(self, t: int, layer: ThirdLayer, i: int, sums: Features) -> ndarray:
        """Return mix of the three gradients at one atom, (3, columns, y)."""
        species = self.crystal.species[i : i + 1]
        rows, restore = self._real_rows(sums)
        mixed = self.run.rows(
            mix_rows, self.run.kinds[t], (self.run.layers[t], species), (rows,), None
        )
        return pack(restore(mixed), layer.mixed).reshape(3, self.columns, -1)

    def _respond(
        self,
        t: int,
        layer: ThirdLayer,
        source: ndarray,
        sums: list[Features] | None,
        changes: ndarray | None,
    ) -> tuple[ndarray, ndarray, ndarray, ndarray | None]:
        """Return δy, φ''·δy, δh' and δg' of all atoms, (atoms, columns, ...)."""
        run, last = self.run, t == len(self.crystal.layers) - 1
        before = self.crystal.layers[t - 1].updated
        following = {} if last else self.crystal.layers[t + 1].messages
        found = []
        for i in range(self.atoms):
            items: tuple[Features, Features, Features] = ({}, {}, unpack(source[i], layer.mixed))
            if sums is not None and changes is not None:
                items = (sums[i], unpack(changes[i], before), items[2])
            rows, restore = self._real_rows(items)
            shared = (*run.of_layer(t), *self._atom(layer, i))
            results = run.rows(local.respond, run.kinds[t], shared, (rows,), None)
            mixed, curved, updated, sent = restore(results)
            found.append(
                (
                    pack(mixed, layer.mixed),
                    pack(curved, layer.mixed),
                    pack(updated, layer.updated),
                    pack(sent, following) if following else None,
                )
            )
        mixed, curved, updated, sent = zip(*found, strict=True)
        return (
            np.stack(mixed),
            np.stack(curved),
            np.stack(updated),
            np.stack(sent) if following else None,
        )

    def _atom(self, layer: ThirdLayer, i: int) -> tuple:
        """Return point, product and species of one atom."""
        point, product = _rows_of((layer.point, layer.product), i)
        return point, product, self.crystal.species[i : i + 1]

    def _real_rows(self, values):
        """Return rows of real numbers, imaginary parts after the real ones, and the way back."""
        if self.real:
            return values, lambda x: x
        rows = _map(lambda x: np.concatenate([x.real, x.imag]), values)

        def restore(results):
            def one(x: ndarray) -> ndarray:
                half = len(x) // 2
                return x[:half] + 1j * x[half:]

            return _map(one, results)

        return rows, restore

    # backward

    def _backward(self, forward) -> FirstOrder:
        layers: list[LayerChanges] = []
        same = np.zeros((self.atoms, 3, 3, self.columns), self.phases.dtype)
        direct: ndarray | None = None
        returned: ndarray | None = None
        for t in reversed(range(len(self.crystal.layers))):
            layer = self.crystal.layers[t]
            mixed, curved, sent, right = forward[t]
            later, slope, mu, direct = self._respond_adjoint(t, layer, curved, direct, returned)
            second_source = self.at_q(layer.second_source)
            same += self._same_from_source(layer, second_source, slope)
            left = second_adjoint = None
            if t:
                returned, left = self._returned(t, layer, mu)
                second_adjoint = self.at_q(layer.second_adjoint)
                same += self._same_from_adjoint(layer, second_adjoint, sent)
            layers.append(
                LayerChanges(mixed, slope, second_source, later, sent, right, left, second_adjoint)
            )
        bond = self.at_q(self.crystal.bond)
        return FirstOrder(tuple(reversed(layers)), same, bond)

    def _respond_adjoint(
        self,
        t: int,
        layer: ThirdLayer,
        curved: ndarray,
        direct: ndarray | None,
        returned: ndarray | None,
    ) -> tuple[ndarray | None, ndarray, list[Features], ndarray | None]:
        """Return δν, δη, δμ and the direct part of δν of the layer before."""
        run, last = self.run, t == len(self.crystal.layers) - 1
        following = {} if last else self.crystal.layers[t + 1].messages
        found = []
        for i in range(self.atoms):
            items: tuple[Features, Features, Features] = (unpack(curved[i], layer.mixed), {}, {})
            if direct is not None and returned is not None:
                items = (
                    items[0], unpack(direct[i], layer.updated), unpack(returned[i], following)
                )
            rows, restore = self._real_rows(items)
            shared = (*run.of_layer(t), *self._atom(layer, i))
            results = run.rows(respond_adjoint, run.kinds[t], shared, (rows,), None)
            later, eta, mu, nu = restore(results)
            before = self.crystal.layers[t - 1].updated if t else {}
            found.append(
                (
                    None if last else pack(later, layer.updated),
                    pack(eta, layer.mixed),
                    mu,
                    pack(nu, before) if t else None,
                )
            )
        later, eta, mu, nu = zip(*found, strict=True)
        return (
            None if last else np.stack(later),
            np.stack(eta),
            list(mu),
            np.stack(nu) if t else None,
        )

    def _returned(
        self, t: int, layer: ThirdLayer, mu: list[Features]
    ) -> tuple[ndarray, ndarray]:
        """Return δκ of every atom, (atoms, columns, g), and ``left``."""
        sums: Features = {}  # (4, atoms, columns, b, u)
        for i in range(self.atoms):
            for key, change in mu[i].items():
                operator = self._operator(t, layer, key, i)
                u, inner, _, a = operator.shape
                # the conjugate of K(q) is K(-q)
                right = change.conj().transpose(2, 1, 0)  # (u, a, columns)
                product = operator.reshape(u, inner * 4, a) @ right
                product = product.conj().reshape(u, self.atoms, -1, 4, self.columns)
                part = product.transpose(3, 1, 4, 2, 0)
                sums[key] = sums[key] + part if key in sums else part
        flat = pack(sums, layer.messages)
        returned, left = flat[0], flat[1:].transpose(1, 0, 2, 3)
        back = self.at_q(layer.adjoint).conj()  # (i, j, 3, g)
        returned = returned - back.transpose(1, 0, 2, 3).reshape(returned.shape)
        own = self.plain(layer.adjoint).sum(axis=0)  # (j, 3, g)
        blocks = returned.reshape(self.atoms, self.atoms, 3, -1)
        index = np.arange(self.atoms)
        blocks[index, index] += own
        return returned, left

    # two displacements of one atom

    def _same_from_source(self, layer: ThirdLayer, at_q: ndarray, slope: ndarray) -> ndarray:
        """Return mix(∂∂K·g)·δη with both displacements on the receiver, and on the sender."""
        here = self.plain(layer.second_source).sum(axis=1)  # (i, 6, y)
        result = here @ slope.transpose(0, 2, 1)
        result = result + np.einsum(
            "ijpc->jpc", _product(at_q.conj(), slope[:, None].transpose(0, 1, 3, 2))
        )
        return result[:, POSITION_OF_PAIR]

    def _same_from_adjoint(self, layer: ThirdLayer, at_q: ndarray, sent: ndarray) -> ndarray:
        """Return (μ·∂∂K)·δg with both displacements on the receiver, and on the sender."""
        there = self.plain(layer.second_adjoint).sum(axis=0)  # (j, 6, g)
        result = there @ sent.transpose(0, 2, 1)
        result = result + np.einsum(
            "ijpc->ipc", _product(at_q, sent[None].transpose(0, 1, 3, 2))
        )
        return result[:, POSITION_OF_PAIR]


def _product(left: ndarray, right: ndarray) -> ndarray:
    return np.matmul(left, right)


def _image_sums(phases: ndarray, slots: ndarray, values: ndarray) -> ndarray:
    """Return phase-weighted sums of the edges of every pair."""
    atoms = len(slots)
    flat = values[slots.reshape(-1)].reshape(*slots.shape, -1)
    return _phase_product(phases[:, :, None], flat).reshape(atoms, atoms, *values.shape[1:])


def _phase_product(phases: ndarray, values: Float[ndarray, "... m x"]) -> ndarray:
    """Return the product of phases (..., 1, m), which may be complex, with real values."""
    if not np.iscomplexobj(phases):
        return (phases @ values)[..., 0, :]
    parts = np.concatenate([phases.real, phases.imag], axis=-2) @ values
    return parts[..., 0, :] + 1j * parts[..., 1, :]


def _rows_of(values, i: int):
    """Return atom i of all arrays, with an axis of length one."""
    return _map(lambda x: x[i : i + 1], values)


def _map(function, values):
    import jax

    return jax.tree.map(function, values)

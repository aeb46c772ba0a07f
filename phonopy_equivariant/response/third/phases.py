"""Sums over the images of pairs of atoms with the phases of a block of q."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from phonopy_equivariant.response.symmetry.star import real_q
from phonopy_equivariant.response.third.expansion import ThirdExpansion, ThirdLayer

# Bytes that operators of a block of q may take until the backward sweep needs them again.
KEPT = 2**31


class Phases:
    """e^{2πi q·S} of every edge, for a block of q; real where 2q = G for all of them."""

    def __init__(self, crystal: ThirdExpansion, qpoints: Float[ndarray, "q 3"]):
        self.crystal = crystal
        self.count = len(qpoints)
        self.real = bool(real_q(qpoints).all())
        angle = 2 * np.pi * (qpoints @ crystal.shifts.T)
        parts = [np.cos(angle)] if self.real else [np.cos(angle), np.sin(angle)]
        # (i, j, parts · q, m)
        slotted = np.concatenate(parts)[:, crystal.slots] * crystal.filled
        self._phases = np.ascontiguousarray(slotted.transpose(1, 2, 0, 3))
        self._kept: dict[tuple[int, str, int], ndarray] = {}
        self._free = KEPT
        # the kernel, then its derivatives along the axes, or the one along a motion
        self.derivatives = 4 if crystal.moved is None else 2

    @property
    def dtype(self) -> type:
        """Type of numbers of everything at these q."""
        return float if self.real else complex

    def at_q(self, values: Float[ndarray, "edges ..."]) -> ndarray:
        """Return sum_S e^{2πi q·S} x_e of every pair, (q, i, j, ...)."""
        slots = self.crystal.slots
        flat = values[slots.reshape(-1)].reshape(*slots.shape, -1)
        sums = self._joined((self._phases @ flat).transpose(2, 0, 1, 3))
        return sums.reshape(*sums.shape[:3], *values.shape[1:])

    def operator(self, t: int, key: str, i: int) -> ndarray:
        """Return K_ij(q) and its gradient for one receiver and input irrep.

        Shape (q, u, atoms · b, derivatives · a): the kernel, then its derivatives along the three
        axes, or along the motion if there is one. Asked for a second time, it is as a rule still
        there.
        """
        if (t, key, i) in self._kept:
            return self._kept.pop((t, key, i))
        result = self._operator(t, key, i)
        if result.nbytes <= self._free:
            self._free -= result.nbytes
            self._kept[t, key, i] = result
        return result

    def _operator(self, t: int, key: str, i: int) -> ndarray:
        layer, slots = self.crystal.layers[t], self.crystal.slots[i]
        paths = self.crystal.run.kinds[t].layer.layout.path_of_component(key)
        a, b = layer.angular[key].shape[2:]
        u = layer.radial[key].shape[-1]
        width = b * self.derivatives * a
        result = np.zeros((self.count, u, len(slots), width), self.dtype)
        # one sender at a time: what belongs to it stays in the cache
        for j, filled in enumerate(self.crystal.filled[i] > 0):
            if filled.any():
                kernel = _kernel(self.crystal, layer, key, paths, slots[j][filled])
                sums = self._phases[i, j][:, filled] @ kernel.reshape(len(kernel), -1)
                sums = sums.reshape(-1, u, width)
                result[:, :, j].real = sums[: self.count]
                if not self.real:
                    result[:, :, j].imag = sums[self.count :]
        return result.reshape(self.count, u, len(slots) * b, self.derivatives * a)

    def _joined(self, parts: Float[ndarray, "parts ..."]) -> ndarray:
        """Return numbers of real and imaginary parts that stand one after the other."""
        if self.real:
            return np.ascontiguousarray(parts)
        result = np.empty((self.count, *parts.shape[1:]), complex)
        result.real, result.imag = parts[: self.count], parts[self.count :]
        return result


def plain_sums(
    crystal: ThirdExpansion, values: Float[ndarray, "edges ..."], ends: ndarray
) -> Float[ndarray, "atoms ..."]:
    """Return sums over the edges of every atom, ``ends`` being receivers or senders."""
    # as a matrix product: np.add.at is many times slower
    belongs = np.zeros((len(crystal.species), len(ends)), values.dtype)
    belongs[ends, np.arange(len(ends))] = 1
    sums = belongs @ values.reshape(len(values), -1)
    return sums.reshape(-1, *values.shape[1:])


def _kernel(
    crystal: ThirdExpansion,
    layer: ThirdLayer,
    key: str,
    paths: list[int],
    edges: Int[ndarray, " edges"],
) -> Float[ndarray, "edges u b derivatives a"]:
    """Return K and its gradient on some edges, or its derivative along the motion."""
    radial = layer.radial[key][edges][:, :, paths].transpose(1, 0, 3, 2)  # (2, edges, u, a)
    angular = np.ascontiguousarray(layer.angular[key][edges].transpose(0, 3, 1, 2))
    along = angular[:, :, :1] * crystal.unit[edges][:, None, :, None]  # (edges, b, 3, a)
    if crystal.moved is not None:
        tangents = crystal.moved.tangents[edges][:, None, None]
        angular = np.concatenate([angular[:, :, :1], tangents @ angular[:, :, 1:]], axis=2)
        along = tangents @ along
    kernel: ndarray = radial[0][:, :, None, None] * angular[:, None]  # (edges, u, b, .., a)
    kernel[:, :, :, 1:] += radial[1][:, :, None, None] * along[:, None]
    return kernel

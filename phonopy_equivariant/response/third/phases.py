"""Sums over the images of pairs of atoms with the phases of a block of q."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
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

        Shape (q, u, atoms · b, 4 · a): the kernel, then its derivatives along the three axes. Asked
        for a second time, it is as a rule still there.
        """
        if (t, key, i) in self._kept:
            return self._kept.pop((t, key, i))
        result = self._operator(t, key, i)
        if result.nbytes <= self._free:
            self._free -= result.nbytes
            self._kept[t, key, i] = result
        return result

    def _operator(self, t: int, key: str, i: int) -> ndarray:
        layer = self.crystal.layers[t]
        paths = self.crystal.run.kinds[t].layer.layout.path_of_component(key)
        kernel = _kernel(self.crystal, layer, key, paths, i)  # (edges, u, b, 4, a)
        u, b, a = kernel.shape[1], kernel.shape[2], kernel.shape[4]
        atoms, slots = self.crystal.slots.shape[1:]
        sums = self._phases[i] @ kernel.reshape(atoms, slots, -1)
        blocks = sums.reshape(atoms, -1, u, b * 4 * a).transpose(1, 2, 0, 3)
        return self._joined(blocks).reshape(self.count, u, atoms * b, 4 * a)

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
    crystal: ThirdExpansion, layer: ThirdLayer, key: str, paths: list[int], i: int
) -> Float[ndarray, "edges u b 4 a"]:
    """Return K and its gradient on the edges of one receiver, slot by slot."""
    index = crystal.slots[i].reshape(-1)
    radial = layer.radial[key][index][:, :, paths].transpose(1, 0, 3, 2)  # (2, edges, u, a)
    angular = layer.angular[key][index].transpose(0, 3, 1, 2)  # (edges, b, 4, a)
    kernel = radial[0][:, :, None, None] * angular[:, None]
    stretched = radial[1][:, :, None] * angular[:, None, :, 0]  # (edges, u, b, a)
    unit = crystal.unit[index]
    for axis in range(3):
        kernel[:, :, :, 1 + axis] += stretched * unit[:, axis, None, None, None]
    return kernel

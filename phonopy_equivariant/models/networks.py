"""Haiku modules that architectures share: equivariant linear maps and radial networks."""

from __future__ import annotations

from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array

from phonopy_equivariant.models.irreps import Features
from phonopy_equivariant.models.weights import weight

LAYER_NORM_EPSILON = 1e-5


class IrrepsLinear(hk.Module):
    """Equivariant linear map: channels of the same irrep mix, x @ w."""

    def __init__(self, outputs: dict[str, int], num_species: int | None = None, name: str = ""):
        super().__init__(name)
        self.outputs = outputs
        self.num_species = num_species

    def __call__(self, features: Features, species: Array) -> Features:
        """Map ``{irrep: (atoms, 2l+1, u)}`` to ``{irrep: (atoms, 2l+1, w)}``."""
        return {
            key: self._block(key, features[key], species) for key in self.outputs if key in features
        }

    def _block(self, key: str, x: Array, species: Array) -> Array:
        shape: tuple[int, ...] = (x.shape[-1], self.outputs[key])
        if self.num_species is not None:
            shape = (self.num_species, *shape)
        matrix = weight(key, shape, x.dtype, x.shape[-1] ** -0.5)
        if self.num_species is None:
            return x @ matrix
        return jnp.einsum("nau,nuw->naw", x, matrix[species])


class Messages(IrrepsLinear):
    """What neighbours send: an equivariant linear map, shifted and scaled by species if need be."""

    def __init__(self, channels: dict[str, int], biased: bool, num_norms: int, name: str):
        super().__init__(channels, name=name)
        self.biased = biased
        self.num_norms = num_norms

    def __call__(self, features: Features, species: Array) -> Features:
        """Map ``{irrep: (atoms, 2l+1, u)}`` to messages of the same irreps."""
        sent = super().__call__(features, species)
        if self.biased:
            sent["0e"] = sent["0e"] + weight("bias", sent["0e"].shape[-1:], sent["0e"].dtype)
        if not self.num_norms:
            return sent
        norms = weight("norms", (self.num_norms,), sent["0e"].dtype, mean=1.0)
        return {key: x * norms[species][:, None, None] for key, x in sent.items()}


class SpeciesFactor(hk.Module):
    """Multiply an atom's features by a number of its species."""

    def __init__(self, num_species: int, name: str):
        super().__init__(name)
        self.num_species = num_species

    def __call__(self, x: Array, species: Array) -> Array:
        """Return (atoms, ...) multiplied."""
        factor = weight("factor", (self.num_species,), x.dtype, mean=1.0)[species]
        return x * factor.reshape(-1, *[1] * (x.ndim - 1))


class ScalarBias(hk.Module):
    """Add a constant to scalars."""

    def __call__(self, scalars: Array) -> Array:
        """Return (atoms, 1, u) shifted."""
        return scalars + weight("bias", scalars.shape[-1:], scalars.dtype)


class RadialNetwork(hk.Module):
    """SiLU network without biases, so that it vanishes where the basis does."""

    def __init__(self, widths: Sequence[int], name: str):
        super().__init__(name)
        self.widths = tuple(widths)

    def __call__(self, basis: Array) -> Array:
        """Return (edges, functions) for (edges, k) basis functions."""
        x = basis
        for depth, width in enumerate(self.widths):
            last = depth == len(self.widths) - 1
            # a hidden SiLU layer loses about half the second moment per unit of variance
            spread = (1.0 if last else 2.0) / x.shape[-1] ** 0.5
            x = x @ weight(f"w{depth}", (x.shape[-1], width), x.dtype, spread)
            if not last:
                x = jax.nn.silu(x)
        return x


class NormedRadialNetwork(hk.Module):
    """SiLU network with biases and layer norms that sees the species of both atoms.

    The first layer adds a vector for each species of receiver and sender to a linear map of the
    basis. It does not vanish where the basis does.
    """

    def __init__(self, widths: Sequence[int], num_species: int, name: str):
        super().__init__(name)
        self.widths = tuple(widths)
        self.num_species = num_species

    def __call__(self, basis: Array, z_i: Array, z_j: Array) -> Array:
        """Return (edges, functions) for (edges, k) basis functions and species of both ends."""
        x = self._linear(0, basis)
        for name, species in (("receiver", z_i), ("sender", z_j)):
            shape = (self.num_species, self.widths[0])
            x = x + weight(name, shape, basis.dtype, 0.1)[species]
        for depth in range(1, len(self.widths)):
            x = jax.nn.silu(self._norm(depth, x))
            bias = weight(f"b{depth}", self.widths[depth : depth + 1], x.dtype)
            x = self._linear(depth, x) + bias
        return x

    def _linear(self, depth: int, x: Array) -> Array:
        shape = (x.shape[-1], self.widths[depth])
        return x @ weight(f"w{depth}", shape, x.dtype, x.shape[-1] ** -0.5)

    def _norm(self, depth: int, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt((centred**2).mean(axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
        scale = weight(f"norm{depth}_scale", x.shape[-1:], x.dtype, mean=1.0)
        offset = weight(f"norm{depth}_offset", x.shape[-1:], x.dtype)
        return centred * inverse * scale + offset


class Readout(hk.Module):
    """Energy of an atom from its scalars: linear, or a network of one or two hidden layers."""

    def __init__(self, kind: str, width: int, name: str):
        super().__init__(name)
        self.kind = kind
        self.width = width

    def __call__(self, scalars: Array) -> Array:
        """Return (atoms,) for (atoms, u)."""
        if self.kind == "linear":
            return self._linear("w0", scalars, 1)[:, 0]
        activation = {"silu": jax.nn.silu, "tanh": jnp.tanh}[self.kind.removesuffix("-bias")]
        hidden = activation(self._linear("w0", scalars, self.width))
        if not self.kind.endswith("-bias"):
            return self._linear("w1", hidden, 1)[:, 0]
        biases = [
            weight(name, (width,), hidden.dtype) for name, width in (("b1", self.width), ("b2", 1))
        ]
        hidden = activation(self._linear("w1", hidden, self.width) + biases[0])
        return (self._linear("w2", hidden, 1) + biases[1])[:, 0]

    def _linear(self, name: str, x: Array, width: int) -> Array:
        return x @ weight(name, (x.shape[-1], width), x.dtype, x.shape[-1] ** -0.5)

"""Layout of features and of the equivariant convolution: channels last, one array per irrep.

Features of atoms are a dict ``{"0e": (atoms, 1, u), "1o": (atoms, 3, u), ...}``. A convolution
couples an input irrep with the harmonics of degree l of an edge to an output irrep along a *path*.
For one input irrep, the components of all its paths stand in one axis ``a``, one path after
the other, so that the kernel of an edge is

    K[a, b, u] = R_{p(a), u}(|r|) · G[a, b](r^),    G[a, b] = sum_m CG[a, m, b] · Y_m(r^)

with b the component of the input and u its channel.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import e3nn_jax as e3nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

Features = dict[str, Array]


class Path(NamedTuple):
    """Coupling of one input irrep with harmonics of degree ``l`` to irrep ``output``."""

    l: int  # noqa: E741 (the field's name for the degree)
    output: str


class LayerLayout(NamedTuple):
    """Irreps in, irreps out and paths of one interaction.

    ``inputs`` and ``outputs`` map an irrep to its number of channels, ``paths`` an input irrep
    to its paths; all in the order of e3nn.
    """

    inputs: dict[str, int]
    outputs: dict[str, int]
    paths: dict[str, tuple[Path, ...]]
    l_max: int

    def fan_in(self, output: str) -> int:
        """Return the number of channels that all paths bring to an output irrep."""
        return sum(
            self.inputs[key] * sum(path.output == output for path in paths)
            for key, paths in self.paths.items()
        )

    def num_components(self, key: str) -> int:
        """Return the length of axis ``a`` of an input irrep: components of all its paths."""
        return sum(dimension(path.output) for path in self.paths[key])

    def num_radial(self) -> int:
        """Return the number of radial functions: one per path and channel."""
        return sum(self.inputs[key] * len(paths) for key, paths in self.paths.items())


def layer_layouts(
    species: int, hidden_irreps: str, l_max: int, num_interactions: int
) -> tuple[LayerLayout, ...]:
    """Return the layouts of all layers.

    The first layer reads the one-hot species, the last one writes scalars only. Irreps that no
    path can reach (all their features would be zero) are left out.
    """
    hidden = {str(ir): mul for mul, ir in e3nn.Irreps(hidden_irreps)}
    layouts = []
    inputs = {"0e": species}
    for layer in range(num_interactions):
        wanted = hidden if layer < num_interactions - 1 else {"0e": hidden["0e"]}
        paths = {key: _paths(key, wanted, l_max) for key in inputs}
        reached = {path.output for some in paths.values() for path in some} | set(inputs)
        outputs = {key: mul for key, mul in wanted.items() if key in reached}
        layouts.append(LayerLayout(inputs, outputs, paths, l_max))
        inputs = outputs
    return tuple(layouts)


def _paths(key: str, outputs: dict[str, int], l_max: int) -> tuple[Path, ...]:
    source = e3nn.Irrep(key)
    return tuple(
        Path(degree, str(product))
        for degree in range(l_max + 1)
        for product in source * e3nn.Irrep(degree, (-1) ** degree)
        if str(product) in outputs
    )


def dimension(key: str) -> int:
    """Return 2l+1 of an irrep."""
    return e3nn.Irrep(key).dim


@functools.cache
def coupling(key: str, paths: tuple[Path, ...], l_max: int) -> Float[ndarray, "m a b"]:
    """Return C[m, a, b] with G[a, b] = sum_m Y_m C[m, a, b] for one input irrep.

    Clebsch-Gordan coefficients in e3nn's component normalisation, sqrt(2 l_out + 1) · CG.
    """
    source = e3nn.Irrep(key)
    blocks = []
    for path in paths:
        target = e3nn.Irrep(path.output)
        block = np.zeros(((l_max + 1) ** 2, target.dim, source.dim))
        coefficients = e3nn.clebsch_gordan(source.l, path.l, target.l) * np.sqrt(target.dim)
        block[path.l**2 : (path.l + 1) ** 2] = np.transpose(coefficients, (1, 2, 0))
        blocks.append(block)
    return np.concatenate(blocks, axis=1)


def harmonics(
    direction: Float[Array, "edges 3"], l_max: int
) -> Float[Array, "edges harmonics"]:
    """Return the real spherical harmonics of unit vectors, all degrees up to ``l_max``.

    Component normalisation: the squares of a degree sum to 2l+1.
    """
    irreps = e3nn.Irreps.spherical_harmonics(l_max)
    return e3nn.spherical_harmonics(
        irreps, direction, normalize=False, algorithm=("recursive", "dense")
    ).array


def angular_factors(
    layout: LayerLayout, sphericals: Float[Array, "edges harmonics"]
) -> Features:
    """Return G[a, b] of every edge, ``{input irrep: (edges, a, b)}``."""
    return {
        key: jnp.tensordot(
            sphericals, coupling(key, paths, layout.l_max).astype(sphericals.dtype), 1
        )
        for key, paths in layout.paths.items()
        if paths
    }


def split_radial(layout: LayerLayout, radial: Float[Array, "edges functions"]) -> Features:
    """Split the outputs of a radial network into ``{input irrep: (edges, paths, u)}``."""
    factors, start = {}, 0
    for key, paths in layout.paths.items():
        if paths:
            width = layout.inputs[key]
            stop = start + len(paths) * width
            factors[key] = radial[:, start:stop].reshape(-1, len(paths), width)
            start = stop
    return factors


def expand_paths(key_paths: tuple[Path, ...], radial: Array) -> Array:
    """Repeat the radial function of a path over its components: (..., paths, u) -> (..., a, u)."""
    blocks = [
        jnp.broadcast_to(
            radial[..., index, None, :],
            (*radial.shape[:-2], dimension(path.output), radial.shape[-1]),
        )
        for index, path in enumerate(key_paths)
    ]
    return jnp.concatenate(blocks, axis=-2)


def gather_outputs(layout: LayerLayout, sums: Features) -> Features:
    """Regroup ``{input irrep: (atoms, a, u)}`` as ``{output irrep: (atoms, 2l+1, fan_in)}``."""
    parts: dict[str, list[Array]] = {key: [] for key in layout.outputs}
    for key, paths in layout.paths.items():
        start = 0
        for path in paths:
            stop = start + dimension(path.output)
            parts[path.output].append(sums[key][..., start:stop, :])
            start = stop
    return {key: jnp.concatenate(some, axis=-1) for key, some in parts.items() if some}

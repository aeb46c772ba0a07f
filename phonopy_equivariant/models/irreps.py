"""Layout of features and of the equivariant convolution: channels last, one array per irrep.

Features of atoms are a dict ``{"0e": (atoms, 1, u), "1o": (atoms, 3, u), ...}``. A convolution
couples an input irrep with the harmonics of degree l of an edge to an output irrep along a *path*.
For one input irrep the paths are grouped by output irrep, and the components of all groups stand
in one axis ``a``: group after group, within a group component after component, within a component
path after path. The kernel of an edge is

    K[a, b, u] = R_{p(a), u}(|r|) · G[a, b](r^),    G[a, b] = sum_m CG[a, m, b] · Y_m(r^)

with b the component of the input and u its channel.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from phonopy_equivariant.models.representations import (
    Irrep,
    parse_irrep,
    parse_irreps,
    products,
)

Features = dict[str, Array]


class Group(NamedTuple):
    """The paths from one input irrep to irrep ``output``, one for each degree."""

    output: str
    degrees: tuple[int, ...]

    @property
    def components(self) -> int:
        """Length of the group on axis ``a``: (2l+1) of the output times number of paths."""
        return dimension(self.output) * len(self.degrees)


class LayerLayout(NamedTuple):
    """Irreps in, irreps out and paths of one interaction.

    ``inputs`` and ``outputs`` map an irrep to its number of channels, ``groups`` an input irrep
    to its groups of paths; all in the order of e3nn.
    """

    inputs: dict[str, int]
    outputs: dict[str, int]
    groups: dict[str, tuple[Group, ...]]
    l_max: int
    # factor of all kernels, 1 / sqrt(average number of neighbours)
    scale: float

    def fan_in(self, output: str) -> int:
        """Return the number of channels that all paths bring to an output irrep."""
        return sum(
            self.inputs[key] * len(group.degrees)
            for key, groups in self.groups.items()
            for group in groups
            if group.output == output
        )

    def num_components(self, key: str) -> int:
        """Return the length of axis ``a`` of an input irrep."""
        return sum(group.components for group in self.groups[key])

    def num_paths(self, key: str) -> int:
        """Return the number of paths that start at an input irrep."""
        return sum(len(group.degrees) for group in self.groups[key])

    def path_of_component(self, key: str) -> list[int]:
        """Return the path that each component on axis ``a`` of an input irrep belongs to."""
        paths: list[int] = []
        for group in self.groups[key]:
            first = len(set(paths))
            paths += dimension(group.output) * [*range(first, first + len(group.degrees))]
        return paths

    def num_radial(self) -> int:
        """Return the number of radial functions: one per path and channel."""
        return sum(self.inputs[key] * self.num_paths(key) for key in self.groups)

    def degrees_of_radial(self) -> list[int]:
        """Return the degree of the harmonics that each radial function goes with."""
        return [
            degree
            for key, groups in self.groups.items()
            for group in groups
            for degree in group.degrees
            for _ in range(self.inputs[key])
        ]


def layer_layouts(
    scalars: int,
    hidden_irreps: str,
    l_max: int,
    num_interactions: int,
    scale: float = 1.0,
    parity: bool = True,
) -> tuple[LayerLayout, ...]:
    """Return the layouts of all layers.

    The first layer reads ``scalars`` channels, the one-hot species or their embedding; the last
    one writes scalars only. Irreps that no path can reach (all their features would be zero) are
    left out.
    """
    hidden = parse_irreps(hidden_irreps)
    layouts = []
    inputs = {"0e": scalars}
    for layer in range(num_interactions):
        targets = hidden if layer < num_interactions - 1 else {"0e": hidden["0e"]}
        groups = {key: paths_between(key, targets, l_max, parity) for key in inputs}
        groups = {key: paths for key, paths in groups.items() if paths}
        reached = {group.output for paths in groups.values() for group in paths} | set(inputs)
        outputs = {key: mul for key, mul in targets.items() if key in reached}
        layouts.append(LayerLayout(inputs, outputs, groups, l_max, scale))
        inputs = outputs
    return tuple(layouts)


def paths_between(
    key: str, outputs: Iterable[str], l_max: int, parity: bool = True
) -> tuple[Group, ...]:
    """Return all paths from an input irrep to the outputs along harmonics up to ``l_max``.

    Without ``parity`` all harmonics count as even, as they do for rotations alone.
    """
    source = irrep(key)
    degrees = {
        output: tuple(
            degree
            for degree in range(l_max + 1)
            if irrep(output) in products(source, Irrep(degree, (-1) ** degree if parity else 1))
        )
        for output in outputs
    }
    return tuple(Group(output, degree) for output, degree in degrees.items() if degree)


@functools.cache
def irrep(key: str) -> Irrep:
    """Return the irrep of a key; a tag after a colon tells two inputs of one irrep apart."""
    return parse_irrep(key.partition(":")[0])


@functools.cache
def dimension(key: str) -> int:
    """Return 2l+1 of an irrep."""
    return irrep(key).dim


@functools.cache
def coupling(key: str, groups: tuple[Group, ...], l_max: int) -> Float[ndarray, "m a b"]:
    """Return C[m, a, b] with G[a, b] = sum_m Y_m C[m, a, b] for one input irrep.

    Clebsch-Gordan coefficients in e3nn's component normalisation, sqrt(2 l_out + 1) · CG.
    """
    import e3nn_jax as e3nn  # a second of imports that kept programs do without

    source = irrep(key)
    blocks = []
    for group in groups:
        target = irrep(group.output)
        block = np.zeros(((l_max + 1) ** 2, target.dim, len(group.degrees), source.dim))
        for path, degree in enumerate(group.degrees):
            coefficients = e3nn.clebsch_gordan(source.degree, degree, target.degree)
            rows = slice(degree**2, (degree + 1) ** 2)
            block[rows, :, path, :] = np.transpose(coefficients, (1, 2, 0)) * target.dim**0.5
        blocks.append(block.reshape((l_max + 1) ** 2, group.components, source.dim))
    return np.concatenate(blocks, axis=1)


def harmonics(direction: Float[Array, "edges 3"], l_max: int) -> Float[Array, "edges harmonics"]:
    """Return the real spherical harmonics of unit vectors, all degrees up to ``l_max``.

    Component normalisation: the squares of a degree sum to 2l+1.
    """
    import e3nn_jax as e3nn  # a second of imports that kept programs do without

    irreps = e3nn.Irreps.spherical_harmonics(l_max)
    return e3nn.spherical_harmonics(
        irreps, direction, normalize=False, algorithm=("recursive", "dense")
    ).array


def zero_features(channels: dict[str, int]) -> Features:
    """Return features of one atom that are zero, ``{irrep: (1, 2l+1, u)}``."""
    return {key: jnp.zeros((1, dimension(key), width)) for key, width in channels.items()}


def zero_sums(layout: LayerLayout) -> Features:
    """Return sums over the neighbours of one atom that are zero, ``{input irrep: (1, a, u)}``."""
    return {
        key: jnp.zeros((1, layout.num_components(key), layout.inputs[key])) for key in layout.groups
    }


def angular_factors(layout: LayerLayout, sphericals: Float[Array, "edges harmonics"]) -> Features:
    """Return G[a, b] of every edge, ``{input irrep: (edges, a, b)}``; linear in the harmonics."""
    constants = {
        key: layout.scale * coupling(key, groups, layout.l_max)
        for key, groups in layout.groups.items()
    }
    return {
        key: jnp.tensordot(sphericals, constant.astype(sphericals.dtype), 1)
        for key, constant in constants.items()
    }


def split_radial(layout: LayerLayout, radial: Float[Array, "edges functions"]) -> Features:
    """Split the outputs of a radial network into ``{input irrep: (edges, paths, u)}``."""
    shapes = {key: (layout.num_paths(key), layout.inputs[key]) for key in layout.groups}
    # a split, not slices: its transpose is one concatenation
    blocks = jax.lax.split(radial, [paths * u for paths, u in shapes.values()], axis=1)
    return {key: block.reshape(-1, *shapes[key]) for key, block in zip(shapes, blocks, strict=True)}


def expand_paths(groups: tuple[Group, ...], radial: Array) -> Array:
    """Repeat the radial function of a path over its components: (e, paths, u) -> (e, a, u)."""
    edges, _, channels = radial.shape
    counts = [len(group.degrees) for group in groups]
    blocks = []
    for group, functions in zip(groups, jax.lax.split(radial, counts, axis=1), strict=True):
        shape = (edges, dimension(group.output), functions.shape[1], channels)
        block = jnp.broadcast_to(functions[:, None], shape)
        blocks.append(block.reshape(edges, group.components, channels))
    return jnp.concatenate(blocks, axis=1)


def gather_outputs(layout: LayerLayout, sums: Features) -> Features:
    """Regroup ``{input irrep: (atoms, a, u)}`` as ``{output irrep: (atoms, 2l+1, fan_in)}``."""
    collected: dict[str, list[Array]] = {key: [] for key in layout.outputs}
    for key, groups in layout.groups.items():
        blocks = jax.lax.split(sums[key], [group.components for group in groups], axis=1)
        for group, block in zip(groups, blocks, strict=True):
            collected[group.output].append(block.reshape(len(block), dimension(group.output), -1))
    return {key: jnp.concatenate(paths, axis=-1) for key, paths in collected.items() if paths}

"""Weights of e3nn's modules from the flat arrays of a state dictionary, by irreps alone.

e3nn divides by square roots of numbers of channels when it runs; the matrices returned here
contain these factors. Blocks are e3nn's lists of irreps, ``((128, "0e"), (64, "1e"))``, in the
order of the file; the channels of blocks of one irrep stand one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models import activation
from phonopy_equivariant.models.irreps import LayerLayout, dimension
from phonopy_equivariant.models.layered import Params
from phonopy_equivariant.models.representations import Irrep, parse_irrep, products

Blocks = Sequence[tuple[int, str]]

# What e3nn multiplies an activation by, so that its second moment over a million numbers of
# torch's normal generator with seed 0 is one: e3nn.math.normalize2mom.
MOMENTS = {"silu": 1.6791767923989418, "tanh": 1.5937334472592695}


def activation_ratio(name: str) -> float:
    """Return e3nn's normalised activation in units of this package's."""
    return MOMENTS[name] * activation.second_moment(name)


def linear_blocks(inputs: Blocks, outputs: Blocks, weights: ndarray) -> dict[str, ndarray]:
    """Return the matrix (channels in, channels out) of each irrep of an ``o3.Linear``."""
    channels = channel_counts(inputs)
    blocks: dict[str, ndarray] = {}
    start = 0
    for key, rows in channel_slices(inputs):
        for other, columns in channel_slices(outputs):
            if other != key:
                continue
            shape = (rows.stop - rows.start, columns.stop - columns.start)
            stop = start + shape[0] * shape[1]
            block = blocks.setdefault(key, np.zeros((channels[key], channel_counts(outputs)[key])))
            block[rows, columns] = weights[start:stop].reshape(shape) / channels[key] ** 0.5
            start = stop
    _require_all(start, weights)
    return blocks


def species_blocks(
    inputs: Blocks, num_species: int, outputs: Blocks, weights: ndarray
) -> dict[str, ndarray]:
    """Return (species, in, out) of each irrep of a product with the species' one-hot vector."""
    channels = channel_counts(inputs)
    blocks: dict[str, ndarray] = {}
    start = 0
    for key, rows in channel_slices(inputs):
        for other, columns in channel_slices(outputs):
            if other != key:
                continue
            shape = (rows.stop - rows.start, num_species, columns.stop - columns.start)
            stop = start + shape[0] * shape[1] * shape[2]
            whole = (num_species, channels[key], channel_counts(outputs)[key])
            block = blocks.setdefault(key, np.zeros(whole))
            flat = weights[start:stop].reshape(shape).transpose(1, 0, 2)
            block[:, rows, columns] = flat / (channels[key] * num_species) ** 0.5
            start = stop
    _require_all(start, weights)
    return blocks


def silu_network(weights: Sequence[ndarray]) -> dict[str, ndarray]:
    """Return the weights of a ``FullyConnectedNet`` of normalised SiLU, for plain SiLU."""
    factors = [1.0] + [MOMENTS["silu"]] * (len(weights) - 1)
    return {
        f"w{depth}": w * (factor / len(w) ** 0.5)
        for depth, (w, factor) in enumerate(zip(weights, factors, strict=True))
    }


def gate_blocks(outputs: Blocks) -> list[tuple[int, str]]:
    """Return the blocks that an e3nn ``Gate`` takes: scalars, gates and gated irreps.

    It sorts them by degree, odd before even, and joins those of one irrep: even scalars and gates
    are one block, also where odd scalars stand between them in ``outputs``.
    """
    scalars = [(count, key) for count, key in outputs if parse_irrep(key).degree == 0]
    gated = [(count, key) for count, key in outputs if parse_irrep(key).degree > 0]
    channels = channel_counts([*scalars, *[(count, "0e") for count, _ in gated], *gated])
    return [(channels[key], key) for key in sorted(channels, key=parse_irrep)]


def gate_order(outputs: Blocks, layout: LayerLayout) -> ndarray:
    """Return where the scalars that go into this package's gate stand in those of the file.

    Scalars come first, then the gates of each irrep; files have these in an order of their own.
    """
    scalars = sum(count for count, key in outputs if key == "0e")
    start, gates = scalars, {}
    for count, key in outputs:
        if parse_irrep(key).degree > 0:
            gates[key] = np.arange(start, start + count)
            start += count
    return np.concatenate([np.arange(scalars), *(gates[k] for k in layout.outputs if k in gates)])


class Paths(NamedTuple):
    """Where this package's paths of a convolution stand among those of a ``TensorProduct``."""

    columns: ndarray  # of the radial functions
    signs: ndarray  # of the file's couplings relative to this package's
    rows: dict[str, ndarray]  # of the linear map that follows, for each output irrep


def convolution_paths(
    layout: LayerLayout,
    inputs: Blocks,
    targets: Collection[str],
    parity: bool,
    by_output: bool,
    sign: Callable[[int, int, int], float],
) -> Paths:
    """Match the paths of a file's convolution with this package's.

    Parameters
    ----------
    layout
        Of this package.
    inputs
        Features in the order of the file, each irrep once.
    targets
        Irreps that products may have. Those the layout lacks are used by nothing.
    parity
        Whether harmonics have the parity of their degree.
    by_output
        Whether the file's radial functions are sorted by the irreps they lead to.
    sign
        Of the file's coupling of two degrees to a third, relative to this package's.

    """
    paths = [
        (key, degree, str(output), count)
        for count, key in inputs
        for degree in range(layout.l_max + 1)
        for output in products(parse_irrep(key), Irrep(degree, (-1) ** degree if parity else 1))
        if str(output) in targets
    ]
    rows = _places(paths, lambda path: path[2])
    if by_output:
        paths.sort(key=lambda path: parse_irrep(path[2]))  # e3nn for torch puts odd before even
    columns = _places(paths, lambda path: "")
    ours = [
        (key, degree, group.output)
        for key, groups in layout.groups.items()
        for group in groups
        for degree in group.degrees
    ]
    signs = [
        np.full(
            len(columns[path]),
            sign(parse_irrep(path[0]).degree, path[1], parse_irrep(path[2]).degree),
        )
        for path in ours
    ]
    return Paths(
        np.concatenate([columns[path] for path in ours]),
        np.concatenate(signs),
        {
            output: np.concatenate([rows[path] for path in ours if path[2] == output])
            for output in {path[2]: None for path in ours}
        },
    )


def gated_layer(
    up: dict[str, ndarray],
    down: dict[str, ndarray],
    skip: dict[str, ndarray],
    paths: Paths,
    layout: LayerLayout,
    outputs: Blocks,
    first: bool,
) -> Params:
    """Return the linear maps of a layer of a file as this package's, ``up``, ``down``, ``skip``.

    e3nn normalises activations: scalars that a layer gets from the one before and the gates of
    what it gives are multiples of this package's. The first layer gets no activations. Scalars
    and gates come into this package's order; rows of ``down`` into that of its paths.
    """
    scalars = {} if first else {"0e": activation_ratio("silu"), "0o": activation_ratio("tanh")}
    gates = {key: activation_ratio("silu") if dimension(key) > 1 else 1.0 for key in down}
    order = gate_order(outputs, layout)
    down, skip = (
        {key: m[..., order] if key == "0e" else m for key, m in matrices.items()}
        for matrices in (down, skip)
    )
    layer: Params = {
        "up": {key: matrix * scalars.get(key, 1.0) for key, matrix in up.items()},
        "down": {
            key: down[key][paths.rows[key]] * gates[key]
            for key in layout.outputs
            if key in paths.rows
        },
    }
    if skip:
        layer["skip"] = {
            key: matrix * (gates[key] * scalars.get(key, 1.0)) for key, matrix in skip.items()
        }
    return layer


def _places(
    paths: Sequence[tuple[str, int, str, int]], line: Callable[[tuple[str, int, str, int]], str]
) -> dict[tuple[str, int, str], ndarray]:
    """Return the places of the channels of each path among those that stand in its line."""
    ends: dict[str, int] = {}
    places = {}
    for path in paths:
        start = ends.get(line(path), 0)
        ends[line(path)] = start + path[3]
        places[path[:3]] = np.arange(start, start + path[3])
    return places


def coupling_sign(stored: ndarray, degrees: tuple[int, int, int]) -> float:
    """Return the sign of a stored Wigner 3j tensor relative to this package's coupling."""
    import e3nn_jax as e3nn  # a second of imports that kept programs do without

    ours = np.asarray(e3nn.clebsch_gordan(*degrees))
    for sign in (1.0, -1.0):
        if stored.shape == ours.shape and np.abs(stored - sign * ours).max() < 1e-5:
            return sign
    raise PhonopyEquivariantError(
        "its coupling of the degrees {} and {} to {} is not e3nn's.".format(*degrees)
    )


def channel_counts(blocks: Blocks) -> dict[str, int]:
    """Return the number of channels of each irrep."""
    channels: dict[str, int] = {}
    for count, key in blocks:
        channels[key] = channels.get(key, 0) + count
    return channels


def channel_slices(blocks: Blocks) -> list[tuple[str, slice]]:
    """Return the irrep of each block, and where its channels stand among those of the irrep."""
    ends: dict[str, int] = {}
    slices = []
    for count, key in blocks:
        start = ends.get(key, 0)
        ends[key] = start + count
        slices.append((key, slice(start, start + count)))
    return slices


def _require_all(used: int, weights: ndarray) -> None:
    if used != len(weights):
        raise PhonopyEquivariantError(f"{len(weights)} weights where {used} belong.")

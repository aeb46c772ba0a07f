"""Read Nequix ``.nqx`` checkpoints (arXiv:2508.16067) without pickle and without equinox.

A file is one line of JSON, the configuration, then arrays in NumPy's ``.npy`` format back to
back: the free-atom energies; for each layer the radial network, ``linear_1``, ``linear_2``,
``skip`` and the weights of the norm; last the readout.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.models.irreps import LayerLayout, dimension, layer_layouts
from phonopy_equivariant.models.layered import Params

# Nequix's name of a setting, ours
_CONFIG_KEYS = {
    "cutoff": "cutoff",
    "n_layers": "num_interactions",
    "hidden_irreps": "hidden_irreps",
    "lmax": "l_max",
    "radial_basis_size": "num_radial_basis",
    "radial_mlp_size": "radial_width",
    "radial_mlp_layers": "radial_depth",
    "radial_polynomial_p": "envelope_exponent",
    "index_weights": "species_skip",
    "layer_norm": "layer_norm",
    "avg_n_neighbors": "avg_num_neighbors",
    "scale": "scale",
    "shift": "shift",
}


def read_nequix(path: Path) -> tuple[NequIPConfig, Params]:
    """Return configuration and parameters of a Nequix checkpoint.

    Raises
    ------
    PhonopyEquivariantError
        The file is not a Nequix checkpoint, is cut short, or has arrays of another shape than
        its configuration says.

    """
    with open(path, "rb") as file:
        config = _read_config(path, file)
        params = _read_params(path, file, config)
        # one published file ends in a newline
        if file.read(2) not in (b"", b"\n"):
            raise PhonopyEquivariantError(f"{path}: bytes after the last array; not a Nequix file.")
    return config, params


def _read_config(path: Path, file: BinaryIO) -> NequIPConfig:
    try:
        raw: dict[str, Any] = json.loads(file.readline(1_000_000))
        values = {ours: raw[theirs] for theirs, ours in _CONFIG_KEYS.items()}
        values["species"] = tuple(raw["atomic_numbers"])
    except (ValueError, KeyError, TypeError) as error:
        raise PhonopyEquivariantError(
            f"{path}: no Nequix configuration in the first line; not a .nqx checkpoint."
        ) from error
    config = NequIPConfig(**values)
    if "0o" in config.hidden_irreps:
        raise PhonopyEquivariantError(
            f"{path}: Nequix models with odd scalars (0o) use them as gates; not supported."
        )
    return config


def _read_params(path: Path, file: BinaryIO, config: NequIPConfig) -> Params:
    def linear(*shape: int) -> ndarray:
        # e3nn divides by the square root of the channels in; our weights contain the factor
        return read(*shape) / np.sqrt(shape[-2])

    def read(*shape: int) -> ndarray:
        try:
            array = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise PhonopyEquivariantError(
                f"{path}: the file is cut short or damaged; fetch it again."
            ) from error
        if array.shape != shape:
            raise PhonopyEquivariantError(
                f"{path}: found an array of shape {array.shape} where {shape} belongs."
            )
        if not np.isfinite(array).all():
            raise PhonopyEquivariantError(f"{path}: weights that are not finite numbers.")
        return array.astype(float)

    layouts = layer_layouts(
        len(config.species), config.hidden_irreps, config.l_max, config.num_interactions
    )
    shared = {"~": {"atomic_energies": read(len(config.species))}}
    layers = tuple(_layer(read, linear, config, layout) for layout in layouts)
    layers[-1]["readout"] = {"0e": linear(layouts[-1].outputs["0e"], 1)}
    return {"global": shared, "layers": layers}


def _layer(
    read: Callable[..., ndarray],
    linear: Callable[..., ndarray],
    config: NequIPConfig,
    layout: LayerLayout,
) -> Params:
    widths = [config.num_radial_basis, *[config.radial_width] * config.radial_depth]
    radial = {f"w{d}": read(a, b) for d, (a, b) in enumerate(zip(widths, widths[1:], strict=False))}
    columns = _column_order(layout)
    radial[f"w{config.radial_depth}"] = read(widths[-1], len(columns))[:, columns]
    gates = sum(width for key, width in layout.outputs.items() if dimension(key) > 1)
    outputs = layout.outputs | {"0e": layout.outputs["0e"] + gates}
    up = {key: linear(width, width) for key, width in layout.inputs.items()}
    down = {
        key: linear(layout.fan_in(key), width)
        for key, width in outputs.items()
        if layout.fan_in(key)
    }
    indexed = (len(config.species),) if config.species_skip else ()
    skip = {
        key: linear(*indexed, layout.inputs[key], width)
        for key, width in outputs.items()
        if key in layout.inputs
    }
    layer = {"radial": radial, "up": up, "down": down, "skip": skip}
    if config.layer_norm:
        layer["norm"] = {key: read(width) for key, width in outputs.items()}
    return layer


def _column_order(layout: LayerLayout) -> ndarray:
    """Return where our radial functions stand in Nequix's order.

    Nequix sorts its blocks of radial functions by output irrep, keeping (input, degree) order
    within one; ours stand by input irrep first.
    """
    start = 0
    theirs: dict[tuple[str, str], ndarray] = {}
    for output in layout.outputs:
        for key, groups in layout.groups.items():
            for group in groups:
                if group.output == output:
                    stop = start + layout.inputs[key] * len(group.degrees)
                    theirs[key, output] = np.arange(start, stop)
                    start = stop
    return np.concatenate(
        [theirs[key, group.output] for key, groups in layout.groups.items() for group in groups]
    )

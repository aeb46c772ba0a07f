"""Read a SevenNet checkpoint as a NequIP of this package.

Nothing of the file is executed, and torch is not needed. What SevenNet multiplies at run time,
normalisations of e3nn and of activations included, becomes part of the weights; its two linear
readouts become one; a modality becomes biases. Every entry of the state dictionary is read, or
refused by name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from phonopy_equivariant.checkpoints.e3nn_weights import (
    Blocks,
    Paths,
    activation_ratio,
    convolution_paths,
    coupling_sign,
    gate_blocks,
    gate_order,
    gated_layer,
    linear_blocks,
    silu_network,
    species_blocks,
)
from phonopy_equivariant.checkpoints.entries import Entries
from phonopy_equivariant.checkpoints.sevennet.settings import Settings, read_settings
from phonopy_equivariant.checkpoints.torch_file import read_torch
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.models.irreps import LayerLayout, layer_layouts
from phonopy_equivariant.models.layered import Params
from phonopy_equivariant.models.representations import Irrep, format_irreps, parse_irrep, products

# Ends of the names of constants: masks of irreps.
_CONSTANTS = ("output_mask",)
# Names before version 0.10, and those of today.
_OLD_NAMES = {
    "EdgeEmbedding": "edge_embedding",
    "reducing nn input to hidden": "reduce_input_to_hidden",
    "reducing nn hidden to energy": "reduce_hidden_to_energy",
    "rescale atomic energy": "rescale_atomic_energy",
}
_MODULES = (
    "self connection intro|self interaction 1|convolution|self interaction 2|equivariant gate"
)
_OLD_LAYER = re.compile(rf"(\d+) ({_MODULES})")


class _Source(NamedTuple):
    entries: Entries
    settings: Settings
    modality: int | None
    order: ndarray  # species in the order of atomic numbers


def is_sevennet(entries: dict[str, Any]) -> bool:
    """Tell whether a dictionary from a file of torch is a checkpoint of SevenNet."""
    config = entries.get("config")
    return isinstance(config, dict) and config.get("_model_type") == "E3_equivariant_model"


def read_sevennet(path: Path, modality: str | None = None) -> tuple[NequIPConfig, Params]:
    """Return configuration and parameters of a SevenNet checkpoint, in double precision.

    Parameters
    ----------
    path
        A ``.pth`` file as training writes it.
    modality
        Which of several modalities to read; needed if there is more than one.

    Raises
    ------
    PhonopyEquivariantError
        Another kind of file, cut short or damaged; a setting or entry that is not known; or no
        such modality.

    """
    content = read_torch(path, ("config", "model_state_dict"))
    if not is_sevennet(content) or "model_state_dict" not in content:
        raise PhonopyEquivariantError(
            f"{path}: no checkpoint of SevenNet or nequip (no configuration): weights alone do not "
            "tell the architecture; of mace-torch give the whole model (.model)."
        )
    try:
        return _read(content["config"], content["model_state_dict"], modality)
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise PhonopyEquivariantError(
            f"{path}: its configuration or weights are not those of a SevenNet model "
            f"({type(error).__name__}: {error})."
        ) from error


def _read(
    config: dict[str, Any], state: dict[str, Any], modality: str | None
) -> tuple[NequIPConfig, Params]:
    settings = read_settings(config)
    numbers = tuple(sorted(settings.types))
    source = _Source(
        Entries({_renamed(name): array for name, array in state.items()}),
        settings,
        _modality(settings.modalities, modality),
        np.array([settings.types[z] for z in numbers]),
    )
    irreps = settings.irreps or _inferred_irreps(settings)
    scales = _of_species(source, "rescale_atomic_energy.scale")
    result = _config(source, irreps, numbers, scales)
    layouts = _layouts(result, irreps)
    one_hot = [(len(numbers), "0e")]
    embedding, constants = _linear(
        source, "onehot_to_feature_x", one_hot, irreps[0], "node_embedding"
    )
    layers = tuple(_layer(source, result, layouts[t], irreps, t) for t in range(settings.layers))
    layers[-1]["readout"], readout_constant = _readout(source, irreps[-1])
    if result.species_scales:
        layers[-1]["scales"] = {"factor": scales}
    shared = {
        "atomic_energies": _of_species(source, "rescale_atomic_energy.shift")
        + scales * readout_constant,
        "embedding": embedding["0e"][source.order] + constants,
    }
    source.entries.close(_CONSTANTS)
    return result, {"global": {"~": shared}, "layers": layers}


def _renamed(name: str) -> str:
    """Return today's name of an entry."""
    module, dot, below = name.partition(".")
    layer = _OLD_LAYER.fullmatch(module)
    if layer:
        module = f"{layer[1]}_{layer[2].replace(' ', '_')}"
    return _OLD_NAMES.get(module, module) + dot + below.replace("denumerator", "denominator")


def _modality(modalities: dict[str, int], modality: str | None) -> int | None:
    if not modalities:
        if modality is not None:
            raise PhonopyEquivariantError(
                f"the model has no modalities, so no {modality!r} either."
            )
        return None
    if modality not in modalities:
        raise PhonopyEquivariantError(
            f"the model has the modalities {', '.join(modalities)}: choose one, with "
            "'phonopy-equivariant models import FILE OUT.npz --head NAME'."
        )
    return modalities[modality]


def _inferred_irreps(settings: Settings) -> tuple[Blocks, ...]:
    """Return the features between layers where the configuration does not list them."""
    irreps: list[Blocks] = [((settings.channels, "0e"),)]
    for layer in range(settings.layers):
        last = layer == settings.layers - 1
        highest = 0 if last else settings.degrees_of_features
        reached = _products(settings, irreps[-1], highest, even=last)
        irreps.append(tuple((settings.channels, key) for key in reached))
    return tuple(irreps)


def _products(settings: Settings, inputs: Blocks, highest: int, even: bool) -> dict[str, int]:
    """Return the irreps of a convolution and their channels, in the order of e3nn for torch."""
    channels: dict[Irrep, int] = {}
    for count, key in inputs:
        for degree in range(settings.degrees_of_edges + 1):
            parity = (-1) ** degree if settings.parity else 1
            for output in products(parse_irrep(key), Irrep(degree, parity)):
                if output.degree <= highest and (output.parity == 1 or not even):
                    channels[output] = channels.get(output, 0) + count
    return {str(output): channels[output] for output in sorted(channels)}


def _of_species(source: _Source, name: str) -> ndarray:
    """Return numbers for each species in the order of atomic numbers."""
    values = source.entries.take(name)
    if values.ndim == 2:
        values = values[source.modality]
    if values.size == 1:
        return np.full(len(source.order), values.item())
    ordered: ndarray = values[source.order]
    return ordered


def _config(
    source: _Source, irreps: tuple[Blocks, ...], numbers: tuple[int, ...], scales: ndarray
) -> NequIPConfig:
    settings = source.settings
    if len(irreps[0]) != 1 or irreps[0][0][1] != "0e" or [key for _, key in irreps[-1]] != ["0e"]:
        raise PhonopyEquivariantError(
            "features before the first or after the last layer that are not even scalars are not "
            "supported."
        )
    if len(set(settings.hidden)) > 1:
        raise PhonopyEquivariantError(
            f"radial networks of several widths {settings.hidden} are not supported."
        )
    uniform = bool(np.ptp(scales) == 0)
    widest = irreps[-2] if settings.layers > 1 else irreps[-1]
    return NequIPConfig(
        species=numbers,
        cutoff=settings.cutoff,
        num_interactions=settings.layers,
        hidden_irreps=format_irreps({key: count for count, key in widest}),
        l_max=settings.degrees_of_edges,
        num_radial_basis=settings.num_basis,
        radial_width=settings.hidden[0] if settings.hidden else 1,
        radial_depth=len(settings.hidden),
        envelope_exponent=settings.exponent,
        scale=float(scales[0]) if uniform else 1.0,
        parity=settings.parity,
        embedding_width=irreps[0][0][0],
        frequencies=_frequencies(source),
        envelope="xplor" if settings.onset else "polynomial",
        envelope_onset=settings.onset,
        solid_harmonics=settings.solid_harmonics,
        skips=settings.skips,
        biases=settings.biases or bool(settings.modal - {"node_embedding", "output_block"}),
        readout_widths=_readout_widths(source),
        species_scales=not uniform,
    )


def _frequencies(source: _Source) -> tuple[float, ...]:
    settings, name = source.settings, "edge_embedding.basis_function.coeffs"
    if settings.trained_frequencies:
        values = source.entries.take(name, (settings.num_basis,))
    else:  # made when the model is built, in single precision
        exact = np.pi * np.arange(1, settings.num_basis + 1) / settings.cutoff
        values = exact.astype(np.float32).astype(float)
    return tuple(float(x) for x in values)


def _layouts(config: NequIPConfig, irreps: tuple[Blocks, ...]) -> tuple[LayerLayout, ...]:
    """Return the layouts of this package; features of the file must be theirs."""
    layouts = layer_layouts(
        config.embedding_width,
        config.hidden_irreps,
        config.l_max,
        config.num_interactions,
        parity=config.parity,
    )
    for layout, blocks in zip(layouts, irreps[1:], strict=True):
        if layout.outputs != {key: count for count, key in blocks}:
            written = "+".join(f"{count}x{key}" for count, key in blocks)
            raise PhonopyEquivariantError(f"the features {written} of a layer are not supported.")
    return layouts


def _linear(
    source: _Source, name: str, inputs: Blocks, outputs: Blocks, part: str = ""
) -> tuple[dict[str, ndarray], ndarray]:
    """Return the matrices of a linear map, and what it adds to scalars.

    ``part`` is the name of what a modality may change; the one-hot vector of the modality then
    stands behind the features.
    """
    settings, entries = source.settings, source.entries
    blocks, modal = list(inputs), part in settings.modal
    if modal:
        blocks.append((len(settings.modalities), "0e"))
    matrices = linear_blocks(blocks, outputs, entries.take(f"{name}.linear.weight").ravel())
    constants = np.zeros(sum(count for count, key in outputs if key == "0e"))
    if settings.biases and part:
        constants = constants + entries.take(f"{name}.linear.bias", constants.shape)
    if modal:
        assert source.modality is not None
        scalars = len(matrices["0e"]) - len(settings.modalities)
        constants = constants + matrices["0e"][scalars + source.modality]
        matrices["0e"] = matrices["0e"][:scalars]
    return matrices, constants


def _layer(
    source: _Source,
    config: NequIPConfig,
    layout: LayerLayout,
    irreps: tuple[Blocks, ...],
    t: int,
) -> Params:
    """Return the parameters of one interaction."""
    entries, settings = source.entries, source.settings
    inputs, mixed = irreps[t], gate_blocks(irreps[t + 1])
    highest = max(parse_irrep(key).degree for _, key in irreps[t + 1])
    sums = _products(settings, inputs, highest, even=t == settings.layers - 1)
    up, sent_constants = _linear(
        source, f"{t}_self_interaction_1", inputs, inputs, "self_inter_intro"
    )
    down, constants = _linear(
        source,
        f"{t}_self_interaction_2",
        [(count, key) for key, count in sums.items()],
        mixed,
        "self_inter_outro",
    )
    skip = _skip(source, t, inputs, mixed)
    signs = _coupling_signs(entries, t)

    def sign(*degrees: int) -> float:
        return signs[degrees] if min(degrees) > 0 else 1.0

    paths = convolution_paths(layout, inputs, sums, settings.parity, settings.by_output, sign)
    denominator = entries.take(f"{t}_convolution.denominator", (1,)).item()
    down = {key: matrix / denominator for key, matrix in down.items()}
    params = gated_layer(up, down, skip, paths, layout, irreps[t + 1], first=t == 0)
    params["radial"] = _radial(entries, settings, t, paths)
    if config.biases:
        params["up"]["bias"] = sent_constants
        params["bias"] = {"bias": constants[gate_order(irreps[t + 1], layout)]}
    return params


def _skip(source: _Source, t: int, inputs: Blocks, mixed: Blocks) -> dict[str, ndarray]:
    name = f"{t}_self_connection_intro"
    if source.settings.skips[t] == "shared":
        return _linear(source, name, inputs, mixed)[0]
    weights = source.entries.take(f"{name}.fc_tensor_product.weight").ravel()
    blocks = species_blocks(inputs, len(source.order), mixed, weights)
    return {key: matrix[source.order] for key, matrix in blocks.items()}


def _coupling_signs(entries: Entries, t: int) -> dict[tuple[int, ...], float]:
    """Return the signs of the stored couplings of three positive degrees."""
    signs: dict[tuple[int, ...], float] = {}
    for name in entries.named(f"{t}_convolution."):
        match = re.search(r"\._w3j_(\d+)_(\d+)_(\d+)$", name)
        if match:
            degrees = (int(match[1]), int(match[2]), int(match[3]))
            signs[degrees] = coupling_sign(entries.take(name), degrees)
    return signs


def _radial(entries: Entries, settings: Settings, t: int, paths: Paths) -> dict[str, ndarray]:
    depth = len(settings.hidden)
    weights = silu_network(
        [entries.take(f"{t}_convolution.weight_nn.layer{k}.weight") for k in range(depth + 1)]
    )
    weights[f"w{depth}"] = weights[f"w{depth}"][:, paths.columns] * paths.signs
    return weights


def _readout_widths(source: _Source) -> tuple[int, ...]:
    if not source.settings.network_readout:
        return ()
    layers = len(source.entries.named("readout_FCN.fcn.layer"))
    return tuple(
        source.entries.take(f"readout_FCN.fcn.layer{k}.weight").shape[1] for k in range(layers - 1)
    )


def _readout(source: _Source, inputs: Blocks) -> tuple[dict[str, ndarray], float]:
    """Return the weights of the readout, and what it gives where all scalars are zero."""
    factor = activation_ratio("silu")
    if source.settings.network_readout:
        depth = len(_readout_widths(source)) + 1
        names = [f"readout_FCN.fcn.layer{k}.weight" for k in range(depth)]
        weights = silu_network([source.entries.take(name) for name in names])
        return weights | {"w0": weights["w0"] * factor}, 0.0
    hidden = [(inputs[0][0] // 2, "0e")]
    first, constants = _linear(source, "reduce_input_to_hidden", inputs, hidden, "output_block")
    last, constant = _linear(source, "reduce_hidden_to_energy", hidden, [(1, "0e")], "energy")
    matrix = first["0e"] @ last["0e"]
    return {"0e": matrix * factor}, float((constants @ last["0e"] + constant).item())

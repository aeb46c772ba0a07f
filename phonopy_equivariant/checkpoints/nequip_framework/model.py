"""Read a training checkpoint or a package of nequip as a NequIP of this package.

Nothing of the file is executed, and torch is not needed. Where the training kept a moving average
of the weights, that is read, as nequip does for inference. Every entry of the state dictionary is
read, or refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from phonopy_equivariant.checkpoints.e3nn_weights import (
    Blocks,
    activation_ratio,
    convolution_paths,
    coupling_sign,
    gate_blocks,
    gated_layer,
    linear_blocks,
    species_blocks,
)
from phonopy_equivariant.checkpoints.entries import Entries
from phonopy_equivariant.checkpoints.nequip_framework.package import is_package, read_package
from phonopy_equivariant.checkpoints.nequip_framework.settings import Settings, read_settings
from phonopy_equivariant.checkpoints.torch_file import read_torch
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.models.irreps import LayerLayout, layer_layouts
from phonopy_equivariant.models.layered import Params
from phonopy_equivariant.models.representations import Irrep, format_irreps, parse_irrep, products

# Modules whose objects a training checkpoint holds beside the model: they are passed over.
PASSED_OVER = ("lightning.", "omegaconf.", "nequip.", "torchmetrics.", "torch.", "typing.")
# Entries that are trained, and have a moving average, only if a setting says so.
_TRAINED_IF = {
    "bessel_trainable": "bessel_weights",
    "per_type_energy_scales_trainable": "per_type_energy_scale_shift.scales",
    "per_type_energy_shifts_trainable": "per_type_energy_scale_shift.shifts",
}
# Entries of a training beside its model: of the run, of losses and metrics.
_OF_TRAINING = ("run_stage", "loss.", "train_", "val_", "test_")
_CONSTANTS = ("output_mask", "_empty")
_HALF_COULOMB = 14.399645 / 2  # e²/4πε0 in eV Å, half of it on each atom of a pair
_BUFFERS = re.compile(r"_rmax_recip|output_mask|_w3j_\d+_\d+_\d+|_qqr2exesquare|atomic_numbers")


class _Source(NamedTuple):
    entries: Entries
    settings: Settings
    order: ndarray  # species in the order of atomic numbers
    embedding: ndarray  # (species, width) in the order of the file


def is_nequip(path: Path) -> bool:
    """Tell whether a file is a training checkpoint or a package of nequip."""
    if is_package(path):
        return True
    try:
        return bool(read_torch(path, ("hyper_parameters",), ignore=PASSED_OVER))
    except PhonopyEquivariantError:
        return False


def read_nequip(path: Path) -> tuple[NequIPConfig, Params]:
    """Return configuration and parameters of a model of nequip 0.7 or later.

    Parameters
    ----------
    path
        A ``.ckpt`` file of a training, or a package, ``.nequip.zip``.

    Raises
    ------
    PhonopyEquivariantError
        Another kind of file, cut short or damaged; a setting or entry that is not known.

    """
    place = f"{path}: "
    try:
        if is_package(path):
            settings, weights = read_package(path)
        else:
            content = read_torch(path, ("state_dict", "hyper_parameters"), ignore=PASSED_OVER)
            model = content["hyper_parameters"]["model"]
            settings = read_settings(model)
            weights = _weights(content["state_dict"], model)
        return _read(settings, Entries(weights))
    except PhonopyEquivariantError as error:
        text = str(error).removeprefix(place)
        raise PhonopyEquivariantError(f"{place}{text}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise PhonopyEquivariantError(
            f"{place}its configuration or weights are not those of a NequIP model "
            f"({type(error).__name__}: {error})."
        ) from error


def _weights(state: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of the model, with the moving average in place of the last weights."""
    prefix = "model.sole_model."
    model = {
        re.sub(r"^(model\.)?(func\.)?", "", name.removeprefix(prefix)): value
        for name, value in state.items()
        if name.startswith(prefix)
    }
    averages = [name for name in state if name.startswith("ema.ema_weight_")]
    # during a validation the two are exchanged
    exchanged = not dict(state.get("ema._extra_state") or {}).get("is_holding_ema_weights", True)
    if averages and not exchanged:
        fixed = tuple(name for flag, name in _TRAINED_IF.items() if not settings.get(flag))
        trained = [
            name
            for name, value in model.items()
            if np.size(value) and not _BUFFERS.search(name) and not name.endswith(fixed)
        ]
        values = [state[f"ema.ema_weight_{k}"] for k in range(len(averages))]
        shapes = [np.shape(model[name]) for name in trained]
        if shapes != [np.shape(value) for value in values]:
            raise PhonopyEquivariantError(
                "its moving average does not match its weights; package the model "
                "(nequip-package build) and give the .nequip.zip."
            )
        model |= dict(zip(trained, values, strict=True))
    unread = [n for n in state if not n.startswith((prefix, "ema.", *_OF_TRAINING))]
    if not model or unread:
        raise PhonopyEquivariantError(
            f"its state dictionary has {min(unread) if unread else 'no model inside'}; only "
            "trainings of one model are supported."
        )
    return model


def _read(settings: Settings, entries: Entries) -> tuple[NequIPConfig, Params]:
    numbers = settings.numbers
    order = np.argsort(numbers)
    embedding = entries.take("type_embed.embed_module.weight")
    source = _Source(entries, settings, order, embedding)
    layers = len({name.split(".")[0] for name in entries.named("layer")})
    scales = _of_species(source, "scales", 1.0)
    config, irreps = _config(source, layers, scales)
    layouts = layer_layouts(
        config.embedding_width,
        config.hidden_irreps,
        config.l_max,
        layers,
        parity=config.parity,
    )
    result = [_layer(source, config, layouts[t], irreps, t) for t in range(layers)]
    result[-1]["readout"] = _readout(source)
    if config.species_scales:
        result[-1]["scales"] = {"factor": scales}
    shared = {
        "atomic_energies": _of_species(source, "shifts", 0.0),
        "embedding": embedding[order],
    }
    if settings.has_pair_term:
        _require_known_pair_term(entries, numbers)
    entries.close(_CONSTANTS)
    return config, {"global": {"~": shared}, "layers": tuple(result)}


def _require_known_pair_term(entries: Entries, numbers: tuple[int, ...]) -> None:
    """Refuse a ZBL term of other nuclei, or in other units than eV and Å."""
    charges = entries.take("pair_potential.atomic_numbers", (len(numbers),))
    constant = entries.take("pair_potential._qqr2exesquare", ()).item()
    if not np.array_equal(charges, numbers) or abs(constant - _HALF_COULOMB) > 1e-5:
        raise PhonopyEquivariantError("a ZBL term of other nuclei or units is not supported.")


def _of_species(source: _Source, name: str, default: float) -> ndarray:
    values = source.entries.take(f"per_type_energy_scale_shift.{name}").ravel()
    if values.size < 2:
        return np.full(len(source.order), values.item() if values.size else default)
    ordered: ndarray = values[source.order]
    return ordered


def _config(
    source: _Source, layers: int, scales: ndarray
) -> tuple[NequIPConfig, tuple[Blocks, ...]]:
    """Return the configuration, and the features between layers in the order of the file.

    Without both parities, features were all even before version 0.13 and have the parity of the
    harmonics since: the number of radial functions tells which.
    """
    entries, settings = source.entries, source.settings
    widths = _mlp(entries, "layer0_convnet.conv.edge_mlp.mlp")
    hidden_widths = [w.shape[1] for w in widths[:-1]]
    uniform = bool(np.ptp(scales) == 0)
    for natural in (True, False):
        irreps = _irreps(source, layers, natural)
        if irreps is not None:
            break
    else:
        raise PhonopyEquivariantError("its features are of a kind that is not supported.")
    cutoffs = 1 / entries.take("edge_norm._rmax_recip").reshape(-1)
    count = len(source.order)
    pairs: tuple[float, ...] = ()
    if cutoffs.size > 1:
        table = cutoffs.reshape(count, count)[np.ix_(source.order, source.order)]
        pairs = tuple(float(min(x, settings.cutoff)) for x in table.ravel())
    frequencies = np.pi * entries.take("bessel_encode.bessel_weights").ravel() / settings.cutoff
    widest = irreps[-2] if layers > 1 else irreps[-1]
    config = NequIPConfig(
        species=settings.numbers,
        cutoff=settings.cutoff,
        num_interactions=layers,
        hidden_irreps=format_irreps({key: n for n, key in widest}),
        l_max=settings.l_max,
        num_radial_basis=len(frequencies),
        radial_width=hidden_widths[0] if hidden_widths else 1,
        radial_depth=len(hidden_widths),
        envelope_exponent=settings.exponent,
        scale=float(scales[0]) if uniform else 1.0,
        parity=settings.parity or natural,
        embedding_width=source.embedding.shape[1],
        frequencies=tuple(float(x) for x in frequencies),
        skips=tuple("species" if _has_skip(entries, t) else "none" for t in range(layers)),
        sender_norms=bool(np.ptp(settings.norms) > 0),
        readout_widths=_readout_widths(source),
        species_scales=not uniform,
        pair_cutoffs=pairs,
        pair_repulsion=settings.has_pair_term,
    )
    return config, irreps


def _has_skip(entries: Entries, t: int) -> bool:
    return entries.has(f"layer{t}_convnet.conv.sc.weight")


def _irreps(source: _Source, layers: int, natural: bool) -> tuple[Blocks, ...] | None:
    """Return the features before each layer and after the last if the weights fit, else None."""
    settings = source.settings
    for first_parity in (False, True):
        hidden = settings.hidden(natural, first_parity)
        irreps: list[Blocks] = [[(source.embedding.shape[1], "0e")]]
        for t in range(layers):
            allowed = hidden if t < layers - 1 else [(settings.channels[0], "0e")]
            reached = {path[2] for path in _paths(settings, irreps[-1], natural)}
            irreps.append([(n, key) for n, key in allowed if key in reached])
        if all(_fits(source, irreps, t, natural) for t in range(layers)):
            return tuple(irreps)
    return None


def _paths(settings: Settings, inputs: Blocks, natural: bool) -> list[tuple[int, int, str]]:
    """Return channels, degree and irrep of all products of features with harmonics."""
    odd = settings.parity or natural
    return [
        (count, degree, str(output))
        for count, key in inputs
        for degree in range(settings.l_max + 1)
        for output in products(parse_irrep(key), Irrep(degree, (-1) ** degree if odd else 1))
    ]


def _fits(source: _Source, irreps: list[Blocks], t: int, natural: bool) -> bool:
    targets = {key for _, key in irreps[t + 1]}
    paths = _paths(source.settings, irreps[t], natural)
    functions = sum(count for count, _, key in paths if key in targets)
    weights = _mlp(source.entries, f"layer{t}_convnet.conv.edge_mlp.mlp")
    return bool(weights[-1].shape[1] == functions)


def _mlp(entries: Entries, place: str) -> list[ndarray]:
    """Return the weights of a network without biases, with nequip's factors, for plain SiLU."""
    names = sorted(
        (name for name in entries.named(f"{place}.") if re.fullmatch(r".*\.\d+\.weight", name)),
        key=lambda name: int(name.split(".")[-2]),
    )
    if not names:
        raise PhonopyEquivariantError(
            f"{place} is no network with activations between its layers; not supported."
        )
    weights = [entries.take(name) for name in names]
    return [w * ((2.0 if k else 1.0) / len(w)) ** 0.5 for k, w in enumerate(weights)]


def _layer(
    source: _Source,
    config: NequIPConfig,
    layout: LayerLayout,
    irreps: tuple[Blocks, ...],
    t: int,
) -> Params:
    """Return the parameters of one interaction."""
    entries, settings = source.entries, source.settings
    place, inputs, outputs = f"layer{t}_convnet.conv", irreps[t], irreps[t + 1]
    if layout.outputs != {key: count for count, key in outputs}:
        raise PhonopyEquivariantError("the features of a layer are not supported.")
    mixed = gate_blocks(outputs)
    targets = {key for _, key in mixed}
    sums: dict[str, int] = {}
    for count, _, key in _paths(settings, inputs, config.parity):
        if key in targets:
            sums[key] = sums.get(key, 0) + count
    up = linear_blocks(inputs, inputs, entries.take(f"{place}.linear_1.weight"))
    blocks = [(sums[key], key) for key in sorted(sums, key=parse_irrep)]
    down = linear_blocks(blocks, mixed, entries.take(f"{place}.linear_2.weight"))
    skip = _skip(source, place, inputs, mixed) if _has_skip(entries, t) else {}
    signs = _signs(entries, place)
    paths = convolution_paths(
        layout, inputs, targets, config.parity, False, lambda *d: signs.get(d, 1.0)
    )
    weights = _mlp(entries, f"{place}.edge_mlp.mlp")
    weights[-1] = weights[-1][:, paths.columns] * paths.signs
    norm = 1.0 if config.sender_norms else float(settings.norms[0])
    up = {key: up[key] * norm for key in layout.inputs}
    params = gated_layer(up, down, skip, paths, layout, outputs, first=t == 0)
    params["radial"] = {f"w{k}": w for k, w in enumerate(weights)}
    if config.sender_norms:
        params["up"]["norms"] = settings.norms[source.order]
    return params


def _skip(source: _Source, place: str, inputs: Blocks, mixed: Blocks) -> dict[str, ndarray]:
    """Return the matrices of each species: those of the embedding's channels, weighted by it."""
    weights = source.entries.take(f"{place}.sc.weight")
    blocks = species_blocks(inputs, source.embedding.shape[1], mixed, weights)
    embedding = source.embedding[source.order]
    return {key: np.einsum("ze,eab->zab", embedding, x) for key, x in blocks.items()}


def _signs(entries: Entries, place: str) -> dict[tuple[int, ...], float]:
    """Return the signs of couplings that the file stores; e3nn's of today are this package's."""
    signs: dict[tuple[int, ...], float] = {}
    for name in entries.named(f"{place}."):
        match = re.search(r"_w3j_(\d+)_(\d+)_(\d+)$", name)
        if match:
            degrees = (int(match[1]), int(match[2]), int(match[3]))
            sign = coupling_sign(entries.take(name), degrees)
            signs[degrees] = sign if min(degrees) > 0 else 1.0
    return signs


def _readout_widths(source: _Source) -> tuple[int, ...]:
    weights = _mlp(source.entries, "per_atom_energy_readout.mlp_module.mlp")
    if len(weights) > 1 and source.settings.readout != "silu":
        raise PhonopyEquivariantError(
            f"a readout network of {source.settings.readout} is not supported, only of silu."
        )
    return tuple(w.shape[1] for w in weights[:-1])


def _readout(source: _Source) -> dict[str, ndarray]:
    weights = _mlp(source.entries, "per_atom_energy_readout.mlp_module.mlp")
    weights[0] = weights[0] * activation_ratio("silu")
    if len(weights) == 1:
        return {"0e": weights[0]}
    return {f"w{k}": w for k, w in enumerate(weights)}

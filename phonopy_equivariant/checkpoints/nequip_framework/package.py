"""What a package of nequip (``.nequip.zip``) says about its model: settings and weights.

A package holds whole modules, with the source code they were made by. The modules are read as
records and the code is not; the architecture follows from attributes of the modules. What no
attribute tells must have the one value that this package's NequIP has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from phonopy_equivariant.checkpoints.e3nn_weights import Blocks
from phonopy_equivariant.checkpoints.nequip_framework.settings import Settings
from phonopy_equivariant.checkpoints.torch_file import member_names
from phonopy_equivariant.checkpoints.torch_module import (
    TorchModule,
    compiled_tensors,
    read_torch_package,
)
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.representations import parse_irrep

MODEL = "model/eager_model.pkl"
# Steps of the model and their classes: any other step could change the energies.
_STEPS = {
    "type_embed": "NodeTypeEmbed",
    "spharm": "SphericalHarmonicEdgeAttrs",
    "edge_norm": "EdgeLengthNormalizer",
    "bessel_encode": "BesselEdgeLengthEncoding",
    "factor": "ApplyFactor",
    "per_atom_energy_readout": "ScalarMLP",
    "per_type_energy_scale_shift": "PerTypeScaleShift",
    "pair_potential": "ZBL",
    "total_energy_sum": "AtomwiseReduce",
}
_PARTS_OF_LAYER = {"equivariant_nonlin": "Gate", "conv": "InteractionBlock"}
_PARTS_OF_CONVOLUTION = {
    "avg_num_neighbors_norm": "AvgNumNeighborsNorm",
    "linear_1": "Linear",
    "tp": "TensorProduct",
    "tp_scatter": "TensorProductScatter",
    "edge_mlp": "ScalarMLPFunction",
    "linear_2": "Linear",
    "sc": "FullyConnectedTensorProduct",
    "ghost_exchange": "NoOpGhostExchangeModule",
}
_LAYER = re.compile(r"layer\d+_convnet")
_ACTIVATIONS = {"torch.nn.functional.silu": "silu", "torch.tanh": "tanh"}
# Buffers that a state dictionary does not have: their values are among the settings.
_SETTINGS = ("norm_const", "scatter_norm_factor", "alpha", "_empty")


def is_package(path: Path) -> bool:
    """Tell whether a file is an archive of ``torch.package`` as nequip writes them."""
    return any(name.endswith(f"/{MODEL}") for name in member_names(path))


def read_package(path: Path) -> tuple[Settings, dict[str, ndarray]]:
    """Return the settings and the weights, by their names in nequip's state dictionary.

    Raises
    ------
    PhonopyEquivariantError
        Cut short or damaged; its pickle names classes of other packages; a model with steps,
        classes or constants that are not known.

    """
    models = read_torch_package(path, MODEL).parts
    graph = models.get("sole_model")
    if graph is None or len(models) > 1:
        raise PhonopyEquivariantError(f"it holds the models {', '.join(models)}, not one.")
    _require_parts(graph, {"model": "ForceStressOutput"})
    _require_parts(graph.parts["model"], {"func": "SequentialGraphNetwork"})
    steps = graph.parts["model"].parts["func"]
    layers = {name: "ConvNetLayer" for name in steps.parts if _LAYER.fullmatch(name)}
    _require_parts(steps, _STEPS | layers)
    for name in layers:
        _require_parts(steps.parts[name], _PARTS_OF_LAYER)
        _require_parts(steps.parts[name].parts["conv"], _PARTS_OF_CONVOLUTION)
    return _settings(graph, steps), _weights(steps)


def _weights(steps: TorchModule) -> dict[str, ndarray]:
    weights: dict[str, ndarray] = {}
    for path, module in steps.walk():
        tensors = module.tensors | {
            f"compiled.{name}": x for name, x in compiled_tensors(module).items()
        }
        weights |= {
            f"{path}.{name}": x
            for name, x in tensors.items()
            if name not in _SETTINGS and not re.search(r"\.equivariant_nonlin\.", path)
        }
    return weights


def _settings(graph: TorchModule, steps: TorchModule) -> Settings:
    parts = steps.parts
    layers = [parts[name] for name in parts if _LAYER.fullmatch(name)]
    symbols = _symbols(graph, parts["per_type_energy_scale_shift"])
    cutoff = _cutoff(graph, parts["edge_norm"])
    exponent = float(parts["bessel_encode"].parts["cutoff"].attribute("p"))
    harmonics = parts["spharm"].attribute("irreps_edge_sh")
    l_max = max(parse_irrep(key).degree for _, key in harmonics)
    parity, channels = _features(layers[0].attribute("feature_irreps_hidden"))
    # a single layer has scalars alone behind it
    channels += channels[-1:] * (l_max + 1 - len(channels))
    for layer in layers:
        _require_layer(layer)
    _require(parts["type_embed"].attributes, "do_categorical_graph_field_embed", False)
    _require(parts["spharm"].parts["sh"].attributes, "normalization", "component")
    _require(parts["spharm"].parts["sh"].attributes, "normalize", True)
    factor = float(parts["factor"].attribute("factor"))
    if not math.isclose(factor, 2 * math.pi / cutoff**2, rel_tol=1e-6):
        raise PhonopyEquivariantError(f"the factor {factor:g} of its radial basis is not known.")
    _require(parts["total_energy_sum"].attributes, "reduce", "sum")
    _require(parts["total_energy_sum"].attributes, "constant", 1.0)
    norms = [_norms(layer.parts["conv"], symbols) for layer in layers]
    if any(not np.array_equal(x, norms[0]) for x in norms):
        raise PhonopyEquivariantError("layers that differ in neighbour numbers; not supported.")
    return Settings(
        symbols=symbols,
        cutoff=cutoff,
        l_max=l_max,
        parity=parity,
        channels=channels,
        exponent=exponent,
        norms=norms[0],
        readout=_nonlinearity(parts["per_atom_energy_readout"].parts["mlp_module"]),
        has_pair_term=_has_pair_term(parts, exponent),
    )


def _symbols(graph: TorchModule, scale_shift: TorchModule) -> tuple[str, ...]:
    names: Any = graph.attributes.get("type_names") or scale_shift.attributes.get("type_names")
    if not names:
        names = str(dict(graph.attribute("_metadata"))["type_names"]).split()
    return tuple(str(name) for name in names)


def _cutoff(graph: TorchModule, edge_norm: TorchModule) -> float:
    stated = dict(graph.attributes.get("_metadata") or {}).get("r_max")
    if stated is None:
        stated = edge_norm.attributes.get("r_max")
    if stated is None:
        stated = 1.0 / float(edge_norm.tensor("_rmax_recip").min())
    return float(stated)


def _features(irreps: Blocks) -> tuple[bool, tuple[int, ...]]:
    """Return whether both parities are among the features, and the channels of each degree."""
    highest = max(parse_irrep(key).degree for _, key in irreps)
    channels = [
        {n for n, key in irreps if parse_irrep(key).degree == d} for d in range(highest + 1)
    ]
    if any(len(counts) != 1 for counts in channels):
        raise PhonopyEquivariantError(f"the features {irreps} are not supported.")
    return len(irreps) > len(channels), tuple(counts.pop() for counts in channels)


def _norms(block: TorchModule, symbols: Sequence[str]) -> ndarray:
    """Return what multiplies the messages of each species; versions keep it in three ways."""
    norm = block.parts.get("avg_num_neighbors_norm")
    if norm is not None:
        values = norm.tensor("norm_const").ravel()
    elif "scatter_norm_factor" in block.tensors:
        values = block.tensor("scatter_norm_factor").ravel()
    elif block.attributes.get("scatter_norm_factor") is not None:
        values = np.array([float(block.attribute("scatter_norm_factor"))])
    elif block.attributes.get("avg_num_neighbors") is not None:
        values = np.array([float(block.attribute("avg_num_neighbors")) ** -0.5])
    elif {"scatter_norm_factor", "avg_num_neighbors"} & set(block.attributes):
        values = np.ones(1)  # None: nothing is divided
    else:
        raise PhonopyEquivariantError("the number of neighbours is not in the file.")
    if len(values) not in (1, len(symbols)):
        raise PhonopyEquivariantError(f"{len(values)} neighbour numbers for {symbols}.")
    return np.broadcast_to(values, len(symbols)).astype(float)


def _require_layer(layer: TorchModule) -> None:
    """Refuse a layer with other nonlinearities than a gate of SiLU and tanh, or with a residual."""
    _require(layer.attributes, "resnet", False)
    gate = layer.parts["equivariant_nonlin"]
    for name in ("act_scalars", "act_gates"):
        activation = gate.parts[name]
        acts = activation.parts["acts"].parts.values()
        for act, (_, key) in zip(acts, activation.attribute("irreps_in"), strict=True):
            wanted = "silu" if key == "0e" else "tanh"
            if _ACTIVATIONS.get(str(act.attribute("f"))) != wanted:
                raise PhonopyEquivariantError(
                    f"the activation {act.attribute('f')} of {key} is not supported."
                )
    if _nonlinearity(layer.parts["conv"].parts["edge_mlp"]) not in ("silu", ""):
        raise PhonopyEquivariantError("radial networks are supported with SiLU only.")


def _nonlinearity(network: TorchModule) -> str:
    """Return the name of the activation between the layers of a network; none: an empty text."""
    kinds: set[str] = set()
    for number, layer in network.parts["mlp"].parts.items():
        if layer.kind == "ScalarLinearLayer":
            gain = 1.0 if number == "0" else 2.0
            alpha = layer.tensors.get("alpha", layer.attributes.get("alpha"))
            expected = (gain / len(layer.tensor("weight"))) ** 0.5
            if alpha is None or not math.isclose(float(alpha), expected, rel_tol=1e-6):
                raise PhonopyEquivariantError(f"a network with the factor {alpha} is not known.")
        else:
            kinds.add(layer.kind.lower())
    if len(kinds) > 1:
        raise PhonopyEquivariantError(f"a network of {', '.join(sorted(kinds))} is not supported.")
    return kinds.pop() if kinds else ""


def _has_pair_term(parts: dict[str, TorchModule], exponent: float) -> bool:
    """Return whether there is a ZBL term; one with another exponent is refused.

    Versions before 0.17 took the envelope of the radial basis for it.
    """
    if "pair_potential" not in parts:
        return False
    if "cutoff" in parts["pair_potential"].parts:
        _require(parts["pair_potential"].parts["cutoff"].attributes, "p", exponent)
    return True


def _require_parts(module: TorchModule, known: Mapping[str, str]) -> None:
    """Refuse parts of a module that are not known, or of another class."""
    for name, part in module.parts.items():
        if part.kind != known.get(name):
            raise PhonopyEquivariantError(
                f"the part {name} of {module.kind}, of class {part.kind}, is not known."
            )


def _require(attributes: dict[str, Any], name: str, value: Any) -> None:
    if attributes.get(name, value) != value:
        raise PhonopyEquivariantError(
            f"{name}={attributes[name]!r:.60} is not supported, only {value!r}."
        )

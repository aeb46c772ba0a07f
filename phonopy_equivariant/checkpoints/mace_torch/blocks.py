"""Weights of the building blocks of mace-torch, with e3nn's normalisations multiplied in."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from phonopy_equivariant.checkpoints.e3nn_weights import (
    channel_counts,
    channel_slices,
    coupling_sign,
)
from phonopy_equivariant.checkpoints.mace_torch.ledger import Ledger
from phonopy_equivariant.checkpoints.torch_module import TorchModule, compiled_tensors
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.mace import DENSITY, LayerShape
from phonopy_equivariant.models.networks import LAYER_NORM_EPSILON
from phonopy_equivariant.models.representations import parse_irrep

# Activations by their names in torch, as functions or as modules.
_FUNCTIONS = {
    "torch.nn.functional.silu": "silu",
    "SiLU": "silu",
    "torch.tanh": "tanh",
    "torch.nn.functional.tanh": "tanh",
    "Tanh": "tanh",
    "torch.sigmoid": "sigmoid",
    "torch.nn.functional.sigmoid": "sigmoid",
    "Sigmoid": "sigmoid",
}


def linear_blocks(ledger: Ledger, path: str, biased: bool = False) -> dict[str, ndarray]:
    """Return the matrix (channels in, channels out) of each irrep of an ``o3.Linear``.

    Repeated irreps stand one after the other in the order of the module. Biases are refused
    unless ``biased``: the caller then reads them.
    """
    module = ledger.read_module(path, ["Linear"])
    if not biased and module.tensors.get("bias", np.empty(0)).size:
        raise PhonopyEquivariantError(f"{path} has biases; not supported.")
    inputs, outputs = module.attribute("irreps_in"), module.attribute("irreps_out")
    shapes = channel_counts(inputs), channel_counts(outputs)
    blocks: dict[str, ndarray] = {}
    weights, start = module.tensor("weight").ravel(), 0
    for instruction in module.attribute("instructions"):
        if instruction.i_in == -1:  # a bias
            continue
        key, rows = channel_slices(inputs)[instruction.i_in]
        _, columns = channel_slices(outputs)[instruction.i_out]
        stop = start + int(np.prod(instruction.path_shape))
        weight = weights[start:stop].reshape(instruction.path_shape)
        start = stop
        block = blocks.setdefault(key, np.zeros((shapes[0][key], shapes[1][key])))
        block[rows, columns] += instruction.path_weight * weight
    return blocks


def species_blocks(ledger: Ledger, path: str, order: ndarray) -> dict[str, ndarray]:
    """Return (species, in, out) for each irrep of a product with the species' one-hot vector."""
    module = ledger.read_module(path, ["FullyConnectedTensorProduct"])
    inputs, outputs = module.attribute("irreps_in1"), module.attribute("irreps_out")
    shapes = channel_counts(inputs), channel_counts(outputs)
    blocks: dict[str, ndarray] = {}
    weights, start = module.tensor("weight").ravel(), 0
    for instruction in module.attribute("instructions"):
        if instruction.connection_mode != "uvw" or not instruction.has_weight:
            raise PhonopyEquivariantError(f"{path}: the path {instruction} is not supported.")
        key, rows = channel_slices(inputs)[instruction.i_in1]
        _, columns = channel_slices(outputs)[instruction.i_out]
        stop = start + int(np.prod(instruction.path_shape))
        weight = weights[start:stop].reshape(instruction.path_shape)
        start = stop
        # the coupling of l with 0 to l is the unit matrix over sqrt(2l+1)
        factor = instruction.path_weight / parse_irrep(key).dim ** 0.5
        block = blocks.setdefault(key, np.zeros((len(order), shapes[0][key], shapes[1][key])))
        block[:, rows, columns] += factor * weight.transpose(1, 0, 2)[order]
    return blocks


class Paths(NamedTuple):
    """Where this package's paths of a convolution stand in the model's.

    ``columns`` are radial functions; ``slots`` give, for each output irrep, rows of the linear
    map that follows, with the ratio of their path to ours.
    """

    columns: ndarray
    slots: dict[str, tuple[ndarray, ndarray]]

    def rows(self, key: str, matrix: ndarray) -> ndarray:
        """Return a linear map's matrix with rows in our order."""
        rows, ratios = self.slots[key]
        ordered: ndarray = matrix[rows] * ratios[:, None]
        return ordered


def paths_of(ledger: Ledger, path: str, shape: LayerShape) -> Paths:
    """Match the paths of a ``TensorProduct`` of features and harmonics with ours."""
    module = ledger.read_module(path, ["TensorProduct"])
    inputs, harmonics = module.attribute("irreps_in1"), module.attribute("irreps_in2")
    outputs = channel_slices(module.attribute("irreps_out"))
    signs = _coupling_signs(module)
    theirs: dict[tuple[str, int, str], tuple[ndarray, slice, float]] = {}
    start = 0
    for ins in module.attribute("instructions"):
        mul, source = inputs[ins.i_in1]
        edge, (key, rows) = parse_irrep(harmonics[ins.i_in2][1]), outputs[ins.i_out]
        natural = edge.parity == (-1) ** edge.degree
        if ins.connection_mode != "uvu" or not ins.has_weight or not natural:
            raise PhonopyEquivariantError(f"{path}: the path {ins} is not supported.")
        degrees = (parse_irrep(source).degree, edge.degree, parse_irrep(key).degree)
        if min(degrees) > 0 and degrees not in signs:
            raise PhonopyEquivariantError(f"{path}: its coupling of {degrees} is not in the file.")
        ratio = ins.path_weight * signs.get(degrees, 1.0)
        ratio *= (-1) ** edge.degree / parse_irrep(key).dim ** 0.5
        theirs[source, edge.degree, key] = (np.arange(start, start + mul), rows, ratio)
        start += mul
    columns, slots = [], {key: ([], []) for key in shape.targets}  # type: ignore[var-annotated]
    for source, groups in shape.layout.groups.items():
        if source == DENSITY:
            continue
        for group in groups:
            for degree in group.degrees:
                functions, rows, ratio = theirs[source, degree, group.output]
                columns.append(functions)
                slots[group.output][0].append(np.arange(rows.start, rows.stop))
                slots[group.output][1].append(np.full(len(functions), ratio))
    joined = {key: (np.concatenate(a), np.concatenate(b)) for key, (a, b) in slots.items()}
    return Paths(np.concatenate(columns), joined)


def _coupling_signs(module: TorchModule) -> dict[tuple[int, ...], float]:
    """Return the signs of the couplings of three positive degrees, stored with compiled code."""
    signs: dict[tuple[int, ...], float] = {}
    for name, tensor in compiled_tensors(module).items():
        match = re.fullmatch(r"_w3j_(\d+)_(\d+)_(\d+)", name)
        if match:
            degrees = (int(match[1]), int(match[2]), int(match[3]))
            signs[degrees] = coupling_sign(tensor, degrees)
    return signs


def network_weights(ledger: Ledger, path: str) -> dict[str, ndarray]:
    """Return the weights of a ``FullyConnectedNet``, to be used with plain SiLU."""
    module = ledger.read_module(path, ["FullyConnectedNet"])
    weights, factor = {}, 1.0
    for depth, layer in enumerate(module.parts.values()):
        variances = layer.attribute("var_in"), layer.attribute("var_out")
        if variances != (1, 1):
            raise PhonopyEquivariantError(f"{path}: variances other than one.")
        scale = layer.attribute("h_in") ** -0.5
        weights[f"w{depth}"] = layer.tensor("weight") * (scale * factor)
        if depth < len(module.parts) - 1:
            factor = activation_constant(layer.parts["act"], "silu")[1]
        elif layer.parts.get("act") or layer.attributes.get("act"):
            raise PhonopyEquivariantError(f"{path}: an activation after the last layer.")
    return weights


def normed_network_weights(ledger: Ledger, path: str, tables: list[ndarray]) -> dict[str, ndarray]:
    """Return the weights of a ``RadialMLP`` whose input ends in vectors of the two species."""
    layers = list(ledger.read_module(path, ["RadialMLP"]).parts["net"].parts.values())
    kinds = [layer.kind for layer in layers]
    if kinds != ["Linear", *["LayerNorm", "SiLU", "Linear"] * (len(layers) // 3)]:
        raise PhonopyEquivariantError(f"{path}: layers {kinds} are not supported.")
    input_weights = layers[0].tensor("weight").T
    ends = np.cumsum(
        [len(input_weights) - sum(table.shape[1] for table in tables), tables[0].shape[1]]
    )
    basis, sender, receiver = np.split(input_weights, ends)
    weights = {
        "w0": basis,
        "sender": tables[0] @ sender,
        "receiver": tables[1] @ receiver + layers[0].tensor("bias"),
    }
    for depth, (norm, linear) in enumerate(zip(layers[1::3], layers[3::3], strict=True), start=1):
        if norm.attribute("eps") != LAYER_NORM_EPSILON:
            raise PhonopyEquivariantError(f"{path}: layer norm with eps={norm.attribute('eps')}.")
        weights[f"norm{depth}_scale"] = norm.tensor("weight")
        weights[f"norm{depth}_offset"] = norm.tensor("bias")
        weights[f"w{depth}"] = linear.tensor("weight").T
        weights[f"b{depth}"] = linear.tensor("bias")
    return weights


def activation_constant(
    activation: TorchModule | str, required: str | None = None, constant: float = 1.0
) -> tuple[str, float]:
    """Return the name of an activation and the constant that multiplies it.

    Parameters
    ----------
    activation
        A ``normalize2mom`` of e3nn, or the name of a function of torch.
    required
        The only name that is accepted.
    constant
        What multiplies a function.

    Raises
    ------
    PhonopyEquivariantError
        Not SiLU, tanh or the sigmoid, or not the required one.

    """
    if isinstance(activation, TorchModule) and activation.kind == "normalize2mom":
        constant = 1.0 if activation.attribute("_is_id") else float(activation.attribute("cst"))
        activation = activation.parts.get("f") or activation.attribute("f")
    kind = activation.kind if isinstance(activation, TorchModule) else str(activation)
    name = _FUNCTIONS.get(kind, "")
    if not name or name != (required or name):
        raise PhonopyEquivariantError(
            f"The activation {kind} is not supported, only {required or 'SiLU and tanh'}."
        )
    return name, constant


def activation_of(ledger: Ledger, path: str) -> tuple[str, float]:
    """Return the name and the constant of an ``Activation`` of scalars."""
    acts = ledger.read_module(path, ["Activation"]).parts["acts"].parts
    if len(acts) != 1:
        number = "several" if acts else "no"
        raise PhonopyEquivariantError(f"{path}: {number} activations; one is supported.")
    return activation_constant(acts["0"])

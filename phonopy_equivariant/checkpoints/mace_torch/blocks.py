"""Weights of the building blocks of mace-torch, with e3nn's normalisations multiplied in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import e3nn_jax as e3nn
import numpy as np
from numpy import ndarray

from phonopy_equivariant.checkpoints.mace_torch.ledger import Ledger
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.mace import DENSITY, LayerShape
from phonopy_equivariant.models.networks import LAYER_NORM_EPSILON


def linear_blocks(ledger: Ledger, path: str) -> dict[str, ndarray]:
    """Return the matrix (channels in, channels out) of each irrep of an ``o3.Linear``.

    Repeated irreps stand one after the other in the order of the module.
    """
    module = ledger.read_module(path, ["Linear"])
    inputs, outputs = _channel_slices(module.irreps_in), _channel_slices(module.irreps_out)
    blocks: dict[str, ndarray] = {}
    weights, start = _array(module.weight).ravel(), 0
    for instruction in module.instructions:
        if instruction.i_in == -1:  # a bias
            continue
        key, rows = inputs[instruction.i_in]
        _, columns = outputs[instruction.i_out]
        stop = start + int(np.prod(instruction.path_shape))
        weight = weights[start:stop].reshape(instruction.path_shape)
        start = stop
        shape = (_count(inputs, key), _count(outputs, key))
        block = blocks.setdefault(key, np.zeros(shape))
        block[rows, columns] += instruction.path_weight * weight
    return blocks


def species_blocks(ledger: Ledger, path: str, order: ndarray) -> dict[str, ndarray]:
    """Return (species, in, out) for each irrep of a product with the species' one-hot vector."""
    module = ledger.read_module(path, ["FullyConnectedTensorProduct"])
    inputs, outputs = _channel_slices(module.irreps_in1), _channel_slices(module.irreps_out)
    blocks: dict[str, ndarray] = {}
    for _, instruction, weight in module.weight_views(yield_instruction=True):
        key, rows = inputs[instruction.i_in1]
        _, columns = outputs[instruction.i_out]
        # the coupling of l with 0 to l is the unit matrix over sqrt(2l+1)
        factor = instruction.path_weight / e3nn.Irrep(key).dim ** 0.5
        shape = (len(order), _count(inputs, key), _count(outputs, key))
        block = blocks.setdefault(key, np.zeros(shape))
        block[:, rows, columns] += factor * _array(weight).transpose(1, 0, 2)[order]
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
    outputs = _channel_slices(module.irreps_out)
    theirs: dict[tuple[str, int, str], tuple[ndarray, slice, float]] = {}
    start = 0
    for ins in module.instructions:
        (mul, source), edge = module.irreps_in1[ins.i_in1], module.irreps_in2[ins.i_in2].ir
        key, rows = outputs[ins.i_out]
        if ins.connection_mode != "uvu" or not ins.has_weight or edge.p != (-1) ** edge.l:
            raise PhonopyEquivariantError(f"{path}: the path {ins} is not supported.")
        ratio = ins.path_weight * _sign(source.l, edge.l, e3nn.Irrep(key).l)
        ratio *= (-1) ** edge.l / e3nn.Irrep(key).dim ** 0.5
        theirs[str(source), edge.l, key] = (np.arange(start, start + mul), rows, ratio)
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


def _sign(l_1: int, l_2: int, l_out: int) -> float:
    """Return the sign of e3nn's Wigner symbol in torch relative to that in JAX."""
    from e3nn import o3

    in_torch = o3.wigner_3j(l_1, l_2, l_out).numpy()
    in_jax = np.asarray(e3nn.clebsch_gordan(l_1, l_2, l_out))
    return float(np.sign(np.sum(in_torch * in_jax)))


def network_weights(ledger: Ledger, path: str) -> dict[str, ndarray]:
    """Return the weights of a ``FullyConnectedNet``, to be used with plain SiLU."""
    module = ledger.read_module(path, ["FullyConnectedNet"])
    weights, factor = {}, 1.0
    for depth, layer in enumerate(module.children()):
        scale = (layer.h_in * layer.var_in) ** -0.5 * layer.var_out**0.5
        weights[f"w{depth}"] = _array(layer.weight) * (scale * factor)
        if layer.act is not None:
            if layer.var_in != 1 or layer.var_out != 1:
                raise PhonopyEquivariantError(f"{path}: variances other than one.")
            factor = activation_constant(ledger, layer.act, 1.0, "silu")[1]
    return weights


def normed_network_weights(ledger: Ledger, path: str, tables: list[ndarray]) -> dict[str, ndarray]:
    """Return the weights of a ``RadialMLP`` whose input ends in vectors of the two species."""
    layers = list(ledger.read_module(path, ["RadialMLP"]).net.children())
    kinds = [type(layer).__name__ for layer in layers]
    if kinds != ["Linear", *["LayerNorm", "SiLU", "Linear"] * (len(layers) // 3)]:
        raise PhonopyEquivariantError(f"{path}: layers {kinds} are not supported.")
    input_weights = _array(layers[0].weight).T
    ends = np.cumsum(
        [len(input_weights) - sum(table.shape[1] for table in tables), tables[0].shape[1]]
    )
    basis, sender, receiver = np.split(input_weights, ends)
    weights = {
        "w0": basis,
        "sender": tables[0] @ sender,
        "receiver": tables[1] @ receiver + _array(layers[0].bias),
    }
    for depth, (norm, linear) in enumerate(zip(layers[1::3], layers[3::3], strict=True), start=1):
        if norm.eps != LAYER_NORM_EPSILON:
            raise PhonopyEquivariantError(f"{path}: layer norm with eps={norm.eps}.")
        weights[f"norm{depth}_scale"] = _array(norm.weight)
        weights[f"norm{depth}_offset"] = _array(norm.bias)
        weights[f"w{depth}"] = _array(linear.weight).T
        weights[f"b{depth}"] = _array(linear.bias)
    return weights


def activation_constant(
    ledger: Ledger, module: Any, factor: float = 1.0, required: str | None = None
) -> tuple[str, float]:
    """Return the name of an activation and the constant that multiplies it.

    Its values tell both. An activation that is no multiple of SiLU, tanh or the sigmoid is
    refused. ``module`` is a function or the path of an ``Activation``. If ``required`` is given,
    only the activation of that name is accepted.
    """
    import torch

    label = module if isinstance(module, str) else "an activation"
    if isinstance(module, str):
        activation = ledger.read_module(module, ["Activation"])
        (module,) = activation.acts
    x = torch.linspace(-3.0, 3.0, 12, dtype=torch.float64)
    values = module(x).detach().numpy() * factor
    functions: dict[str, Callable[[Any], Any]] = {
        "silu": torch.nn.functional.silu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
    }
    for name, function in functions.items():
        ratio = values / function(x).numpy()
        if np.ptp(ratio) < 1e-12 * abs(ratio[0]) and name == (required or name):
            return name, float(np.median(ratio))
    raise PhonopyEquivariantError(f"{label} is no multiple of {required or 'silu or tanh'}.")


def _array(tensor: Any) -> ndarray:
    array: ndarray = tensor.detach().cpu().numpy().astype(float)
    return array


def _channel_slices(irreps: Any) -> list[tuple[str, slice]]:
    """Return for each entry its irrep and which channels of that irrep it holds."""
    counts: dict[str, int] = {}
    slices = []
    for mul, ir in irreps:
        start = counts.get(str(ir), 0)
        counts[str(ir)] = start + mul
        slices.append((str(ir), slice(start, start + mul)))
    return slices


def _count(slices: list[tuple[str, slice]], key: str) -> int:
    return int(max(section.stop for name, section in slices if name == key))

"""Read a mace-torch model: configuration and parameters in this package's form.

Nothing of the file is executed, and torch is not needed. What mace-torch multiplies
at run time, normalisations of e3nn and of activations included, becomes part of the weights,
with the values the model has. Edge vectors there point from sender to receiver, here the other
way: harmonics of odd degree change sign, and with them the weights of their paths.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from phonopy_equivariant.checkpoints.mace_torch.blocks import (
    activation_constant,
    activation_of,
    linear_blocks,
    network_weights,
    normed_network_weights,
    paths_of,
    species_blocks,
)
from phonopy_equivariant.checkpoints.mace_torch.ledger import Ledger
from phonopy_equivariant.checkpoints.mace_torch.product import product_weights
from phonopy_equivariant.checkpoints.mace_torch.settings import (
    KINDS,
    READOUTS,
    Source,
    read_config,
    readout_places,
)
from phonopy_equivariant.checkpoints.torch_module import TorchModule, read_torch_module
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.layered import Params
from phonopy_equivariant.models.mace import DENSITY, LayerShape, layer_shapes
from phonopy_equivariant.models.mace_config import MACEConfig

_INTERACTION = {
    "node_attrs_irreps": ...,
    "node_feats_irreps": ...,
    "edge_attrs_irreps": ...,
    "edge_feats_irreps": ...,
    "target_irreps": ...,
    "hidden_irreps": ...,
    "edge_irreps": ...,
    "radial_MLP": ...,
    "irreps_out": ...,
    "irreps_nonlin": ...,
    "cueq_config": None,
    "oeq_config": None,
}
# Attributes that energies do not depend on, or only through modules that are read: see Ledger.
_NOT_READ: dict[str, dict[str, Any]] = {
    **dict.fromkeys(KINDS, _INTERACTION),
    **dict.fromkeys(
        ("MACE", "ScaleShiftMACE"),
        {
            "edge_irreps": ...,
            "lammps_mliap": ...,
            "use_reduced_cg": ...,
            "use_agnostic_product": ...,
            "use_last_readout_only": ...,
            "use_edge_irreps_first": ...,
            "use_so3": False,
            "pair_repulsion": True,
        },
    ),
    **dict.fromkeys(READOUTS, {"hidden_irreps": ..., "num_heads": ...}),
    "LinearNodeEmbeddingBlock": {},
    "RadialEmbeddingBlock": {"out_dim": ...},
    "BesselBasis": {},
    "PolynomialCutoff": {},
    "AgnesiTransform": {},
    "SoftTransform": {},
    "ZBLBasis": {},
    "AtomicEnergiesBlock": {},
    "ScaleShiftBlock": {},
    "EquivariantProductBasisBlock": {"cueq_config": None, "oeq_config": None},
    "ModuleList": {},
    "reshape_irreps": {"irreps": ..., "cueq_config": None, "dims": ..., "muls": ...},
}


def read_mace(source: Path | bytes, head: str | None = None) -> tuple[MACEConfig, Params]:
    """Return configuration and parameters of a file of mace-torch in double precision.

    Parameters
    ----------
    source
        The path of a whole ``MACE`` or ``ScaleShiftMACE`` that torch saved, or its content.
    head
        Which of several heads to read; needed if there is more than one.

    Raises
    ------
    PhonopyEquivariantError
        Another kind of file, cut short or damaged; another class of model; a module, tensor or
        attribute that is not known; or no such head.

    """
    place = f"{source}: " if isinstance(source, Path) else ""
    model = read_torch_module(source)
    try:
        return _read(model, head)
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{place}{error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise PhonopyEquivariantError(
            f"{place}its settings or weights are not those of a MACE model "
            f"({type(error).__name__}: {error})."
        ) from error


def _read(model: TorchModule, head: str | None) -> tuple[MACEConfig, Params]:
    ledger = Ledger(model)
    if ledger.kind("") not in ("MACE", "ScaleShiftMACE"):
        raise PhonopyEquivariantError(
            f"models of class {ledger.kind('')} are not supported, only MACE and ScaleShiftMACE: "
            "energies must be sums over atoms without charges, dipoles or long-range terms."
        )
    heads = list(ledger.attribute("", "heads") or ["Default"])
    numbers = ledger.tensor("atomic_numbers")
    source = Source(ledger, _head_index(heads, head), len(heads), np.argsort(numbers))
    config = read_config(source)
    shared = {
        "atomic_energies": np.atleast_2d(ledger.tensor("atomic_energies_fn.atomic_energies"))[
            source.head if source.num_heads > 1 else 0, source.order
        ],
        "embedding": linear_blocks(ledger, "node_embedding.linear")["0e"][source.order],
    }
    ledger.read_module("spherical_harmonics", ["SphericalHarmonics"])
    layers = tuple(
        _layer(source, config, shape, layer) for layer, shape in enumerate(layer_shapes(config))
    )
    ledger.close(_NOT_READ)
    return config, {"global": {"~": shared}, "layers": layers}


def _head_index(heads: list[str], head: str | None) -> int:
    if head is None and len(heads) == 1:
        return 0
    if head is None:
        raise PhonopyEquivariantError(
            f"the model has the heads {', '.join(heads)}: choose one, with "
            "'phonopy-equivariant models import FILE OUT.npz --head NAME'."
        )
    if head not in heads:
        raise PhonopyEquivariantError(f"no head {head!r}: the model has {', '.join(heads)}.")
    return heads.index(head)


def _readout(source: Source, config: MACEConfig, layer: int) -> dict[str, ndarray]:
    """Return the weights of one head. Each of several heads has its own hidden channels."""
    ledger, kind = source.ledger, config.readouts[layer]
    place = readout_places(source, config.num_interactions)[layer]
    head, hidden = source.head, slice(None)
    if kind == "linear":
        return {"w0": linear_blocks(ledger, f"{place}.linear")["0e"][:, [head]]}
    if source.num_heads > 1:
        hidden = slice(head * config.readout_width, (head + 1) * config.readout_width)
    constant, biased = activation_of(ledger, f"{place}.non_linearity")[1], kind.endswith("-bias")
    first = linear_blocks(ledger, f"{place}.linear_1")["0e"][:, hidden]
    last = linear_blocks(ledger, f"{place}.linear_2", biased)["0e"][hidden, [head]] * constant
    if not biased:
        return {"w0": first, "w1": last}
    middle = linear_blocks(ledger, f"{place}.linear_mid", biased)["0e"][hidden, hidden] * constant
    return {
        "w0": first,
        "w1": middle,
        "b1": ledger.tensor(f"{place}.linear_mid.bias")[hidden],
        "w2": last,
        "b2": ledger.tensor(f"{place}.linear_2.bias")[head : head + 1],
    }


def _layer(source: Source, config: MACEConfig, shape: LayerShape, layer: int) -> Params:
    """Return the parameters of one interaction, product basis and readout."""
    ledger, block, product = source.ledger, f"interactions.{layer}", f"products.{layer}"
    nonlinear = shape.kind == "nonlinear"
    paths = paths_of(ledger, f"{block}.conv_tp", shape)
    sent = [key for key in shape.layout.inputs if key != DENSITY]
    up = {key: x for key, x in linear_blocks(ledger, f"{block}.linear_up").items() if key in sent}
    mixed = linear_blocks(ledger, f"{block}.{'linear_1' if nonlinear else 'linear'}")
    params: Params = {
        "up": up,
        "down": {key: paths.rows(key, mixed[key]) for key in shape.targets},
        **_networks(source, config, shape, block, paths.columns),
    }
    if nonlinear:
        params |= _nonlinear(source, shape, block, up)
    elif shape.kind in ("plain", "density"):
        params["select"] = _only(
            species_blocks(ledger, f"{block}.skip_tp", source.order), shape.targets
        )
    if shape.skipped:
        if not ledger.attribute(product, "use_sc", True):
            raise PhonopyEquivariantError(f"{product}.use_sc=False is not supported.")
        params["skip"] = _only(
            linear_blocks(ledger, f"{block}.skip_tp")
            if nonlinear
            else species_blocks(ledger, f"{block}.skip_tp", source.order),
            shape.skipped,
        )
    ledger.attribute(product, "use_sc")
    params["product"] = product_weights(ledger, f"{product}.symmetric_contractions", shape)
    if not config.agnostic_product:
        params["product"] = {key: w[source.order] for key, w in params["product"].items()}
    params["linear"] = _only(linear_blocks(ledger, f"{product}.linear"), shape.outputs)
    if config.readouts[layer] != "none":
        params["readout"] = _readout(source, config, layer)
    return params


def _only(blocks: dict[str, ndarray], keys: Iterable[str]) -> dict[str, ndarray]:
    return {key: blocks[key] for key in keys}


def _networks(
    source: Source, config: MACEConfig, shape: LayerShape, block: str, columns: ndarray
) -> Params:
    """Return the radial networks; the basis there has a prefactor of its own."""
    ledger = source.ledger
    factor = (
        float(ledger.tensor("radial_embedding.bessel_fn.prefactor")) / (2 / config.cutoff) ** 0.5
    )
    networks: Params = {}
    for name, place in (("radial", "conv_tp_weights"), ("density", "density_fn")):
        if name == "density" and not shape.has_density:
            continue
        if shape.kind == "nonlinear":
            tables = [
                linear_blocks(ledger, f"{block}.{end}_embedding")["0e"][source.order]
                for end in ("source", "target")
            ]
            weights = normed_network_weights(ledger, f"{block}.{place}", tables)
        else:
            weights = network_weights(ledger, f"{block}.{place}")
        weights["w0"] = weights["w0"] * factor
        if name == "radial":
            output_layer = len(config.radial_widths)
            for key in (f"w{output_layer}", f"b{output_layer}"):
                if key in weights:
                    weights[key] = weights[key][..., columns]
        networks[name] = weights
    return networks


def _nonlinear(source: Source, shape: LayerShape, block: str, up: dict[str, ndarray]) -> Params:
    """Return the weights that only the nonlinear interaction has."""
    ledger = source.ledger
    residual = linear_blocks(ledger, f"{block}.linear_res")
    update = linear_blocks(ledger, f"{block}.linear_2")
    gate = ledger.read_module(f"{block}.equivariant_nonlin", ["GatedEquivariantBlock"])
    if gate.attribute("_layout_is_ir_mul"):
        raise PhonopyEquivariantError(f"{block}.equivariant_nonlin has another layout.")
    scalars, gates = (
        activation_constant(
            gate.parts.get(f"_act_{part}") or gate.attribute(f"_act_{part}"),
            name,
            float(gate.attribute(f"_{part}_cst")),
        )[1]
        for part, name in (("scalar", "silu"), ("gate", "sigmoid"))
    )
    return {
        "~": {name: ledger.tensor(f"{block}.{name}") for name in ("alpha", "beta")},
        "residual": {key: up[key] @ residual[key] for key in up if key in residual},
        "update": {key: update[key] * (scalars if key == "0e" else gates) for key in shape.targets},
    }

"""Settings of a mace-torch model: the configuration that this package describes it with."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from phonopy_equivariant.checkpoints.e3nn_weights import Blocks, channel_counts
from phonopy_equivariant.checkpoints.mace_torch.blocks import activation_of
from phonopy_equivariant.checkpoints.mace_torch.ledger import Ledger
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.mace_config import MACEConfig
from phonopy_equivariant.models.representations import parse_irrep

KINDS = {
    "RealAgnosticInteractionBlock": "plain",
    "RealAgnosticResidualInteractionBlock": "residual",
    "RealAgnosticDensityInteractionBlock": "density",
    "RealAgnosticDensityResidualInteractionBlock": "density-residual",
    "RealAgnosticResidualNonLinearInteractionBlock": "nonlinear",
}

READOUTS = {
    "LinearReadoutBlock": "linear",
    "NonLinearReadoutBlock": "",
    "NonLinearBiasReadoutBlock": "-bias",
}


class Source(NamedTuple):
    """A model being read: its ledger, the head chosen, and the order of species by number."""

    ledger: Ledger
    head: int
    num_heads: int
    order: ndarray


def read_config(source: Source) -> MACEConfig:
    """Return the configuration; settings that layers must share and do not are refused."""
    ledger = source.ledger
    layers = int(ledger.tensor("num_interactions"))
    blocks = [f"interactions.{layer}" for layer in range(layers)]
    for block in blocks:
        if ledger.kind(block) not in KINDS:
            raise PhonopyEquivariantError(
                f"Interactions of class {ledger.kind(block)} are not supported."
            )
    neighbours = {float(ledger.attribute(block, "avg_num_neighbors")) for block in blocks}
    if len(neighbours) != 1:
        raise PhonopyEquivariantError("Layers differ in avg_num_neighbors; not supported.")
    scale, shift = 1.0, 0.0
    if ledger.has("scale_shift"):
        scales, shifts = (
            np.atleast_1d(ledger.tensor(f"scale_shift.{name}")) for name in ("scale", "shift")
        )
        scale, shift = (float(x[source.head if len(x) > 1 else 0]) for x in (scales, shifts))
    modules = [ledger.module(block) for block in blocks]
    features = [irreps_text(block.attribute("node_feats_irreps")) for block in modules]
    sent = [
        irreps_text(block.attributes.get("edge_irreps") or block.attribute("node_feats_irreps"))
        for block in modules
    ]
    hidden = features[1] if layers > 1 else irreps_text(modules[0].attribute("hidden_irreps"))
    readouts = _readout_kinds(source, layers)
    return MACEConfig(
        species=tuple(int(z) for z in ledger.tensor("atomic_numbers")[source.order]),
        num_interactions=layers,
        hidden_irreps=hidden,
        l_max=max(parse_irrep(key).degree for _, key in modules[0].attribute("edge_attrs_irreps")),
        correlation=tuple(_correlation(ledger, layer) for layer in range(layers)),
        interactions=tuple(KINDS[ledger.kind(block)] for block in blocks),
        message_irreps=tuple("" if a == b else a for a, b in zip(sent, features, strict=True)),
        radial_widths=_widths(source, blocks, "conv_tp_weights"),
        density_width=(_widths(source, blocks, "density_fn") or (64,))[0],
        avg_num_neighbors=neighbours.pop(),
        agnostic_product=_agnostic(source, layers),
        readouts=readouts,
        readout_width=_readout_width(source, readouts),
        scale=scale,
        shift=shift,
        **_radial_settings(source),
    )


def irreps_text(irreps: Blocks | str) -> str:
    """Return irreps as text, "128x0e+64x1o"; mace-torch keeps some of them as text."""
    if isinstance(irreps, str):
        return irreps
    return "+".join(f"{count}x{key}" for count, key in irreps)


def _correlation(ledger: Ledger, layer: int) -> int:
    place = f"products.{layer}.symmetric_contractions.contractions.0"
    return int(ledger.module(place).attribute("correlation"))


def _widths(source: Source, blocks: list[str], name: str) -> tuple[int, ...]:
    """Return the widths of the hidden layers of a network, which all blocks must share."""
    widths = {
        tuple(int(h) for h in source.ledger.module(f"{block}.{name}").attribute("hs")[1:-1])
        for block in blocks
        if source.ledger.has(f"{block}.{name}")
    } - ({()} if name == "density_fn" else set())
    if len(widths) > 1:
        raise PhonopyEquivariantError(f"Layers differ in the widths of {name}; not supported.")
    return widths.pop() if widths else ()


def _agnostic(source: Source, layers: int) -> bool:
    blocks = [f"products.{layer}" for layer in range(layers)]
    flags = {bool(source.ledger.attribute(b, "use_agnostic_product", False)) for b in blocks}
    if len(flags) > 1:
        raise PhonopyEquivariantError("Layers differ in use_agnostic_product; not supported.")
    return flags.pop()


def _radial_settings(source: Source) -> dict[str, Any]:
    """Return the fields of the configuration that describe functions of the distance."""
    ledger, embedding = source.ledger, "radial_embedding"
    cutoff = float(ledger.tensor("r_max"))
    if ledger.kind(f"{embedding}.bessel_fn") != "BesselBasis":
        raise PhonopyEquivariantError(
            f"Radial functions of class {ledger.kind(embedding + '.bessel_fn')} are not supported, "
            "only BesselBasis."
        )
    exponent = int(ledger.tensor(f"{embedding}.cutoff_fn.p"))
    for place in ("cutoff_fn", "bessel_fn"):
        if float(ledger.tensor(f"{embedding}.{place}.r_max")) != cutoff:
            raise PhonopyEquivariantError(f"{embedding}.{place}.r_max is not the model's r_max.")
    frequencies = ledger.tensor(f"{embedding}.bessel_fn.bessel_weights")
    # plain attributes of old versions, of which both must say the same
    flags = {ledger.attribute(place, "apply_cutoff", True) for place in ("", embedding)}
    settings: dict[str, Any] = {
        "cutoff": cutoff,
        "envelope_exponent": exponent,
        "num_radial_basis": len(frequencies),
        "frequencies": tuple(float(x) for x in frequencies),
        "apply_cutoff": bool(ledger.attribute(embedding, "apply_cutoff", True)),
    }
    if len(flags) > 1:
        raise PhonopyEquivariantError("apply_cutoff differs between the model and its embedding.")
    numbers = ledger.tensor("atomic_numbers")[source.order]
    radii = []
    transform = f"{embedding}.distance_transform"
    if ledger.has(transform):
        names = {"AgnesiTransform": ("agnesi", "aqp"), "SoftTransform": ("soft", ["alpha"])}
        if ledger.kind(transform) not in names:
            raise PhonopyEquivariantError(f"{ledger.kind(transform)} is not supported.")
        kind, constants = names[ledger.kind(transform)]
        settings["distance_transform"] = kind
        settings["transform_constants"] = tuple(
            float(ledger.tensor(f"{transform}.{name}")) for name in constants
        )
        radii.append(ledger.tensor(f"{transform}.covalent_radii"))
    if ledger.has("pair_repulsion_fn"):
        place = "pair_repulsion_fn"
        if int(ledger.tensor(f"{place}.p")) != exponent:
            raise PhonopyEquivariantError("The pair term has another exponent; not supported.")
        coefficients = [float(x) for x in ledger.tensor(f"{place}.c")]
        screening = [float(ledger.tensor(f"{place}.{n}")) for n in ("a_exp", "a_prefactor")]
        settings |= {"pair_repulsion": True, "zbl_constants": (*coefficients, *screening)}
        radii.append(ledger.tensor(f"{place}.covalent_radii"))
    if radii:
        if any(not np.array_equal(table, radii[0]) for table in radii):
            raise PhonopyEquivariantError("Transform and pair term differ in covalent radii.")
        settings["covalent_radii"] = tuple(float(x) for x in radii[0][numbers])
    return settings


def readout_places(source: Source, layers: int) -> list[str | None]:
    """Return where each layer's readout is; a single one reads the last layer."""
    count = len(source.ledger.module("readouts").parts)
    if count == layers:
        return [f"readouts.{layer}" for layer in range(layers)]
    if count == 1:
        return [None] * (layers - 1) + ["readouts.0"]
    raise PhonopyEquivariantError(f"{count} readouts for {layers} layers are not supported.")


def _readout_kinds(source: Source, layers: int) -> tuple[str, ...]:
    kinds = []
    for place in readout_places(source, layers):
        if place is None:
            kinds.append("none")
            continue
        if source.ledger.kind(place) not in READOUTS:
            raise PhonopyEquivariantError(
                f"Readouts of class {source.ledger.kind(place)} are not supported."
            )
        kind = READOUTS[source.ledger.kind(place)]
        if kind != "linear":
            kind = activation_of(source.ledger, f"{place}.non_linearity")[0] + kind
        kinds.append(kind)
    return tuple(kinds)


def _readout_width(source: Source, kinds: tuple[str, ...]) -> int:
    places = readout_places(source, len(kinds))
    widths = {
        channel_counts(source.ledger.module(place).attribute("hidden_irreps"))["0e"]
        // source.num_heads
        for place, kind in zip(places, kinds, strict=True)
        if place is not None and kind != "linear"
    }
    if len(widths) > 1:
        raise PhonopyEquivariantError("Readouts differ in width; not supported.")
    return int(widths.pop()) if widths else 16

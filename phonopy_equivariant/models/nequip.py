"""NequIP (arXiv:2101.03164) as a layered model."""

from __future__ import annotations

import functools
from collections.abc import Callable

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from phonopy_equivariant.models import activation
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.models.irreps import (
    Features,
    LayerLayout,
    dimension,
    gather_outputs,
    layer_layouts,
    zero_features,
    zero_sums,
)
from phonopy_equivariant.models.layered import Gated, Layer, LayeredModel, Params
from phonopy_equivariant.models.nequip_edges import pair_term, radial_basis
from phonopy_equivariant.models.networks import (
    IrrepsLinear,
    Messages,
    RadialNetwork,
    ScalarBias,
    SpeciesFactor,
)
from phonopy_equivariant.models.weights import Draw, transform, weight

NORM_EPSILON = 1e-12


class RMSNorm(hk.Module):
    """Equivariant RMS norm without centring, irreps balanced by their degree as in Nequix.

    x_l <- w_l · x_l / sqrt( mean over irreps of sum_{u,m} x_l² / (2l+1)² + 1e-12 )
    """

    def __call__(self, features: Features) -> Features:
        """Normalise ``{irrep: (atoms, 2l+1, u)}``."""
        mean_square = sum(
            jnp.sum(x**2, axis=(-2, -1), keepdims=True) / x.shape[-2] ** 2
            for x in features.values()
        ) / len(features)
        inverse = jax.lax.rsqrt(mean_square + NORM_EPSILON)
        return {
            key: x * inverse * weight(key, x.shape[-1:], x.dtype, mean=1.0)
            for key, x in features.items()
        }


def gate(features: Features, outputs: dict[str, int]) -> Features:
    """Apply SiLU to even and tanh to odd scalars, and multiply other irreps by SiLU gates.

    The gates are the last channels of ``0e``, in the order of ``outputs``.
    """
    gated_keys = [key for key in outputs if dimension(key) > 1]
    # a split, not slices: its transpose is one concatenation
    sizes = [outputs["0e"], *[outputs[key] for key in gated_keys]]
    scalars, *gates = jax.lax.split(activation.silu(features["0e"]), sizes, axis=-1)
    factors = dict(zip(gated_keys, gates, strict=True))
    gated = {"0e": scalars} | {key: features[key] * gate for key, gate in factors.items()}
    if "0o" in outputs:
        gated["0o"] = activation.tanh(features["0o"])
    return {key: gated[key] for key in outputs}


@functools.lru_cache(maxsize=32)
def build_nequip(config: NequIPConfig) -> LayeredModel:
    """Return the pure functions of a NequIP; equal configurations share one model."""
    num_species, width = len(config.species), config.embedding_width
    layouts = layer_layouts(
        width or num_species,
        config.hidden_irreps,
        config.l_max,
        config.num_interactions,
        scale=config.avg_num_neighbors**-0.5,
        parity=config.parity,
    )
    skips = config.skips or ("species" if config.species_skip else "shared",) * len(layouts)
    layers = [
        _layer(config, layout, skip, has_readout=layout is layouts[-1])
        for layout, skip in zip(layouts, skips, strict=True)
    ]

    def functions():  # type: ignore[no-untyped-def]  # haiku: (template, functions)
        def energies() -> Array:
            return weight("atomic_energies", (num_species,), float)

        def embedding() -> Array:
            return weight("embedding", (num_species, width), float, 1.0)

        def embed(species: Array) -> Features:
            if width:
                return {"0e": embedding()[species][:, None]}
            return {"0e": jax.nn.one_hot(species, num_species, dtype=energies().dtype)[:, None]}

        def offset(species: Array) -> Array:
            return energies()[species] + config.shift

        def touch_all() -> None:
            energies()
            if width:
                embedding()

        return touch_all, (embed, offset)

    shared, (embed, offset) = transform(functions)

    def init(draw: Draw) -> Params:
        return {"global": shared(draw), "layers": tuple(layer.init(draw) for layer in layers)}

    return LayeredModel(
        tuple(layers),
        config.cutoff,
        init,
        embed,
        radial_basis(config),
        offset,
        pair_term(config) if config.pair_repulsion else None,
        symmetric_radial=config.symmetric_radial,
        key=repr(config),
    )


def _readout(config: NequIPConfig) -> Callable[[Features, Array], Array]:
    """Return a function that makes the modules of a readout and returns atoms' energies (eV)."""
    if config.readout_widths:
        network = RadialNetwork((*config.readout_widths, 1), "readout")
    else:
        linear = IrrepsLinear({"0e": 1}, name="readout")
    scales = SpeciesFactor(len(config.species), "scales")

    def readout(features: Features, species: Array) -> Array:
        if config.readout_widths:
            energies = config.scale * network(features["0e"][:, 0])[:, 0]
        else:
            energies = config.scale * linear({"0e": features["0e"]}, species)["0e"][:, 0, 0]
        return scales(energies, species) if config.species_scales else energies

    return readout


def _gated(config: NequIPConfig, layout: LayerLayout, has_readout: bool) -> Gated | None:
    """Return how ``activate`` is made, if what comes after it is linear."""
    if has_readout and config.readout_widths:
        return None
    norm, bias = "norm" if config.layer_norm else "", "bias" if config.biases else ""
    return Gated(layout.outputs, norm, bias, NORM_EPSILON)


def _layer(config: NequIPConfig, layout: LayerLayout, skip: str, has_readout: bool) -> Layer:
    """Return one interaction: h <- gate(norm(y)), y = linear(A) + skip(h)."""
    num_gates = sum(width for key, width in layout.outputs.items() if dimension(key) > 1)
    widths = layout.outputs | {"0e": layout.outputs["0e"] + num_gates}
    num_species = len(config.species)

    def functions():  # type: ignore[no-untyped-def]  # haiku: (template, functions)
        up = Messages(
            layout.inputs, config.biases, num_species if config.sender_norms else 0, name="up"
        )
        hidden = [config.radial_width] * config.radial_depth
        network = RadialNetwork((*hidden, layout.num_radial()), "radial")
        degrees = np.array(layout.degrees_of_radial())
        down = IrrepsLinear(widths, name="down")
        received = SpeciesFactor(num_species, "norms") if config.receiver_norms else None
        skipping = None
        if skip != "none":
            skipping = IrrepsLinear(widths, num_species if skip == "species" else None, name="skip")
        bias = ScalarBias("bias") if config.biases else None
        norm = RMSNorm("norm") if config.layer_norm else None
        readout = _readout(config)

        def radial_functions(basis: Array, z_i: Array, z_j: Array) -> Array:
            if not config.solid_harmonics:
                return network(basis)
            powers = [basis[:, -1] ** degree for degree in range(config.l_max + 1)]
            return network(basis[:, :-1]) * jnp.stack(powers, axis=1)[:, degrees]

        def mix(sums: Features | None, features: Features | None, species: Array) -> Features:
            mixed = {} if sums is None else down(gather_outputs(layout, sums), species)
            if received is not None:
                mixed = {key: received(x, species) for key, x in mixed.items()}
            skipped = {}
            if features is not None and skipping is not None:
                skipped = skipping(features, species)
            # a list: the order of a set differs between processes, and with it the key of the
            # compiled function in the persistent cache
            summed = [key for key in mixed if key in skipped]
            return mixed | skipped | {key: mixed[key] + skipped[key] for key in summed}

        def activate(mixed: Features, species: Array) -> Features:
            shifted = mixed if bias is None else mixed | {"0e": bias(mixed["0e"])}
            return gate(shifted if norm is None else norm(shifted), layout.outputs)

        def touch_all() -> None:
            species = jnp.zeros(1, int)
            features = zero_features(layout.inputs)
            up(features, species)
            network(jnp.zeros((1, config.num_radial_basis)))
            updated = activate(mix(zero_sums(layout), features, species), species)
            if has_readout:
                readout(updated, species)

        return touch_all, (up, radial_functions, mix, activate, readout)

    init, (message, radial_functions, mix, activate, readout) = transform(functions)
    return Layer(
        layout,
        init,
        message,
        radial_functions,
        mix,
        activate,
        readout if has_readout else None,
        gated=_gated(config, layout, has_readout),
        key=f"{layout} {skip} {has_readout}",
        message_key=f"{layout.inputs}",
        message_module="up",
    )

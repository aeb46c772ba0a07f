"""NequIP (arXiv:2101.03164) as a layered model; the haiku code of the package lives here."""

from __future__ import annotations

import functools

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array

from phonopy_equivariant.models import activation, radial
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.models.irreps import (
    Features,
    LayerLayout,
    dimension,
    gather_outputs,
    layer_layouts,
)
from phonopy_equivariant.models.layered import LayeredModel, Params

NORM_EPSILON = 1e-12


class IrrepsLinear(hk.Module):
    """Equivariant linear map: channels of the same irrep mix, x @ w / sqrt(channels in)."""

    def __init__(self, outputs: dict[str, int], num_species: int | None = None, name: str = ""):
        super().__init__(name)
        self.outputs = outputs
        self.num_species = num_species

    def __call__(self, features: Features, species: Array) -> Features:
        """Map ``{irrep: (atoms, 2l+1, u)}`` to ``{irrep: (atoms, 2l+1, w)}``."""
        return {
            key: self._block(key, features[key], species)
            for key in self.outputs
            if key in features
        }

    def _block(self, key: str, x: Array, species: Array) -> Array:
        shape: tuple[int, ...] = (x.shape[-1], self.outputs[key])
        if self.num_species is not None:
            shape = (self.num_species, *shape)
        weight = hk.get_parameter(key, shape, x.dtype, hk.initializers.RandomNormal())
        if self.num_species is None:
            mixed = x @ weight
        else:
            mixed = jnp.einsum("nau,nuw->naw", x, weight[species])
        return mixed / x.shape[-1] ** 0.5


class RadialNetwork(hk.Module):
    """Bessel basis times envelope, then a SiLU network without biases: zero at the cutoff."""

    def __init__(self, config: NequIPConfig, num_functions: int, name: str):
        super().__init__(name)
        self.config = config
        self.widths = (*[config.radial_width] * config.radial_depth, num_functions)

    def __call__(self, distance: Array) -> Array:
        """Return (edges, functions) for (edges,) distances."""
        config = self.config
        envelope = radial.polynomial_envelope(distance, config.cutoff, config.envelope_exponent)
        x = radial.bessel_basis(distance, config.num_radial_basis, config.cutoff)
        x = x * envelope[:, None]
        for depth, width in enumerate(self.widths):
            last = depth == len(self.widths) - 1
            # a hidden SiLU layer loses about half the second moment per unit of variance
            spread = (1.0 if last else 2.0) / x.shape[-1] ** 0.5
            weight = hk.get_parameter(
                f"w{depth}",
                (x.shape[-1], width),
                x.dtype,
                hk.initializers.RandomNormal(spread),
            )
            x = x @ weight
            if not last:
                x = jax.nn.silu(x)
        return x


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
            key: x * inverse * hk.get_parameter(key, x.shape[-1:], x.dtype, jnp.ones)
            for key, x in features.items()
        }


def gate(features: Features, outputs: dict[str, int]) -> Features:
    """Apply SiLU to even and tanh to odd scalars, and multiply other irreps by SiLU gates.

    The gates are the last channels of ``0e``, in the order of ``outputs``.
    """
    scalars = features["0e"]
    gates = activation.silu(scalars[..., outputs["0e"] :])
    gated, start = {"0e": activation.silu(scalars[..., : outputs["0e"]])}, 0
    for key, width in outputs.items():
        if key == "0o":
            gated[key] = activation.tanh(features[key])
        elif key != "0e":
            gated[key] = features[key] * gates[..., start : start + width]
            start += width
    return gated


class NodeUpdate:
    """h <- gate(norm(linear(A) / sqrt(neighbours) + skip(h))); its modules are the caller's."""

    def __init__(self, config: NequIPConfig, layout: LayerLayout):
        num_gates = sum(width for key, width in layout.outputs.items() if dimension(key) > 1)
        widths = layout.outputs | {"0e": layout.outputs["0e"] + num_gates}
        self.layout = layout
        self.neighbours = config.avg_num_neighbors**0.5
        self.down = IrrepsLinear(widths, name="down")
        skip_species = len(config.species) if config.species_skip else None
        self.skip = IrrepsLinear(widths, skip_species, name="skip")
        self.norm = RMSNorm("norm") if config.layer_norm else None

    def __call__(self, sums: Features, features: Features, species: Array) -> Features:
        """Return the features after the interaction."""
        mixed = self.down(gather_outputs(self.layout, sums), species)
        mixed = {key: x / self.neighbours for key, x in mixed.items()}
        for key, skipped in self.skip(features, species).items():
            mixed[key] = mixed[key] + skipped if key in mixed else skipped
        if self.norm is not None:
            mixed = self.norm(mixed)
        return gate(mixed, self.layout.outputs)


@functools.lru_cache(maxsize=32)
def build_nequip(config: NequIPConfig) -> LayeredModel:
    """Return the pure functions of a NequIP; equal configurations share one model."""
    num_species = len(config.species)
    layouts = layer_layouts(
        num_species, config.hidden_irreps, config.l_max, config.num_interactions
    )

    def functions():  # type: ignore[no-untyped-def]  # haiku: (init, tuple of functions)
        ups, networks, updates = [], [], []
        for t, layout in enumerate(layouts):
            with hk.experimental.name_scope(f"layer_{t}"):
                ups.append(IrrepsLinear(layout.inputs, name="up"))
                networks.append(RadialNetwork(config, layout.num_radial(), "radial"))
                updates.append(NodeUpdate(config, layout))
        readout_linear = IrrepsLinear({"0e": 1}, name="readout")

        def embed(species: Array) -> Features:
            dtype = _atomic_energies(num_species).dtype
            return {"0e": jax.nn.one_hot(species, num_species, dtype=dtype)[:, None, :]}

        def message(t: int, features: Features, species: Array) -> Features:
            return ups[t](features, species)

        def radial_functions(t: int, distance: Array, z_i: Array, z_j: Array) -> Array:
            return networks[t](distance)

        def node_update(t: int, sums: Features, features: Features, species: Array) -> Features:
            return updates[t](sums, features, species)

        def readout(t: int, features: Features, species: Array) -> Array:
            if t < len(layouts) - 1:
                return jnp.zeros(species.shape, features["0e"].dtype)
            return config.scale * readout_linear({"0e": features["0e"]}, species)["0e"][:, 0, 0]

        def offset(species: Array) -> Array:
            return _atomic_energies(num_species)[species] + config.shift

        def touch_all(species: Array) -> None:
            offset(species)
            features = embed(species)
            for t, layout in enumerate(layouts):
                radial_functions(t, jnp.ones(1), species, species)
                message(t, features, species)
                sums = {
                    key: jnp.zeros((1, layout.num_components(key), layout.inputs[key]))
                    for key in layout.paths
                }
                features = node_update(t, sums, features, species)
            readout(len(layouts) - 1, features, species)

        return touch_all, (embed, message, radial_functions, node_update, readout, offset)

    transformed = hk.without_apply_rng(hk.multi_transform(functions))
    embed, message, radial_functions, node_update, readout, offset = transformed.apply

    def init(key: Array) -> Params:
        return transformed.init(key, jnp.zeros(1, int))

    return LayeredModel(
        layouts=layouts,
        cutoff=config.cutoff,
        init=init,
        embed=embed,
        message=message,
        radial=radial_functions,
        node_update=node_update,
        readout=readout,
        offset=offset,
    )


def _atomic_energies(num_species: int) -> Array:
    return hk.get_parameter("atomic_energies", (num_species,), init=jnp.zeros)

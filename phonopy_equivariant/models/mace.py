"""MACE (arXiv:2206.07697) as a layered model, with the blocks of mace-torch.

For layer t, with species z and density d_i = sum_e tanh(ρ(r_e)²):

    A_i  = sum_e K(r_e; z_i, z_j) · up(h_j)
    y_i  = down(A_i) and, beside it, d_i and h_i
    x_i  = select_z(y_i) / norm,      norm = average number of neighbours, or d_i + 1
    h'_i = linear( product basis of x_i ) + skip_z(h_i)

Scale factors and normalisation constants of mace-torch are part of the weights; the networks
have plain nonlinearities.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from phonopy_equivariant.models import radial
from phonopy_equivariant.models.irreps import (
    Features,
    Group,
    LayerLayout,
    dimension,
    gather_outputs,
    paths_between,
)
from phonopy_equivariant.models.layered import Channelwise, Layer, LayeredModel, Params
from phonopy_equivariant.models.mace_config import MACEConfig
from phonopy_equivariant.models.networks import (
    IrrepsLinear,
    NormedRadialNetwork,
    RadialNetwork,
    Readout,
)
from phonopy_equivariant.models.product_basis import ProductBasis, reachable
from phonopy_equivariant.models.representations import parse_irreps
from phonopy_equivariant.models.weights import Draw, transform, weight

# the message 1, whose sum over neighbours is their density
DENSITY = "0e:density"


class LayerShape(NamedTuple):
    """Irreps of one layer: what comes in, is multiplied, and comes out."""

    kind: str
    correlation: int
    features: dict[str, int]
    targets: dict[str, int]
    outputs: dict[str, int]
    layout: LayerLayout

    @property
    def has_density(self) -> bool:
        """Whether sums over neighbours are divided by a density."""
        return self.kind in ("density", "density-residual", "nonlinear")

    @property
    def skipped(self) -> tuple[str, ...]:
        """The irreps that the layer adds to its products."""
        some = tuple(key for key in self.outputs if key in self.features)
        return some if self.kind in ("residual", "density-residual", "nonlinear") else ()

    @property
    def mixed(self) -> dict[str, int]:
        """Channels of the mixed sums: the targets, and scalars for the gates of the others."""
        gates = sum(width for key, width in self.targets.items() if dimension(key) > 1)
        extra = gates if self.kind == "nonlinear" else 0
        return self.targets | {"0e": self.targets["0e"] + extra}


def layer_shapes(config: MACEConfig) -> tuple[LayerShape, ...]:
    """Return the irreps of all layers; the last one keeps scalars only."""
    hidden = parse_irreps(config.hidden_irreps)
    harmonics = [f"{degree}{'eo'[degree % 2]}" for degree in range(config.l_max + 1)]
    features = {"0e": config.channels}
    shapes = []
    for layer in range(config.num_interactions):
        kind, correlation = config.interactions[layer], config.correlation[layer]
        irreps = parse_irreps(config.message_irreps[layer])
        sent = {key: width for key, width in irreps.items() if key in features} or features
        groups = {key: paths_between(key, harmonics, config.l_max) for key in sent}
        reached = {group.output for some in groups.values() for group in some}
        targets = {key: config.channels for key in harmonics if key in reached}
        wanted = hidden if layer < config.num_interactions - 1 else {"0e": config.channels}
        outputs = {key: wanted[key] for key in reachable(tuple(targets), list(wanted), correlation)}
        inputs, convolved = sent, targets
        if "density" in kind or kind == "nonlinear":
            inputs, convolved = sent | {DENSITY: 1}, targets | {DENSITY: 1}
            groups = groups | {DENSITY: (Group(DENSITY, (0,)),)}
            scale = 1.0
        else:
            scale = 1 / config.avg_num_neighbors
        layout = LayerLayout(inputs, convolved, groups, config.l_max, scale)
        shapes.append(LayerShape(kind, correlation, features, targets, outputs, layout))
        features = outputs
    return tuple(shapes)


@functools.lru_cache(maxsize=32)
def build_mace(config: MACEConfig) -> LayeredModel:
    """Return the pure functions of a MACE; equal configurations share one model."""
    num_species = len(config.species)
    layers = [
        _layer(config, shape, readout)
        for shape, readout in zip(layer_shapes(config), config.readouts, strict=True)
    ]

    def functions():  # type: ignore[no-untyped-def]  # haiku: (template, functions)
        def energies() -> Array:
            return weight("atomic_energies", (num_species,), float)

        def embedding() -> Array:
            return weight("embedding", (num_species, config.channels), float, 1.0)

        def embed(species: Array) -> Features:
            return {"0e": embedding()[species][:, None]}

        def offset(species: Array) -> Array:
            return energies()[species] + config.shift

        return lambda: (energies(), embedding()), (embed, offset)

    shared, (embed, offset) = transform(functions)

    def init(draw: Draw) -> Params:
        return {"global": shared(draw), "layers": tuple(layer.init(draw) for layer in layers)}

    return LayeredModel(
        tuple(layers),
        config.cutoff,
        init,
        embed,
        _basis(config),
        offset,
        _pair_term(config) if config.pair_repulsion else None,
        symmetric_radial=config.symmetric_radial,
        key=repr(config),
    )


def _basis(config: MACEConfig) -> Callable[[Params, Array, Array, Array], Array]:
    """Return the radial basis, and what multiplies the radial functions in one more column.

    The column is left out where networks without biases carry the envelope of their input.
    """
    transforms = {"agnesi": radial.agnesi_transform, "soft": radial.soft_transform}
    transform = transforms.get(config.distance_transform)
    prefactor = (2 / config.cutoff) ** 0.5

    def basis(params: Params, distance: Array, z_i: Array, z_j: Array) -> Array:
        envelope = radial.polynomial_envelope(
            distance, config.cutoff, float(config.envelope_exponent)
        )
        stretched = distance
        if transform is not None:
            radii = jnp.array(config.covalent_radii, distance.dtype)
            stretched = transform(distance, radii[z_i] + radii[z_j], config.transform_constants)
        values = radial.sine_basis(stretched, config.frequencies, prefactor)
        if not config.apply_cutoff:
            return jnp.concatenate([values, envelope[:, None]], axis=1)
        values = values * envelope[:, None]
        if not _has_factor(config):
            return values
        inside = (distance < config.cutoff).astype(distance.dtype)
        return jnp.concatenate([values, inside[:, None]], axis=1)

    return basis


def _has_factor(config: MACEConfig) -> bool:
    return not config.apply_cutoff or "nonlinear" in config.interactions


def _pair_term(config: MACEConfig) -> Callable[[Params, Array, Array, Array], Array]:
    def pair(params: Params, distance: Array, z_i: Array, z_j: Array) -> Array:
        radii = jnp.array(config.covalent_radii, distance.dtype)
        numbers = jnp.array(config.species, distance.dtype)
        energy = radial.zbl_energy(
            distance,
            (numbers[z_i], numbers[z_j]),
            radii[z_i] + radii[z_j],
            float(config.envelope_exponent),
            config.zbl_constants,
        )
        return 0.5 * config.scale * energy

    return pair


def _layer(config: MACEConfig, shape: LayerShape, readout_kind: str) -> Layer:
    """Return one interaction with its product basis and readout."""
    # long because haiku makes the modules of a layer once, in a scope that all its functions share
    num_species = len(config.species)
    layout, nonlinear = shape.layout, shape.kind == "nonlinear"
    sent_widths = {key: mul for key, mul in layout.inputs.items() if key != DENSITY}

    def functions():  # type: ignore[no-untyped-def]  # haiku: (template, functions)
        up = IrrepsLinear(sent_widths, name="up")
        radial_functions = _radial_functions(config, shape)
        down = IrrepsLinear(shape.mixed, name="down")
        residual = IrrepsLinear(shape.mixed, name="residual") if nonlinear else None
        before = _before(shape, num_species)
        product = ProductBasis(
            tuple(shape.targets),
            tuple(shape.outputs),
            shape.correlation,
            None if config.agnostic_product else num_species,
            name="product",
        )
        linear = IrrepsLinear(shape.outputs, name="linear")
        skip = IrrepsLinear(shape.outputs, None if nonlinear else num_species, name="skip")
        scalar = Readout(readout_kind, config.readout_width, "readout")

        def message(features: Features, species: Array) -> Features:
            sent = up(features, species)
            if shape.has_density:
                sent[DENSITY] = jnp.ones_like(features["0e"][..., :1])
            return sent

        def mix(sums: Features | None, features: Features | None, species: Array) -> Features:
            mixed = {}
            if sums is not None:
                gathered = gather_outputs(layout, sums)
                mixed = down(gathered, species)
                if shape.has_density:
                    mixed["density"] = gathered[DENSITY]
            if features is not None:
                mixed |= {f"skip {key}": features[key] for key in shape.skipped}
                if residual is not None:
                    rest = residual(features, species)
                    mixed |= {f"residual {key}": x for key, x in rest.items()}
            return mixed

        def after(products: Array, mixed: Features, species: Array) -> Features:
            sizes = [dimension(key) for key in shape.outputs]
            parts = jax.lax.split(products, sizes, axis=1)
            updated = linear(dict(zip(shape.outputs, parts, strict=True)), species)
            old = {key: mixed[f"skip {key}"] for key in shape.skipped}
            added = skip(old, species)
            return {key: x + added[key] if key in added else x for key, x in updated.items()}

        def activate(mixed: Features, species: Array) -> Features:
            return after(product(before(mixed, species), species), mixed, species)

        def readout(features: Features, species: Array) -> Array:
            return config.scale * scalar(features["0e"][:, 0])

        def touch_all() -> None:
            species = jnp.zeros(1, int)
            features = {key: jnp.zeros((1, dimension(key), u)) for key, u in shape.features.items()}
            message(features, species)
            columns = config.num_radial_basis + _has_factor(config)
            radial_functions(jnp.zeros((1, columns)), species, species)
            sums = {
                key: jnp.zeros((1, layout.num_components(key), layout.inputs[key]))
                for key in layout.groups
            }
            updated = activate(mix(sums, features, species), species)
            if readout_kind != "none":
                readout(updated, species)

        parts = (message, radial_functions, mix, activate, readout, before, product, after)
        return touch_all, parts

    init, parts = transform(functions)
    message, radial_functions, mix, activate, readout, before, product, after = parts
    return Layer(
        layout,
        init,
        message,
        radial_functions,
        mix,
        activate,
        None if readout_kind == "none" else readout,
        Channelwise(before, product, after),
        key=f"{shape} {readout_kind}",
        message_key=f"{shape.features} {sent_widths} {shape.has_density}",
        message_module="up",
    )


def _radial_functions(
    config: MACEConfig, shape: LayerShape
) -> Callable[[Array, Array, Array], Array]:
    """Return the radial functions (edges, functions), that of the density last."""
    functions = shape.layout.num_radial() - shape.has_density
    widths, species = (*config.radial_widths, functions), len(config.species)
    network: Callable[[Array, Array, Array], Array]
    density: Callable[[Array, Array, Array], Array]
    if shape.kind == "nonlinear":
        network = NormedRadialNetwork(widths, species, "radial")
        density = NormedRadialNetwork((config.density_width, 1), species, "density")
    else:
        plain, plain_density = RadialNetwork(widths, "radial"), RadialNetwork((1,), "density")

        def network(basis: Array, z_i: Array, z_j: Array) -> Array:
            return plain(basis)

        def density(basis: Array, z_i: Array, z_j: Array) -> Array:
            return plain_density(basis)

    def radial_functions(basis: Array, z_i: Array, z_j: Array) -> Array:
        values = basis[:, :-1] if _has_factor(config) else basis
        result = network(values, z_i, z_j)
        if shape.has_density:
            some = jnp.tanh(density(values, z_i, z_j) ** 2)
            result = jnp.concatenate([result, some], axis=1)
        return result * basis[:, -1:] if _has_factor(config) else result

    return radial_functions


def _before(shape: LayerShape, num_species: int) -> Callable[[Features, Array], Array]:
    """Return what makes x, the factors of the products, of the mixed sums."""
    nonlinear = shape.kind == "nonlinear"
    selected = shape.kind in ("plain", "density")
    select = IrrepsLinear(shape.targets, num_species, name="select") if selected else None
    update = IrrepsLinear(shape.targets, name="update") if nonlinear else None

    def before(mixed: Features, species: Array) -> Array:
        parts = {key: mixed[key] for key in shape.targets}
        if shape.has_density:
            density = mixed["density"]
            if nonlinear:
                alpha = weight("alpha", (), density.dtype, mean=20.0)
                beta = weight("beta", (), density.dtype)
                inverse = 1 / (alpha + beta * density)
            else:
                inverse = 1 / (1 + density)
            parts = {key: x * inverse for key, x in parts.items()}
        if update is not None:
            rest = {key: f"residual {key}" for key in parts if f"residual {key}" in mixed}
            parts |= {key: parts[key] + mixed[name] for key, name in rest.items()}
            parts = update(_gate(parts, shape.targets), species)
        if select is not None:
            parts = select(parts, species)
        return jnp.concatenate([parts[key] for key in shape.targets], axis=1)

    return before


def _gate(features: Features, outputs: dict[str, int]) -> Features:
    """Apply SiLU to the scalars and multiply other irreps by sigmoid gates, the last scalars."""
    gates = [key for key in outputs if dimension(key) > 1]
    widths = [outputs["0e"], *[outputs[key] for key in gates]]
    scalars, *parts = jax.lax.split(features["0e"], widths, axis=-1)
    gated = {key: features[key] * jax.nn.sigmoid(x) for key, x in zip(gates, parts, strict=True)}
    return {"0e": jax.nn.silu(scalars)} | gated

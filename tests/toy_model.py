"""A layered model with everything a MACE needs and NequIP lacks, small enough for brute force.

Radial functions that depend on the two species without symmetry, a constant channel (a message
that does not depend on the features), a product basis (cubic in the mixed features, with
species-dependent weights), a division by a density, readouts in every layer, one of them
nonlinear, and a pair term.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.models.irreps import LayerLayout, dimension, gather_outputs, layer_layouts
from phonopy_equivariant.models.layered import Layer, LayeredModel
from phonopy_equivariant.models.radial import bessel_basis, polynomial_envelope
from phonopy_equivariant.models.weights import Draw, normal_numbers
from phonopy_equivariant.potential import Potential, make_potential

CONSTANT = 2  # channels of the constant message


@dataclasses.dataclass(frozen=True, eq=False)
class ToyPotential(Potential):
    """A potential whose functions are the toy's."""

    @property
    def model(self) -> LayeredModel:
        return build_toy(self.config)


def toy_potential(config: NequIPConfig, seed: int = 0) -> ToyPotential:
    made = make_potential(config, build_toy(config).init(normal_numbers(seed)))
    return ToyPotential(made.config, made.params, made.dtype, name="toy")


@functools.lru_cache
def build_toy(config: NequIPConfig) -> LayeredModel:
    species = len(config.species)
    plain = layer_layouts(
        species, config.hidden_irreps, config.l_max, config.num_interactions, scale=0.3
    )
    layouts = [
        layout._replace(inputs=layout.inputs | {"0e": layout.inputs["0e"] + CONSTANT})
        for layout in plain
    ]
    layers = tuple(
        _layer(species, layout, before.inputs, config.num_radial_basis)
        for layout, before in zip(layouts, plain, strict=True)
    )

    def embed(params: dict, z: Array) -> dict:
        return {"0e": jax.nn.one_hot(z, species, dtype=params["energies"].dtype)[:, None]}

    def basis(params: dict, distance: Array, z_i: Array, z_j: Array) -> Array:
        # the argument is stretched by the pair, as a distance transform would
        stretched = distance * (1 + 0.05 * z_i.astype(distance.dtype))
        envelope = polynomial_envelope(distance, config.cutoff, 5.0)
        return envelope[:, None] * bessel_basis(stretched, config.num_radial_basis, config.cutoff)

    def pair(params: dict, distance: Array, z_i: Array, z_j: Array) -> Array:
        charge = (1.0 + z_i.astype(distance.dtype)) * (1.0 + z_j.astype(distance.dtype))
        screened = jnp.exp(-distance) / distance
        return 0.5 * charge * screened * polynomial_envelope(distance, config.cutoff, 6.0)

    def init(draw: Draw) -> dict:
        return {
            "global": {"energies": np.arange(species, dtype=float)},
            "layers": tuple(layer.init(draw) for layer in layers),
        }

    return LayeredModel(
        layers,
        config.cutoff,
        init,
        embed,
        basis,
        lambda params, z: params["energies"][z],
        pair,
        symmetric_radial=False,
    )


def _layer(species: int, layout: LayerLayout, inputs: dict[str, int], num_basis: int) -> Layer:
    def init(draw: Draw) -> dict:
        def normal(*shape: int) -> Array:
            return draw(shape, shape[-2] ** -0.5, 0.0)

        return {
            "up": {k: normal(u, u) for k, u in inputs.items()},
            "radial": normal(species, species, num_basis, layout.num_radial()),
            "down": {k: normal(layout.fan_in(k), u) for k, u in layout.outputs.items()},
            "skip": {k: normal(inputs[k], u) for k, u in layout.outputs.items() if k in inputs},
            "product": {k: normal(species, 3, u) for k, u in layout.outputs.items()},
            "readout": normal(layout.outputs["0e"], 1),
        }

    def message(params: dict, features: dict, z: Array) -> dict:
        sent = {k: x @ params["up"][k] for k, x in features.items()}
        ones = jnp.ones((*sent["0e"].shape[:2], CONSTANT), sent["0e"].dtype)
        return sent | {"0e": jnp.concatenate([sent["0e"], ones], axis=-1)}

    def radial(params: dict, basis: Array, z_i: Array, z_j: Array) -> Array:
        return jnp.einsum("ek,ekf->ef", basis, params["radial"][z_i, z_j])

    def mix(params: dict, sums: dict | None, features: dict | None, z: Array) -> dict:
        mixed = {}
        if sums is not None:
            gathered = gather_outputs(layout, sums)
            mixed |= {k: x @ params["down"][k] for k, x in gathered.items()}
            mixed["density"] = sums["0e"][:, :1, -CONSTANT:].sum(axis=-1, keepdims=True)
        if features is not None:
            mixed |= {f"skip {k}": features[k] @ w for k, w in params["skip"].items()}
        return mixed

    def activate(params: dict, mixed: dict, z: Array) -> dict:
        inverse = 1 / (1.5 + jnp.tanh(mixed["density"]))
        scalar = mixed["0e"] * inverse
        updated = {}
        for key in layout.outputs:
            x = mixed[key] * inverse
            weights = params["product"][key][z]
            norm = jnp.sum(x**2, axis=-2, keepdims=True) / dimension(key)
            powers = (x, x * scalar[..., :1], x * norm)
            updated[key] = sum(
                weights[:, None, k] * power for k, power in enumerate(powers)
            ) + mixed.get(f"skip {key}", 0.0)
        return updated

    def readout(params: dict, features: dict, z: Array) -> Array:
        linear = (features["0e"] @ params["readout"])[:, 0, 0]
        return linear + 0.3 * jnp.tanh(linear) ** 2

    return Layer(layout, init, message, radial, mix, activate, readout)

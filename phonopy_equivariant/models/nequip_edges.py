"""What NequIP makes of the distance of an edge: the radial basis, and the pair term."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from phonopy_equivariant.models import radial
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.models.layered import Params


def radial_basis(config: NequIPConfig) -> Callable[[Params, Array, Array, Array], Array]:
    """Return the radial basis; with solid harmonics the distance is one more column."""

    def basis(params: Params, distance: Array, z_i: Array, z_j: Array) -> Array:
        if config.pair_cutoffs:
            return _basis_within(config, distance, _pair_cutoff(config, distance, z_i, z_j))
        if config.envelope == "xplor":
            envelope = radial.xplor_envelope(distance, config.cutoff, config.envelope_onset)
        else:
            envelope = radial.polynomial_envelope(distance, config.cutoff, config.envelope_exponent)
        if config.frequencies:
            waves = radial.sine_basis(distance, config.frequencies, 2 / config.cutoff)
        else:
            waves = radial.bessel_basis(distance, config.num_radial_basis, config.cutoff)
        values = envelope[:, None] * waves
        if not config.solid_harmonics:
            return values
        # the radial functions of edges beyond the cutoff are zero times a power of this
        return jnp.concatenate([values, distance[:, None]], axis=1)

    return basis


def _basis_within(config: NequIPConfig, distance: Array, cutoff: Array) -> Array:
    """Return the radial basis of edges whose cutoffs c_ij depend on their species.

    2/c · sin(ω s)/s with s = r c/c_ij, so that c_ij = c gives the basis of all other models.
    """
    frequencies = config.frequencies or tuple(
        k * math.pi / config.cutoff for k in range(1, config.num_radial_basis + 1)
    )
    envelope = radial.polynomial_envelope(distance, cutoff, config.envelope_exponent)
    scaled = distance * (config.cutoff / cutoff)
    waves = radial.sine_basis(scaled, frequencies, 2 / config.cutoff)
    return envelope[:, None] * waves


def _pair_cutoff(config: NequIPConfig, distance: Array, z_i: Array, z_j: Array) -> Array:
    table = jnp.array(config.pair_cutoffs, distance.dtype)
    return table[z_i * len(config.species) + z_j]


def pair_term(config: NequIPConfig) -> Callable[[Params, Array, Array, Array], Array]:
    """Return the pair term, half of it for each direction of a bond (eV)."""

    def pair(params: Params, distance: Array, z_i: Array, z_j: Array) -> Array:
        numbers = jnp.array(config.species, distance.dtype)
        cutoff: float | Array = config.cutoff
        if config.pair_cutoffs:
            cutoff = _pair_cutoff(config, distance, z_i, z_j)
        envelope = radial.polynomial_envelope(distance, cutoff, config.envelope_exponent)
        return 0.5 * envelope * radial.screened_repulsion(distance, (numbers[z_i], numbers[z_j]))

    return pair

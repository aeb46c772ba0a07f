"""Functions of the distance of an edge: Bessel bases, smooth envelopes, distance transforms."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def bessel_basis(
    distance: Float[Array, " edges"], num_basis: int, cutoff: float
) -> Float[Array, "edges basis"]:
    r"""Return :math:`\frac{2}{c} \sin(k \pi r / c) / r` for k = 1..num_basis.

    The basis of arXiv:2003.03123, eq. 7, with the prefactor of Nequix, 2/c, where the paper has
    its square root. ``distance`` must not be zero.
    """
    order = jnp.arange(1, num_basis + 1, dtype=distance.dtype)
    argument = jnp.pi * order * (distance[:, None] / cutoff)
    return 2 / cutoff * jnp.sin(argument) / distance[:, None]


def sine_basis(
    distance: Float[Array, " edges"], frequencies: tuple[float, ...], prefactor: float
) -> Float[Array, "edges basis"]:
    r"""Return :math:`p \sin(\omega_k r) / r`; ``distance`` must not be zero."""
    argument = jnp.array(frequencies, distance.dtype) * distance[:, None]
    return prefactor * jnp.sin(argument) / distance[:, None]


def polynomial_envelope(
    distance: Float[Array, " edges"], cutoff: float | Array, exponent: float
) -> Float[Array, " edges"]:
    r"""Return the envelope of arXiv:2003.03123, eq. 8: 1 at zero, C² at the cutoff, 0 beyond.

    .. math:: 1 - \frac{(p+1)(p+2)}{2} x^p + p(p+2) x^{p+1} - \frac{p(p+1)}{2} x^{p+2},
              \quad x = r / c
    """
    p = float(exponent)
    power = int(p) if p.is_integer() else p
    x = jnp.minimum(distance / cutoff, 1.0)
    bracket = (p + 1) * (p + 2) / 2 - p * (p + 2) * x + p * (p + 1) / 2 * x**2
    return jnp.where(distance < cutoff, 1 - x**power * bracket, 0.0)


def xplor_envelope(
    distance: Float[Array, " edges"], cutoff: float, onset: float
) -> Float[Array, " edges"]:
    r"""Return the envelope XPLOR: 1 up to the onset o, 0 beyond the cutoff c, C¹ at both.

    .. math:: \frac{(c^2 - r^2)^2 (c^2 + 2 r^2 - 3 o^2)}{(c^2 - o^2)^3}

    Its second derivative jumps at the onset and at the cutoff (HOOMD-blue's manual, md.pair).
    """
    squared = jnp.minimum(distance, cutoff) ** 2
    c, o = cutoff**2, onset**2
    inside = (c - squared) ** 2 * (c + 2 * squared - 3 * o) / (c - o) ** 3
    return jnp.where(distance < onset, 1.0, jnp.where(distance < cutoff, inside, 0.0))


def agnesi_transform(
    distance: Float[Array, " edges"],
    radius: Float[Array, " edges"],
    constants: tuple[float, ...],
) -> Float[Array, " edges"]:
    r"""Return :math:`1 / (1 + a x^q / (1 + x^{q-p}))` with x = r / r_0.

    The transform of ACEpotentials.jl (doi:10.1063/5.0158783); r_0 is half the sum of the two
    covalent radii, ``radius`` that sum.
    """
    a, q, p = constants
    x = 2 * distance / radius
    return 1 / (1 + a * x**q / (1 + x ** (q - p)))


def soft_transform(
    distance: Float[Array, " edges"],
    radius: Float[Array, " edges"],
    constants: tuple[float, ...],
) -> Float[Array, " edges"]:
    r"""Return a distance that stays above three quarters of ``radius``, the sum of covalent radii.

    .. math:: p_0 + \tfrac{1}{2} (r - p_0) (1 + \tanh(\alpha (r - m) / (p_1 - p_0)))

    with p_0 and p_1 three quarters and four thirds of the radius and m their mean (mace-torch).
    """
    (alpha,) = constants
    low, high = 3 / 4 * radius, 4 / 3 * radius
    switch = 0.5 * (1 + jnp.tanh(alpha / (high - low) * (distance - 0.5 * (low + high))))
    return low + (distance - low) * switch


def zbl_energy(
    distance: Float[Array, " edges"],
    numbers: tuple[Float[Array, " edges"], Float[Array, " edges"]],
    radius: Float[Array, " edges"],
    exponent: float,
    constants: tuple[float, ...],
) -> Float[Array, " edges"]:
    r"""Return the Ziegler-Biersack-Littmark repulsion (eV) of a pair of atoms.

    .. math:: \frac{e^2}{4\pi\epsilon_0} \frac{Z_1 Z_2}{r} \sum_k c_k e^{-d_k r / a},
              \quad a = \frac{0.529 f}{Z_1^s + Z_2^s}

    times the envelope that ends at ``radius``, the sum of the covalent radii; with mace-torch's
    digits, e²/4πε₀ = 14.3996 eV·Å.
    """
    *coefficients, power, prefactor = constants
    z_1, z_2 = numbers
    length = prefactor * 0.529 / (z_1**power + z_2**power)
    x = distance / length
    decays = (3.2, 0.9423, 0.4028, 0.2016)
    screening = sum(c * jnp.exp(-d * x) for c, d in zip(coefficients, decays, strict=True))
    energy = 14.3996 * z_1 * z_2 / distance * screening
    return energy * polynomial_envelope(distance, radius, exponent)


def screened_repulsion(
    distance: Float[Array, " edges"], numbers: tuple[Float[Array, " edges"], Float[Array, " edges"]]
) -> Float[Array, " edges"]:
    r"""Return the Ziegler-Biersack-Littmark repulsion (eV) with the digits of LAMMPS.

    As :func:`zbl_energy` without an envelope; a = 0.4685 Å / (Z_1^0.23 + Z_2^0.23).
    """
    z_1, z_2 = numbers
    x = distance * (z_1**0.23 + z_2**0.23) / 0.46850
    terms = ((0.02817, 0.20162), (0.28022, 0.40290), (0.50986, 0.94229), (0.18175, 3.19980))
    screening = sum(c * jnp.exp(-d * x) for c, d in terms)
    return 14.399645 * z_1 * z_2 / distance * screening

"""Irreducible representations of O(3) by name, without the imports of e3nn-jax.

Names and order are e3nn's: ``"1o"`` is of degree 1 and odd, and irreps of one degree stand with
the parity of the harmonics first. A potential whose programs are kept on disk needs no more than
this, and e3nn-jax brings SymPy and scipy.signal: a third of all imports of a command.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from math import factorial
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray


class Irrep(NamedTuple):
    """An irrep of O(3)."""

    degree: int
    parity: int  # 1 even, -1 odd

    @property
    def dim(self) -> int:
        """Number of components, 2l+1."""
        return 2 * self.degree + 1

    @property
    def order(self) -> tuple[int, int]:
        """What irreps are sorted by."""
        return self.degree, -self.parity * (-1) ** self.degree

    def __str__(self) -> str:
        return f"{self.degree}{'e' if self.parity > 0 else 'o'}"


def parse_irrep(name: str) -> Irrep:
    """Return the irrep of a name such as ``"2e"``; raises ValueError for anything else."""
    number, letter = name.strip()[:-1], name.strip()[-1:]
    if not (number.isdecimal() and letter in ("e", "o", "y")):
        raise ValueError(f"no irrep: {name!r}")
    degree = int(number)
    parity = {"e": 1, "o": -1, "y": (-1) ** degree}[letter]  # y: as the harmonics
    return Irrep(degree, parity)


def parse_irreps(text: str) -> dict[str, int]:
    """Return the channels of every irrep of a list such as ``"64x0e + 32x1o"``, in e3nn's order.

    Raises
    ------
    ValueError
        Not such a list.

    """
    channels: dict[Irrep, int] = {}
    for term in text.split("+") if text.strip() else ():
        count, cross, name = term.rpartition("x")
        irrep = parse_irrep(name)
        if cross and not count.strip().isdecimal():
            raise ValueError(f"no number of channels: {term!r}")
        channels[irrep] = channels.get(irrep, 0) + (int(count) if cross else 1)
    present = sorted((irrep for irrep, count in channels.items() if count), key=lambda x: x.order)
    return {str(irrep): channels[irrep] for irrep in present}


def format_irreps(channels: Mapping[str, int]) -> str:
    """Return the list of irreps that :func:`parse_irreps` reads."""
    return "+".join(f"{count}x{key}" for key, count in channels.items())


def products(left: Irrep, right: Irrep) -> Iterator[Irrep]:
    """Yield the irreps that the product of two contains."""
    for degree in range(abs(left.degree - right.degree), left.degree + right.degree + 1):
        yield Irrep(degree, left.parity * right.parity)


@functools.cache
def coupling_with_vector(degree: int) -> Float[ndarray, "3 c m"]:
    """Return orthonormal coefficients that couple degrees 1 and l-1 to l >= 1, as e3nn's do.

    Condon and Shortley's for the largest degree two irreps couple to,

        <1 k, l-1 m | l k+m>² = 2! (2l-2)! (l+k+m)! (l-k-m)!
                                / [ (2l)! (1+k)! (1-k)! (l-1+m)! (l-1-m)! ],

    taken from complex to real harmonics.
    """
    lower = degree - 1
    table = np.zeros((3, 2 * lower + 1, 2 * degree + 1))
    whole = 2 * factorial(2 * lower) / factorial(2 * degree)

    def both(n: int, m: int) -> int:
        return factorial(n + m) * factorial(n - m)

    for k in (-1, 0, 1):
        for m in range(-lower, lower + 1):
            above = factorial(degree + k + m) * factorial(degree - k - m)
            below = (
                factorial(1 + k) * factorial(1 - k) * factorial(lower + m) * factorial(lower - m)
            )
            table[1 + k, lower + m, degree + k + m] = np.sqrt(whole * above / below)
    one, two, three = (_complex_of_real(n) for n in (1, lower, degree))
    return np.einsum("ka,mb,nc,kmn->abc", one, two, three.conj(), table).real


def _complex_of_real(degree: int) -> Complex[ndarray, "m m"]:
    """Return the complex harmonics in terms of the real ones; (-i)^l makes couplings real."""
    matrix = np.zeros((2 * degree + 1,) * 2, complex)
    matrix[degree, degree] = 1
    for m in range(1, degree + 1):
        up, down, sign = degree + m, degree - m, (-1) ** m
        matrix[down, [up, down]] = np.array([1, -1j]) / np.sqrt(2)
        matrix[up, [up, down]] = sign * np.array([1, 1j]) / np.sqrt(2)
    return (-1j) ** degree * matrix

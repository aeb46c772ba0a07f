"""Words that stand for an element: symbols, isotopes of hydrogen, labels of other programs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from jaxtyping import Float
from numpy import ndarray

# Masses in amu (AME2020) of the two isotopes that have symbols of their own.
ISOTOPES = {"D": 2.01410177812, "T": 3.0160492779}
# A mass in a file this close (amu) to the standard one of its element says nothing of isotopes.
_SAME_MASS = 1e-6


def element_of(word: str) -> str | None:
    """Return the element, or D or T, that a word begins with: ``Ti_sv``, ``Fe2+``, ``si``, ``D1``.

    At most two letters may stand before the first other character.
    """
    match = re.match(r"([A-Za-z]{1,2})(?![A-Za-z])", word)
    symbol = match.group(1).capitalize() if match else ""
    return symbol if is_symbol(symbol) else None


def is_symbol(word: str) -> bool:
    """Tell whether a word is the symbol of an element, D or T; ASE's X is none."""
    return word in ISOTOPES or atomic_numbers.get(word, 0) > 0


def element(symbol: str) -> str:
    """Return the element of a symbol, hydrogen for D and T."""
    return "H" if symbol in ISOTOPES else symbol


def make_atoms(symbols: Sequence[str], **arguments: Any) -> Atoms:
    """Return ``Atoms`` with D and T as hydrogen of their own masses."""
    masses = [ISOTOPES.get(symbol) for symbol in symbols]
    if any(mass is not None for mass in masses):
        arguments["masses"] = masses
    return Atoms([element(symbol) for symbol in symbols], **arguments)


def unusual_masses(atoms: Atoms) -> Float[ndarray, " atoms"]:
    """Return the masses (amu) that the user gave to atoms; NaN stands for phonopy's own mass.

    ASE gives every atom a mass as soon as one has its own, and its standard masses are not
    phonopy's. So an element counts as given no mass if all its atoms have ASE's standard mass.
    Deuterium and tritium do not make the other hydrogen atoms count as given.
    """
    masses = atoms.get_masses()
    standard = np.abs(masses - atomic_masses[atoms.numbers]) < _SAME_MASS
    isotopes = np.isin(masses, list(ISOTOPES.values()))
    has_own_mass = np.isin(atoms.numbers, atoms.numbers[~standard & ~isotopes])
    return np.where(has_own_mass | isotopes, masses, np.nan)

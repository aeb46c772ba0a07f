"""Irreducible representations and selection rules of normal modes.

A multiplet is as many modes as its irrep has dimensions. Modes are labelled one by one, by the
projectors onto irreps; frequencies decide neither irreps nor degeneracies.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.molecules.characters import CharacterTable
from phonopy_equivariant.molecules.modes import NormalModes
from phonopy_equivariant.molecules.operations import Operation

# Modes closer than this may be any combination of each other: noise of a Hessian mixes them.
MIXING = 0.5  # cm⁻¹
# A mode belongs to an irrep if at least this part of it does; less means broken symmetry.
_PURITY = 0.9


class Multiplet(NamedTuple):
    """Modes of one frequency that belong to one irrep."""

    modes: tuple[int, ...]  # indices into the normal modes
    frequency: float  # cm⁻¹, mean
    splitting: float  # cm⁻¹, largest minus smallest frequency: zero in exact symmetry
    irrep: str
    infrared: bool
    raman: bool
    purity: float  # smallest part of a mode that belongs to the irrep: one in exact symmetry

    @property
    def degeneracy(self) -> int:
        """Number of modes."""
        return len(self.modes)


def assign_irreps(
    modes: NormalModes, table: CharacterTable
) -> tuple[NormalModes, tuple[Multiplet, ...]] | None:
    """Return the modes, adapted to symmetry, and their multiplets by rising frequency.

    Modes within 0.5 cm⁻¹ of the next are combined so that each belongs to one irrep, which
    separates accidental degeneracies; each then has the mean frequency of what it consists of.

    None where the modes do not follow the symmetry: one belongs to its irrep by less than 90 %,
    or an irrep of several dimensions lacks a partner.
    """
    if not len(modes.frequencies):
        return modes, ()
    projectors = irrep_projectors(table)
    modes = _adapted(modes, projectors)
    flat = modes.vectors.reshape(len(modes.vectors), -1)
    weights = np.einsum("ka,iab,kb->ki", flat, projectors, flat)
    irreps = weights.argmax(axis=1)
    multiplets = []
    for irrep, dimension in enumerate(table.dimensions):
        members = np.flatnonzero(irreps == irrep)
        purity = weights[members, irrep].min(initial=1.0)
        if len(members) % dimension or purity < _PURITY:
            return None
        for k in range(0, len(members), dimension):
            multiplets.append(_multiplet(members[k : k + dimension], irrep, modes, weights, table))
    return modes, tuple(sorted(multiplets, key=lambda multiplet: multiplet.modes))


def irrep_projectors(table: CharacterTable) -> Float[ndarray, "irreps coordinates coordinates"]:
    """Return the projectors of mass-weighted displacements onto every irrep.

    P_i = d_i / (n_i |G|) Σ_g χ_i(g) Γ(g), with n_i = 2 for a pair of complex conjugate irreps and
    1 for the others.
    """
    representation = np.array([displacement_matrix(o) for o in table.operations])
    norms = (table.characters**2).mean(axis=1)
    factors = table.dimensions / norms / len(table.operations)
    return np.einsum("i,ig,gab->iab", factors, table.characters, representation, optimize=True)


def displacement_matrix(operation: Operation) -> Float[ndarray, "coordinates coordinates"]:
    """Return Γ(g): the displacement of atom i, rotated, becomes that of the atom it moves to."""
    count = len(operation.permutation)
    places = np.zeros((count, count))
    places[operation.permutation, np.arange(count)] = 1.0
    return np.kron(places, operation.matrix)


def reduction(table: CharacterTable, multiplets: tuple[Multiplet, ...]) -> str:
    """Return the vibrational representation as text, say A1 + E + 2 T2."""
    counts = {label: sum(m.irrep == label for m in multiplets) for label in table.labels}
    terms = [f"{n} {label}" if n > 1 else label for label, n in counts.items() if n]
    return " + ".join(terms) or "none"


def _adapted(modes: NormalModes, projectors: ndarray) -> NormalModes:
    """Return modes of pure irreps: modes of nearly one frequency are combined to get them."""
    vectors = modes.vectors.reshape(len(modes.vectors), -1).copy()
    frequencies = modes.frequencies.copy()
    # one number per irrep: eigenvectors of this matrix among degenerate modes have a pure irrep
    marker = np.einsum("i,iab->ab", np.arange(len(projectors), dtype=float), projectors)
    gaps = np.flatnonzero(np.diff(frequencies) > MIXING) + 1
    for group in np.split(np.arange(len(vectors)), gaps):
        if len(group) > 1:
            block = vectors[group] @ marker @ vectors[group].T
            # within an irrep the order of frequencies decides: it shifts the marker by less than 1
            block += np.diag(0.1 * np.arange(len(group)) / len(group))
            mixing = np.linalg.eigh((block + block.T) / 2)[1].T
            mixed = mixing**2 @ frequencies[group]
            order = np.argsort(mixed, kind="stable")
            vectors[group] = (mixing @ vectors[group])[order]
            frequencies[group] = mixed[order]
    return modes._replace(vectors=vectors.reshape(modes.vectors.shape), frequencies=frequencies)


def _multiplet(
    members: ndarray, irrep: int, modes: NormalModes, weights: ndarray, table: CharacterTable
) -> Multiplet:
    frequencies = modes.frequencies[members]
    return Multiplet(
        tuple(members.tolist()),
        float(frequencies.mean()),
        float(np.ptp(frequencies)),
        table.labels[irrep],
        bool(table.infrared[irrep]),
        bool(table.raman[irrep]),
        float(weights[members, irrep].min()),
    )

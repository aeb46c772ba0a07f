"""Which symmetry the modes of a molecule follow, where the atoms are slightly off it.

A structure that was relaxed to 0.01 eV/Å has its symmetry within some 0.01 Å. Modes of different
irreps that lie close together then mix, and degenerate ones split. Frequencies never depend on
whether the symmetry is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.molecules.characters import CharacterTable, character_table
from phonopy_equivariant.molecules.modes import NormalModes, center_of_mass, normal_modes
from phonopy_equivariant.molecules.multiplets import Multiplet, assign_irreps, displacement_matrix
from phonopy_equivariant.molecules.operations import (
    Operation,
    Symmetry,
    group_name,
    nested_groups,
)

# A Hessian is symmetrised if that changes no frequency by more than this (cm⁻¹): some times what
# BFGS leaves at 0.01 eV/Å (0.3 to 1.3 in ten molecules), less than a wrong group costs (4 to 7).
_CHANGE = 2.0


class FollowedSymmetry(NamedTuple):
    """Modes and the group by which they have irreps."""

    modes: NormalModes
    group: str  # Schoenflies symbol, as in Symmetry
    table: CharacterTable
    multiplets: tuple[Multiplet, ...]
    symmetrised: float  # cm⁻¹, what symmetrising the Hessian changed at most; zero: as computed


def follow_symmetry(
    positions: Float[ndarray, "atoms 3"],
    masses: Float[ndarray, " atoms"],
    hessian: Float[ndarray, "atoms 3 atoms 3"],
    symmetry: Symmetry,
) -> FollowedSymmetry:
    """Return the modes with irreps of the largest group that they follow.

    Of groups from the symmetry of the atoms down to C1, that of the first is taken whose irreps
    the modes of the Hessian belong to, or which changes no frequency by more than 2 cm⁻¹ when the
    Hessian is symmetrised, H → Σ_g Γ(g) H Γ(g)ᵀ / |G|. The modes are then those of the symmetrised
    Hessian: an error of the structure that breaks the symmetry enters them in second order only.

    Parameters
    ----------
    positions, masses
        Å, amu; of two atoms or more.
    hessian
        eV/Å².
    symmetry
        Of the atoms, from :func:`find_symmetry`.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`normal_modes`.

    """
    computed = normal_modes(positions, masses, hessian)
    centred = positions - center_of_mass(positions, masses)
    for group in _groups(symmetry, masses, hessian):
        try:
            table = character_table(group, centred, masses)
        except PhonopyEquivariantError:  # posym has none
            continue
        assigned = assign_irreps(computed, table)
        change = 0.0
        if assigned is None:
            modes = _symmetrised_modes(centred, masses, hessian, table.operations)
            change = _change(computed, modes)
            if change < _CHANGE:
                assigned = assign_irreps(modes._replace(external=computed.external), table)
        if assigned is not None:
            return FollowedSymmetry(assigned[0], group.group, table, assigned[1], change)
    raise AssertionError("every mode follows C1")


def _groups(symmetry: Symmetry, masses: ndarray, hessian: ndarray) -> Iterator[Symmetry]:
    """Yield the symmetry and ever smaller groups of the operations that the Hessian keeps best."""
    yield symmetry
    if symmetry.group == "Dinfh":
        yield symmetry._replace(group="Cinfv")
    identity = Operation(np.eye(3), np.arange(len(masses)), 0.0)
    roots = np.repeat(np.sqrt(masses), 3)
    dynamical = hessian.reshape(len(roots), len(roots)) / np.outer(roots, roots)
    ranked = []
    for operation in symmetry.operations:
        turned = _transformed(dynamical, operation)
        ranked.append(operation._replace(deviation=float(np.linalg.norm(turned - dynamical))))
    for operations in (*nested_groups(ranked), (identity,)):
        if len(operations) < max(2, len(symmetry.operations)):
            yield symmetry._replace(group=group_name(operations), operations=operations)


def _symmetrised_modes(
    centred: ndarray, masses: ndarray, hessian: ndarray, operations: tuple[Operation, ...]
) -> NormalModes:
    """Return the modes of positions and Hessian averaged over a group."""
    flat = hessian.reshape(centred.size, centred.size)
    positions, matrix = np.zeros_like(centred), np.zeros_like(flat)
    for operation in operations:
        positions[operation.permutation] += centred @ operation.matrix.T / len(operations)
        matrix += _transformed(flat, operation) / len(operations)
    return normal_modes(positions, masses, matrix.reshape(hessian.shape))


def _transformed(matrix: ndarray, operation: Operation) -> ndarray:
    """Return Γ M Γᵀ."""
    representation = displacement_matrix(operation)
    return np.asarray(representation @ matrix @ representation.T)


def _change(modes: NormalModes, symmetrised: NormalModes) -> float:
    """Return the largest change of a frequency, cm⁻¹."""
    if len(modes.frequencies) != len(symmetrised.frequencies):  # only one of them is linear
        return np.inf
    return float(np.abs(modes.frequencies - symmetrised.frequencies).max(initial=0.0))

"""Perturbed copies of a crystal, as training structures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase.geometry import complete_cell

from phonopy_equivariant.data.record import Record
from phonopy_equivariant.defaults import PERTURBED_CELL, PERTURBED_POSITIONS
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.structure import Structure, as_structure, to_ase

if TYPE_CHECKING:
    from phonopy_equivariant.potential import Potential


@dataclasses.dataclass(frozen=True)
class Perturbation:
    """How a crystal is perturbed; the widths are those of Fang et al., arXiv:2403.11347.

    Parameters
    ----------
    positions
        Standard deviation of each Cartesian component of an atom's displacement (Å).
    cell
        Standard deviation of each component of the cell vectors (Å); atoms move along.
    repeat
        Copies of the cell along its periodic vectors, made before it is perturbed.
    seed
        Of the random numbers.

    """

    positions: float = PERTURBED_POSITIONS
    cell: float = PERTURBED_CELL
    repeat: tuple[int, int, int] = (1, 1, 1)
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.positions, self.cell) < 0 or min(self.repeat) < 1:
            raise PhonopyEquivariantError(
                "A perturbation needs widths that are not negative and one copy or more."
            )


class Share(NamedTuple):
    """Copies of one kind that a recipe makes of each crystal, for training and for validation."""

    positions: float
    cell: float
    repeat: int
    training: int
    validation: int


# "table-1" is Table 1 of the supplement of Fang et al., arXiv:2403.11347.
RECIPES: Mapping[str, tuple[Share, ...]] = {
    "table-1": (
        Share(0.0, 0.0, 1, 1, 0),
        Share(PERTURBED_POSITIONS, 0.0, 1, 2, 1),
        Share(PERTURBED_POSITIONS, PERTURBED_CELL, 1, 2, 1),
        Share(PERTURBED_POSITIONS, 0.0, 2, 2, 1),
        Share(PERTURBED_POSITIONS, PERTURBED_CELL, 2, 2, 1),
    )
}


def shares_of(recipe: str) -> tuple[Share, ...]:
    """Return what a recipe makes of each crystal.

    Raises
    ------
    PhonopyEquivariantError
        There is no recipe of this name.

    """
    if recipe not in RECIPES:
        raise PhonopyEquivariantError(f"recipe={recipe}: there is {', '.join(RECIPES)}.")
    return RECIPES[recipe]


def recipe_records(
    structure: Structure,
    recipe: str,
    seed: int = 0,
    potential: Potential | None = None,
    source: str = "",
) -> Iterator[tuple[str, Record]]:
    """Yield what a recipe makes of one crystal, each record with its part, "train" or "valid".

    Parameters
    ----------
    structure
        The crystal at rest.
    recipe
        A key of ``RECIPES``. ``table-1``: the crystal at rest; positions perturbed, and positions
        and cell perturbed, of the cell and of 2×2×2 cells, two of each for training and one for
        validation; widths 0.1 and 0.05 Å.
    seed
        Of the random numbers. Give another one for each crystal.
    potential, source
        As in :func:`perturbed_records`.

    Raises
    ------
    PhonopyEquivariantError
        There is no recipe of this name.

    """
    for number, share in enumerate(shares_of(recipe)):
        own_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        repeat = (share.repeat,) * 3
        options = Perturbation(share.positions, share.cell, repeat, own_seed)
        count, name = share.training + share.validation, f"{source}:{number}"
        for k, record in enumerate(perturbed_records(structure, options, count, potential, name)):
            yield "train" if k < share.training else "valid", record


def perturbed(structure: Structure, options: Perturbation, count: int) -> Iterator[Structure]:
    """Yield ``count`` perturbed copies.

    Cell vectors first, L' = L + N(0, σ_cell²) with the fractional positions kept, then positions,
    x' = x + N(0, σ_positions²). Directions that are not periodic keep their cell vector.
    """
    repeat = np.where(structure.pbc, options.repeat, 1)
    start = as_structure(to_ase(structure).repeat(repeat.tolist()))
    rng = np.random.default_rng(options.seed)
    periodic = start.pbc[:, None]
    complete = np.asarray(complete_cell(start.cell * periodic))
    fractions = start.positions @ np.linalg.inv(complete)
    for _ in range(count):
        change = options.cell * rng.standard_normal((3, 3)) * periodic
        moves = options.positions * rng.standard_normal(start.positions.shape)
        positions = fractions @ (complete + change) + moves
        yield start._replace(positions=positions, cell=start.cell + change)


def perturbed_records(
    structure: Structure,
    options: Perturbation,
    count: int,
    potential: Potential | None = None,
    source: str = "",
) -> Iterator[Record]:
    """Yield perturbed copies as records, with energy, forces and stress of a potential if given.

    Parameters
    ----------
    structure, options, count
        As in :func:`perturbed`.
    potential
        Labels the copies; its name becomes the level of theory.
    source
        Named in the records.

    """
    for index, copy in enumerate(perturbed(structure, options, count)):
        place = f"{source}:{index}"
        if potential is None:
            yield Record(copy, source=place)
            continue
        evaluation = potential.evaluate(copy)
        yield Record(
            copy,
            energy=evaluation.energy,
            forces=evaluation.forces,
            stress=evaluation.stress if copy.pbc.all() else None,
            level=potential.name,
            source=place,
        )

"""What laws a potential obeys, and how smooth it is: ``phonopy-equivariant models audit``."""

from __future__ import annotations

import dataclasses

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.spatial.transform import Rotation

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.evaluation.smoothness import (
    Jump,
    bond_derivatives,
    jumps_at,
    unannounced,
)
from phonopy_equivariant.potential import Potential, make_potential
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
from phonopy_equivariant.results import Result
from phonopy_equivariant.structure import Structure, neighbours

# Elements whose bonds are looked at, of those that a potential knows.
TYPICAL = (14, 8, 11, 17, 22, 1, 6)
ELEMENTS = 2
SCAN = np.linspace(1.5, 3.0, 16)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Audit(Result):
    """Laws and smoothness of a potential, measured on five atoms in a cell without symmetry.

    Parameters
    ----------
    model
        Name of the potential.
    parity
        Whether it is made to be invariant under reflections.
    rotation, reflection
        Largest change of a force when the crystal is rotated, or reflected, eV/Å.
    force
        Largest force, eV/Å.
    sum_rule
        Largest sum over a row of the Hessian, eV/Å².
    rounding_force, rounding_hessian
        Largest difference of forces (eV/Å) and of the Hessian (eV/Å²) in single precision.
    jumps
        Of bonds' energies and derivatives at the cutoff and at inner radii.
    smoothness
        For each of them the highest derivative that does not jump.
    unannounced
        Further distances (Å) at which a scan finds jumps of second derivatives.

    """

    model: str
    parity: bool
    rotation: float
    reflection: float
    force: float
    sum_rule: float
    rounding_force: float
    rounding_hessian: float
    jumps: tuple[Jump, ...]
    smoothness: tuple[int, ...]
    unannounced: tuple[float, ...]

    def rows(self) -> list[list[str]]:
        """Return labels and values."""
        symmetry = "rotations and reflections" if self.parity else "rotations alone"
        rows = [
            ["potential", self.model],
            ["made invariant under", symmetry],
            ["rotation", f"forces change by {self.rotation:.1e} of {self.force:.2g} eV/Å"],
            ["reflection", f"forces change by {self.reflection:.1e} eV/Å"],
            ["sum rule residual", f"{self.sum_rule:.1e} eV/Å²"],
            [
                "single precision",
                f"forces {self.rounding_force:.1e} eV/Å, Hessian {self.rounding_hessian:.1e} eV/Å²",
            ],
        ]
        for jump, order in zip(self.jumps, self.smoothness, strict=True):
            pair = "-".join(chemical_symbols[z] for z in jump.pair)
            rows.append([f"{pair} at {jump.radius:g} Å", _smoothness_text(jump, order)])
        found = ", ".join(f"{radius:.2f}" for radius in self.unannounced)
        if found:
            rows.append(["further jumps near", f"{found} Å (second derivative)"])
        return rows


def audit(potential: PotentialLike) -> Audit:
    """Return how a potential obeys symmetry and the sum rule, how smooth it is, and its rounding.

    Parameters
    ----------
    potential
        A potential in double precision, or the name or file of one.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`phonopy_equivariant.load_potential`.

    """
    potential = as_potential(potential)
    numbers = _elements(potential)
    crystal = five_atoms(numbers)
    before = potential.evaluate(crystal).forces
    turn = Rotation.from_rotvec([0.7, -1.1, 0.4]).as_matrix()
    rotation, reflection = (
        float(np.abs(potential.evaluate(_turned(crystal, x)).forces - before @ x.T).max())
        for x in (turn, -turn)
    )
    hessian = lattice_force_constants(potential, crystal, np.zeros((1, 3)))[0].real
    single = make_potential(potential.config, potential.params, "float32", potential.name)
    rounded = lattice_force_constants(single, crystal, np.zeros((1, 3)))[0].real
    jumps, orders, further = _smoothness(potential, numbers)
    return Audit(
        model=potential.name,
        parity=potential.parity,
        rotation=rotation,
        reflection=reflection,
        force=float(np.abs(before).max()),
        sum_rule=float(np.abs(hessian.reshape(len(hessian), -1, 3).sum(axis=1)).max()),
        rounding_force=float(np.abs(single.evaluate(crystal).forces - before).max()),
        rounding_hessian=float(np.abs(rounded - hessian).max()),
        jumps=jumps,
        smoothness=orders,
        unannounced=further,
    )


def _smoothness(
    potential: Potential, numbers: tuple[int, ...]
) -> tuple[tuple[Jump, ...], tuple[int, ...], tuple[float, ...]]:
    """Return jumps at the known radii, the order of smoothness of each, and further radii."""
    jumps: list[Jump] = []
    orders: list[int] = []
    further: set[float] = set()
    for pair in dict.fromkeys([(numbers[0], numbers[-1]), (numbers[0], numbers[0])]):
        kinks = potential.config.kinks(pair)
        radii = tuple(
            sorted({k.radius for k in kinks if k.pair is None or sorted(k.pair) == sorted(pair)})
        )
        scale = np.abs(bond_derivatives(potential, pair, SCAN)).max(axis=0)
        for jump in jumps_at(potential, pair, radii):
            jumps.append(jump)
            orders.append(jump.continuous(scale))
        further |= set(unannounced(potential, pair, radii))
    return tuple(jumps), tuple(orders), tuple(sorted(further))


def _smoothness_text(jump: Jump, order: int) -> str:
    if order == 3:
        return "no jump up to the third derivative"
    names = ("energy", "first derivative", "second derivative", "third derivative")
    unit = f"eV/Å^{order + 1}" if order >= 0 else "eV"
    smooth = f"C{order}" if order >= 0 else "not continuous"
    return f"{smooth}: the {names[order + 1]} jumps by {jump.jumps[order + 1]:.2g} {unit}"


def _elements(potential: Potential) -> tuple[int, ...]:
    known = [z for z in TYPICAL if z in potential.species]
    return tuple(dict.fromkeys([*known, *potential.species]))[:ELEMENTS]


def five_atoms(elements: tuple[int, ...]) -> Structure:
    """Return five atoms without symmetry, the closest at the sum of their covalent radii."""
    numbers: Int[ndarray, "5"] = np.resize(elements, 5)
    cell: Float[ndarray, "3 3"] = np.array([[1.0, 0.0, 0.0], [0.2, 1.1, 0.0], [-0.1, 0.25, 0.9]])
    fractions = np.array(
        [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5], [0.4, 0.6, 0.5]]
    )
    positions = fractions @ cell + np.random.default_rng(0).uniform(-0.03, 0.03, (5, 3))
    crystal = Structure(numbers, positions, cell, np.ones(3, bool))
    i, j, _, distances = neighbours(crystal, 1.2)
    stretch = float(((covalent_radii[numbers[i]] + covalent_radii[numbers[j]]) / distances).max())
    return crystal._replace(positions=stretch * positions, cell=stretch * cell)


def _turned(crystal: Structure, turn: Float[ndarray, "3 3"]) -> Structure:
    return crystal._replace(positions=crystal.positions @ turn.T, cell=crystal.cell @ turn.T)

"""Do energies, forces and stress of a set belong together? Units and signs by statistics.

Between two configurations of a harmonic energy E2 - E1 = -(F1 + F2)/2 · (x2 - x1) exactly, however
far they are apart; with a strain, + V σ:ε. The slope of energy differences on this work is 1 in a
sound set (0.97 to 1.00 in nine published ones of small displacements, 0.79 and 0.67 in two
strongly anharmonic ones, BaTiO3 and KCl).
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, defaultdict

import numpy as np
from ase import units
from numpy import ndarray

from phonopy_equivariant.data.record import Record

# Pairs of configurations looked at, all compositions together; and those they are chosen from.
MAX_PAIRS = 2000
MAX_ROWS = 10 * MAX_PAIRS
# Configurations further apart than this (Å along an axis; strain) are not compared.
MAX_MOVE = 1.0
MAX_STRAIN = 0.1
# A slope within this factor of 1 is no proof of anything: real pairs are anharmonic.
TOLERANCE = 1.75
# Where the fit leaves more of the squared energy differences than this, it says nothing.
MAX_RESIDUAL = 0.36
# Standard error of a slope, relative to it, beyond which it says nothing.
MAX_ERROR = 0.1
# Mean curvature per displaced coordinate, eV/Å²; diamond, the stiffest crystal, has less than 60.
MAX_CURVATURE = 120.0
# energy unit of the data over eV, and what that says
_FACTORS = {
    "kcal/mol": units.mol / units.kcal,
    "kJ/mol": units.mol / units.kJ,
    "hartree": 1 / units.Hartree,
    "rydberg": 1 / units.Rydberg,
    "meV": 1000.0,
}


class WorkTable:
    """What the work of forces and stress between configurations says of units and signs.

    Records are seen once; each is compared with the one before it of the same composition. A set
    whose configurations are far apart, or that has one of each composition, says nothing.
    """

    def __init__(self) -> None:
        self._latest: OrderedDict[object, Record] = OrderedDict()
        self._rows: dict[object, list[tuple[float, ...]]] = defaultdict(list)
        self._count = 0

    def add(self, record: Record) -> None:
        """Take in a sound record of the set's level of theory."""
        if record.forces is None or self._count >= MAX_ROWS:
            return
        key = (record.structure.numbers.tobytes(), record.structure.pbc.tobytes(), record.level)
        previous = self._latest.pop(key, None)
        self._latest[key] = record
        if len(self._latest) > MAX_PAIRS:
            self._latest.popitem(last=False)
        row = None if previous is None else _pair_row(previous, record)
        if row is not None:
            self._rows[key].append(row)
            self._count += 1

    def inconsistencies(self) -> list[str]:
        """Return a line for each inconsistency of energies, forces and stresses."""
        turns = itertools.zip_longest(*self._rows.values())  # every composition has its turn
        rows = (row for row in itertools.chain.from_iterable(turns) if row is not None)
        table = np.array(list(itertools.islice(rows, MAX_PAIRS)), float)
        if len(table) < 3:
            return []
        energy, work, strain, curvature, atoms, has_energy = table.T
        problems: list[str] = []
        on_work, on_strain = _slopes(*table[has_energy > 0, :3].T)
        if on_work is not None:
            problems += _energy_problem(on_work, float(atoms.mean()))
        if on_strain is not None and not problems:
            problems += _stress_problem(on_strain)
        finite = curvature[np.isfinite(curvature)]
        if len(finite) and np.median(finite) > MAX_CURVATURE:
            problems.append(
                f"forces change by {np.median(finite):.0f} eV/Å per Å of displacement, more than "
                "in any solid or molecule: forces are in other units than eV/Å (kcal/mol/Å, "
                "hartree/bohr?), or positions in others than Å"
            )
        return problems


def _pair_row(record_1: Record, record_2: Record) -> tuple[float, ...] | None:
    """Return ΔE, work, V σ:ε, mean curvature, atoms, and whether there are energies."""
    assert record_1.forces is not None and record_2.forces is not None
    structure_1, structure_2 = record_1.structure, record_2.structure
    forces_2 = record_2.forces
    strain = 0.0
    if not structure_1.pbc.any():
        moves, forces_2 = _aligned(record_1, record_2)
    elif structure_1.pbc.all():
        inverse = np.linalg.inv(structure_1.cell)
        deformation = inverse @ structure_2.cell
        mean_cell = (structure_1.cell + structure_2.cell) / 2
        fractions = structure_2.positions @ np.linalg.inv(structure_2.cell)
        fractions = fractions - structure_1.positions @ inverse
        moves = (fractions - np.rint(fractions)) @ mean_cell
        epsilon = (deformation + deformation.T) / 2 - np.eye(3)
        if np.abs(epsilon).max() > MAX_STRAIN:
            return None
        if np.abs(epsilon).max() > 1e-6:
            if record_1.stress is None or record_2.stress is None:
                return None
            volume = (structure_1.volume + structure_2.volume) / 2
            stress = (record_1.stress + record_2.stress) / 2
            strain = float(volume * np.sum(stress * epsilon))
    else:
        return None
    square = float(np.sum(moves**2))
    if np.abs(moves).max() > MAX_MOVE:
        return None
    if square < 1e-8 and strain == 0.0:
        return None
    work = -float(np.sum((record_1.forces + forces_2) / 2 * moves))
    change = -float(np.sum((forces_2 - record_1.forces) * moves))
    has_energy = record_1.energy is not None and record_2.energy is not None
    energy = record_2.energy - record_1.energy if has_energy else 0.0  # type: ignore[operator]
    curvature = change / square if square > 1e-6 and strain == 0.0 else np.nan
    return energy, work, strain, curvature, float(len(structure_1.numbers)), float(has_energy)


def _aligned(record_1: Record, record_2: Record) -> tuple[ndarray, ndarray]:
    """Turn the second molecule onto the first; return displacements and the turned forces."""
    assert record_2.forces is not None
    target, moving = (
        record.structure.positions - record.structure.positions.mean(axis=0)
        for record in (record_1, record_2)
    )
    u, _, vt = np.linalg.svd(moving.T @ target)  # Kabsch, doi:10.1107/S0567739476001873
    turn = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return moving @ turn - target, record_2.forces @ turn


def _slopes(energy: ndarray, work: ndarray, strain: ndarray) -> tuple[float | None, float | None]:
    """Return the least-squares slopes of ΔE on work and on V σ:ε.

    A slope is None if it is not certain: the configurations are too far apart, or the cells
    change too little to matter beside the moves of the atoms.
    """
    columns = np.stack([work, strain], axis=1)
    used = np.flatnonzero(columns.any(axis=0))
    if len(energy) < 3 or not energy.any() or not len(used):
        return None, None
    scale = np.sqrt(np.sum(columns[:, used] ** 2, axis=0))
    scaled = columns[:, used] / scale
    solution, _, rank, _ = np.linalg.lstsq(scaled, energy, rcond=1e-6)
    squared_residual = np.sum((energy - scaled @ solution) ** 2)
    if rank < len(used) or squared_residual > MAX_RESIDUAL * np.sum(energy**2):
        return None, None
    variance = squared_residual / max(len(energy) - len(used), 1)
    errors = np.sqrt(np.diag(np.linalg.inv(scaled.T @ scaled)) * variance)
    slopes: list[float | None] = [None, None]
    for k, value, error, size in zip(used, solution, errors, scale, strict=True):
        if error < MAX_ERROR * abs(value):
            slopes[k] = float(value / size)
    return slopes[0], slopes[1]


def _energy_problem(slope: float, atoms: float) -> list[str]:
    size, sign = abs(slope), np.sign(slope)
    if sign > 0 and 1 / TOLERANCE < size < TOLERANCE:
        return []
    guesses = {f"energies are in {name}, forces in eV/Å": f for name, f in _FACTORS.items()}
    guesses |= {f"forces are in {name}/Å, energies in eV": 1 / f for name, f in _FACTORS.items()}
    guesses["forces are in hartree/bohr, energies in eV"] = units.Hartree / units.Bohr
    guesses["forces are in rydberg/bohr, energies in eV"] = units.Rydberg / units.Bohr
    guesses["forces are per bohr, energies in the same unit"] = 1 / units.Bohr
    guesses["energies are divided by the number of atoms"] = 1 / atoms
    guesses["forces have the wrong sign: they are gradients"] = 1.0
    distances = {text: abs(np.log(size / factor)) for text, factor in guesses.items()}
    best = min(distances, key=lambda text: distances[text])
    cause = (
        f"perhaps {best}" if distances[best] < np.log(1.25) else "units or structures do not match"
    )
    if sign < 0 and "sign" not in cause:
        cause += ", and forces have the wrong sign"
    return [
        f"energies change by {slope:.3g} times the work of the forces between configurations, "
        f"which should be 1: {cause}"
    ]


def _stress_problem(slope: float) -> list[str]:
    size, sign = abs(slope), np.sign(slope)
    if sign > 0 and 1 / TOLERANCE < size < TOLERANCE:
        return []
    guesses = {"GPa": units.GPa, "kbar": 0.1 * units.GPa, "eV/Å³": 1.0}
    distances = {name: abs(np.log(size / factor)) for name, factor in guesses.items()}
    best = min(distances, key=lambda name: distances[name])
    unit = f"perhaps in {best}" if distances[best] < np.log(1.5) else "in an unknown unit"
    turned = ", with the opposite sign (VASP's)" if sign < 0 else ""
    return [
        f"energies change by {slope:.3g} times what the stress says, which should be 1: the "
        f"stress is {unit}{turned}"
    ]

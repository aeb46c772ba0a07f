"""Stochastic self-consistent harmonic approximation: phonopy's ``MLPSSCHA``, one step at a time.

The free energy at a temperature is bounded from above by that of any harmonic crystal plus the mean
of the difference between the potential and the harmonic one. Force constants that minimise the
bound are found by iteration: supercells are displaced as the present force constants say, and new
ones fitted to the forces in them (Errea, Calandra and Mauri, Phys. Rev. B 89, 064302 (2014),
doi:10.1103/PhysRevB.89.064302; van Roekeghem, Carrete and Mingo, Comput. Phys. Commun. 263, 107945
(2021), doi:10.1016/j.cpc.2021.107945). phonopy does each step unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from phonopy import Phonopy
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from phonopy.harmonic.force_constants import full_fc_to_compact_fc
from phonopy.sscha.core import MLPSSCHA
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.phonons.cells import supercell_of_primitive
from phonopy_equivariant.results import Result

# A drift of the free energy by more than so many standard errors is no accident.
_DRIFT = 3.0
# THz below zero from which modes at the q of the supercell are imaginary: statistics, not rounding
_IMAGINARY = 0.05


@runtime_checkable
class Forces(Protocol):
    """What phonopy's ``mlp`` slot takes: :class:`.PhonopyMLP`."""

    def evaluate(self, supercells: Sequence[PhonopyAtoms]) -> tuple[ndarray, ndarray, ndarray]:
        """Return energies, forces and stresses of supercells."""


@dataclasses.dataclass(frozen=True)
class Iteration:
    """One step: a free energy of the force constants it began with, and new force constants.

    Parameters
    ----------
    free_energy, error
        eV per primitive cell, above the crystal at rest, and its standard error.
    harmonic, anharmonic
        Parts of it: of the harmonic crystal, and the mean of the difference of potentials.
    lowest
        Lowest frequency (THz) of the new force constants at the q of the supercell, without the
        translations; negative if imaginary.

    """

    free_energy: float
    error: float
    harmonic: float
    anharmonic: float
    lowest: float


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SelfConsistent(Result):
    """Self-consistent phonons of a crystal at one temperature.

    Free energies and force constants are means over the second half of the iterations.

    Parameters
    ----------
    temperature
        K.
    snapshots
        Displaced supercells of each iteration.
    seed
        Of the random displacements.
    harmonic_lowest
        Lowest frequency (THz) without temperature, from the analytic force constants.
    iterations
        In their order.
    force_constants
        Compact, eV/Å².
    phonon
        phonopy's object with them.

    """

    temperature: float
    snapshots: int
    seed: int
    harmonic_lowest: float
    iterations: tuple[Iteration, ...]
    force_constants: Float[ndarray, "primitive supercell 3 3"]
    phonon: Phonopy

    @property
    def averaged(self) -> tuple[Iteration, ...]:
        """The iterations that means are over."""
        return self.iterations[len(self.iterations) // 2 :]

    @property
    def free_energy(self) -> float:
        """Free energy, eV per primitive cell, above the crystal at rest."""
        return float(np.mean([step.free_energy for step in self.averaged]))

    @property
    def free_energy_error(self) -> float:
        """Standard error of the free energy, eV per primitive cell.

        The larger one of two: from the spread of supercells within iterations, and from the spread
        of iterations, in which the force constants differ too.
        """
        steps = self.averaged
        within = float(np.sqrt(np.sum([step.error**2 for step in steps])) / len(steps))
        if len(steps) < 3:
            return within
        spread = np.std([step.free_energy for step in steps], ddof=1) / np.sqrt(len(steps))
        return max(within, float(spread))

    @property
    def lowest(self) -> float:
        """Lowest frequency (THz) of the force constants at the q of the supercell."""
        return lowest_frequency(self.phonon)

    @property
    def converged(self) -> bool | None:
        """Whether the free energy drifts by less than its error; None with fewer than four steps.

        Compared are the halves of the iterations that means are over.
        """
        steps = self.averaged
        if len(self.iterations) < 4 or len(steps) < 2:
            return None
        halves = steps[: len(steps) // 2], steps[len(steps) // 2 :]
        means = [np.mean([step.free_energy for step in half]) for half in halves]
        variances = [np.sum([s.error**2 for s in half]) / len(half) ** 2 for half in halves]
        return bool(abs(means[1] - means[0]) <= _DRIFT * np.sqrt(np.sum(variances)) + 1e-9)

    def remarks(self) -> list[str]:
        """Return warnings: imaginary modes, a free energy that drifts."""
        remarks = []
        if self.lowest < -_IMAGINARY:
            remarks.append(
                f"imaginary modes remain at {self.temperature:g} K, lowest {self.lowest:.2f} THz: "
                "the crystal is unstable at this temperature, and the free energy leaves these "
                "modes out."
            )
        elif min(step.lowest for step in self.averaged) < -_IMAGINARY:
            remarks.append(
                f"imaginary modes come and go between iterations at {self.temperature:g} K: take "
                "more supercells (snapshots=)."
            )
        if self.converged is False:
            remarks.append(
                f"the free energy at {self.temperature:g} K still drifts by more than its error: "
                "take more iterations=; the calculation goes on where it ended."
            )
        return remarks

    def columns(self) -> list[str]:
        """Return the headings of the table of iterations."""
        return ["ITERATION", "F (meV)", "ERROR", "HARMONIC", "ANHARMONIC", "LOWEST (THz)"]

    def rows(self) -> list[list[str]]:
        """Return a row for each iteration; energies per primitive cell."""
        return [
            [
                str(number + 1),
                f"{1000 * step.free_energy:.4f}",
                f"{1000 * step.error:.4f}",
                f"{1000 * step.harmonic:.4f}",
                f"{1000 * step.anharmonic:.4f}",
                f"{step.lowest:.4f}",
            ]
            for number, step in enumerate(self.iterations)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without force constants."""
        return {
            "temperature": self.temperature,
            "snapshots": self.snapshots,
            "seed": self.seed,
            "free_energy": self.free_energy,
            "free_energy_error": self.free_energy_error,
            "lowest_frequency": self.lowest,
            "harmonic_lowest_frequency": self.harmonic_lowest,
            "converged": self.converged,
            "iterations": [dataclasses.asdict(step) for step in self.iterations],
        }


def next_iteration(
    phonon: Phonopy,
    forces: Forces,
    temperature: float,
    snapshots: int,
    seed: Sequence[int],
    mesh: float | Sequence[int],
) -> tuple[Iteration, Float[ndarray, "primitive supercell 3 3"]]:
    """Return one step from the force constants of ``phonon``, and the new compact force constants.

    Parameters
    ----------
    phonon
        With force constants; it is not changed.
    forces
        Energies and forces of supercells.
    temperature
        K.
    snapshots
        Number of displaced supercells.
    seed
        Numbers that the random displacements follow from, others in each step.
    mesh
        phonopy's mesh for the harmonic part of the free energy.

    Raises
    ------
    PhonopyEquivariantError
        phonopy cannot fit force constants to so few supercells.

    """
    number = int(np.random.SeedSequence(list(seed)).generate_state(1)[0])
    step = MLPSSCHA(
        phonon,
        forces,  # type: ignore[arg-type]  # phonopy's own class is one of such
        temperature=temperature,
        number_of_snapshots=snapshots,
        max_iterations=1,
        mesh=mesh,
        random_seed=number,
    )
    try:
        step.run()
    except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
        raise PhonopyEquivariantError(
            f"phonopy's self-consistent step fails ({reason_of(error)}); take more supercells "
            "(snapshots=)."
        ) from error
    energies = step.history[-1]
    compact = full_fc_to_compact_fc(step.phonopy.primitive, step.force_constants)
    iteration = Iteration(
        energies.free_energy,
        energies.free_energy_error,
        energies.harmonic,
        energies.anharmonic,
        lowest_frequency(step.phonopy),
    )
    return iteration, np.asarray(compact)


def lowest_frequency(phonon: Phonopy) -> float:
    """Return the lowest frequency (THz) at the q of the supercell, without the translations."""
    phonon.run_qpoints(get_commensurate_points(supercell_of_primitive(phonon)))
    result: Any = phonon.qpoints
    frequencies = np.array(result.frequencies)
    gamma = int(np.abs(result.qpoints).sum(axis=1).argmin())
    acoustic = np.abs(frequencies[gamma]).argsort()[:3]
    frequencies[gamma, acoustic] = np.inf
    return float(frequencies.min())

"""How far the phonons of one crystal are from reference phonons of the same crystal.

The error of the dynamical matrix is that of arXiv:2403.11347, the mean over q of
‖D(q) - D_ref(q)‖ / ‖D_ref(q)‖ with Frobenius norms, here at the q of :data:`MATRIX_QPOINTS`. They
lie off Γ, so that acoustic modes, which vanish there on both sides, do not count.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray
from phonopy import Phonopy
from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.phonons.cells import masses_break_symmetry
from phonopy_equivariant.results import Result

# half of a 2×2×2 grid off Γ: -q has the conjugate matrix
MATRIX_QPOINTS = np.array([[x, y, 0.25] for x in (0.25, 0.75) for y in (0.25, 0.75)])
# THz; a mode below minus this is imaginary
IMAGINARY = 1e-3
# a crystal whose lowest frequency (THz) is above this counts as stable: acoustic modes near Γ are
# off by as much in interpolated force constants
STABLE = -0.05
DOS_POINTS = 501
BAND_POINTS = 51


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MeshPhonons(Result):
    """Phonons of one set of force constants on a mesh.

    Parameters
    ----------
    frequencies
        THz, ascending at each irreducible q; imaginary ones negative.
    weights
        Of the irreducible q.
    dos
        States per THz and primitive cell, on the grid of the comparison.
    free_energy, entropy, heat_capacity
        kJ/mol, J/K/mol, J/K/mol of primitive cells; imaginary modes and the acoustic ones at Γ are
        left out.

    """

    frequencies: Float[ndarray, "q modes"]
    weights: ndarray
    dos: Float[ndarray, " grid"]
    free_energy: float
    entropy: float
    heat_capacity: float

    @property
    def highest(self) -> float:
        """Highest frequency (THz)."""
        return float(self.frequencies.max())

    @property
    def lowest(self) -> float:
        """Lowest frequency (THz)."""
        return float(self.frequencies.min())

    @property
    def mean(self) -> float:
        """Mean frequency over the zone (THz)."""
        return float(np.average(self.frequencies.mean(axis=1), weights=self.weights))

    @property
    def imaginary(self) -> float:
        """Share of the modes that are imaginary."""
        shares = (self.frequencies < -IMAGINARY).mean(axis=1)
        return float(np.average(shares, weights=self.weights))

    @property
    def stable(self) -> bool:
        """Whether no frequency of the mesh is below :data:`STABLE`."""
        return self.lowest > STABLE


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Bands(Result):
    """Bands of reference and model along one path."""

    distances: tuple[ndarray, ...]  # of the points of each segment
    reference: tuple[ndarray, ...]  # (points, modes) THz of each segment
    predicted: tuple[ndarray, ...]
    labels: tuple[str, ...]  # at the ends of the segments
    connections: tuple[bool, ...]  # whether the next segment goes on where one ends


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Comparison(Result):
    """Phonons of one crystal: reference beside model.

    Parameters
    ----------
    name, model, formula
        Of the reference, of the potential, of the primitive cell.
    atoms, supercell
        Numbers of atoms of the primitive cell and of the supercell.
    reference, predicted
        Phonons on the mesh.
    grid
        Frequencies (THz) of both densities of states.
    matrix_errors
        ‖D(q) - D_ref(q)‖ / ‖D_ref(q)‖ at each of :data:`MATRIX_QPOINTS`.
    residual_force, residual_stress
        Of the model at the structure that was computed (eV/Å, GPa).
    seconds
        The model's force constants took.
    bands
        Along seekpath's path, if they were asked for.

    """

    name: str
    model: str
    formula: str
    atoms: int
    supercell: int
    reference: MeshPhonons
    predicted: MeshPhonons
    grid: Float[ndarray, " grid"]
    matrix_errors: Float[ndarray, " q"]
    residual_force: float
    residual_stress: float
    seconds: float
    bands: Bands | None = None

    @property
    def matrix_error(self) -> float:
        """Mean relative error of D(q)."""
        return float(self.matrix_errors.mean())

    @property
    def frequency_error(self) -> float:
        """Mean |difference of frequencies| over the zone (THz), modes matched in order."""
        differences = np.abs(self.predicted.frequencies - self.reference.frequencies).mean(axis=1)
        return float(np.average(differences, weights=self.reference.weights))

    @property
    def dos_overlap(self) -> float:
        """∫ min(g, g_ref) / ∫ g_ref."""
        common = np.trapezoid(np.minimum(self.reference.dos, self.predicted.dos), self.grid)
        return float(common / np.trapezoid(self.reference.dos, self.grid))

    @property
    def finite(self) -> bool:
        """Whether all that is compared is a number."""
        sides = (self.reference, self.predicted)
        thermal = [(x.free_energy, x.entropy, x.heat_capacity) for x in sides]
        frequencies = all(np.isfinite(x.frequencies).all() for x in sides)
        return frequencies and bool(np.isfinite([*self.matrix_errors, *np.ravel(thermal)]).all())

    def errors(self) -> dict[str, float]:
        """Return all errors, model minus reference where a sign makes sense; thermal per atom."""
        sides = self.predicted, self.reference
        highest, lowest, mean, free_energy, entropy, heat_capacity = (
            getattr(sides[0], key) - getattr(sides[1], key)
            for key in ("highest", "lowest", "mean", "free_energy", "entropy", "heat_capacity")
        )
        return {
            "matrix": self.matrix_error,
            "frequencies": self.frequency_error,
            "highest": highest,
            "highest_relative": highest / self.reference.highest,
            "lowest": lowest,
            "mean": mean,
            "free_energy": free_energy / self.atoms,
            "entropy": entropy / self.atoms,
            "heat_capacity": heat_capacity / self.atoms,
            "dos_overlap": self.dos_overlap,
        }


def mesh_phonons(
    phonons: tuple[Any, Any], mesh: Any, temperature: float
) -> tuple[Float[ndarray, " grid"], tuple[MeshPhonons, MeshPhonons]]:
    """Return a grid of frequencies, and two ``Phonopy``, reference and model, on one mesh.

    Raises
    ------
    PhonopyEquivariantError
        Frequencies that are not numbers, or that are all the same.

    """
    symmetric = not any(masses_break_symmetry(phonon) for phonon in phonons)
    for phonon in phonons:  # a shift may break the symmetry
        phonon.run_mesh(mesh, is_gamma_center=True, is_mesh_symmetry=symmetric)
    frequencies = np.concatenate([np.ravel(phonon.mesh.frequencies) for phonon in phonons])
    top, bottom = frequencies.max(), frequencies.min()
    if not np.isfinite(frequencies).all():
        raise PhonopyEquivariantError("frequencies that are not numbers")
    if top == bottom:
        raise PhonopyEquivariantError("all frequencies are the same, no force acts")
    grid = np.linspace(bottom - 0.02 * top, 1.02 * top, DOS_POINTS)
    reference, predicted = (_harmonic(phonon, grid, temperature) for phonon in phonons)
    return grid, (reference, predicted)


def _harmonic(phonon: Any, grid: ndarray, temperature: float) -> MeshPhonons:
    """Return density of states and thermal properties; the mesh has been run."""
    phonon.run_total_dos(
        freq_min=grid[0], freq_max=grid[-1], freq_pitch=(grid[-1] - grid[0]) / (len(grid) - 1)
    )
    # a cutoff of 0 THz leaves imaginary modes out; the acoustic ones at Γ are rounding
    phonon.run_thermal_properties(
        temperatures=[temperature], cutoff_frequency=0.0, exclude_gamma_acoustic=True
    )
    thermal = phonon.thermal_properties
    return MeshPhonons(
        np.array(phonon.mesh.frequencies),
        np.array(phonon.mesh.weights),
        np.interp(grid, phonon.total_dos.frequency_points, phonon.total_dos.dos),
        float(thermal.free_energy[0]),
        float(thermal.entropy[0]),
        float(thermal.heat_capacity[0]),
    )


def matrix_errors(
    reference: Phonopy, predicted: Phonopy, qpoints: Float[ndarray, "q 3"] = MATRIX_QPOINTS
) -> Float[ndarray, " q"]:
    """Return ‖D(q) - D_ref(q)‖ / ‖D_ref(q)‖ at each q, mass-weighted, Frobenius norms."""
    return relative_errors(*(_matrices(phonon, qpoints) for phonon in (reference, predicted)))


def relative_errors(
    reference: Complex[ndarray, "q modes modes"], predicted: Complex[ndarray, "q modes modes"]
) -> Float[ndarray, " q"]:
    """Return ‖D(q) - D_ref(q)‖ / ‖D_ref(q)‖ of matrices that are there."""
    norms = np.linalg.norm(reference, axis=(1, 2))
    return np.asarray(np.linalg.norm(predicted - reference, axis=(1, 2)) / norms)


def _matrices(phonon: Any, qpoints: ndarray) -> ndarray:
    phonon.run_qpoints(qpoints, with_dynamical_matrices=True)
    return np.asarray(phonon.qpoints.dynamical_matrices)


def compared_bands(reference: Phonopy, predicted: Phonopy) -> Bands:
    """Return the bands of both along seekpath's path of the reference's primitive cell."""
    paths, labels, connections = get_band_qpoints_by_seekpath(reference.primitive, BAND_POINTS)
    sides: list[Any] = []
    for phonon in (reference, predicted):
        phonon.run_band_structure(paths, path_connections=connections, labels=labels)
        sides.append(phonon.band_structure)
    return Bands(
        tuple(np.array(x) for x in sides[0].distances),
        tuple(np.array(x) for x in sides[0].frequencies),
        tuple(np.array(x) for x in sides[1].frequencies),
        tuple(labels),
        tuple(bool(x) for x in connections),
    )

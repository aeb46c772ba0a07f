"""Modes of a crystal at Γ: irreps, infrared and Raman activity, through phonopy's irreps."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from ase import units
from jaxtyping import Float
from numpy import ndarray
from phonopy import Phonopy
from phonopy.phonon.irreps import IrReps
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.symmetry import Symmetry

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.phonons.cells import kinds_of_atoms, masses_break_symmetry
from phonopy_equivariant.response.dipoles import dipole_gradients
from phonopy_equivariant.response.symmetry.operations import operations
from phonopy_equivariant.results import Result, plain
from phonopy_equivariant.structure import as_structure

# Modes are taken for degenerate within these (THz), the first that leaves no label open: analytic
# force constants give 1e-7, those of a file with few digits less.
_TOLERANCES = (1e-5, 1e-4, 1e-3, 1e-2)
_THZ = 1e12 / (100 * units._c)  # in cm⁻¹
# Where labels are missing, symmetry is searched for within ever smaller parts of the tolerance.
_TOLERANCE_DIVISORS = 10.0 ** np.arange(8)
# Part of a vector or tensor that active modes must carry: 1 if the modes are an irrep, 1/d for each
# of d modes that a structure symmetric within a tolerance splits, 0 else.
_ACTIVE = 0.1


class GammaMode(NamedTuple):
    """Degenerate optical modes at Γ."""

    bands: tuple[int, ...]  # counted from 0
    frequency: float  # THz, negative if imaginary
    irrep: str  # "?" where modes of several irreps coincide
    infrared: bool
    raman: bool
    oscillator_strength: float | None  # e²/amu, |∂μ/∂Q|² summed over the modes


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GammaModes(Result):
    """The optical modes of a crystal at Γ, without the LO-TO splitting.

    Parameters
    ----------
    point_group
        Hermann-Mauguin symbol of the group that positions and masses have.
    modes
        Sets of degenerate modes.
    deviation
        Distance (Å) by which the structure misses that group.

    """

    point_group: str
    modes: tuple[GammaMode, ...]
    deviation: float

    def representation(self) -> str:
        """Return the optical representation as text, say A1g + 3 Eu."""
        labels = [mode.irrep for mode in self.modes]
        counts = {label: labels.count(label) for label in sorted(set(labels))}
        return " + ".join(f"{n} {label}" if n > 1 else label for label, n in counts.items())

    def rows(self) -> list[list[str]]:
        """Return the table: bands, THz, cm⁻¹, irrep, activities, oscillator strength."""
        rows = []
        for mode in self.modes:
            size = abs(mode.frequency)
            sign = "i" if mode.frequency < 0 else ""
            row = [
                " ".join(str(band + 1) for band in mode.bands),
                f"{size:.4f}{sign}",
                f"{size * _THZ:.2f}{sign}",
                mode.irrep,
                "yes" if mode.infrared else "-",
                "yes" if mode.raman else "-",
            ]
            if mode.oscillator_strength is not None:
                row.append(f"{mode.oscillator_strength:.5f}")
            rows.append(row)
        return rows

    def columns(self) -> list[str]:
        """Return the column headings of the table."""
        strengths = any(mode.oscillator_strength is not None for mode in self.modes)
        return ["BANDS", "THz", "cm⁻¹", "IRREP", "IR", "RAMAN"] + ["e²/AMU"] * strengths

    def heading(self) -> str:
        """Return one line: the point group, how well it is obeyed, the representation."""
        return (
            f"Optical modes at Gamma, point group {self.point_group} (obeyed to "
            f"{self.deviation:.0e} Å): {self.representation()}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain values; bands are counted from 1."""
        modes = [
            mode._asdict() | {"bands": [band + 1 for band in mode.bands]} for mode in self.modes
        ]
        content: dict[str, Any] = plain(
            {
                "units": {
                    "frequency": "THz, negative if imaginary",
                    "oscillator_strength": "e^2/amu",
                    "symmetry_deviation": "angstrom",
                },
                "point_group": self.point_group,
                "symmetry_deviation": self.deviation,
                "optical_representation": self.representation(),
                "modes": modes,
            }
        )
        return content


def check_primitive(phonon: Phonopy) -> None:
    """Raise before force constants are computed if phonopy's irreps would refuse the cell.

    Raises
    ------
    PhonopyEquivariantError
        phonopy's primitive cell is not the smallest.

    """
    tolerance = phonon.primitive_symmetry.tolerance
    rotations = _symmetry(phonon, tolerance).symmetry_operations["rotations"]
    if len(np.unique(rotations, axis=0)) != len(rotations):
        raise PhonopyEquivariantError(
            "The table of irreps needs the primitive cell, and this one holds several; pass "
            'primitive_matrix="auto", and leave away magnetic moments and masses that make it '
            "larger."
        )


def gamma_modes(phonon: Phonopy) -> GammaModes:
    """Return the optical modes at Γ with labels and activities.

    Labels are phonopy's (Mulliken symbols in the conventional setting of spglib), of the group
    that the crystal has within the tolerance of phonopy's search and that keeps its masses.
    Magnetic moments play no part, because potentials know none. Where the structure misses the
    group by so much that modes of an irrep are split, the group is the largest one whose irreps
    the modes have, found within a smaller tolerance. With χ the character of modes under the
    rotations R of the point group, modes are infrared active if χ contains a part of the vector,
    χ_v(R) = tr R, and Raman active if it contains a part of its symmetric square,
    ½[(tr R)² + tr R²]. The three translations are left out whatever their frequencies; parts of a
    crystal that do not interact leave more modes at zero, and these are in the table.

    Where Born charges are set, the squared norm of Σ_i Z_i e_i/√m_i is the oscillator strength.

    Raises
    ------
    PhonopyEquivariantError
        No force constants, or a cell that phonopy's irreps refuse.

    """
    if phonon.dynamical_matrix is None:
        raise PhonopyEquivariantError("The phonon object has no force constants; set them first.")
    check_primitive(phonon)
    symmetry, irreps, labels = _labelled(phonon)
    rotations = np.asarray(irreps.conventional_rotations, float)
    trace = np.trace(rotations, axis1=1, axis2=2)
    square = (trace**2 + np.trace(rotations @ rotations, axis1=1, axis2=2)) / 2
    gradients = _gradients(phonon, irreps)
    modes = []
    for index, columns in enumerate(irreps.band_indices):
        if max(columns) < 3:
            continue  # translations
        frequency = float(np.mean(irreps.frequencies[columns]))
        # phonopy counts translations where their zero frequency has its place
        bands = [int(column) - (3 if frequency < 0 else 0) for column in columns]
        character = np.asarray(irreps.characters[index])
        active = [
            abs(np.mean(character.conj() * of_field)) > _ACTIVE for of_field in (trace, square)
        ]
        strength = None if gradients is None else float((gradients[columns] ** 2).sum())
        modes.append(
            GammaMode(
                tuple(bands),
                frequency,
                labels[index] or "?",
                bool(active[0]),
                bool(active[1]),
                strength,
            )
        )
    space_group = operations(as_structure(phonon.primitive), **symmetry.symmetry_operations)
    return GammaModes(
        str(symmetry.pointgroup_symbol), tuple(modes), float(space_group.deviation.max())
    )


class _TranslationsApart:
    """A dynamical matrix whose translations at Γ lie far below all other modes.

    They are an invariant space of every operation, so that irreps are not changed. At their own
    frequency, which is zero to rounding, they may mix with modes of parts that do not interact.
    """

    def __init__(self, matrix: Any):
        self._matrix = matrix
        self.dynamical_matrix: ndarray | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._matrix, name)

    def run(self, q: Any) -> None:
        """Compute the matrix at Γ."""
        self._matrix.run(q)
        values = np.array(self._matrix.dynamical_matrix)
        masses = self._matrix.primitive.masses
        translations = np.kron(np.sqrt(masses / masses.sum())[:, None], np.eye(3))
        optical = np.eye(len(values)) - translations @ translations.T
        lowest = 1.0 + 2.0 * np.linalg.norm(values, 2)
        inside = optical @ values @ optical
        self.dynamical_matrix = inside - lowest * translations @ translations.T


def _symmetry(phonon: Phonopy, tolerance: float) -> Symmetry:
    """Return the symmetry of the primitive cell, with isotopes as different atoms."""
    primitive = phonon.primitive
    isotopes = masses_break_symmetry(phonon)
    labelled = PhonopyAtoms(
        numbers=kinds_of_atoms(primitive) if isotopes else primitive.numbers,
        masses=primitive.masses,
        cell=primitive.cell,
        scaled_positions=primitive.scaled_positions,
    )
    return Symmetry(labelled, tolerance)


def _labelled(phonon: Phonopy) -> tuple[Symmetry, IrReps, list[str | None]]:
    """Return the largest group whose irreps modes have, phonopy's irreps, and their labels."""
    best: tuple[int, tuple[Symmetry, IrReps, list[str | None]]] | None = None
    order = 0
    for divisor in _TOLERANCE_DIVISORS:
        symmetry = _symmetry(phonon, phonon.primitive_symmetry.tolerance / divisor)
        if len(symmetry.symmetry_operations["rotations"]) == order:
            continue
        order = len(symmetry.symmetry_operations["rotations"])
        for tolerance in _TOLERANCES:
            irreps = _irreps(phonon, symmetry, tolerance)
            # phonopy has no public name for its labels
            labels = list(irreps._ir_labels or [None] * len(irreps.band_indices))
            unknown = sum(
                label is None
                for label, columns in zip(labels, irreps.band_indices, strict=True)
                if max(columns) >= 3
            )
            if best is None or unknown < best[0]:
                best = unknown, (symmetry, irreps, labels)
            if unknown == 0:
                return best[1]
    assert best is not None
    return best[1]


def _irreps(phonon: Phonopy, symmetry: Symmetry, degeneracy: float) -> IrReps:
    matrix: Any = _TranslationsApart(phonon.dynamical_matrix)
    try:
        return IrReps(
            matrix,
            [0, 0, 0],
            symmetry,
            factor=phonon.unit_conversion_factor,
            degeneracy_tolerance=degeneracy,
        )
    except RuntimeError as error:
        raise PhonopyEquivariantError(
            f"phonopy finds no irreps ({error}); try another symprec=."
        ) from error


def _gradients(phonon: Phonopy, irreps: IrReps) -> Float[ndarray, "bands 3"] | None:
    """Return ∂μ/∂Q of every band, e/√amu; eigenvectors at Γ are made real."""
    if phonon.nac_params is None:
        return None
    masses = phonon.primitive.masses
    real = _real(irreps)
    displacements = real.T.reshape(-1, len(masses), 3) / np.sqrt(masses)[:, None]
    return dipole_gradients(displacements, np.asarray(phonon.nac_params["born"], float))


def _real(irreps: IrReps) -> ndarray:
    """Return real eigenvectors: among degenerate modes phonopy's may be complex combinations."""
    vectors = np.asarray(irreps.eigenvectors)
    real = np.zeros(vectors.shape)
    for bands in irreps.band_indices:
        combinations = np.hstack([vectors[:, bands].real, vectors[:, bands].imag])
        real[:, bands] = np.linalg.svd(combinations)[0][:, : len(bands)]
    return real

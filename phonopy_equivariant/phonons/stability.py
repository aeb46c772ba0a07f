"""Whether a crystal is stable: imaginary modes, and whether its supercell made them up.

At the q commensurate with a supercell D(q) of its force constants is exact: an imaginary mode there
is one of the crystal in this potential. Between them D(q) is interpolated, and a mode may be
imaginary only because force constants are folded back into the supercell. D(q) computed directly
at such a q tells the two apart.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from phonopy import Phonopy
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.phonons.cells import (
    masses_break_symmetry,
    require_angstrom,
    supercell_of_primitive,
)
from phonopy_equivariant.phonons.exact_images import ImageTable
from phonopy_equivariant.phonons.folding import (
    DirectCheck,
    Folding,
    are_commensurate,
    compute_directly,
    lowest_of_regions,
    triple,
)
from phonopy_equivariant.response.bloch.lattice import MAX_MEMORY
from phonopy_equivariant.results import Result
from phonopy_equivariant.structure import inscribed_radius

# THz; a supercell suffices if frequencies between its q are off by less. Potentials themselves are
# off by more.
SUFFICIENT = 0.1
# as phonopy takes it: a length in Å, three numbers, or nine
Mesh = int | float | Sequence[int] | Sequence[Sequence[int]] | ndarray


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Stability(Result):
    """Imaginary modes of a crystal, and whether its supercell suffices.

    Parameters
    ----------
    lowest, qpoint
        Lowest frequency of all q looked at (THz, negative if imaginary), and its q. Frequencies
        that differ from zero by rounding are 0.
    mesh, share
        Numbers of the mesh, and the share of its modes that are imaginary.
    rounding
        Frequency (THz) below which rounding cannot be told from zero.
    commensurate
        Whether a mode is imaginary at a q where D(q) is exact: a q of the supercell, or any q if
        force constants do not reach beyond the supercell, or in exact mode.
    checks
        D(q) computed directly at the lowest imaginary modes elsewhere.
    folding
        Largest error of a frequency (THz) found half-way between the q of the supercell; 0 where
        D(q) is exact at every q, None if there was no potential to compute it with.
    worst
        The q of that error.
    polar
        Whether there are Born charges: then a larger supercell is no remedy, see
        ``docs/polar_crystals.md``.
    generalized
        Whether phonopy made a generalized regular grid of a length, to keep the symmetry of a
        centred cell. The numbers of ``mesh`` belong to no axes then; their product is the number
        of q.
    on_path
        Whether q of a path were looked at.

    """

    lowest: float
    qpoint: tuple[float, ...]
    mesh: tuple[int, ...]
    share: float
    rounding: float
    commensurate: bool
    checks: tuple[DirectCheck, ...]
    folding: float | None
    worst: tuple[float, ...]
    polar: bool = False
    generalized: bool = False
    on_path: bool = False

    @property
    def imaginary(self) -> bool:
        """Whether any mode is imaginary."""
        return self.lowest < 0

    @property
    def artefacts(self) -> tuple[DirectCheck, ...]:
        """The q whose imaginary mode is one of the supercell and not of the crystal."""
        return tuple(check for check in self.checks if check.exact >= -self.rounding)

    @property
    def unstable(self) -> bool | None:
        """Whether the crystal itself has imaginary modes; None if that was not computed."""
        if not self.imaginary or self.commensurate:
            return self.imaginary
        return len(self.artefacts) < len(self.checks) if self.checks else None

    @property
    def sufficient(self) -> bool | None:
        """Whether the supercell suffices for frequencies at any q; None if that is not known."""
        if self.folding is None:
            return None
        return self.folding <= SUFFICIENT and not self.artefacts

    def rows(self) -> list[list[str]]:
        """Return labels and values; the last row says whether the supercell suffices."""
        mesh = self._mesh()
        supercell = ["supercell", self.supercell_text()]
        if not self.imaginary:
            places = [mesh, "at the q of the supercell", *["on the bands"] * self.on_path]
            nowhere = f"none on {', '.join(places[:-1])} and {places[-1]}"
            return [["imaginary modes", nowhere], supercell]
        lowest = f"{self.lowest:.3g} THz (imaginary) at q = {q_text(self.qpoint)}"
        share = f"{self._share()} of the modes on {mesh}; thermal properties leave them out"
        artefacts = [
            f"{check.interpolated:.3g} THz at q = {q_text(check.qpoint)} is an artefact of the "
            f"supercell: {check.exact:.3g} THz in D(q) computed there"
            for check in self.artefacts
        ]
        return [
            ["lowest frequency", lowest],
            ["imaginary modes", share],
            *(["", text] for text in (self._verdict(), *artefacts)),
            supercell,
        ]

    def remarks(self, remedy: str = "") -> list[str]:
        """Return warnings about imaginary modes; empty if there are none.

        ``remedy`` is said in place of :attr:`remedy`.
        """
        if not self.imaginary:
            return []
        return [
            f"imaginary modes: lowest frequency {self.lowest:.3g} THz "
            f"at q = {q_text(self.qpoint)}, {self._share()} of the modes on {self._mesh()}; "
            f"{self._verdict(remedy)}. Thermal properties leave them out: F, S and Cv are those "
            "of the other modes."
        ]

    def _mesh(self) -> str:
        if self.generalized:
            return f"the mesh of {np.prod(self.mesh)} q"
        return f"the {'×'.join(map(str, self.mesh))} mesh"

    def _share(self) -> str:
        percent = 100 * self.share
        return "none" if percent == 0 else "<0.1 %" if percent < 0.05 else f"{percent:.1f} %"

    def _verdict(self, remedy: str = "") -> str:
        if self.unstable is None:
            return "not checked whether they are of the crystal or of the supercell"
        if self.unstable:
            return (
                "the crystal is unstable in this potential, the supercell is not the cause: "
                "displace the atoms along the mode and relax"
            )
        return (
            f"an artefact of the supercell, D(q) computed there is stable: {remedy or self.remedy}"
        )

    @property
    def remedy(self) -> str:
        """What to do about a supercell that does not suffice."""
        return "use exact=True" if self.polar else "use a larger supercell= or exact=True"

    def supercell_text(self, remedy: str = "") -> str:
        """Say whether the supercell suffices, and what to do if it does not."""
        if self.folding is None:
            return "not checked between its q"
        if self.folding == 0:
            return "suffices: D(q) is exact at every q"
        size = f"off by {self.folding:.2g} THz half-way between its q, at {q_text(self.worst)}"
        if self.sufficient:
            return f"suffices: frequencies are {size}"
        cause = "" if self.folding > SUFFICIENT else ", and imaginary modes are its artefact"
        return f"does not suffice: frequencies are {size}{cause}; {remedy or self.remedy}"


def stability(
    phonon: Phonopy,
    potential: PotentialLike | None = None,
    mesh: Mesh = 100.0,
    path: Float[ndarray, "q 3"] | None = None,
    max_memory: int = MAX_MEMORY,
    **sampling: Any,
) -> Stability:
    """Return the imaginary modes of a crystal and whether its supercell suffices.

    Modes are looked at on a mesh, at the q commensurate with the supercell and on ``path``. A mode
    is imaginary if ω² is below zero by more than rounding, for which the bound is
    2·‖D(0)·P‖ + 3n·ε·max ω²: P holds the three translations in mass-weighted coordinates, which
    D(0) takes to zero without rounding, n is the number of atoms of the primitive cell and ε the
    precision of the potential.

    Parameters
    ----------
    phonon
        With force constants, or in exact mode. It is not changed.
    potential
        That of the force constants. It computes D(q) directly at the lowest imaginary modes and at
        a few q half-way between those of the supercell; without it neither is checked.
    mesh
        As in ``phonon.run_mesh``, which has the same default.
    path
        More q, of a band structure say, in units of the primitive cell's reciprocal vectors.
    max_memory
        Bytes that D(q) computed directly may take.
    **sampling
        Further arguments of ``phonon.run_mesh``.

    Raises
    ------
    PhonopyEquivariantError
        No force constants, units that are not eV and Å, or a mesh that phonopy refuses.

    """
    potential = None if potential is None else as_potential(potential)
    require_angstrom(phonon)
    matrix = phonon.dynamical_matrix
    if matrix is None:
        raise PhonopyEquivariantError("The phonon object has no force constants; set them first.")
    everywhere = isinstance(matrix.primitive, ImageTable) or (
        potential is not None and inscribed_radius(phonon.supercell.cell) >= potential.hessian_range
    )
    columns = supercell_of_primitive(phonon)
    sample = _sample(phonon, mesh, path, sampling)
    rounding = _rounding(
        phonon, sample.frequencies, "float64" if potential is None else potential.dtype
    )
    imaginary = sample.frequencies < -rounding
    lowest = np.where(imaginary, sample.frequencies, 0.0).min(axis=1)
    exact = everywhere | are_commensurate(sample.qpoints, columns)
    folding = Folding((), 0.0 if everywhere else None, (0.0, 0.0, 0.0))
    if potential is not None and not everywhere:
        suspects = lowest_of_regions(
            sample.qpoints[~exact], lowest[~exact], columns, len(phonon.primitive)
        )
        folding = compute_directly(phonon, potential, suspects, columns, max_memory)
    lowest_q = int(lowest.argmin())
    weights = sample.weights
    return Stability(
        lowest=float(lowest[lowest_q]),
        qpoint=triple(sample.qpoints[lowest_q]),
        mesh=sample.mesh,
        share=float(imaginary[: len(weights)].mean(axis=1) @ weights / weights.sum()),
        rounding=rounding,
        commensurate=bool((lowest[exact] < 0).any()),
        checks=folding.checks,
        folding=folding.error,
        worst=folding.worst,
        polar=phonon.nac_params is not None,
        generalized=sample.generalized,
        on_path=path is not None,
    )


class _Sample(NamedTuple):
    """Frequencies at the q of a mesh, with weights, followed by those at further q."""

    qpoints: Float[ndarray, "q 3"]
    frequencies: Float[ndarray, "q bands"]  # THz
    weights: Int[ndarray, " mesh"]
    mesh: tuple[int, ...]
    generalized: bool


def _sample(
    phonon: Phonopy, mesh: Mesh, path: Float[ndarray, "q 3"] | None, sampling: dict[str, Any]
) -> _Sample:
    sampled = copy.copy(phonon)  # what phonopy computes now is set in the copy alone
    options = {"is_mesh_symmetry": not masses_break_symmetry(phonon)} | sampling
    try:
        with warnings.catch_warnings():
            # phonopy says it again where the user runs the mesh
            warnings.simplefilter("ignore", RuntimeWarning)
            sampled.run_mesh(mesh, **options)  # type: ignore[arg-type]  # it takes nine numbers too
    except Exception as error:
        raise PhonopyEquivariantError(
            f"phonopy refuses the mesh {mesh} ({error}); give three whole numbers, as in 20 20 20."
        ) from error
    on_mesh: Any = sampled.mesh
    extra_qpoints = get_commensurate_points(supercell_of_primitive(phonon))
    if path is not None:
        extra_qpoints = np.concatenate([extra_qpoints, path])
    sampled.run_qpoints(extra_qpoints)
    at_extra_qpoints: Any = sampled.qpoints
    return _Sample(
        np.concatenate([on_mesh.qpoints, extra_qpoints]),
        np.concatenate([on_mesh.frequencies, at_extra_qpoints.frequencies]),
        np.asarray(on_mesh.weights),
        tuple(int(number) for number in on_mesh.mesh_numbers),
        getattr(getattr(on_mesh, "bz_grid", None), "grid_matrix", None) is not None,
    )


def _rounding(phonon: Phonopy, frequencies: Float[ndarray, "q bands"], dtype: str) -> float:
    """Return the frequency (THz) that rounding of ω² alone may give."""
    matrix: Any = phonon.dynamical_matrix
    matrix.run([0, 0, 0])
    masses = phonon.primitive.masses
    translations = np.kron(np.sqrt(masses / masses.sum())[:, None], np.eye(3))
    drift = np.linalg.norm(matrix.dynamical_matrix @ translations, 2)
    factor = phonon.unit_conversion_factor
    largest = float(np.abs(frequencies).max() / factor) ** 2
    bound = 2 * drift + frequencies.shape[1] * float(np.finfo(dtype).eps) * largest
    return float(np.sqrt(bound)) * factor


def q_text(q: Sequence[float]) -> str:
    """Return q as text, as fractions where they are simple: (1/2 0 1/2)."""
    words = []
    for component in q:
        fraction = Fraction(component).limit_denominator(100)
        exact = abs(float(fraction) - component) < 1e-7
        words.append(str(fraction) if exact else f"{component:.4f}")
    return f"({' '.join(words)})"

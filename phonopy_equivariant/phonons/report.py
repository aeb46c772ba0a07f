"""What can be said of the quality of one set of force constants."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from phonopy_equivariant.features import Familiarity
from phonopy_equivariant.results import Result

# phonopy's default tolerance (Å): its own results on a structure this close to symmetric are right
# to fewer digits than its files have.
CLOSE = 1e-5

ISOTOPES = (
    "isotopes on equivalent sites: phonopy's mesh, group velocities and irreps would use a "
    "symmetry that these masses break; make the Phonopy object with is_symmetry=False"
)


class SymmetryReport(NamedTuple):
    """How well a structure obeys the symmetry that phonopy found within its tolerance."""

    used: int  # operations that the structure obeys to rounding; only these fill force constants
    operations: int  # operations of phonopy's space group
    deviation: float  # Å, largest distance by which one misses an atom, a cell vector or an image
    isotopes: bool  # whether masses break phonopy's space group
    # eV/Å², by which a potential without parity breaks the improper operations; None: it does not
    reflections: float | None = None
    # whether phonopy's mesh would use such operations: with inversion, time reversal stands in
    breaks_mesh: bool = False

    @property
    def reduces_meshes(self) -> bool:
        """Whether meshes of q may be reduced by phonopy's space group."""
        return not (self.isotopes or self.breaks_mesh)

    def remarks(self) -> list[str]:
        """Return warnings for a user who goes on with phonopy; empty if there is nothing to say."""
        remarks = [ISOTOPES + "."] if self.isotopes else []
        if self.deviation > CLOSE:
            remarks.append(
                f"the symmetry found within the tolerance misses atoms by up to "
                f"{self.deviation:.1e} Å: force constants are those of the structure given, but "
                "phonopy's mesh and irreps use that symmetry; lower symprec=."
            )
        return remarks

    def row(self) -> list[str]:
        """Return a row of the report's table: label and text."""
        used = f"{self.used} of {self.operations} operations used"
        broken = ""
        if self.reflections is not None:
            broken = f"; the potential breaks improper ones by {self.reflections:.1e} eV/Å²"
        return ["symmetry", f"{used}, largest deviation {self.deviation:.1e} Å{broken}"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class CrystalReport(Result):
    """What every report says of a potential and a crystal.

    Parameters
    ----------
    model, sha256
        Name and hash of the potential's file.
    residual_force
        Largest force on an atom of the cell, eV/Å.
    residual_stress
        Largest component of the stress, GPa.
    hessian_range
        Distance up to which the potential may have force constants, 2·T·cutoff, Å.
    seconds
        Wall time, compilation included.
    symmetry
        How well the structure obeys the symmetry that phonopy found.
    familiarity
        How far the crystal is from the training structures; None if the potential cannot tell.

    """

    model: str
    sha256: str
    residual_force: float
    residual_stress: float
    hessian_range: float
    seconds: float
    symmetry: SymmetryReport
    familiarity: Familiarity | None = None

    @property
    def deviation(self) -> float:
        """Distance (Å) by which the structure misses the symmetry that phonopy found."""
        return self.symmetry.deviation

    def potential_row(self) -> list[str]:
        """Return a row of the table that names the potential."""
        label = f"{self.model} (sha256 {self.sha256[:12]})" if self.sha256 else self.model
        return ["potential", label]

    def equilibrium_rows(self) -> list[list[str]]:
        """Return the rows of the table with residual force and stress."""
        return [
            ["residual force", f"{self.residual_force:.1e} eV/Å"],
            ["residual stress", f"{self.residual_stress:.3f} GPa"],
        ]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ForceConstantsReport(CrystalReport):
    """Diagnostics of one set of analytic force constants, taken before any projection.

    Fields that are not listed here are those of ``CrystalReport``.

    Parameters
    ----------
    sum_rule
        Largest absolute value of sum_J Φ(i, J), eV/Å²: zero by translation symmetry.
    permutation
        Largest absolute value of Φ(i, J) - Φ(J, i)^T, eV/Å²: zero for a second derivative.
    inscribed_radius
        Radius of the sphere inscribed in the supercell, Å.
    method
        Which road gave the numbers, ``bloch`` or ``autodiff``.

    """

    sum_rule: float
    permutation: float
    inscribed_radius: float
    method: str

    @property
    def exact_everywhere(self) -> bool:
        """Whether the supercell holds the full range, so that D(q) is exact between its q too."""
        return self.inscribed_radius >= self.hessian_range

    def rows(self) -> list[list[str]]:
        """Return labels and values."""
        reach = (
            f"holds the full range {self.hessian_range:.1f} Å: D(q) is exact at every q"
            if self.exact_everywhere
            else f"< range {self.hessian_range:.1f} Å: D(q) is exact at commensurate q"
        )
        return [
            self.potential_row(),
            ["method", f"{self.method}, {self.seconds:.2f} s"],
            self.symmetry.row(),
            ["sum rule residual", f"{self.sum_rule:.1e} eV/Å²"],
            ["permutation residual", f"{self.permutation:.1e} eV/Å²"],
            *self.equilibrium_rows(),
            ["inscribed radius", f"{self.inscribed_radius:.1f} Å {reach}"],
        ]

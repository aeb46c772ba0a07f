"""What can be said of the quality of third-order force constants."""

from __future__ import annotations

import dataclasses

from phonopy_equivariant.phonons.report import SymmetryReport
from phonopy_equivariant.results import Result

NEGLIGIBLE = 1e-10  # eV/Å³: rounding


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ThirdOrderReport(Result):
    """Diagnostics of one set of analytic third-order force constants.

    Parameters
    ----------
    model, sha256
        Name and hash of the potential's file.
    triplets, irreducible
        Number of triplets of commensurate q, and of those that were computed.
    sum_rule
        Largest sum of Φ(i, J, K) over one atom, eV/Å³: zero by translation symmetry.
    permutation
        Largest change of Φ(i, J, K) with the order of its atoms, eV/Å³: zero for a third
        derivative.
    largest
        Largest element, eV/Å³: what the two residuals compare with.
    interpolation
        Relative error of third derivatives between the q of the supercell, as phono3py interpolates
        them, against the exact ones: what the size of the supercell costs.
    inscribed_radius
        Radius of the sphere inscribed in the supercell, Å.
    seconds
        Wall time, compilation included.
    symmetry
        How well the structure obeys the symmetry that phono3py found.

    """

    model: str
    sha256: str
    triplets: int
    irreducible: int
    sum_rule: float
    permutation: float
    largest: float
    interpolation: float
    inscribed_radius: float
    seconds: float
    symmetry: SymmetryReport

    def rows(self) -> list[list[str]]:
        """Return labels and values."""
        label = f"{self.model} (sha256 {self.sha256[:12]})" if self.sha256 else self.model
        return [
            ["potential", label],
            ["triplets of q", f"{self.irreducible} of {self.triplets}, {self.seconds:.2f} s"],
            self.symmetry.row(),
            ["largest element", f"{self.largest:.3f} eV/Å³"],
            ["sum rule residual", f"{self.sum_rule:.1e} eV/Å³"],
            ["permutation residual", f"{self.permutation:.1e} eV/Å³"],
            [
                "interpolation error",
                f"{self.interpolation:.1%} rms between the q of this supercell",
            ],
            ["inscribed radius", f"{self.inscribed_radius:.1f} Å"],
        ]

    def remarks(self) -> list[str]:
        """Return a warning if all elements vanish, and with them the scattering of phonons."""
        if self.largest > NEGLIGIBLE:
            return []
        return [
            "all third-order force constants of this supercell are zero, and so phonons do not "
            "scatter. Inversion at every atom does this where each q of the supercell is its own "
            "negative, as with supercell=2 2 2; take a larger one."
        ]

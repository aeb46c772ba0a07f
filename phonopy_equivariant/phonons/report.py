"""What can be said of the quality of one set of force constants."""

from __future__ import annotations

import dataclasses

from phonopy_equivariant.features import Familiarity


@dataclasses.dataclass(frozen=True)
class ForceConstantsReport:
    """Diagnostics of one set of analytic force constants, taken before any projection.

    Parameters
    ----------
    model, sha256
        Name and hash of the potential's file.
    sum_rule
        Largest |sum_J Φ(i, J)|, eV/Å²: zero by translation symmetry.
    permutation
        Largest |Φ(i, J) - Φ(J, i)^T|, eV/Å²: zero for a second derivative.
    residual_force
        Largest force on an atom of the cell, eV/Å.
    residual_stress
        Largest component of the stress, GPa.
    hessian_range
        Distance up to which the potential has force constants, 2·T·cutoff, Å.
    inscribed_radius
        Radius of the sphere inscribed in the supercell, Å.
    method
        Which road gave the numbers, ``bloch`` or ``autodiff``.
    seconds
        Wall time, compilation included.
    familiarity
        How far the crystal is from the training structures; None if the potential cannot tell.

    """

    model: str
    sha256: str
    sum_rule: float
    permutation: float
    residual_force: float
    residual_stress: float
    hessian_range: float
    inscribed_radius: float
    method: str
    seconds: float
    familiarity: Familiarity | None = None

    @property
    def exact_everywhere(self) -> bool:
        """Whether the supercell holds the full range, so that D(q) is exact between its q too."""
        return self.inscribed_radius >= self.hessian_range

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        label = f"{self.model} (sha256 {self.sha256[:12]})" if self.sha256 else self.model
        radius = f"{self.inscribed_radius:.1f} Å"
        reach = (
            f"holds the full range {self.hessian_range:.1f} Å: D(q) is exact at every q"
            if self.exact_everywhere
            else f"< range {self.hessian_range:.1f} Å: D(q) is exact at commensurate q"
        )
        return [
            f"potential            {label}",
            f"method               {self.method}, {self.seconds:.2f} s",
            f"sum rule residual    {self.sum_rule:.1e} eV/Å²",
            f"permutation residual {self.permutation:.1e} eV/Å²",
            f"residual force       {self.residual_force:.1e} eV/Å",
            f"residual stress      {self.residual_stress:.3f} GPa",
            f"inscribed radius     {radius} {reach}",
        ]

"""Born charges and dielectric tensors: what is refused, what symmetry and neutrality make of them.

Translation moves no charge, so that sum_i Z_i = 0 (Pick, Cohen and Martin, Phys. Rev. B 1, 910
(1970), doi:10.1103/PhysRevB.1.910), and a symmetry operation R from atom i to atom j gives
Z_j = R Z_i R^T and ε = R ε R^T. Computed tensors obey this to their accuracy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.response.dipole_dipole import COULOMB
from phonopy_equivariant.response.symmetry.operations import Operations

LARGEST_ERROR = 0.1  # e, of a sum of charges, or of a charge that symmetry gives
LARGEST_CHANGE = 0.1  # of an element of ε by symmetry, relative to the mean of its diagonal
LARGEST_UNIT_ERROR = 0.05  # relative, of e²: other codes' units are off by factors
# Insulators have dielectric constants below 100 without the ions (lead telluride 33); what a code
# says of a metal is a large number that depends on its mesh.
LARGEST_DIELECTRIC = 200.0
_REMEDY = "mend it, or leave the charges out (nac_params=None)."


class Charges(NamedTuple):
    """Charges and dielectric tensor that obey symmetry and sum rule, and how far they were off."""

    born: Float[ndarray, "atoms 3 3"]  # e; first index: dipole, second: displacement
    dielectric: Float[ndarray, "3 3"]
    coulomb: float  # e², eV·Å: the factor of phonopy's parameters
    sum_rule: float  # e, largest element of the sum over atoms
    asymmetry: float  # e, largest change of an element by symmetry
    dielectric_asymmetry: float = 0.0  # the same for ε

    def row(self) -> list[str]:
        """Return a row of a report's table: label and text."""
        return [
            "Born charges",
            f"off sum rule by {self.sum_rule:.1e} e, off symmetry by {self.asymmetry:.1e} e, ε by "
            f"{self.dielectric_asymmetry:.1e}: corrected",
        ]


def require_charges(parameters: Mapping[str, Any], source: str, atoms: int) -> None:
    """Refuse Born charges and dielectric tensors that are no finite numbers, or no insulator's.

    Parameters
    ----------
    parameters
        As phonopy's ``nac_params``.
    source
        What the line of an error begins with.
    atoms
        Number of atoms of the primitive cell.

    Raises
    ------
    PhonopyEquivariantError
        As said; or the charges are of another number of atoms, their sum is not zero, or their
        factor is not e² in eV·Å.

    """
    dielectric, born = (np.asarray(parameters[key], float) for key in ("dielectric", "born"))
    if born.shape != (atoms, 3, 3) or dielectric.shape != (3, 3):
        raise PhonopyEquivariantError(
            f"{source}: charges of {len(born)} atoms, the primitive cell has {atoms}; take the "
            "primitive cell they belong to (primitive_matrix=), or leave the charges out "
            "(nac_params=None)."
        )
    if not (np.isfinite(dielectric).all() and np.isfinite(born).all()):
        raise PhonopyEquivariantError(
            f"{source}: a Born charge or an element of the dielectric tensor is not a finite "
            f"number; {_REMEDY}"
        )
    factor = parameters.get("factor")
    if factor is not None and not abs(factor / COULOMB - 1) < LARGEST_UNIT_ERROR:
        raise PhonopyEquivariantError(
            f"{source}: their factor (first line of BORN) is {factor:g}, and e² is {COULOMB:.6f} "
            "eV·Å: that of other units; write this number."
        )
    values = np.linalg.eigvalsh((dielectric + dielectric.T) / 2)
    if not values[0] > 0:
        raise PhonopyEquivariantError(
            f"{source}: the dielectric tensor has the eigenvalue {values[0]:g}, and those of a "
            f"crystal are positive; {_REMEDY}"
        )
    if values[2] > LARGEST_DIELECTRIC:
        raise PhonopyEquivariantError(
            f"{source}: the dielectric tensor has the eigenvalue {values[2]:g}, as of a metal, "
            "which screens all charges and has no non-analytical term; leave the charges out "
            "(nac_params=None)."
        )
    excess = float(np.abs(born.sum(axis=0)).max())
    if excess > LARGEST_ERROR:
        raise PhonopyEquivariantError(
            f"{source}: the Born charges of a cell sum to zero, and these to {excess:.2g} e; make "
            "BORN with phonopy-vasp-born or phonopy-qe-born, which correct small sums, or leave "
            "the charges out (nac_params=None)."
        )


def obeying(
    parameters: Mapping[str, Any], source: str, symmetry: Operations | None = None
) -> Charges:
    """Return charges with the symmetry of the crystal and the sum zero, and what was corrected.

    Parameters
    ----------
    parameters, source
        As :func:`require_charges`, which they passed.
    symmetry
        Space group of the primitive cell; without it only the sum rule is imposed.

    Raises
    ------
    PhonopyEquivariantError
        Symmetry would change a charge by more than 0.1 e, or ε by more than a tenth: they are of
        another cell.

    """
    given, born = (np.asarray(parameters[key], float) for key in ("dielectric", "born"))
    dielectric = (given + given.T) / 2
    averaged = born
    if symmetry is not None:
        turn = symmetry.cartesian
        averaged = np.zeros_like(born)
        turned = np.einsum("oab,ibc,odc->oiad", turn, born, turn) / len(turn)
        np.add.at(averaged, symmetry.image, turned)
        dielectric = np.einsum("oab,bc,odc->ad", turn, dielectric, turn) / len(turn)
    asymmetry = float(np.abs(averaged - born).max())
    if asymmetry > LARGEST_ERROR:
        raise PhonopyEquivariantError(
            f"{source}: a Born charge is off the symmetry of this crystal by {asymmetry:.2g} e, so "
            "that the charges are those of another cell, or of its atoms in another order or "
            f"orientation; {_REMEDY}"
        )
    change = float(np.abs(dielectric - given).max())
    if change > LARGEST_CHANGE * np.trace(dielectric) / 3:
        raise PhonopyEquivariantError(
            f"{source}: the dielectric tensor is off the symmetry of this crystal by {change:.2g}, "
            f"so that it is that of another cell or orientation; {_REMEDY}"
        )
    total = averaged.sum(axis=0)
    return Charges(
        averaged - total / len(born),
        dielectric,
        float(parameters.get("factor") or COULOMB),
        float(np.abs(total).max()),
        asymmetry,
        change,
    )

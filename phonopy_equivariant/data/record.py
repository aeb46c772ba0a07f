"""One record of training data, whatever file it came from.

Units: eV, Å; forces eV/Å, stress eV/Å³, force constants eV/Å², frequencies THz.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from jaxtyping import Complex, Float
from numpy import ndarray

from phonopy_equivariant.structure import Structure

LABELS = ("energy", "forces", "stress", "force_constants", "spectrum")


@dataclasses.dataclass(frozen=True, eq=False)
class ForceConstantsData:
    """Second derivatives of the energy of a record's own cell.

    Parameters
    ----------
    qpoints
        In units of the cell's reciprocal vectors; a molecule or a Hessian at Γ has one, q = 0.
    values
        Φ_ij(q) = sum_S Φ(0i, Sj) e^{2πi q·S}, eV/Å², the lattice gauge of
        :mod:`phonopy_equivariant.response.bloch.lattice`; S is counted from the record's positions.

    """

    qpoints: Float[ndarray, "q 3"]
    values: Complex[ndarray, "q columns columns"]


@dataclasses.dataclass(frozen=True, eq=False)
class Spectrum:
    """Frequencies of a record's own cell.

    Parameters
    ----------
    qpoints
        In units of the cell's reciprocal vectors.
    frequencies
        THz, ascending; negative stands for imaginary, as in phonopy.

    """

    qpoints: Float[ndarray, "q 3"]
    frequencies: Float[ndarray, "q columns"]


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """A structure and what is known of it; what is not known is None.

    Parameters
    ----------
    structure
        For force constants of phonopy: the primitive cell.
    energy
        eV, of the whole cell.
    forces
        eV/Å.
    stress
        eV/Å³, dE/dε / V: ASE's sign, positive where the crystal wants to contract.
    force_constants, spectrum
        Second-order data.
    level
        Level of theory, such as "PBE".
    source
        "file:index", for messages.
    contradictions
        Of each label that the file says in two ways which differ: what they are, and what chooses
        between them. A reader puts it there; it is not written.

    """

    structure: Structure
    energy: float | None = None
    forces: Float[ndarray, "atoms 3"] | None = None
    stress: Float[ndarray, "3 3"] | None = None
    force_constants: ForceConstantsData | None = None
    spectrum: Spectrum | None = None
    level: str = ""
    source: str = ""
    contradictions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the data that the record has."""
        return tuple(name for name in LABELS if getattr(self, name) is not None)

    def only(self, labels: Collection[str]) -> Record:
        """Return the record with the named labels only."""
        left_out: dict[str, Any] = {name: None for name in LABELS if name not in labels}
        contradictions = {
            name: text for name, text in self.contradictions.items() if name in labels
        }
        return dataclasses.replace(self, **left_out, contradictions=contradictions)

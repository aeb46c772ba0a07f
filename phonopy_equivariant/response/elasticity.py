"""Elastic constants of a crystal, and the moduli, sound and stability that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.response.sound import (
    debye_temperature,
    is_born_stable,
    mean_sound_velocity,
    sound_velocities,
)
from phonopy_equivariant.results import Result, plain

# A thousandth of the largest elastic constant: the stress above which a remark is made.
STRESS_REMARK = 1e-3
# eV/Å; pe.relax ends at 1e-4
FORCE_REMARK = 1e-2


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ElasticTensor(Result):
    """Elastic constants in GPa, Voigt's order xx, yy, zz, yz, xz, xy.

    Parameters
    ----------
    clamped, relaxed
        Elastic constants where atoms move with the cell, and where they move to vanishing forces.
    internal_strain
        ∂²E/∂u∂ε, eV/Å.
    residual_force, residual_stress
        Largest force on an atom (eV/Å), largest component of the stress (GPa).
    density, number_density
        g/cm³ with the masses of the structure; atoms in Å³.

    """

    clamped: Float[ndarray, "6 6"]
    relaxed: Float[ndarray, "6 6"]
    internal_strain: Float[ndarray, "columns 6"]
    residual_force: float
    residual_stress: float
    density: float
    number_density: float

    @property
    def bulk_modulus(self) -> float:
        """Bulk modulus (GPa) of a polycrystal, the mean of Voigt's and Reuss's (Hill 1952)."""
        return _hill(self.relaxed)[0]

    @property
    def shear_modulus(self) -> float:
        """Shear modulus (GPa) of a polycrystal, the mean of Voigt's and Reuss's (Hill 1952)."""
        return _hill(self.relaxed)[1]

    @property
    def youngs_modulus(self) -> float:
        """Young's modulus of a polycrystal, GPa, E = 9BG/(3B + G)."""
        bulk, shear = _hill(self.relaxed)
        return 9 * bulk * shear / (3 * bulk + shear)

    @property
    def poisson_ratio(self) -> float:
        """Poisson's ratio of a polycrystal, (3B - 2G)/(6B + 2G)."""
        bulk, shear = _hill(self.relaxed)
        return (3 * bulk - 2 * shear) / (6 * bulk + 2 * shear)

    @property
    def is_stable(self) -> bool:
        """Whether every strain costs energy (Born's criterion)."""
        return is_born_stable(self.relaxed)

    @property
    def mean_sound_velocity(self) -> float:
        """Debye's mean of the velocities of sound over all directions, km/s."""
        return mean_sound_velocity(self.relaxed, self.density)

    @property
    def debye_temperature(self) -> float:
        """Debye's temperature from the velocities of sound, K."""
        return debye_temperature(self.mean_sound_velocity, self.number_density)

    def sound_velocities(
        self, directions: Float[ndarray, "n 3"] | Sequence[Sequence[float]]
    ) -> Float[ndarray, "n 3"]:
        """Return the three velocities (km/s, ascending) of waves along Cartesian directions."""
        return sound_velocities(self.relaxed, self.density, np.asarray(directions, float))

    def to_dict(self) -> dict[str, Any]:
        """Return tensors, moduli and what follows from them as plain values."""
        moduli = ("bulk_modulus", "shear_modulus", "youngs_modulus", "poisson_ratio")
        derived = (*moduli, "is_stable", "mean_sound_velocity", "debye_temperature")
        values: dict[str, Any] = {
            "units": {
                "elastic constants and moduli": "GPa; Voigt's order xx, yy, zz, yz, xz, xy",
                "internal_strain": "eV/angstrom",
                "residual_force": "eV/angstrom",
                "density": "g/cm^3",
                "number_density": "1/angstrom^3",
                "mean_sound_velocity": "km/s",
                "debye_temperature": "K",
            }
        }
        return values | super().to_dict() | {name: plain(getattr(self, name)) for name in derived}

    def rows(self) -> list[list[str]]:
        """Return both tensors, and what follows from the relaxed one."""
        return [
            *_tensor_rows("clamped (GPa)", self.clamped),
            *_tensor_rows("relaxed (GPa)", self.relaxed),
            *self._moduli_rows(),
            ["density", f"{self.density:.4f} g/cm³"],
            *self._sound_rows(),
            ["residual force", f"{self.residual_force:.1e} eV/Å"],
            ["residual stress", f"{self.residual_stress:.3f} GPa"],
        ]

    def _moduli_rows(self) -> list[list[str]]:
        """Return moduli of a polycrystal; Reuss's bound has no meaning without stability."""
        if not self.is_stable:
            strain = "unstable: some strain gains energy, or costs none as across a vacuum"
            return [["against strain", strain], ["moduli", "none of an unstable crystal"]]
        return [
            ["bulk modulus", f"{self.bulk_modulus:.2f} GPa"],
            ["shear modulus", f"{self.shear_modulus:.2f} GPa"],
            ["Young's modulus", f"{self.youngs_modulus:.2f} GPa"],
            ["Poisson's ratio", f"{self.poisson_ratio:.3f}"],
            ["against strain", "stable"],
        ]

    def _sound_rows(self) -> list[list[str]]:
        if not np.isfinite(self.debye_temperature):
            return [["sound", "some waves of sound have no real velocity"]]
        return [
            ["mean sound velocity", f"{self.mean_sound_velocity:.3f} km/s"],
            ["Debye temperature", f"{self.debye_temperature:.1f} K"],
        ]

    def remarks(self) -> list[str]:
        """Return sentences on residual stress and forces; none for a crystal at rest."""
        remarks = []
        if self.residual_stress > STRESS_REMARK * np.abs(self.clamped).max():
            remarks.append(
                f"The crystal is under a stress of {self.residual_stress:.3g} GPa: the constants "
                "are second derivatives of the energy at this stress, not stress-strain "
                "coefficients. Relax the cell first (pe.relax)."
            )
        if self.residual_force > FORCE_REMARK:
            remarks.append(
                f"Atoms are under forces up to {self.residual_force:.3g} eV/Å: the relaxed "
                "constants are those of no state at rest. Relax the atoms first (pe.relax)."
            )
        return remarks


def _tensor_rows(label: str, tensor: Float[ndarray, "6 6"]) -> list[list[str]]:
    rounded = np.round(tensor, 2) + 0.0  # no -0.00
    texts = [" ".join(f"{x:8.2f}" for x in row) for row in rounded]
    return [[label if k == 0 else "", text] for k, text in enumerate(texts)]


def _hill(tensor: Float[ndarray, "6 6"]) -> tuple[float, float]:
    """Return the bulk and shear modulus of a polycrystal, in the units of the elastic constants.

    Means of the bounds of Voigt and Reuss (Hill, Proc. Phys. Soc. A 65, 349 (1952)); nan where
    the tensor is singular, as that of layers that do not interact.
    """

    def bulk_and_shear(c: ndarray, shear: float) -> tuple[float, float]:
        diagonal, beside = np.trace(c[:3, :3]) / 3, (c[0, 1] + c[0, 2] + c[1, 2]) / 3
        return (diagonal + 2 * beside) / 3, (diagonal - beside + shear * np.trace(c[3:, 3:])) / 5

    voigt = bulk_and_shear(tensor, 1.0)
    if np.linalg.cond(tensor) > 1 / np.finfo(float).eps ** 0.5:
        return float("nan"), float("nan")
    # S: the same averages, with shear compliances of γ = 2ε
    compliance = np.linalg.inv(tensor)
    diagonal = np.trace(compliance[:3, :3])
    beside = compliance[0, 1] + compliance[0, 2] + compliance[1, 2]
    reuss_bulk = 1 / (diagonal + 2 * beside)
    reuss_shear = 15 / (4 * diagonal - 4 * beside + 3 * np.trace(compliance[3:, 3:]))
    return float(voigt[0] + reuss_bulk) / 2, float(voigt[1] + reuss_shear) / 2

"""Thermal expansion from one volume beside that of a quasi-harmonic calculation on several.

At the volume of lowest energy, V0, both roads must agree: there α = (∂S/∂V)_T/B, and entropies and
energies of the volumes give the slope and the bulk modulus by finite differences. At the volume of
temperature T, where phonopy has α, the crystal is already expanded, and softer.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from ase.units import GPa
from jaxtyping import Float
from numpy import ndarray
from phonopy.qha.eos import fit_to_eos, get_eos

from phonopy_equivariant.phonons.anisotropic_qha import AnisotropicQuasiHarmonic
from phonopy_equivariant.phonons.qha import QuasiHarmonic
from phonopy_equivariant.phonons.samples import fitted
from phonopy_equivariant.phonons.thermal_expansion import ThermalExpansion
from phonopy_equivariant.results import Result


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ExpansionComparison(Result):
    """Thermal expansion (1/K) by several roads.

    Parameters
    ----------
    temperatures
        K.
    roads
        Expansion at the temperatures by each road, under the heading of its column.
    bulk_moduli
        GPa at V0, by road.

    """

    temperatures: Float[ndarray, " n"]
    roads: dict[str, Float[ndarray, " n"]]
    bulk_moduli: dict[str, float]

    def columns(self) -> list[str]:
        """Return the headings of :meth:`rows`."""
        return ["T (K)", *self.roads]

    def rows(self) -> list[list[str]]:
        """Return the expansions in 1e-6/K."""
        values = np.array(list(self.roads.values())).T
        return [
            [f"{t:g}", *(f"{1e6 * x:.3f}" for x in row)]
            for t, row in zip(self.temperatures, values, strict=True)
        ]

    def heading(self) -> str:
        """Return the line below the table: what its columns are."""
        moduli = ", ".join(f"{value:.2f} GPa {road}" for road, value in self.bulk_moduli.items())
        return f"thermal expansion in 1e-6/K; B at V0: {moduli}"


def compare_expansions(result: QuasiHarmonic) -> ExpansionComparison | None:
    """Return the volumetric expansions of a result, and those along axes that differ.

    None if the expansion at one volume was not computed.
    """
    expansion = result.expansion
    if expansion is None:
        return None
    slope, modulus = _at_rest(result, expansion)
    path, temperatures = result.phonopy, expansion.temperatures
    roads = {
        "ANALYTIC, V0": expansion.volumetric,
        "VOLUMES, V0": slope,
        "QHA, V(T)": np.interp(temperatures, path.temperatures, path.thermal_expansion),
    }
    if path.lattice is not None:
        samples = fitted(result.samples)
        nearest = min(samples, key=lambda sample: abs(sample.volume - expansion.volume))
        axial = path.lattice.axial_thermal_expansions
        roads |= _axial(expansion, nearest.phonon.unitcell.cell, path.temperatures, axial)
    moduli = {"from elastic constants": expansion.bulk_modulus, "from the volumes": modulus}
    return ExpansionComparison(temperatures, roads, moduli)


def compare_axial_expansions(result: AnisotropicQuasiHarmonic) -> ExpansionComparison | None:
    """Return expansions of a result, volumetric and along axes.

    None if the expansion at one shape was not computed.
    """
    expansion = result.expansion
    if expansion is None:
        return None
    surface, temperatures = result.phonopy, expansion.temperatures
    roads = {
        "ANALYTIC, V0": expansion.volumetric,
        "QHA, V(T)": np.interp(temperatures, surface.temperatures, surface.thermal_expansion),
    }
    cell = result.samples[0].phonon.unitcell.cell
    axial = surface.axial_thermal_expansions
    roads |= _axial(expansion, cell, surface.temperatures, axial)
    return ExpansionComparison(
        temperatures, roads, {"from elastic constants": expansion.bulk_modulus}
    )


def _at_rest(
    result: QuasiHarmonic, expansion: ThermalExpansion
) -> tuple[Float[ndarray, " n"], float]:
    """Return α (1/K) at V0 and the bulk modulus (GPa) there from the volumes alone."""
    samples, path = fitted(result.samples), result.phonopy
    volumes = np.array([sample.volume for sample in samples])
    enthalpies = np.array([sample.energy for sample in samples]) + result.pressure * GPa * volumes
    modulus = float(fit_to_eos(volumes, enthalpies, get_eos(path.eos_name))[1])
    polynomials = path.heat_capacity_P.volume_entropy_parameters  # from the second temperature on
    slopes = [np.polyval(np.polyder(p), expansion.volume) for p in polynomials]
    alpha = np.interp(expansion.temperatures, path.temperatures[1:], np.array(slopes) / modulus)
    return alpha, modulus / GPa


def _axial(
    expansion: ThermalExpansion,
    cell: Float[ndarray, "3 3"],
    temperatures: Float[ndarray, " n"],
    axial: Float[ndarray, "n 3"],
) -> dict[str, Float[ndarray, " compared"]]:
    """Return columns for lattice vectors of different lengths; none if all are equal."""
    lengths = np.linalg.norm(cell, axis=1)
    first = [k for k in range(3) if not np.isclose(lengths[k], lengths[:k], rtol=1e-5).any()]
    if len(first) == 1:
        return {}
    analytic = expansion.along(cell)
    roads = {}
    for k in first:
        roads[f"{'abc'[k]}: ANALYTIC, V0"] = analytic[:, k]
        roads[f"{'abc'[k]}: QHA"] = np.interp(expansion.temperatures, temperatures, axial[:, k])
    return roads

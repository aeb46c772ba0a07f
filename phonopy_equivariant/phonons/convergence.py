"""How thermal functions change with mesh and supercell, with the exact D(q) as the limit."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from phonopy import Phonopy
from phonopy.physical_units import get_physical_units

from phonopy_equivariant.phonons.cells import masses_break_symmetry
from phonopy_equivariant.phonons.samples import save_plots
from phonopy_equivariant.results import Result


class ThermalState(NamedTuple):
    """What is watched, per primitive cell."""

    free_energy: float  # eV
    entropy: float  # eV/K
    heat_capacity: float  # eV/K
    highest: float  # THz

    def change(self, other: ThermalState, temperature: float, atoms: int) -> float:
        """Return the largest difference in units of 3NkT, 3Nk, 3Nk and the highest frequency."""
        classical = 3 * atoms * float(get_physical_units().KB)
        scales = np.array([classical * temperature, classical, classical, other.highest])
        return float((np.abs(np.array(self) - np.array(other)) / scales).max())


@dataclasses.dataclass(frozen=True)
class Step:
    """One mesh or supercell.

    Parameters
    ----------
    supercell
        Numbers of its matrix as text; empty for the exact D(q).
    atoms
        Of the supercell; 0 for the exact D(q).
    mesh
        Numbers of the mesh.
    state
        Thermal functions.
    change
        From the mesh before, or from the exact D(q) on the same mesh; None for the first mesh.

    """

    supercell: str
    atoms: int
    mesh: tuple[int, int, int]
    state: ThermalState
    change: float | None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Convergence(Result):
    """Meshes with the exact D(q), then supercells on the last mesh.

    Parameters
    ----------
    model
        Name of the potential.
    temperature
        K.
    tolerance
        Of changes, as in :class:`ThermalState`.
    meshes, supercells
        In their order; changes of meshes are from the one before, those of supercells from the
        exact D(q).

    """

    model: str
    temperature: float
    tolerance: float
    meshes: tuple[Step, ...]
    supercells: tuple[Step, ...]

    @property
    def mesh(self) -> tuple[int, int, int] | None:
        """The mesh that suffices (a finer one changes results by less than the tolerance)."""
        for coarse, fine in zip(self.meshes, self.meshes[1:], strict=False):
            if fine.change is not None and fine.change <= self.tolerance:
                return coarse.mesh
        return None

    @property
    def supercell(self) -> Step | None:
        """The smallest supercell that suffices; None if none does."""
        for step in self.supercells:
            if step.change is not None and step.change <= self.tolerance:
                return step
        return None

    def columns(self) -> list[str]:
        """Return the headings of the table."""
        units = ["F (meV)", "S (J/K/mol)", "Cv (J/K/mol)", "HIGHEST (THz)"]
        return ["SUPERCELL", "ATOMS", "MESH", *units, "CHANGE"]

    def rows(self) -> list[list[str]]:
        """Return a row for each step, per primitive cell."""
        molar = 1000 * get_physical_units().EvTokJmol
        return [
            [
                step.supercell or "exact",
                str(step.atoms or ""),
                " ".join(map(str, step.mesh)),
                f"{1000 * step.state.free_energy:.4f}",
                f"{molar * step.state.entropy:.4f}",
                f"{molar * step.state.heat_capacity:.4f}",
                f"{step.state.highest:.4f}",
                "" if step.change is None else f"{step.change:.1e}",
            ]
            for step in (*self.meshes, *self.supercells)
        ]

    def heading(self) -> str:
        """Return one line: what suffices."""
        mesh = "no mesh" if self.mesh is None else f"mesh {' '.join(map(str, self.mesh))}"
        cell = self.supercell
        supercell = "no supercell" if cell is None else f"supercell {cell.supercell}"
        return (
            f"Within {self.tolerance:g} of 3NkT, 3Nk, 3Nk and the highest frequency at "
            f"{self.temperature:g} K: {mesh}, {supercell}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; energies in eV per primitive cell."""
        cell = self.supercell
        return super().to_dict() | {
            "sufficient_mesh": None if self.mesh is None else list(self.mesh),
            "sufficient_supercell": None if cell is None else cell.supercell,
        }

    def write_plot(self, folder: str | os.PathLike[str]) -> list[str]:
        """Write ``converge.pdf``: changes over meshes and over supercells."""
        return save_plots(folder, {"converge.pdf": _draw}, self)


def thermal_state(phonon: Phonopy, mesh: Sequence[int], temperature: float) -> ThermalState:
    """Return thermal functions on a mesh with Γ, without the acoustic modes there.

    Parameters
    ----------
    phonon
        With force constants, or in exact mode.
    mesh
        Three numbers.
    temperature
        K.

    """
    symmetric = not masses_break_symmetry(phonon)
    sampled = phonon.run_mesh(list(mesh), is_gamma_center=True, is_mesh_symmetry=symmetric)
    thermal: Any = phonon.run_thermal_properties(
        temperatures=[temperature], exclude_gamma_acoustic=True
    )
    molar = get_physical_units().EvTokJmol
    return ThermalState(
        float(thermal.free_energy[0]) / molar,
        float(thermal.entropy[0]) / (1000 * molar),
        float(thermal.heat_capacity[0]) / (1000 * molar),
        float(np.max(sampled.frequencies)),
    )


def _draw(result: Convergence) -> Any:
    """Draw the changes on logarithmic axes, and the tolerance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, steps, label in (
        (left, result.meshes, "q of the mesh"),
        (right, result.supercells, "atoms of the supercell"),
    ):
        sizes = [step.atoms or int(np.prod(step.mesh)) for step in steps]
        changes = [np.nan if step.change is None else step.change for step in steps]
        axes.loglog(sizes, changes, "o-")
        axes.axhline(result.tolerance, color="0.6", linestyle="--")
        axes.set_xlabel(label)
    left.set_ylabel("largest change")
    left.set_title("exact D(q), from the mesh before")
    right.set_title("from the exact D(q)")
    return figure

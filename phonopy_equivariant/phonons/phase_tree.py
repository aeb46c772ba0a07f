"""What following imaginary modes gives: crystals, and the distortions between them."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from ase import Atoms
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.phonons.same_crystal import StandardCell
from phonopy_equivariant.phonons.samples import save_plots
from phonopy_equivariant.phonons.stability import q_text
from phonopy_equivariant.results import Result, plain

_MEV = 1000.0


@dataclasses.dataclass(frozen=True, eq=False)
class UnstableModes:
    """A degenerate set of imaginary modes of a crystal.

    Parameters
    ----------
    qpoint
        In units of the reciprocal vectors of the crystal's primitive cell.
    cells
        Primitive cells of the smallest supercell that they fit into.
    frequency
        THz, negative.
    degeneracy, irrep
        Number of modes, and their symbol in the point group of q; empty where it has none.

    """

    qpoint: tuple[float, ...]
    cells: int
    frequency: float
    degeneracy: int
    irrep: str

    def text(self) -> str:
        """Return symbol and q."""
        return f"{self.irrep or f'{self.degeneracy} modes'} at {q_text(self.qpoint)}"


@dataclasses.dataclass(frozen=True, eq=False)
class Distortion:
    """One direction of a set of imaginary modes, followed.

    Parameters
    ----------
    parent
        Number of the crystal whose modes they are.
    modes
        The modes.
    amplitudes, energies
        Largest displacement of an atom (Å), and energy (eV per formula unit) above that of the
        undistorted crystal, in its cell.
    child
        Number of the crystal that a relaxation ends in; None if it did not end.
    remark
        Why not.

    """

    parent: int
    modes: UnstableModes
    amplitudes: Float[ndarray, " n"]
    energies: Float[ndarray, " n"]
    child: int | None
    remark: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """A relaxed crystal.

    Parameters
    ----------
    atoms
        Its primitive cell, in spglib's setting.
    number, symbol
        Of the space group.
    energy
        eV per formula unit.
    depth
        Distortions from the crystal that was given.
    modes
        Imaginary modes, the lowest first; None if they were not looked for.
    lowest
        Lowest frequency (THz) at the q looked at; None if they were not looked at.
    remark
        What was left out.

    """

    atoms: Atoms
    number: int
    symbol: str
    energy: float
    depth: int
    modes: tuple[UnstableModes, ...] | None = None
    lowest: float | None = None
    remark: str = ""

    @property
    def stable(self) -> bool | None:
        """Whether there is no imaginary mode at the q looked at; None if none was."""
        return None if self.modes is None else not self.modes

    @property
    def standard(self) -> StandardCell:
        """The cell as it is compared."""
        return StandardCell(self.atoms, self.number, self.symbol)

    def status(self) -> str:
        """Return one or two words."""
        if self.stable is None:
            return "not looked at"
        return "stable" if self.stable else "unstable"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PhaseTree(Result):
    """Crystals that imaginary modes lead to, from one that was given.

    Parameters
    ----------
    model
        Name of the potential.
    formula
        Formula unit that energies are per.
    max_cells, threshold
        Largest supercell of the q looked at, and how far (THz) below zero a frequency counts.
    phases
        The crystals; the first is the one given, relaxed in its space group.
    distortions
        What led from one to another.
    finished
        Whether everything unstable was followed.
    remarks
        Limits that were met.

    """

    model: str
    formula: str
    max_cells: int
    threshold: float
    phases: tuple[Phase, ...]
    distortions: tuple[Distortion, ...]
    finished: bool
    remarks: tuple[str, ...] = ()

    @property
    def lowest(self) -> Phase:
        """The crystal of lowest energy."""
        return min(self.phases, key=lambda phase: phase.energy)

    @property
    def stable(self) -> tuple[Phase, ...]:
        """The crystals without imaginary modes, the lowest energy first."""
        phases = [phase for phase in self.phases if phase.stable]
        return tuple(sorted(phases, key=lambda phase: phase.energy))

    def gain(self, phase: Phase) -> float:
        """Return by how much (meV per formula unit) a crystal is below the one given."""
        return (self.phases[0].energy - phase.energy) * _MEV

    def columns(self) -> list[str]:
        """Return the headings of the table."""
        gain = f"GAIN (meV/{self.formula})"
        return ["#", "SPACE GROUP", "ATOMS", gain, "LOWEST (THz)", "STATUS", "FROM"]

    def rows(self) -> list[list[str]]:
        """Return a row for each crystal, with the modes that lead to it."""
        rows = []
        for number, phase in enumerate(self.phases):
            origins = [
                f"{step.parent + 1} {step.modes.text()}"
                for step in self.distortions
                if step.child == number and step.parent != number
            ]
            lowest = "" if phase.lowest is None else f"{phase.lowest:.3f}"
            rows.append(
                [
                    str(number + 1),
                    f"{phase.symbol} ({phase.number})",
                    str(len(phase.atoms)),
                    f"{self.gain(phase):.3f}",
                    lowest,
                    phase.status(),
                    ", ".join(dict.fromkeys(origins)) or ("given" if number == 0 else ""),
                ]
            )
        return rows

    def heading(self) -> str:
        """Return one line: what the crystal ends in."""
        best = self.lowest
        number = self.phases.index(best) + 1
        ending = "" if self.finished else "; not everything unstable was followed"
        return (
            f"Lowest: {number}, {best.symbol}, {self.gain(best):.3f} meV/{self.formula} below the "
            f"crystal given, {best.status()} at the q of up to {self.max_cells} cells{ending}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; crystals are counted from 1."""
        phases = [
            {
                "number": index + 1,
                "space_group": phase.symbol,
                "space_group_number": phase.number,
                "atoms": len(phase.atoms),
                "energy": phase.energy,
                "gain": self.gain(phase),
                "depth": phase.depth,
                "stable": phase.stable,
                "lowest_frequency": phase.lowest,
                "imaginary_modes": phase.modes,
                "remark": phase.remark,
                "lattice": phase.atoms.cell.array,
                "symbols": phase.atoms.get_chemical_symbols(),
                "coordinates": phase.atoms.get_scaled_positions(),
            }
            for index, phase in enumerate(self.phases)
        ]
        steps = [
            {
                "from": step.parent + 1,
                "to": None if step.child is None else step.child + 1,
                "modes": step.modes,
                "amplitudes": step.amplitudes,
                "energies": step.energies,
                "remark": step.remark,
            }
            for step in self.distortions
        ]
        units = {
            "energy": f"eV/{self.formula}",
            "gain": f"meV/{self.formula}",
            "frequency": "THz, negative if imaginary",
            "amplitudes": "angstrom, the largest displacement of an atom",
        }
        content: dict[str, Any] = plain(
            {
                "model": self.model,
                "formula": self.formula,
                "max_cells": self.max_cells,
                "threshold": self.threshold,
                "finished": self.finished,
                "remarks": self.remarks,
                "units": units,
                "crystals": phases,
                "distortions": steps,
            }
        )
        return content

    def write_plot(self, folder: str | os.PathLike[str]) -> list[str]:
        """Write ``unstable.pdf``: energies of the crystals, and the distortions between them."""
        return save_plots(folder, {"unstable.pdf": _draw}, self)


def _draw(tree: PhaseTree) -> Any:
    """Draw levels over depth; filled ones are stable."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    level = [-tree.gain(phase) for phase in tree.phases]
    for step in tree.distortions:
        if step.child is not None and step.child != step.parent:
            places = [tree.phases[step.parent].depth, tree.phases[step.child].depth]
            axes.plot(places, [level[step.parent], level[step.child]], "-", color="0.75", zorder=1)
    for phase, height in zip(tree.phases, level, strict=True):
        fill = "tab:blue" if phase.stable else "white"
        axes.plot(phase.depth, height, "o", color="tab:blue", markerfacecolor=fill, zorder=2)
        axes.annotate(
            phase.symbol, (phase.depth, height), xytext=(6, 3), textcoords="offset points"
        )
    axes.set_xlabel("distortions")
    axes.set_ylabel(f"energy (meV/{tree.formula})")
    axes.set_xticks(range(1 + max(phase.depth for phase in tree.phases)))
    axes.margins(x=0.2)
    return figure

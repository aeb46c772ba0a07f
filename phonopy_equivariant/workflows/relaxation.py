"""Relax a structure and report the relaxation."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

from ase import Atoms
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.calculators.relax import (
    RelaxationStep,
    distance,
    relax,
    symmetrise,
)
from phonopy_equivariant.io.crystals import Crystal, crystal_atoms
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.results import Result
from phonopy_equivariant.workflows.options import RelaxationOptions
from phonopy_equivariant.workflows.progress import Progress


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Relaxation(Result):
    """A relaxed crystal.

    Parameters
    ----------
    model
        Name of the potential.
    start, relaxed
        The structure given, and the relaxed one.
    moved
        Distance (Å) by which atoms moved to make the symmetry exact.
    first, last
        Energy, force and stress before and after.

    """

    model: str
    start: Atoms
    relaxed: Atoms
    moved: float
    first: RelaxationStep
    last: RelaxationStep

    def rows(self) -> list[list[str]]:
        """Return a row for energy, force, stress and volume, before and after, among others."""
        first, last = self.first, self.last
        return [
            ["potential", self.model],
            ["symmetry", f"atoms moved by up to {self.moved:.1e} Å to make it exact"],
            ["steps", f"{last.step}"],
            ["energy", f"{first.energy:.6f} -> {last.energy:.6f} eV"],
            ["force", f"{first.max_force:.1e} -> {last.max_force:.1e} eV/Å"],
            ["stress", f"{first.max_stress:.1e} -> {last.max_stress:.1e} GPa"],
            ["volume", f"{self.start.get_volume():.4f} -> {self.relaxed.get_volume():.4f} Å³"],
        ]


def relax_structure(
    atoms: Atoms, potential: Potential, options: RelaxationOptions, progress: Progress
) -> Relaxation:
    """Return a crystal relaxed in its space group.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`phonopy_equivariant.relax`.

    """
    symmetric = symmetrise(atoms, options.symprec, options.cell)
    with _watched(progress) as (show, steps):
        relaxed = relax(
            symmetric,
            potential,
            options.fmax,
            options.cell,
            options.symprec,
            callback=show,
            constant_volume=options.constant_volume,
            pressure=options.pressure,
        )
    moved = distance(atoms, symmetric)
    return Relaxation(potential.name, atoms, relaxed, moved, steps[0], steps[-1])


def relax_crystal(
    crystal: Crystal, potential: Potential, options: RelaxationOptions, progress: Progress
) -> Crystal:
    """Return a crystal with its unit cell relaxed; order of atoms and masses stay.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`phonopy_equivariant.relax`.

    """
    result = relax_structure(crystal_atoms(crystal), potential, options, progress)
    last = result.last
    progress.say(
        f"Relaxed in {last.step} steps: force {last.max_force:.1e} eV/Å, "
        f"stress {last.max_stress:.1e} GPa"
    )
    return with_cell(crystal, result.relaxed)


def with_cell(crystal: Crystal, atoms: Atoms) -> Crystal:
    """Return a crystal with the cell and positions of ``atoms``, in the order of its own."""
    before = crystal.unitcell
    unitcell = PhonopyAtoms(
        symbols=before.symbols,
        positions=atoms.positions,
        cell=atoms.cell.array,
        masses=before.masses,
        magnetic_moments=before.magnetic_moments,
    )
    return dataclasses.replace(crystal, unitcell=unitcell)


@contextlib.contextmanager
def _watched(
    progress: Progress,
) -> Iterator[tuple[Callable[[RelaxationStep], None], list[RelaxationStep]]]:
    """Show the steps of a relaxation; yield the callback for it and the list it fills."""
    steps: list[RelaxationStep] = []
    with progress.stage("Relaxing"):

        def show(step: RelaxationStep) -> None:
            steps.append(step)
            progress.detail(f"  {step.text()}, stress {step.max_stress:.1e} GPa")

        yield show, steps

"""A molecule from options to vibrations and files: ``phonopy-equivariant molecule``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ase import Atoms
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.checkpoints.summary import familiarity_remarks
from phonopy_equivariant.molecules.analysis import (
    MolecularVibrations,
    Thermochemistry,
    analyse_hessian,
    vibrations,
)
from phonopy_equivariant.molecules.derivatives import (
    read_dipole_derivatives,
    read_hessian,
    read_polarizability_derivatives,
)
from phonopy_equivariant.molecules.relaxation import NewtonStep, relax
from phonopy_equivariant.molecules.remarks import remarks, summary_lines
from phonopy_equivariant.molecules.spectrum import plot_spectrum
from phonopy_equivariant.molecules.writers import (
    write_hessian,
    write_molden,
    write_xyz,
    write_yaml,
)
from phonopy_equivariant.workflows.options import MoleculeOptions
from phonopy_equivariant.workflows.progress import Progress

if TYPE_CHECKING:  # brings JAX, which a Hessian from a file does without
    from phonopy_equivariant.potential import Potential

SUFFIXES = (".yaml", ".xyz", ".molden", ".png", ".json")


@dataclasses.dataclass(frozen=True)
class MoleculeResult:
    """Vibrations, thermochemistry, and where the Hessian comes from."""

    vibrations: MolecularVibrations
    gas: Thermochemistry
    source: dict[str, str]

    def lines(self) -> list[str]:
        """Return the lines below the table of modes: symmetry and thermochemistry."""
        return summary_lines(self.vibrations, self.gas)

    def write(self, name: str, width: float) -> None:
        """Write all files, ``name`` with each of :data:`SUFFIXES`; line width in cm⁻¹."""
        write_yaml(self.vibrations, f"{name}.yaml", self.gas, self.source)
        write_xyz(self.vibrations, f"{name}.xyz")
        write_molden(self.vibrations, f"{name}.molden")
        write_hessian(self.vibrations, f"{name}.json")
        plot_spectrum(self.vibrations, f"{name}.png", width)


def molecule_vibrations(
    molecule: Atoms, potential: Potential | None, options: MoleculeOptions, progress: Progress
) -> MoleculeResult:
    """Return the vibrations of a molecule from a potential, or from a Hessian in a file.

    Raises
    ------
    PhonopyEquivariantError
        The structure is not a molecule, a file does not belong to it, the potential does not know
        an element, the relaxation does not converge, or the state of the ideal gas does not exist.

    """
    derivatives = _file_derivatives(molecule, options)
    if potential is None:
        assert options.hessian is not None
        values = read_hessian(options.hessian, molecule)
        with progress.stage("Normal modes and symmetry"):
            result = analyse_hessian(molecule, values, options.symmetry_tolerance, *derivatives)
        source = {"hessian": str(options.hessian)}
    else:
        if options.relax:
            molecule = _relaxed(molecule, potential, options.fmax, progress)
        with progress.stage(f"Hessian of {len(molecule)} atoms, normal modes and symmetry"):
            result = vibrations(molecule, potential, options.symmetry_tolerance, *derivatives)
        for remark in familiarity_remarks(potential, molecule):
            progress.warn(remark)
        source = {
            "potential": potential.name,
            "potential_sha256": potential.sha256,
            "dtype": potential.dtype,
        }
    gas = result.thermochemistry(options.temperature, options.pressure, options.spin)
    for remark in remarks(result, gas.spin):
        progress.warn(remark)
    return MoleculeResult(result, gas, source)


def _file_derivatives(
    molecule: Atoms, options: MoleculeOptions
) -> tuple[Float[ndarray, "atoms 3 3"] | None, Float[ndarray, "atoms 3 3 3"] | None]:
    """Return dipole and polarizability derivatives of the files that are given."""
    born, raman = options.born, options.raman
    return (
        None if born is None else read_dipole_derivatives(born, molecule),
        None if raman is None else read_polarizability_derivatives(raman, molecule),
    )


def _relaxed(molecule: Atoms, potential: Potential, fmax: float, progress: Progress) -> Atoms:
    last: list[NewtonStep] = []
    with progress.stage("Relaxing") as update:

        def show(step: NewtonStep) -> None:
            last[:] = [step]
            line = f"step {step.step}, force {step.max_force:.1e} eV/Å, energy {step.energy:.4f} eV"
            update(line)
            progress.detail(f"  {line}")

        relaxed = relax(molecule, potential, fmax, callback=show)
    progress.say(f"Relaxed in {last[0].step} Newton steps: force {last[0].max_force:.1e} eV/Å")
    return relaxed

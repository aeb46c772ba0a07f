"""The phonons of a crystal at several volumes, from one recipe."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int
from numpy import ndarray
from phonopy import Phonopy
from phonopy.cui.settings import PhonopySettings
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.calculators.relax import relax
from phonopy_equivariant.checkpoints.summary import familiarity_remarks
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.build import build_phonon, set_born_charges
from phonopy_equivariant.io.crystals import Crystal, crystal_atoms
from phonopy_equivariant.io.outputs import write_params
from phonopy_equivariant.io.supercells import select_supercell, supercell_line
from phonopy_equivariant.phonons.exact import use_exact_dynamical_matrix
from phonopy_equivariant.phonons.exact_script import hold_folded
from phonopy_equivariant.phonons.force_constants import set_force_constants
from phonopy_equivariant.phonons.samples import Sample, SampledPhonopy, mesh_numbers
from phonopy_equivariant.phonons.stability import stability
from phonopy_equivariant.phonons.thermal_expansion import ThermalExpansion, thermal_expansion
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.workflows.options import QHAOptions, RelaxationOptions
from phonopy_equivariant.workflows.phonons import begin_response
from phonopy_equivariant.workflows.progress import Progress
from phonopy_equivariant.workflows.relaxation import relax_crystal, with_cell
from phonopy_equivariant.workflows.run import provenance

# Å; Grüneisen parameters vary slowly with q, and their mesh need not be finer
COMPARISON_MESH = 40.0
COMPARISON_TEMPERATURES = (50.0, 100.0, 200.0, 300.0)  # K, or the nearest that are computed


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is the same at every volume of a crystal."""

    potential: Potential
    options: QHAOptions
    matrix: Int[ndarray, "3 3"]
    settings: PhonopySettings
    charges: Mapping[str, Any] | None
    mesh: tuple[int, int, int]

    def relaxed(self, crystal: Crystal, shape: bool) -> Crystal:
        """Return a crystal relaxed at its volume, or in its cell if ``shape`` is false."""
        atoms = relax(
            crystal_atoms(crystal),
            self.potential,
            self.options.fmax,
            shape,
            self.options.symprec,
            constant_volume=True,
        )
        return with_cell(crystal, atoms)

    def sample(self, crystal: Crystal, index: int, direct: bool = False) -> Sample:
        """Return the phonons of a crystal; keep them in a file if that is asked for.

        With ``direct`` D(q) is computed between the q of the supercell too, to see whether it
        suffices.
        """
        phonon = build_phonon(crystal, self.matrix, self.settings, SampledPhonopy)
        if self.charges is not None:
            phonon.nac_params = self.charges  # type: ignore[assignment]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "isotopes on equivalent sites")  # meshes know
            if self.options.phonons.exact:
                tolerance = self.options.phonons.tolerance
                use_exact_dynamical_matrix(phonon, self.potential, tolerance)
                hold_folded(phonon)
            else:
                set_force_constants(phonon, self.potential)
        phonon.run_mesh(list(self.mesh))
        energy = self.potential.evaluate(phonon.primitive).energy
        modes = stability(phonon, self.potential if direct else None, self.mesh)
        if modes.imaginary and not direct:  # of the crystal, or of the supercell?
            modes = stability(phonon, self.potential, self.mesh)
        if self.options.keep is not None:
            path = Path(self.options.keep) / params_file(index)
            write_params(phonon, path, provenance(self.potential) | {"energy": f"{energy:.10f}"})
        return Sample(phonon, energy, modes)

    def expansion(self, crystal: Crystal, progress: Progress) -> ThermalExpansion | None:
        """Return thermal expansion at one volume; None if it is not asked for, or cannot be."""
        steps = {max(1, round(t / self.options.tstep)) for t in COMPARISON_TEMPERATURES}
        temperatures = [k * self.options.tstep for k in sorted(steps)]
        temperatures = [t for t in temperatures if t <= self.options.tmax]
        if not self.options.compare or not temperatures:
            return None
        reference = build_phonon(crystal, np.eye(3, dtype=int), self.settings)
        coarse = mesh_numbers(reference, COMPARISON_MESH)
        mesh = [min(pair) for pair in zip(coarse, self.mesh, strict=True)]
        try:
            with progress.stage("Thermal expansion from Grüneisen parameters at one volume"):
                return thermal_expansion(reference.primitive, self.potential, temperatures, mesh)
        except PhonopyEquivariantError as error:
            progress.warn(f"no thermal expansion from one volume: {error}")
            return None


def params_file(index: int) -> str:
    """Return the name of the file with the phonons of a volume, counted from 0."""
    return f"phonopy_params-{index + 1:02d}.yaml"


def supercell_remark(sample: Sample) -> str:
    """Return a warning if the supercell does not suffice at a sample; empty if it does."""
    if sample.stability.sufficient is not False:
        return ""
    return f"the supercell {sample.stability.rows()[-1][1]}."


def at_rest(
    crystal: Crystal, potential: Potential, options: QHAOptions, progress: Progress
) -> Crystal:
    """Return a crystal relaxed at the pressure asked for."""
    begin_response(potential, progress)
    crystal = dataclasses.replace(crystal, dataset=None)
    relaxation = RelaxationOptions(options.fmax, symprec=options.symprec, pressure=options.pressure)
    return relax_crystal(crystal, potential, relaxation, progress)


def recipe_for(
    crystal: Crystal, potential: Potential, options: QHAOptions, progress: Progress
) -> Recipe:
    """Return what is the same at every volume, from the crystal at rest."""
    matrix, origin = select_supercell(crystal, options.phonons.supercell)
    progress.say(supercell_line(crystal.unitcell, matrix, origin))
    settings = PhonopySettings(load_phonopy_yaml=True)
    reference = build_phonon(crystal, np.eye(3, dtype=int), settings)
    # a cell that gains symmetry at some volume keeps its primitive cell
    settings.primitive_matrix = reference.primitive_matrix
    for remark in familiarity_remarks(potential, reference.primitive):
        progress.warn(remark)
    charges = _born_charges(reference, crystal, options, progress)
    mesh = mesh_numbers(reference, options.mesh)
    return Recipe(potential, options, matrix, settings, charges, mesh)


def _born_charges(
    reference: Phonopy, crystal: Crystal, options: QHAOptions, progress: Progress
) -> Mapping[str, Any] | None:
    """Return the Born charges asked for, that all volumes get."""
    if options.nac_params is None:
        return crystal.nac_params
    if not isinstance(options.nac_params, str):
        return options.nac_params
    source = set_born_charges(reference, crystal)
    if source:
        progress.say(f"Born charges: from {source}, the same at every volume")
    return reference.nac_params


def scaled(crystal: Crystal, volume: float) -> Crystal:
    """Return a crystal with its cell scaled to a volume (Å³)."""
    atoms = crystal_atoms(crystal)
    factor = (volume / atoms.get_volume()) ** (1 / 3)
    return _with_lattice(crystal, atoms, atoms.cell.array * factor)


def in_cell(crystal: Crystal, cell: PhonopyAtoms) -> Crystal:
    """Return a crystal with its fractional coordinates in the lattice of a cell."""
    return _with_lattice(crystal, crystal_atoms(crystal), cell.cell)


def _with_lattice(crystal: Crystal, atoms: Atoms, lattice: Float[ndarray, "3 3"]) -> Crystal:
    atoms.set_constraint()
    atoms.set_cell(lattice, scale_atoms=True)
    return with_cell(crystal, atoms)

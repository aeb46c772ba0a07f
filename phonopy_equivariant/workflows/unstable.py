"""Follow the imaginary modes of a crystal to structures that have none."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant import defaults
from phonopy_equivariant.calculators.relax import relax
from phonopy_equivariant.catalogue.bundled import DEFAULT_MODEL
from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.checkpoints.summary import familiarity_remarks
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.crystals import Crystal, as_crystal, crystal_atoms
from phonopy_equivariant.io.outputs import write_atoms
from phonopy_equivariant.phonons.order_parameters import (
    OrderParameter,
    distorted,
    order_parameter,
)
from phonopy_equivariant.phonons.phase_tree import Distortion, Phase, PhaseTree, UnstableModes
from phonopy_equivariant.phonons.same_crystal import are_same, standard_cell
from phonopy_equivariant.phonons.unstable_modes import (
    ImaginaryModes,
    imaginary_modes,
    mode_frequencies,
    small_qpoints,
)
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.symmetry.operations import Operations, obeyed, search
from phonopy_equivariant.structure import Structure, StructureLike, as_structure
from phonopy_equivariant.workflows.options import UnstableOptions
from phonopy_equivariant.workflows.phonons import begin_response
from phonopy_equivariant.workflows.progress import Progress, Silent

# Å: largest displacements of an atom along a mode, until the energy rises.
_AMPLITUDES = 0.01 * 1.5 ** np.arange(12)
# Å, within which a relaxed structure has the symmetry it fell into; and between equal crystals.
_RELAXED = 2e-3
_SAME = 0.02
# eV per formula unit, between equal crystals
_SAME_ENERGY = 2e-4


def follow_unstable_modes(
    structure: StructureLike | Crystal | str | os.PathLike[str],
    model: PotentialLike = DEFAULT_MODEL,
    *,
    max_cells: int = defaults.MAX_CELLS,
    max_atoms: int = defaults.MAX_ATOMS,
    max_structures: int = defaults.MAX_STRUCTURES,
    threshold: float = defaults.THRESHOLD,
    fmax: float = defaults.FMAX,
    folder: str | os.PathLike[str] | None = None,
) -> PhaseTree:
    """Return the structures that the imaginary modes of a crystal lead to, until none is left.

    The crystal is relaxed in its space group. D(q) is computed at Γ and at all q that fit into a
    supercell of a few primitive cells. For each degenerate set of imaginary modes the directions
    of highest symmetry are followed: the energy along each, and a relaxation of atoms and cell in
    the space group of the distorted cell, the smallest that the modes fit into. What comes out is
    looked at in the same way, the crystal of lowest energy first.

    Parameters
    ----------
    structure, model
        As in :func:`phonopy_equivariant.phonons`.
    max_cells
        Largest number of primitive cells of a supercell whose q are looked at; 2 stands for Γ and
        points half-way to a reciprocal lattice vector.
    max_atoms
        Largest number of atoms of a distorted cell; larger ones are named and not followed.
    max_structures
        Number of crystals after which to stop.
    threshold
        How far (THz) below zero a frequency must be to count as imaginary.
    fmax
        Largest force (eV/Å) after a relaxation.
    folder
        Where ``unstable.yaml`` and the structures are written, anew with each crystal: nothing
        computed is lost if the calculation is interrupted.

    Returns
    -------
    PhaseTree
        Crystals, energies, space groups, and the distortions between them.

    Warns
    -----
    UserWarning
        A limit is met; a structure far from the training data.

    Raises
    ------
    PhonopyEquivariantError
        A structure that is no sound crystal, an element the model does not know, options that
        mean nothing; the crystal given does not relax.

    Examples
    --------
    >>> import phonopy_equivariant as pe
    >>> tree = pe.follow_unstable_modes("SrTiO3.cif", "nequix-oam-1-pft")  # doctest: +SKIP
    >>> tree.lowest.symbol, tree.gain(tree.lowest)  # doctest: +SKIP

    """
    options = UnstableOptions(max_cells, max_atoms, max_structures, threshold, fmax)
    write = _ignore if folder is None else functools.partial(write_tree, folder)
    return unstable_crystal(as_crystal(structure), as_potential(model), options, Silent(), write)


def unstable_crystal(
    crystal: Crystal,
    potential: Potential,
    options: UnstableOptions,
    progress: Progress,
    report: Callable[[PhaseTree], None],
) -> PhaseTree:
    """Return the structures that imaginary modes lead to; ``report`` gets each tree so far.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`follow_unstable_modes`.

    """
    begin_response(potential, progress)
    search_for = _Search(potential, options, progress, report)
    search_for.start(crystal)
    while search_for.next_phase():
        pass
    return search_for.tree(finished=not search_for.remarks)


def write_tree(folder: str | os.PathLike[str], tree: PhaseTree) -> None:
    """Write ``unstable.yaml`` and the crystals of a tree as ``phase-NN.vasp``."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, phase in enumerate(tree.phases):
        write_atoms(phase.atoms, Path(folder) / phase_file(number))
    tree.write_yaml(Path(folder) / "unstable.yaml")


def phase_file(number: int) -> str:
    """Return the name of the file with a crystal, counted from 0."""
    return f"phase-{number + 1:02d}.vasp"


class _Search:
    """The crystals so far and what to do next."""

    def __init__(
        self,
        potential: Potential,
        options: UnstableOptions,
        progress: Progress,
        report: Callable[[PhaseTree], None],
    ):
        self.potential = potential
        self.options = options
        self.progress = progress
        self.report = report
        self.formula = ""
        self.phases: list[Phase] = []
        self.distortions: list[Distortion] = []
        self.remarks: list[str] = []

    def start(self, crystal: Crystal) -> None:
        """Relax the crystal given: the first phase."""
        atoms = crystal_atoms(crystal)
        if atoms.constraints:
            self.progress.say("Constraints of the file are not used.")
            atoms.set_constraint()
        cell = standard_cell(atoms, self.options.symprec)
        self.formula = cell.atoms.symbols.formula.reduce()[0].format("metal")
        for remark in familiarity_remarks(self.potential, cell.atoms):
            self.progress.warn(remark)
        with self.progress.stage(f"Relaxing in {cell.symbol}"):
            self.phases.append(self._relaxed(cell.atoms, 0))
        self.report(self.tree(finished=False))

    def tree(self, finished: bool) -> PhaseTree:
        """Return what there is."""
        return PhaseTree(
            self.potential.name,
            self.formula,
            self.options.max_cells,
            self.options.threshold,
            tuple(self.phases),
            tuple(self.distortions),
            finished,
            tuple(self.remarks),
        )

    def next_phase(self) -> bool:
        """Look at the crystal of lowest energy that was not; return whether there was one."""
        waiting = [k for k, phase in enumerate(self.phases) if phase.modes is None]
        if not waiting:
            return False
        number = min(waiting, key=lambda k: self.phases[k].energy)
        phase = self.phases[number]
        label = f"{number + 1}, {phase.symbol} of {len(phase.atoms)} atoms"
        structure = as_structure(phase.atoms)
        symmetry = obeyed(search(structure, self.options.symprec))
        with self.progress.stage(f"Modes of {label}"):
            parameters, lowest = self._order_parameters(structure, symmetry)
        modes = tuple(_summary(parameter) for parameter in parameters)
        self.phases[number] = dataclasses.replace(phase, modes=modes, lowest=lowest)
        texts = [f"{one.text()} ({one.frequency:.2f} THz)" for one in modes]
        self.progress.say(f"{label}: {', '.join(texts) or 'stable'}")
        for parameter, summary in zip(parameters, modes, strict=True):
            self._follow_modes(number, structure, parameter, summary)
        self.report(self.tree(finished=False))
        return True

    def _order_parameters(
        self, structure: Structure, symmetry: Operations
    ) -> tuple[list[OrderParameter], float]:
        places = small_qpoints(symmetry, self.options.max_cells)
        frequencies, vectors = mode_frequencies(self.potential, structure, places)
        sets = imaginary_modes(places, frequencies, vectors, self.options.threshold)
        return [order_parameter(structure, symmetry, one) for one in sets], float(frequencies.min())

    def _follow_modes(
        self, number: int, structure: Structure, parameter: OrderParameter, modes: UnstableModes
    ) -> None:
        atoms = len(structure.numbers) * modes.cells
        if atoms > self.options.max_atoms:
            self._stop(
                number,
                f"{modes.text()} needs a cell of {atoms} atoms, more than "
                f"max_atoms={self.options.max_atoms}",
            )
            return
        title = f"{modes.text()} of {number + 1}"
        for direction in self.progress.track(title, parameter.directions):
            if len(self.phases) >= self.options.max_structures:
                limit = f"max_structures={self.options.max_structures}"
                self._stop(number, f"{modes.text()} was not followed: {limit} is reached")
                return
            self._follow_direction(number, structure, parameter, direction, modes)
            self.report(self.tree(finished=False))

    def _follow_direction(
        self,
        number: int,
        structure: Structure,
        parameter: OrderParameter,
        direction: Float[ndarray, " waves"],
        modes: UnstableModes,
    ) -> None:
        undistorted, displacements = distorted(structure, parameter, direction)
        amplitudes, energies = self._along(undistorted, displacements)
        atoms = undistorted.copy()
        best = max(1, int(energies.argmin()))  # a well may be narrower than the first step
        atoms.positions += amplitudes[best] * displacements
        child, remark = None, ""
        try:
            child = self._place(self._relaxed(atoms, self.phases[number].depth + 1))
        except PhonopyEquivariantError as error:
            remark = str(error)
            self._stop(number, f"{modes.text()}: {remark}")
        self.distortions.append(Distortion(number, modes, amplitudes, energies, child, remark))

    def _along(
        self, undistorted: Atoms, displacements: Float[ndarray, "atoms 3"]
    ) -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
        """Return amplitudes and energies (eV per formula unit) until the energy rises."""
        amplitudes, energies = [0.0], [self._energy(undistorted)]
        for amplitude in _AMPLITUDES:
            atoms = undistorted.copy()
            atoms.positions += amplitude * displacements
            amplitudes.append(float(amplitude))
            energies.append(self._energy(atoms))
            if energies[-1] > energies[-2]:
                break
        return np.array(amplitudes), np.array(energies) - energies[0]

    def _relaxed(self, atoms: Atoms, depth: int) -> Phase:
        """Return a crystal relaxed in its space group, and again in the one it fell into."""
        relaxed = relax(atoms, self.potential, self.options.fmax, symprec=self.options.symprec)
        cell = standard_cell(relaxed, _RELAXED)
        again = relax(cell.atoms, self.potential, self.options.fmax, symprec=self.options.symprec)
        cell = standard_cell(again, self.options.symprec)
        return Phase(cell.atoms, cell.number, cell.symbol, self._energy(cell.atoms), depth)

    def _place(self, phase: Phase) -> int:
        """Return the number of a crystal: that of an equal one, or a new one."""
        for number, other in enumerate(self.phases):
            close = abs(phase.energy - other.energy) < _SAME_ENERGY
            if close and are_same(phase.standard, other.standard, _SAME):
                return number
        self.phases.append(phase)
        gain = 1000 * (self.phases[0].energy - phase.energy)
        self.progress.say(
            f"  {len(self.phases)}: {phase.symbol}, {len(phase.atoms)} atoms, "
            f"{gain:.3f} meV/{self.formula} below the crystal given"
        )
        return len(self.phases) - 1

    def _energy(self, atoms: Atoms) -> float:
        units = atoms.symbols.formula.reduce()[1]
        return self.potential.evaluate(atoms).energy / units

    def _stop(self, number: int, reason: str) -> None:
        remark = f"crystal {number + 1}: {reason}"
        if remark not in self.remarks:
            self.remarks.append(remark)
            self.progress.warn(f"{remark}.")


def _summary(parameter: OrderParameter) -> UnstableModes:
    modes: ImaginaryModes = parameter.modes
    x, y, z = (float(component) for component in modes.place.qpoint)
    return UnstableModes(
        (x, y, z),
        len(parameter.cell.images),
        modes.frequency,
        modes.vectors.shape[1],
        parameter.label,
    )


def _ignore(_tree: PhaseTree) -> None:
    """Report nothing."""

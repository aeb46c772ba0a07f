"""Self-consistent phonons of a crystal at temperatures: phonopy's SSCHA from analytic phonons."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray
from phonopy import Phonopy

from phonopy_equivariant import defaults
from phonopy_equivariant.calculators.mlp import PhonopyMLP
from phonopy_equivariant.catalogue.bundled import DEFAULT_MODEL
from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.checkpoints.summary import familiarity_remarks
from phonopy_equivariant.io.build import build_phonon
from phonopy_equivariant.io.crystals import Crystal, as_crystal
from phonopy_equivariant.io.outputs import write_params
from phonopy_equivariant.io.sscha_state import read_state, write_state
from phonopy_equivariant.io.supercells import (
    choose_supercell,
    dim_text,
    select_supercell,
    supercell_line,
    supercell_matrix,
)
from phonopy_equivariant.phonons.force_constants import set_force_constants
from phonopy_equivariant.phonons.sscha import (
    Forces,
    SelfConsistent,
    lowest_frequency,
    next_iteration,
)
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.results import Result
from phonopy_equivariant.structure import StructureLike
from phonopy_equivariant.workflows.options import PhononOptions, RelaxationOptions, SSCHAOptions
from phonopy_equivariant.workflows.phonons import begin_response, prepared_crystal
from phonopy_equivariant.workflows.progress import Progress, Silent
from phonopy_equivariant.workflows.run import provenance


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class SSCHA(Result):
    """Self-consistent phonons at several temperatures.

    Parameters
    ----------
    model
        Name of the potential.
    energy
        Of the crystal at rest, eV per primitive cell; free energies are above it.
    runs
        One for each temperature.

    """

    model: str
    energy: float
    runs: tuple[SelfConsistent, ...]

    def columns(self) -> list[str]:
        """Return the headings of the table."""
        return ["T (K)", "F (meV)", "ERROR", "LOWEST (THz)", "ANALYTIC", "CONVERGED"]

    def rows(self) -> list[list[str]]:
        """Return a row for each temperature; free energies per primitive cell."""
        words = {True: "yes", False: "no", None: "not known"}
        return [
            [
                f"{run.temperature:g}",
                f"{1000 * run.free_energy:.4f}",
                f"{1000 * run.free_energy_error:.4f}",
                f"{run.lowest:.4f}",
                f"{run.harmonic_lowest:.4f}",
                words[run.converged],
            ]
            for run in self.runs
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without force constants."""
        return {
            "model": self.model,
            "units": {"energy": "eV per primitive cell", "frequency": "THz, negative if imaginary"},
            "energy": self.energy,
            "temperatures": [run.to_dict() for run in self.runs],
        }


def sscha(
    structure: StructureLike | Crystal | str | os.PathLike[str],
    model: PotentialLike = DEFAULT_MODEL,
    temperature: float | Sequence[float] = defaults.SSCHA_TEMPERATURE,
    supercell: int | Sequence[int] | Sequence[Sequence[int]] | ndarray | None = None,
    *,
    relax: bool = False,
    snapshots: int = defaults.SNAPSHOTS,
    iterations: int = defaults.ITERATIONS,
    seed: int = 0,
    mesh: float | Sequence[int] = defaults.SSCHA_MESH,
    folder: str | os.PathLike[str] | None = None,
    restart: bool = False,
) -> SSCHA:
    """Return self-consistent harmonic phonons of a crystal at one or several temperatures.

    phonopy's ``MLPSSCHA``, started from the analytic force constants at each temperature.

    Parameters
    ----------
    structure, model
        As in :func:`phonopy_equivariant.phonons`.
    temperature
        K, one or several.
    supercell
        As in :func:`phonopy_equivariant.phonons`; by default the smallest one in which a sphere of
        10 Å diameter fits.
    relax
        Whether atoms and cell are relaxed first, in the space group, without temperature.
    snapshots, iterations
        Displaced supercells of an iteration, and number of iterations.
    seed
        Of the random displacements: the same seed gives the same numbers.
    mesh
        phonopy's mesh for the harmonic part of the free energy.
    folder
        Where ``sscha.yaml``, ``phonopy_params-TK.yaml`` of each temperature and the state after
        each iteration are written. A later call with the same folder goes on from there.
    restart
        Whether a state in the folder is thrown away.

    Returns
    -------
    SSCHA
        Its ``runs`` hold free energies, iterations and phonopy's object at each temperature.

    Warns
    -----
    UserWarning
        The free energy still drifts at the end; imaginary modes remain; a structure far from the
        training data.

    Raises
    ------
    PhonopyEquivariantError
        A structure that is no sound crystal, an element the model does not know, options that
        mean nothing, a folder with another calculation.

    Examples
    --------
    >>> import phonopy_equivariant as pe
    >>> result = pe.sscha("SrTiO3.cif", temperature=[100, 300], supercell=2)  # doctest: +SKIP
    >>> result.runs[1].phonon.auto_band_structure(plot=True).show()  # doctest: +SKIP

    """
    options = SSCHAOptions(
        tuple(float(t) for t in np.atleast_1d(temperature)),
        None if supercell is None else supercell_matrix(supercell),
        RelaxationOptions() if relax else None,
        snapshots,
        iterations,
        seed,
        mesh,
        folder,
        restart,
    )
    return sscha_of_crystal(as_crystal(structure), as_potential(model), options, Silent())


def sscha_of_crystal(
    crystal: Crystal, potential: Potential, options: SSCHAOptions, progress: Progress
) -> SSCHA:
    """Return self-consistent phonons of a crystal: see :func:`sscha`."""
    begin_response(potential, progress)
    crystal = prepared_crystal(
        crystal, potential, PhononOptions(relaxation=options.relaxation), progress
    )
    phonon, matrix = _analytic_phonon(crystal, potential, options, progress)
    harmonic = np.array(phonon.force_constants)
    settings = _settings(phonon, matrix, potential, options)
    forces = PhonopyMLP(potential)
    energy = potential.evaluate(phonon.primitive).energy
    if options.folder is not None:
        Path(options.folder).mkdir(parents=True, exist_ok=True)
    runs: list[SelfConsistent] = []
    for temperature in options.temperatures:
        phonon.force_constants = harmonic
        run = self_consistent(phonon, forces, temperature, options, progress, settings)
        runs.append(run)
        result = SSCHA(potential.name, energy, tuple(runs))
        if options.folder is not None:
            record = provenance(potential) | {"sscha_temperature": f"{temperature:g}"}
            name = Path(options.folder) / f"phonopy_params-{temperature:g}K.yaml"
            write_params(run.phonon, name, record)
            result.write_yaml(Path(options.folder) / "sscha.yaml")
    return result


def self_consistent(
    phonon: Phonopy,
    forces: Forces,
    temperature: float,
    options: SSCHAOptions,
    progress: Progress,
    settings: str = "",
) -> SelfConsistent:
    """Return self-consistent phonons at one temperature, from the force constants of ``phonon``.

    Parameters
    ----------
    phonon
        With force constants. They are replaced by those of the result in a copy only.
    forces
        Energies and forces of displaced supercells.
    temperature
        K.
    options
        Numbers of supercells and iterations, seed, mesh, folder.
    progress
        Gets a line for each iteration.
    settings
        What a state in the folder must belong to.

    Raises
    ------
    PhonopyEquivariantError
        The state in the folder is of another calculation; too few supercells.

    """
    path = None
    if options.folder is not None:
        path = Path(options.folder) / f"sscha-{temperature:g}K.npz"
        if options.restart:
            path.unlink(missing_ok=True)
    steps, matrices = ([], []) if path is None else read_state(path, settings)
    if steps:
        progress.say(f"{temperature:g} K: {len(steps)} iterations are in {path}.")
    current = phonon.replicate()
    current.nac_params = phonon.nac_params
    current.force_constants = matrices[-1] if matrices else phonon.force_constants
    coming = list(range(len(steps), options.iterations))
    for number in progress.track(f"{temperature:g} K, {len(coming)} iterations", coming):
        step, matrix = next_iteration(
            current,
            forces,
            temperature,
            options.snapshots,
            (options.seed, number),
            options.mesh,
        )
        steps.append(step)
        matrices.append(matrix)
        current.force_constants = matrix
        if path is not None:
            write_state(path, settings, steps, matrices)
        progress.detail(
            f"  {number + 1}: F = {1000 * step.free_energy:.3f} ± {1000 * step.error:.3f} meV, "
            f"lowest {step.lowest:.3f} THz"
        )
    used = slice(0, options.iterations)
    mean = np.mean(matrices[used][len(matrices[used]) // 2 :], axis=0)
    current.force_constants = mean
    run = SelfConsistent(
        temperature,
        options.snapshots,
        options.seed,
        lowest_frequency(phonon),
        tuple(steps[used]),
        mean,
        current,
    )
    for remark in run.remarks():
        progress.warn(remark)
    return run


def _analytic_phonon(
    crystal: Crystal, potential: Potential, options: SSCHAOptions, progress: Progress
) -> tuple[Phonopy, ndarray]:
    """Return phonopy's object with analytic force constants, and its supercell matrix."""
    requested = options.supercell
    if requested is None and crystal.supercell_matrix is None:
        requested = choose_supercell(crystal.unitcell, diameter=defaults.SSCHA_DIAMETER)
    matrix, origin = select_supercell(crystal, requested)
    origin = origin if options.supercell is not None else "chosen"
    progress.say(supercell_line(crystal.unitcell, matrix, origin))
    phonon = build_phonon(crystal, matrix)
    if crystal.nac_params is not None:
        phonon.nac_params = dict(crystal.nac_params)  # type: ignore[assignment]
    for remark in familiarity_remarks(potential, phonon.primitive):
        progress.warn(remark)
    with progress.stage(f"Force constants of {len(phonon.supercell)} atoms"):
        set_force_constants(phonon, potential)
    return phonon, matrix


def _settings(phonon: Phonopy, matrix: ndarray, potential: Potential, options: SSCHAOptions) -> str:
    """Return what iterations depend on, so that others are not taken for them."""
    cell = phonon.unitcell
    rounded = [np.round(values, 6) + 0.0 for values in (cell.cell, cell.positions, cell.numbers)]
    digest = hashlib.sha256(b"".join(values.tobytes() for values in rounded)).hexdigest()[:12]
    return (
        f"model={potential.name} {potential.sha256[:12]} {potential.dtype}; crystal {digest}; "
        f"supercell={dim_text(matrix)}; snapshots={options.snapshots}; seed={options.seed}; "
        f"mesh={options.mesh}"
    )

"""Grow mesh and supercell of a crystal until its thermal functions no longer change."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from phonopy import Phonopy

from phonopy_equivariant import defaults
from phonopy_equivariant.catalogue.bundled import DEFAULT_MODEL
from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.checkpoints.summary import familiarity_remarks
from phonopy_equivariant.io.build import build_phonon
from phonopy_equivariant.io.crystals import Crystal, as_crystal
from phonopy_equivariant.io.supercells import choose_supercell, count_atoms, dim_text
from phonopy_equivariant.phonons.convergence import Convergence, Step, ThermalState, thermal_state
from phonopy_equivariant.phonons.exact import use_exact_dynamical_matrix
from phonopy_equivariant.phonons.force_constants import set_force_constants
from phonopy_equivariant.phonons.samples import mesh_numbers
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.structure import StructureLike
from phonopy_equivariant.workflows.options import (
    ConvergenceOptions,
    PhononOptions,
    RelaxationOptions,
)
from phonopy_equivariant.workflows.phonons import begin_response, prepared_crystal
from phonopy_equivariant.workflows.progress import Progress, Silent

# Å: phonopy's lengths of meshes, and diameters of spheres inscribed in supercells.
_MESH_LENGTHS = (15.0, 20.0, 30.0, 45.0, 70.0, 100.0, 150.0, 225.0)
_DIAMETERS = np.arange(4.0, 42.0, 2.0)


def converge(
    structure: StructureLike | Crystal | str | os.PathLike[str],
    model: PotentialLike = DEFAULT_MODEL,
    *,
    tolerance: float = defaults.CONVERGENCE,
    temperature: float = 300.0,
    relax: bool = False,
    max_atoms: int = defaults.LARGEST_SUPERCELL,
) -> Convergence:
    """Return how thermal functions of a crystal converge with mesh and supercell.

    Meshes are made finer with the exact D(q), until free energy, entropy, heat capacity and the
    highest frequency change by less than the tolerance. On the last mesh supercells are made
    larger, until they differ from the exact D(q) by less than the tolerance. Born charges play no
    part.

    Parameters
    ----------
    structure, model
        As in :func:`phonopy_equivariant.phonons`.
    tolerance
        In units of 3NkT for the free energy, of 3Nk for entropy and heat capacity, and of the
        highest frequency.
    temperature
        K.
    relax
        Whether atoms and cell are relaxed first.
    max_atoms
        Of the largest supercell.

    Returns
    -------
    Convergence
        All steps; its ``mesh`` and ``supercell`` are those that suffice.

    Warns
    -----
    UserWarning
        No mesh or no supercell suffices; a structure far from the training data.

    Raises
    ------
    PhonopyEquivariantError
        A structure that is no sound crystal, an element the model does not know, options that
        mean nothing.

    Examples
    --------
    >>> import phonopy_equivariant as pe
    >>> pe.converge("NaCl.cif", tolerance=1e-3).supercell  # doctest: +SKIP

    """
    relaxation = RelaxationOptions() if relax else None
    options = ConvergenceOptions(tolerance, temperature, relaxation, max_atoms)
    return converge_crystal(as_crystal(structure), as_potential(model), options, Silent())


def converge_crystal(
    crystal: Crystal, potential: Potential, options: ConvergenceOptions, progress: Progress
) -> Convergence:
    """Return how thermal functions of a crystal converge: see :func:`converge`."""
    begin_response(potential, progress)
    settings = PhononOptions(relaxation=options.relaxation)
    crystal = prepared_crystal(crystal, potential, settings, progress)
    exact = build_phonon(crystal, np.eye(3, dtype=int))
    for remark in familiarity_remarks(potential, exact.primitive):
        progress.warn(remark)
    with progress.stage("Exact dynamical matrix"):
        use_exact_dynamical_matrix(exact, potential)
    meshes = _meshes(exact, options, progress)
    sampled: Any = exact.mesh  # phonopy's type has meshes without frequencies
    lowest = float(sampled.frequencies.min())
    if lowest < -defaults.THRESHOLD:
        progress.warn(
            f"the crystal has imaginary modes, down to {lowest:.2f} THz: thermal functions leave "
            "them out, and may not converge; the command unstable leads to a stable crystal."
        )
    last = meshes[-1]
    supercells = _supercells(crystal, potential, last, options, progress)
    result = Convergence(
        potential.name, options.temperature, options.tolerance, tuple(meshes), tuple(supercells)
    )
    if result.mesh is None:
        progress.warn("no mesh suffices; raise tolerance=.")
    if result.supercell is None:
        progress.warn(
            f"no supercell of up to max_atoms={options.max_atoms} suffices: raise max_atoms= or "
            "tolerance=, or compute phonons with exact=True."
        )
    return result


def _meshes(exact: Phonopy, options: ConvergenceOptions, progress: Progress) -> list[Step]:
    """Return meshes, each finer than the one before, up to the first that changes nothing."""
    steps: list[Step] = []
    with progress.stage("Meshes") as update:
        for length in _MESH_LENGTHS:
            mesh = mesh_numbers(exact, length)
            if steps and mesh == steps[-1].mesh:
                continue
            update(" ".join(map(str, mesh)))
            state = _state(exact, mesh, options.temperature)
            change = None
            if steps:
                atoms = len(exact.primitive)
                change = steps[-1].state.change(state, options.temperature, atoms)
            steps.append(Step("", 0, mesh, state, change))
            if change is not None and change <= options.tolerance:
                break
    return steps


def _supercells(
    crystal: Crystal,
    potential: Potential,
    exact: Step,
    options: ConvergenceOptions,
    progress: Progress,
) -> list[Step]:
    """Return supercells, each larger than the one before, up to the first that suffices."""
    steps: list[Step] = []
    for matrix in _growing_supercells(crystal, options.max_atoms):
        atoms = count_atoms(crystal.unitcell, matrix)
        with progress.stage(f"Supercell of {atoms} atoms"):
            phonon = build_phonon(crystal, matrix)
            phonon.nac_params = None
            set_force_constants(phonon, potential)
            state = _state(phonon, exact.mesh, options.temperature)
        change = state.change(exact.state, options.temperature, len(phonon.primitive))
        steps.append(Step(dim_text(matrix), atoms, exact.mesh, state, change))
        if change <= options.tolerance:
            break
    return steps


def _growing_supercells(crystal: Crystal, max_atoms: int) -> list[Int[ndarray, "3 3"]]:
    """Return the smallest supercells of growing inscribed diameter, without repetitions."""
    matrices: list[Int[ndarray, "3 3"]] = []
    for diameter in _DIAMETERS:
        matrix = choose_supercell(crystal.unitcell, diameter=float(diameter))
        if count_atoms(crystal.unitcell, matrix) > max_atoms:
            break
        if not any((matrix == other).all() for other in matrices):
            matrices.append(matrix)
    return matrices


def _state(phonon: Phonopy, mesh: tuple[int, int, int], temperature: float) -> ThermalState:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # imaginary modes of small supercells
        return thermal_state(phonon, mesh, temperature)

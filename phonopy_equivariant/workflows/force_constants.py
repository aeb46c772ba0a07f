"""Force constants of a crystal, or forces of its displaced supercells, in phonopy's files."""

from __future__ import annotations

import os

from phonopy import Phonopy

from phonopy_equivariant.checkpoints.summary import familiarity_remarks
from phonopy_equivariant.io.build import build_phonon, has_born_charges, set_born_charges
from phonopy_equivariant.io.crystals import Crystal
from phonopy_equivariant.io.outputs import write_force_constants, write_params
from phonopy_equivariant.io.supercells import select_supercell, supercell_line
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.workflows.force_sets import compute_force_sets, write_force_sets
from phonopy_equivariant.workflows.options import PhononOptions
from phonopy_equivariant.workflows.phonons import begin_response, compute_phonons
from phonopy_equivariant.workflows.progress import Progress
from phonopy_equivariant.workflows.run import CrystalPhonons, checked_modes, provenance


def force_constants_file(
    crystal: Crystal,
    potential: Potential,
    options: PhononOptions,
    path: str | os.PathLike[str],
    file_format: str,
    progress: Progress,
    born: bool = True,
) -> CrystalPhonons:
    """Write force constants as ``yaml`` (phonopy_params.yaml), ``FORCE_CONSTANTS`` or ``hdf5``.

    ``born`` tells whether Born charges go into the YAML file.

    Raises
    ------
    PhonopyEquivariantError
        A crystal, a supercell or Born charges that cannot be used.

    """
    begin_response(potential, progress)
    with_charges = born and file_format == "yaml"
    phonon = _built(crystal, options, progress, with_charges and has_born_charges(crystal))
    source = set_born_charges(phonon, crystal) if with_charges else None
    if source:
        progress.say(f"Born charges: from {source}")
    report = compute_phonons(phonon, potential, options, progress)
    if file_format == "yaml":
        write_params(phonon, path, provenance(potential))
    else:
        write_force_constants(phonon, path, file_format, crystal)
    return CrystalPhonons(phonon, report, checked_modes(phonon, potential, progress))


def force_sets_file(
    crystal: Crystal,
    potential: Potential,
    options: PhononOptions,
    path: str | os.PathLike[str],
    progress: Progress,
) -> None:
    """Write the forces of a file's displaced supercells as ``FORCE_SETS``.

    Raises
    ------
    PhonopyEquivariantError
        The file has no displacements, or a supercell that cannot be used.

    """
    phonon = _built(crystal, options, progress)
    dataset = compute_force_sets(phonon, potential, crystal, progress.track)
    for remark in familiarity_remarks(potential, phonon.supercell):
        progress.warn(remark)
    write_force_sets(dataset, path)


def _built(
    crystal: Crystal, options: PhononOptions, progress: Progress, polar: bool = False
) -> Phonopy:
    matrix, origin = select_supercell(crystal, options.supercell, polar=polar)
    progress.say(supercell_line(crystal.unitcell, matrix, origin))
    with progress.stage("Symmetry of the supercell"):
        return build_phonon(crystal, matrix)

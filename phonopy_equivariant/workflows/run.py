"""The ``run`` command: from a crystal and options to phonopy's output files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from phonopy import Phonopy
from phonopy.cui.settings import PhonopySettings
from phonopy.phonon.band_structure import get_band_qpoints, get_band_qpoints_by_seekpath

from phonopy_equivariant._version import __version__
from phonopy_equivariant.defaults import PHONON_MESH, PHONOPY_SYMPREC
from phonopy_equivariant.io.build import (
    build_phonon,
    check_indices,
    has_born_charges,
    set_born_charges,
)
from phonopy_equivariant.io.crystals import Crystal
from phonopy_equivariant.io.outputs import PARAMS_FILE, PROVENANCE, write_params
from phonopy_equivariant.io.supercells import select_supercell, supercell_line
from phonopy_equivariant.phonons.exact import ExactReport
from phonopy_equivariant.phonons.exact_script import exact_calculation, hold_folded
from phonopy_equivariant.phonons.gamma_modes import GammaModes, check_primitive, gamma_modes
from phonopy_equivariant.phonons.report import ForceConstantsReport, SymmetryReport
from phonopy_equivariant.phonons.stability import Stability, stability
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.workflows.calculations import Calculations
from phonopy_equivariant.workflows.options import PhononOptions
from phonopy_equivariant.workflows.phonons import (
    begin_response,
    compute_phonons,
    prepared_crystal,
)
from phonopy_equivariant.workflows.progress import Progress
from phonopy_equivariant.workflows.script import run_phonopy

# Force constants that obey the sum rule this well (eV/Å²) gain nothing from a projection.
NEGLIGIBLE_DRIFT = 1e-9
GAMMA_FILE = "gamma_modes.yaml"


@dataclasses.dataclass(frozen=True)
class CrystalPhonons:
    """The phonons of a crystal, before phonopy's script goes on with them.

    Parameters
    ----------
    phonon
        With force constants, or the exact D(q).
    report, stability
        How good they are; imaginary modes and whether the supercell suffices.
    modes
        The optical modes at Γ, if they were asked for.

    """

    phonon: Phonopy
    report: ForceConstantsReport | ExactReport
    stability: Stability
    modes: GammaModes | None = None

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        return self.report.lines() + self.stability.lines()


def crystal_phonons(
    crystal: Crystal,
    potential: Potential,
    options: PhononOptions,
    plan: Calculations,
    progress: Progress,
    table: bool = False,
) -> CrystalPhonons:
    """Return the phonons of a crystal for the calculations that phonopy's options ask for.

    All checks of the input come before anything is computed. With ``table`` the optical modes at Γ
    are part of the result.

    Raises
    ------
    PhonopyEquivariantError
        The crystal, supercell, masses or Born charges cannot be used; or the relaxation does not
        converge.

    """
    begin_response(potential, progress)
    settings = plan.first
    if options.relaxation is not None and settings.primitive_matrix is None:
        # an unusable primitive cell, mass or charge is refused before the relaxation
        _checked_phonon(crystal, np.eye(3, dtype=int), plan, table)
    crystal = prepared_crystal(crystal, potential, options, progress)
    matrix, origin = select_supercell(
        crystal,
        options.supercell,
        settings.symmetry_tolerance or PHONOPY_SYMPREC,
        polar=not options.exact and has_born_charges(crystal, settings),
    )
    progress.say(supercell_line(crystal.unitcell, matrix, origin))
    with progress.stage("Symmetry of the supercell"):
        phonon, born = _checked_phonon(crystal, matrix, plan, table)
    if born:
        progress.say(f"Born charges: from {born}")
    report = compute_phonons(phonon, potential, options, progress)
    modes = checked_modes(phonon, potential, progress, plan.mesh)
    return CrystalPhonons(phonon, report, modes, gamma_modes(phonon) if table else None)


def _checked_phonon(
    crystal: Crystal, matrix: Int[ndarray, "3 3"], plan: Calculations, table: bool
) -> tuple[Phonopy, str | None]:
    """Return phonopy's object and the source of its Born charges.

    Indices of bands and atoms, and the primitive cell of a table, are checked on the way.
    """
    phonon = build_phonon(crystal, matrix, plan.first)
    for settings in plan.settings:
        check_indices(phonon, settings)
    if table:
        check_primitive(phonon)
    return phonon, set_born_charges(phonon, crystal, plan.first)


def run_script(
    result: CrystalPhonons,
    potential: Potential,
    plan: Calculations,
    user_options: list[str],
    progress: Progress,
    observe: Callable[[Phonopy], None] | None = None,
) -> int:
    """Write phonopy_params.yaml, run phonopy's script on it, and return its exit status.

    Options that are added to those of the user are reported, those in ``user_options`` are not.
    ``observe`` is called as in :func:`.run_phonopy`.
    """
    phonon, report = result.phonon, result.report
    options = plan.options + _symmetry_options(report.symmetry)
    further = plan.settings[1:]
    if result.modes is not None:
        result.modes.write_yaml(GAMMA_FILE)
    if isinstance(report, ExactReport):
        matrix: Any = phonon.dynamical_matrix
        hold_folded(phonon)
        write_params(phonon, PARAMS_FILE, provenance(potential))
        progress.say(
            f"{PARAMS_FILE} holds force constants folded into the supercell; phonopy goes on "
            "without the supercell."
        )
        with exact_calculation(matrix):
            return run_phonopy(PARAMS_FILE, [*options, "--no-fc-symmetry"], further, observe)
    write_params(phonon, PARAMS_FILE, provenance(potential))
    options += ["--no-fc-symmetry"] * (report.sum_rule < NEGLIGIBLE_DRIFT)
    added = " ".join(word for word in options if word not in user_options)
    progress.say(f"Force constants are in {PARAMS_FILE}; phonopy goes on with {added}.")
    return run_phonopy(PARAMS_FILE, options, further, observe)


def checked_modes(
    phonon: Phonopy,
    potential: Potential,
    progress: Progress,
    settings: PhonopySettings | None = None,
) -> Stability:
    """Search imaginary modes on the mesh and the bands of phonopy's options; warn of each finding.

    Options without a mesh are searched on the mesh of :func:`plan_calculations`.
    """
    with progress.stage("Imaginary modes, and whether the supercell suffices"):
        if settings is None:
            result = stability(phonon, potential, PHONON_MESH)
        else:
            result = stability(
                phonon,
                potential,
                PHONON_MESH if settings.mesh_numbers is None else settings.mesh_numbers,
                _band_path(phonon, settings),
                shift=settings.mesh_shift,
                is_time_reversal=settings.is_time_reversal_symmetry,
                is_gamma_center=settings.is_gamma_center,
            )
    for remark in result.remarks():
        progress.warn(remark)
    return result


def provenance(potential: Potential) -> dict[str, str]:
    """Return the entries of phonopy_params.yaml that name the origin of its force constants."""
    return {
        "force_constants": f"{PROVENANCE} {__version__}",
        "potential": potential.name,
        "potential_sha256": potential.sha256,
        "potential_dtype": potential.dtype,
    }


def _band_path(phonon: Phonopy, settings: PhonopySettings) -> Float[ndarray, "q 3"] | None:
    """Return the q of the band structure, or None if there is none or phonopy will refuse it."""
    paths: Any = settings.band_paths
    points = 51 if settings.band_points is None else settings.band_points  # as its script
    if paths is None:
        return None
    try:
        if isinstance(paths, str):
            bands = get_band_qpoints_by_seekpath(phonon.primitive, points)[0]
        else:
            bands = get_band_qpoints(paths, npoints=points)
    except Exception:  # phonopy's script says what is wrong with the path
        return None
    return np.concatenate(bands)


def _symmetry_options(symmetry: SymmetryReport) -> list[str]:
    """Return phonopy's options without which its use of symmetry would give wrong numbers.

    It takes isotopes on equivalent sites for one another, and its meshes obey improper operations.
    """
    return [] if symmetry.reduces_meshes else ["--nosym"]

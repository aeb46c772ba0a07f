"""From a crystal and options to a ``Phonopy`` with analytic force constants and its report."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from numpy import ndarray
from phonopy import Phonopy
from phonopy.cui.settings import PhonopySettings

from phonopy_equivariant.catalogue.bundled import DEFAULT_MODEL
from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.checkpoints.summary import familiarity_remarks
from phonopy_equivariant.defaults import PHONOPY_SYMPREC, SYMPREC
from phonopy_equivariant.evaluation.smoothness import smoothness_remarks
from phonopy_equivariant.io.build import build_phonon
from phonopy_equivariant.io.crystals import Crystal, as_crystal
from phonopy_equivariant.io.supercells import select_supercell, supercell_matrix
from phonopy_equivariant.phonons.exact import ExactReport, use_exact_dynamical_matrix
from phonopy_equivariant.phonons.force_constants import set_force_constants
from phonopy_equivariant.phonons.nac import supercell_remarks
from phonopy_equivariant.phonons.report import ForceConstantsReport
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.rehearsal import begin_programs
from phonopy_equivariant.structure import StructureLike
from phonopy_equivariant.workflows.options import PhononOptions, RelaxationOptions
from phonopy_equivariant.workflows.progress import Progress, Silent

# Above these, phonons describe no crystal at rest; below, frequencies move by less than their
# error from the potential.
LARGE_FORCE = 0.01  # eV/Å
LARGE_STRESS = 1.0  # GPa


class AnalyticPhonopy(Phonopy):
    """phonopy's object with analytic force constants, and the report on them.

    Everything else is phonopy's. ``report`` says how good the force constants are.
    """

    report: ForceConstantsReport | ExactReport


def phonons(
    structure: StructureLike | Crystal | str | os.PathLike[str],
    model: PotentialLike = DEFAULT_MODEL,
    supercell: int | Sequence[int] | Sequence[Sequence[int]] | ndarray | None = None,
    relax: bool = False,
    exact: bool = False,
    *,
    primitive_matrix: str | Float[ndarray, "3 3"] | Sequence[Sequence[float]] = "auto",
    symprec: float = PHONOPY_SYMPREC,
    nac_params: Mapping[str, Any] | None = None,
    nac_range: float | None = None,
) -> AnalyticPhonopy:
    """Return a ``Phonopy`` of a crystal with analytic force constants, ready for bands.

    Parameters
    ----------
    structure
        A crystal of ASE, phonopy or this package, or a file with one.
    model
        The name of a model, the path of a checkpoint, or a potential.
    supercell
        One number, three, or a matrix as phonopy's ``supercell_matrix``. Default: the smallest
        supercell in which a sphere of 20 Å diameter fits, of 10 Å with Born charges.
    relax
        Whether to relax atoms and cell with the model first, in the space group.
    exact
        Whether to compute D(q) exactly at every q, without a supercell
        (:func:`phonopy_equivariant.use_exact_dynamical_matrix`).
    primitive_matrix, symprec
        As in phonopy.
    nac_params
        Born charges and dielectric tensor, as in phonopy. ``BORN`` files are not looked for.
    nac_range
        As in :func:`phonopy_equivariant.use_exact_dynamical_matrix`, with ``exact`` and Born
        charges only.

    Returns
    -------
    AnalyticPhonopy
        phonopy's object; its attribute ``report`` tells how good the force constants are.

    Warns
    -----
    UserWarning
        Forces or stress in the crystal; a structure far from the training data; symmetry that the
        structure has only within ``symprec``.

    Raises
    ------
    PhonopyEquivariantError
        A structure that is no sound crystal, an element the model does not know, a supercell that
        phonopy refuses.

    Examples
    --------
    >>> import phonopy_equivariant as pe
    >>> from ase.build import bulk
    >>> phonon = pe.phonons(bulk("MgO", "rocksalt", a=4.21), supercell=2)  # doctest: +SKIP
    >>> phonon.auto_band_structure(plot=True).show()  # doctest: +SKIP

    """
    crystal, potential = as_crystal(structure), as_potential(model)
    potential.graph(crystal.unitcell)  # elements and overlaps, before anything takes time
    begin_programs(potential)
    matrix = None if supercell is None else supercell_matrix(supercell)
    relaxation = RelaxationOptions(symprec=max(symprec, SYMPREC)) if relax else None
    options = PhononOptions(matrix, relaxation, exact, nac_range=nac_range)
    settings = PhonopySettings(load_phonopy_yaml=True)
    settings.symmetry_tolerance = symprec
    settings.primitive_matrix = primitive_matrix  # type: ignore[assignment]
    progress = Silent()
    crystal = prepared_crystal(crystal, potential, options, progress)
    charges = crystal.nac_params if nac_params is None else nac_params
    polar = charges is not None and not exact
    matrix, _ = select_supercell(crystal, options.supercell, symprec, polar)
    phonon = build_phonon(crystal, matrix, settings, AnalyticPhonopy)
    assert isinstance(phonon, AnalyticPhonopy)
    if charges is not None:
        phonon.nac_params = dict(charges)  # type: ignore[assignment]
    phonon.report = compute_phonons(phonon, potential, options, progress)
    return phonon


def begin_response(potential: Potential, progress: Progress) -> None:
    """Let the programs of the response compile while phonopy looks at the crystal."""
    if begin_programs(potential):
        progress.say(
            f"Compiling the programs of {potential.name}, once for all crystals; "
            "phonopy-equivariant models prepare does it beforehand."
        )


def prepared_crystal(
    crystal: Crystal, potential: Potential, options: PhononOptions, progress: Progress
) -> Crystal:
    """Return a crystal relaxed if that is asked for, without displaced supercells of its file.

    Raises
    ------
    PhonopyEquivariantError
        The relaxation does not converge.

    """
    crystal = dataclasses.replace(crystal, dataset=None)
    if options.relaxation is None:
        return crystal
    from phonopy_equivariant.workflows.relaxation import relax_crystal  # ASE's optimisers

    return relax_crystal(crystal, potential, options.relaxation, progress)


def compute_phonons(
    phonon: Phonopy, potential: Potential, options: PhononOptions, progress: Progress
) -> ForceConstantsReport | ExactReport:
    """Give ``phonon`` analytic force constants or the exact D(q), and warn of problems.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`.set_force_constants` and :func:`.use_exact_dynamical_matrix`.

    """
    report: ForceConstantsReport | ExactReport
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "isotopes on equivalent sites")  # said below
        if options.exact:
            with progress.stage("Exact dynamical matrix"):
                report = use_exact_dynamical_matrix(
                    phonon, potential, options.tolerance, nac_range=options.nac_range
                )
        else:
            with progress.stage(f"Force constants of {len(phonon.supercell)} atoms"):
                report = set_force_constants(phonon, potential)
    remarks = familiarity_remarks(potential, phonon.primitive, report.familiarity)
    if not options.exact:
        remarks += supercell_remarks(phonon)
    remarks += equilibrium_remarks(report.residual_force, report.residual_stress)
    remarks += smoothness_remarks(potential, phonon.primitive)
    for remark in [*remarks, *report.symmetry.remarks()]:
        progress.warn(remark)
    return report


def equilibrium_remarks(force: float, stress: float) -> list[str]:
    """Return warnings if the residual force (eV/Å) or stress (GPa) is large."""
    remarks = []
    if force > LARGE_FORCE:
        remarks.append(
            f"residual forces of {force:.2g} eV/Å: atoms are not where this potential wants "
            "them, and phonons may be meaningless; use relax=True."
        )
    if stress > LARGE_STRESS:
        remarks.append(
            f"residual stress of {stress:.2g} GPa: phonons are those of a crystal under this "
            "stress; use relax=True for the cell at rest."
        )
    return remarks

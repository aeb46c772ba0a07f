"""Third-order force constants of a crystal in phono3py's files."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

from ase.units import GPa
from jaxtyping import Int
from numpy import ndarray

from phonopy_equivariant.checkpoints.summary import familiarity_remarks
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.evaluation.smoothness import smoothness_remarks
from phonopy_equivariant.io.crystals import Crystal
from phonopy_equivariant.io.supercells import (
    choose_supercell,
    select_supercell,
    supercell_line,
)
from phonopy_equivariant.io.third_order import (
    FILES,
    build_phono3py,
    mesh_options,
    phonon_matrix,
    require_phono3py,
    write_third_order,
)
from phonopy_equivariant.phonons.third_order import set_third_order_force_constants
from phonopy_equivariant.phonons.third_order_report import ThirdOrderReport
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.workflows.options import RelaxationOptions
from phonopy_equivariant.workflows.phonons import begin_response, equilibrium_remarks
from phonopy_equivariant.workflows.progress import Progress
from phonopy_equivariant.workflows.run import provenance

# Å: inscribed diameter of the first supercell that is tried, and by how much the next is wider.
SMALLEST, STEP = 6.0, 1.0


@dataclasses.dataclass(frozen=True)
class ThirdOrderOptions:
    """How third-order force constants are computed.

    Parameters
    ----------
    supercell
        Matrix of the supercell; None stands for that of the file, or for one of ``tolerance``.
    second_supercell
        Matrix of the supercell of second-order force constants; None stands for that of the file,
        or else for ``supercell``.
    relaxation
        How atoms and cell are relaxed first; None if they are not.
    tolerance
        Largest interpolation error (:attr:`.ThirdOrderReport.interpolation`) of a supercell that is
        chosen here; None if none is.

    """

    supercell: Int[ndarray, "3 3"] | None = None
    second_supercell: Int[ndarray, "3 3"] | None = None
    relaxation: RelaxationOptions | None = None
    tolerance: float | None = None


def third_order_files(
    crystal: Crystal, potential: Potential, options: ThirdOrderOptions, progress: Progress
) -> ThirdOrderReport:
    """Write ``phono3py_params.yaml``, ``fc3.hdf5`` and ``fc2.hdf5`` into the working folder.

    Raises
    ------
    PhonopyEquivariantError
        phono3py is not installed; no supercell is given; a crystal or a supercell that cannot be
        used.

    """
    phono3py, report = third_order_crystal(crystal, potential, options, progress)
    write_third_order(phono3py, Path(), provenance(potential))
    told = mesh_options(report.symmetry)
    needs = f", with {' '.join(told)}" if told else ""
    progress.say(f"phono3py goes on from {', '.join(FILES)}{needs}.")
    return report


def third_order_crystal(
    crystal: Crystal, potential: Potential, options: ThirdOrderOptions, progress: Progress
) -> tuple[Any, ThirdOrderReport]:
    """Return phono3py's object with analytic force constants, and the report on them.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`third_order_files`.

    """
    require_phono3py()
    given = options.supercell is not None or crystal.supercell_matrix is not None
    if not given and options.tolerance is None:
        raise PhonopyEquivariantError(
            "Third-order force constants need a supercell; give supercell=2 2 2 or the like, or "
            "supercell=auto."
        )
    second = options.second_supercell
    if second is None:
        second = phonon_matrix(crystal)
    crystal = dataclasses.replace(crystal, dataset=None)
    begin_response(potential, progress)
    if options.relaxation is not None:
        from phonopy_equivariant.workflows.relaxation import relax_crystal  # ASE's optimisers

        crystal = relax_crystal(crystal, potential, options.relaxation, progress)
    if options.tolerance is None:
        matrix, origin = select_supercell(crystal, options.supercell)
        progress.say(supercell_line(crystal.unitcell, matrix, origin))
        phono3py, report = _of_supercell(crystal, potential, (matrix, second), progress)
    else:
        phono3py, report = _grown(crystal, potential, second, options.tolerance, progress)
    evaluation = potential.evaluate(phono3py.primitive)
    remarks = familiarity_remarks(potential, phono3py.primitive)
    remarks += smoothness_remarks(potential, phono3py.primitive, derivative=3)
    remarks += equilibrium_remarks(
        float((evaluation.forces**2).sum(axis=1).max() ** 0.5),
        float(abs(evaluation.stress).max() / GPa),
    )
    for remark in [*remarks, *report.symmetry.remarks(), *report.remarks()]:
        progress.warn(remark)
    return phono3py, report


def _of_supercell(
    crystal: Crystal,
    potential: Potential,
    matrices: tuple[Int[ndarray, "3 3"], Int[ndarray, "3 3"] | None],
    progress: Progress,
) -> tuple[Any, ThirdOrderReport]:
    """Return phono3py's object and the report for the supercells of third and second order."""
    with progress.stage("Symmetry of the supercell"):
        phono3py = build_phono3py(crystal, *matrices)
    with progress.stage(f"Third-order force constants of {len(phono3py.supercell)} atoms") as show:
        report = set_third_order_force_constants(
            phono3py, potential, lambda done, count: show(f"triplet {done} of {count}")
        )
    return phono3py, report


def _grown(
    crystal: Crystal,
    potential: Potential,
    second: Int[ndarray, "3 3"] | None,
    tolerance: float,
    progress: Progress,
) -> tuple[Any, ThirdOrderReport]:
    """Return those of the smallest supercell tried whose interpolation error is small enough.

    Raises
    ------
    PhonopyEquivariantError
        The next supercell does not fit into memory.

    """
    last: Int[ndarray, "3 3"] | None = None
    for diameter in itertools.count(SMALLEST, STEP):
        matrix = choose_supercell(crystal.unitcell, diameter=diameter)
        if last is not None and (matrix == last).all():
            continue
        progress.say(supercell_line(crystal.unitcell, matrix, "tried"))
        phono3py, report = _of_supercell(crystal, potential, (matrix, second), progress)
        progress.say(f"Interpolation error {report.interpolation:.1%}, aim {tolerance:.1%}")
        if report.interpolation <= tolerance:
            return phono3py, report
        last = matrix
    raise AssertionError("unreachable: the count has no end")

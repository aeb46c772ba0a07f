"""Third-order force constants of a crystal in phono3py's files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ase.units import GPa
from jaxtyping import Int
from numpy import ndarray

from phonopy_equivariant.checkpoints.summary import familiarity_remarks
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.crystals import Crystal
from phonopy_equivariant.io.supercells import select_supercell, supercell_line
from phonopy_equivariant.io.third_order import (
    FILES,
    build_phono3py,
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


@dataclasses.dataclass(frozen=True)
class ThirdOrderOptions:
    """How third-order force constants are computed.

    Parameters
    ----------
    supercell
        Matrix of the supercell; None stands for that of the file.
    second_supercell
        Matrix of the supercell of second-order force constants; None stands for that of the file,
        or else for ``supercell``.
    relaxation
        How atoms and cell are relaxed first; None if they are not.

    """

    supercell: Int[ndarray, "3 3"] | None = None
    second_supercell: Int[ndarray, "3 3"] | None = None
    relaxation: RelaxationOptions | None = None


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
    progress.say(f"phono3py goes on from {', '.join(FILES)}.")
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
    if options.supercell is None and crystal.supercell_matrix is None:
        raise PhonopyEquivariantError(
            "Third-order force constants need a supercell; give supercell=2 2 2 or the like."
        )
    second = options.second_supercell
    if second is None:
        second = phonon_matrix(crystal)
    crystal = dataclasses.replace(crystal, dataset=None)
    begin_response(potential, progress)
    if options.relaxation is not None:
        from phonopy_equivariant.workflows.relaxation import relax_crystal  # ASE's optimisers

        crystal = relax_crystal(crystal, potential, options.relaxation, progress)
    matrix, origin = select_supercell(crystal, options.supercell)
    progress.say(supercell_line(crystal.unitcell, matrix, origin))
    with progress.stage("Symmetry of the supercell"):
        phono3py = build_phono3py(crystal, matrix, second)
    with progress.stage(f"Third-order force constants of {len(phono3py.supercell)} atoms") as show:
        report = set_third_order_force_constants(
            phono3py, potential, lambda done, count: show(f"triplet {done} of {count}")
        )
    evaluation = potential.evaluate(phono3py.primitive)
    remarks = familiarity_remarks(potential, phono3py.primitive)
    remarks += equilibrium_remarks(
        float((evaluation.forces**2).sum(axis=1).max() ** 0.5),
        float(abs(evaluation.stress).max() / GPa),
    )
    for remark in [*remarks, *report.symmetry.remarks(), *report.remarks()]:
        progress.warn(remark)
    return phono3py, report

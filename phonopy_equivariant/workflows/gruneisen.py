"""Grüneisen parameters of a crystal from options: ``phonopy-equivariant gruneisen``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.units import GPa

from phonopy_equivariant.checkpoints.summary import familiarity_remarks
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.evaluation.smoothness import smoothness_remarks
from phonopy_equivariant.io.build import build_phonon
from phonopy_equivariant.io.crystals import Crystal
from phonopy_equivariant.phonons.gruneisen import (
    GruneisenBands,
    GruneisenMesh,
    gruneisen_bands,
    gruneisen_mesh,
)
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.workflows.options import RelaxationOptions
from phonopy_equivariant.workflows.phonons import equilibrium_remarks
from phonopy_equivariant.workflows.progress import Progress
from phonopy_equivariant.workflows.relaxation import relax_crystal


def gruneisen_of_crystal(
    crystal: Crystal,
    potential: Potential,
    relaxation: RelaxationOptions | None,
    mesh: Sequence[int],
    points: int,
    progress: Progress,
) -> tuple[GruneisenMesh, GruneisenBands]:
    """Return Grüneisen parameters on a mesh and along the band path, relaxed first if asked for.

    Raises
    ------
    PhonopyEquivariantError
        A mesh or a number of points that mean nothing; no convergence of the relaxation.

    """
    if min(mesh) < 1:
        numbers = " ".join(map(str, mesh))
        raise PhonopyEquivariantError(f"mesh={numbers}: give three positive whole numbers.")
    if points < 2:
        raise PhonopyEquivariantError(f"band_points={points}: give two at least.")
    if relaxation is not None:
        crystal = relax_crystal(crystal, potential, relaxation, progress)
    primitive = build_phonon(crystal, np.eye(3, dtype=int)).primitive
    state = potential.evaluate(primitive)
    force = float(np.linalg.norm(state.forces, axis=1).max())
    remarks = familiarity_remarks(potential, primitive)
    remarks += equilibrium_remarks(force, float(np.abs(state.stress).max() / GPa))
    remarks += smoothness_remarks(potential, primitive, derivative=3)
    for remark in remarks:
        progress.warn(remark)
    with progress.stage(f"Grüneisen parameters on a mesh of {'×'.join(map(str, mesh))}"):
        on_mesh = gruneisen_mesh(primitive, potential, mesh)
    with progress.stage("Grüneisen parameters along the bands"):
        bands = gruneisen_bands(primitive, potential, points)
    return on_mesh, bands

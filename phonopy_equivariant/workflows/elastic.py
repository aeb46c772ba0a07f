"""The elastic tensor of a crystal from options: what ``phonopy-equivariant elastic`` does."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.checkpoints.summary import familiarity_remarks
from phonopy_equivariant.evaluation.smoothness import smoothness_remarks
from phonopy_equivariant.io.build import build_phonon
from phonopy_equivariant.io.crystals import Crystal
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.elastic import elastic_tensor
from phonopy_equivariant.response.elasticity import ElasticTensor
from phonopy_equivariant.response.long_waves import long_wave_tensor
from phonopy_equivariant.workflows.options import RelaxationOptions
from phonopy_equivariant.workflows.progress import Progress
from phonopy_equivariant.workflows.relaxation import relax_crystal


@dataclasses.dataclass(frozen=True)
class Elasticity:
    """The elastic tensor by two roads.

    Parameters
    ----------
    tensor
        From derivatives by strain.
    long_waves
        Relaxed tensor (GPa) from force constants at small q; equal without stress.

    """

    tensor: ElasticTensor
    long_waves: Float[ndarray, "6 6"]

    @property
    def difference(self) -> float:
        """Largest difference of the two roads, relative to the largest elastic constant."""
        largest = np.abs(self.tensor.relaxed).max()
        return float(np.abs(self.long_waves - self.tensor.relaxed).max() / largest)

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        check = f"from sound waves: differs by {self.difference:.0e} of the largest constant"
        if self.tensor.remarks():
            check += ", as it must under stress"
        return [*self.tensor.lines(), f"{'second road':<20} {check}"]


def elastic_properties(
    crystal: Crystal,
    potential: Potential,
    relaxation: RelaxationOptions | None,
    progress: Progress,
) -> Elasticity:
    """Return the elastic tensor of a crystal, relaxed first if that is asked for.

    The primitive cell is computed with, in the orientation of the crystal's own cell.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`.elastic_tensor`; no convergence of the relaxation.

    """
    if relaxation is not None:
        crystal = relax_crystal(crystal, potential, relaxation, progress)
    primitive = build_phonon(crystal, np.eye(3, dtype=int)).primitive
    with progress.stage("Elastic tensor"):
        tensor = elastic_tensor(primitive, potential)
    with progress.stage("Long waves"):
        long_waves = long_wave_tensor(primitive, potential)
    remarks = familiarity_remarks(potential, primitive) + smoothness_remarks(potential, primitive)
    for remark in [*remarks, *tensor.remarks()]:
        progress.warn(remark)
    return Elasticity(tensor, long_waves)

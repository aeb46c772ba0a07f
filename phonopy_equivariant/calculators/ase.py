"""An ASE calculator that does not recompile while atoms move."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
    compare_atoms,
)
from ase.stress import full_3x3_to_voigt_6_stress
from numpy import ndarray

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.graph import graph_sizes
from phonopy_equivariant.response.autodiff.hessian import hessian


class EquivariantCalculator(Calculator):
    """ASE calculator of a potential.

    Properties: ``energy``, ``free_energy``, ``energies`` (eV), ``forces`` (eV/Å) and ``stress``
    (eV/Å³, Voigt; periodic in three directions only). ``get_property("hessian", atoms)`` gives the
    analytic Hessian of shape (N, 3, N, 3), eV/Å². It is none of the ``results``, because ASE's
    files and its ``SinglePointCalculator`` know no such property.

    Graphs are padded to bucket sizes that only grow while the number of atoms stays, so a
    relaxation or a trajectory compiles once or twice.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(self, potential: PotentialLike, **kwargs: Any):
        super().__init__(**kwargs)
        self.potential = as_potential(potential)
        self._sizes = (0, 0)
        self._hessian: tuple[Atoms, ndarray] | None = None

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """Return a property of ``atoms``; by default of the atoms of the last calculation.

        Return None if the property has not been computed and ``allow_calculation`` is false.
        """
        if name != "hessian":
            return super().get_property(name, atoms, allow_calculation)
        atoms = self.atoms if atoms is None else atoms
        if self._hessian is None or compare_atoms(self._hessian[0], atoms):
            if not allow_calculation:
                return None
            self._hessian = atoms.copy(), hessian(atoms, self.potential)
        return self._hessian[1].copy()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute all properties, which cost no more than one."""
        super().calculate(atoms, properties, system_changes)
        self._evaluate()
        if "stress" in (properties or ()) and "stress" not in self.results:
            raise PropertyNotImplementedError("stress needs three periodic directions (pbc)")

    def _evaluate(self) -> None:
        graph = self.potential.graph(self.atoms)
        count = len(self.atoms), int(graph.n_edge[0])
        sizes = graph_sizes(*count)
        # the last program serves as long as it has room and not much more than needed
        fits = count[0] < self._sizes[0] and count[1] <= self._sizes[1]
        if not fits or self._sizes[0] > 2 * sizes[0] or self._sizes[1] > 2 * sizes[1]:
            self._sizes = sizes
        evaluation = self.potential.evaluate_graph(graph, *self._sizes)
        self.results["energy"] = self.results["free_energy"] = evaluation.energy
        self.results["energies"] = evaluation.energies
        self.results["forces"] = evaluation.forces
        if self.atoms.pbc.all():
            self.results["stress"] = voigt(evaluation.stress)


def voigt(stress: ndarray) -> ndarray:
    """Return a symmetric 3×3 tensor in ASE's order xx, yy, zz, yz, xz, xy."""
    return np.asarray(full_3x3_to_voigt_6_stress(stress))

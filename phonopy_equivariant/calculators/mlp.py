"""A potential in phonopy's ``mlp`` slot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy import ndarray
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential


class PhonopyMLP:
    """A potential in phonopy's ``mlp`` slot: ``phonon.mlp = PhonopyMLP(potential)``.

    phonopy then evaluates displaced supercells with it (``evaluate_mlp``, SSCHA, ...). Values,
    units and signs are those of pypolymlp, for which phonopy made the slot. phonopy itself uses
    energies and forces and passes the stresses by.
    """

    def __init__(self, potential: PotentialLike):
        self.potential = as_potential(potential)

    def evaluate(self, supercells: Sequence[PhonopyAtoms]) -> tuple[ndarray, ndarray, ndarray]:
        """Return energies, forces and stresses of supercells, as pypolymlp does.

        Parameters
        ----------
        supercells
            n cells with equally many atoms.

        Returns
        -------
        energies, shape=(n,)
            eV per supercell.
        forces, shape=(n, atoms, 3)
            eV/Å.
        stresses, shape=(n, 6)
            -dE/dε in eV per supercell, in the order xx, yy, zz, xy, yz, zx: positive diagonal
            elements where the crystal would expand. This is the sign of VASP's stress, and
            opposite to ASE's.

        """
        evaluations = self.potential.evaluate_many(supercells)
        voigt = ([0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0])
        stresses = [
            -evaluation.stress[voigt] * abs(np.linalg.det(cell.cell))
            for evaluation, cell in zip(evaluations, supercells, strict=True)
        ]
        return (
            np.array([evaluation.energy for evaluation in evaluations]),
            np.array([evaluation.forces for evaluation in evaluations]),
            np.array(stresses),
        )

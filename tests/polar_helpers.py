"""Polar crystals of the tests of exact mode with Born charges."""

from __future__ import annotations

from typing import Any

import cli_helpers
import numpy as np
from ase.build import bulk
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.frequencies import signed_root

QPOINTS = np.random.default_rng(4).uniform(-0.5, 0.5, (12, 3))


def phonopy_of(atoms: Any, supercell: object, is_symmetry: bool = True) -> Phonopy:
    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell[:], scaled_positions=atoms.get_scaled_positions()
    )
    return Phonopy(cell, supercell_matrix=supercell, primitive_matrix="P", is_symmetry=is_symmetry)


def rock_salt(size: int = 2) -> Phonopy:
    """Return rock salt with charges off the sum rule by 0.002 e."""
    phonon = phonopy_of(bulk("NaCl", "rocksalt", a=cli_helpers.LATTICE), np.diag([size] * 3))
    charges = np.array([1.101 * np.eye(3), -1.099 * np.eye(3)])
    phonon.nac_params = {"born": charges, "dielectric": 2.4 * np.eye(3), "factor": 14.4}
    return phonon


def wurtzite(size: int = 2) -> Phonopy:
    """Return a hexagonal crystal with two charges for each atom and an anisotropic dielectric."""
    atoms = bulk("NaCl", "wurtzite", a=4.1, c=6.6)
    phonon = phonopy_of(atoms, np.diag([size, size, size]))
    charges = np.diag([1.0, 1.0, 1.3]) * np.sign(atoms.numbers - 12)[:, None, None]
    phonon.nac_params = {
        "born": -charges,
        "dielectric": np.diag([2.2, 2.2, 2.9]),
        "factor": 14.399652,
    }
    return phonon


def in_thz(squares: np.ndarray) -> np.ndarray:
    return signed_root(squares) * rock_salt(1).unit_conversion_factor

"""Checks of the level of ethanol_dft.py: forces against energies, and against published forces.

    python ethanol_checks.py [rmd17_ethanol.npz]

prints how far forces of the first training configuration are from central differences of the
energy along random directions, and, given a file of the revised MD17 set (arXiv:2007.09593, PBE and
def2-SVP with another program), how far forces of its first configurations are from those there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase import units
from ethanol_dft import calculated
from ethanol_sets import records_of

from phonopy_equivariant.structure import Structure

STEP = 0.005  # Å
DIRECTIONS = 3
CONFIGURATIONS = 5
PER_MOLE = units.kcal / units.mol


def against_energies(structure: Structure) -> None:
    """Print differences between forces and differences of the energy."""
    forces = calculated(structure).forces
    rng = np.random.default_rng(0)
    for _ in range(DIRECTIONS):
        direction = rng.normal(size=structure.positions.shape)
        direction /= np.linalg.norm(direction)
        energies = [
            calculated(structure._replace(positions=structure.positions + h * direction)).energy
            for h in (STEP, -STEP)
        ]
        slope = -(energies[0] - energies[1]) / (2 * STEP)
        print(f"force along a direction {np.sum(forces * direction):.6f}, by energies {slope:.6f}")


def against_published(file: Path) -> None:
    """Print differences from forces of the revised MD17 set."""
    data = np.load(file, allow_pickle=False)
    numbers = data["nuclear_charges"]
    for positions, forces in zip(data["coords"][:CONFIGURATIONS], data["forces"], strict=False):
        structure = Structure(numbers, positions, np.zeros((3, 3)), np.zeros(3, bool))
        off = calculated(structure).forces / PER_MOLE - forces
        print(f"mean absolute difference of forces {np.abs(off).mean():.4f} kcal/mol/Å")


if __name__ == "__main__":
    against_energies(records_of(Path(__file__).parent / "data", "train")[0].structure)
    if len(sys.argv) > 1:
        against_published(Path(sys.argv[1]))

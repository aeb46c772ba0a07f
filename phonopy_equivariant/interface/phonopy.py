"""Force constants into phonopy, and a potential in its ``mlp`` slot."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from ase.units import GPa
from jaxtyping import Float, Int
from numpy import ndarray
from phonopy import Phonopy
from phonopy.harmonic.force_constants import compact_fc_to_full_fc
from phonopy.physical_units import get_calculator_physical_units
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.familiarity import Familiarity, compare
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.report import ForceConstantsReport, inscribed_radius
from phonopy_equivariant.response.equilibrium import Equilibrium
from phonopy_equivariant.response.hessian import structure_hessian_rows
from phonopy_equivariant.response.lattice import MAX_MEMORY, lattice_response
from phonopy_equivariant.response.star import (
    Operations,
    commensurate_grid,
    compact_force_constants,
    fill_star,
    operations,
)
from phonopy_equivariant.structure import as_structure

METHODS = ("bloch", "autodiff")


def force_constants(
    phonon: Phonopy,
    potential: Potential,
    method: str = "bloch",
    max_memory: int = MAX_MEMORY,
) -> Float[ndarray, "prim super 3 3"]:
    """Return analytic compact force constants of ``phonon.supercell``, in phonopy's order.

    Second derivatives of the potential energy of the periodic supercell, as computed: neither
    symmetrised nor projected. Row i belongs to supercell atom ``phonon.primitive.p2s_map[i]``.

    Parameters
    ----------
    phonon, potential
        With supercell and primitive matrices set; a layered potential.
    method
        ``"bloch"``: Φ(q) on the primitive cell at the irreducible commensurate q, then the
        inverse transform; ``"autodiff"``: automatic differentiation of the supercell. The two
        agree to rounding; the first is faster by orders of magnitude.
    max_memory
        Bytes that a block of q may take in the Bloch response.

    Returns
    -------
    ndarray, shape=(n_prim, n_super, 3, 3), eV/Å²

    Raises
    ------
    PhonopyEquivariantError
        An element the potential does not know, overlapping atoms, or an unknown method.

    """
    return _force_constants(phonon, potential, method, max_memory)[0]


def set_force_constants(
    phonon: Phonopy, potential: Potential, symmetrize: bool = False, method: str = "bloch"
) -> ForceConstantsReport:
    """Store analytic force constants in ``phonon``, in place, and report on them.

    Parameters
    ----------
    phonon
        With supercell and primitive matrices set; nothing else is needed.
    potential
        From :func:`phonopy_equivariant.load_potential`.
    symmetrize
        Whether to project with symfc afterwards. The analytic force constants obey sum rule,
        permutation and space-group symmetry to rounding; this is never needed for a potential.
    method
        As in :func:`force_constants`.

    """
    start = time.perf_counter()
    compact, equilibrium = _force_constants(phonon, potential, method, MAX_MEMORY)
    seconds = time.perf_counter() - start
    if equilibrium is None:
        equilibrium = _evaluated(phonon, potential)
    # phonopy's setter copies; it would let a wrong second axis pass and fail in its kernel
    phonon.force_constants = compact
    report = _report(phonon, potential, compact, equilibrium, method, seconds)
    if symmetrize:
        phonon.symmetrize_force_constants(use_symfc_projector=True)
    return report


def require_angstrom(phonon: Phonopy) -> None:
    """Refuse an object in the units of a calculator that has not eV and Å.

    Raises
    ------
    PhonopyEquivariantError
        As said.

    """
    units = get_calculator_physical_units(phonon.calculator)
    if (units.distance_to_A, units.force_to_eVperA) != (1.0, 1.0):
        raise PhonopyEquivariantError(
            f"This Phonopy object is in the units of {phonon.calculator} ({units.length_unit}, "
            f"{units.force_unit}); make one in Å and eV without calculator=, or take "
            "phonopy-equivariant fc, which converts."
        )


def primitive_operations(phonon: Phonopy) -> Operations:
    """Return the space group that phonopy found for the primitive cell."""
    found = phonon.primitive_symmetry.symmetry_operations
    return operations(as_structure(phonon.primitive), found["rotations"], found["translations"])


def supercell_of_primitive(phonon: Phonopy) -> Int[ndarray, "3 3"]:
    """Return the supercell's vectors as columns, in units of the primitive cell's."""
    ratio = np.linalg.solve(phonon.primitive.cell.T, phonon.supercell.cell.T)
    return np.rint(ratio).astype(int)


def supercell_images(phonon: Phonopy) -> tuple[Int[ndarray, " super"], Int[ndarray, "super 3"]]:
    """Return, for each supercell atom, its primitive atom and the cell vector S to it."""
    primitive = phonon.primitive
    owner = np.array([primitive.p2p_map[s] for s in primitive.s2p_map])
    offset = phonon.supercell.positions - primitive.positions[owner]
    return owner, np.rint(offset @ np.linalg.inv(primitive.cell)).astype(int)


class PhonopyMLP:
    """A potential in phonopy's ``mlp`` slot: ``phonon.mlp = PhonopyMLP(potential)``.

    phonopy then evaluates displaced supercells with it (``evaluate_mlp``, SSCHA, ...).
    """

    def __init__(self, potential: Potential):
        self.potential = potential

    def evaluate(self, supercells: Sequence[PhonopyAtoms]) -> tuple[ndarray, ndarray, ndarray]:
        """Return energies (n,) eV, forces (n, atoms, 3) eV/Å and stresses (n, 6) eV.

        Stresses are dE/dε in eV per supercell, in pypolymlp's order xx, yy, zz, xy, yz, zx.
        """
        results = [self.potential.evaluate(cell) for cell in supercells]
        voigt = ([0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0])
        stresses = [
            result.stress[voigt] * abs(np.linalg.det(cell.cell))
            for result, cell in zip(results, supercells, strict=True)
        ]
        return (
            np.array([result.energy for result in results]),
            np.array([result.forces for result in results]),
            np.array(stresses),
        )


def _force_constants(
    phonon: Phonopy, potential: Potential, method: str, max_memory: int
) -> tuple[Float[ndarray, "prim super 3 3"], Equilibrium | None]:
    """Return compact force constants, and forces and stress where the method knows them."""
    require_angstrom(phonon)
    if method not in METHODS:
        raise PhonopyEquivariantError(f"method={method!r}: choose one of {', '.join(METHODS)}.")
    rows = np.array(phonon.primitive.p2s_map)
    if method == "autodiff":
        return structure_hessian_rows(potential, as_structure(phonon.supercell), rows), None
    symmetry = primitive_operations(phonon)
    grid = commensurate_grid(supercell_of_primitive(phonon), symmetry)
    response = lattice_response(
        potential, phonon.primitive, grid.qpoints[grid.irreducible], max_memory, symmetry
    )
    owner, cells = supercell_images(phonon)
    phi = fill_star(grid, symmetry, response.values[0])
    return compact_force_constants(grid, phi, cells, owner, rows), response.equilibrium


def familiarity_at(
    potential: Potential, numbers: Int[ndarray, " atoms"], equilibrium: Equilibrium
) -> Familiarity | None:
    """Return how far a crystal is from the training structures, if the potential can tell."""
    if potential.reference is None:
        return None
    species = potential.species_index(numbers[equilibrium.receivers])
    return compare(potential.reference, equilibrium.features, species)


def _evaluated(phonon: Phonopy, potential: Potential) -> Equilibrium:
    found = potential.evaluate(phonon.primitive)
    atoms = np.arange(len(phonon.primitive))
    return Equilibrium(found.forces, found.stress, found.features, atoms)


def _report(
    phonon: Phonopy,
    potential: Potential,
    compact: ndarray,
    equilibrium: Equilibrium,
    method: str,
    seconds: float,
) -> ForceConstantsReport:
    full = compact_fc_to_full_fc(phonon.primitive, compact)
    sums = max(np.abs(full.sum(axis=axis)).max() for axis in (0, 1))
    return ForceConstantsReport(
        model=potential.name,
        sha256=potential.sha256,
        sum_rule=float(sums),
        permutation=float(np.abs(full - full.transpose(1, 0, 3, 2)).max()),
        residual_force=float(np.linalg.norm(equilibrium.forces, axis=1).max()),
        residual_stress=float(np.abs(equilibrium.stress).max() / GPa),
        hessian_range=potential.hessian_range,
        inscribed_radius=inscribed_radius(phonon.supercell.cell),
        familiarity=familiarity_at(potential, phonon.primitive.numbers, equilibrium),
        method=method,
        seconds=seconds,
    )

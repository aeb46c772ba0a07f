"""Analytic force constants of phonopy's supercells."""

from __future__ import annotations

import time
import warnings
from typing import NamedTuple

import numpy as np
from ase.units import GPa
from jaxtyping import Float, Int
from numpy import ndarray
from phonopy import Phonopy

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.features import Familiarity, compare
from phonopy_equivariant.phonons.cells import (
    Cells,
    exchanges_masses,
    phonopy_operations,
    primitive_operations,
    repeat_deviation,
    repeated_primitive,
    require_sound,
    supercell_images,
    supercell_of_primitive,
)
from phonopy_equivariant.phonons.reflections import broken_on_grid
from phonopy_equivariant.phonons.report import ISOTOPES, ForceConstantsReport, SymmetryReport
from phonopy_equivariant.phonons.residuals import permutation_residual, sum_rule_residual
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.autodiff.hessian import structure_hessian_rows
from phonopy_equivariant.response.bloch.equilibrium import Equilibrium
from phonopy_equivariant.response.bloch.lattice import MAX_MEMORY, lattice_response
from phonopy_equivariant.response.symmetry.operations import kept_by_energy, obeyed
from phonopy_equivariant.response.symmetry.star import (
    commensurate_grid,
    compact_force_constants,
    fill_star,
)
from phonopy_equivariant.structure import inscribed_radius

METHODS = ("bloch", "autodiff")


def force_constants(
    phonon: Phonopy,
    potential: PotentialLike,
    method: str = "bloch",
    max_memory: int = MAX_MEMORY,
) -> Float[ndarray, "prim super 3 3"]:
    """Return analytic compact force constants of ``phonon.supercell``, in phonopy's order.

    Second derivatives of the potential energy of the periodic supercell, as computed: neither
    symmetrised nor projected. Row i belongs to supercell atom ``phonon.primitive.p2s_map[i]``.
    Of phonopy's space group only operations that the structure obeys to rounding (1e-11 Å) are
    used, whatever ``symprec`` is.

    Parameters
    ----------
    phonon, potential
        With supercell and primitive matrices set; a potential, or the name of a model.
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
        An element the potential does not know, overlapping atoms, or an unknown method; masses
        or Born charges that mean nothing; a primitive cell that repeats in the supercell only
        within the tolerance of phonopy's search; numbers that are not finite.

    """
    return _force_constants(phonon, as_potential(potential), method, max_memory).compact


def set_force_constants(
    phonon: Phonopy, potential: PotentialLike, symmetrize: bool = False, method: str = "bloch"
) -> ForceConstantsReport:
    """Store analytic force constants in ``phonon``, in place, and report on them.

    Parameters
    ----------
    phonon
        With supercell and primitive matrices set; nothing else is needed.
    potential
        From :func:`phonopy_equivariant.load_potential`, or the name of a model.
    symmetrize
        Whether to project with symfc afterwards. The analytic force constants obey sum rule,
        permutation and space-group symmetry to rounding; this is never needed for a potential.
    method
        As in :func:`force_constants`.

    Warns
    -----
    UserWarning
        Isotopes break the symmetry that phonopy found without regard to masses: phonopy would
        reduce a mesh by it.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`force_constants`.

    """
    potential = as_potential(potential)
    start = time.perf_counter()
    computed = _force_constants(phonon, potential, method, MAX_MEMORY)
    seconds = time.perf_counter() - start
    compact, equilibrium = computed.compact, computed.equilibrium
    if equilibrium is None:
        equilibrium = _evaluated(phonon, potential)
    symmetry = symmetry_report(phonon, potential.parity)._replace(reflections=computed.reflections)
    # phonopy's setter copies; it would let a wrong second axis pass and fail in its kernel
    phonon.force_constants = compact
    report = _report(phonon, potential, compact, equilibrium, method, seconds, symmetry)
    if report.symmetry.isotopes:
        warnings.warn(ISOTOPES, stacklevel=2)
    if symmetrize:
        phonon.symmetrize_force_constants(use_symfc_projector=True)
    return report


class _Computed(NamedTuple):
    """Compact force constants, and what the method knows beside them."""

    compact: Float[ndarray, "prim super 3 3"]
    equilibrium: Equilibrium | None = None
    reflections: float | None = None  # as in SymmetryReport


def _force_constants(
    phonon: Phonopy, potential: Potential, method: str, max_memory: int
) -> _Computed:
    require_sound(phonon)
    if method not in METHODS:
        raise PhonopyEquivariantError(f"method={method!r}: choose one of {', '.join(METHODS)}.")
    rows = np.array(phonon.primitive.p2s_map)
    if method == "autodiff":
        return _Computed(structure_hessian_rows(potential, repeated_primitive(phonon), rows))
    symmetry = primitive_operations(phonon, potential.parity)
    grid = commensurate_grid(supercell_of_primitive(phonon), symmetry)
    response = lattice_response(
        potential, phonon.primitive, grid.qpoints[grid.irreducible], max_memory, symmetry
    )
    owner, cells = supercell_images(phonon)
    phi = fill_star(grid, symmetry, response.values[0])
    compact = compact_force_constants(grid, phi, cells, owner, rows)
    broken = None
    if not potential.parity:
        broken = broken_on_grid(primitive_operations(phonon), grid, phi)
    return _Computed(compact, response.equilibrium, broken)


def familiarity_at(
    potential: Potential, numbers: Int[ndarray, " atoms"], equilibrium: Equilibrium
) -> Familiarity | None:
    """Return how far a crystal is from the training structures, if the potential can tell."""
    if potential.reference is None:
        return None
    species = potential.species_index(numbers[equilibrium.receivers])
    return compare(potential.reference, equilibrium.features, species)


def symmetry_report(phonon: Cells, parity: bool = True) -> SymmetryReport:
    """Return how well the structure obeys the symmetry that phonopy found.

    Without ``parity`` only proper operations are used.
    """
    space_group = phonopy_operations(phonon)
    signs = np.linalg.det(space_group.cartesian)
    inversion = (space_group.rotations == -np.eye(3, dtype=int)).all(axis=(1, 2)).any()
    return SymmetryReport(
        used=len(kept_by_energy(obeyed(space_group), parity).rotations),
        operations=len(space_group.rotations),
        deviation=max(float(space_group.deviation.max()), repeat_deviation(phonon)),
        isotopes=exchanges_masses(space_group, phonon.primitive.masses),
        breaks_mesh=bool(not parity and (signs < 0).any() and not inversion),
    )


def _evaluated(phonon: Phonopy, potential: Potential) -> Equilibrium:
    evaluation = potential.evaluate(phonon.primitive)
    atoms = np.arange(len(phonon.primitive))
    return Equilibrium(evaluation.forces, evaluation.stress, evaluation.features, atoms)


def _report(
    phonon: Phonopy,
    potential: Potential,
    compact: ndarray,
    equilibrium: Equilibrium,
    method: str,
    seconds: float,
    symmetry: SymmetryReport,
) -> ForceConstantsReport:
    owner, cells = supercell_images(phonon)
    rows = np.array(phonon.primitive.p2s_map)
    return ForceConstantsReport(
        model=potential.name,
        sha256=potential.sha256,
        sum_rule=sum_rule_residual(compact, owner),
        permutation=permutation_residual(
            compact, cells, owner, rows, supercell_of_primitive(phonon)
        ),
        residual_force=float(np.linalg.norm(equilibrium.forces, axis=1).max()),
        residual_stress=float(np.abs(equilibrium.stress).max() / GPa),
        hessian_range=potential.hessian_range,
        inscribed_radius=inscribed_radius(phonon.supercell.cell),
        familiarity=familiarity_at(potential, phonon.primitive.numbers, equilibrium),
        method=method,
        seconds=seconds,
        symmetry=symmetry,
    )

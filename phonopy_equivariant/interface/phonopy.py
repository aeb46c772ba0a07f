"""Force constants into phonopy, and a potential in its ``mlp`` slot."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from ase.units import GPa
from jaxtyping import Float
from numpy import ndarray
from phonopy import Phonopy
from phonopy.harmonic.force_constants import compact_fc_to_full_fc
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.potential import Potential
from phonopy_equivariant.structure import as_structure
from phonopy_equivariant.supercell import (
    ForceConstantsReport,
    autodiff_force_constants,
    inscribed_radius,
)


def force_constants(phonon: Phonopy, potential: Potential) -> Float[ndarray, "prim super 3 3"]:
    """Return analytic compact force constants of ``phonon.supercell``, in phonopy's order.

    Second derivatives of the potential energy of the periodic supercell, as computed: neither
    symmetrised nor projected. Row i belongs to supercell atom ``phonon.primitive.p2s_map[i]``.

    Returns
    -------
    ndarray, shape=(n_prim, n_super, 3, 3), eV/Å²

    Raises
    ------
    PhonopyEquivariantError
        An element the potential does not know, or overlapping atoms.

    """
    supercell = as_structure(phonon.supercell)
    return autodiff_force_constants(potential, supercell, np.array(phonon.primitive.p2s_map))


def set_force_constants(
    phonon: Phonopy, potential: Potential, symmetrize: bool = False
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

    """
    start = time.perf_counter()
    compact = force_constants(phonon, potential)
    seconds = time.perf_counter() - start
    expected = (len(phonon.primitive), len(phonon.supercell), 3, 3)
    # phonopy's setter lets a wrong second axis pass and fails later in its kernel
    if compact.shape != expected:
        raise AssertionError(f"force constants of shape {compact.shape}, expected {expected}")
    phonon.force_constants = compact
    report = _report(phonon, potential, compact, seconds)
    if symmetrize:
        phonon.symmetrize_force_constants(use_symfc_projector=True)
    return report


class PhonopyMLP:
    """A potential in phonopy's ``mlp`` slot: ``phonon.mlp = PhonopyMLP(potential)``.

    phonopy then evaluates displaced supercells with it (``evaluate_mlp``, SSCHA, ...).
    """

    def __init__(self, potential: Potential):
        self.potential = potential

    def evaluate(
        self, supercells: Sequence[PhonopyAtoms]
    ) -> tuple[ndarray, ndarray, ndarray]:
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


def _report(
    phonon: Phonopy, potential: Potential, compact: ndarray, seconds: float
) -> ForceConstantsReport:
    full = compact_fc_to_full_fc(phonon.primitive, compact)
    sums = max(np.abs(full.sum(axis=axis)).max() for axis in (0, 1))
    equilibrium = potential.evaluate(phonon.primitive)
    return ForceConstantsReport(
        model=potential.name,
        sha256=potential.sha256,
        sum_rule=float(sums),
        permutation=float(np.abs(full - full.transpose(1, 0, 3, 2)).max()),
        residual_force=float(np.linalg.norm(equilibrium.forces, axis=1).max()),
        residual_stress=float(np.abs(equilibrium.stress).max() / GPa),
        hessian_range=potential.hessian_range,
        inscribed_radius=inscribed_radius(phonon.supercell.cell),
        method="automatic differentiation of the supercell",
        seconds=seconds,
    )

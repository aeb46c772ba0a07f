"""Analytic third-order force constants of phono3py's supercells."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from phonopy import Phonopy

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.phonons.cells import (
    Cells,
    primitive_operations,
    require_angstrom,
    require_repeated,
    supercell_images,
    supercell_of_primitive,
)
from phonopy_equivariant.phonons.charges import require_charges
from phonopy_equivariant.phonons.force_constants import force_constants, symmetry_report
from phonopy_equivariant.phonons.interpolation import interpolation_error
from phonopy_equivariant.phonons.residuals import (
    third_permutation_residual,
    third_sum_rule_residual,
)
from phonopy_equivariant.phonons.third_order_report import ThirdOrderReport
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.symmetry.operations import Operations
from phonopy_equivariant.response.symmetry.triplets import (
    Triplets,
    commensurate_triplets,
    compact_third_order,
    fill_triplets,
)
from phonopy_equivariant.response.third.lattice import lattice_third_derivatives
from phonopy_equivariant.runtime.blas import one_blas_thread
from phonopy_equivariant.structure import inscribed_radius, masses_of

if TYPE_CHECKING:
    from phono3py import Phono3py  # type: ignore[import-not-found,import-untyped,unused-ignore]

# Called with the number of triplets that are done, and of all.
Track = Callable[[int, int], None]


def third_order_force_constants(
    phono3py: Phono3py, potential: PotentialLike, track: Track | None = None
) -> Float[ndarray, "prim super super 3 3 3"]:
    """Return analytic compact third-order force constants of ``phono3py.supercell``.

    Third derivatives of the potential energy of the periodic supercell, as computed: neither
    symmetrised nor projected. They follow from first-order responses on the primitive cell at the
    irreducible triplets of commensurate q (2n+1 theorem: X. Gonze, Phys. Rev. A 52, 1096 (1995));
    no atom is displaced. Of phono3py's space group only operations that the structure obeys to
    rounding (1e-11 Å) are used, whatever ``symprec`` is.

    Parameters
    ----------
    phono3py
        A ``phono3py.Phono3py`` object with supercell and primitive matrices set.
    potential
        From :func:`phonopy_equivariant.load_potential`, or the name of a model.
    track
        Called with the number of triplets that are done, and of all.

    Returns
    -------
    ndarray, shape=(n_prim, n_super, n_super, 3, 3, 3), eV/Å³
        In phono3py's order: row i belongs to supercell atom ``phono3py.primitive.p2s_map[i]``.

    Raises
    ------
    PhonopyEquivariantError
        An object of another class; an element the potential does not know, overlapping atoms;
        masses or Born charges that mean nothing; a primitive cell that repeats in the supercell
        only within the tolerance of phono3py's search; numbers that are not finite.

    """
    cells = _sound(phono3py)
    potential = as_potential(potential)
    symmetry = primitive_operations(cells, potential.parity)
    return third_order_of_cells(cells, potential, symmetry, track)[0]


def set_third_order_force_constants(
    phono3py: Phono3py, potential: PotentialLike, track: Track | None = None
) -> ThirdOrderReport:
    """Store analytic force constants of third and second order in ``phono3py``, in place.

    ``phono3py.fc3`` belongs to ``phono3py.supercell``, ``phono3py.fc2`` to
    ``phono3py.phonon_supercell``, which may be larger. Both are compact and as computed.
    Parameters and errors are those of :func:`third_order_force_constants`.

    Returns
    -------
    ThirdOrderReport
        Residuals of the laws that third-order force constants obey, and the time taken.

    """
    cells = _sound(phono3py)
    potential = as_potential(potential)
    start = time.perf_counter()
    symmetry = primitive_operations(cells, potential.parity)
    compact, triplets = third_order_of_cells(cells, potential, symmetry, track)
    second = force_constants(phonon_of(phono3py, is_symmetry=False), potential)
    seconds = time.perf_counter() - start
    error = interpolation_error(cells, compact, potential)
    owner, images = supercell_images(cells)
    rows = np.array(phono3py.primitive.p2s_map)
    report = ThirdOrderReport(
        model=potential.name,
        sha256=potential.sha256,
        triplets=triplets.source.size,
        irreducible=len(triplets.irreducible),
        sum_rule=third_sum_rule_residual(compact, owner),
        permutation=third_permutation_residual(
            compact, images, owner, rows, supercell_of_primitive(cells)
        ),
        largest=float(np.abs(compact).max()),
        interpolation=error,
        inscribed_radius=inscribed_radius(phono3py.supercell.cell),
        seconds=seconds,
        symmetry=symmetry_report(cells, potential.parity),
    )
    phono3py.fc3, phono3py.fc2 = compact, second
    return report


def third_order_of_cells(
    cells: Cells, potential: Potential, symmetry: Operations, track: Track | None = None
) -> tuple[Float[ndarray, "prim super super 3 3 3"], Triplets]:
    """Return third-order force constants and the triplets they were made of.

    ``cells`` has a primitive cell and a supercell, as Phonopy and Phono3py objects have;
    ``symmetry`` are operations that the primitive cell obeys.
    """
    triplets = commensurate_triplets(supercell_of_primitive(cells), symmetry)
    values = lattice_third_derivatives(
        potential, cells.primitive, triplets.qpoints[triplets.irreducible], track, symmetry
    )
    owner, images = supercell_images(cells)
    rows = np.array(cells.primitive.p2s_map)
    with one_blas_thread():
        every = fill_triplets(triplets, symmetry, values)
        return compact_third_order(triplets, every, images, owner, rows), triplets


def _sound(phono3py: Phono3py) -> Cells:
    """Return the object, whose cells are read as those of a Phonopy, or refuse it.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`third_order_force_constants`.

    """
    needed = ("supercell", "primitive", "phonon_supercell", "primitive_symmetry", "fc3")
    if not all(hasattr(phono3py, name) for name in needed):
        raise PhonopyEquivariantError(
            f"Expected a phono3py.Phono3py object, got {type(phono3py).__name__}."
        )
    cells: Cells = phono3py
    require_angstrom(cells)
    masses_of(phono3py.primitive)
    if phono3py.nac_params is not None:
        atoms = len(phono3py.primitive)
        require_charges(phono3py.nac_params, "phono3py.nac_params", atoms)
    require_repeated(cells)
    return cells


def phonon_of(phono3py: Phono3py, is_symmetry: bool = True) -> Phonopy:
    """Return a Phonopy of the supercell that second-order force constants belong to.

    Raises
    ------
    PhonopyEquivariantError
        phonopy orders the atoms of the supercell differently.

    """
    matrix = phono3py.phonon_supercell_matrix
    phonon = Phonopy(
        phono3py.unitcell,
        phono3py.supercell_matrix if matrix is None else matrix,
        primitive_matrix=phono3py.primitive_matrix,
        symprec=phono3py.symmetry.tolerance,
        is_symmetry=is_symmetry,
    )
    difference = phonon.supercell.scaled_positions - phono3py.phonon_supercell.scaled_positions
    if np.abs(difference - np.rint(difference)).max() > 1e-8:
        raise PhonopyEquivariantError(
            "phono3py.phonon_supercell has another order of atoms than phonopy gives it; make the "
            "Phono3py object with phono3py and phonopy of one release."
        )
    return phonon

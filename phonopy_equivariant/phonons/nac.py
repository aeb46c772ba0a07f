"""The non-analytical term at every q, for a potential whose D(q) is analytic at Γ.

A potential has learnt the dipole-dipole interaction at the q of its training cells, and D(q) at Γ
without macroscopic field. Between Γ and the next of these q it joins the two somehow, always
analytically, and there it is wrong: the longitudinal optical branch falls to the transversal one.
So the rule is: **D(q) of the potential is trusted at Γ and from the q of the training cells on**,
|q| ≥ 2π/R. With the long-range part L(q) of the dipoles (:mod:`.response.dipole_dipole`),

    D(q) = S(q) + L(q),    S = X + sum_G w_G·Q_G (I - X) Q_G,    X = D_potential - L

where I(q) interpolates X from Γ and the q commensurate with cells of at most R, as phonopy does
from a supercell of that size (Gonze and Lee 1997). Q_G takes off the common translation of all
atoms, u_i e^{i(q+G)·x_i} with all u_i equal: it has no dipole, since charges sum to zero, and so
sound stays that of the potential. The window w_G is one where q is near -G, and S is periodic:

    w_0(k) = exp(-[k·ε·k/(ε̄ k_0²)]²),    k_0 = √2·2π/R,    ε̄ = tr(ε)/3,
    sum_G w_G = 1 - Π_G (1 - v_G),    v_G = w_0(q + G),    w_G in proportion to v_G/(1 - v_G)

w_G is 1 - O(|q + G|⁴) in the metric of ε, so that (1 - w_0)·L is analytic at Γ, and with it S: the
part of L that depends on the direction has no translation in it, and passes Q_0 unchanged. At Γ and
at the other q of those cells S + L is the potential's D(q), and no dipole is counted twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy import ndarray
from phonopy import Phonopy
from phonopy.harmonic.dynamical_matrix import DynamicalMatrix, DynamicalMatrixGL
from phonopy.structure.atoms import PhonopyAtoms
from phonopy.structure.cells import Primitive

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.phonons.cells import primitive_operations
from phonopy_equivariant.phonons.charges import Charges
from phonopy_equivariant.phonons.exact_images import image_matrix
from phonopy_equivariant.response.dipole_dipole import (
    Dipoles,
    balanced_screening,
    lattice_vectors,
    long_range,
)
from phonopy_equivariant.response.dynamical_matrix import mass_weighted
from phonopy_equivariant.response.symmetry.star import commensurate_grid, fill_star
from phonopy_equivariant.structure import inscribed_radius

# Å, diameter of the cells whose q are trusted: the size of the cells in training sets of phonons.
# What other sizes give is measured in docs/polar_rule.md.
NAC_RANGE = 10.0
# Å, diameter from which a supercell's own q lie where the potential is not to be trusted
WIDEST = 1.5 * NAC_RANGE
# Å: below, no structure has an atom's neighbour; above, S(q) changes too steeply to be interpolated
SMALLEST_RANGE, LARGEST_RANGE = 1.0, 30.0
NEGLIGIBLE = 1e-15  # weight of a window

Values = Complex[ndarray, "q columns columns"]


class PolarDynamicalMatrix(DynamicalMatrixGL):
    """phonopy's Gonze-Lee dynamical matrix with short-range force constants given.

    phonopy makes them from those of a supercell; here they belong to a list of images. Private
    names of phonopy in use, the same in 4.7 to 4.10: ``_run_recip_dipole_dipole_q0`` is called,
    ``_run_without_NAC`` is overridden.
    """

    def __init__(
        self,
        supercell: PhonopyAtoms,
        primitive: Primitive,
        force_constants: Float[ndarray, "atoms images 3 3"],
        dipoles: Dipoles,
    ):
        super().__init__(supercell, primitive, force_constants)
        self.nac_params = {
            "born": dipoles.charges,
            "dielectric": dipoles.dielectric,
            "factor": dipoles.coulomb,
            "Lambda": balanced_screening(dipoles) / (2 * np.pi),
            "G_cutoff": _cutoff(dipoles),
        }
        self.make_Gonze_nac_dataset()

    def make_Gonze_nac_dataset(self) -> None:
        """Prepare the sum rule of the dipoles; the force constants are of short range already."""
        self._run_recip_dipole_dipole_q0()
        self.short_range_force_constants = self.force_constants

    def _run_without_NAC(self, q: ndarray) -> None:
        """Compute D(q) at Γ where no direction is given: dipoles without macroscopic field."""
        self._compute_dynamical_matrix(q, None)


def _cutoff(dipoles: Dipoles) -> float:
    """Return the length of G (1/Å without 2π) that phonopy's sum needs at q within ±1.

    phonopy takes the same G for every q, and by default too few for q beyond the first zone.
    """
    corners = np.array(list(np.ndindex(3, 3, 3))) - 1
    longest = np.linalg.norm(corners @ dipoles.reciprocal, axis=1).max()
    smallest = np.linalg.eigvalsh(dipoles.dielectric)[0]
    # terms beyond are below 1e-13 of the leading one
    decay = 2 * balanced_screening(dipoles) * np.sqrt(-np.log(1e-13) / smallest)
    return float((longest + decay) / (2 * np.pi))


class PolarResponse:
    """What takes the place of a potential's Φ(q) in a polar crystal.

    Parameters
    ----------
    phonon
        Its primitive cell is taken.
    charges
        Of :func:`.charges.obeying`.
    nac_range
        R of this module, Å.
    direct
        Φ(q) of the potential in the lattice gauge at a list of q, eV/Å².
    parity
        Whether Φ(q) obeys reflections of the crystal, and not its rotations alone.

    Raises
    ------
    PhonopyEquivariantError
        The range is not between 1 and 30 Å.

    """

    def __init__(
        self,
        phonon: Phonopy,
        charges: Charges,
        nac_range: float,
        direct: Callable[[Float[ndarray, "q 3"]], Values],
        parity: bool = True,
    ):
        if not SMALLEST_RANGE <= nac_range <= LARGEST_RANGE:
            raise PhonopyEquivariantError(
                f"The range of the potential's dipoles is {nac_range:g} Å; give "
                f"{SMALLEST_RANGE:g} to {LARGEST_RANGE:g} Å as nac_range=."
            )
        self.primitive = primitive = phonon.primitive
        self.range = nac_range
        self.dipoles = Dipoles(
            primitive.cell,
            primitive.positions,
            charges.born,
            charges.dielectric,
            charges.coulomb,
        )
        self.screening = balanced_screening(self.dipoles)
        self.counts = trusted_cells(primitive.cell, nac_range)
        self._direct = direct
        self._optical = optical_projector(len(primitive))
        symmetry = primitive_operations(phonon, parity)
        grid = commensurate_grid(np.diag(self.counts), symmetry)
        points = grid.qpoints[grid.irreducible]
        trusted = direct(points) - self.long_range(points)
        self._interpolation = image_matrix(
            phonon, self.counts, grid, fill_star(grid, symmetry, trusted)
        )

    @property
    def kind(self) -> Callable[..., DynamicalMatrix]:
        """Return the class of dynamical matrices that add the dipoles to S(q)."""
        return functools.partial(PolarDynamicalMatrix, dipoles=self.dipoles)

    def short_range(self, qpoints: Float[ndarray, "q 3"]) -> Values:
        """Return S(q) in the lattice gauge, eV/Å²."""
        values = self._direct(qpoints) - self.long_range(qpoints)
        change = self.interpolated(qpoints) - values
        waves, weights = window(self.dipoles, qpoints, self.range)
        for index, point in enumerate(weights):
            for place in np.flatnonzero(point > NEGLIGIBLE):
                phases = np.exp(1j * self.primitive.positions @ waves[index, place])
                columns = np.repeat(phases, 3)
                optical = columns[:, None] * self._optical * columns.conj()
                values[index] += point[place] * optical @ change[index] @ optical
        return values

    def dynamical_matrices(self, qpoints: Float[ndarray, "q 3"], values: Values) -> Values:
        """Return D(q) in phonopy's convention from S(q) in the lattice gauge."""
        return mass_weighted(self.primitive, qpoints, values + self.long_range(qpoints))

    def long_range(self, qpoints: Float[ndarray, "q 3"]) -> Values:
        """Return L(q) in the lattice gauge, eV/Å²."""
        nearest = qpoints - np.rint(qpoints)
        values = long_range(self.dipoles, nearest, self.screening)
        columns = self._columns(nearest)
        return (
            columns[:, :, None]
            * values.reshape(-1, *2 * columns.shape[1:])
            * (columns.conj()[:, None, :])
        )

    def interpolated(self, qpoints: Float[ndarray, "q 3"]) -> Values:
        """Return I(q) in the lattice gauge, eV/Å²."""
        columns = self._columns(qpoints) * np.repeat(np.sqrt(self.primitive.masses), 3)
        values = np.empty((len(qpoints), *2 * columns.shape[1:]), complex)
        for index, q in enumerate(qpoints):
            self._interpolation.run(q)
            values[index] = self._interpolation.dynamical_matrix
        return columns[:, :, None] * values * columns.conj()[:, None, :]

    def _columns(self, qpoints: Float[ndarray, "q 3"]) -> Complex[ndarray, "q columns"]:
        """Return the phases from phonopy's gauge to the lattice gauge."""
        phases = np.exp(2j * np.pi * qpoints @ self.primitive.scaled_positions.T)
        return np.repeat(phases, 3, axis=1)


def optical_projector(atoms: int) -> Float[ndarray, "columns columns"]:
    """Return the projector on displacements without a common translation."""
    return np.eye(3 * atoms) - np.kron(np.full((atoms, atoms), 1 / atoms), np.eye(3))


def trusted_cells(cell: Float[ndarray, "3 3"], nac_range: float) -> Int[ndarray, "3"]:
    """Return how many primitive cells fit into ``nac_range`` (Å) along each vector.

    There are at least two where one cell is shorter than the range.
    """
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    fitting = np.floor(nac_range / heights + 1e-6)
    return np.where(heights < nac_range, np.maximum(2, fitting), 1).astype(int)


def window(
    dipoles: Dipoles, qpoints: Float[ndarray, "q 3"], nac_range: float
) -> tuple[Float[ndarray, "q waves 3"], Float[ndarray, "q waves"]]:
    """Return the wave vectors q + G (1/Å with 2π) within reach, and w_G of this module."""
    mean = np.trace(dipoles.dielectric) / 3
    smallest = np.linalg.eigvalsh(dipoles.dielectric)[0]
    nearest = (qpoints - np.rint(qpoints)) @ dipoles.reciprocal
    width = 2**0.5 * 2 * np.pi / nac_range
    # beyond, w_0 is below e^-46, 1e-20
    reach = 2.6 * width * np.sqrt(mean / smallest)
    reach += np.linalg.norm(nearest, axis=1).max(initial=0.0)
    waves = nearest[:, None] + lattice_vectors(dipoles.reciprocal, reach)
    squares = np.einsum("qka,ab,qkb->qk", waves, dipoles.dielectric, waves) / mean
    exponents = (squares / width**2) ** 2
    # v/(1 - v), kept finite at the centre of a window and positive far from all
    odds = np.exp(-np.minimum(exponents, 600.0)) / np.maximum(-np.expm1(-exponents), 1e-60)
    total = -np.expm1(np.log(np.maximum(-np.expm1(-exponents), 1e-60)).sum(axis=1))
    return waves, total[:, None] * odds / odds.sum(axis=1, keepdims=True)


def supercell_remarks(phonon: Phonopy) -> list[str]:
    """Return a warning if phonopy's correction is confined to too small a neighbourhood of Γ."""
    diameter = 2 * inscribed_radius(phonon.supercell.cell)
    if phonon.nac_params is None or diameter <= WIDEST:
        return []
    return [
        f"Born charges with a supercell of {diameter:.1f} Å: phonopy corrects the LO branch "
        f"between Γ and the next q of the supercell, and the potential is wrong up to the q of "
        f"about {NAC_RANGE:g} Å, which leaves a dip; use exact=True, or a supercell= of "
        f"{NAC_RANGE:g} to {WIDEST:g} Å."
    ]

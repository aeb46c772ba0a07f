"""Thermal expansion at one volume, from analytic Grüneisen parameters and elastic constants.

A strain ε costs the static energy V·ε·C·ε/2 and changes the entropy of the phonons by
Σ_qν c_qν·γ_qν, γ the Grüneisen parameters of that strain and c the heat capacities of the modes
(Grüneisen and Goens, Z. Phys. 29, 141 (1924); Barron, Collins and White,
Adv. Phys. 29, 609 (1980), doi:10.1080/00018738000101426). To first order in the free energy of the
phonons, with S the elastic compliance, atoms relaxed,

    α = (1/V) S · Σ_qν c_qν γ_qν

No other volume is computed. What this leaves out, that C and γ change while the crystal expands,
is what a quasi-harmonic calculation on several volumes adds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase.units import GPa, kB
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.phonons.cells import vibrational_operations
from phonopy_equivariant.phonons.gruneisen import gruneisen_mesh
from phonopy_equivariant.response.elastic import as_voigt, crystal_of, elastic_tensor
from phonopy_equivariant.results import Result
from phonopy_equivariant.structure import StructureLike

# The six orthonormal symmetric tensors: xx, yy, zz, and √2 times the off-diagonal ones.
_SYMMETRIC = np.array(
    [np.diag(row) for row in np.eye(3)]
    + [
        (np.outer(np.eye(3)[a], np.eye(3)[b]) + np.outer(np.eye(3)[b], np.eye(3)[a])) / np.sqrt(2)
        for a, b in ((1, 2), (0, 2), (0, 1))
    ]
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ThermalExpansion(Result):
    """Thermal expansion of a crystal at one volume.

    Parameters
    ----------
    temperatures
        K.
    tensor
        Linear thermal expansion in Cartesian axes, 1/K.
    bulk_modulus
        Of the crystal under hydrostatic pressure, atoms and shape relaxed, GPa.
    volume
        Of the primitive cell, Å³.
    mesh
        Numbers of the mesh of q, which contains Γ.

    """

    temperatures: Float[ndarray, " n"]
    tensor: Float[ndarray, "n 3 3"]
    bulk_modulus: float
    volume: float
    mesh: tuple[int, int, int]

    @property
    def volumetric(self) -> Float[ndarray, " n"]:
        """Volumetric thermal expansion (1/K), the trace of the tensor."""
        return np.asarray(np.trace(self.tensor, axis1=1, axis2=2))

    def along(
        self, directions: Float[ndarray, "m 3"] | Sequence[Sequence[float]]
    ) -> Float[ndarray, "n m"]:
        """Return linear thermal expansions (1/K) along Cartesian directions of any length."""
        vectors = np.asarray(directions, float)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.einsum("ma,nab,mb->nm", units, self.tensor, units)

    def columns(self) -> list[str]:
        """Return the headings of :meth:`rows`."""
        return ["T (K)", "VOLUMETRIC (1e-6/K)", "xx", "yy", "zz", "yz", "xz", "xy"]

    def rows(self) -> list[list[str]]:
        """Return the volumetric expansion and the tensor at each temperature."""
        return [
            [f"{t:g}", *(f"{1e6 * x:.3f}" for x in (beta, *_six(tensor)))]
            for t, beta, tensor in zip(self.temperatures, self.volumetric, self.tensor, strict=True)
        ]


def thermal_expansion(
    structure: StructureLike,
    potential: PotentialLike,
    temperatures: Float[ndarray, " n"] | Sequence[float] = (100.0, 300.0),
    mesh: Sequence[int] = (10, 10, 10),
    symprec: float = 1e-5,
) -> ThermalExpansion:
    """Return the thermal expansion of a crystal at its own volume, without another one.

    Strains that the symmetry of the crystal allows are taken one by one, from one for a cubic
    crystal to six for a triclinic one. A crystal under hydrostatic pressure expands at that
    pressure: p·V is part of what strain costs.

    Parameters
    ----------
    structure
        The primitive cell of a crystal without forces on its atoms; stress is hydrostatic.
    potential
        A potential, or the name of a model.
    temperatures
        K.
    mesh
        Three positive numbers of a mesh with Γ. The heat capacity at low temperature needs
        acoustic modes near Γ, and so a fine mesh.
    symprec
        Distance (Å) within which symmetry is recognised.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`.elastic_tensor` and :func:`.gruneisen_mesh`; the crystal is not stable against
        a strain.

    """
    potential, crystal = as_potential(potential), crystal_of(structure)
    symmetry = vibrational_operations(crystal, symprec, potential.parity)
    strains = allowed_strains(symmetry.cartesian)
    voigt = np.array([as_voigt(strain) for strain in strains])
    pressure = -float(np.trace(potential.evaluate(crystal).stress)) / 3
    stiffness = elastic_tensor(crystal, potential).relaxed * GPa + pressure * _volume_curvature()
    costs = voigt @ stiffness @ voigt.T
    if np.linalg.eigvalsh(costs).min() <= 0:
        raise PhonopyEquivariantError(
            "The crystal is not stable against a strain of its own symmetry, and has no thermal "
            "expansion at this volume."
        )
    pulls: list[Any] = []
    for strain in strains:
        modes = gruneisen_mesh(crystal, potential, mesh, symprec, strain)
        capacities = modes.heat_capacities(temperatures)
        sums = np.einsum("q,tqm,qm->t", modes.weights, capacities, modes.counted_parameters)
        pulls.append(kB * sums / (modes.weights.sum() * crystal.volume))
    amounts = np.linalg.solve(costs, np.array(pulls))
    compressed = np.einsum("kaa->k", strains)
    return ThermalExpansion(
        np.asarray(temperatures, float),
        np.einsum("kn,kab->nab", amounts, strains),
        float(1 / (compressed @ np.linalg.solve(costs, compressed)) / GPa),
        crystal.volume,
        modes.mesh,
    )


def allowed_strains(rotations: Float[ndarray, "ops 3 3"]) -> Float[ndarray, "strains 3 3"]:
    """Return an orthonormal basis of the symmetric tensors that all Cartesian rotations keep."""
    turned = np.einsum("oab,kbc,odc->okad", rotations, _SYMMETRIC, rotations).mean(axis=0)
    projector = np.einsum("jab,kab->jk", _SYMMETRIC, turned)
    kept, vectors = np.linalg.eigh((projector + projector.T) / 2)
    return np.einsum("jk,jab->kab", vectors[:, kept > 0.5], _SYMMETRIC)


def _volume_curvature() -> Float[ndarray, "6 6"]:
    """Return ∂²det(1 + ε)/∂ε∂ε for Voigt's six strains, whose shear strains are γ = 2ε."""
    curvature = np.diag([0.0, 0.0, 0.0, -0.5, -0.5, -0.5])
    curvature[:3, :3] = 1 - np.eye(3)
    return curvature


def _six(tensor: Float[ndarray, "3 3"]) -> list[float]:
    return [float(tensor[a, b]) for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))]

"""Second derivatives of the energy by strain, from first-order changes: no program of a crystal.

A strain ε takes the vector of an edge to (1 + ε)(r_e + u_j - u_i). Along it the gradient of an edge
changes by

    d(∂E/∂r_e) = (∂²E/∂r_e∂r_e)·εr_e + sum over layers of source_e·δη_i + adjoint_e·δg_j,

the first term at fixed features, δη and δg the first-order changes of :mod:`.sweep` along a motion.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.prepare import Motion, prepare
from phonopy_equivariant.response.third.expansion import ThirdExpansion, expand_to_third_order
from phonopy_equivariant.response.third.motion import along_motion
from phonopy_equivariant.response.third.phases import plain_sums
from phonopy_equivariant.response.third.rehearsal import begin_third_order_programs
from phonopy_equivariant.response.third.sweep import FirstOrder, first_orders
from phonopy_equivariant.runtime.blas import one_blas_thread
from phonopy_equivariant.runtime.compilation import x64_mode
from phonopy_equivariant.structure import Structure


def strain_derivatives(
    potential: Potential, structure: Structure, strains: Float[ndarray, "strains 3 3"]
) -> tuple[Float[ndarray, "strains atoms 3"], Float[ndarray, "strains strains"]]:
    """Return ∂²E/∂ε∂u (eV/Å) and ∂²E/∂ε∂ε (eV) along symmetric strains.

    Raises
    ------
    PhonopyEquivariantError
        Numbers that are not finite.

    """
    atoms = len(structure.numbers)
    begin_third_order_programs(potential)
    # its edges stand in the same order
    expansion = prepare(potential, structure).expansion
    bond, gradient = (np.asarray(x, float) for x in (expansion.bond, expansion.gradient))
    mixed = np.empty((len(strains), atoms, 3))
    second = np.empty((len(strains), len(strains)))
    with x64_mode(), one_blas_thread():
        crystal = expand_to_third_order(potential, structure)
        moved = crystal.vectors @ strains  # (strains, edges, 3)
        for k, strain in enumerate(strains):
            along = along_motion(crystal, Motion(strain, np.zeros((atoms, 3))))
            changes = first_orders(along, np.zeros((1, 3)), along_motion=True)[0]
            slope = np.einsum("ezw,ew->ez", bond, moved[k]) + _from_changes(crystal, changes)
            # displacements are strained as well
            pull = slope + gradient @ strain
            mixed[k] = plain_sums(crystal, pull, crystal.senders)
            mixed[k] -= plain_sums(crystal, pull, crystal.receivers)
            second[k] = np.einsum("ez,sez->s", slope, moved)
    return potential.require_finite(mixed), potential.require_finite(second)


def _from_changes(crystal: ThirdExpansion, changes: FirstOrder) -> Float[ndarray, "edges 3"]:
    """Return what changes of adjoints and messages make of the gradient of every edge."""
    total = np.zeros((len(crystal.senders), 3))
    for layer, change in zip(crystal.layers, changes.layers, strict=True):
        adjoints = change.slope[:, 0][crystal.receivers]
        total += np.einsum("ezy,ey->ez", layer.source, adjoints)
        if change.sent is not None:
            sent = change.sent[:, 0][crystal.senders]
            total += np.einsum("ezg,eg->ez", layer.adjoint, sent)
    return total

"""Relaxation of a molecule by Newton steps with the analytic Hessian."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.defaults import MOLECULE_FMAX
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.molecules.modes import external_motions
from phonopy_equivariant.molecules.structure import as_molecule, refuse_constraints
from phonopy_equivariant.structure import StructureLike, as_atoms

if TYPE_CHECKING:  # brings JAX, which a Hessian from a file does without
    from phonopy_equivariant.checkpoints.load import PotentialLike

_TRUST = 0.2  # Å, the longest step of an atom
# Curvatures below this (eV/Å²) are no bonds: a step along them would be arbitrarily long.
_FLAT = 1e-5
# Energies differ by rounding near the minimum, eV.
_ROUNDING = 1e-9


class NewtonStep(NamedTuple):
    """State of a relaxation, given to a callback at every step."""

    step: int
    energy: float  # eV
    max_force: float  # eV/Å


def relax(
    atoms: StructureLike,
    potential: PotentialLike,
    fmax: float = MOLECULE_FMAX,
    max_steps: int = 100,
    callback: Callable[[NewtonStep], None] | None = None,
) -> Atoms:
    """Return a copy of a molecule at a stationary point of the potential.

    x ← x + Σ_k v_k (v_k·F) / abs(λ_k) over the eigenvectors of the Hessian without translations and
    rotations, at most 0.2 Å long for an atom; a step that raises the energy is taken again at a
    quarter. Where a curvature is negative the step goes downhill. Symmetry is kept, so a planar
    guess may end on a saddle point: imaginary frequencies tell.

    Parameters
    ----------
    atoms
        A molecule, or one molecule in a box.
    potential
        A potential, or the name of a model; in float64: rounding of float32
        forces lies above the threshold.
    fmax
        Largest force on an atom at the end, eV/Å.
    max_steps
        Steps after which to give up.
    callback
        Called with each :class:`NewtonStep`.

    Returns
    -------
    Atoms
        Not periodic, without calculator.

    Raises
    ------
    PhonopyEquivariantError
        Not a molecule, an element the potential does not know, atoms with constraints, or no
        convergence.

    """
    from phonopy_equivariant.checkpoints.load import as_potential
    from phonopy_equivariant.response.autodiff.hessian import graph_hessian

    if not 0 < fmax < np.inf:
        raise PhonopyEquivariantError(f"fmax={fmax}: the threshold must be a positive number.")
    refuse_constraints(as_atoms(atoms))
    relaxed, potential = as_molecule(atoms), as_potential(potential)
    graph = potential.graph(relaxed)
    state = potential.evaluate_graph(graph)
    trust = _TRUST
    for step in range(max_steps + 1):
        largest = float(np.linalg.norm(state.forces, axis=1).max())
        if callback is not None:
            callback(NewtonStep(step, state.energy, largest))
        if largest <= fmax:
            return relaxed
        newton = newton_step(relaxed.positions, state.forces, graph_hessian(potential, graph))
        while True:
            trial = relaxed.copy()
            trial.positions += newton * min(1.0, trust / np.linalg.norm(newton, axis=1).max())
            trial_graph = potential.graph(trial)
            trial_state = potential.evaluate_graph(trial_graph)
            if trial_state.energy <= state.energy + _ROUNDING:
                break
            trust /= 4
            if trust < 1e-6:
                raise _stuck(fmax, largest, step)
        relaxed, graph, state = trial, trial_graph, trial_state
        trust = min(2 * trust, _TRUST)
    raise _stuck(fmax, float(np.linalg.norm(state.forces, axis=1).max()), max_steps)


def newton_step(
    positions: Float[ndarray, "atoms 3"],
    forces: Float[ndarray, "atoms 3"],
    curvature: Float[ndarray, "atoms 3 atoms 3"],
) -> Float[ndarray, "atoms 3"]:
    """Return the Newton step (Å) that neither moves nor turns the molecule as a whole."""
    external = external_motions(positions, np.ones(len(positions)))
    complement = np.linalg.svd(external)[0][:, external.shape[1] :]
    matrix = curvature.reshape(forces.size, forces.size)
    values, vectors = np.linalg.eigh(complement.T @ ((matrix + matrix.T) / 2) @ complement)
    along = vectors.T @ (complement.T @ forces.ravel())
    bound = np.abs(values) > _FLAT
    step = complement @ (vectors[:, bound] @ (along[bound] / np.abs(values[bound])))
    return np.asarray(step.reshape(-1, 3))


def _stuck(fmax: float, force: float, steps: int) -> PhonopyEquivariantError:
    return PhonopyEquivariantError(
        f"The relaxation did not reach {fmax:g} eV/Å in {steps} steps (force {force:.1e} eV/Å): "
        'start from a better structure, use dtype="float64", or raise the threshold (fmax=).'
    )

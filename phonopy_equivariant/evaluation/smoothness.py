"""Distances at which derivatives of a potential jump, and crystals with neighbours near them.

A potential's force constants are second derivatives of its energy. Where a second derivative of a
bond's energy jumps at some distance, force constants of a crystal with a bond of that length change
abruptly with its lattice constant, and mean nothing there; third derivatives likewise.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Float
from numpy import ndarray

from phonopy_equivariant.models.config import Kink
from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import Potential, node_energies
from phonopy_equivariant.response.third.derivatives import three_derivatives
from phonopy_equivariant.runtime.compilation import compiled
from phonopy_equivariant.structure import Structure, StructureLike, as_structure, neighbours

# Å: a neighbour this close to a jump comes and goes with the thermal motion.
NEAR = 0.02
ORDINALS = {2: "second", 3: "third"}
# Å; a step across a jump, and between the points of a scan
STEP, SPACING = 1e-7, 0.01
# Å: bonds are scanned from here to the cutoff
SHORTEST = 0.8
# distances computed at a time
BLOCK = 32


class Jump(NamedTuple):
    """What derivatives of the energy of a pair of atoms do at a distance."""

    pair: tuple[int, int]  # atomic numbers
    radius: float  # Å
    jumps: tuple[float, ...]  # of energy and three derivatives, eV/Å^n

    def continuous(self, scale: Float[ndarray, "4"]) -> int:
        """Return the highest derivative that does not jump; -1 if the energy itself does."""
        jumping = np.abs(self.jumps) > 1e-5 * scale
        return int(jumping.argmax()) - 1 if jumping.any() else 3


def smoothness_remarks(
    potential: Potential, structure: StructureLike, derivative: int = 2
) -> list[str]:
    """Return a warning if neighbours lie where derivatives up to some order jump.

    Parameters
    ----------
    potential, structure
        A potential and a crystal.
    derivative
        The highest derivative of the energy that a result needs: 2 for force constants and
        elastic constants, 3 for Grüneisen parameters and third-order force constants.

    """
    crystal = as_structure(structure)
    present = {int(z) for z in crystal.numbers}
    kinks = [kink for kink in potential.config.kinks(present) if kink.derivative <= derivative]
    if not kinks:
        return []
    i, j, _, distances = neighbours(crystal, max(kink.radius for kink in kinks) + NEAR)
    remarks = []
    for kink in kinks:
        near = np.abs(distances - kink.radius) < NEAR
        if kink.pair is not None:
            ends = np.stack([crystal.numbers[i], crystal.numbers[j]], axis=1)
            near &= (np.sort(ends, axis=1) == sorted(kink.pair)).all(axis=1)
        if near.any():
            remarks.append(_remark(potential, kink, distances[near]))
    return remarks


def _remark(potential: Potential, kink: Kink, distances: Float[ndarray, " near"]) -> str:
    closest = distances[np.abs(distances - kink.radius).argmin()]
    return (
        f"neighbours at {closest:.3f} Å lie within {NEAR:g} Å of {kink.radius:g} Å, where the "
        f"{ORDINALS[kink.derivative]} derivative of a bond of {potential.name} jumps: results "
        "change abruptly with the lattice constant there; compare with another model, or with a "
        "lattice a little larger and smaller."
    )


def jumps_at(potential: Potential, pair: tuple[int, int], radii: tuple[float, ...]) -> list[Jump]:
    """Return how much the energy of two atoms and its derivatives jump at some distances."""
    points = np.array([radius + side for radius in radii for side in (-STEP, STEP)])
    values = bond_derivatives(potential, pair, points).reshape(len(radii), 2, 4)
    # what the next derivative changes over the step is no jump
    steps = values[:, 1] - values[:, 0]
    smooth = 2 * STEP * np.minimum(np.abs(values[:, 0, 1:]), np.abs(values[:, 1, 1:]))
    steps[:, :3] = np.sign(steps[:, :3]) * np.maximum(np.abs(steps[:, :3]) - smooth, 0)
    return [
        Jump(pair, radius, tuple(float(x) for x in step))
        for radius, step in zip(radii, steps, strict=True)
    ]


def unannounced(
    potential: Potential, pair: tuple[int, int], known: tuple[float, ...]
) -> tuple[float, ...]:
    """Return distances (Å), to 0.01 Å, of jumps of the second derivative that nobody announced.

    A scan of the bond's energy: the change of f'' over a step differs from the step times the
    mean of f''' by more than curvature explains. A jump stays as large when the step is divided;
    where the energy is steep, the difference goes.
    """
    radii = np.arange(SHORTEST, potential.cutoff + 2 * SPACING, SPACING)
    values = bond_derivatives(potential, pair, radii)
    excess = _excess(values, SPACING)
    # a smooth function leaves errors of the third order in the step that vary slowly
    usual = np.array([np.median(excess[max(0, k - 10) : k + 11]) for k in range(len(excess))])
    suspicious = excess > 50 * usual + 1e-3 * np.abs(values[:, 2]).max()
    middles = (radii[1:] + radii[:-1]) / 2
    suspicious &= np.array([all(abs(r - k) > 2 * SPACING for k in known) for r in middles])
    if not suspicious.any():
        return ()
    inside = np.linspace(-SPACING / 2, SPACING / 2, BLOCK)
    points = middles[suspicious][:, None] + inside
    fine = bond_derivatives(potential, pair, points.ravel()).reshape(*points.shape, 4)
    stays = [_excess(x, inside[1] - inside[0]).max() for x in fine] > excess[suspicious] / 2
    return tuple(float(r) for r in middles[suspicious][stays])


def _excess(values: Float[ndarray, "points 4"], step: float) -> Float[ndarray, " steps"]:
    """Return |f''(r + step) - f''(r) - step (f'''(r) + f'''(r + step)) / 2| between points."""
    change: ndarray = np.diff(values[:, 2]) - step * (values[1:, 3] + values[:-1, 3]) / 2
    return np.abs(change)


def bond_derivatives(
    potential: Potential, pair: tuple[int, int], distances: Float[ndarray, " points"]
) -> Float[ndarray, "points 4"]:
    """Return the energy of two atoms and three derivatives with the distance, eV/Å^n."""
    positions = np.array([[0.0, 0.0, 0.0], [0.6 * potential.cutoff, 0.0, 0.0]])
    dimer = Structure(np.array(pair), positions, np.zeros((3, 3)), np.zeros(3, bool))
    graph = potential.graph(dimer)
    # in blocks of one size: one program serves all distances and pairs
    count = -(-len(distances) // BLOCK) * BLOCK
    padded = np.pad(distances, (0, count - len(distances)), mode="edge")
    blocks = [
        np.asarray(_derivatives(potential.model, potential.params, graph, block), float)
        for block in padded.reshape(-1, BLOCK)
    ]
    values: ndarray = np.concatenate(blocks)[: len(distances)]
    return values


@compiled(static_argnums=(0,))
def _derivatives(
    model: LayeredModel, params: Params, graph: jraph.GraphsTuple, distances: Array
) -> Array:
    def energies(stretch: Array) -> Array:
        def energy(distance: Array) -> Array:
            moved = jnp.zeros((2, 3), distance.dtype).at[1, 0].set(distance)
            return node_energies(model, params, graph, moved).sum()

        return jax.vmap(energy)(stretch)

    return three_derivatives(energies, distances)

"""Molecular dynamics of small molecules, many at once, until a bond breaks.

All runs go in one program, each a graph of all pairs of its atoms, so that no list of neighbours
is ever made: a pair beyond the cutoff contributes nothing. The integrator is BAOAB (Leimkuhler and
Matthews, Appl. Math. Res. Express 2013, 34), which without friction is velocity Verlet: runs at
constant energy and with a thermostat differ in their friction only.

A bond is a pair of atoms closer than 1.3 times the sum of their covalent radii at the start. It is
broken when its length differs by more than 0.5 Å from that at the start (the criterion of Fu et
al., arXiv:2210.07237, with equilibrium lengths).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from ase import units
from ase.data import covalent_radii
from jaxtyping import Array, Float, Int
from numpy import ndarray

from phonopy_equivariant.graph import build_graph, pad_graph
from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import Potential, graph_of_node, node_energies
from phonopy_equivariant.runtime.compilation import compiled
from phonopy_equivariant.structure import Structure, masses_of

TEMPERATURE = 500.0  # K, of the velocities at the start and of the thermostat
TIME_STEP = 0.5  # fs
FRICTION = 0.01  # 1/fs, of the thermostat
CHUNK = 200  # steps between two samples of the energy
BROKEN = 0.5  # Å
ALL_PAIRS = 100.0  # Å, beyond any molecule


class Outcome(NamedTuple):
    """What became of one run."""

    ensemble: str  # NVE or NVT
    picoseconds: float  # simulated until a bond broke, or in all
    broken: float | None  # ps, when a bond broke
    drift: float | None  # meV/atom/ps, slope of the energy before, of NVE runs of 1 ps or more
    temperature: float  # K, mean before


class Motion(NamedTuple):
    """State of all runs; ``broken`` is the step at which a bond broke, or -1."""

    positions: Float[Array, "nodes 3"]
    velocities: Float[Array, "nodes 3"]
    forces: Float[Array, "nodes 3"]
    broken: Int[Array, " graphs"]
    step: Int[Array, ""]
    key: Array


class Molecules(NamedTuple):
    """What does not change: graph, masses, friction, bonds (pairs of nodes and lengths)."""

    graph: jraph.GraphsTuple
    masses: Float[ndarray, "nodes 1"]
    friction: Float[ndarray, "nodes 1"]  # 1/fs
    bonds: Int[ndarray, "bonds 2"]
    lengths: Float[ndarray, " bonds"]


def run_dynamics(
    potential: Potential, starts: Sequence[Structure], picoseconds: float, seed: int = 0
) -> list[Outcome]:
    """Return what becomes of runs from each start, at constant energy and with a thermostat."""
    runs = [(ensemble, start) for ensemble in ("NVE", "NVT") for start in starts]
    molecules = assemble(potential, runs)
    motion = begin(potential, molecules, seed)
    energies: list[ndarray] = []
    chunks = round(1000 * picoseconds / TIME_STEP / CHUNK)
    for _ in range(chunks):
        motion, sample = advance(potential.model, potential.params, molecules, motion)
        energies.append(np.asarray(sample))
        if (np.asarray(motion.broken)[:-1] >= 0).all():
            break
    kinetic, total = np.array(energies)[:, :, :-1].transpose(1, 0, 2)
    outcomes = []
    for k, (ensemble, start) in enumerate(runs):
        step = int(motion.broken[k])
        whole = len(energies) if step < 0 else step // CHUNK
        outcomes.append(
            outcome(ensemble, step, kinetic[:whole, k], total[:whole, k], len(start.numbers))
        )
    return outcomes


def outcome(ensemble: str, step: int, kinetic: ndarray, total: ndarray, atoms: int) -> Outcome:
    """Return the summary of a run from its energies (eV) before a bond broke."""
    times = TIME_STEP * CHUNK / 1000 * np.arange(1, 1 + len(total))
    broken = None if step < 0 else TIME_STEP * step / 1000
    enough = ensemble == "NVE" and len(times) > 1 and times[-1] >= 1.0
    drift = 1000 * float(np.polyfit(times, total, 1)[0]) / atoms if enough else None
    # without a thermostat the centre of mass stays at rest
    freedom = 3 * atoms - (3 if ensemble == "NVE" else 0)
    temperature = 2 * float(kinetic.mean()) / (freedom * units.kB) if len(kinetic) else np.nan
    length = broken if broken is not None else float(times[-1])
    return Outcome(ensemble, length, broken, drift, temperature)


def assemble(potential: Potential, runs: Sequence[tuple[str, Structure]]) -> Molecules:
    """Return the graph of all runs, padded, with what belongs to its atoms."""
    graphs = [
        build_graph(start, ALL_PAIRS, potential.species_index(start.numbers)) for _, start in runs
    ]
    padded = pad_graph(jraph.batch_np(graphs))
    nodes = len(padded.nodes["species"])
    masses, friction = np.ones((nodes, 1)), np.zeros((nodes, 1))
    bonds, lengths, first = [], [], 0
    for ensemble, start in runs:
        atoms = slice(first, first + len(start.numbers))
        masses[atoms, 0] = masses_of(start)
        friction[atoms] = FRICTION * (ensemble == "NVT")
        radii = covalent_radii[start.numbers]
        distances = np.linalg.norm(start.positions[:, None] - start.positions, axis=-1)
        bonded = np.argwhere(np.triu(distances < 1.3 * (radii[:, None] + radii), 1))
        bonds.append(first + bonded)
        lengths.append(distances[tuple(bonded.T)])
        first = atoms.stop
    return Molecules(padded, masses, friction, np.concatenate(bonds), np.concatenate(lengths))


def begin(potential: Potential, molecules: Molecules, seed: int) -> Motion:
    """Return the state at the start: velocities of Maxwell and Boltzmann, no net momentum."""
    rng = np.random.default_rng(seed)
    graph, masses = molecules.graph, molecules.masses
    velocities = rng.normal(size=(len(masses), 3)) * np.sqrt(units.kB * TEMPERATURE / masses)
    ends = np.cumsum(graph.n_node)
    for start, end in zip(ends[:-1] - graph.n_node[:-1], ends[:-1], strict=True):
        atoms = slice(int(start), int(end))
        momentum = (masses[atoms] * velocities[atoms]).sum(0)
        velocities[atoms] -= momentum / masses[atoms].sum()
    velocities[ends[-2] :] = 0  # padding
    positions = np.asarray(graph.nodes["positions"], float)
    forces = energies_and_forces(potential.model, potential.params, graph, positions)[1]
    broken = np.full(len(graph.n_node), -1)
    return Motion(
        positions, velocities, forces, broken, np.array(0), np.array([0, seed], np.uint32)
    )


@compiled(static_argnums=(0,))
def energies_and_forces(
    model: LayeredModel, params: Params, graph: jraph.GraphsTuple, positions: Array
) -> tuple[Float[Array, " nodes"], Float[Array, "nodes 3"]]:
    """Return site energies (eV) and forces (eV/Å)."""
    return _energies_and_forces(model, params, graph, positions)


def _energies_and_forces(
    model: LayeredModel, params: Params, graph: jraph.GraphsTuple, positions: Array
) -> tuple[Array, Array]:
    def total(positions: Array) -> tuple[Array, Array]:
        energies = node_energies(model, params, graph, positions)
        return energies.sum(), energies

    gradient, energies = jax.grad(total, has_aux=True)(positions)
    return energies, -gradient


@compiled(static_argnums=(0,))
def advance(
    model: LayeredModel, params: Params, molecules: Molecules, motion: Motion
) -> tuple[Motion, Float[Array, "2 graphs"]]:
    """Take CHUNK steps; return the state, and kinetic and total energy (eV) of each run."""
    graph, owner = molecules.graph, graph_of_node(molecules.graph)
    force = partial(_energies_and_forces, model, params, graph)

    def step(motion: Motion, _: None) -> tuple[Motion, None]:
        return _step(force, molecules, owner, motion), None

    motion, _ = jax.lax.scan(step, motion, None, CHUNK)
    per_atom = 0.5 * jnp.sum(molecules.masses * motion.velocities**2, axis=1)
    graphs = len(graph.n_node)
    kinetic = jax.ops.segment_sum(per_atom, owner, graphs)
    potential = jax.ops.segment_sum(force(motion.positions)[0], owner, graphs)
    return motion, jnp.stack([kinetic, kinetic + potential])


def _step(force: partial, molecules: Molecules, owner: Array, motion: Motion) -> Motion:
    """Take one step of BAOAB; runs that broke stand still."""
    masses, step = molecules.masses, TIME_STEP * units.fs
    key, used = jax.random.split(motion.key)
    kept = jnp.exp(-molecules.friction * TIME_STEP)
    noise = jax.random.normal(used, motion.positions.shape, motion.positions.dtype)
    velocities = motion.velocities + 0.5 * step * motion.forces / masses
    positions = motion.positions + 0.5 * step * velocities
    width = jnp.sqrt((1 - kept**2) * units.kB * TEMPERATURE / masses)
    velocities = kept * velocities + width * noise
    positions = positions + 0.5 * step * velocities
    forces = force(positions)[1]
    velocities = velocities + 0.5 * step * forces / masses
    broken = _broken(molecules, owner, positions, motion)
    moves = (broken < 0)[owner][:, None]
    return Motion(
        jnp.where(moves, positions, motion.positions),
        jnp.where(moves, velocities, motion.velocities),
        jnp.where(moves, forces, motion.forces),
        broken,
        motion.step + 1,
        key,
    )


def _broken(molecules: Molecules, owner: Array, positions: Array, motion: Motion) -> Array:
    """Return the step at which each run broke, or -1; numbers that are not finite break it too."""
    i, j = molecules.bonds.T
    lengths = jnp.linalg.norm(positions[i] - positions[j], axis=1)
    intact = jnp.abs(lengths - molecules.lengths) < BROKEN  # false for numbers that are not finite
    bad = jax.ops.segment_max((~intact).astype(int), owner[i], len(motion.broken)) > 0
    return jnp.where((motion.broken < 0) & bad, motion.step + 1, motion.broken)

"""A teacher's labels: relaxation, energies, forces, stresses, second derivatives at any q.

Sizes are padded to powers of two, so that a few dozen programs serve thousands of structures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import jax
import jraph
import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from scipy.optimize import minimize

import phonopy_equivariant as pe
from phonopy_equivariant.calculators.ase import EquivariantCalculator
from phonopy_equivariant.data import ForceConstantsData, Record
from phonopy_equivariant.data.perturb import Perturbation, perturbed
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import Evaluation, Potential
from phonopy_equivariant.runtime.compilation import compiled
from phonopy_equivariant.structure import Structure, as_structure
from phonopy_equivariant.training import spectral

MAX_ATOMS = 16  # of a supercell whose Hessian is a label
# (standard deviation of positions in Å, of the strain) of perturbed copies
PERTURBATIONS = ((0.02, 0.005), (0.05, 0.01), (0.1, 0.02), (0.1, 0.04), (0.2, 0.02))
# more of known compounds, and their lattice parameters: those of other functionals are smaller
MORE = ((0.03, 0.003), (0.03, 0.02), (0.06, 0.01))
LATTICES = (1.0, 0.985)
# of the copies of a structure that was brought near its rest only
GLANCES = ((0.03, 0.005), (0.08, 0.015), (0.15, 0.03))
SETTLING = 10  # steps
AT_REST = 0.08  # eV/Å; single precision ends line searches early, so they are tried again
TRIES = 3
FIRST = 0.2  # Å, length of the first step of a relaxation: the unit of its variables
OF_MOLECULES = ((0.02, 0.0), (0.05, 0.0), (0.1, 0.0), (0.15, 0.0)) * 12


def power_of_two(count: int, least: int) -> int:
    """Return the smallest power of two that is not below ``count`` or ``least``."""
    return max(least, 1 << (count - 1).bit_length())


class Teacher(Potential):
    """A potential whose graphs are padded to powers of two."""

    def evaluate_graph(
        self, graph: jraph.GraphsTuple, n_node: int | None = None, n_edge: int | None = None
    ) -> Evaluation:
        """Return energy, forces and stress; sizes that a caller asks for are rounded up too."""
        n_node = power_of_two(n_node or int(graph.n_node[0]) + 1, 32)
        n_edge = power_of_two(n_edge or int(graph.n_edge[0]), 64)
        return super().evaluate_graph(graph, n_node, n_edge)


def load_teacher(path: str, dtype: str) -> Teacher:
    """Return a potential as a teacher."""
    some = pe.load_potential(path, dtype=dtype)
    return Teacher(some.config, some.params, some.dtype, some.name, some.sha256)


@compiled(static_argnums=(0,))
def _force_constants(model, params, batch):
    return spectral.force_constants(model, params, batch)


def padded_cell(teacher: Potential, structure: Structure) -> spectral.Cell:
    """Return a cell for the Bloch response, all its sizes powers of two."""
    cell = spectral.make_cell(teacher, structure, power_of_two(len(structure.numbers), 4))
    more = power_of_two(len(cell.senders), 512) - len(cell.senders)
    wide = power_of_two(cell.slots.shape[1], 32) - cell.slots.shape[1]
    return cell._replace(
        vectors=np.concatenate([cell.vectors, np.tile([1e3, 0.0, 0.0], (more, 1))]),
        senders=np.pad(cell.senders, (0, more)),
        receivers=np.pad(cell.receivers, (0, more)),
        slots=np.pad(cell.slots, ((0, 0), (0, wide))),
        filled=np.pad(cell.filled, ((0, 0), (0, wide))),
    )


def lattice_force_constants(
    teacher: Potential, structure: Structure, qpoints: np.ndarray
) -> np.ndarray:
    """Return Φ(q), (n_q, 3n, 3n), of a primitive cell."""
    cell = padded_cell(teacher, structure)
    columns = 3 * cell.atoms
    found = []
    for k in range(len(qpoints)):  # one by one: the number of q is no shape of a program
        batch = spectral.make_batch(cell, qpoints, np.array([k]), {})
        values = np.asarray(_force_constants(teacher.model, teacher.params, batch), float)
        real, *imaginary = values[0, :, :columns, :columns]
        found.append(real + 1j * (imaginary[0] if imaginary else 0.0))
    return np.array(found)


def supercell_hessian(
    teacher: Potential, atoms: Atoms, repeats: np.ndarray
) -> tuple[Structure, np.ndarray]:
    """Return a diagonal supercell and its Hessian from Φ at the commensurate q.

    H_(iS)(jS') = 1/N sum_q Φ_ij(q) e^{-2πi q·(S' - S)}.
    """
    images = np.indices(repeats).reshape(3, -1).T
    qpoints = images / repeats
    phi = lattice_force_constants(teacher, as_structure(atoms), qpoints)
    phases = np.exp(-2j * np.pi * (images[None] - images[:, None]) @ qpoints.T)
    full = np.einsum("abq,qxy->axby", phases, phi).real / len(images)
    columns = full.shape[0] * full.shape[1]
    supercell = make_supercell(atoms, np.diag(repeats), order="cell-major")
    expected = (images[:, None] @ atoms.cell.array + atoms.positions).reshape(-1, 3)
    supercell.positions = expected  # as the Hessian counts its atoms
    return as_structure(supercell), full.reshape(columns, columns)


def repeats_of(atoms: Atoms) -> np.ndarray:
    """Return how often to repeat a cell: its shortest vector doubled while it stays small."""
    repeats = np.ones(3, int)
    while len(atoms) * repeats.prod() * 2 <= MAX_ATOMS:
        lengths = np.where(repeats == 1, atoms.cell.lengths(), np.inf)
        if np.isinf(lengths.min()):
            break
        repeats[int(lengths.argmin())] = 2
    return repeats


def _record(teacher: Teacher, structure: Structure, source: str) -> Record:
    result = teacher.evaluate(structure)
    periodic = bool(structure.pbc.all())
    return Record(
        structure,
        energy=result.energy,
        forces=result.forces,
        stress=result.stress if periodic else None,
        level=teacher.name,
        source=source,
    )


def labelled(
    teacher: Teacher, atoms: Atoms, source: str, rng: np.random.Generator, known: bool = False
) -> Iterator[Record]:
    """Yield a structure at rest with its Hessian, then perturbed copies; of known ones more."""
    periodic = bool(atoms.pbc.all())
    for scale in LATTICES if known else LATTICES[:1]:
        scaled = atoms.copy()
        scaled.set_cell(scale * atoms.cell, scale_atoms=True)
        repeats = repeats_of(atoms) if periodic else np.ones(3, int)
        supercell, hessian = supercell_hessian(teacher, scaled, repeats)
        second = ForceConstantsData(np.zeros((1, 3)), hessian[None].astype(complex))
        first = _record(teacher, supercell, source)
        yield Record(**(vars(first) | {"force_constants": second}))
    yield from copies(teacher, atoms, source, rng, PERTURBATIONS + (MORE if known else ()))


def copies(
    teacher: Teacher,
    atoms: Atoms,
    source: str,
    rng: np.random.Generator,
    perturbations: tuple[tuple[float, float], ...],
) -> Iterator[Record]:
    """Yield perturbed copies without Hessians."""
    periodic = bool(atoms.pbc.all())
    for k, (width, strain) in enumerate(perturbations):
        small = as_structure(atoms.repeat(_some_repeats(atoms, rng)) if periodic else atoms)
        length = float(np.mean(np.linalg.norm(small.cell, axis=1))) if periodic else 0.0
        options = Perturbation(width, strain * length, seed=int(rng.integers(2**31)))
        for copy in perturbed(small, options, 1):
            record = _record(teacher, copy, f"{source}:{k}")
            if np.linalg.norm(record.forces, axis=1).max() < 15.0:
                yield record


def _some_repeats(atoms: Atoms, rng: np.random.Generator) -> tuple[int, ...]:
    """Return a random small repetition: perturbations without the cell's translations."""
    repeats = np.ones(3, int)
    while len(atoms) * repeats.prod() * 2 <= 12 and rng.random() < 0.8:
        repeats[rng.integers(3)] *= 2
    return tuple(int(r) for r in repeats)


def relaxed(teacher: Teacher, atoms: Atoms) -> Atoms:
    """Return a crystal, or a molecule, at rest."""
    if not atoms.pbc.all():
        return pe.molecules.relax(atoms, teacher, fmax=1e-3)
    return descended(teacher, atoms)


def descended(teacher: Teacher, atoms: Atoms) -> Atoms:
    """Return a crystal relaxed without constraints of symmetry, in a fraction of the time.

    Positions u and strain ε, r = (r_0 + u)(1 + ε), go downhill together (L-BFGS-B). Gradients have
    the symmetry of the crystal, so that rounding alone can break it.

    Raises
    ------
    PhonopyEquivariantError
        Forces above ``AT_REST``, or such a derivative by the strain per atom, are left.

    """
    count, scale = len(atoms), len(atoms) ** 0.5  # of the strain: as stiff as the atoms

    def placed(x: np.ndarray) -> tuple[np.ndarray, Structure]:
        x = FIRST * x
        deformation = np.eye(3) + x[-9:].reshape(3, 3) / scale
        deformation = (deformation + deformation.T) / 2
        positions = (atoms.positions + x[:-9].reshape(-1, 3)) @ deformation
        cell = atoms.cell.array @ deformation
        return deformation, Structure(atoms.numbers, positions, cell, atoms.pbc)

    def slope(x: np.ndarray) -> tuple[float, np.ndarray]:
        deformation, structure = placed(x)
        try:
            found = teacher.evaluate(structure)
        except PhonopyEquivariantError:  # overlapping atoms: too long a step
            if not before:
                raise
            return before[0] + 100.0, before[1]
        by_strain = np.linalg.solve(deformation, found.stress * structure.volume)
        by_strain = (by_strain + by_strain.T) / (2 * scale)
        gradient = np.concatenate([(-found.forces @ deformation).ravel(), by_strain.ravel()])
        before[:] = [float(found.energy), FIRST * gradient]
        return before[0], before[1]

    before: list[Any] = []
    widest = np.concatenate([np.full(3 * count, 1.5), np.full(9, 0.4 * scale)]) / FIRST
    options = {"maxiter": 60, "maxfun": 80, "ftol": 0.0, "gtol": FIRST * AT_REST / 4}
    bounds = list(zip(-widest, widest, strict=True))
    x = np.zeros(len(widest))
    for _ in range(TRIES):
        x = minimize(slope, x, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
        gradient = slope(x)[1] / FIRST
        left = max(np.abs(gradient[:-9]).max(), np.abs(gradient[-9:]).max() / scale)
        if left <= AT_REST:
            structure = placed(x)[1]
            return Atoms(
                structure.numbers, positions=structure.positions, cell=structure.cell, pbc=True
            )
    raise PhonopyEquivariantError(f"relaxed to a gradient of {left:.2f} eV/Å only")


def settled(teacher: Teacher, atoms: Atoms) -> Atoms:
    """Return a crystal after a few steps of relaxation, wherever they lead."""
    moved = atoms.copy()
    moved.calc = EquivariantCalculator(teacher)
    with BFGS(FrechetCellFilter(moved), logfile=None, maxstep=0.1) as optimizer:
        optimizer.run(fmax=0.2, steps=SETTLING)
    moved.calc = None
    return moved


def sound(atoms: Atoms, start: Atoms) -> str:
    """Return what is wrong with a relaxed crystal, or nothing."""
    if not atoms.pbc.all():
        return ""
    growth = atoms.get_volume() / start.get_volume()
    if not 0.25 < growth < 2.2:
        return f"volume changed by {growth:.2f}"
    return ""


def use_cache(folder: str) -> None:
    """Keep compiled programs in a folder."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # XLA complains of flags of the CPU at every load
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

"""Small records for training: rattled structures labelled by a teacher of random weights."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from conftest import small_config

from phonopy_equivariant.data import ForceConstantsData, Record, Spectrum
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
from phonopy_equivariant.structure import Structure, as_structure, masses_of
from phonopy_equivariant.training.config import TrainingConfig, make_config
from phonopy_equivariant.training.spectral import THZ2

# compiles in about a second, with features of both kinds
TINY: dict[str, Any] = {
    "hidden_irreps": "3x0e + 2x1o",
    "l_max": 1,
    "num_radial_basis": 3,
    "radial_width": 4,
}
STEPS = 30  # of a whole run
Q = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.13, 0.31, -0.22]])


def tiny_potential(seed: int, **changes: object) -> Potential:
    return random_potential(small_config(**(TINY | changes)), seed=seed)


def gamma_record(structure: Structure, seed: int = 0) -> Record:
    """Everything a graph's loss can compare, the Hessian at Γ among it, as random numbers."""
    rng = np.random.default_rng(seed)
    atoms = len(structure.numbers)
    matrix = rng.normal(size=(3 * atoms, 3 * atoms))
    stress = 0.05 * rng.normal(size=(3, 3))
    return Record(
        structure,
        energy=float(rng.normal()),
        forces=rng.normal(size=(atoms, 3)),
        stress=stress + stress.T if structure.pbc.all() else None,
        force_constants=ForceConstantsData(np.zeros((1, 3)), (matrix + matrix.T)[None] + 0j),
    )


def lattice_record(structure: Structure, seed: int = 0) -> Record:
    """Hermitian matrices and frequencies at three q, random."""
    rng = np.random.default_rng(seed)
    columns = 3 * len(structure.numbers)
    values = rng.normal(size=(2, 3, columns, columns))
    matrices = values[0] + 1j * values[1] + (values[0] - 1j * values[1]).transpose(0, 2, 1)
    matrices[:2] = matrices[:2].real  # 2q is a reciprocal lattice vector
    found = np.sort(rng.uniform(-2, 12, (3, columns)), axis=1)
    return Record(
        structure,
        force_constants=ForceConstantsData(Q, matrices),
        spectrum=Spectrum(Q, found),
    )


def computed_record(potential: Potential, structure: Structure, qpoints: np.ndarray) -> Record:
    """Force constants and frequencies of a potential at some q."""
    values = lattice_force_constants(potential, structure, qpoints)
    found = frequencies(values, structure)
    return Record(
        structure,
        force_constants=ForceConstantsData(qpoints, values),
        spectrum=Spectrum(qpoints, found),
    )


def frequencies(values: np.ndarray, structure: Structure) -> np.ndarray:
    """Return frequencies (THz) of Φ(q), by NumPy."""
    roots = np.repeat(masses_of(structure), 3) ** 0.5
    squares = np.linalg.eigvalsh(values / np.outer(roots, roots) * THZ2)
    return np.sign(squares) * np.sqrt(np.abs(squares))


def rock_salt(amplitude: float = 0.0, seed: int = 0) -> Structure:
    atoms = bulk("NaCl", "rocksalt", a=4.4)
    atoms.rattle(amplitude, seed=seed)
    return as_structure(atoms)


def write_set(path: Path, teacher: Potential, count: int, seed: int = 0) -> Path:
    """Write rattled cells of two and four atoms with energies and forces of the teacher."""
    images = []
    for k in range(count):
        atoms = bulk("NaCl", "rocksalt", a=4.4) * ((1, 1, 1), (2, 1, 1))[k % 2]
        atoms.rattle(0.1, seed=1000 * seed + k)
        found = teacher.evaluate(atoms)
        atoms.calc = SinglePointCalculator(atoms, energy=found.energy, forces=found.forces)
        images.append(atoms)
    ase.io.write(path, images, format="extxyz")
    return path


def options(folder: Path, output: str, **changes: Any) -> dict[str, Any]:
    model = {k: v for k, v in TINY.items()} | {"cutoff": 3.0, "num_interactions": 1}
    values: dict[str, Any] = {
        "output": output,
        "model": model,
        "sets": [{"path": "a.extxyz", "valid": 0.25, "batch_size": 3}],
        "loss": {"energy": {"weight": 1.0}, "forces": {"weight": 1.0}},
        "optimiser": {"learning_rate": 0.02, "warmup_steps": 5, "weight_decay": 1e-4},
        "steps": STEPS,
        "dtype": "float64",
        "validate_every": 10,
        "checkpoint_every": 7,
        "log_every": 1,
    }
    return values | changes


def config(folder: Path, output: str, **changes: Any) -> TrainingConfig:
    return make_config(options(folder, output, **changes), folder)


def arrays(path: Path) -> dict[str, bytes]:
    """Return the members of an archive: weights, moments, averages, progress."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rows(folder: Path) -> list[dict[str, str]]:
    """Return the log without the speed."""
    with open(folder / "log.csv", newline="") as file:
        return [
            {k: v for k, v in r.items() if k != "steps_per_second"} for r in csv.DictReader(file)
        ]


def assert_same_run(one: Path, other: Path) -> None:
    left, right = arrays(one / "state.npz"), arrays(other / "state.npz")
    headers = [json.loads(some.pop("progress.json")) for some in (left, right)]
    for header in headers:
        del header["config"]["output"]
    assert headers[0] == headers[1]
    assert left == right  # bit for bit
    assert rows(one) == rows(other)
    best = [arrays(some / "best.npz") for some in (one, other)]
    for some in best:
        some.pop("model.yaml")  # has the name of the folder
    assert best[0] == best[1]

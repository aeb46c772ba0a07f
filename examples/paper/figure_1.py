"""Fig. 1 of arXiv:2403.11347: silicon from cells of several sizes, and from one cell with Φ.

    python figure_1.py train [--only 111 222 ...] [--seeds 3] [--steps 4000] [--minutes M]
    python figure_1.py draw

``train`` trains one small NequIP, for each seed, on each of

111, 222, 333   energies and forces of cells of 2, 16, 54 atoms, if their file is in ``data/``
111+phi         those of 2 atoms, and Φ(q) of the DFPT grid by the Bloch response
111+gamma       those of 2 atoms, and columns of the Hessian at Γ of the same DFPT

with equal architecture, number of updates and learning rate. With ``--minutes`` the number of
updates is what each set makes in so much processor time, by its speed in a short trial.
Potentials go to the folder ``--work`` (default: figure_1); one that is there is not trained again.

``draw`` compares D(q) with DFPT along the path of the bands, at the lattice constant of the data:
‖ΔD(q)‖/‖D(q)‖, mass-weighted, Frobenius norms. Γ is left out. Means and standard deviations are
over seeds. It writes ``figure_1.png`` and ``figure_1.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy import ndarray
from phonopy import Phonopy
from phonopy.harmonic.dynmat_to_fc import DynmatToForceConstants
from phonopy.physical_units import get_physical_units
from trainings import speed_of, spread, train_once

import phonopy_equivariant as pe
from phonopy_equivariant.data import Record, read_records, write_records
from phonopy_equivariant.data.record import ForceConstantsData
from phonopy_equivariant.evaluation.metrics import relative_errors
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.frequencies import signed_root
from phonopy_equivariant.response.dynamical_matrix import mass_weighted
from phonopy_equivariant.structure import to_phonopy

mpl.use("Agg")
import matplotlib.pyplot as plt

DATA = Path(__file__).parent / "data"
NAMES = ("111", "222", "333", "111+phi", "111+gamma")
MODEL = {"cutoff": 5.0, "num_interactions": 3, "hidden_irreps": "16x0e+16x1o+8x2e", "l_max": 2}
TRIAL = 300  # updates
GRID = 4  # q of DFPT along each reciprocal vector
# of the primitive cell's reciprocal vectors; (½ ½ 1) is an X of the next zone, K is on its way to Γ
SEGMENTS = (
    ("Γ", (0, 0, 0), "X", (0.5, 0, 0.5)),
    ("X", (0.5, 0.5, 1), "Γ", (0, 0, 0)),
    ("Γ", (0, 0, 0), "L", (0.5, 0.5, 0.5)),
)
POINTS = 25  # steps of a segment
COLORS = dict(
    zip(NAMES, ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple"), strict=True)
)


def data_file(name: str) -> Path:
    """Return the file of energies and forces of a set."""
    return DATA / f"silicon_{name[:3]}.extxyz.xz"


def second_order(folder: Path, kind: str) -> Path:
    """Return a file with Φ(q) of DFPT: all q, or Γ alone."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"silicon_{kind}.h5"
    if not path.exists():
        (record,) = read_records(DATA / "silicon_dfpt.fc.xz")
        constants = record.force_constants
        if kind == "gamma":
            constants = ForceConstantsData(constants.qpoints[:1], constants.values[:1])
        write_records([Record(record.structure, force_constants=constants)], path)
    return path


def config(name: str, seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """Return the settings of one training, as in a training file."""
    sets: list[dict[str, Any]] = [
        {"path": str(data_file(name)), "batch_size": 5, "terms": ["energy", "forces"]}
    ]
    loss: dict[str, Any] = {"energy": {"weight": 1}, "forces": {"weight": 10}}
    if "+" in name:
        path = second_order(folder, name[4:])
        sets.append({"path": str(path), "batch_size": 1, "terms": ["hessian"]})
        loss["hessian"] = {"weight": 0.1, "qpoints": 4}
    return {
        "output": str(folder / f"{name}_{seed}"),
        "model": MODEL,
        "sets": sets,
        "loss": loss,
        "steps": steps,
        "seed": seed,
        "optimiser": {"learning_rate": 5e-3, "final": 0.01},
        "validate_every": steps,
        "checkpoint_every": steps,
        "log_every": 50,
    }


def steps_in(minutes: float, name: str, folder: Path) -> int:
    """Return how many updates a set makes in so much processor time, after a short trial."""
    train_once(config(name, 0, TRIAL, folder))
    return round(60 * minutes * speed_of(folder, f"{name}_0"))


def path_of_bands() -> tuple[ndarray, ndarray, list[tuple[float, str]]]:
    """Return q along the path, distances (1/Å, with 2π) and where the corners are."""
    (record,) = read_records(DATA / "silicon_dfpt.fc.xz")
    reciprocal = 2 * np.pi * np.linalg.inv(record.structure.cell).T
    points, distances, corners, travelled = [], [], [], 0.0
    for label, start, _, end in SEGMENTS:
        step = np.subtract(end, start)
        length = float(np.linalg.norm(step @ reciprocal))
        corners.append((travelled, label))
        for t in np.linspace(0, 1, POINTS + 1):
            points.append(start + t * step)
            distances.append(travelled + t * length)
        travelled += length
    return np.array(points), np.array(distances), [*corners, (travelled, SEGMENTS[-1][2])]


def reference(qpoints: ndarray) -> ndarray:
    """Return D(q) of DFPT, its grid interpolated as phonopy does."""
    (record,) = read_records(DATA / "silicon_dfpt.fc.xz")
    cell = to_phonopy(record.structure)
    phonon = Phonopy(cell, GRID * np.eye(3, dtype=int), primitive_matrix=np.eye(3))
    constants = record.force_constants
    on_grid = mass_weighted(record.structure, constants.qpoints, constants.values)
    transform = DynmatToForceConstants(phonon.primitive, phonon.supercell)
    order = [
        int(np.argmin(np.abs(_wrapped(constants.qpoints - q)).sum(axis=1)))
        for q in transform.commensurate_points
    ]
    transform.dynamical_matrices = on_grid[order]
    transform.run()
    phonon.force_constants = transform.force_constants
    phonon.run_qpoints(qpoints, with_dynamical_matrices=True)
    return np.asarray(phonon.qpoints.dynamical_matrices)


def _wrapped(q: ndarray) -> ndarray:
    return q - np.rint(q)


def frequencies(matrices: ndarray) -> ndarray:
    """Return frequencies (THz), imaginary ones negative."""
    values = np.linalg.eigvalsh(matrices)
    return signed_root(values) * get_physical_units().DefaultToTHz


def evaluate(folder: Path, qpoints: ndarray) -> dict[str, ndarray]:
    """Return D(q) of all seeds of each set that has been trained."""
    (record,) = read_records(DATA / "silicon_dfpt.fc.xz")
    found = {}
    for name in NAMES:
        paths = sorted(folder.glob(f"{name}_*/last.npz"))
        if paths:
            potentials = [pe.load_potential(str(path), dtype="float64") for path in paths]
            found[name] = np.array(
                [pe.dynamical_matrices(p, record.structure, qpoints) for p in potentials]
            )
    return found


def draw(folder: Path) -> dict[str, Any]:
    """Draw bands and errors of the potentials of a folder; return the errors."""
    qpoints, distances, corners = path_of_bands()
    expected = reference(qpoints)
    inside = np.linalg.norm(_wrapped(qpoints), axis=1) > 1e-8
    figure, (bands, errors) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    bands.plot(distances, frequencies(expected), "k-", lw=1)
    table: dict[str, Any] = {}
    for name, matrices in evaluate(folder, qpoints).items():
        bands.plot(distances, frequencies(matrices[0]), "--", color=COLORS[name], lw=1)
        off = np.array([relative_errors(expected[inside], each[inside]) for each in matrices])
        errors.semilogy(distances[inside], off.mean(axis=0), color=COLORS[name], label=name)
        limits = (off.min(axis=0), off.max(axis=0))
        errors.fill_between(distances[inside], *limits, color=COLORS[name], alpha=0.2)
        wrong = np.abs(frequencies(matrices) - frequencies(expected)).mean(axis=(1, 2))
        table[name] = {
            "seeds": len(off),
            "D(q)": spread(off.mean(axis=1)),
            "frequencies, THz": spread(wrong),
        }
    for axes in (bands, errors):
        axes.set_xticks([place for place, _ in corners], [label for _, label in corners])
        axes.set_xlim(0, distances[-1])
    bands.set_ylabel("frequency (THz)")
    bands.set_ylim(-6, 18)
    errors.set_ylabel("error of D(q)")
    errors.set_ylim(bottom=1e-3)
    errors.legend(loc="lower center", ncols=2, fontsize=8)
    figure.savefig(folder / "figure_1.png", dpi=80)
    write_atomically(folder / "figure_1.json", json.dumps(table, indent=1).encode())
    return table


def main() -> None:
    """Train, or draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("train", "draw"))
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--work", type=Path, default=Path("figure_1"))
    options = parser.parse_args()
    folder = options.work / ("updates" if options.minutes is None else "minutes")
    if options.action == "draw":
        for part in ("updates", "minutes"):
            if (options.work / part).exists():
                print(part, json.dumps(draw(options.work / part), indent=1))
        return
    for seed in range(options.seeds):
        for name in options.only:
            if not data_file(name).exists():
                continue
            steps = options.steps
            if options.minutes is not None:
                steps = steps_in(options.minutes, name, options.work / "trials")
            train_once(config(name, seed, steps, folder))


if __name__ == "__main__":
    main()

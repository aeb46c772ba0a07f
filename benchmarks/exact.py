"""Exact mode: how supercell interpolation converges towards it, and its time.

    python benchmarks/exact.py figure [FILE.png]
    python benchmarks/exact.py time
    python benchmarks/exact.py first

``figure`` compares D(q) interpolated from N×N×N primitive cells with D(q) computed directly at 100
q, and writes docs/figures/exact_convergence.png. ``time`` measures 1000 q of silicon, directly and
through phonopy's kernels, each on a structure new to the process; ``first`` measures
``run --exact --band auto`` from empty caches and again. Nothing else may run on the machine
meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase.build import bulk
from phonopy import Phonopy
from phonopy.harmonic.dynamical_matrix import DynamicalMatrix
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.frequencies import signed_root
from phonopy_equivariant.phonons.cells import primitive_operations
from phonopy_equivariant.phonons.exact_images import image_matrix
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.bloch.lattice import respond
from phonopy_equivariant.response.bloch.prepare import prepare
from phonopy_equivariant.response.dynamical_matrix import mass_weighted
from phonopy_equivariant.response.symmetry.star import commensurate_grid, fill_star
from phonopy_equivariant.structure import inscribed_radius

MODEL = "nequix-mp-1-pft"
CRYSTALS = {"Si": bulk("Si", a=5.43), "NaCl": bulk("NaCl", "rocksalt", a=5.64)}
SIZES = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "exact_convergence.png"


def phonon_of(name: str, strain: float = 0.0) -> Phonopy:
    """Return phonopy's object of a crystal."""
    atoms = CRYSTALS[name]
    cell = PhonopyAtoms(
        numbers=atoms.numbers,
        cell=atoms.cell[:] * (1 + strain),
        scaled_positions=atoms.get_scaled_positions(),
    )
    return Phonopy(cell, supercell_matrix=np.eye(3, dtype=int), primitive_matrix="P")


def interpolation(phonon: Phonopy, potential: Potential, size: int) -> DynamicalMatrix:
    """Return the dynamical matrix that phonopy has with a supercell of ``size``³ cells."""
    symmetry = primitive_operations(phonon)
    counts = np.full(3, size)
    grid = commensurate_grid(np.diag(counts), symmetry)
    lattice = prepare(potential, phonon.primitive)
    irreducible = respond(potential, lattice, grid.qpoints[grid.irreducible])[0]
    return image_matrix(phonon, counts, grid, fill_star(grid, symmetry, irreducible))


def frequencies(phonon: Phonopy, matrices: np.ndarray) -> np.ndarray:
    """Return frequencies in THz."""
    values = np.linalg.eigvalsh(matrices)
    return signed_root(values) * phonon.unit_conversion_factor


def convergence(name: str) -> np.ndarray:
    """Return rows of N, inscribed diameter (Å), largest error of frequency (THz) and of D(q)."""
    phonon, potential = phonon_of(name), pe.load_potential(MODEL)
    qpoints = np.random.default_rng(0).uniform(size=(100, 3))
    expected = mass_weighted(
        phonon.primitive,
        qpoints,
        respond(potential, prepare(potential, phonon.primitive), qpoints)[0],
    )
    rows = []
    for size in SIZES:
        matrix = interpolation(phonon, potential, size)
        found = []
        for q in qpoints:
            matrix.run(q)
            found.append(matrix.dynamical_matrix)
        shift = frequencies(phonon, np.array(found)) - frequencies(phonon, expected)
        width = 2 * inscribed_radius(phonon.primitive.cell * size)
        rows.append([size, width, np.abs(shift).max(), np.abs(found - expected).max()])
        print(f"{name} {size:2d} {width:5.1f} Å  {rows[-1][2]:.1e} THz  {rows[-1][3]:.1e}")
    return np.array(rows)


def figure(path: Path) -> None:
    """Draw the largest error of a frequency over the size of the supercell."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.0, 3.8), layout="constrained")
    for name, marker in zip(CRYSTALS, "os", strict=True):
        rows = convergence(name)
        axes.semilogy(rows[:, 1], rows[:, 2], marker=marker, label=name)
        for size, width, error, _ in rows[::2]:
            axes.annotate(
                f"{int(size)}³", (width, error), (4, 4), textcoords="offset points", fontsize=7
            )
    axes.axhline(1e-6, color="grey", linestyle=":", linewidth=1)
    axes.text(5, 1.3e-6, "tolerance of exact mode", fontsize=7, color="grey")
    axes.set_xlabel("diameter of the sphere inscribed in the supercell (Å)")
    axes.set_ylabel("largest error of a frequency (THz)")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def timing() -> None:
    """Print wall times of 1000 q of silicon."""
    qpoints = np.random.default_rng(1).uniform(-0.5, 0.5, (1000, 3))
    for dtype in ("float32", "float64"):
        potential = pe.load_potential(MODEL, dtype=dtype)
        for index, label in enumerate(("compiling", "warm", "warm")):
            phonon = phonon_of("Si", 1e-4 * index)
            start = time.perf_counter()
            direct = pe.dynamical_matrices(potential, phonon.primitive, qpoints)
            middle = time.perf_counter()
            report = pe.use_exact_dynamical_matrix(phonon, potential)
            found = time.perf_counter()
            result = phonon.run_qpoints(qpoints).frequencies
            end = time.perf_counter()
            error = np.abs(result - frequencies(phonon, direct)).max()
            print(
                f"{dtype} {label}: 1000 q directly {middle - start:.2f} s; range found in "
                f"{found - middle:.2f} s ({report.attempts[-1].counts}), 1000 q by phonopy "
                f"{end - found:.2f} s; largest difference {error:.1e} THz",
                flush=True,
            )


def first_run() -> None:
    """Print wall times of the command for silicon."""
    structure = Path(__file__).parents[1] / "examples" / "Si.cif"
    command = ["phonopy-equivariant", "run", str(structure), "--model", MODEL, "--exact"]
    with tempfile.TemporaryDirectory() as folder:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
        for caches in ("empty", "filled", "filled"):
            start = time.perf_counter()
            done = subprocess.run(
                [*command, "--band", "auto"],
                cwd=folder,
                env=kept | {"XDG_CACHE_HOME": f"{folder}/cache"},
                capture_output=True,
                text=True,
                check=True,
            )
            seconds = time.perf_counter() - start
            method = [line for line in done.stdout.splitlines() if line.startswith("method")]
            print(f"caches {caches}: {seconds:.1f} s; {' '.join(method)}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["time"]:
        timing()
    elif sys.argv[1:2] == ["first"]:
        first_run()
    elif sys.argv[1:2] == ["figure"]:
        figure(Path(sys.argv[2]) if len(sys.argv) > 2 else FIGURE)
    else:
        sys.exit(__doc__)

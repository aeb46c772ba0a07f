"""A quasi-harmonic calculation by analytic force constants and by finite displacement.

    python benchmarks/qha.py MODEL [--only Si,MgO] [--volumes 11] [--dtype float32]

Both roads are ``pe.qha`` with the same volumes, relaxations, supercells, meshes and fit. By finite
displacement phonopy displaces atoms by 0.01 Å, this package computes the forces of the displaced
supercells, and phonopy makes force constants of them and imposes their sum rule. Supercells have
an inscribed diameter of at least 15 Å.

Programs are compiled before the clock starts: five volumes of the analytic road, and the forces of
one displaced supercell. Wall times mean something if nothing else runs meanwhile, processor times
with one thread for BLAS (OMP_NUM_THREADS=1); one run. The parts, in processor time, are force
constants, relaxations, and all else, which both roads share: phonopy's search for symmetry, meshes,
search for imaginary modes, fit.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from phonopy import Phonopy

import phonopy_equivariant as pe
from phonopy_equivariant.io.crystals import as_crystal
from phonopy_equivariant.io.supercells import choose_supercell
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.workflows import volumes

DIAMETER = 15.0  # Å


def crystals() -> dict[str, Atoms]:
    """Return primitive cells, from lattice constants."""
    return {
        "Si": bulk("Si", a=5.43),
        "MgO": bulk("MgO", "rocksalt", a=4.21),
        "NaCl": bulk("NaCl", "rocksalt", a=5.64),
        "Al2O3": crystal(
            ["Al", "O"],
            [(0, 0, 0.352), (0.306, 0, 0.25)],
            spacegroup=167,
            cellpar=[4.759, 4.759, 12.991, 90, 90, 120],
            primitive_cell=True,
        ),
    }


def finite_displacement(phonon: Phonopy, potential: Potential) -> None:
    """Give phonopy's object force constants from forces of displaced supercells."""
    phonon.generate_displacements(distance=0.01)
    phonon.mlp = pe.PhonopyMLP(potential)
    phonon.evaluate_mlp()
    phonon.produce_force_constants()
    phonon.symmetrize_force_constants()


@contextlib.contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Add up the time of force constants and of relaxations."""

    def clocked(function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                seconds[part] += time.process_time() - start

        return wrapper

    with (
        mock.patch.object(
            volumes,
            "set_force_constants",
            clocked(volumes.set_force_constants, "force constants"),
        ),
        mock.patch.object(volumes, "relax", clocked(volumes.relax, "relaxation")),
    ):
        yield


def run(
    atoms: Atoms, potential: Potential, supercell: np.ndarray, count: int
) -> tuple[pe.QuasiHarmonic, dict[str, float]]:
    """Return the result of a road and the seconds of its parts."""
    seconds = {"force constants": 0.0, "relaxation": 0.0}
    start = time.perf_counter(), time.process_time()
    with timed(seconds):
        result = pe.qha(atoms, potential, supercell, volumes=count, compare=False)
    seconds["wall"] = time.perf_counter() - start[0]
    seconds["cpu"] = time.process_time() - start[1]
    return result, seconds


def main() -> None:
    """Run both roads for each crystal and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--only", default="Si,MgO,NaCl,Al2O3")
    parser.add_argument("--volumes", type=int, default=11)
    parser.add_argument("--dtype", default="float64")
    options = parser.parse_args()
    pe.enable_compilation_cache()
    potential = pe.load_potential(options.model, dtype=options.dtype)
    print(
        f"{options.model}, {options.dtype}, {options.volumes} volumes; seconds\n"
        f"{'':8s}{'atoms':>7s}{'road':>14s}{'wall':>9s}{'cpu':>9s}{'FC':>9s}{'relax':>9s}"
        f"{'else':>9s}"
        f"{'alpha(300 K)':>15s}{'B(300 K)':>10s}"
    )
    for name in options.only.split(","):
        atoms = crystals()[name]
        supercell = choose_supercell(as_crystal(atoms).unitcell, diameter=DIAMETER)
        atoms_in_supercell = len(atoms) * round(np.linalg.det(supercell))
        totals = []
        for road in ("analytic", "displacement"):
            other = mock.patch.object(volumes, "set_force_constants", finite_displacement)
            if road == "analytic":
                run(atoms, potential, supercell, 5)
            else:
                displaced = Phonopy(as_crystal(atoms).unitcell, supercell)
                displaced.generate_displacements(distance=0.01)
                potential.evaluate(displaced.supercells_with_displacements[0])
            with other if road == "displacement" else contextlib.nullcontext():
                result, seconds = run(atoms, potential, supercell, options.volumes)
            totals.append((seconds["wall"], seconds["cpu"]))
            rest = seconds["cpu"] - seconds["force constants"] - seconds["relaxation"]
            values = result.at(300)
            parts = ("wall", "cpu", "force constants", "relaxation")
            columns = "".join(f"{x:9.2f}" for x in (*(seconds[part] for part in parts), rest))
            print(
                f"{name:8s}{atoms_in_supercell:7d}{road:>14s}{columns}"
                f"{1e6 * values['thermal_expansion']:15.3f}{values['bulk_modulus']:10.2f}",
                flush=True,
            )
        wall, cpu = np.array(totals[1]) / totals[0]
        print(f"{name:8s} ratio {wall:.1f} in wall time, {cpu:.1f} in processor time", flush=True)


if __name__ == "__main__":
    main()

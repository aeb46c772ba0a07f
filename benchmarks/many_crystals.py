"""Force constants of many different crystals, each seen once: what a new crystal costs.

    python benchmarks/many_crystals.py [MODEL] [--folder OUT] [--count N] [--dtype float32]
        [--finite-displacement] [--mace FILE.model]

One crystal of each prototype of ``examples/train_bundled``, built from its space group and touching
ions, in a fixed shuffled order; supercells of at least 10 Å between images. Roads:

empty    one process, no program kept on disk at its start;
filled   one process, with a store that the other half of the list has filled;
fd       phonopy finite displacements with this package's forces (``--finite-displacement``);
mace     the same with mace-torch's calculator (``--mace``).

Each row is appended to OUT/rows.jsonl as soon as it is known: an interrupted run goes on where it
stopped, with the store it had. Times are wall and processor times of a crystal from its unit cell
to force constants, phonopy's search for symmetry included and apart; programs are those that the
process got, from the compiler or from disk. Use one thread for processor times that mean
something: OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write

ROOT = Path(__file__).parents[1]
WIDTH = 10.0  # Å
MAX_ATOMS = 40


def crystals(species: tuple[int, ...]) -> dict[str, Atoms]:
    """Return one known compound of each prototype that a model covers, shuffled."""
    sys.path.insert(0, str(ROOT / "examples" / "train_bundled"))
    from fill import draw

    first: dict[str, Atoms] = {}
    for prototype, _, atoms in draw(seed=0, times=1):
        covered = set(atoms.numbers) <= set(species)
        if covered and len(atoms) <= MAX_ATOMS and prototype not in first:
            first[prototype] = atoms
    names = sorted(first)
    return {names[k]: first[names[k]] for k in np.random.default_rng(0).permutation(len(names))}


def listed(folder: Path, species: tuple[int, ...]) -> dict[str, Atoms]:
    """Return the crystals of a folder, which takes half a minute the first time."""
    path = folder / "crystals.extxyz"
    if not path.exists():
        write(path, [Atoms(x, info={"name": name}) for name, x in crystals(species).items()])
    return {atoms.info["name"]: atoms for atoms in read(path, ":")}


def phonon_of(atoms: Atoms) -> Any:
    """Return phonopy's object with a supercell that is wide enough."""
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    heights = 1 / np.linalg.norm(np.linalg.inv(atoms.cell[:]), axis=0)
    cell = PhonopyAtoms(numbers=atoms.numbers, cell=atoms.cell[:], positions=atoms.positions)
    matrix = np.diag(np.maximum(1, np.ceil(WIDTH / heights).astype(int)))
    return Phonopy(cell, matrix, primitive_matrix=np.eye(3), log_level=0)


def force_constants(road: str, phonon: Any, potential: Any, mace: str | None) -> None:
    """Compute force constants by a road."""
    import phonopy_equivariant as pe

    if road in ("empty", "filled"):
        pe.set_force_constants(phonon, potential)
        return
    phonon.generate_displacements(distance=0.01)
    if road == "fd":
        forces = [potential.evaluate(cell).forces for cell in phonon.supercells_with_displacements]
    else:
        forces = [mace_forces(mace, cell) for cell in phonon.supercells_with_displacements]
    phonon.forces = forces
    phonon.produce_force_constants()


@functools.cache
def mace_calculator(model: str | None) -> Any:
    """Return mace-torch's calculator, made once."""
    from mace.calculators import MACECalculator

    return MACECalculator(model, device="cpu", default_dtype="float64")


def mace_forces(model: str | None, cell: Any) -> np.ndarray:
    """Return forces by mace-torch's calculator."""
    atoms = Atoms(cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)
    atoms.calc = mace_calculator(model)
    return np.asarray(atoms.get_forces())


def programs() -> int:
    """Return how many programs this process has."""
    from phonopy_equivariant.runtime.compilation import count_programs

    return count_programs()


def worker(options: argparse.Namespace) -> None:
    """Compute the crystals of a road that have no row yet; print nothing, append rows."""
    import phonopy_equivariant as pe

    pe.enable_compilation_cache()
    potential = pe.load_potential(options.model, dtype=options.dtype)
    wanted = options.worker.split(",")
    everything = listed(options.folder, potential.species)
    for name in wanted:
        atoms, before = everything[name], programs()
        start = time.perf_counter(), time.process_time()
        try:
            phonon = phonon_of(atoms)
            found = time.perf_counter()
            force_constants(options.road, phonon, potential, options.mace)
        except (RuntimeError, ValueError) as error:
            print(f"{options.road} {name}: {error}", file=sys.stderr)
            continue
        end = time.perf_counter(), time.process_time()
        row = {
            "road": options.road,
            "name": name,
            "formula": atoms.get_chemical_formula(empirical=True),
            "atoms": len(atoms),
            "supercell": len(phonon.supercell),
            "seconds": end[0] - found,
            "whole": end[0] - start[0],
            "cpu": end[1] - start[1],
            "programs": programs() - before,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }
        if options.keep:
            with (options.folder / "rows.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows known so far."""
    path = folder / "rows.jsonl"
    return (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    )


def run(options: argparse.Namespace, road: str, store: str, names: list[str], keep: bool) -> None:
    """Compute what is missing of a road in a process of its own."""
    done = {row["name"] for row in rows(options.folder) if row["road"] == road} if keep else set()
    missing = [name for name in names if name not in done]
    if not missing:
        return
    command = [sys.executable, __file__, options.model, "--dtype", options.dtype]
    command += ["--folder", str(options.folder), "--road", road, "--worker", ",".join(missing)]
    command += ["--keep"] * keep + (["--mace", options.mace] if options.mace else [])
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(options.folder / store)}
    subprocess.run(command, env=environment, check=True)


def table(options: argparse.Namespace) -> None:
    """Print medians and extremes of each road."""
    print(f"{options.model}, {options.dtype}; seconds from phonopy's object to force constants")
    head = ("road", "crystals", "median", "90 %", "worst", "cpu median", "programs", "peak GiB")
    print(" | ".join(f"{word:>10s}" for word in head))
    for road in ("empty", "filled", "fd", "mace"):
        some = [row for row in rows(options.folder) if row["road"] == road]
        if not some:
            continue
        seconds = np.array([row["seconds"] for row in some])
        cells = [road, str(len(some))]
        cells += [f"{np.quantile(seconds, share):.2f}" for share in (0.5, 0.9, 1.0)]
        cells += [f"{np.median([row['cpu'] for row in some]):.2f}"]
        cells += [str(sum(row["programs"] for row in some))]
        cells += [f"{max(row['peak'] for row in some):.2f}"]
        print(" | ".join(f"{cell:>10s}" for cell in cells))
        print(
            f"{'':>10s}   sum {seconds.sum():.1f} s, with phonopy's search for symmetry "
            f"{sum(row['whole'] for row in some):.1f} s"
        )


def main() -> None:
    """Run all roads asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="pe-crystal-3")
    parser.add_argument("--folder", type=Path, default=Path("many_crystals"))
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--count", type=int, help="only the first crystals of the list")
    parser.add_argument("--finite-displacement", action="store_true")
    parser.add_argument("--mace", metavar="FILE.model", help="model of mace-torch, same weights")
    parser.add_argument("--road", help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options)
        return
    import phonopy_equivariant as pe

    options.folder.mkdir(parents=True, exist_ok=True)
    species = pe.load_potential(options.model).species
    names = list(listed(options.folder, species))[: options.count]
    halves = names[::2], names[1::2]
    run(options, "empty", "store-empty", names, keep=True)
    for k, half in enumerate(halves):
        run(options, "filled", f"store-filled-{k}", halves[1 - k], keep=False)
        run(options, "filled", f"store-filled-{k}", half, keep=True)
    if options.finite_displacement:
        run(options, "fd", "store-fd", names, keep=True)
    if options.mace:
        run(options, "mace", "store-fd", names, keep=True)
    table(options)


if __name__ == "__main__":
    main()

"""Force constants of eight crystals by four roads, timed in one run on one machine.

    python benchmarks/phonons.py MODEL.nqx [--dtype float32] [--only Si,NaCl] [--skip d] [--whole]
        [--upstream PYTHON] [--before PYTHON]

(a) this package's Bloch response; (b) phonopy finite displacements with upstream's Nequix ASE
calculator; (c) phonopy finite displacements with this package's own forces, the strongest
opponent; (d) upstream's Hessian of the supercell, from the time of a few of its rows (all take
the same time; ``--whole`` computes all). Upstream runs in an environment of its own
(``--upstream``, a Python with nequix, jax and phonopy) as a child process; without it (b) and
(d) are left out and the table says so.

``--before`` names a Python with another version of this package, whose (a) is timed in between, in
a process of its own.

Every timed call sees a structure that the process has not seen: a strain of 1e-4 is added each
time. First calls, which compile, are reported apart. Times are wall times, the best of the
repeats; nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.structure import inscribed_radius

DIAMETER = 15.0  # Å
MAX_ATOMS = 200


def crystals() -> dict[str, Atoms]:
    """Return the primitive cells, from lattice constants."""
    quartz = [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.2144)]
    # monoclinic zirconia, P2_1/c, doubled along a: 24 atoms
    zirconia = [(0.2758, 0.0411, 0.2082), (0.0703, 0.3359, 0.3406), (0.4496, 0.7569, 0.4792)]
    tellurite = crystal(
        ["Bi", "Te", "Te"],
        [(0, 0, 0.4), (0, 0, 0), (0, 0, 0.2097)],
        spacegroup=166,
        cellpar=[4.386, 4.386, 30.497, 90, 90, 120],
        primitive_cell=True,
    )
    return {
        "Si": bulk("Si", a=5.43),
        "NaCl": bulk("NaCl", "rocksalt", a=5.64),
        "GaN": bulk("GaN", "wurtzite", a=3.19, c=5.19),
        "TiO2": crystal(
            ["Ti", "O"],
            [(0, 0, 0), (0.3053, 0.3053, 0)],
            spacegroup=136,
            cellpar=[4.594, 4.594, 2.959, 90, 90, 90],
        ),
        "SrTiO3": crystal(
            ["Sr", "Ti", "O"],
            [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)],
            spacegroup=221,
            cellpar=[3.905] * 3 + [90] * 3,
        ),
        "quartz": crystal(
            ["Si", "O"], quartz, spacegroup=152, cellpar=[4.916, 4.916, 5.405, 90, 90, 120]
        ),
        "Bi2Te3": tellurite,
        "ZrO2 (24)": crystal(
            ["Zr", "O", "O"],
            zirconia,
            spacegroup=14,
            cellpar=[5.150, 5.212, 5.317, 90, 99.23, 90],
        ).repeat((2, 1, 1)),
    }


def supercell_repeats(cell: np.ndarray, atoms: int) -> list[int]:
    """Return the smallest diagonal multiple with inscribed diameter >= 15 Å, at most 200 atoms.

    The shortest height is enlarged step by step; a step beyond the limit of atoms ends it.
    """
    repeats = np.ones(3, int)
    while 2 * inscribed_radius(cell * repeats[:, None]) < DIAMETER:
        heights = 1 / np.linalg.norm(np.linalg.inv(cell * repeats[:, None]), axis=0)
        # equal heights grow together: a step must not break the point group
        repeats[heights < heights.min() * (1 + 1e-6)] += 1
        if repeats.prod() * atoms > MAX_ATOMS:
            repeats[heights < heights.min() * (1 + 1e-6)] -= 1
            break
    return [int(r) for r in repeats]


def phonon_of(atoms: Atoms, strain: float) -> Phonopy:
    """Return phonopy's object of a slightly strained crystal."""
    cell = PhonopyAtoms(
        numbers=atoms.numbers,
        cell=atoms.cell[:] * (1 + strain),
        scaled_positions=atoms.get_scaled_positions(),
    )
    return Phonopy(
        cell,
        supercell_matrix=np.diag(supercell_repeats(atoms.cell[:], len(atoms))),
        primitive_matrix="P",
    )


def timed(function: Callable[[Phonopy], np.ndarray], atoms: Atoms, repeats: int) -> dict:
    """Return first and best later wall time, and the force constants of the first structure."""
    times, first_result = [], None
    for index in range(repeats + 1):
        phonon = phonon_of(atoms, 1e-4 * index)
        phonon.generate_displacements(distance=0.01)
        start = time.perf_counter()
        result = function(phonon)
        times.append(time.perf_counter() - start)
        first_result = result if first_result is None else first_result
    best = min(times[1:]) if repeats else times[0]
    return {"first": times[0], "best": best, "fc": first_result}


def bloch(potential: pe.Potential) -> Callable[[Phonopy], np.ndarray]:
    """Return road (a), analytic force constants."""
    return lambda phonon: pe.force_constants(phonon, potential)


def own_displacements(potential: pe.Potential) -> Callable[[Phonopy], np.ndarray]:
    """Return road (c): displacements and solver of phonopy, forces of this package."""

    def run(phonon: Phonopy) -> np.ndarray:
        cells = phonon.supercells_with_displacements
        phonon.forces = [potential.evaluate(cell).forces for cell in cells]
        phonon.produce_force_constants(calculate_full_force_constants=False)
        return phonon.force_constants

    return run


def upstream(python: str, model: Path, phonon: Phonopy, task: str) -> dict:
    """(b) and (d): run upstream's code in its own environment; forces alone are timed."""
    cells = phonon.supercells_with_displacements if task == "b" else [phonon.supercell]
    plain = [
        {
            "numbers": cell.numbers.tolist(),
            "cell": cell.cell.tolist(),
            "scaled_positions": cell.scaled_positions.tolist(),
        }
        for cell in cells
    ]
    script = Path(__file__).with_name("upstream.py")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(plain, file)
        file.flush()
        command = [python, str(script), str(model), file.name, task, "1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["killed"])[-1][:100]}
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def before(name: str, options: argparse.Namespace) -> dict:
    """Return the timings of (a) by another version of the package."""
    command = [options.before, __file__, options.model, "--dtype", options.dtype, "--only", name]
    command += ["--repeats", str(options.repeats), "--child"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def row(name: str, atoms: Atoms, potential: pe.Potential, options: argparse.Namespace) -> dict:
    """Return all timings of one crystal."""
    phonon = phonon_of(atoms, 0.0)
    phonon.generate_displacements(distance=0.01)
    found = {
        "prim": len(atoms),
        "super": len(phonon.supercell),
        "displacements": len(phonon.supercells_with_displacements),
        "a": timed(bloch(potential), atoms, options.repeats),
        "c": timed(own_displacements(potential), atoms, min(options.repeats, 2)),
    }
    if options.before:
        found["before"] = before(name, options)
    exact = found["a"]["fc"]
    found["deviation c"] = float(np.abs(found["c"]["fc"] - exact).max())
    for task in "bd":
        if options.upstream and task not in options.skip:
            name = "D" if task == "d" and options.whole else task
            found[task] = upstream(options.upstream, options.model, phonon, name)
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def main() -> None:
    """Print the table, one crystal at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a name or a file")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--only", default="")
    parser.add_argument("--skip", default="", help="roads to leave out: letters among b, d")
    parser.add_argument("--upstream", default="", help="Python of an environment with nequix")
    parser.add_argument("--before", default="", help="Python with another version of the package")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help="(d) with all rows of the Hessian")
    parser.add_argument("--repeats", type=int, default=4)
    options = parser.parse_args()
    potential = pe.load_potential(str(options.model), dtype=options.dtype)
    chosen = options.only.split(",") if options.only else list(crystals())
    if options.child:
        times = timed(bloch(potential), crystals()[chosen[0]], options.repeats)
        print(json.dumps({key: times[key] for key in ("first", "best")}))
        return
    print(
        "| crystal | prim/super | displ. | (a) s | (a) first | (b) s | (c) s | (c) first | (d) s "
        "| b/a | c/a | d/a | max dev. a-c eV/Å² | peak GiB | (a) before s | a/before |\n|"
        + "---|"
        * 16
    )
    ratios: dict[str, list[float]] = {"b": [], "c": [], "d": []}
    for name in chosen:
        found = row(name, crystals()[name], potential, options)
        base = found["a"]["best"]
        cells = []
        for task in "bcd":
            best = found.get(task, {}).get("best")
            cells.append("-" if best is None else f"{best / base:.1f}")
            if best is not None:
                ratios[task].append(best / base)
        earlier = found.get("before", {}).get("best")
        compared = "- | -" if earlier is None else f"{earlier:.4f} | {base / earlier:.2f}"
        seconds = {
            task: f"{found[task]['best']:.3f}" if "best" in found.get(task, {}) else "-"
            for task in "bcd"
        }
        print(
            f"| {name} | {found['prim']}/{found['super']} | {found['displacements']} "
            f"| {base:.4f} | {found['a']['first']:.1f} | {seconds['b']} | {seconds['c']} "
            f"| {found['c']['first']:.1f} | {seconds['d']} | {' | '.join(cells)} "
            f"| {found['deviation c']:.1e} | {found['memory']:.2f} | {compared} |",
            flush=True,
        )
    for task, values in ratios.items():
        if values:
            mean = float(np.exp(np.mean(np.log(values))))
            print(f"{task}/a: geometric mean {mean:.1f}, least {min(values):.1f}")


if __name__ == "__main__":
    main()

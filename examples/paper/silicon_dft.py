"""Silicon from first principles: displaced cells and DFPT force constants (Quantum ESPRESSO).

    python silicon_dft.py run --work FOLDER [STAGE ...]
    python silicon_dft.py collect --work FOLDER

``run`` does the jobs of the stages (all by default) that FOLDER does not have yet:

lattice         energies of seven lattice constants; their minimum is used by all later stages
dfpt            ph.x on 4x4x4 q and q2r.x: force constants
111, 222, 333   the ideal cell of 2, 16 or 54 atoms, and 50, 50 or 20 cells with every coordinate
                displaced by a normal random number, σ = 0.1 Å

``collect`` writes the files of ``data/`` from those in FOLDER. The level of theory is in README.md.
"""

from __future__ import annotations

import dataclasses
import lzma
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase.build import bulk
from ase.eos import EquationOfState
from jobs import Job, collect, main, record_job, run
from numpy import ndarray

from phonopy_equivariant.data import Record, read_records
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.structure import Structure, as_structure

PSEUDOPOTENTIALS = Path(os.environ.get("ESPRESSO_PSEUDO", "/usr/share/espresso/pseudo"))
PSEUDOPOTENTIAL = "Si_r.upf"
MASS = 28.0855
CUTOFF = 24  # Ry
LEVEL = "PBEsol"
LATTICE_CONSTANTS = (5.38, 5.40, 5.42, 5.44, 5.46, 5.48, 5.50)  # Å
SIGMA = 0.1  # Å


class Cells(NamedTuple):
    """Displaced supercells of one size."""

    size: int  # primitive cells along each primitive vector
    count: int
    divisions: int  # of the grid of k points, see special_points


STAGES = {"111": Cells(1, 50, 4), "222": Cells(2, 50, 4), "333": Cells(3, 20, 3)}


def special_points(size: int, divisions: int) -> list[tuple[ndarray, int]]:
    """Return k points of a supercell and their weights, of k and -k one.

    k = (2π/a) (n + 1/2) / m with integer vectors n and m divisions: a simple cubic grid, so it has
    all symmetries of the crystal also where the calculation uses none. (A shifted Monkhorst-Pack
    grid of the primitive cell has not.) A supercell has the same k points, folded, if its size
    divides m.

    Parameters
    ----------
    size
        Primitive cells along each primitive vector, a divisor of ``divisions``.
    divisions
        m; of the primitive cell there are 4 m³ points.

    Returns
    -------
    list of (numerators, weight)
        Components in units of the supercell's reciprocal vectors are numerators / (2 m).

    """
    if divisions % size:
        raise ValueError(f"{size} does not divide {divisions}: the grid cannot be folded")
    period = 2 * divisions
    # k·a_i of the primitive vectors (0,1,1)a/2, (1,0,1)a/2, (1,1,0)a/2, times 2m/2π
    points = {
        tuple(size * (total - n + 1) % period for n in (x, y, z))
        for x, y, z in product(range(period), repeat=3)
        for total in [x + y + z]
    }
    weights: dict[tuple[int, ...], int] = {}
    for point in sorted(points):
        opposite = tuple(-component % period for component in point)
        key = min(point, opposite)
        weights[key] = weights.get(key, 0) + 1
    return [(np.array(point), weight) for point, weight in weights.items()]


def ideal(lattice_constant: float, size: int) -> Structure:
    """Return a supercell of the primitive cell, rounded to what the input file has."""
    structure = as_structure(bulk("Si", a=lattice_constant).repeat(size))
    return structure._replace(
        positions=np.round(structure.positions, 10), cell=np.round(structure.cell, 10)
    )


def displaced(lattice_constant: float, size: int, index: int) -> Structure:
    """Return the displaced cell of an index; the random numbers depend on size and index only."""
    structure = ideal(lattice_constant, size)
    moves = np.random.default_rng([size, index]).normal(0, SIGMA, structure.positions.shape)
    return structure._replace(positions=np.round(structure.positions + moves, 10))


def explicit_k(size: int, divisions: int) -> str:
    """Return the card of the k points of a supercell."""
    points = special_points(size, divisions)
    rows = [f"{_row(point / (2 * divisions))} {weight}" for point, weight in points]
    return "\n".join(["K_POINTS crystal", str(len(rows)), *rows])


def symmetric_k(divisions: int) -> str:
    """Return the card of the k points of a crystal calculated with its symmetry.

    The images of this Monkhorst-Pack grid under the cubic group are those of special_points.
    """
    return f"K_POINTS automatic\n{divisions} {divisions} {divisions} 1 1 1"


def pw_input(structure: Structure, k_points: str, symmetry: bool, size: int = 1) -> str:
    """Return the input of pw.x: the same plane waves per volume and the same FFT grid per cell."""
    grid = ", ".join(f"nr{i} = {24 * size}" for i in (1, 2, 3))
    positions = "\n".join(f"Si {_row(position)}" for position in structure.positions)
    cell = "\n".join(_row(vector) for vector in structure.cell)
    return f"""&control
  calculation = 'scf', prefix = 'si', outdir = '.', pseudo_dir = '{PSEUDOPOTENTIALS}'
  tprnfor = .true., tstress = .true., disk_io = 'low'
/
&system
  ibrav = 0, nat = {len(structure.numbers)}, ntyp = 1, ecutwfc = {CUTOFF}, input_dft = '{LEVEL}'
  {grid}, nosym = .{str(not symmetry).lower()}.
/
&electrons
  conv_thr = {1e-12 if size == 1 else 1e-10}
/
ATOMIC_SPECIES
Si {MASS} {PSEUDOPOTENTIAL}
{k_points}
CELL_PARAMETERS angstrom
{cell}
ATOMIC_POSITIONS angstrom
{positions}
"""


def call(program: str, text: str, scratch: Path) -> Path:
    """Run a program of Quantum ESPRESSO in a folder; return its output."""
    name = program.removesuffix(".x")
    (scratch / f"{name}.in").write_text(text)
    output = scratch / f"{name}.pwo"
    with open(output, "w") as file:
        subprocess.run([program, "-in", f"{name}.in"], stdout=file, cwd=scratch, check=True)
    if "JOB DONE" not in output.read_text():
        raise RuntimeError(f"{program} did not finish: see {output}")
    return output


def solved(structure: Structure, k_points: str, symmetry: bool, size: int, scratch: Path) -> Record:
    """Return energy, forces and stress of a structure by pw.x."""
    output = call("pw.x", pw_input(structure, k_points, symmetry, size), scratch)
    (record,) = read_records(output)  # its positions have fewer digits than ours
    return dataclasses.replace(record, structure=structure, level=LEVEL)


def lattice_constant(work: Path) -> float:
    """Return the minimum (Å, to 1e-4) of the Birch-Murnaghan equation through stage ``lattice``."""
    records = [read_records(work / f"lattice_{a:.2f}.extxyz")[0] for a in LATTICE_CONSTANTS]
    volumes = [record.structure.volume for record in records]
    equation = EquationOfState(volumes, [record.energy for record in records], "birchmurnaghan")
    volume, _, _ = equation.fit()
    return round(float((4 * volume) ** (1 / 3)), 4)


def force_constants(work: Path, scratch: Path, path: Path) -> None:
    """Write q2r.x's file of force constants of the 4x4x4 supercell."""
    crystal = ideal(lattice_constant(work), 1)
    call("pw.x", pw_input(crystal, symmetric_k(4), symmetry=True), scratch)
    grid = ", ".join(f"nq{i} = 4" for i in (1, 2, 3))
    text = "Si\n&inputph\n  prefix = 'si', outdir = '.', fildyn = 'si.dyn', tr2_ph = 1e-16\n"
    call("ph.x", f"{text}  ldisp = .true., {grid}\n/\n", scratch)
    gamma = scratch / "si.dyn1"
    gamma.write_text(without_charges(gamma.read_text()))
    call("q2r.x", "&input\n  fildyn = 'si.dyn', flfrc = 'si.fc'\n/\n", scratch)
    path.write_bytes((scratch / "si.fc").read_bytes())


def without_charges(text: str) -> str:
    """Return ph.x's file of the dynamical matrix at Γ without dielectric tensor and charges.

    ph.x computes them for every insulator, and q2r.x then takes the dipole-dipole interaction out
    of the force constants. Silicon has none: its charges are the error of the sum rule.
    """
    start, end = text.find("Dielectric Tensor:"), text.find("Diagonalizing the dynamical matrix")
    return text if start < 0 else text[:start].rstrip(" ") + text[end:]


def member_names(stage: str) -> list[str]:
    """Return the names of the jobs of a stage: first the ideal cell, then the displaced ones."""
    return [f"{stage}_ideal", *(f"{stage}_{index:02d}" for index in range(STAGES[stage].count))]


def cell_jobs(work: Path, stage: str) -> list[Job]:
    """Return the jobs of the cells of one size."""
    size, count, divisions = STAGES[stage]
    a = lattice_constant(work)
    structures = [ideal(a, size), *(displaced(a, size, index) for index in range(count))]
    k_points = explicit_k(size, divisions)
    return [
        record_job(name, partial(solved, structure, k_points, False, size))
        for name, structure in zip(member_names(stage), structures, strict=True)
    ]


def run_stages(work: Path, stages: Sequence[str]) -> None:
    """Do the jobs of the stages that are not done; the lattice constant always comes first."""
    lattice = [
        record_job(f"lattice_{a:.2f}", partial(solved, ideal(a, 1), symmetric_k(4), True, 1))
        for a in LATTICE_CONSTANTS
    ]
    run(work, lattice, wait=True)
    for stage in stages:
        if stage == "dfpt":
            run(work, [Job("silicon.fc", partial(force_constants, work))])
        elif stage != "lattice":
            run(work, cell_jobs(work, stage))


def collect_all(work: Path, data: Path) -> bool:
    """Write the sets of records and the force constants; return whether all are there."""
    sets = {f"silicon_{stage}": member_names(stage) for stage in STAGES}
    complete = collect(work, data, sets)
    if not (work / "silicon.fc").exists():
        print("silicon_dfpt: the job is not done; nothing written")
        return False
    write_atomically(data / "silicon_dfpt.fc.xz", lzma.compress((work / "silicon.fc").read_bytes()))
    return complete


def _row(numbers: ndarray) -> str:
    return " ".join(f"{number:.10f}" for number in numbers)


if __name__ == "__main__":
    stages = ("lattice", "dfpt", *STAGES)
    sys.exit(main(__doc__, stages, run_stages, collect_all))

"""Ethanol from first principles: energies, forces and Hessians (PySCF, PBE/def2-SVP).

    python ethanol_dft.py run --work FOLDER [STAGE ...]
    python ethanol_dft.py collect --work FOLDER

``run`` does the jobs of the stages (all by default) that FOLDER does not have yet:

minimum      the minimum of the energy next to ASE's ethanol, with its Hessian
sampling     geometries: two runs of molecular dynamics with GFN2-xTB at 500 K, no labels
hessians     energies, forces and Hessians of the 32 training geometries
validation   energies and forces of the 200 validation geometries
around       energies and forces of 20 copies of the first training geometry for each of SIGMAS,
             every coordinate displaced by a normal random number

``collect`` writes the files of ``data/`` from those in FOLDER. The level of theory is in README.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.optimize import BFGS
from ethanol_sets import COPIES, SIGMAS
from jobs import Job, collect, main, record_job, run
from pyscf import dft, gto
from tblite.ase import TBLite

from phonopy_equivariant.data import ForceConstantsData, Record, read_records, write_records
from phonopy_equivariant.structure import Structure, as_structure

LEVEL = "PBE/def2-SVP"
GRID_LEVEL = 4  # of PySCF's integration grids
TEMPERATURE = 500.0  # K
TIME_STEP = 0.5 * units.fs
FRICTION = 0.01 / units.fs
EQUILIBRATION = 10_000  # steps
FORCE_LIMIT = 2e-4  # eV/Å, largest force at the minimum; the grid's rounding is 6e-5


class Trajectory(NamedTuple):
    """Geometries taken from a run of molecular dynamics."""

    seed: int
    count: int
    interval: int  # steps


TRAJECTORIES = {"train": Trajectory(1, 32, 2000), "validation": Trajectory(2, 200, 1000)}


def calculated(structure: Structure, with_hessian: bool = False) -> Record:
    """Return energy, forces and, if asked for, the Hessian of a molecule."""
    atoms = [
        (int(z), tuple(x)) for z, x in zip(structure.numbers, structure.positions, strict=True)
    ]
    mol = gto.M(atom=atoms, basis="def2-svp", unit="Angstrom", verbose=0, symmetry=False)
    field = dft.RKS(mol, xc="PBE").density_fit()
    field.grids.level = GRID_LEVEL
    field.conv_tol = 1e-10
    field.kernel()
    if not field.converged:
        raise RuntimeError("the self-consistent field did not converge")
    gradient = field.nuc_grad_method()
    gradient.grid_response = True  # the forces are the derivatives of the energy, sum included
    scale = units.Hartree / units.Bohr
    constants = None
    if with_hessian:
        columns = 3 * len(structure.numbers)
        values = field.Hessian().kernel().transpose(0, 2, 1, 3).reshape(1, columns, columns)
        constants = ForceConstantsData(np.zeros((1, 3)), values * (scale / units.Bohr) + 0j)
    return Record(
        structure,
        energy=float(field.e_tot * units.Hartree),
        forces=-gradient.kernel() * scale,
        force_constants=constants,
        level=LEVEL,
    )


def start() -> Atoms:
    """Return ASE's ethanol, relaxed with GFN2-xTB."""
    atoms = molecule("CH3CH2OH")
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=1e-3, steps=500)
    return atoms


class Level(Calculator):
    """The level of theory as a calculator of ASE."""

    implemented_properties = ("energy", "forces")

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute energy and forces."""
        super().calculate(atoms, properties, system_changes)
        record = calculated(as_structure(self.atoms))
        self.results = {"energy": record.energy, "forces": record.forces}


def minimum() -> Record:
    """Return the minimum with its Hessian."""
    atoms = start()
    atoms.calc = Level()
    if not BFGS(atoms, logfile=None).run(fmax=FORCE_LIMIT, steps=100):
        raise RuntimeError("no minimum after 100 steps")
    positions = np.round(atoms.positions - atoms.positions.mean(0), 8)
    return calculated(as_structure(atoms)._replace(positions=positions), with_hessian=True)


def sample(trajectory: Trajectory, scratch: Path, path: Path) -> None:
    """Write geometries of Langevin dynamics, centred."""
    rng = np.random.default_rng(trajectory.seed)
    atoms = start()
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=rng)
    Stationary(atoms)
    dynamics = Langevin(
        atoms, TIME_STEP, temperature_K=TEMPERATURE, friction=FRICTION, fixcm=True, rng=rng
    )
    dynamics.run(EQUILIBRATION)
    records = []
    for _ in range(trajectory.count):
        dynamics.run(trajectory.interval)
        positions = np.round(atoms.positions - atoms.positions.mean(0), 8)
        records.append(Record(as_structure(atoms)._replace(positions=positions)))
    write_records(records, path)


def geometry(work: Path, name: str, index: int) -> Structure:
    """Return a geometry of stage ``sampling``."""
    return read_records(work / f"sampling_{name}.extxyz")[index].structure


def near(work: Path, sigma: float, copy: int) -> Structure:
    """Return a displaced copy of the first training geometry."""
    structure = geometry(work, "train", 0)
    rng = np.random.default_rng([round(1000 * sigma), copy])
    moves = rng.normal(0, sigma, structure.positions.shape)
    return structure._replace(positions=np.round(structure.positions + moves, 8))


def label_job(name: str, structure: Callable[[], Structure], with_hessian: bool = False) -> Job:
    """Return the job of a structure, which is asked for when its turn has come."""
    return record_job(name, lambda scratch: calculated(structure(), with_hessian))


def stages(work: Path) -> dict[str, list[Job]]:
    """Return all jobs by their stage."""
    return {
        "minimum": [record_job("minimum", lambda scratch: minimum())],
        "sampling": [
            Job(f"sampling_{name}.extxyz", partial(sample, trajectory))
            for name, trajectory in TRAJECTORIES.items()
        ],
        "hessians": [
            label_job(f"train_{index:02d}", partial(geometry, work, "train", index), True)
            for index in range(TRAJECTORIES["train"].count)
        ],
        "validation": [
            label_job(f"validation_{index:03d}", partial(geometry, work, "validation", index))
            for index in range(TRAJECTORIES["validation"].count)
        ],
        "around": [
            label_job(f"around_{sigma}_{copy:02d}", partial(near, work, sigma, copy))
            for sigma in SIGMAS
            for copy in range(COPIES)
        ],
    }


def run_stages(work: Path, names: Sequence[str]) -> None:
    """Do the jobs of the stages that are not done; the geometries come before what needs them."""
    jobs = stages(work)
    for name in names:
        if name in ("hessians", "validation", "around"):
            run(work, jobs["sampling"], wait=True)
        run(work, jobs[name])


def collect_all(work: Path, data: Path) -> bool:
    """Write the sets of records; return whether all are there."""
    names = {"minimum": "minimum", "train": "hessians", "validation": "validation"}
    jobs = stages(work)
    sets = {
        f"ethanol_{name}": [job.file_name.removesuffix(".extxyz") for job in jobs[stage]]
        for name, stage in (names | {"around": "around"}).items()
    }
    return collect(work, data, sets)


if __name__ == "__main__":
    names = ("minimum", "sampling", "hessians", "validation", "around")
    sys.exit(main(__doc__, names, run_stages, collect_all))

"""Thermal conductivity at 300 K with wider meshes and supercells, beside experiment.

    python benchmarks/conductivity.py --dft FOLDER --model nequix-oam-1-pft [Si MgO ...]

Each crystal is relaxed; force constants of third and second order come from the supercells below;
relaxation time approximation, with natural isotopes and without. FOLDER has phonopy's calculations
of the crystals (``NAME/phonopy_params.yaml.xz``), of which structure and Born charges are taken;
GaN has none. κ is computed with the smaller supercell on all meshes, and with the larger one on the
first, as phono3py takes a time that grows with the square of the number of atoms. Results go to
``--output``, one line each as they come, and what is there is not computed again. ``--sensitivity``
prints by which power of all force constants of second and of third order κ changes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.build import bulk
from phono3py import Phono3py

import phonopy_equivariant as pe
from phonopy_equivariant.io.crystals import Crystal, as_crystal
from phonopy_equivariant.phonons.third_order_report import ThirdOrderReport
from phonopy_equivariant.workflows.options import RelaxationOptions
from phonopy_equivariant.workflows.progress import Silent
from phonopy_equivariant.workflows.third_order import ThirdOrderOptions, third_order_crystal

TEMPERATURE = 300.0  # K
CHANGE = 0.02  # relative, of force constants
SILICON, CUBIC = ([11] * 3, [15] * 3, [19] * 3), ([9] * 3, [11] * 3, [15] * 3)
HEXAGONAL = ([9, 9, 6], [13, 13, 8])


class Case(NamedTuple):
    """A crystal: where it comes from, supercells of third and second order, meshes."""

    folder: str | None
    supercells: tuple[tuple[list[int], list[int]], ...]
    meshes: tuple[list[int], ...]


CONVENTIONAL = (([2] * 3, [4] * 3), ([3] * 3, [4] * 3))
WURTZITE = (([3, 3, 2], [5, 5, 3]), ([4, 4, 3], [5, 5, 3]))
CASES = {
    "Si": Case("Si_PBEsol", CONVENTIONAL, SILICON),
    "MgO": Case("MgO", CONVENTIONAL, CUBIC),
    "NaCl": Case("NaCl", CONVENTIONAL, CUBIC),
    "ZnTe": Case("ZnTe", CONVENTIONAL, CUBIC),
    "AlN": Case("AlN_PBEsol_442", WURTZITE, HEXAGONAL),
    "GaN": Case(None, WURTZITE, HEXAGONAL),
}


def crystal_of(name: str, dft: Path) -> Crystal:
    """Return a crystal with Born charges, if there are any, and without supercell."""
    folder = CASES[name].folder
    if folder is None:
        return as_crystal(bulk("GaN", "wurtzite", a=3.19, c=5.19, u=0.377))
    crystal = as_crystal(dft / folder / "phonopy_params.yaml.xz")
    return dataclasses.replace(crystal, supercell_matrix=None, dataset=None)


def conductivities(
    crystal: Crystal, potential: pe.Potential, case: Case, index: int
) -> list[dict[str, Any]]:
    """Return κ for one pair of supercells: all meshes, for the larger pair the first alone."""
    start = time.perf_counter()
    phono3py, report = _force_constants(crystal, potential, case, index)
    taken = time.perf_counter() - start
    rows = []
    for mesh in case.meshes[:1] if index else case.meshes:
        start = time.perf_counter()
        phono3py.mesh_numbers = mesh
        phono3py.init_phph_interaction()
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            kappa = _kappa(phono3py, is_isotope=True, write_kappa=True)
            pure = _kappa(phono3py, is_isotope=False, read_gamma=True)  # the same widths
        rows.append(
            {
                "atoms": len(phono3py.supercell),
                "interpolation": round(report.interpolation, 5),
                "mesh": mesh,
                "kappa": kappa,
                "without_isotopes": pure,
                "seconds": [round(taken), round(time.perf_counter() - start)],
            }
        )
    return rows


def sensitivity(crystal: Crystal, potential: pe.Potential, case: Case) -> dict[str, float]:
    """Return the exponents of κ (no isotopes) as a power of all force constants of one order."""
    phono3py, _ = _force_constants(crystal, potential, case, 0)
    phono3py.mesh_numbers = case.meshes[0]
    second, third = phono3py.fc2, phono3py.fc3

    def conductivity(factor: float, is_third: bool) -> float:
        phono3py.fc2, phono3py.fc3 = second, third
        if is_third:
            phono3py.fc3 = factor * third
        else:
            phono3py.fc2 = factor * second
        phono3py.init_phph_interaction()
        return _kappa(phono3py, is_isotope=False)[0]

    width = np.log((1 + CHANGE) / (1 - CHANGE))
    exponents = {}
    for is_third in (False, True):
        up, down = (conductivity(1 + change, is_third) for change in (CHANGE, -CHANGE))
        exponents[f"order {2 + is_third}"] = round(float(np.log(up / down) / width), 2)
    return exponents


def _force_constants(
    crystal: Crystal, potential: pe.Potential, case: Case, index: int
) -> tuple[Phono3py, ThirdOrderReport]:
    third, harmonic = (np.diag(sizes) for sizes in case.supercells[index])
    options = ThirdOrderOptions(third, harmonic, RelaxationOptions())
    return third_order_crystal(crystal, potential, options, Silent())


def _kappa(phono3py: Phono3py, **options: bool) -> list[float]:
    """Return κ along x and z."""
    phono3py.run_thermal_conductivity(temperatures=[TEMPERATURE], log_level=0, **options)
    kappa = np.asarray(phono3py.thermal_conductivity.kappa)[0, 0]
    return [round(float(x), 3) for x in kappa[[0, 2]]]


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line of Markdown for each crystal and model whose supercells are both done.

    κ is that of the smaller supercell on the finest mesh, times what the larger one changes on the
    first mesh.
    """
    for model, name in dict.fromkeys((row["model"], row["crystal"]) for row in rows):
        of_both = [row for row in rows if (row["model"], row["crystal"]) == (model, name)]
        fine = [row for row in of_both if row["index"] == 0]
        wide = next((row for row in of_both if row["index"] == 1), None)
        if wide is None:
            continue
        change = np.divide(wide["kappa"], fine[0]["kappa"])
        cells = [name, model, " × ".join(str(n) for n in fine[-1]["mesh"])]
        for key in ("kappa", "without_isotopes"):
            values = dict.fromkeys(f"{x:.3g}" for x in change * fine[-1][key])
            cells.append(", ".join(values))
        step = np.divide(fine[-1]["kappa"], fine[-2]["kappa"])[0] - 1
        cells += [f"{100 * (x - 1):+.0f} %" for x in (1 + step, change[0])]
        cells += [f"{100 * row['interpolation']:.1f} %" for row in (fine[0], wide)]
        yield "| " + " | ".join(cells) + " |"


def main() -> int:
    """Compute what the command line names and the output has not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("crystals", nargs="*", default=list(CASES), metavar="CRYSTAL")
    parser.add_argument("--dft", type=Path, default=Path())
    parser.add_argument("--model", default="pe-crystal-3")
    parser.add_argument("--output", type=Path, default=Path("conductivity.jsonl"))
    parser.add_argument("--sensitivity", action="store_true", help="to force constants, alone")
    parser.add_argument("--table", action="store_true", help="of the output, in Markdown, alone")
    args = parser.parse_args()
    lines = args.output.read_text("utf-8").splitlines() if args.output.exists() else []
    if args.table:
        print(*table([json.loads(line) for line in lines]), sep="\n")
        return 0
    done = {(x["model"], x["crystal"], x["index"]) for x in map(json.loads, lines)}
    potential = pe.load_potential(args.model, dtype="float64")
    for name in args.crystals:
        case, crystal = CASES[name], crystal_of(name, args.dft)
        if args.sensitivity:
            print(name, sensitivity(crystal, potential, case), flush=True)
            continue
        for index in range(len(case.supercells)):
            if (args.model, name, index) in done:
                continue
            label = {"model": args.model, "crystal": name, "index": index}
            rows = conductivities(crystal, potential, case, index)
            with open(args.output, "a", encoding="utf-8") as file:
                for row in rows:
                    print(json.dumps(label | row), file=file)
                    print(json.dumps(label | row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Phonons of a model against published DFT phonons, crystal by crystal, as a Markdown table.

    python benchmarks/validate_dft.py FOLDER --crystals Si_PBE NaCl --figures docs/figures

Several models, ``--model A B``, are compared on the crystals whose elements all of them know; mean
absolute errors of each follow the tables. Every crystal is a folder with a
``phonopy_params.yaml.xz`` (cell, supercell, displacements, DFT forces); an ``INDEX.md`` beside the
folders names the functionals. DFT force constants are those phonopy fits and symmetrises. The model
gets the same primitive cell and the same supercell, at the structure as stored: nothing is relaxed.
No non-analytical term correction on either side.
"""

from __future__ import annotations

import argparse
import functools
import lzma
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import phonopy
import yaml
from ase.data import atomic_numbers
from numpy import ndarray
from phonopy import Phonopy
from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath
from validation_plot import plot

import phonopy_equivariant as pe
from phonopy_equivariant.phonons.report import ForceConstantsReport

FILE = "phonopy_params.yaml.xz"
MESH = (11, 11, 11)
TEMPERATURE = 300.0  # K
# of D(q): half of a 2x2x2 grid off Γ, as -q has the conjugate
QPOINTS = [[x, y, 0.25] for x in (0.25, 0.75) for y in (0.25, 0.75)]
COLUMNS = (
    "crystal",
    "functional of the DFT",
    "atoms",
    "max DFT",
    "max model",
    "diff.",
    "diff. %",
    "MAE",
    "DOS overlap",
    "F DFT / model",
    "S DFT / model",
    "Cv DFT / model",
    "imaginary DFT / model",
    "force",
    "stress",
    "s",
)
SUMMARY = (
    "model",
    "crystals",
    "max, THz",
    "max, %",
    "MAE, THz",
    "D(q), %",
    "F per atom",
    "S per atom",
    "Cv per atom",
)


class Harmonic(NamedTuple):
    """Phonons on the mesh and on the band path, one set of force constants."""

    frequencies: ndarray  # (q, modes) THz, ascending at each q
    weights: ndarray  # (q,)
    dos: ndarray  # states per THz and primitive cell
    free_energy: float  # kJ/mol of primitive cells
    entropy: float  # J/K/mol
    heat_capacity: float  # J/K/mol
    imaginary: float  # share of modes of the mesh with an imaginary frequency
    bands: Any  # phonopy's BandStructure

    @property
    def finite(self) -> bool:
        """Whether frequencies and thermal properties are numbers."""
        scalars = (self.free_energy, self.entropy, self.heat_capacity)
        return bool(np.isfinite(self.frequencies).all() and np.isfinite(scalars).all())


class Comparison(NamedTuple):
    """One crystal, DFT against the model."""

    name: str
    atoms: tuple[int, int]  # primitive cell, supercell
    dft: Harmonic
    model: Harmonic
    grid: ndarray  # THz, of both DOS
    matrices: float  # mean over q of |D_model(q) - D_DFT(q)| / |D_DFT(q)|, Frobenius norms
    report: ForceConstantsReport

    @property
    def mean_error(self) -> float:
        """Mean |difference of frequencies| over the mesh (THz), modes matched in order."""
        difference = np.abs(self.model.frequencies - self.dft.frequencies).mean(axis=1)
        return float(np.average(difference, weights=self.dft.weights))

    @property
    def dos_overlap(self) -> float:
        """∫ min(g_DFT, g_model) / ∫ g_DFT."""
        common = np.trapezoid(np.minimum(self.dft.dos, self.model.dos), self.grid)
        return float(common / np.trapezoid(self.dft.dos, self.grid))


def main() -> None:
    """Compare the chosen crystals, smallest first, and print a table for each model."""
    options = parse()
    potentials = [pe.load_potential(model, dtype=options.dtype) for model in options.model]
    names = choose(options, set.intersection(*(set(p.species) for p in potentials)))
    if missing := set(options.apart) - set(names):
        raise SystemExit(f"--apart: not among the crystals: {', '.join(sorted(missing))}")
    functionals = read_functionals(options.folder / "INDEX.md")
    failures: list[str] = []
    means = []
    for potential in potentials:
        print(f"Model {potential.name} (sha256 {potential.sha256[:12]}), {options.dtype}.\n")
        print_header(COLUMNS)
        found = [one_crystal(name, potential, options, functionals) for name in names]
        failures += [c.name for c in found if not (c.dft.finite and c.model.finite)]
        means += summaries(potential.name, found, options.apart)
        print(flush=True)
    print_header(SUMMARY)
    print("\n".join(means))
    if failures:
        raise SystemExit(f"Not finite: {', '.join(failures)}")
    print("\nFrequencies and thermal properties of all crystals are finite.")


def one_crystal(
    name: str, potential: pe.Potential, options: argparse.Namespace, functionals: dict[str, str]
) -> Comparison:
    """Return the comparison of one crystal and print its line."""
    start = time.perf_counter()
    comparison = compare(options.folder / name, potential)
    print(row(comparison, functionals.get(name, "not stated")), flush=True)
    if options.figures is not None and name in options.plot:
        options.figures.mkdir(parents=True, exist_ok=True)
        suffix = f"_{potential.name}" if len(options.model) > 1 else ""
        plot(comparison, options.figures / f"bands_{name}{suffix}.png")
    if options.verbose:
        report = "\n  ".join(comparison.report.lines())
        print(f"  {report}\n  whole comparison {time.perf_counter() - start:.1f} s")
    return comparison


def print_header(columns: tuple[str, ...]) -> None:
    """Print the head of a table."""
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|", flush=True)


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    default = Path(__file__).resolve().parents[2] / "shared" / "dft"
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    parser.add_argument("--model", nargs="+", default=["nequix-mp-1-pft"])
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument("--crystals", nargs="+", metavar="NAME", help="only these folders")
    parser.add_argument(
        "--apart", nargs="+", default=[], metavar="NAME", help="means of these and of the rest too"
    )
    parser.add_argument("--figures", type=Path, help="folder for band structures as PNG")
    parser.add_argument("--plot", nargs="+", default=[], metavar="NAME", help="crystals to draw")
    parser.add_argument("-v", "--verbose", action="store_true", help="the report of each crystal")
    return parser.parse_args()


def choose(options: argparse.Namespace, known: set[int]) -> list[str]:
    """Return the crystals of known elements, small primitive cells first."""
    sizes = {}
    for path in sorted(options.folder.glob(f"*/{FILE}")):
        name = path.parent.name
        if options.crystals and name not in options.crystals:
            continue
        with lzma.open(path, "rt") as file:
            cells = read_cells(file)
        symbols = {point["symbol"] for point in cells["primitive_cell"]["points"]}
        if {atomic_numbers[symbol] for symbol in symbols} <= known:
            sizes[name] = tuple(
                len(cells[key]["points"]) for key in ("primitive_cell", "supercell")
            )
    missing = set(options.crystals or ()) - sizes.keys()
    if missing:
        raise SystemExit(f"No such crystal, or an unknown element: {', '.join(sorted(missing))}")
    return sorted(sizes, key=lambda name: sizes[name])


def read_cells(file: Any) -> dict[str, Any]:
    """Return the cells of a phonopy file; the displacements behind them are not parsed."""
    lines = []
    for line in file:
        if line.startswith(("displacements:", "dataset:", "force_constants:")):
            break
        lines.append(line)
    cells: dict[str, Any] = yaml.load("".join(lines), Loader=yaml.CSafeLoader)
    return cells


def read_functionals(index: Path) -> dict[str, str]:
    """Return the column ``functional`` of the table in INDEX.md, by folder."""
    rows = index.read_text().splitlines() if index.exists() else []
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows if line[:1] == "|"]
    if not table:
        return {}
    names, values = table[0].index("folder"), table[0].index("functional")
    return {cells[names]: cells[values] for cells in table[2:]}


@functools.cache
def load_dft(folder: Path) -> Phonopy:
    """Return phonopy with the force constants of the DFT forces."""
    return phonopy.load(folder / FILE, is_nac=False, symmetrize_fc=True, log_level=0)


def dynamical_matrix(phonon: Phonopy, q: list[float]) -> ndarray:
    """Return phonopy's mass-weighted D(q)."""
    phonon.run_qpoints([q], with_dynamical_matrices=True)
    matrices: ndarray = phonon.qpoints.dynamical_matrices
    return matrices[0]


def matrix_error(reference: Phonopy, phonon: Phonopy) -> float:
    """Return the mean relative error of D(q) over QPOINTS."""
    errors = []
    for q in QPOINTS:
        expected, found = (dynamical_matrix(some, q) for some in (reference, phonon))
        errors.append(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return float(np.mean(errors))


def compare(folder: Path, potential: pe.Potential) -> Comparison:
    """Return the phonons of one crystal from DFT and from the model, in the same cells."""
    reference = load_dft(folder)
    phonon = Phonopy(
        reference.unitcell,
        supercell_matrix=reference.supercell_matrix,
        primitive_matrix=reference.primitive_matrix,
    )
    if not np.allclose(phonon.supercell.positions, reference.supercell.positions, atol=1e-8):
        raise SystemExit(f"{folder.name}: the supercell is not the one of the DFT")
    report = pe.set_force_constants(phonon, potential)
    top = max(run_mesh(some).max() for some in (reference, phonon))
    bottom = min(some.mesh.frequencies.min() for some in (reference, phonon))
    grid = np.linspace(bottom - 0.02 * top, 1.02 * top, 501)
    return Comparison(
        folder.name,
        (len(phonon.primitive), len(phonon.supercell)),
        harmonic(reference, grid),
        harmonic(phonon, grid),
        grid,
        matrix_error(reference, phonon),
        report,
    )


def run_mesh(phonon: Phonopy) -> ndarray:
    """Run phonopy's mesh and return its frequencies."""
    phonon.run_mesh(MESH)
    return np.asarray(phonon.mesh.frequencies)


def harmonic(phonon: Phonopy, grid: ndarray) -> Harmonic:
    """Return DOS, thermal properties and bands; the mesh has been run."""
    frequencies, weights = phonon.mesh.frequencies, phonon.mesh.weights
    phonon.run_total_dos(
        freq_min=grid[0], freq_max=grid[-1], freq_pitch=(grid[-1] - grid[0]) / (len(grid) - 1)
    )
    # modes at or below the cutoff of 0 THz (imaginary ones) are left out of the sums by phonopy;
    # so are the three acoustic modes at Gamma, whose frequencies are rounding
    phonon.run_thermal_properties(
        temperatures=[TEMPERATURE], cutoff_frequency=0.0, exclude_gamma_acoustic=True
    )
    thermal = phonon.thermal_properties
    negative = (frequencies < -1e-3).mean(axis=1)
    paths, labels, connections = get_band_qpoints_by_seekpath(phonon.primitive, 51)
    phonon.run_band_structure(paths, path_connections=connections, labels=labels)
    return Harmonic(
        frequencies,
        weights,
        np.interp(grid, phonon.total_dos.frequency_points, phonon.total_dos.dos),
        float(thermal.free_energy[0]),
        float(thermal.entropy[0]),
        float(thermal.heat_capacity[0]),
        float(np.average(negative, weights=weights)),
        phonon.band_structure,
    )


def row(comparison: Comparison, functional: str) -> str:
    """Return one line of the table."""
    dft, model, report = comparison.dft, comparison.model, comparison.report
    highest, predicted = dft.frequencies.max(), model.frequencies.max()
    cells = (
        comparison.name,
        functional,
        f"{comparison.atoms[0]} / {comparison.atoms[1]}",
        f"{highest:.2f}",
        f"{predicted:.2f}",
        f"{predicted - highest:+.2f}",
        f"{100 * (predicted / highest - 1):+.1f}",
        f"{comparison.mean_error:.3f}",
        f"{comparison.dos_overlap:.2f}",
        f"{dft.free_energy:.2f} / {model.free_energy:.2f}",
        f"{dft.entropy:.1f} / {model.entropy:.1f}",
        f"{dft.heat_capacity:.1f} / {model.heat_capacity:.1f}",
        f"{100 * dft.imaginary:.1f} / {100 * model.imaginary:.1f} %",
        f"{report.residual_force:.3f}",
        f"{report.residual_stress:.2f}",
        f"{report.seconds:.1f}",
    )
    return "| " + " | ".join(cells) + " |"


def summaries(name: str, found: list[Comparison], apart: list[str]) -> list[str]:
    """Return the errors over all crystals and, where some are named, over those and the rest."""
    named = [c for c in found if c.name in apart]
    rest = [c for c in found if c.name not in apart]
    parts = {"": found, ", named": named, ", the rest": rest} if named and rest else {"": found}
    return [summary(name + suffix, some) for suffix, some in parts.items()]


def summary(name: str, found: list[Comparison]) -> str:
    """Return the mean absolute errors over all crystals, one line of a table."""
    highest = [(c.dft.frequencies.max(), c.model.frequencies.max()) for c in found]
    thermal = ("free_energy", "entropy", "heat_capacity")
    errors = [
        [abs(getattr(c.model, key) - getattr(c.dft, key)) / c.atoms[0] for key in thermal]
        for c in found
    ]
    cells = (
        name,
        str(len(found)),
        f"{np.mean([abs(m - d) for d, m in highest]):.2f}",
        f"{100 * np.mean([abs(m / d - 1) for d, m in highest]):.1f}",
        f"{np.mean([c.mean_error for c in found]):.3f}",
        f"{100 * np.mean([c.matrices for c in found]):.1f}",
        *(f"{value:.3f}" for value in np.mean(errors, axis=0)),
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()

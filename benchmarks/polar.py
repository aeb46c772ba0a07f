"""The longitudinal optical branch of a potential with Born charges, against DFT with Born charges.

    python benchmarks/polar.py FOLDER --model nequix-oam-1-pft nequix-mp-1-pft pe-crystal-3
    python benchmarks/polar.py FOLDER --model nequix-oam-1-pft --ranges 6 8 10 12 14 17 20
    python benchmarks/polar.py FOLDER --model nequix-oam-1-pft --figure polar.png

Every crystal is a folder in FOLDER with a ``phonopy_params.yaml.xz``: cells, DFT forces, Born
charges. The reference is phonopy's Gonze-Lee interpolation of the DFT force constants. The model
gets the same cell and charges, nothing is relaxed. On the path from Γ the LO mode of the DFT is the
mode of largest mode charge along q at the first q, followed by overlap of eigenvectors; with its
eigenvector e the branch is √(e†·D(q)·e), for the DFT and for the model.

"supercell" is phonopy's scheme from cells of at most the given diameter, "exact" exact mode with
that ``nac_range``.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import phonopy
from numpy import ndarray
from phonopy import Phonopy
from phonopy.physical_units import get_calculator_physical_units

import phonopy_equivariant as pe
from phonopy_equivariant.frequencies import signed_root
from phonopy_equivariant.phonons.cells import primitive_operations
from phonopy_equivariant.phonons.charges import obeying
from phonopy_equivariant.phonons.nac import NAC_RANGE, PolarResponse
from phonopy_equivariant.potential import Potential

PATHS = {
    "NaCl": {"Γ-X": [0.5, 0.5, 0]},
    "MgO": {"Γ-X": [0.5, 0.5, 0]},
    "SnO2": {"Γ-X": [0.5, 0, 0], "Γ-M": [0.5, 0.5, 0]},
    "SiO2_stishovite": {"Γ-X": [0.5, 0, 0], "Γ-M": [0.5, 0.5, 0]},
    "Al2O3": {"Γ-F": [0.5, 0.5, 0], "Γ-T": [0.5, 0.5, 0.5]},
    "MgO_444": {"Γ-X": [0.5, 0.5, 0], "Γ-L": [0.5, 0.5, 0.5]},
}
RANDOM = {"MgO_444"}  # displacements; not among the default crystals
STEPS = 40
EXACT = 2e-3  # THz, of the potential's own D(q) on the path


class Line(NamedTuple):
    """A path from Γ with the DFT's frequencies and LO branch."""

    qpoints: ndarray
    bands: ndarray  # (q, 3n), THz
    vectors: ndarray  # (q, 3n), of the LO branch
    branch: ndarray  # (q,), THz

    def projected(self, matrices: ndarray) -> ndarray:
        """Return √(e†·D·e) in THz, e the LO eigenvectors."""
        return in_thz(np.einsum("qa,qab,qb->q", self.vectors.conj(), matrices, self.vectors).real)


class Deviations(NamedTuple):
    """Of one scheme from the DFT, THz."""

    branch: float  # LO, mean over the path
    largest: float  # LO
    bands: float  # all branches, mean
    second: float  # largest second difference of the LO branch over steps of the path


def in_thz(squares: ndarray) -> ndarray:
    """Return frequencies from eigenvalues in eV/(Å² amu)."""
    return signed_root(squares) * get_calculator_physical_units(None).factor


def dft_phonon(folder: Path) -> Phonopy:
    """Return the DFT's phonons with charges that obey symmetry and sum rule."""
    fit: Any = "symfc" if folder.name in RANDOM else None
    phonon = phonopy.load(folder / "phonopy_params.yaml.xz", log_level=0, fc_calculator=fit)
    given: Any = phonon.nac_params
    charges = obeying(given, folder.name, primitive_operations(phonon))
    changed = {"born": charges.born, "dielectric": charges.dielectric, "factor": charges.coulomb}
    phonon.nac_params = given | changed
    return phonon


def evaluate(matrix: Any, qpoints: ndarray) -> ndarray:
    """Return D(q) of a dynamical matrix of phonopy."""
    result = []
    for q in qpoints:
        matrix.run(q)
        result.append(matrix.dynamical_matrix.copy())
    return np.array(result)


def line_of(phonon: Any, end: list[float]) -> Line:
    """Return the path from Γ to ``end``, and the DFT on it."""
    qpoints = np.linspace(0, 1, STEPS + 1)[1:, None] * np.array(end)
    values, vectors = np.linalg.eigh(evaluate(phonon.dynamical_matrix, qpoints))
    direction = np.array(end) @ np.linalg.inv(phonon.primitive.cell).T
    charges = np.einsum("a,iab->ib", direction, phonon.nac_params["born"])
    charges = (charges / np.sqrt(phonon.primitive.masses)[:, None]).ravel()
    indices = [int(np.argmax(np.abs(charges @ vectors[0])))]
    for before, after in itertools.pairwise(vectors):
        indices.append(int(np.argmax(np.abs(before[:, indices[-1]].conj() @ after))))
    rows = np.arange(len(qpoints))
    return Line(qpoints, in_thz(values), vectors[rows, :, indices], in_thz(values[rows, indices]))


def deviations(line: Line, matrices: ndarray) -> Deviations:
    """Return how far D(q) is from the DFT."""
    branch = line.projected(matrices)
    difference = np.abs(branch - line.branch)
    bands = np.abs(in_thz(np.linalg.eigvalsh(matrices)) - line.bands)
    second = np.abs(np.diff(branch, 2)).max()
    return Deviations(*map(float, (difference.mean(), difference.max(), bands.mean(), second)))


class Crystal:
    """A crystal with the DFT's phonons and the D(q) of a potential without charges."""

    def __init__(self, folder: Path, potential: Potential):
        self.name = folder.name
        self.dft = dft_phonon(folder)
        self.lines = {name: line_of(self.dft, end) for name, end in PATHS[self.name].items()}
        plain = Phonopy(
            self.dft.unitcell,
            self.dft.supercell_matrix,
            primitive_matrix=self.dft.primitive_matrix,
            log_level=0,
        )
        pe.use_exact_dynamical_matrix(plain, potential, tolerance=EXACT)
        self.matrix: Any = plain.dynamical_matrix

    def schemes(self, cells: list[float], ranges: list[float]) -> dict[str, dict[str, ndarray]]:
        """Return D(q) on each path by each scheme; the keys are the path's and the scheme's."""
        results = {
            name: {
                "DFT": evaluate(self.dft.dynamical_matrix, line.qpoints),
                "no charges": evaluate(self.matrix, line.qpoints),
            }
            for name, line in self.lines.items()
        }
        for size in sorted({*cells, *ranges}):
            polar = self.response(size)
            for name, line in self.lines.items():
                if size in cells:
                    values = polar.interpolated(line.qpoints)
                    matrices = polar.dynamical_matrices(line.qpoints, values)
                    results[name][f"supercell {size:g} Å"] = matrices
                if size in ranges:
                    values = polar.short_range(line.qpoints)
                    matrices = polar.dynamical_matrices(line.qpoints, values)
                    results[name][f"exact {size:g} Å"] = matrices
        return results

    def response(self, size: float) -> PolarResponse:
        """Return the response with dipoles for one range (Å)."""
        primitive: Any = self.dft.primitive
        charges = obeying(self.dft.nac_params, self.name)

        def direct(qpoints: ndarray) -> ndarray:
            weights = np.exp(2j * np.pi * qpoints @ primitive.scaled_positions.T)
            columns = np.repeat(weights * np.sqrt(primitive.masses), 3, axis=1)
            matrices = evaluate(self.matrix, qpoints)
            return columns[:, :, None] * matrices * columns.conj()[:, None, :]

        return PolarResponse(self.dft, charges, size, direct)


def table(rows: dict[str, dict[str, Deviations]], index: int) -> str:
    """Return one of the deviations as a Markdown table: schemes down, paths across."""
    schemes = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join([*rows, "mean"]) + " |", "|---" * (len(rows) + 2) + "|"]
    for scheme in schemes:
        values = [row[scheme][index] for row in rows.values()]
        texts = [f"{value:.3f}" for value in [*values, float(np.mean(values))]]
        lines.append(f"| {scheme} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def figure(crystals: list[Crystal], sizes: list[float], path: Path) -> None:
    """Draw the LO branch of each crystal by all schemes."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    panels = [(crystal, name) for crystal in crystals for name in crystal.lines]
    fig, axes = plt.subplots(2, (len(panels) + 1) // 2, figsize=(14, 6.5), squeeze=False)
    for (crystal, name), axis in zip(panels, axes.ravel(), strict=False):
        line = crystal.lines[name]
        for scheme, matrices in crystal.schemes(sizes, [NAC_RANGE])[name].items():
            style = {"DFT": "k-", "no charges": "k:"}.get(scheme, "-")
            width = 2.5 if scheme in ("DFT", f"exact {NAC_RANGE:g} Å") else 1.2
            steps = np.arange(1, STEPS + 1) / STEPS
            axis.plot(steps, line.projected(matrices), style, lw=width, label=scheme)
        axis.set_title(f"{crystal.name} {name}", fontsize=9)
    axes[0, 0].legend(fontsize=7)
    for row in axes:
        row[0].set_ylabel("LO branch, THz")
    fig.tight_layout()
    fig.savefig(path, dpi=90)


def main() -> None:
    """Print tables, or draw the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", nargs="+", required=True)
    parser.add_argument("--crystals", nargs="+", default=[*PATHS][:5])
    parser.add_argument("--cells", nargs="+", type=float, default=[10.0, 14.0, 20.0])
    parser.add_argument("--ranges", nargs="+", type=float, default=[NAC_RANGE])
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    for model in args.model:
        potential = pe.load_potential(model)
        crystals = [Crystal(args.folder / name, potential) for name in args.crystals]
        if args.figure:
            figure(crystals, args.cells, args.figure)
            continue
        rows = {}
        for crystal in crystals:
            for name, schemes in crystal.schemes(args.cells, args.ranges).items():
                line = crystal.lines[name]
                rows[f"{crystal.name} {name}"] = {
                    scheme: deviations(line, matrices) for scheme, matrices in schemes.items()
                }
        titles = ("LO branch, MAE", "LO branch, largest", "all branches, MAE", "second difference")
        for index, title in enumerate(titles):
            print(f"\n{model}, {title} (THz)\n\n{table(rows, index)}", flush=True)


if __name__ == "__main__":
    main()

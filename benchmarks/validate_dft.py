"""Phonons of models against published DFT phonons, crystal by crystal, as Markdown tables.

    python benchmarks/validate_dft.py FOLDER --crystals Si_PBE NaCl --figures docs/figures

``phonopy-equivariant evaluate`` for the tables of the documentation: the same comparison, with the
functional of each crystal from an ``INDEX.md`` beside the folders, on the crystals whose elements
all models know, smallest first; means of named crystals and of the others apart (``--apart``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import phonopy_equivariant as pe
from phonopy_equivariant.evaluation.figures import band_figure
from phonopy_equivariant.evaluation.metrics import Comparison
from phonopy_equivariant.evaluation.references import Reference, find_references, read_reference
from phonopy_equivariant.workflows.evaluation import compare

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


def main() -> None:
    """Compare the chosen crystals, smallest first, and print a table for each model."""
    options = parse()
    potentials = [pe.load_potential(model, dtype=options.dtype) for model in options.model]
    files = chosen_files(options, set.intersection(*(set(p.species) for p in potentials)))
    names = [file.name for file in files]
    if missing := set(options.apart) - set(names):
        raise SystemExit(f"--apart: not among the crystals: {', '.join(sorted(missing))}")
    functionals = read_functionals(options.folder / "INDEX.md")
    not_finite, means = [], []
    for potential in potentials:
        print(f"Model {potential.name} (sha256 {potential.sha256[:12]}), {options.dtype}.\n")
        print_header(COLUMNS)
        comparisons = []
        for file in files:
            plan = pe.EvaluationOptions(bands=file.name in options.plot)
            comparison = compare(file.name, read_reference(file.path), potential, plan)
            print(row(comparison, functionals.get(file.name, "not stated")), flush=True)
            comparisons.append(comparison)
            if comparison.bands is not None and options.figures is not None:
                draw(comparison, options)
        not_finite += [c.name for c in comparisons if not c.finite]
        means += summaries(potential.name, comparisons, options.apart)
        print(flush=True)
    print_header(SUMMARY)
    print("\n".join(means))
    if not_finite:
        raise SystemExit(f"Not finite: {', '.join(not_finite)}")
    print("\nFrequencies and thermal properties of all crystals are finite.")


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    default = Path(__file__).resolve().parents[2] / "shared" / "dft"
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    parser.add_argument("--model", nargs="+", default=["nequix-mp-1-pft"])
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument("--crystals", nargs="+", metavar="NAME", help="only these folders")
    parser.add_argument(
        "--apart", nargs="+", default=[], metavar="NAME", help="means of these and of others too"
    )
    parser.add_argument("--figures", type=Path, help="folder for band structures as PNG")
    parser.add_argument("--plot", nargs="+", default=[], metavar="NAME", help="crystals to draw")
    return parser.parse_args()


def chosen_files(options: argparse.Namespace, species: set[int]) -> list[Reference]:
    """Return the references whose elements all models know, small primitive cells first."""
    sizes = {}
    for file in find_references([options.folder]):
        if options.crystals and file.name not in options.crystals:
            continue
        phonon = read_reference(file.path)
        if set(phonon.primitive.numbers) <= species:
            sizes[file] = len(phonon.primitive), len(phonon.supercell), file.name
    missing = set(options.crystals or ()) - {file.name for file in sizes}
    if missing:
        raise SystemExit(f"No such crystal, or an unknown element: {', '.join(sorted(missing))}")
    return sorted(sizes, key=lambda file: sizes[file])


def read_functionals(index: Path) -> dict[str, str]:
    """Return the column ``functional`` of the table in INDEX.md, by folder."""
    rows = index.read_text().splitlines() if index.exists() else []
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in rows if line[:1] == "|"]
    if not table:
        return {}
    names, values = table[0].index("folder"), table[0].index("functional")
    return {cells[names]: cells[values] for cells in table[2:]}


def draw(comparison: Comparison, options: argparse.Namespace) -> None:
    """Write bands and density of states as PNG."""
    options.figures.mkdir(parents=True, exist_ok=True)
    suffix = f"_{comparison.model}" if len(options.model) > 1 else ""
    path = options.figures / f"bands_{comparison.name}{suffix}.png"
    band_figure(comparison).savefig(path, dpi=120)


def print_header(columns: tuple[str, ...]) -> None:
    """Print the head of a table."""
    print("| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|", flush=True)


def row(comparison: Comparison, functional: str) -> str:
    """Return one line of the table."""
    dft, model, errors = comparison.reference, comparison.predicted, comparison.errors()
    cells = (
        comparison.name,
        functional,
        f"{comparison.atoms} / {comparison.supercell}",
        f"{dft.highest:.2f}",
        f"{model.highest:.2f}",
        f"{errors['highest']:+.2f}",
        f"{100 * errors['highest_relative']:+.1f}",
        f"{errors['frequencies']:.3f}",
        f"{errors['dos_overlap']:.2f}",
        f"{dft.free_energy:.2f} / {model.free_energy:.2f}",
        f"{dft.entropy:.1f} / {model.entropy:.1f}",
        f"{dft.heat_capacity:.1f} / {model.heat_capacity:.1f}",
        f"{100 * dft.imaginary:.1f} / {100 * model.imaginary:.1f} %",
        f"{comparison.residual_force:.3f}",
        f"{comparison.residual_stress:.2f}",
        f"{comparison.seconds:.1f}",
    )
    return "| " + " | ".join(cells) + " |"


def summaries(name: str, comparisons: list[Comparison], apart: list[str]) -> list[str]:
    """Return means over all crystals and, where some are named, over those and the others."""
    named = [c for c in comparisons if c.name in apart]
    others = [c for c in comparisons if c.name not in apart]
    parts = {"": comparisons}
    if named and others:
        parts |= {", named": named, ", the others": others}
    return [summary(name + suffix, part) for suffix, part in parts.items()]


def summary(name: str, comparisons: list[Comparison]) -> str:
    """Return the mean absolute errors over crystals, one line of a table."""
    errors = [comparison.errors() for comparison in comparisons]
    columns = (
        ("highest", 1, 2),
        ("highest_relative", 100, 1),
        ("frequencies", 1, 3),
        ("matrix", 100, 1),
        ("free_energy", 1, 3),
        ("entropy", 1, 3),
        ("heat_capacity", 1, 3),
    )
    means = [
        f"{factor * np.mean([abs(e[key]) for e in errors]):.{digits}f}"
        for key, factor, digits in columns
    ]
    return "| " + " | ".join((name, str(len(comparisons)), *means)) + " |"


if __name__ == "__main__":
    main()

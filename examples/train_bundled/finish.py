"""The bundled checkpoint and its card from a trained student and its errors.

    python finish.py STUDENT.npz FOLDER ERRORS.json [--install] [--earlier RECORDS]

Adds the reference that tells structures far from the training data. Without ``--install`` the two
files are written to FOLDER.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml
from ase.data import chemical_symbols
from labels import load_teacher

import phonopy_equivariant as pe
from phonopy_equivariant.catalogue import bundled
from phonopy_equivariant.checkpoints.fetch import file_sha256
from phonopy_equivariant.data import read_records
from phonopy_equivariant.potential import make_potential

NAME = "pe-crystal-3"
SAMPLE = 4  # every fourth training structure says what they look like
QUANTILE = 0.95  # of held-out crystals at rest without a warning
THEORY = "PBE(+U), distilled"


def sentences(errors: dict[str, Any]) -> list[str]:
    """Return what was measured on held-out structures, for the card."""
    points, phonons = errors["points"], errors["phonons"]
    mean = {name: value["mean"] for name, value in phonons.items()}
    return [
        f"{errors['records']} held-out structures against the teacher: energy "
        f"{points['energy, meV/atom']:.0f} meV/atom "
        f"(median {points['energy, median, meV/atom']:.0f}), "
        f"forces {points['forces, meV/Å']:.0f} meV/Å",
        f"phonons of {errors['crystals']} of them at rest: highest frequency "
        f"{mean['highest frequency, THz']:.2f} THz ({mean['highest frequency, %']:.1f} %), D(q) "
        f"{100 * mean['D(q)']:.0f} %; at 300 K, per atom: free energy "
        f"{mean['free energy per atom']:.2f} kJ/mol, entropy {mean['entropy per atom']:.1f} and "
        f"heat capacity {mean['heat capacity per atom']:.2f} J/(K mol)",
    ]


def main() -> None:
    """Write the checkpoint and its card."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("student")
    parser.add_argument("folder", type=Path)
    parser.add_argument("errors", type=Path)
    parser.add_argument("--install", action="store_true", help="into the package")
    parser.add_argument("--earlier", type=int, default=0, help="records in trainings before")
    options = parser.parse_args()
    trained = load_teacher(options.student, "float32")  # padded to few sizes: few programs
    parts = {
        part: [r.structure for r in read_records(options.folder / f"{part}.h5")]
        for part in ("train", "rest_held_out")
    }
    # crystals at rest, as users have them: perturbed ones lie farther out
    at_rest = [structure for structure in parts["rest_held_out"] if structure.pbc.all()]
    fitted = pe.fit_familiarity(trained, parts["train"][::SAMPLE], at_rest, QUANTILE)
    single = make_potential(trained.config, trained.params, "float32", name=NAME)
    single = dataclasses.replace(single, reference=fitted.reference)
    target = bundled.FOLDER if options.install else options.folder
    labels = {"name": NAME, "licence": "BSD-3-Clause", "theory": THEORY}
    path = pe.save_checkpoint(single, target / f"{NAME}.npz", labels)
    earlier = f"{options.earlier} and then " if options.earlier else ""
    card = {
        "sha256": file_sha256(path),
        "licence": "BSD-3-Clause",
        "citation": [
            "phonopy_equivariant",
            "its teacher nequix-oam-1-pft (MIT): arXiv:2508.16067, arXiv:2601.07742",
        ],
        "theory": THEORY,
        "training_data": [
            f"{earlier}{len(parts['train'])} "
            "structures of prototypes and molecules, labelled by the teacher, and small "
            "displacements labelled by its Hessians"
        ],
        "elements": [chemical_symbols[z] for z in single.species],
        "accuracy": sentences(json.loads(options.errors.read_text("utf-8"))),
        "good_for": [
            "a first look at phonons of inorganic crystals of common structure types, "
            "and at small molecules of H, C, N, O"
        ],
        "not_good_for": [
            "numbers to publish: take a model that is named by models list",
            "soft modes",
            "surfaces, defects, liquids",
            "magnetic order",
            "molecular crystals",
        ],
    }
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, default_flow_style=None)
    path.with_suffix(".yaml").write_text(text, "utf-8")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

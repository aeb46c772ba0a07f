"""How closely the roads to the same force constants agree, for the crystals of phonons.py.

    python benchmarks/deviations.py MODEL.nqx [--only Si,NaCl]

The Bloch response in float64 against automatic differentiation of the supercell in float64; the
Bloch response in float32 against float64; phonopy's finite displacements of 0.01 Å with forces in
float64 against the Bloch response. Largest differences in eV/Å².
"""

from __future__ import annotations

import argparse

import numpy as np
from phonons import crystals, own_displacements, phonon_of

import phonopy_equivariant as pe


def main() -> None:
    """Print a table in Markdown, one crystal at a time."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    double, single = (pe.load_potential(options.model, dtype=d) for d in ("float64", "float32"))
    print("| crystal | largest element | autodiff | float32 | displacements |\n" + "|---" * 5 + "|")
    for name in options.only.split(",") if options.only else crystals():
        phonon = phonon_of(crystals()[name], 0.0)
        phonon.generate_displacements(distance=0.01)
        exact = pe.force_constants(phonon, double)
        others = (
            pe.force_constants(phonon, double, method="autodiff"),
            pe.force_constants(phonon, single),
            own_displacements(double)(phonon),
        )
        errors = " | ".join(f"{np.abs(other - exact).max():.1e}" for other in others)
        print(f"| {name} | {np.abs(exact).max():.1f} | {errors} |", flush=True)


if __name__ == "__main__":
    main()

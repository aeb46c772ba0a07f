"""Force constants with a MACE of the size of MACE-MP-0 small, by three roads, in one run.

    python benchmarks/mace_phonons.py [--dtype float32] [--only Si,NaCl] [--hidden 128x0e+128x1o]

(a) this package's Bloch response with the converted model; (b) phonopy finite displacements with
mace-torch's ASE calculator; (c) mace-torch's ``get_hessian`` of the supercell. Needs the extra
``mace``. The model has random weights and 89 elements; time does not depend on their values. Rows
of (c) cost the same each, so it is timed on a few and multiplied by 3N; ``--whole`` calls
``get_hessian`` itself.

Every timed call of (a) and (b) sees a structure that the process has not seen: a strain of 1e-4 is
added each time. First calls, which compile, are reported apart. Times are wall times, the best of
the repeats for (a), one for (b); nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import time
import warnings
from typing import Any

import numpy as np
from phonons import crystals, phonon_of
from phonopy import Phonopy

import phonopy_equivariant as pe
from phonopy_equivariant.structure import as_structure, to_ase

REPEATS = 3
HESSIAN_ROWS = 3


def build_model(hidden: str, dtype: str) -> Any:
    """Return a ScaleShiftMACE with the settings of MACE-MP-0 and random weights."""
    import mace  # noqa: F401  # before e3nn
    import torch
    from e3nn import o3
    from mace import modules

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    residual = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = modules.ScaleShiftMACE(
        r_max=6.0,
        num_bessel=10,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=residual,
        interaction_cls_first=residual,
        num_interactions=2,
        num_elements=89,
        hidden_irreps=o3.Irreps(hidden),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(89),
        avg_num_neighbors=61.96,
        atomic_numbers=list(range(1, 90)),
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=0.8,
        atomic_inter_shift=0.16,
    )
    return model.to(getattr(torch, dtype))


def calculator_of(model: Any, dtype: str) -> Any:
    """Return mace-torch's ASE calculator."""
    from mace.calculators import MACECalculator

    return MACECalculator(models=[model], device="cpu", default_dtype=dtype)


def finite_displacements(phonon: Phonopy, calculator: Any) -> np.ndarray:
    """Return force constants from mace-torch's forces on phonopy's displaced supercells."""
    phonon.generate_displacements(distance=0.01)
    forces = []
    for cell in phonon.supercells_with_displacements:
        atoms = to_ase(as_structure(cell))
        atoms.calc = calculator
        forces.append(atoms.get_forces())
    phonon.forces = forces
    phonon.produce_force_constants(calculate_full_force_constants=False)
    return np.array(phonon.force_constants)


def hessian_time(phonon: Phonopy, calculator: Any, whole: bool) -> float:
    """Return the time of all rows of mace-torch's Hessian, from the mean of a few unless whole."""
    import torch

    atoms = to_ase(as_structure(phonon.supercell))
    if whole:
        start = time.perf_counter()
        calculator.get_hessian(atoms)
        return time.perf_counter() - start
    batch = calculator._atoms_to_batch(atoms)
    start = time.perf_counter()
    output = calculator.models[0](batch.to_dict(), compute_force=True, training=True)
    forces, positions = output["forces"].view(-1), batch["positions"]
    forward = time.perf_counter() - start
    start = time.perf_counter()
    for row in range(HESSIAN_ROWS):
        torch.autograd.grad(-forces[row], positions, retain_graph=True)
    return forward + (time.perf_counter() - start) / HESSIAN_ROWS * 3 * len(atoms)


def measure(
    name: str, potential: pe.Potential, calculator: Any, whole: bool
) -> tuple[float, float]:
    """Print the row of one crystal; return how many times faster (a) is than (b) and (c)."""
    atoms = crystals()[name]
    times, result = [], None
    for index in range(REPEATS + 1):
        phonon = phonon_of(atoms, 1e-4 * index)
        start = time.perf_counter()
        found = pe.force_constants(phonon, potential)
        times.append(time.perf_counter() - start)
        result = found if result is None else result
    phonon = phonon_of(atoms, 1e-4)
    finite_displacements(phonon_of(atoms.copy(), 2e-4), calculator)  # warm
    start = time.perf_counter()
    finite_displacements(phonon, calculator)
    displaced = time.perf_counter() - start
    reference = phonon_of(atoms, 0.0)
    expected = finite_displacements(reference, calculator)
    difference = np.abs(result - expected).max() / np.abs(expected).max()
    rows = hessian_time(phonon, calculator, whole)
    best = min(times[1:])
    print(
        f"| {name} | {len(phonon.supercell)} | {len(phonon.displacements)} | {times[0]:.1f} | "
        f"{best:.3f} | {displaced:.1f} | {displaced / best:.0f} | {rows:.0f} | {rows / best:.0f} | "
        f"{difference:.0e} |",
        flush=True,
    )
    return displaced / best, rows / best


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--only", default="Si,NaCl,quartz")
    parser.add_argument("--hidden", default="128x0e")
    parser.add_argument("--whole", action="store_true", help="(c) by get_hessian, all rows")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()):
        model = build_model(args.hidden, args.dtype)
        calculator = calculator_of(model, args.dtype)
        from phonopy_equivariant.checkpoints.mace_torch.model import read_mace
        from phonopy_equivariant.potential import make_potential

        double = build_model(args.hidden, "float64")
        potential = make_potential(*read_mace(double), args.dtype)
    print(f"hidden irreps {args.hidden}, {args.dtype}; times in s\n")
    print(
        "| crystal | atoms | displacements | (a) first | (a) | (b) | b/a | (c) | c/a "
        "| deviation of (b) |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    ratios = [measure(name, potential, calculator, args.whole) for name in args.only.split(",")]
    means = [math.exp(np.mean(np.log(column))) for column in zip(*ratios, strict=True)]
    print(f"\ngeometric means: b/a {means[0]:.0f}, c/a {means[1]:.0f}")


if __name__ == "__main__":
    main()

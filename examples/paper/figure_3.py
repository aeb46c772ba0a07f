"""Fig. 3 of arXiv:2403.11347: ethanol from few configurations, with and without Hessians.

    python figure_3.py train [--data FOLDER] [--seeds 3] [--steps 1500]
    python figure_3.py dynamics [--data FOLDER] [--picoseconds 100]
    python figure_3.py draw [--data FOLDER] [--also FILE]

``train`` trains one small NequIP, for each seed, on energies and forces alone (``forces``) and on
Hessians besides, of which an update sees the three columns of a random atom (``columns``) or three
elements between random directions at random pairs of atoms (``pairs``, as the paper),

(a) of the first training configuration;
(b) of 1, 2, 4, 8, 16 and 32 configurations drawn with the seed (``forces`` and ``columns``),

with equal architecture, number of updates and learning rate.

``dynamics`` runs molecular dynamics (c) with the potentials of 4 and 16 configurations, each from
five starts at constant energy and five with a thermostat (``dynamics.py``), all ten at once.

``draw`` writes ``figure_3.png`` and ``figure_3.json``: (a) errors of forces around the training
configuration, (b) errors on the validation configurations, with ``--also`` on those of another file
too, and how many times more configurations training without Hessians needs for the same error,
(c) times until a bond breaks, and drifts of the energy.

FOLDER is ``data`` by default. It may be the folder of the jobs of ``ethanol_dft.py``: what is
there of a set that is not complete is used. All results go to the folder ``--work`` (default:
figure_3); what is there is not made again, with other options neither.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from dynamics import Outcome, run_dynamics
from ethanol_sets import around, records_of, starts
from numpy import ndarray
from trainings import in_words, spread, train_once

import phonopy_equivariant as pe
from phonopy_equivariant.data import Record, read_records, write_records
from phonopy_equivariant.files import write_atomically

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

# equal for all sets, so that equal sizes run one program
MODEL = {
    "species": [1, 6, 8],
    "cutoff": 5.0,
    "num_interactions": 2,
    "hidden_irreps": "16x0e+16x1o+8x2e",
    "l_max": 2,
    "avg_num_neighbors": 8.0,
    "scale": 1.5,
}
HESSIANS = {  # of the loss
    "forces": None,
    "columns": {"weight": 0.02, "estimator": "columns", "samples": 1},
    "pairs": {"weight": 0.02, "estimator": "pairs", "samples": 3},
}
CURVES = ("forces", "columns")
SIZES = (1, 2, 4, 8, 16, 32)
BATCH = 4
DYNAMICS = (4, 16)  # sizes whose potentials are run, if they are trained
DYNAMICS_FILE = "dynamics.json"  # beside the potential
STARTS = 5
COLORS = {"forces": "tab:blue", "columns": "tab:red", "pairs": "tab:orange"}
LABELS = {
    "forces": "energies and forces",
    "columns": "and columns of the Hessian",
    "pairs": "and pairs of the Hessian",
}
MEV = 1000.0


def training_file(data: Path, work: Path, alone: bool) -> tuple[Path, int]:
    """Return a file of the training configurations, or of the first alone, and their number."""
    records = records_of(data, "train")[: 1 if alone else None]
    path = work / "sets" / f"train_{len(records)}{'_first' * alone}.h5"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_records(records, path)
    return path, len(records)


def settings(
    kind: str, path: Path, size: int, seed: int, steps: int, output: Path
) -> dict[str, Any]:
    """Return the settings of one training, as in a training file."""
    loss: dict[str, Any] = {"energy": {"weight": 1}, "forces": {"weight": 10}}
    if HESSIANS[kind] is not None:
        loss["hessian"] = HESSIANS[kind]
    batch = min(size, BATCH)
    return {
        "output": str(output),
        "model": MODEL,
        "sets": [{"path": str(path), "limit": size, "batch_size": batch, "check": "warn"}],
        "loss": loss,
        "steps": steps,
        "seed": seed,
        "optimiser": {"learning_rate": 5e-3, "final": 0.01},
        "validate_every": steps,
        "checkpoint_every": steps,
        "log_every": 50,
    }


def train_all(data: Path, work: Path, seeds: int, steps: int) -> None:
    """Train what is not trained, as far as there are configurations."""
    first, _ = training_file(data, work, alone=True)
    for seed in range(seeds):
        for kind in HESSIANS:
            output = work / f"first_{kind}_{seed}"
            train_once(settings(kind, first, 1, seed, steps, output))
    path, count = training_file(data, work, alone=False)
    for seed in range(seeds):
        for size in (size for size in SIZES if size <= count):
            for kind in CURVES:
                output = work / f"{size}_{kind}_{seed}"
                train_once(settings(kind, path, size, seed, steps, output))


def trained(work: Path, prefix: str, kind: str) -> list[Path]:
    """Return the potentials of all seeds that are trained."""
    folders = sorted(path.parent for path in work.glob(f"{prefix}_{kind}_*/speed.json"))
    return [folder / "last.npz" for folder in folders]


def force_errors(path: Path, records: Sequence[Record], kept: str) -> ndarray:
    """Return the mean absolute error of the forces (eV/Å) of each record."""
    file = path.parent / f"{kept}_{len(records)}.json"
    if not file.exists():
        potential = pe.load_potential(path, dtype="float32")
        evaluations = potential.evaluate_many([record.structure for record in records])
        off = [
            float(np.abs(evaluation.forces - record.forces).mean())
            for evaluation, record in zip(evaluations, records, strict=True)
        ]
        write_atomically(file, json.dumps(off).encode())
    return np.array(json.loads(file.read_text("utf-8")))


def errors_around(data: Path, work: Path) -> dict[str, dict[float, list[float]]]:
    """Return kind -> σ -> errors over seeds, each the mean over the copies."""
    copies = around(data)
    return {
        kind: {
            sigma: [
                float(force_errors(path, records, f"around_{sigma}").mean())
                for path in trained(work, "first", kind)
            ]
            for sigma, records in copies.items()
        }
        for kind in HESSIANS
    }


def learning_curves(
    records: Sequence[Record], work: Path, kept: str
) -> dict[str, dict[int, list[float]]]:
    """Return kind -> number of configurations -> errors over seeds."""
    curves: dict[str, dict[int, list[float]]] = {kind: {} for kind in CURVES}
    for kind in CURVES:
        for size in SIZES:
            paths = trained(work, str(size), kind)
            if paths:
                curves[kind][size] = [
                    float(force_errors(path, records, kept).mean()) for path in paths
                ]
    return curves


def factors(curves: Mapping[str, Mapping[int, Sequence[float]]]) -> dict[int, list[float]]:
    """Return how many times more configurations the same error takes without Hessians.

    For each number of configurations with Hessians, and each seed: the curve of the same seed
    without Hessians, interpolated between its logarithms, is followed to the error with Hessians.
    Infinity stands for an error that it does not reach.
    """
    found: dict[int, list[float]] = {}
    for size, with_hessians in curves["columns"].items():
        for seed, error in enumerate(with_hessians):
            alone = {
                n: errors[seed] for n, errors in curves["forces"].items() if seed < len(errors)
            }
            found.setdefault(size, []).append(_reached(alone, error) / size)
    return found


def _reached(curve: Mapping[int, float], error: float) -> float:
    """Return the size at which a curve of errors over sizes first falls to an error."""
    sizes = sorted(curve)
    if curve[sizes[0]] <= error:
        return float(sizes[0])
    for small, large in zip(sizes[:-1], sizes[1:], strict=True):
        if curve[large] <= error:
            share = np.log(curve[small] / error) / np.log(curve[small] / curve[large])
            return float(small * (large / small) ** share)
    return float("inf")


def run_all(data: Path, work: Path, picoseconds: float) -> None:
    """Run molecular dynamics with the potentials of DYNAMICS, those of all seeds."""
    for name, path in dynamics_of(work):
        file = path.parent / DYNAMICS_FILE
        if not file.exists():
            potential = pe.load_potential(path, dtype="float32")
            outcomes = run_dynamics(potential, starts(data, STARTS), picoseconds)
            content = [outcome._asdict() for outcome in outcomes]
            write_atomically(file, json.dumps(content, indent=1).encode())
            whole = sum(outcome.broken is None for outcome in outcomes)
            print(f"{path.parent.name}: {whole} of {len(outcomes)} whole ({name})", flush=True)


def dynamics_of(work: Path) -> Iterator[tuple[str, Path]]:
    """Yield ``SIZE KIND`` and path of the potentials that molecular dynamics is run with."""
    for size in DYNAMICS:
        for kind in CURVES:
            for path in trained(work, str(size), kind):
                yield f"{size} {kind}", path


def dynamics_results(work: Path) -> dict[str, list[Outcome]]:
    """Return the outcomes of molecular dynamics, of all seeds, by ``SIZE KIND``."""
    results: dict[str, list[Outcome]] = {}
    for name, path in dynamics_of(work):
        file = path.parent / DYNAMICS_FILE
        if file.exists():
            of_run = [Outcome(**each) for each in json.loads(file.read_text("utf-8"))]
            results.setdefault(name, []).extend(of_run)
    return results


def draw(data: Path, work: Path, also: Path | None) -> dict[str, Any]:
    """Draw the three panels; return the numbers."""
    figure, (near, curve, times) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    close = errors_around(data, work)
    for kind, of_kind in close.items():
        if any(of_kind.values()):
            _line(near, kind, of_kind, "-")
    near.set_xlabel("σ of the displacements (Å)")
    near.set_title("(a) around the training configuration")
    sets = {"validation": records_of(data, "validation")}
    if also is not None:
        sets[also.name.split(".")[0]] = read_records(also)
    table: dict[str, Any] = {"around": _words(close)}
    for style, (name, records) in zip(("-", "--"), (s for s in sets.items() if s[1]), strict=False):
        curves = learning_curves(records, work, name)
        for kind, of_kind in curves.items():
            _line(curve, kind, of_kind, style, f", {name}")
        table[name] = _words(curves)
        table[f"{name}: factor"] = {n: _factor_in_words(v) for n, v in factors(curves).items()}
    curve.set_xlabel("training configurations")
    curve.set_title("(b) validation")
    for axes in (near, curve):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("mean absolute error of forces (meV/Å)")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    curve.set_xticks(SIZES, [str(size) for size in SIZES])
    curve.xaxis.set_minor_locator(NullLocator())
    results = dynamics_results(work)
    _draw_times(times, results)
    table["dynamics"] = {name: _dynamics_in_words(each) for name, each in results.items()}
    figure.savefig(work / "figure_3.png", dpi=110)
    write_atomically(
        work / "figure_3.json", json.dumps(table, indent=1, ensure_ascii=False).encode()
    )
    return table


def _line(
    axes: Any, kind: str, errors: Mapping[Any, Sequence[float]], style: str, more: str = ""
) -> None:
    """Draw errors (meV/Å) with the deviation over seeds."""
    places = sorted(errors)
    both = MEV * np.array([spread(errors[place]) for place in places])
    options = {"color": COLORS[kind], "label": LABELS[kind] + more, "fmt": f"o{style}"}
    axes.errorbar(places, both[:, 0], np.nan_to_num(both[:, 1]), ms=3, lw=1, capsize=2, **options)


def _draw_times(axes: Any, results: Mapping[str, Sequence[Outcome]]) -> None:
    """Draw the time until each run breaks, one row for each potential and ensemble."""
    names = []
    for name, outcomes in results.items():
        for ensemble in ("NVE", "NVT"):
            of_ensemble = [o for o in outcomes if o.ensemble == ensemble]
            for whole, marker in ((False, "x"), (True, ">")):
                chosen = [o.picoseconds for o in of_ensemble if (o.broken is None) == whole]
                rows = len(names) + np.linspace(-0.25, 0.25, max(len(chosen), 2))[: len(chosen)]
                color = COLORS[name.split()[1]]
                axes.plot(chosen, rows, marker, color=color, ms=5, ls="none")
            names.append(f"{name}, {ensemble}")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ps until a bond breaks (>: whole to the end)")
    axes.set_title("(c) molecular dynamics, 500 K")


def _words(errors: Mapping[str, Mapping[Any, Sequence[float]]]) -> dict[str, dict[Any, str]]:
    """Return errors in meV/Å with deviations."""
    return {
        kind: {place: in_words(MEV * np.array(v), 1) for place, v in of_kind.items() if v}
        for kind, of_kind in errors.items()
    }


def _factor_in_words(values: Sequence[float]) -> str:
    finite = [value for value in values if np.isfinite(value)]
    if len(finite) < len(values):
        return f"not reached by {len(values) - len(finite)} of {len(values)} seeds"
    return in_words(finite, 1)


def _dynamics_in_words(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """Return, for each ensemble, what became of its runs."""
    words: dict[str, dict[str, Any]] = {}
    for ensemble in ("NVE", "NVT"):
        of_ensemble = [o for o in outcomes if o.ensemble == ensemble]
        whole = [o for o in of_ensemble if o.broken is None]
        broken = [o.broken for o in of_ensemble if o.broken is not None]
        end = max(o.picoseconds for o in outcomes)
        words[ensemble] = {
            "whole": f"{len(whole)} of {len(of_ensemble)} to {end:g} ps",
            "broken after, ps": [round(time, 3) for time in sorted(broken)],
        }
        drifts = [1000 * abs(o.drift) for o in whole if o.drift is not None]
        if ensemble == "NVE" and drifts:
            words[ensemble]["|drift|, µeV/atom/ps"] = in_words(drifts, 3)
    return words


def main() -> None:
    """Train, run molecular dynamics, or draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("train", "dynamics", "draw"))
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data")
    parser.add_argument("--also", type=Path, help="a second file to validate on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--picoseconds", type=float, default=100.0)
    parser.add_argument("--work", type=Path, default=Path("figure_3"))
    options = parser.parse_args()
    if not records_of(options.data, "train"):
        raise SystemExit(
            f"{options.data}: no training configuration of ethanol; see ethanol_dft.py."
        )
    if options.action == "train":
        train_all(options.data, options.work, options.seeds, options.steps)
    elif options.action == "dynamics":
        run_all(options.data, options.work, options.picoseconds)
    else:
        print(json.dumps(draw(options.data, options.work, options.also), indent=1))


if __name__ == "__main__":
    main()

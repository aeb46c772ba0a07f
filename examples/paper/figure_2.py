"""Fig. 2 of arXiv:2403.11347: a potential taken from one functional to another, PBE to PBEsol.

    python figure_2.py train --data FOLDER [--only forces phi ...] [--seeds 2] [--steps 40]
    python figure_2.py draw --data FOLDER

``train`` fine-tunes a published potential of PBE on PBEsol data of all crystals of CRYSTALS except
one, which is left out, for each crystal, each seed and each kind of data:

forces      forces of the displaced supercells
phi         Φ(q) of the primitive cells, from the same forces, by the Bloch response
both        forces and Φ(q)
phi-alone   Φ(q) without replay

Except in ``phi-alone`` every update also sees a replayed structure: copies of PBE crystals that the
recipe "table-1" makes (Table 1 of the paper's supplement), labelled by the potential before
fine-tuning. Every crystal counts by its relative error: its loss is divided by the mean square of
its labels. Potentials and errors go to the folder ``--work`` (default: figure_2); what is there is
not made again.

``draw`` collects the error of D(q), as ``phonopy-equivariant evaluate`` defines it, before and
after fine-tuning: of the crystal left out, of three larger ones that are never trained on, and of
PBE crystals that are in no set (forgetting). It writes ``figure_2.png``,
``figure_2_histogram.png`` and ``figure_2.json``.

FOLDER has a folder for each crystal, named as in CRYSTALS, NEVER and PBE, with phonopy's
``phonopy_params.yaml.xz``: displaced supercells with forces of DFT. They are published with phonopy
(https://github.com/phonopy/phonopy, folder example) and, for SrTiO3, with alamode
(https://github.com/ttadano/alamode) and are not part of this repository. The potential is
nequix-mp-1-pft (``phonopy-equivariant models``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from ase.build import bulk
from trainings import in_words, spread, train_once

import phonopy_equivariant as pe
from phonopy_equivariant.data import Record, read_records, write_records
from phonopy_equivariant.data.perturb import recipe_records
from phonopy_equivariant.data.recipes import filter_records
from phonopy_equivariant.evaluation.figures import draw_error_histogram
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.structure import as_structure

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

START = "nequix-mp-1-pft"
CRYSTALS = ("Si_PBEsol", "ZnTe", "SrTiO3_PBEsol_222")  # PBEsol, left out in turn
NEVER = ("SnO2", "AlN_PBEsol_442", "Al2O3")  # PBEsol, in no set: updates with them are slow
PBE = ("MgO", "NaCl", "Si_PBE", "MgB2", "CaTiO3_cubic", "SiO2_stishovite")
# replayed: structure type and lattice constant (Å) of crystals that are in no other list
REPLAYED = {
    "GaAs": ("zincblende", 5.75),
    "AlP": ("zincblende", 5.51),
    "KCl": ("rocksalt", 6.39),
    "CaO": ("rocksalt", 4.84),
}
RATE = 1e-5  # at 1e-4 errors of replayed forces rise to 0.4 eV/Å within ten updates
IN_THE_SET = ", in the set"
KINDS = ("forces", "phi", "both", "phi-alone")
LABELS = {
    "forces": "forces",
    "phi": "Φ(q)",
    "both": "forces and Φ(q)",
    "phi-alone": "Φ(q), no replay",
}
COLORS = dict(zip(KINDS, ("tab:orange", "tab:red", "tab:purple", "tab:pink"), strict=True))


class Trained(NamedTuple):
    """One fine-tuning."""

    kind: str
    left_out: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder and of its file of errors."""
        return f"{self.kind}_{self.left_out}_{self.seed}"


def reference(data: Path, name: str) -> Path:
    """Return the file with the displaced supercells of a crystal."""
    path = data / name / "phonopy_params.yaml.xz"
    if not path.exists():
        raise SystemExit(f"{path} is missing; --data FOLDER: see the head of figure_2.py.")
    return path


def labelled(data: Path, work: Path, name: str, kind: str) -> tuple[Path, float]:
    """Return a file with forces, or with Φ(q), of a crystal, and the weight of its set."""
    path = work / "sets" / f"{name}_{kind}.h5"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"kind": "force_constants", "produce_force_constants": True}
        if kind == "forces":
            options = {"kind": "forces"}
        write_records(read_records(reference(data, name), level="PBEsol", **options), path)
    return path, 1 / mean_square(read_records(path))


def mean_square(records: Sequence[Record]) -> float:
    """Return the mean square of what the loss compares: forces, or ‖Φ(q)‖²/n."""
    squares = []
    for record in records:
        if record.force_constants is not None:
            values = record.force_constants.values
            atoms = len(record.structure.numbers)
            squares.append(np.sum(np.abs(values) ** 2) / (atoms * len(values)))
        elif record.forces is not None:
            squares.append(np.sum(record.forces**2, axis=1).mean())
    return float(np.mean(squares))


def replay(work: Path) -> tuple[Path, float]:
    """Return a file of perturbed PBE crystals, labelled by the potential before fine-tuning."""
    path = work / "sets" / "replay.h5"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        potential = pe.load_potential(START)
        records = [
            record
            for seed, (name, (kind, constant)) in enumerate(REPLAYED.items())
            for part, record in recipe_records(
                as_structure(bulk(name, kind, a=constant)), "table-1", seed, potential, name
            )
            if part == "train"
        ]
        write_records(filter_records(records), path)  # forces above 5 eV/Å left out
    return path, 1 / mean_square(read_records(path))


def settings(which: Trained, steps: int, data: Path, work: Path) -> dict[str, Any]:
    """Return the settings of one fine-tuning, as in a training file."""
    sets: list[dict[str, Any]] = []
    labels = {"forces": ["forces"], "both": ["forces", "hessian"]}.get(which.kind, ["hessian"])
    for crystal in CRYSTALS:
        for term in labels if crystal != which.left_out else ():
            path, weight = labelled(data, work, crystal, "forces" if term == "forces" else "phi")
            options = {"weight": weight, "batch_size": 1, "check": "warn"}
            sets.append({"path": str(path), "terms": [term], **options})
    if which.kind != "phi-alone":
        path, weight = replay(work)
        sets.append({"path": str(path), "terms": ["forces"], "weight": weight, "batch_size": 1})
    terms = {term: {"weight": 1} for each in sets for term in each["terms"]}
    if "hessian" in terms:
        terms["hessian"]["qpoints"] = 1
    return {
        "output": str(work / which.name),
        "finetune_from": START,
        "energies": "keep",
        "sets": sets,
        "loss": terms,
        "steps": steps,
        "seed": which.seed,
        "optimiser": {"learning_rate": RATE, "warmup_steps": 10, "final": 0.1, "ema": 0.9},
        "validate_every": steps,
        "checkpoint_every": steps,
        "log_every": 10,
    }


def errors(which: Trained | None, data: Path, work: Path) -> dict[str, dict[str, float]]:
    """Return the errors of a potential, of D(q) and frequencies (THz), by crystal.

    None stands for the potential before fine-tuning.
    """
    kept = work / ("before.json" if which is None else f"{which.name}.json")
    table: dict[str, dict[str, float]] = {}
    if kept.exists():
        table = json.loads(kept.read_text("utf-8"))
    missing = [name for name in (*CRYSTALS, *NEVER, *PBE) if name not in table]
    if missing:
        potential = pe.load_potential(START if which is None else work / which.name / "last.npz")
        result = pe.evaluate([reference(data, name) for name in missing], potential)
        if result.failures:
            raise SystemExit("\n".join(f"{f.name}: {f.reason}" for f in result.failures))
        table |= {
            comparison.name: {
                "D(q)": comparison.matrix_error,
                "frequencies, THz": comparison.frequency_error,
            }
            for comparison in result.comparisons
        }
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps(table, indent=1).encode())
    return table


def all_trained(work: Path) -> Iterator[Trained]:
    """Yield the fine-tunings that are done, by kind."""
    for kind in KINDS:
        for crystal in CRYSTALS:
            for path in sorted(work.glob(f"{kind}_{crystal}_*/speed.json")):
                yield Trained(kind, crystal, int(path.parent.name.rsplit("_", 1)[1]))


def collected(data: Path, work: Path, quantity: str) -> dict[str, dict[str, list[float]]]:
    """Return kind -> crystal -> errors over seeds.

    ``CRYSTAL`` of CRYSTALS is its error when it is left out, ``CRYSTAL, in the set`` the mean of
    those when another one is; errors of crystals in no set are means over the crystals left out.
    """
    by_seed: dict[str, dict[str, dict[int, list[float]]]] = {}
    for which in all_trained(work):
        for crystal, values in errors(which, data, work).items():
            trained_on = crystal in CRYSTALS and crystal != which.left_out
            name = f"{crystal}{IN_THE_SET * trained_on}"
            place = by_seed.setdefault(which.kind, {}).setdefault(name, {})
            place.setdefault(which.seed, []).append(values[quantity])
    return {
        kind: {
            crystal: [float(np.mean(values)) for _, values in sorted(seeds.items())]
            for crystal, seeds in crystals.items()
        }
        for kind, crystals in by_seed.items()
    }


def points(axes: Any, names: Sequence[str], before: dict[str, Any], after: dict[str, Any]) -> None:
    """Draw errors of D(q) of crystals before and after, deviations over seeds as lines."""
    places = np.arange(len(names))
    old = [100 * before[name.removesuffix(IN_THE_SET)]["D(q)"] for name in names]
    axes.plot(places - 0.3, old, "s", color="black", label="before")
    for k, (kind, of_kind) in enumerate(after.items()):
        both = 100 * np.array([spread(of_kind.get(name, [np.nan])) for name in names])
        options = {"fmt": "o", "capsize": 2, "color": COLORS[kind], "label": LABELS[kind]}
        axes.errorbar(places - 0.1 + 0.15 * k, both[:, 0], np.nan_to_num(both[:, 1]), **options)
    axes.set_xticks(places, [name.replace(",", "_").split("_")[0] for name in names])
    axes.set_xlim(-0.6, len(names) - 0.3)
    axes.grid(axis="y", lw=0.5)


def draw(data: Path, work: Path) -> dict[str, Any]:
    """Draw the errors before and after; return their table."""
    before = errors(None, data, work)
    after = collected(data, work, "D(q)")
    options = {"layout": "constrained", "sharey": True, "width_ratios": (1, 2, 2)}
    figure, panels = plt.subplots(1, 3, figsize=(12, 4), **options)
    inside = [f"{name}{IN_THE_SET}" for name in CRYSTALS]
    titles = ("PBEsol, in the set", "PBEsol, not in the set", "PBE, not in the set")
    for axes, title, names in zip(panels, titles, (inside, [*CRYSTALS, *NEVER], PBE), strict=True):
        points(axes, names, before, after)
        axes.set_title(title)
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[0].yaxis.set_major_formatter("{x:g}")
    panels[0].yaxis.set_minor_locator(NullLocator())
    panels[0].set_ylabel("error of D(q), %")
    panels[2].legend(fontsize=8)
    figure.savefig(work / "figure_2.png", dpi=100)
    histograms(before, after, work)
    names = [*CRYSTALS, *NEVER, *PBE]
    table: dict[str, Any] = {"D(q)": _rows(before, after, names, "D(q)")}
    table["frequencies, THz"] = _rows(
        before, collected(data, work, "frequencies, THz"), names, "frequencies, THz"
    )
    write_atomically(work / "figure_2.json", json.dumps(table, indent=1).encode())
    return table


def _rows(
    before: dict[str, Any], after: dict[str, Any], names: Sequence[str], quantity: str
) -> dict[str, dict[str, str]]:
    """Return crystal -> kind -> error with its deviation over seeds, and means of the groups."""
    inside = tuple(f"{name}{IN_THE_SET}" for name in CRYSTALS)
    groups = {"mean, in the set": inside, "mean, left out": CRYSTALS}
    groups |= {"mean, PBEsol in no set": NEVER, "mean, PBE": PBE}
    rows = {}
    for name, members in {**{name: (name,) for name in names}, **groups}.items():
        old = [before[member.removesuffix(IN_THE_SET)][quantity] for member in members]
        rows[name] = {"before": f"{np.mean(old):.4f}"}
        for kind, of_kind in after.items():
            values = [of_kind[m] for m in members if m in of_kind]
            if len(values) == len(members) and len({len(v) for v in values}) == 1:
                rows[name][kind] = in_words(np.mean(values, axis=0), 4)
    return rows


def histograms(before: dict[str, Any], after: dict[str, Any], work: Path) -> None:
    """Draw histograms of the errors of the PBEsol crystals, tertiles shaded."""
    names = [*CRYSTALS, *NEVER]
    panels = {"before": [before[name]["D(q)"] for name in names]}
    for kind, of_kind in after.items():
        if set(names) <= set(of_kind):
            panels[LABELS[kind]] = [float(np.mean(of_kind[name])) for name in names]
    size = (6, 1.3 * len(panels))
    figure, axes = plt.subplots(
        len(panels), 1, figsize=size, layout="constrained", sharex=True, squeeze=False
    )
    for axis, (title, values) in zip(axes[:, 0], panels.items(), strict=True):
        draw_error_histogram(axis, 100 * np.array(values))
        axis.set_title(title, fontsize=9)
    for axis in axes[:-1, 0]:
        axis.set_xlabel("")
    figure.savefig(work / "figure_2_histogram.png", dpi=100)


def main() -> None:
    """Train, or draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("train", "draw"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the crystals")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--left-out", nargs="+", choices=CRYSTALS, default=CRYSTALS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--work", type=Path, default=Path("figure_2"))
    options = parser.parse_args()
    if options.action == "draw":
        print(json.dumps(draw(options.data, options.work), indent=1))
        return
    for name in (*CRYSTALS, *NEVER, *PBE):
        reference(options.data, name)  # before anything is computed
    for seed in range(options.seeds):
        for left_out in options.left_out:
            for kind in options.only:
                which = Trained(kind, left_out, seed)
                train_once(settings(which, options.steps, options.data, options.work))
                errors(which, options.data, options.work)


if __name__ == "__main__":
    main()

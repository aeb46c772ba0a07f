"""Models of mace-torch with random weights, one for each thing to be converted, and structures.

    python tests/mace_zoo.py

writes checkpoints of some of them and a file of mace-torch itself, with what mace-torch computes,
to tests/data/mace: the suite then checks parity without torch. Everything that imports torch is
inside functions.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from phonopy_equivariant.structure import Structure, to_ase

FOLDER = Path(__file__).parent / "data" / "mace"

RESIDUAL = "RealAgnosticResidualInteractionBlock"
DENSITY = "RealAgnosticDensityInteractionBlock"
DENSITY_RESIDUAL = "RealAgnosticDensityResidualInteractionBlock"
NONLINEAR = "RealAgnosticResidualNonLinearInteractionBlock"

CASES: dict[str, dict[str, Any]] = {
    "one layer, invariant, linear": {
        "layers": 1,
        "hidden": "4x0e",
        "l_max": 1,
        "correlation": 1,
        "first": RESIDUAL,
        "species": (14,),
    },
    "plain then residual": {"hidden": "4x0e+4x1o", "species": (17, 11)},
    "three orders": {
        "hidden": "4x0e+4x1o+4x2e",
        "l_max": 3,
        "correlation": 3,
        "first": RESIDUAL,
    },
    "one layer of three orders": {"layers": 1, "hidden": "4x0e", "l_max": 3, "correlation": 3},
    "density, Agnesi, ZBL": {
        "first": DENSITY,
        "inter": DENSITY_RESIDUAL,
        "correlation": [3, 2],
        "distance_transform": "Agnesi",
        "pair_repulsion": True,
        "species": (1, 6, 7, 8, 16),
    },
    "nonlinear": {
        "first": NONLINEAR,
        "inter": NONLINEAR,
        "apply_cutoff": False,
        "readout": "NonLinearBiasReadoutBlock",
        "use_agnostic_product": True,
    },
    "nonlinear, fewer messages": {
        "hidden": "6x0e+6x1o",
        "first": DENSITY,
        "inter": NONLINEAR,
        "edge_irreps": "3x0e+2x1o",
    },
    "two heads, soft": {
        "heads": ["pbe", "r2scan"],
        "first": DENSITY,
        "inter": DENSITY_RESIDUAL,
        "distance_transform": "Soft",
        "apply_cutoff": False,
        "readout": "NonLinearBiasReadoutBlock",
        "species": (22, 8, 38, 56),
    },
    "two heads, last readout, tanh": {
        "heads": ["pbe", "r2scan"],
        "use_last_readout_only": True,
        "gate": "tanh",
    },
    "no scale, three layers": {
        "scaled": False,
        "layers": 3,
        "correlation": [2, 1, 2],
        "pair_repulsion": True,
    },
    # made with cuequivariance only
    "reduced couplings": {
        "hidden": "4x0e+4x1o",
        "correlation": 3,
        "first": RESIDUAL,
        "use_reduced_cg": True,
    },
    "fourth order": {"layers": 1, "hidden": "2x0e", "l_max": 2, "correlation": 4},
}
# those whose checkpoints are part of the repository
COMMITTED = (
    "one layer, invariant, linear",
    "three orders",
    "density, Agnesi, ZBL",
    "nonlinear",
    "two heads, soft",
)
HEAD = "r2scan"
# one whose file is part of the repository as mace-torch writes it, without compiled code
AS_WRITTEN = "plain then residual"


def species_of(name: str) -> tuple[int, ...]:
    return CASES[name].get("species", (8, 11, 17))


def head_of(name: str) -> str | None:
    return HEAD if "heads" in CASES[name] else None


def crystal_of(name: str) -> Structure:
    """Five atoms without symmetry in a skewed cell."""
    rng = np.random.default_rng(3)
    cell = np.array([[3.9, 0.0, 0.0], [0.7, 4.1, 0.0], [-0.4, 0.9, 3.3]])
    fractions = np.array(
        [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5], [0.45, 0.55, 0.5]]
    )
    positions = fractions @ cell + rng.uniform(-0.15, 0.15, (5, 3))
    return Structure(np.resize(species_of(name), 5), positions, cell, np.ones(3, bool))


def molecule_of(name: str) -> Structure:
    positions = np.array(
        [[0.0, 0.0, 0.0], [1.3, 0.1, 0.0], [-0.4, 1.2, 0.3], [0.2, -0.5, 1.4], [1.6, 1.1, 0.9]]
    )
    return Structure(np.resize(species_of(name), 5), positions, np.zeros((3, 3)), np.zeros(3, bool))


def build(name: str) -> Any:
    """Return the torch model, every parameter moved away from where it starts."""
    import mace  # noqa: F401  # before e3nn
    import torch
    from e3nn import o3
    from mace import modules

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(7)
    case = dict(CASES[name])
    species = sorted(species_of(name))
    case.pop("species", None)
    heads = case.pop("heads", None)
    count = len(heads or [0])
    rng = np.random.default_rng(0)
    energies = rng.normal(size=(count, len(species)))
    settings = {
        "r_max": 3.5,
        "num_bessel": 5,
        "num_polynomial_cutoff": 5,
        "max_ell": case.pop("l_max", 2),
        "interaction_cls_first": modules.interaction_classes[
            case.pop("first", "RealAgnosticInteractionBlock")
        ],
        "interaction_cls": modules.interaction_classes[case.pop("inter", RESIDUAL)],
        "num_interactions": case.pop("layers", 2),
        "num_elements": len(species),
        "hidden_irreps": o3.Irreps(case.pop("hidden", "4x0e+4x1o")),
        "MLP_irreps": o3.Irreps("6x0e"),
        "atomic_energies": energies if heads else energies[0],
        "avg_num_neighbors": 7.3,
        "atomic_numbers": species,
        "correlation": case.pop("correlation", 2),
        "gate": modules.gate_dict[case.pop("gate", "silu")],
        "radial_MLP": [10, 9],
        "heads": heads,
        "readout_cls": modules.readout_classes[case.pop("readout", "NonLinearReadoutBlock")],
    }
    if case.pop("scaled", True):
        settings["atomic_inter_scale"] = [0.8, 1.3] if heads else 0.8
        settings["atomic_inter_shift"] = [0.1, -0.2] if heads else 0.1
        kind = modules.ScaleShiftMACE
    else:
        kind = modules.MACE
    if "edge_irreps" in case:
        case["edge_irreps"] = o3.Irreps(case["edge_irreps"])
    model = kind(**settings, **case)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def torch_values(model: Any, structure: Structure, head: str | None) -> dict[str, np.ndarray]:
    """Return energy, forces, stress and Hessian of mace-torch's calculator."""
    from mace.calculators import MACECalculator

    options = {"head": head} if head else {}
    calculator = MACECalculator(models=[model], device="cpu", default_dtype="float64", **options)
    atoms = to_ase(structure)
    atoms.calc = calculator
    size = 3 * len(atoms)
    values = {
        "energy": np.array(atoms.get_potential_energy()),
        "forces": atoms.get_forces(),
        # get_hessian has shape (3N, N, 3)
        "hessian": np.asarray(calculator.get_hessian(atoms)).reshape(size, size),
    }
    if structure.pbc.all():
        values["stress"] = atoms.get_stress(voigt=False)
    return values


def slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "_").lower()


def saved(model: Any) -> bytes:
    """Return the file that mace-torch writes of a model."""
    import torch

    file = io.BytesIO()
    torch.save(model, file)
    return file.getvalue()


def squeeze(content: bytes) -> bytes:
    """Compress the members of an archive, which torch does not, and leave out compiled code.

    TorchScript keeps the source it was made from, with places on the computer.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            member = old.read(name)
            if "/code/" in name:
                continue
            if name.endswith("/data.pkl"):
                member = _with_small_archives(member)
            new.writestr(zipfile.ZipInfo(name), member, zipfile.ZIP_LZMA)
    return file.getvalue()


def _with_small_archives(program: bytes) -> bytes:
    """Squeeze the archives that a pickle of protocol 2 holds as text."""
    pieces, steps = [], list(pickletools.genops(program))
    ends = [position for _, _, position in steps[1:]] + [len(program)]
    for (opcode, argument, start), end in zip(steps, ends, strict=True):
        piece = program[start:end]
        if opcode.name == "BINUNICODE" and argument.startswith("PK"):
            text = squeeze(argument.encode("latin1")).decode("latin1").encode("utf-8")
            piece = b"X" + struct.pack("<I", len(text)) + text
        pieces.append(piece)
    return b"".join(pieces)


def main() -> None:
    from phonopy_equivariant.checkpoints.mace_torch.model import read_mace
    from phonopy_equivariant.checkpoints.native import save_checkpoint
    from phonopy_equivariant.potential import make_potential

    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in (*COMMITTED, AS_WRITTEN):
        model = build(name)
        if name == AS_WRITTEN:
            (FOLDER / f"{slug(name)}.model").write_bytes(squeeze(saved(model)))
        else:
            potential = make_potential(*read_mace(saved(model), head_of(name)), name=name)
            save_checkpoint(potential, FOLDER / f"{slug(name)}.npz")
        values = {}
        for kind, structure in (("crystal", crystal_of(name)), ("molecule", molecule_of(name))):
            computed = torch_values(model, structure, head_of(name))
            values |= {f"{kind}_{key}": value for key, value in computed.items()}
        np.savez(FOLDER / f"{slug(name)}_values.npz", **values)


if __name__ == "__main__":
    main()

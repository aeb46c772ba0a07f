"""Models of the nequip framework with random weights, one for each thing to be converted.

    python tests/nequip_zoo.py

writes training checkpoints and packages of them, with what nequip computes, to tests/data/nequip:
the suite then checks parity without torch. Everything that imports torch or nequip is inside
functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase.neighborlist import primitive_neighbor_list
from mace_zoo import squeeze
from sevennet_zoo import crystal_of

from phonopy_equivariant.structure import Structure

FOLDER = Path(__file__).parent / "data" / "nequip"
SYMBOLS = ("Na", "Cl", "O")

CASES: dict[str, dict[str, Any]] = {
    "natural": {
        "l_max": 2,
        "parity": False,
        "num_features": [5, 3, 2],
        "type_embed_num_features": 3,
        "avg_num_neighbors": 5.0,
        "per_type_energy_scales": 20.0,
        "average": True,
    },
    "everything": {
        "l_max": 1,
        "parity": True,
        "num_layers": 3,
        "num_features": 3,
        "bessel_trainable": True,
        "polynomial_cutoff_p": 5,
        "avg_num_neighbors": {"Na": 3.0, "Cl": 4.0, "O": 2.0},
        "per_type_energy_scales": {"Na": 16.0, "Cl": 26.0, "O": 12.0},
        "readout_mlp_hidden_layers_depth": 1,
        "readout_mlp_hidden_layers_width": 5,
        "per_edge_type_cutoff": {"Na": 3.0, "O": {"Cl": 2.9, "Na": 3.2}},
        "pair_potential": {
            "_target_": "nequip.nn.pair_potential.ZBL",
            "units": "metal",
            "chemical_species": list(SYMBOLS),
            "polynomial_cutoff_p": 5.0,
        },
    },
    "one_layer": {
        "l_max": 2,
        "parity": False,
        "num_layers": 1,
        "num_features": [4, 3, 2],
        "avg_num_neighbors": 4.0,
    },
    # the fewest layers in which odd scalars stand between even ones and gates
    "odd_scalars": {
        "l_max": 1,
        "parity": True,
        "num_layers": 4,
        "num_features": 2,
        "avg_num_neighbors": 4.0,
    },
}


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.ckpt"


def package_of(name: str) -> Path:
    return FOLDER / f"{name}.nequip.zip"


def config_of(name: str) -> dict[str, Any]:
    """Return the part of a training's configuration that describes the model."""
    case = {key: value for key, value in CASES[name].items() if key != "average"}
    return {
        "_target_": "nequip.model.NequIPGNNModel",
        "seed": 1,
        "model_dtype": "float64",
        "r_max": 3.5,
        "type_names": list(SYMBOLS),
        "num_layers": 2,
        "radial_mlp_depth": 1,
        "radial_mlp_width": 6,
        "num_bessels": 4,
        "per_type_energy_shifts": {"Na": -1.5, "Cl": 0.3, "O": -0.7},
        "do_derivatives": False,
    } | case


def random_model(name: str) -> Any:
    """Return the torch model, every parameter moved away from where it starts."""
    import torch
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    config = config_of(name)
    config.pop("_target_")
    model = NequIPGNNModel(compile_mode="eager", **config)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def original_values(model: Any, structure: Structure) -> dict[str, np.ndarray]:
    """Return energy, forces, stress and Hessian of a model by torch's derivatives."""
    import torch

    i, j, shifts = primitive_neighbor_list(
        "ijS", structure.pbc, structure.cell, structure.positions, 3.5
    )
    positions = torch.tensor(structure.positions, requires_grad=True)
    strain = torch.zeros((3, 3), dtype=torch.float64, requires_grad=True)
    deform = torch.eye(3, dtype=torch.float64) + (strain + strain.T) / 2
    numbers = {11: 0, 17: 1, 8: 2}
    data = {
        "pos": positions @ deform,
        "cell": (torch.tensor(structure.cell) @ deform)[None],
        "edge_index": torch.tensor(np.stack([i, j])),
        "edge_cell_shift": torch.tensor(shifts.astype(float)),
        "atom_types": torch.tensor([numbers[int(z)] for z in structure.numbers]),
    }
    energy = model(data)["total_energy"].sum()
    gradient, virial = torch.autograd.grad(energy, (positions, strain), create_graph=True)
    rows = [
        torch.autograd.grad(x, positions, retain_graph=True)[0].reshape(-1)
        for x in gradient.reshape(-1)
    ]
    return {
        "energy": energy.numpy(force=True),
        "forces": -gradient.numpy(force=True),
        "stress": virial.numpy(force=True) / abs(np.linalg.det(structure.cell)),
        "hessian": torch.stack(rows).numpy(force=True),
    }


def write(name: str, path: Path) -> Any:
    """Write a checkpoint as a training of nequip does, and return the model.

    With a moving average the weights of the model itself are other ones.
    """
    import torch

    model = random_model(name)
    state = {f"model.sole_model.{key}": value for key, value in model.state_dict().items()}
    if CASES[name].get("average"):
        for k, (key, parameter) in enumerate(model.named_parameters()):
            state[f"ema.ema_weight_{k}"] = parameter.detach().clone()
            state[f"model.sole_model.{key}"] = parameter.detach() + 1.0
        state["ema._extra_state"] = {"is_holding_ema_weights": True}
    state["run_stage"] = torch.zeros(1)
    hyper_parameters = {"model": config_of(name), "info_dict": {"versions": {"nequip": "0.19.0"}}}
    torch.save({"state_dict": state, "hyper_parameters": hyper_parameters, "epoch": 1}, path)
    return model


def write_package(model: Any, path: Path) -> None:
    """Write a package as ``nequip-package build`` does, without the source code of nequip."""
    import torch

    models = torch.nn.ModuleDict({"sole_model": model})
    with torch.package.PackageExporter(path) as exporter:
        exporter.extern("**")
        exporter.save_pickle("model", "eager_model.pkl", models)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        case_model = write(case, path_of(case))
        write_package(case_model, package_of(case))
        package_of(case).write_bytes(squeeze(package_of(case).read_bytes()))
        values = original_values(case_model, crystal_of())
        np.savez(path_of(case).with_suffix(".npz"), **values)
        print(case, values["energy"], np.abs(values["forces"]).max())

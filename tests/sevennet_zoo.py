"""Models of SevenNet with random weights, one for each thing to be converted.

    python tests/sevennet_zoo.py

writes their checkpoints as SevenNet does, with what its own modules compute from them in double
precision, to tests/data/sevennet: the suite then checks parity without torch. Everything that
imports torch or sevenn is inside functions.
"""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
from ase.neighborlist import primitive_neighbor_list
from mace_zoo import slug

from phonopy_equivariant.structure import Structure

FOLDER = Path(__file__).parent / "data" / "sevennet"
SPECIES = ("O", "Na", "Cl")  # in SevenNet by name: Cl, Na, O
MODALITIES = {"R2SCAN": 0, "PBE": 1}

XPLOR = {"cutoff_function_name": "XPLOR", "cutoff_on": 2.6}
CASES: dict[str, dict[str, Any]] = {
    # as the files of 2024: names with blanks, paths in the order they were made, one coupling
    # with the other sign, r^l in the harmonics
    "old names, solid harmonics": {
        "version": "0.9.1",
        "irreps_manual": ["6x0e", "6x0e+3x1e+2x2e", "6x0e+3x1e+2x2e", "6x0e"],
        "lmax": 2,
        "num_convolution_layer": 3,
        "cutoff_function": XPLOR,
        "_normalize_sph": False,
        "old": True,
    },
    "three degrees, linear skips": {
        "irreps_manual": ["5x0e", "4x0e+3x1e+2x2e+2x3e", "4x0e"],
        "lmax": 3,
        "cutoff_function": {"cutoff_function_name": "poly_cut", "poly_cut_p_value": 6},
    },
    "modalities": {
        "irreps_manual": ["4x0e", "4x0e+3x1e", "4x0e"],
        "lmax": 1,
        "cutoff_function": XPLOR,
        "modalities": True,
        "use_bias_in_linear": True,
    },
    "parity, skips of species, scales of species": {
        "channel": 2,
        "lmax": 2,
        "num_convolution_layer": 3,
        "is_parity": True,
        "self_connection_type": ["nequip", "linear", "nequip"],
        "cutoff_function": {"cutoff_function_name": "poly_cut", "poly_cut_p_value": 5},
        "scale": [16.0, 26.0, 12.0],
    },
    "readout network": {
        "channel": 3,
        "lmax": 1,
        "lmax_edge": 2,
        "radial_basis": {
            "radial_basis_name": "bessel",
            "bessel_basis_num": 4,
            "trainable_coeff": False,
        },
        "cutoff_function": {"cutoff_function_name": "poly_cut", "poly_cut_p_value": 6},
        "readout_as_fcn": True,
        "readout_fcn_hidden_neurons": [5, 4],
        "readout_fcn_activation": "silu",
    },
}


def path_of(name: str) -> Path:
    return FOLDER / f"{slug(name)}.pth"


def modality_of(name: str) -> str | None:
    return "PBE" if CASES[name].get("modalities") else None


def crystal_of(numbers: tuple[int, ...] = (11, 17, 8, 17, 11), size: float = 1.0) -> Structure:
    """Five atoms without symmetry in a skewed cell."""
    rng = np.random.default_rng(3)
    cell = size * np.array([[3.9, 0.0, 0.0], [0.7, 4.1, 0.0], [-0.4, 0.9, 3.3]])
    fractions = np.array(
        [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5], [0.45, 0.55, 0.5]]
    )
    positions = fractions @ cell + rng.uniform(-0.15, 0.15, (5, 3))
    return Structure(np.array(numbers), positions, cell, np.ones(3, bool))


def config_of(name: str) -> dict[str, Any]:
    """Return a configuration as SevenNet writes it into checkpoints."""
    case = dict(CASES[name])
    case.pop("old", None)
    modal = case.pop("modalities", False)
    symbols = sorted(SPECIES)
    numbers = {"Cl": 17, "Na": 11, "O": 8}
    config: dict[str, Any] = {
        "version": "0.13.0",
        "_model_type": "E3_equivariant_model",
        "chemical_species": symbols,
        "_number_of_species": len(symbols),
        "_type_map": {numbers[symbol]: place for place, symbol in enumerate(symbols)},
        "act_gate": {"e": "silu", "o": "tanh"},
        "act_scalar": {"e": "silu", "o": "tanh"},
        "act_radial": "silu",
        "irreps_manual": False,
        "channel": 4,
        "lmax_edge": -1,
        "lmax_node": -1,
        "is_parity": False,
        "radial_basis": {"radial_basis_name": "bessel", "bessel_basis_num": 5},
        "cutoff": 3.5,
        "num_convolution_layer": 2,
        "weight_nn_hidden_neurons": [7, 7],
        "train_shift_scale": False,
        "train_denominator": False,
        "use_bias_in_linear": False,
        "readout_as_fcn": False,
        "self_connection_type": "linear",
        "interaction_type": "nequip",
        "conv_denominator": 1.5,
        "_normalize_sph": True,
        "shift": [-1.5, 0.3, -0.7],
        "scale": 20.0,
    } | case
    if modal:
        parts = ("node_embedding", "self_inter_intro", "self_inter_outro", "output_block")
        config |= {f"use_modal_{part}": True for part in parts} | {
            "use_modality": True,
            "_modal_map": MODALITIES,
            "_number_of_modalities": 2,
            "use_modal_wise_shift": True,
            "use_modal_wise_scale": False,
            "shift": [[-1.5, 0.3, -0.7], [-1.1, 0.2, -0.6]],
            "scale": [18.0, 22.0, 14.0],
        }
    return config


def build(config: dict[str, Any]) -> Any:
    """Return the model that SevenNet makes of a configuration, in double precision."""
    import copy

    import sevenn._const as constants
    import torch
    from sevenn.model_build import build_E3_equivariant_model

    torch.set_default_dtype(torch.float64)
    defaults = copy.deepcopy(constants.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG)
    model = build_E3_equivariant_model(defaults | copy.deepcopy(config)).double()
    model.set_is_batch_data(False)
    return model


def random_model(name: str) -> Any:
    """Return a case's model, every parameter moved away from where it starts."""
    import torch

    torch.manual_seed(7)
    model = build(config_of(name))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            spread = 0.02 if "denominator" in key else 0.1
            parameter += spread * torch.randn_like(parameter)
    return model


def old_state(model: Any) -> dict[str, Any]:
    """Return a state dictionary as SevenNet 0.9 wrote it."""
    state = collections.OrderedDict(model.state_dict())
    for name, module in model.named_children():
        if not name.endswith("_convolution"):
            continue
        made = module._instructions_before_sort  # (input, edge, output, ...)
        widths = [module.convolution_kwargs["irreps_in1"][i[0]].mul for i in made]
        order = sorted(range(len(made)), key=lambda k: made[k][2])  # today's
        last = f"{name}.weight_nn.layer{len(module.weight_nn.hs) - 2}.weight"
        blocks = dict(zip(order, state[last].split([widths[k] for k in order], dim=1), strict=True))
        coupling = f"{name}.convolution._compiled_main_left_right._w3j_1_1_1"
        for k, instruction in enumerate(made):
            degrees = [
                module.convolution_kwargs[part][place].ir.l
                for part, place in zip(
                    ("irreps_in1", "irreps_in2", "irreps_out"), instruction[:3], strict=True
                )
            ]
            if degrees == [1, 1, 1] and coupling in state:
                blocks[k] = -blocks[k]
        if coupling in state:
            state[coupling] = -state[coupling]
        state[last] = blocks[0].new_tensor(
            np.concatenate([blocks[k].numpy(force=True) for k in range(len(made))], axis=1)
        )
    return {_old_name(key): value for key, value in state.items()}


def _old_name(key: str) -> str:
    module, _, below = key.partition(".")
    names = {
        "edge_embedding": "EdgeEmbedding",
        "reduce_input_to_hidden": "reducing nn input to hidden",
        "reduce_hidden_to_energy": "reducing nn hidden to energy",
        "rescale_atomic_energy": "rescale atomic energy",
    }
    for part in ("self_connection_intro", "convolution", "self_interaction_2", "equivariant_gate"):
        if module.endswith(part):
            module = module.replace("_", " ")
    return f"{names.get(module, module)}.{below.replace('denominator', 'denumerator')}"


def original_values(
    model: Any, structure: Structure, modality: int | None = None
) -> dict[str, np.ndarray]:
    """Return energy, forces, stress and Hessian of a SevenNet model by torch's derivatives."""
    import torch

    i, j, shifts = primitive_neighbor_list(
        "ijS", structure.pbc, structure.cell, structure.positions, model.cutoff
    )
    positions = torch.tensor(structure.positions, requires_grad=True)
    strain = torch.zeros((3, 3), dtype=torch.float64, requires_grad=True)
    offsets = torch.tensor(shifts @ structure.cell)
    vectors = positions[j] + offsets - positions[i]
    vectors = vectors + vectors @ (strain + strain.T) / 2
    types = torch.tensor([model.type_map[int(z)] for z in structure.numbers])
    data: dict[str, Any] = {
        "x": types,
        "atomic_numbers": torch.tensor(structure.numbers),
        "edge_index": torch.tensor(np.stack([i, j])),
        "edge_vec": vectors,
    }
    if modality is not None:
        data["modal_type"] = torch.tensor(modality)
    for name, module in model.named_children():
        if name == "force_output":
            continue
        data = module(data)
        if name == "onehot_idx_to_onehot":  # SevenNet makes it in single precision
            data = {k: v.double() if v.dtype == torch.float32 else v for k, v in data.items()}
    energy = data["inferred_total_energy"].sum()
    gradient, virial = torch.autograd.grad(energy, (positions, strain), create_graph=True)
    rows = [
        torch.autograd.grad(x, positions, retain_graph=True)[0].reshape(-1)
        for x in gradient.reshape(-1)
    ]
    volume = abs(np.linalg.det(structure.cell))
    return {
        "energy": energy.numpy(force=True),
        "forces": -gradient.numpy(force=True),
        "stress": virial.numpy(force=True) / volume,
        "hessian": torch.stack(rows).numpy(force=True),
    }


def write(name: str) -> None:
    """Write the checkpoint and the values of one case."""
    import torch

    model = random_model(name)
    state = old_state(model) if CASES[name].get("old") else model.state_dict()
    torch.save({"config": config_of(name), "model_state_dict": state, "epoch": 1}, path_of(name))
    place = MODALITIES.get(modality_of(name) or "")
    values = original_values(model, crystal_of(), place)
    np.savez(path_of(name).with_suffix(".npz"), **values)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        write(case)

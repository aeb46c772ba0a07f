"""What the configuration in a SevenNet checkpoint says about its architecture."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.representations import parse_irrep

# Settings that energies do not depend on: of the training, of the data, of the run; and numbers
# whose values the state dictionary has.
_NOT_READ = frozenset(
    [
        "_model_type",
        "chemical_species",
        "_number_of_species",
        "_chemical_species_by_atomic_number",
        "_number_of_modalities",
        "modal_list",
        "default_modal",
        "use_modal_wise_shift",
        "use_modal_wise_scale",
        "use_species_wise_shift_scale",
        "shift",
        "scale",
        "avg_num_neigh",
        "conv_denominator",
        "train_shift_scale",
        "train_denominator",
        "train_avg_num_neigh",
        "device",
        "optimizer",
        "scheduler",
        "loss",
        "optim_param",
        "scheduler_param",
        "loss_param",
        "continue",
        "random_seed",
        "epoch",
        "force_loss_weight",
        "stress_loss_weight",
        "use_testset",
        "_num_workers",
        "num_workers",
        "per_epoch",
        "_is_trace_stress",
        "is_train_stress",
        "train_shuffle",
        "error_record",
        "best_metric",
        "csv_log",
        "is_ddp",
        "ddp_backend",
        "local_rank",
        "rank",
        "world_size",
        "load_dataset_path",
        "load_trainset_path",
        "load_validset_path",
        "load_testset_path",
        "load_memory_path",
        "save_dataset_path",
        "dtype",
        "data_format",
        "data_format_args",
        "format_outputs_for_ase",
        "save_by_label",
        "save_by_train_valid",
        "data_divide_ratio",
        "batch_size",
        "preprocess_num_cores",
        "data_shuffle",
        "data_weight",
        "data_modality",
        "dataset_type",
        "compute_statistics",
        "use_weight",
        "rehearsal",
        "mem_batch_size",
        "mem_ratio",
        "opt_params",
        "fisher_information",
        "ewc_lambda",
        "checkpoint",
        "reset_optimizer",
        "reset_scheduler",
        "reset_epoch",
        "use_statistic_values_of_checkpoint",
        "use_statistic_values_for_cp_modal_only",
        "structure_list",
        "ratio",
        "ignore_cp_loss_param",
        "wandb_project",
        "use_wandb",
        "optimize_by_reduce",
        "use_flash_tp",
        "use_oeq",
        "_flash_lammps",
        "use_mliap",
        "readout_fcn_hidden_neurons",
    ]
)


# modules that may depend on the modality, by SevenNet's names
_MODAL = ("node_embedding", "self_inter_intro", "self_inter_outro", "output_block")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Architecture of a SevenNet model, as its configuration has it."""

    version: tuple[int, ...]
    types: dict[int, int]  # position of each atomic number
    modalities: dict[str, int]
    modal: frozenset[str]  # the modules whose scalars depend on the modality
    cutoff: float
    parity: bool
    degrees_of_edges: int  # l_max of the harmonics
    layers: int
    # features before each layer and after the last, each irrep once, in the order of the file
    irreps: tuple[tuple[tuple[int, str], ...], ...]
    channels: int
    degrees_of_features: int
    num_basis: int
    trained_frequencies: bool
    onset: float  # of XPLOR; 0: polynomial
    exponent: float
    hidden: tuple[int, ...]  # of the radial networks
    skips: tuple[str, ...]
    biases: bool
    network_readout: bool
    solid_harmonics: bool
    by_output: bool  # whether paths are sorted by their outputs


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Return the architecture.

    Raises
    ------
    PhonopyEquivariantError
        A setting that is unknown, missing, or of a kind that is not supported.

    """
    known = dict(config)
    text = known.pop("version", None)
    version = _version(text)
    for key in _NOT_READ:
        known.pop(key, None)
    for key in [key for key in known if key.endswith("_cp")]:  # of the model it was continued from
        known.pop(key)
    old = version < (0, 10)
    cutoff = float(known.pop("cutoff"))
    layers, channels = int(known.pop("num_convolution_layer")), int(known.pop("channel"))
    l_max = int(known.pop("lmax"))
    l_edges, l_nodes = int(known.pop("lmax_edge", -1)), int(known.pop("lmax_node", -1))
    basis = dict(known.pop("radial_basis"))
    envelope = dict(known.pop("cutoff_function"))
    _require(basis.pop("radial_basis_name", "bessel") == "bessel", "a radial basis")
    xplor = envelope.get("cutoff_function_name", "poly_cut") == "XPLOR"
    _require(xplor or envelope.get("cutoff_function_name") == "poly_cut", "a cutoff function")
    settings = Settings(
        version=version,
        types={int(z): int(k) for z, k in known.pop("_type_map").items()},
        modalities=_modalities(known),
        modal=frozenset(name for name in _MODAL if known.pop(f"use_modal_{name}", False)),
        cutoff=cutoff,
        parity=bool(known.pop("is_parity")),
        degrees_of_edges=l_edges if l_edges > 0 else l_max,
        layers=layers,
        irreps=_manual_irreps(known.pop("irreps_manual", False), layers),
        channels=channels,
        degrees_of_features=l_nodes if l_nodes > 0 else l_max,
        num_basis=int(basis.pop("bessel_basis_num", 8)),
        trained_frequencies=bool(basis.pop("trainable_coeff", True)),
        onset=float(envelope["cutoff_on"]) if xplor else 0.0,
        exponent=6.0 if xplor else float(envelope.get("poly_cut_p_value", 6)),
        hidden=tuple(int(width) for width in known.pop("weight_nn_hidden_neurons")),
        skips=_skips(known.pop("self_connection_type", "nequip"), layers),
        biases=bool(known.pop("use_bias_in_linear", False)),
        network_readout=bool(known.pop("readout_as_fcn", False)),
        solid_harmonics=not known.pop("_normalize_sph", not old),
        by_output=version >= (0, 11) and text != "0.11.0.dev0",
    )
    _require_kinds(known, settings.network_readout)
    _require(not basis, "a radial basis")
    if known:
        raise PhonopyEquivariantError(
            f"the setting {min(known)}={known[min(known)]!r:.60} is not known to this version."
        )
    return settings


def _require(satisfied: bool, subject: str) -> None:
    if not satisfied:
        raise PhonopyEquivariantError(f"{subject} of this kind is not supported.")


def _version(text: Any) -> tuple[int, ...]:
    if not isinstance(text, str) or not re.match(r"\d+\.\d+", text):
        raise PhonopyEquivariantError("there is no version of SevenNet in its configuration.")
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _modalities(known: dict[str, Any]) -> dict[str, int]:
    modalities = known.pop("_modal_map", None) or {}
    if not known.pop("use_modality", False):
        return {}
    return {str(name): int(place) for name, place in modalities.items()}


def _manual_irreps(lists: Any, layers: int) -> tuple[tuple[tuple[int, str], ...], ...]:
    """Return the features between layers if the configuration lists them, else nothing."""
    if not lists:
        return ()
    _require(len(lists) == layers + 1, "a list of irreps")
    return tuple(_blocks(str(text)) for text in lists)


def _blocks(text: str) -> tuple[tuple[int, str], ...]:
    blocks = []
    for term in text.split("+"):
        count, cross, key = term.strip().rpartition("x")
        blocks.append((int(count) if cross else 1, str(parse_irrep(key))))
    if len({key for _, key in blocks}) != len(blocks):
        raise PhonopyEquivariantError(f"irreps that occur twice ({text}) are not supported.")
    return tuple(blocks)


def _skips(kinds: Any, layers: int) -> tuple[str, ...]:
    names = {"nequip": "species", "linear": "shared"}
    listed = [kinds] * layers if isinstance(kinds, str) else list(kinds)
    unknown = [kind for kind in listed if kind not in names]
    if unknown or len(listed) != layers:
        raise PhonopyEquivariantError(f"self connections of kind {kinds!r:.60} are not supported.")
    return tuple(names[kind] for kind in listed)


def _require_kinds(known: dict[str, Any], network_readout: bool) -> None:
    """Refuse activations and interactions that this package's NequIP does not have."""
    required = {
        "act_radial": ("silu",),
        "act_scalar": ({"e": "silu", "o": "tanh"},),
        "act_gate": ({"e": "silu", "o": "tanh"},),
        "interaction_type": ("nequip",),
        "cuequivariance_config": ({}, {"use": False}),
    }
    activation = known.pop("readout_fcn_activation", "relu")
    if network_readout and activation != "silu":
        raise PhonopyEquivariantError(f"a readout network of {activation} is not supported.")
    for name, values in required.items():
        value = known.pop(name, values[0])
        if value not in values:
            raise PhonopyEquivariantError(
                f"{name}={value!r:.60} is not supported, only {values[0]!r}."
            )

"""What the configuration in a checkpoint of nequip says about its architecture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy import ndarray

from phonopy_equivariant.checkpoints.e3nn_weights import Blocks
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.representations import Irrep

_MODELS = ("NequIPGNNModel", "NequIPGNNEnergyModel")
# Settings that energies do not depend on, or whose values the state dictionary has.
_NOT_READ = frozenset(
    {
        *("_target_", "seed", "model_dtype", "compile_mode", "do_derivatives", "bessel_trainable"),
        *("per_type_energy_scales", "per_type_energy_shifts", "num_bessels", "num_layers"),
        *("per_type_energy_scales_trainable", "per_type_energy_shifts_trainable"),
        *("type_embed_num_features", "radial_mlp_depth", "radial_mlp_width"),
        *("readout_mlp_hidden_layers_depth", "readout_mlp_hidden_layers_width"),
        *("per_edge_type_cutoff",),
    }
)
# Settings with one value each that this package's NequIP has.
_REQUIRED: dict[str, Any] = {
    "categorical_graph_field_embed": None,
    "convnet_sc": True,
    "learnable_shift": False,
    "convnet_resnet": False,
    "convnet_nonlinearity_type": "gate",
    "convnet_nonlinearity_scalars": {"e": "silu", "o": "tanh"},
    "convnet_nonlinearity_gates": {"e": "silu", "o": "tanh"},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Architecture of a model of nequip, as its configuration has it."""

    symbols: tuple[str, ...]  # in the order of the file
    cutoff: float
    l_max: int
    parity: bool  # whether both parities are among the features
    channels: tuple[int, ...]  # of each degree
    exponent: float
    norms: ndarray  # 1/sqrt(N) of each species
    readout: str
    has_pair_term: bool

    @property
    def numbers(self) -> tuple[int, ...]:
        """Atomic numbers in the order of the file."""
        return tuple(atomic_numbers[symbol] for symbol in self.symbols)

    def hidden(self, natural: bool, first_parity: bool) -> Blocks:
        """Return the features that layers may have.

        ``natural``: without both parities, whether they are those of the harmonics or all even;
        ``first_parity``: whether the list runs over parities first, as before version 0.13.
        """
        degrees = range(self.l_max + 1)
        if not self.parity:
            return [(self.channels[d], str(Irrep(d, (-1) ** d if natural else 1))) for d in degrees]
        pairs = [(d, p) for d in degrees for p in (1, -1)]
        if first_parity:
            pairs = [(d, p) for p in (1, -1) for d in degrees]
        return [(self.channels[d], str(Irrep(d, p))) for d, p in pairs]


def read_settings(model: Mapping[str, Any]) -> Settings:
    """Return the architecture.

    Raises
    ------
    PhonopyEquivariantError
        Another class of model, or a setting that is unknown or not supported.

    """
    target = str(model.get("_target_", "")).rpartition(".")[2]
    if target not in _MODELS:
        raise PhonopyEquivariantError(
            f"models made by {model.get('_target_')!r} are not supported, only {_MODELS[0]}; of a "
            "model made from another one give the package (nequip-package build)."
        )
    known = {key: value for key, value in model.items() if key not in _NOT_READ}
    for key, required in _REQUIRED.items():
        if known.pop(key, required) != required:
            raise PhonopyEquivariantError(f"{key}={model[key]!r:.60} is not supported.")
    l_max = int(known.pop("l_max", 1))
    channels = known.pop("num_features", 32)
    symbols = tuple(str(name) for name in known.pop("type_names"))
    if not set(symbols) <= set(atomic_numbers) or len(set(symbols)) != len(symbols):
        raise PhonopyEquivariantError(
            f"its types {', '.join(symbols)} are not chemical symbols; not supported."
        )
    exponent = float(known.pop("polynomial_cutoff_p", 6))
    settings = Settings(
        symbols=symbols,
        cutoff=float(known.pop("r_max")),
        l_max=l_max,
        parity=bool(known.pop("parity", True)),
        channels=tuple(channels)
        if isinstance(channels, Sequence)
        else (int(channels),) * (l_max + 1),
        exponent=exponent,
        norms=_norms(known.pop("avg_num_neighbors", None), symbols),
        readout=str(known.pop("readout_mlp_nonlinearity", "silu")),
        has_pair_term=_has_repulsion(known.pop("pair_potential", None), exponent),
    )
    if known:
        raise PhonopyEquivariantError(
            f"the setting {min(known)}={known[min(known)]!r:.60} is not known to this version."
        )
    return settings


def _norms(neighbours: Any, symbols: Sequence[str]) -> ndarray:
    """Return what multiplies the messages of each species."""
    if neighbours is None:
        return np.ones(len(symbols))
    if isinstance(neighbours, Mapping):
        return np.array([float(neighbours[symbol]) ** -0.5 for symbol in symbols])
    return np.full(len(symbols), float(neighbours) ** -0.5)


def _has_repulsion(pair: Any, exponent: float) -> bool:
    if pair is None:
        return False
    name = str(pair.get("_target_", "")).rpartition(".")[2]
    if name != "ZBL" or pair.get("units") != "metal":
        raise PhonopyEquivariantError(
            f"the pair potential {name} in units {pair.get('units')!r} is not supported, only ZBL "
            "in units of metal."
        )
    if float(pair.get("polynomial_cutoff_p", 6)) != exponent:
        raise PhonopyEquivariantError("a pair potential with another exponent is not supported.")
    return True

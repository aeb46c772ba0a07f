"""The architectures there are: one table for building models and for naming them in files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from phonopy_equivariant.models.config import ModelConfig, NequIPConfig
from phonopy_equivariant.models.layered import LayeredModel
from phonopy_equivariant.models.mace import build_mace
from phonopy_equivariant.models.mace_config import MACEConfig
from phonopy_equivariant.models.nequip import build_nequip


class Architecture(NamedTuple):
    """How a kind of model is configured and built."""

    config: type[ModelConfig]
    build: Callable[[Any], LayeredModel]  # of configurations of its own class alone


ARCHITECTURES = {
    "nequip": Architecture(NequIPConfig, build_nequip),
    "mace": Architecture(MACEConfig, build_mace),
}


def architecture_of(config: ModelConfig) -> str:
    """Return the name of a configuration's architecture."""
    return next(
        name for name, architecture in ARCHITECTURES.items() if type(config) is architecture.config
    )


def build_model(config: ModelConfig) -> LayeredModel:
    """Return the pure functions of a model; equal configurations share one."""
    return ARCHITECTURES[architecture_of(config)].build(config)

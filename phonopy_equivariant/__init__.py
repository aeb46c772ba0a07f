"""Analytic phonons from E(3)-equivariant potentials, for phonopy and ASE.

The names below are imported on first use (PEP 562), so that importing the package costs
milliseconds and does not start JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phonopy_equivariant.cache import enable_compilation_cache
    from phonopy_equivariant.checkpoints.load import load_potential
    from phonopy_equivariant.checkpoints.native import save_checkpoint
    from phonopy_equivariant.errors import PhonopyEquivariantError
    from phonopy_equivariant.interface.ase import EquivariantCalculator
    from phonopy_equivariant.interface.phonopy import (
        PhonopyMLP,
        force_constants,
        set_force_constants,
    )
    from phonopy_equivariant.interface.relax import relax
    from phonopy_equivariant.models.config import NequIPConfig
    from phonopy_equivariant.potential import Potential, random_potential

__version__ = "0.1.0"

__all__ = [
    "EquivariantCalculator",
    "NequIPConfig",
    "PhonopyEquivariantError",
    "PhonopyMLP",
    "Potential",
    "enable_compilation_cache",
    "force_constants",
    "load_potential",
    "random_potential",
    "relax",
    "save_checkpoint",
    "set_force_constants",
]

# public name -> module that defines it
_HOME = {
    "EquivariantCalculator": "interface.ase",
    "NequIPConfig": "models.config",
    "PhonopyEquivariantError": "errors",
    "PhonopyMLP": "interface.phonopy",
    "Potential": "potential",
    "enable_compilation_cache": "cache",
    "force_constants": "interface.phonopy",
    "load_potential": "checkpoints.load",
    "random_potential": "potential",
    "relax": "interface.relax",
    "save_checkpoint": "checkpoints.native",
    "set_force_constants": "interface.phonopy",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Analytic phonons from E(3)-equivariant potentials, for phonopy and ASE.

The names below are imported on first use (PEP 562), so that importing the package costs
milliseconds and does not start JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from phonopy_equivariant._version import __version__
from phonopy_equivariant.runtime import source as _source  # noqa: F401  # notes it: before others

if TYPE_CHECKING:
    from phonopy_equivariant import molecules
    from phonopy_equivariant.calculators.ase import EquivariantCalculator
    from phonopy_equivariant.calculators.mlp import PhonopyMLP
    from phonopy_equivariant.calculators.relax import relax
    from phonopy_equivariant.checkpoints.load import load_potential
    from phonopy_equivariant.checkpoints.native import save_checkpoint
    from phonopy_equivariant.errors import PhonopyEquivariantError
    from phonopy_equivariant.familiarity import fit_familiarity
    from phonopy_equivariant.models.config import NequIPConfig
    from phonopy_equivariant.models.mace_config import MACEConfig
    from phonopy_equivariant.phonons.exact import use_exact_dynamical_matrix
    from phonopy_equivariant.phonons.force_constants import force_constants, set_force_constants
    from phonopy_equivariant.potential import Potential, random_potential
    from phonopy_equivariant.response.dynamical_matrix import dynamical_matrices
    from phonopy_equivariant.runtime.allocation import keep_freed_memory
    from phonopy_equivariant.runtime.cache import enable_compilation_cache
    from phonopy_equivariant.training.loop import train

__all__ = [
    "EquivariantCalculator",
    "MACEConfig",
    "NequIPConfig",
    "PhonopyEquivariantError",
    "PhonopyMLP",
    "Potential",
    "__version__",
    "dynamical_matrices",
    "enable_compilation_cache",
    "fit_familiarity",
    "force_constants",
    "keep_freed_memory",
    "load_potential",
    "molecules",
    "random_potential",
    "relax",
    "save_checkpoint",
    "set_force_constants",
    "train",
    "use_exact_dynamical_matrix",
]

# public name -> module that defines it
_HOME = {
    "EquivariantCalculator": "calculators.ase",
    "MACEConfig": "models.mace_config",
    "NequIPConfig": "models.config",
    "PhonopyEquivariantError": "errors",
    "PhonopyMLP": "calculators.mlp",
    "Potential": "potential",
    "dynamical_matrices": "response.dynamical_matrix",
    "enable_compilation_cache": "runtime.cache",
    "fit_familiarity": "familiarity",
    "force_constants": "phonons.force_constants",
    "keep_freed_memory": "runtime.allocation",
    "load_potential": "checkpoints.load",
    "random_potential": "potential",
    "relax": "calculators.relax",
    "save_checkpoint": "checkpoints.native",
    "set_force_constants": "phonons.force_constants",
    "train": "training.loop",
    "use_exact_dynamical_matrix": "phonons.exact",
}


def __getattr__(name: str) -> Any:
    if name == "molecules":  # a package of functions, under its own name
        return importlib.import_module(f"{__name__}.molecules")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

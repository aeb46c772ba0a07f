"""Analytic phonons from E(3)-equivariant potentials, for phonopy and ASE.

The names below are imported on first use (PEP 562), so that importing the package costs
milliseconds and does not start JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from phonopy_equivariant import phonons as _room  # noqa: F401  # see below
from phonopy_equivariant._version import __version__
from phonopy_equivariant.runtime import cache as _cache
from phonopy_equivariant.runtime import source as _source  # noqa: F401  # notes it: before others

# `pe.phonons` is the function. The room of modules with that name is loaded first, so that no
# later import of one of them puts the room in the function's place.
del phonons  # noqa: F821
_cache.quiet_xla()

if TYPE_CHECKING:
    from phonopy_equivariant import molecules
    from phonopy_equivariant.calculators.ase import EquivariantCalculator
    from phonopy_equivariant.calculators.mlp import PhonopyMLP
    from phonopy_equivariant.calculators.relax import RelaxationStep, relax
    from phonopy_equivariant.checkpoints.load import load_potential
    from phonopy_equivariant.checkpoints.native import save_checkpoint
    from phonopy_equivariant.errors import PhonopyEquivariantError
    from phonopy_equivariant.evaluation.audit import Audit, audit
    from phonopy_equivariant.familiarity import fit_familiarity
    from phonopy_equivariant.features import Familiarity
    from phonopy_equivariant.models.config import NequIPConfig
    from phonopy_equivariant.models.mace_config import MACEConfig
    from phonopy_equivariant.molecules.analysis import MolecularVibrations, Thermochemistry
    from phonopy_equivariant.phonons.anisotropic_qha import AnisotropicQuasiHarmonic
    from phonopy_equivariant.phonons.conductivity import ThermalConductivity
    from phonopy_equivariant.phonons.convergence import Convergence
    from phonopy_equivariant.phonons.exact import ExactReport, use_exact_dynamical_matrix
    from phonopy_equivariant.phonons.force_constants import force_constants, set_force_constants
    from phonopy_equivariant.phonons.gamma_modes import GammaModes, gamma_modes
    from phonopy_equivariant.phonons.gruneisen import (
        GruneisenBands,
        GruneisenMesh,
        gruneisen_bands,
        gruneisen_mesh,
    )
    from phonopy_equivariant.phonons.phase_tree import PhaseTree
    from phonopy_equivariant.phonons.qha import QuasiHarmonic
    from phonopy_equivariant.phonons.report import ForceConstantsReport
    from phonopy_equivariant.phonons.sscha import SelfConsistent
    from phonopy_equivariant.phonons.stability import Stability, stability
    from phonopy_equivariant.phonons.thermal_expansion import ThermalExpansion, thermal_expansion
    from phonopy_equivariant.phonons.third_order import (
        set_third_order_force_constants,
        third_order_force_constants,
    )
    from phonopy_equivariant.phonons.third_order_report import ThirdOrderReport
    from phonopy_equivariant.potential import Evaluation, Potential, random_potential
    from phonopy_equivariant.response.autodiff.hessian import hessian
    from phonopy_equivariant.response.dynamical_matrix import dynamical_matrices
    from phonopy_equivariant.response.elastic import elastic_tensor
    from phonopy_equivariant.response.elasticity import ElasticTensor
    from phonopy_equivariant.response.gruneisen import GruneisenParameters, gruneisen_parameters
    from phonopy_equivariant.runtime.allocation import keep_freed_memory
    from phonopy_equivariant.runtime.cache import enable_compilation_cache
    from phonopy_equivariant.structure import Structure, StructureLike
    from phonopy_equivariant.training.config import TrainingConfig
    from phonopy_equivariant.training.loop import TrainingResult, train
    from phonopy_equivariant.workflows.batch.result import BatchResult
    from phonopy_equivariant.workflows.batch.run import batch
    from phonopy_equivariant.workflows.convergence import converge
    from phonopy_equivariant.workflows.evaluation import PhononEvaluation, evaluate
    from phonopy_equivariant.workflows.kappa import thermal_conductivity
    from phonopy_equivariant.workflows.options import (
        BatchOptions,
        EvaluationOptions,
        PhononOptions,
        RelaxationOptions,
    )
    from phonopy_equivariant.workflows.phonons import AnalyticPhonopy, phonons
    from phonopy_equivariant.workflows.qha import anisotropic_qha, qha
    from phonopy_equivariant.workflows.sscha import SSCHA, sscha
    from phonopy_equivariant.workflows.unstable import follow_unstable_modes

__all__ = [
    "AnalyticPhonopy",
    "AnisotropicQuasiHarmonic",
    "Audit",
    "BatchOptions",
    "BatchResult",
    "Convergence",
    "ElasticTensor",
    "EquivariantCalculator",
    "Evaluation",
    "EvaluationOptions",
    "ExactReport",
    "Familiarity",
    "ForceConstantsReport",
    "GammaModes",
    "GruneisenBands",
    "GruneisenMesh",
    "GruneisenParameters",
    "MACEConfig",
    "MolecularVibrations",
    "NequIPConfig",
    "PhaseTree",
    "PhononEvaluation",
    "PhononOptions",
    "PhonopyEquivariantError",
    "PhonopyMLP",
    "Potential",
    "QuasiHarmonic",
    "RelaxationOptions",
    "RelaxationStep",
    "SSCHA",
    "SelfConsistent",
    "Stability",
    "Structure",
    "StructureLike",
    "ThermalConductivity",
    "ThermalExpansion",
    "Thermochemistry",
    "ThirdOrderReport",
    "TrainingConfig",
    "TrainingResult",
    "__version__",
    "anisotropic_qha",
    "audit",
    "batch",
    "converge",
    "dynamical_matrices",
    "elastic_tensor",
    "enable_compilation_cache",
    "evaluate",
    "fit_familiarity",
    "follow_unstable_modes",
    "force_constants",
    "gamma_modes",
    "gruneisen_bands",
    "gruneisen_mesh",
    "gruneisen_parameters",
    "hessian",
    "keep_freed_memory",
    "load_potential",
    "molecules",
    "phonons",
    "qha",
    "random_potential",
    "relax",
    "save_checkpoint",
    "set_force_constants",
    "set_third_order_force_constants",
    "sscha",
    "stability",
    "thermal_conductivity",
    "thermal_expansion",
    "third_order_force_constants",
    "train",
    "use_exact_dynamical_matrix",
]

# public name -> module that defines it
_HOME = {
    "AnalyticPhonopy": "workflows.phonons",
    "AnisotropicQuasiHarmonic": "phonons.anisotropic_qha",
    "Audit": "evaluation.audit",
    "BatchOptions": "workflows.options",
    "BatchResult": "workflows.batch.result",
    "Convergence": "phonons.convergence",
    "ElasticTensor": "response.elasticity",
    "EquivariantCalculator": "calculators.ase",
    "Evaluation": "potential",
    "EvaluationOptions": "workflows.options",
    "ExactReport": "phonons.exact",
    "Familiarity": "features",
    "ForceConstantsReport": "phonons.report",
    "GammaModes": "phonons.gamma_modes",
    "GruneisenBands": "phonons.gruneisen",
    "GruneisenMesh": "phonons.gruneisen",
    "GruneisenParameters": "response.gruneisen",
    "MACEConfig": "models.mace_config",
    "MolecularVibrations": "molecules.analysis",
    "NequIPConfig": "models.config",
    "PhaseTree": "phonons.phase_tree",
    "PhononEvaluation": "workflows.evaluation",
    "PhononOptions": "workflows.options",
    "PhonopyEquivariantError": "errors",
    "PhonopyMLP": "calculators.mlp",
    "Potential": "potential",
    "QuasiHarmonic": "phonons.qha",
    "RelaxationOptions": "workflows.options",
    "RelaxationStep": "calculators.relax",
    "SSCHA": "workflows.sscha",
    "SelfConsistent": "phonons.sscha",
    "Stability": "phonons.stability",
    "Structure": "structure",
    "StructureLike": "structure",
    "ThermalConductivity": "phonons.conductivity",
    "ThermalExpansion": "phonons.thermal_expansion",
    "Thermochemistry": "molecules.analysis",
    "ThirdOrderReport": "phonons.third_order_report",
    "TrainingConfig": "training.config",
    "TrainingResult": "training.loop",
    "anisotropic_qha": "workflows.qha",
    "audit": "evaluation.audit",
    "batch": "workflows.batch.run",
    "converge": "workflows.convergence",
    "dynamical_matrices": "response.dynamical_matrix",
    "elastic_tensor": "response.elastic",
    "enable_compilation_cache": "runtime.cache",
    "evaluate": "workflows.evaluation",
    "fit_familiarity": "familiarity",
    "follow_unstable_modes": "workflows.unstable",
    "force_constants": "phonons.force_constants",
    "gamma_modes": "phonons.gamma_modes",
    "gruneisen_bands": "phonons.gruneisen",
    "gruneisen_mesh": "phonons.gruneisen",
    "gruneisen_parameters": "response.gruneisen",
    "hessian": "response.autodiff.hessian",
    "keep_freed_memory": "runtime.allocation",
    "load_potential": "checkpoints.load",
    "phonons": "workflows.phonons",
    "qha": "workflows.qha",
    "random_potential": "potential",
    "relax": "calculators.relax",
    "save_checkpoint": "checkpoints.native",
    "set_force_constants": "phonons.force_constants",
    "set_third_order_force_constants": "phonons.third_order",
    "sscha": "workflows.sscha",
    "stability": "phonons.stability",
    "thermal_conductivity": "workflows.kappa",
    "thermal_expansion": "phonons.thermal_expansion",
    "third_order_force_constants": "phonons.third_order",
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

"""The phonons of one structure of many as a flat record: what a worker computes."""

from __future__ import annotations

import functools
import lzma
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import spglib
from ase import Atoms
from phonopy import Phonopy
from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.checkpoints.load import as_potential
from phonopy_equivariant.defaults import BAND_POINTS
from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.io.crystals import Crystal
from phonopy_equivariant.io.outputs import write_params
from phonopy_equivariant.io.supercells import dim_text
from phonopy_equivariant.phonons.cells import masses_break_symmetry
from phonopy_equivariant.phonons.exact import ExactReport
from phonopy_equivariant.phonons.exact_script import folded_force_constants
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.results import plain
from phonopy_equivariant.runtime.allocation import keep_freed_memory
from phonopy_equivariant.runtime.cache import enable_compilation_cache
from phonopy_equivariant.structure import check_distances
from phonopy_equivariant.workflows.calculations import Calculations, plan_calculations
from phonopy_equivariant.workflows.options import BatchOptions
from phonopy_equivariant.workflows.progress import Silent
from phonopy_equivariant.workflows.run import CrystalPhonons, crystal_phonons, provenance

# One thread of XLA for each worker; both are read when JAX starts.
_ONE_THREAD = {"PJRT_NPROC": "1", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
# Dask's default for its workers: freed memory goes back to the system at once. XLA then touches new
# pages in each run of a program, and a worker takes more than twice the time of a plain loop.
_GIVEN_BACK = ("MALLOC_TRIM_THRESHOLD_", "65536")
# Warnings of phonopy that stand in a record.
_TOLD = (UserWarning, RuntimeWarning)
_OUT_OF_MEMORY = "out of memory; choose a smaller supercell=, fewer workers or float32."


class Task(NamedTuple):
    """One structure to compute: the key of its record, its name and the crystal."""

    key: str
    name: str
    label: str
    crystal: Crystal


class Setup(NamedTuple):
    """What all structures of a run have in common; a potential travels as name and hash."""

    model: str
    sha256: str
    dtype: str
    device: str  # auto, cpu or gpu
    options: BatchOptions


class Outcome(NamedTuple):
    """The record of a structure, plain values only, and the files that go with it."""

    record: dict[str, Any]
    files: dict[str, bytes]


class _Remarks(Silent):
    """A progress that keeps warnings for the record and says nothing."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, line: str) -> None:
        """Keep the warning."""
        self.warnings.append(line)


def compute(task: Task, setup: Setup) -> Outcome:
    """Return the record of a structure; whatever is wrong with it is the record's reason.

    Raises
    ------
    PhonopyEquivariantError
        The potential cannot be loaded, or is not the one of the hash: no structure can be computed.

    """
    start = time.perf_counter()
    potential = _potential(setup.model, setup.sha256, setup.dtype, setup.device)
    remarks, values, files = _Remarks(), dict[str, Any](), dict[str, bytes]()
    reason = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            values, files = _phonons(task.crystal, potential, setup.options, remarks)
        except Exception as error:  # no structure stops the others
            reason = _reason(error)
    of_phonopy = [str(w.message) for w in caught if issubclass(w.category, _TOLD)]
    told = list(dict.fromkeys(remarks.warnings + of_phonopy))
    record = identity(task.key, task.name, task.label, reason) | formula_of(task.crystal.unitcell)
    record |= values | {"warnings": told, "seconds": time.perf_counter() - start}
    return Outcome(plain(record), files)


def identity(key: str, name: str, label: str, reason: str) -> dict[str, Any]:
    """Return the fields that every record has, those of failures too."""
    state = "failed" if reason else "done"
    return {"key": key, "name": name, "label": label, "state": state, "reason": reason}


def _reason(error: Exception) -> str:
    if isinstance(error, PhonopyEquivariantError):
        return reason_of(error, 500)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return _OUT_OF_MEMORY
    return f"{type(error).__name__}: {reason_of(error, 300)}"


def prepare_process() -> bool:
    """Give this process one thread of XLA and let it keep freed memory; return whether it does."""
    for name, value in _ONE_THREAD.items():
        os.environ.setdefault(name, value)
    name, value = _GIVEN_BACK
    if os.environ.get(name) == value:
        del os.environ[name]
    return keep_freed_memory()


@functools.lru_cache(maxsize=1)
def _potential(model: str, sha256: str, dtype: str, device: str) -> Potential:
    """Return the potential; the first call of a process starts JAX."""
    prepare_process()
    import jax

    config: Any = jax.config
    if device != "auto":
        config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[device])
    enable_compilation_cache()
    potential = as_potential(model, dtype)
    if potential.sha256 != sha256:
        raise PhonopyEquivariantError(
            f"A worker's {model} has another content (sha256 {potential.sha256[:12]}) than that of "
            f"this computer ({sha256[:12]}); copy the file to the workers."
        )
    return potential


def _phonons(
    crystal: Crystal, potential: Potential, options: BatchOptions, remarks: _Remarks
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what the record says of the phonons, and the files asked for."""
    check_distances(crystal.unitcell)
    potential.graph(crystal.unitcell)  # elements, before anything takes time
    plan = _plan(options, crystal.nac_params is not None)
    before = _space_group(crystal.unitcell, options.symprec)
    result = crystal_phonons(crystal, potential, options.phonons, plan, remarks)
    phonon = result.phonon
    values = {
        "space_group": before,
        "space_group_relaxed": _space_group(phonon.unitcell, options.symprec),
        "atoms": len(phonon.primitive),
        "supercell": dim_text(phonon.supercell_matrix),
        "supercell_atoms": len(phonon.supercell),
        "volume": phonon.primitive.volume,
        **_residuals(result),
        **_frequencies(phonon, plan, options),
        **_stability(result),
    }
    return values, _files(result, potential, options)


@functools.lru_cache(maxsize=8)
def _planned(words: tuple[str, ...]) -> Calculations:
    return plan_calculations(words)


def _plan(options: BatchOptions, polar: bool) -> Calculations:
    """Return the plan of ``run`` with the same options; a ``BORN`` file belongs to one crystal."""
    mesh = [options.mesh] if isinstance(options.mesh, int | float) else options.mesh
    words = ["--mesh", *(f"{number:g}" for number in mesh), "--tolerance", repr(options.symprec)]
    words += ["--band", "auto"] * options.bands + ["--nonac"] * (not polar)
    return _planned(tuple(words))


def formula_of(cell: PhonopyAtoms) -> dict[str, str]:
    """Return the field with the reduced formula."""
    return {"formula": Atoms(cell.numbers).get_chemical_formula("metal", empirical=True)}


def _space_group(cell: PhonopyAtoms, symprec: float) -> str:
    arrays: Any = (cell.cell, cell.scaled_positions, cell.numbers)
    dataset = spglib.get_symmetry_dataset(arrays, symprec)
    if dataset is None:
        return "unknown"
    return f"{dataset.international} ({dataset.number})"


def _residuals(result: CrystalPhonons) -> dict[str, Any]:
    report: Any = result.report
    exact = isinstance(report, ExactReport)
    familiarity = report.familiarity
    distance = np.inf if familiarity is None else familiarity.distance
    return {
        "residual_force": report.residual_force,
        "residual_stress": report.residual_stress,
        "sum_rule": None if exact else report.sum_rule,
        "permutation": None if exact else report.permutation,
        # of an element that the training data lack the distance is infinite, which JSON lacks
        "familiarity": distance if np.isfinite(distance) else None,
        "far_from_training": None if familiarity is None else familiarity.is_far,
    }


def _frequencies(phonon: Phonopy, plan: Calculations, options: BatchOptions) -> dict[str, Any]:
    """Return frequencies and thermal properties on the mesh that ``run`` takes."""
    settings: Any = plan.mesh
    phonon.run_mesh(
        settings.mesh_numbers,
        settings.mesh_shift,
        is_time_reversal=settings.is_time_reversal_symmetry,
        is_mesh_symmetry=not masses_break_symmetry(phonon),
        is_gamma_center=settings.is_gamma_center,
    )
    phonon.run_thermal_properties(
        temperatures=list(options.temperatures), exclude_gamma_acoustic=True
    )
    mesh: Any = phonon.mesh
    thermal: Any = phonon.thermal_properties
    if not np.isfinite(mesh.frequencies).all():
        raise PhonopyEquivariantError("its frequencies are not numbers; check the structure.")
    return {
        "highest": mesh.frequencies.max(),
        "mean": np.average(mesh.frequencies.mean(axis=1), weights=mesh.weights),
        "temperatures": options.temperatures,
        "free_energy": thermal.free_energy,
        "entropy": thermal.entropy,
        "heat_capacity": thermal.heat_capacity,
    }


def _stability(result: CrystalPhonons) -> dict[str, Any]:
    stability = result.stability
    return {
        "lowest": stability.lowest,
        "lowest_q": stability.qpoint if stability.imaginary else None,
        "imaginary": stability.share,
        "unstable": stability.unstable,
        "supercell_suffices": stability.sufficient,
        "mesh": stability.mesh,
    }


def _files(result: CrystalPhonons, potential: Potential, options: BatchOptions) -> dict[str, bytes]:
    """Return the content of phonopy's files that the options ask for, compressed."""
    phonon = result.phonon
    writers: dict[str, Callable[[Path], None]] = {}
    if options.bands:
        paths, labels, connections = get_band_qpoints_by_seekpath(phonon.primitive, BAND_POINTS)
        phonon.run_band_structure(paths, path_connections=connections, labels=labels)
        writers["band.yaml"] = lambda path: phonon.write_yaml_band_structure(filename=path)
    if options.dos:
        phonon.run_total_dos()
        writers["total_dos.dat"] = phonon.write_total_dos
    if options.force_constants:
        if isinstance(result.report, ExactReport):
            matrix: Any = phonon.dynamical_matrix
            phonon.force_constants = folded_force_constants(phonon, matrix)
        writers["phonopy_params.yaml"] = lambda path: write_params(
            phonon, path, provenance(potential)
        )
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, write in writers.items():
            write(Path(folder, name))
            files[f"{name}.xz"] = lzma.compress(Path(folder, name).read_bytes())
    return files

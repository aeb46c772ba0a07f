"""Phonons of many crystals: ``pe.batch`` and the command ``batch``."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.catalogue.bundled import DEFAULT_MODEL
from phonopy_equivariant.checkpoints.fetch import file_sha256
from phonopy_equivariant.checkpoints.load import resolve
from phonopy_equivariant.graph import graph_sizes
from phonopy_equivariant.io.crystals import Crystal, as_crystal
from phonopy_equivariant.io.memory import estimated_bytes
from phonopy_equivariant.io.several import NamedCrystal, read_crystals
from phonopy_equivariant.io.supercells import DIAMETER, count_atoms
from phonopy_equivariant.phonons.nac import NAC_RANGE
from phonopy_equivariant.structure import Structure, StructureLike
from phonopy_equivariant.workflows.batch.cluster import WORKER_MEMORY, connected, require_dask
from phonopy_equivariant.workflows.batch.dispatch import Delivery, Needs, dispatched
from phonopy_equivariant.workflows.batch.folder import BatchFolder, manifest_of, opened
from phonopy_equivariant.workflows.batch.records import (
    Outcome,
    Setup,
    Task,
    compute,
    formula_of,
    identity,
)
from phonopy_equivariant.workflows.batch.result import BatchResult
from phonopy_equivariant.workflows.options import BatchOptions
from phonopy_equivariant.workflows.progress import Progress, Silent

PathLike: TypeAlias = str | os.PathLike[str]
OneStructure: TypeAlias = PathLike | StructureLike | Crystal
_CUTOFF = 6.0  # Å, of the potential whose edges sort crystals by size


def batch(
    structures: OneStructure | Iterable[OneStructure],
    folder: PathLike,
    model: PathLike = DEFAULT_MODEL,
    options: BatchOptions | None = None,
    *,
    dtype: str = "float64",
    device: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
    retry: bool = False,
    progress: Progress | None = None,
) -> BatchResult:
    """Return the phonons of many crystals, computed by the processes of a Dask cluster.

    Each structure is computed as by the command ``run``. Its record is in
    ``FOLDER/records.jsonl`` as soon as it is known. Called again after an interruption of any kind,
    the function goes on with the structures that have no record.

    Parameters
    ----------
    structures
        Files with one or several structures, folders with such files, databases of ASE, JSON of
        pymatgen; or structures in memory, or a mixture.
    folder
        Where everything is written; it is made if there is none.
    model
        The name of a model, or the path of a checkpoint, which all workers can read.
    options
        What is computed, see :class:`.BatchOptions`.
    dtype, device
        Precision of the potential; ``"auto"``, ``"cpu"`` or ``"gpu"``.
    workers
        Processes of this computer, of one thread each; default: one for each core.
    scheduler
        Address of a Dask scheduler whose workers compute instead.
    retry
        Whether structures whose record is a failure are computed again.
    progress
        Whom to tell; default: warnings only.

    Raises
    ------
    PhonopyEquivariantError
        No such path, model or scheduler; a folder with results of other options, or with another
        run in it; a disk that is full. What is wrong with one structure is recorded.

    Notes
    -----
    A script that calls this needs ``if __name__ == "__main__":``, as for any spawned process.

    """
    progress = Silent() if progress is None else progress
    require_dask()  # before anything is written
    path = resolve(model)
    known_name = isinstance(model, str) and not Path(model).expanduser().is_file()
    setup = Setup(
        str(model) if known_name else str(path.resolve()),
        file_sha256(path),
        dtype,
        device,
        BatchOptions() if options is None else options,
    )
    with progress.stage("Reading structures"):
        listed = list(_listed(structures))  # before anything is written
    with opened(folder) as place:
        place.check_manifest(manifest_of(setup))
        place.mend()
        finished = {r["key"] for r in place.records() if not (retry and r["state"] == "failed")}
        missing = [(key, item) for key, item in listed if key not in finished]
        tasks = _record_unreadable(place, missing)
        before, unreadable = len(listed) - len(missing), len(missing) - len(tasks)
        if before:
            progress.say(f"{before} of {len(listed)} structures have been done before.")
        if unreadable:
            progress.say(f"{unreadable} of {len(listed)} structures cannot be read.")
        if tasks:
            with connected(workers, scheduler) as client:
                _compute(client, tasks, setup, place, progress)
        return BatchResult(tuple(place.records()), place.manifest())


def _listed(
    structures: OneStructure | Iterable[OneStructure],
) -> Iterator[tuple[str, NamedCrystal]]:
    """Yield all structures with their keys; one that is listed twice counts once."""
    single = isinstance(structures, str | os.PathLike | Atoms | PhonopyAtoms | Structure | Crystal)
    items: list[Any] = [structures] if single else list(structures)  # type: ignore[arg-type]
    keys: set[str] = set()
    for index, item in enumerate(items):
        if isinstance(item, str | os.PathLike):
            found: Iterable[NamedCrystal] = read_crystals([item])
        else:
            found = [NamedCrystal(f"structure {index}", as_crystal(item))]
        for named in found:
            key = _key(named)
            if key not in keys:
                keys.add(key)
                yield key, named


def _key(named: NamedCrystal) -> str:
    """Return a hash of name and content: what changes a number of the record changes the key."""
    digest = hashlib.sha256(f"{named.name}\0{named.reason}".encode())
    if named.crystal is not None:
        cell, crystal = named.crystal.unitcell, named.crystal
        charges = crystal.nac_params or {}
        arrays: list[Any] = [cell.numbers, cell.cell, cell.scaled_positions, cell.masses]
        arrays += [crystal.supercell_matrix, crystal.primitive_matrix]
        arrays += [charges.get("born"), charges.get("dielectric")]
        for values in arrays:
            digest.update(b"none" if values is None else np.ascontiguousarray(values).tobytes())
        digest.update(repr(crystal.constraints).encode())
    return digest.hexdigest()[:16]


def _record_unreadable(
    place: BatchFolder, missing: Iterable[tuple[str, NamedCrystal]]
) -> list[Task]:
    """Record the structures that cannot be read; return the others, largest first."""
    tasks = []
    for key, named in missing:
        if named.crystal is None:
            place.append(Outcome(identity(key, named.name, named.label, named.reason), {}))
        else:
            tasks.append(Task(key, named.name, named.label, named.crystal))
    return sorted(tasks, key=lambda task: len(task.crystal.unitcell), reverse=True)


def _compute(
    client: object, tasks: list[Task], setup: Setup, place: BatchFolder, progress: Progress
) -> None:
    """Compute all tasks and record them as they come."""
    function = functools.partial(compute, setup=setup)
    needs = functools.partial(_needs, options=setup.options)
    failures = 0
    with progress.tally("Crystals", len(tasks)) as show:
        for done, delivery in enumerate(dispatched(client, tasks, function, needs), 1):
            outcome = _outcome(delivery)
            place.append(outcome)
            if outcome.record["state"] == "failed":
                failures += 1
                progress.detail(f"{outcome.record['name']}: {outcome.record['reason']}")
            show(done, failures)


def _outcome(delivery: Delivery[Task, Outcome]) -> Outcome:
    if delivery.value is not None:
        return delivery.value
    task = delivery.job
    record = identity(task.key, task.name, task.label, delivery.reason)
    return Outcome(record | formula_of(task.crystal.unitcell), {})


def _needs(task: Task, options: BatchOptions) -> Needs:
    """Return the sizes that programs depend on, roughly, and the least memory."""
    cell, atoms = task.crystal.unitcell, len(task.crystal.unitcell)
    edges = atoms**2 / cell.volume * 4 / 3 * np.pi * _CUTOFF**3
    matrix = options.phonons.supercell
    matrix = task.crystal.supercell_matrix if matrix is None else matrix
    if options.phonons.exact:
        supercell = atoms
    elif matrix is not None:
        supercell = count_atoms(cell, matrix)
    else:  # a supercell is at least as large as the cube around the sphere inside
        diameter = DIAMETER if task.crystal.nac_params is None else NAC_RANGE
        supercell = int(atoms * max(1.0, diameter**3 / cell.volume))
    memory = WORKER_MEMORY // 2 + estimated_bytes(supercell, supercell // atoms, atoms)
    return Needs(graph_sizes(atoms, max(1, int(edges))), memory)

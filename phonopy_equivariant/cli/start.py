"""What run, fc and relax begin with: the device, the compilation cache, the potential."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.failures import no_device
from phonopy_equivariant.errors import PhonopyEquivariantError

if TYPE_CHECKING:
    from phonopy_equivariant.calculators.relax import RelaxationStep
    from phonopy_equivariant.features import Familiarity
    from phonopy_equivariant.io.crystals import Crystal
    from phonopy_equivariant.potential import Potential


def start_potential(args: argparse.Namespace, console: Console, structure: Any) -> Potential:
    """Return the potential of ``--model`` on ``--device`` once it is known to suit a structure."""
    from phonopy_equivariant.checkpoints.load import resolve
    from phonopy_equivariant.structure import check_distances

    check_distances(structure)
    path = resolve(args.model)  # cheap: a wrong name fails before JAX starts
    with console.stage("Starting JAX"):
        start_jax(args.device, console)
        from phonopy_equivariant.checkpoints.load import load_potential

        potential = load_potential(path, dtype=args.dtype)
    console.detail(
        f"Potential: {path}, cutoff {potential.cutoff:g} Å, "
        f"{potential.num_interactions} interactions"
    )
    potential.graph(structure)  # elements and overlaps, before anything compiles
    return potential


def begin_response(potential: Potential, console: Console) -> None:
    """Let the programs of the response compile while the crystal is looked at."""
    from phonopy_equivariant.response.bloch.rehearsal import begin_programs

    if begin_programs(potential):
        console.say(
            f"Compiling the programs of {potential.name}, once for all crystals; "
            "phonopy-equivariant models prepare does it beforehand."
        )


def start_jax(wanted: str, console: Console) -> None:
    """Start JAX on the device of ``--device``, with its compilation cache.

    Raises
    ------
    PhonopyEquivariantError
        There is no such device, or JAX has already started on another one.

    """
    from phonopy_equivariant.runtime.cache import enable_compilation_cache

    folder = enable_compilation_cache()
    import jax

    config: Any = jax.config
    before = config.jax_platforms
    if wanted != "auto":  # stronger than JAX_PLATFORMS
        config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[wanted])
    try:
        device = jax.devices()[0]
    except (RuntimeError, AssertionError) as error:  # jax 0.10 asserts where no plug-in is
        config.update("jax_platforms", before)
        raise PhonopyEquivariantError(no_device(wanted)) from error
    if wanted not in ("auto", device.platform):
        config.update("jax_platforms", before)
        raise PhonopyEquivariantError(
            f"--device {wanted}: JAX has already started on {device.platform} in this process; "
            "run the command in a process of its own."
        )
    console.detail(f"Device: {device}")
    console.detail(f"Compilation cache: {folder or 'none (no folder that can be written)'}")


def warn_if_far(
    console: Console, potential: Potential, structure: Any, found: Familiarity | None = None
) -> None:
    """Warn of a structure far from those the potential was trained on."""
    from phonopy_equivariant.checkpoints.summary import familiarity_remarks

    for remark in familiarity_remarks(potential, structure, found):
        console.warn(remark)


def relaxed_crystal(
    crystal: Crystal,
    potential: Potential,
    fmax: float | None,
    console: Console,
    symprec: float | None = None,
) -> Crystal:
    """Return the crystal with its unit cell relaxed."""
    from phonopy_equivariant.calculators.relax import FMAX, SYMPREC, relax_cell

    with watched(console) as (show, steps):
        unitcell = relax_cell(
            crystal.unitcell,
            potential,
            FMAX if fmax is None else fmax,
            show,
            crystal.constraints,
            symprec or SYMPREC,
        )
    last = steps[-1]
    console.say(
        f"Relaxed in {last.step} steps: force {last.max_force:.1e} eV/Å, "
        f"stress {last.max_stress:.1e} GPa"
    )
    return dataclasses.replace(crystal, unitcell=unitcell)


@contextlib.contextmanager
def watched(
    console: Console,
) -> Iterator[tuple[Callable[[RelaxationStep], None], list[RelaxationStep]]]:
    """Show the steps of a relaxation; yield the callback for it and the list it fills."""
    steps: list[RelaxationStep] = []
    with console.stage("Relaxing") as update:

        def show(step: RelaxationStep) -> None:
            steps.append(step)
            line = f"step {step.step}, force {step.max_force:.1e} eV/Å"
            update(f"Relaxing: {line}")
            console.detail(f"  {line}, stress {step.max_stress:.1e} GPa")

        yield show, steps

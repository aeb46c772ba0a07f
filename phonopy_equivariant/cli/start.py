"""What run, fc and relax begin with: the device, the compilation cache, the potential."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phonopy_equivariant.cli.console import Console
from phonopy_equivariant.cli.failures import no_device
from phonopy_equivariant.errors import PhonopyEquivariantError

if TYPE_CHECKING:
    from phonopy_equivariant.io.crystals import Crystal
    from phonopy_equivariant.potential import Potential
    from phonopy_equivariant.structure import StructureLike


def start_potential(
    args: argparse.Namespace, console: Console, structure: StructureLike
) -> Potential:
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


def start_crystal(
    args: argparse.Namespace, console: Console, outputs: Sequence[str], folder: str = ""
) -> tuple[Crystal, Potential]:
    """Return the crystal and the potential of a command once its files can be written.

    The files lie in ``folder``, which is made if there is none.
    """
    from phonopy_equivariant.io.crystals import read_crystal
    from phonopy_equivariant.io.outputs import check_output

    crystal = read_crystal(args.structure, args.index, console.say)
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for path in outputs:
        check_output(Path(folder) / path)
    return crystal, start_potential(args, console, crystal.unitcell)


def start_jax(device_option: str, console: Console) -> None:
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
    platforms = config.jax_platforms
    if device_option != "auto":  # stronger than JAX_PLATFORMS
        config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[device_option])
    try:
        device = jax.devices()[0]
    except (RuntimeError, AssertionError) as error:  # jax 0.10 asserts where no plug-in is
        config.update("jax_platforms", platforms)
        raise PhonopyEquivariantError(no_device(device_option)) from error
    if device_option not in ("auto", device.platform):
        config.update("jax_platforms", platforms)
        raise PhonopyEquivariantError(
            f"--device {device_option}: JAX has already started on {device.platform} in this "
            "process; run the command in a process of its own."
        )
    console.detail(f"Device: {device}")
    console.detail(f"Compilation cache: {folder or 'none (no folder that can be written)'}")

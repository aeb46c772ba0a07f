"""Whether a supercell fits into memory, asked before hours of work and not after."""

from __future__ import annotations

import os
from pathlib import Path

from phonopy_equivariant.errors import PhonopyEquivariantError


def check_memory(supercell_atoms: int, operations: int, atoms: int = 1) -> None:
    """Raise if phonopy and the force constants of a supercell would not fit into memory.

    The estimate is a lower bound: it refuses only what cannot work.

    Parameters
    ----------
    supercell_atoms, atoms
        Atoms of the supercell and of the primitive cell.
    operations
        Symmetry operations of the supercell, translations included.

    Raises
    ------
    PhonopyEquivariantError
        The supercell does not fit; the message gives the memory it needs and the memory free.

    """
    required = estimated_bytes(supercell_atoms, operations, atoms)
    available = available_memory()
    if available is not None and required > available:
        raise PhonopyEquivariantError(
            f"A supercell of {supercell_atoms} atoms needs at least {required / 2**30:.1f} GiB of "
            f"memory, and {available / 2**30:.1f} GiB are free; choose a smaller supercell=."
        )


def estimated_bytes(supercell_atoms: int, operations: int, atoms: int) -> int:
    """Return the memory (bytes) that a calculation needs at the least.

    phonopy keeps where each operation takes each atom, twice while it finds out: 8 bytes each
    (measured with silicon in phonopy 4.10: 402 MB at 1024 atoms, 4.5 GB at 3456, and 0.4 and
    4.4 here). Compact force constants are held three times (ours, phonopy's copy, the transform
    from reciprocal space), and as text of phonopy_params.yaml twice with 36 bytes a number.
    """
    numbers = 9 * atoms * supercell_atoms
    return 2 * 8 * operations * supercell_atoms + numbers * (3 * 8 + 2 * 36)


def available_memory() -> int | None:
    """Return the free memory (bytes) of this computer or container, or None if unknown."""
    limits = []
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        limits += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvail")]
    except OSError:
        if "SC_AVPHYS_PAGES" in os.sysconf_names:
            limits.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limits += _container_limit()
    return min(limits) if limits else None


def _container_limit() -> list[int]:
    """Return what a control group leaves free, if this process is in one with a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text("ascii").strip()
        used = int((folder / "memory.current").read_text("ascii"))
        statistics = dict(
            line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines()
        )
    except (OSError, ValueError):
        return []
    if limit == "max":
        return []
    return [int(limit) - used + int(statistics.get("inactive_file", 0))]

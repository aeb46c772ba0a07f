"""A converted model of mace-torch against the original, which mace-torch itself opens.

That runs whatever code is in the file, and needs torch and mace-torch (the extra ``mace``).
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError, pip_install
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.structure import Structure

# Largest deviation of energy per atom (eV) and forces (eV/Å), relative to the largest force or 1.
# Models stored in single precision have coupling coefficients that are rounded to 6e-8.
AGREEMENT = 1e-5


def require_agreement(
    source: Path, potential: Potential, head: str | None = None
) -> tuple[float, float]:
    """Return deviations of energy per atom (eV) and forces (eV/Å) from mace-torch's.

    Raises
    ------
    PhonopyEquivariantError
        torch or mace-torch are not installed, or cannot open the file; or the potentials
        disagree on a random structure.

    """
    energy, forces = deviation(_load(source), potential, head)
    if not max(energy, forces) < AGREEMENT:
        raise PhonopyEquivariantError(
            f"{source}: the converted potential differs from the original by {energy:.1g} eV/atom "
            f"and {forces:.1g} eV/Å on a random structure; nothing was written, please report it."
        )
    return energy, forces


def _load(source: Path) -> Any:
    try:
        # its modules print on import
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mace  # noqa: F401  # before e3nn
            import torch

            model = torch.load(source, map_location="cpu", weights_only=False)
    except ImportError as error:
        raise PhonopyEquivariantError(
            f"Comparing with mace-torch needs {error.name}: {pip_install('mace')}; the conversion "
            "alone does without."
        ) from error
    except Exception as error:  # whatever unpickling runs into
        raise PhonopyEquivariantError(
            f"{source} cannot be read as a model of mace-torch ({type(error).__name__}); "
            "give the file that training or a download wrote, not one compiled for LAMMPS."
        ) from error
    if not isinstance(model, torch.nn.Module):
        raise PhonopyEquivariantError(
            f"{source} has {type(model).__name__} inside, not a whole model: save it with "
            "torch.save(model, ...)."
        )
    return model.double().eval()


def deviation(model: Any, potential: Potential, head: str | None = None) -> tuple[float, float]:
    """Return deviations of energy per atom (eV) and forces (eV/Å), relative to forces above one.

    On five atoms of up to five species in a skewed cell, as close as covalent radii allow.
    """
    structure = _random_structure(potential)
    energy, forces = evaluate_torch(model, potential, structure, head)
    result = potential.evaluate(structure)
    scale = max(1.0, float(np.abs(forces).max()))
    return (
        abs(result.energy - energy) / len(forces) / scale,
        float(np.abs(result.forces - forces).max()) / scale,
    )


def evaluate_torch(
    model: Any, potential: Potential, structure: Structure, head: str | None = None
) -> tuple[float, ndarray]:
    """Return energy and forces of a mace-torch model on this package's graph of a structure."""
    import torch

    graph = potential.graph(structure)
    numbers = model.atomic_numbers.cpu().numpy()
    heads = list(getattr(model, "heads", None) or ["Default"])
    senders, receivers = np.asarray(graph.senders), np.asarray(graph.receivers)
    unit_shifts = -np.asarray(graph.edges["shifts"], float)  # theirs point from sender to receiver
    data = {
        "positions": torch.tensor(structure.positions, dtype=torch.float64),
        "cell": torch.tensor(structure.cell, dtype=torch.float64),
        "node_attrs": torch.tensor((structure.numbers[:, None] == numbers).astype(float)),
        "edge_index": torch.tensor(np.stack([senders, receivers]).astype(np.int64)),
        "unit_shifts": torch.tensor(unit_shifts),
        "shifts": torch.tensor(unit_shifts @ structure.cell),
        "batch": torch.zeros(len(structure.numbers), dtype=torch.int64),
        "ptr": torch.tensor([0, len(structure.numbers)]),
        "head": torch.tensor([heads.index(head) if head else 0]),
    }
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        output = model(data)
    finally:
        torch.set_default_dtype(default)
    return float(output["energy"].detach().sum()), output["forces"].detach().numpy()


def _random_structure(potential: Potential) -> Structure:
    rng = np.random.default_rng(0)
    numbers = rng.permutation(np.resize(rng.permutation(potential.species)[:5], 5))
    edge = 0.8 * potential.cutoff
    cell = edge * np.array([[1.0, 0.0, 0.0], [0.2, 1.1, 0.0], [-0.1, 0.25, 0.9]])
    fractions = np.array(
        [[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5], [0.4, 0.6, 0.5]]
    )
    positions = fractions @ cell + rng.uniform(-0.1, 0.1, (5, 3))
    return Structure(numbers, positions, cell, np.ones(3, bool))

"""Energies, forces and stresses equal those of the upstream Nequix code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phonopy_equivariant.checkpoints.load import load_potential
from phonopy_equivariant.graph import edge_bucket
from phonopy_equivariant.structure import Structure

MODELS = ("nequix-mp-1-pft", "nequix-oam-1-pft")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_energy_forces_and_stress_equal_upstream(model: str, shared: Path):
    potential = load_potential(shared / "models" / f"{model}.nqx")
    files = sorted((shared / "reference" / "public").glob(f"*.{model}.npz"))
    assert files, "no reference values for this model"
    cases = [np.load(file) for file in files]
    structures = [
        Structure(case["numbers"], case["rattled_positions"], case["cell"], np.ones(3, bool))
        for case in cases
    ]
    graphs = [potential.graph(structure) for structure in structures]
    # one shape for all, compiled once
    nodes = max(len(structure.numbers) for structure in structures) + 1
    edges = edge_bucket(max(int(graph.n_edge[0]) for graph in graphs))
    for file, case, graph in zip(files, cases, graphs, strict=True):
        result = potential.evaluate_graph(graph, nodes, edges)
        atoms = len(case["numbers"])
        # both sides are float64 arithmetic on the same float32 weights: measured agreement is
        # 2e-15 eV/atom, 6e-15 eV/Å, 3e-16 eV/Å³; the margin is for other orders of summation
        np.testing.assert_allclose(
            result.energy / atoms, case["energy"] / atoms, rtol=0, atol=1e-10, err_msg=file.name
        )
        np.testing.assert_allclose(
            result.forces, case["forces"], rtol=0, atol=1e-10, err_msg=file.name
        )
        np.testing.assert_allclose(
            result.stress, case["stress"], rtol=0, atol=1e-12, err_msg=file.name
        )

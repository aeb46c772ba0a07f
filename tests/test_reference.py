"""Energies, forces, stresses and force constants equal those of the upstream Nequix code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phonopy_equivariant.checkpoints.load import load_potential
from phonopy_equivariant.graph import edge_bucket
from phonopy_equivariant.response.autodiff.hessian import structure_hessian_rows
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
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


def assert_bloch_equals_upstream(name: str, model: str, shared: Path) -> None:
    """Upstream: rows of the Hessian of the 2x2x2 supercell; here: Φ(q) at its eight q."""
    potential = load_potential(shared / "models" / f"{model}.nqx")
    case = np.load(shared / "reference" / "public" / f"{name}.{model}.npz")
    atoms = len(case["numbers"])
    structure = Structure(
        case["numbers"], case["supercell_positions"][:atoms], case["cell"], np.ones(3, bool)
    )
    cells = np.indices(case["supercell_repeat"]).reshape(3, -1).T
    qpoints = cells / case["supercell_repeat"]
    found = lattice_force_constants(potential, structure, qpoints)
    blocks = found.reshape(-1, atoms, 3, atoms, 3)
    phase = np.exp(-2j * np.pi * qpoints @ cells.T) / len(qpoints)
    inverse = np.einsum("qiajb,qc->icjab", blocks, phase).real
    # measured: 3e-14 eV/Å²; asked: 1e-7
    np.testing.assert_allclose(
        inverse.reshape(atoms, -1, 3, 3), case["force_constants"], rtol=0, atol=1e-10
    )


@pytest.mark.slow
def test_bloch_force_constants_equal_upstream(shared: Path):
    """The other model is in test_reference_as_users_do.py."""
    assert_bloch_equals_upstream("SrTiO3_cubic", MODELS[0], shared)


@pytest.mark.slow
def test_autodiff_force_constants_equal_upstream(shared: Path):
    potential = load_potential(shared / "models" / f"{MODELS[0]}.nqx")
    case = np.load(shared / "reference" / "public" / f"NaCl_rocksalt.{MODELS[0]}.npz")
    cell = case["cell"] * case["supercell_repeat"][:, None]
    supercell = Structure(
        case["supercell_numbers"], case["supercell_positions"], cell, np.ones(3, bool)
    )
    rows = structure_hessian_rows(potential, supercell, np.arange(len(case["numbers"])))
    # measured: 3e-14 eV/Å²; asked: 1e-7
    np.testing.assert_allclose(rows, case["force_constants"], rtol=0, atol=1e-10)

"""Blocks of fixed size: right at every boundary, and no program depends on the crystal."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from ase.build import bulk
from conftest import small_config
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from test_mace import mace_config

import phonopy_equivariant as pe
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.response.autodiff.extended import extended_force_constants
from phonopy_equivariant.response.bloch import execution, lattice
from phonopy_equivariant.runtime import compilation
from phonopy_equivariant.structure import Structure

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="blocks are driven from the host on the CPU only"
)

QPOINTS = np.array([[0.0, 0, 0], [0.25, 0.1, -0.3], [0.5, 0, 0.5]])
MODELS = {
    "NequIP": lambda: random_potential(small_config(species=(8, 11, 17)), seed=1),
    "MACE": lambda: random_potential(mace_config(interactions=("residual",)), seed=1),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Potential:
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def expected(model: Potential, cell: Structure) -> np.ndarray:
    """Return Φ(q) by automatic differentiation of the extended graph."""
    return extended_force_constants(model, cell, QPOINTS)


@pytest.fixture(scope="module")
def cell(model: Potential) -> Structure:
    """Return three atoms without symmetry."""
    vectors = np.array([[3.1, 0.0, 0.0], [0.6, 3.3, 0.0], [-0.4, 0.8, 3.0]])
    fractions = np.array([[0.02, 0.0, 0.0], [0.5, 0.45, 0.1], [0.1, 0.5, 0.55]])
    numbers = np.resize(model.species, 3)
    return Structure(numbers, fractions @ vectors, vectors, np.ones(3, bool))


@pytest.mark.parametrize("over", [0, 1], ids=["count", "count + 1"])
@pytest.mark.parametrize("axis", ["edges", "atoms", "rows", "q"])
def test_response_at_the_boundaries_of_blocks(
    model: Potential,
    cell: Structure,
    expected: np.ndarray,
    axis: str,
    over: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A block that is just full, and one item more than fits: 1e-9 eV/Å² as between all roads."""
    counts = {
        "edges": int(model.graph(cell).n_edge[0]),
        "atoms": 3,
        # real and imaginary part of nine columns, without those that vanish where 2q = G
        "rows": (1 + 2 + 1) * 9,
        "q": len(QPOINTS),
    }
    size = counts[axis] - over
    if axis == "q":
        monkeypatch.setattr(lattice, "block_size", lambda *_: size)
    else:
        monkeypatch.setattr(execution, axis.upper(), size)
    phi = lattice.lattice_force_constants(model, cell, QPOINTS)
    np.testing.assert_allclose(phi, expected, rtol=0, atol=1e-9)


def phonon(name: str, structure: str, **cell: float) -> Phonopy:
    atoms = bulk(name, structure, **cell)
    unitcell = PhonopyAtoms(numbers=atoms.numbers, cell=atoms.cell, positions=atoms.positions)
    return Phonopy(unitcell, np.diag([2, 2, 2]), primitive_matrix=np.eye(3), log_level=0)


def test_a_second_crystal_compiles_nothing() -> None:
    """Crystals of other sizes, symmetries and supercells run the programs of the first one."""
    potential = random_potential(small_config(species=(8, 11, 12, 14, 17, 30)), seed=2)
    compilation.forget()

    def programs() -> int:
        return sum(len(function._programs) for function in execution.PROGRAMS.values())

    assert programs() == 0
    pe.set_force_constants(phonon("Si", "diamond", a=5.4), potential)
    # two layers of two kinds: start, geometry, and five for each kind
    assert programs() == 12
    for crystal in (
        phonon("NaCl", "rocksalt", a=5.6),
        phonon("ZnO", "wurtzite", a=3.25, c=5.2),
        phonon("Mg", "hcp", a=3.2, c=5.2),
        phonon("NaCl", "rocksalt", a=4.9, cubic=True),
    ):
        pe.set_force_constants(crystal, potential)
    assert programs() == 12

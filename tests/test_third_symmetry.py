"""What third derivatives save: gates without programs, stars of q, edges that symmetry relates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from cli_helpers import installed
from conftest import BOTH_PARITIES, assert_close, small_config
from nequip_variants import variant
from test_mace import mace_config

import phonopy_equivariant as pe
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.response.bloch.network import Network
from phonopy_equivariant.response.symmetry.operations import kept_by_energy, obeyed, search
from phonopy_equivariant.response.third import expansion, lattice, phases
from phonopy_equivariant.response.third.edge_orbits import edge_orbits
from phonopy_equivariant.response.third.expansion import ThirdExpansion, expand_to_third_order
from phonopy_equivariant.response.third.lattice import lattice_third_derivatives
from phonopy_equivariant.response.third.rehearsal import rehearse_third_order
from phonopy_equivariant.response.third.sweep import FirstOrder
from phonopy_equivariant.runtime import compilation
from phonopy_equivariant.structure import Structure

# one triplet of complex numbers, one of real and complex ones
PAIRS = np.array([[[0.13, 0.27, -0.41], [0.31, -0.05, 0.22]], [[0.5, 0, 0], [0.1, 0.2, 0]]])

GATES = {
    "plain": {},
    "both parities, norm, biases": {**BOTH_PARITIES, "layer_norm": True, "biases": True},
    "readout that is not linear": {"readout_widths": (4,), "biases": True},
}


@pytest.mark.parametrize("name", GATES)
def test_gates_equal_automatic_differentiation(
    name: str, crystal: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channelwise formulas against the program for any layer."""
    potential = random_potential(small_config(num_interactions=2, **GATES[name]), seed=3)
    structure = crystal._replace(numbers=crystal.numbers[:2], positions=crystal.positions[:2])
    result = lattice_third_derivatives(potential, structure, PAIRS)
    monkeypatch.setattr(expansion, "_gates", lambda *_: None)
    assert_close(result, lattice_third_derivatives(potential, structure, PAIRS))


def test_operators_that_do_not_fit_are_made_again(
    crystal: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    potential = random_potential(small_config(num_interactions=2), seed=3)
    structure = crystal._replace(numbers=crystal.numbers[:2], positions=crystal.positions[:2])
    result = lattice_third_derivatives(potential, structure, PAIRS)
    monkeypatch.setattr(phases, "KEPT", 0)
    assert_close(result, lattice_third_derivatives(potential, structure, PAIRS), 1e-14)


STARS = {
    "both parities": lambda: random_potential(
        small_config(num_interactions=2, **BOTH_PARITIES), seed=7
    ),
    "rotations alone": lambda: variant("rotations alone", hidden_irreps="3x0e + 2x1e", l_max=1),
    "MACE": lambda: random_potential(mace_config(interactions=("residual",)), seed=1),
}


@pytest.mark.parametrize("name", STARS)
@pytest.mark.parametrize("kind", ["wurtzite", "rocksalt"])
def test_stars_of_q(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotated first orders give what those computed at each q give; no other symmetry enters."""
    potential = STARS[name]()
    atoms = bulk("NaCl", kind, a=3.3)
    structure = Structure(atoms.numbers, atoms.positions, atoms.cell[:], np.ones(3, bool))
    symmetry = kept_by_energy(obeyed(search(structure, 1e-5)), potential.parity)
    pairs = np.array([[[0, 0, 0.3], [0.3, 0, 0]], [[0.5, 0, 0], [0, 0.5, 0]]])
    computed: list[int] = []
    kept = lattice._kept

    def counted(crystal: ThirdExpansion, qpoints: np.ndarray) -> list[FirstOrder]:
        computed.append(len(qpoints))
        return kept(crystal, qpoints)

    monkeypatch.setattr(lattice, "_kept", counted)
    expected = lattice_third_derivatives(potential, structure, pairs)
    result = lattice_third_derivatives(potential, structure, pairs, symmetry=symmetry)
    assert_close(result, expected)
    assert computed[1] < computed[0]


@pytest.mark.parametrize("kind", ["nequip", "mace"])
def test_single_precision_of_several_layers_with_symmetry(kind: str) -> None:
    config = {
        "nequip": small_config(num_interactions=2),
        "mace": mace_config(interactions=("residual", "residual")),
    }[kind]
    double, single = (random_potential(config, seed=1, dtype=d) for d in ("float64", "float32"))
    atoms = bulk("NaCl", "wurtzite", a=3.3)
    structure = Structure(atoms.numbers, atoms.positions, atoms.cell[:], np.ones(3, bool))
    symmetry = obeyed(search(structure, 1e-5))
    expected = lattice_third_derivatives(double, structure, PAIRS[:1])
    result = lattice_third_derivatives(single, structure, PAIRS[:1], symmetry=symmetry)
    assert_close(result, expected, 1e-3)


@pytest.mark.parametrize("name", ["MACE", "both parities"])
def test_programs_begun_together_are_those_that_are_needed(name: str) -> None:
    """What ``models prepare --third-order`` compiles is all that a crystal needs."""
    potential = STARS[name]()
    compilation.forget()
    for program in rehearse_third_order(potential):
        program.executable.result()
    before = compilation.count_programs()
    lattice_third_derivatives(potential, bulk("NaCl", "rocksalt", a=3.3), PAIRS)
    assert compilation.count_programs() == before > 0


def test_an_edge_without_its_image_means_no_orbits() -> None:
    """As where rounding puts one of two equal edges beyond the cutoff."""
    potential = STARS["both parities"]()
    atoms = bulk("NaCl", "rocksalt", a=3.3)
    structure = Structure(atoms.numbers, atoms.positions, atoms.cell[:], np.ones(3, bool))
    symmetry = obeyed(search(structure, 1e-5))
    crystal = expand_to_third_order(potential, structure)
    network = Network(crystal.unit, crystal.senders, crystal.receivers, crystal.species)
    orbits = edge_orbits(symmetry, network, crystal.shifts, ["0e"])
    # three shells of 12, 6 and 8 neighbours around each of two atoms
    assert orbits is not None and len(crystal.shifts) == 52 and len(orbits.representatives) == 6
    fewer = Network(*(x[1:] for x in network[:3]), network.species)
    assert edge_orbits(symmetry, fewer, crystal.shifts[1:], ["0e"]) is None


def test_models_prepare_third_order(tmp_path: Path, one_layer: Potential) -> None:
    pe.save_checkpoint(one_layer, tmp_path / "small.npz")
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    said = installed(
        "models", "prepare", "small.npz", "--third-order", cwd=tmp_path, **cache
    ).stdout
    kept = list((tmp_path / "programs" / "phonopy_equivariant").iterdir())
    # seven of second order; geometry, terms of edges, the readout's slope, changes of adjoints
    assert " programs, " in said and len(kept) == 11

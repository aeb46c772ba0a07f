"""The audit of a model: what it says of laws and jumps that are known; warnings of neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.data import covalent_radii
from conftest import small_config
from nequip_variants import variant
from phonopy.structure.symmetry import Symmetry

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints.native import save_checkpoint
from phonopy_equivariant.cli import run_command
from phonopy_equivariant.evaluation import smoothness
from phonopy_equivariant.evaluation.audit import five_atoms
from phonopy_equivariant.evaluation.smoothness import (
    bond_derivatives,
    jumps_at,
    smoothness_remarks,
    unannounced,
)
from phonopy_equivariant.models.mace_config import MACEConfig
from phonopy_equivariant.potential import random_potential
from phonopy_equivariant.structure import neighbours, to_phonopy

# frequencies that are no multiples of π/cutoff, as training leaves them
TRAINED = {"num_interactions": 1, "frequencies": (0.7, 2.1, 2.9, 4.4)}


def test_rotations_alone_and_a_curvature_that_jumps() -> None:
    result = pe.audit(variant("rotations alone", hidden_irreps="4x0e + 3x1e", l_max=1))
    assert not result.parity
    assert result.rotation < 1e-9 * result.force < result.reflection
    assert result.sum_rule < 1e-9
    assert 1e-9 < result.rounding_force < 1e-3 * result.force
    # XPLOR: C1 at the onset and at the cutoff
    assert {
        (jump.radius, order) for jump, order in zip(result.jumps, result.smoothness, strict=True)
    } == {
        (2.1, 1),
        (3.0, 1),
    }
    assert result.unannounced == ()
    text = "\n".join(result.lines())
    assert "rotations alone" in text and "C1: the second derivative jumps by" in text


def test_parity_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_checkpoint(random_potential(small_config(**TRAINED), seed=2), tmp_path / "s.npz")
    result = pe.audit(path)
    assert result.parity
    assert max(result.rotation, result.reflection) < 1e-9 * result.force
    assert set(result.smoothness) == {2}
    assert {jump.radius for jump in result.jumps} == {3.0}
    assert run_command(["models", "audit", str(path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if "third derivative jumps by" in line] == [
        line for line in result.lines() if "at 3 Å" in line
    ]


def test_atoms_of_the_audit_are_as_far_apart_as_bonds() -> None:
    """Forces of 1000 eV/Å, between atoms that overlap, say nothing about rounding."""
    crystal = five_atoms((14, 8))
    i, j, _, distances = neighbours(crystal, 6.0)
    ratios = distances / (covalent_radii[crystal.numbers[i]] + covalent_radii[crystal.numbers[j]])
    assert abs(ratios.min() - 1) < 1e-9
    assert len(Symmetry(to_phonopy(crystal)).symmetry_operations["rotations"]) == 1


def test_bessel_functions_end_at_the_cutoff_as_well() -> None:
    """Their product with a polynomial envelope is smooth once more."""
    potential = random_potential(small_config(num_interactions=1), seed=2)
    assert potential.config.kinks((8,)) == ((3.0, 4, None),)
    scale = np.abs(bond_derivatives(potential, (8, 17), np.linspace(1.5, 2.9, 15))).max(axis=0)
    (jump,) = jumps_at(potential, (8, 17), (3.0,))
    assert jump.continuous(scale) == 3


def test_jumps_are_those_of_the_envelope() -> None:
    """At the cutoff an energy ends with a third derivative: it jumps by that."""
    potential = random_potential(small_config(**TRAINED), seed=2)
    assert potential.config.kinks((8,)) == ((3.0, 3, None),)
    pair, cutoff = (8, 17), potential.cutoff
    (jump,) = jumps_at(potential, pair, (cutoff,))
    inside = bond_derivatives(potential, pair, np.array([cutoff - 1e-6]))[0]
    assert abs(jump.jumps[3] + inside[3]) < 1e-3 * abs(inside[3])
    assert np.abs(jump.jumps[:3]).max() < 1e-4 * abs(inside[3])


def test_a_scan_finds_jumps_that_are_not_announced() -> None:
    potential = variant("rotations alone", num_interactions=1, skips=())
    assert unannounced(potential, (8, 17), (2.1, 3.0)) == ()
    near = unannounced(potential, (8, 17), (3.0,))
    assert near and all(abs(radius - 2.1) < 0.02 for radius in near)


@pytest.mark.parametrize(("width", "jumps"), [(3e-3, False), (1e-9, True)])
def test_a_steep_bond_is_no_jump(
    monkeypatch: pytest.MonkeyPatch, potential: pe.Potential, width: float, jumps: bool
) -> None:
    """Both second derivatives, tanh((r - 1.302)/width), change within one step of the scan."""

    def derivatives(_potential: object, _pair: object, radii: np.ndarray) -> np.ndarray:
        second = np.tanh((radii - 1.302) / width)
        return np.stack([0 * radii, 0 * radii, second, (1 - second**2) / width], axis=1)

    monkeypatch.setattr(smoothness, "bond_derivatives", derivatives)
    assert bool(unannounced(potential, (8, 17), (3.0,))) == jumps


def salt(potential: pe.Potential, distance: float) -> list[str]:
    """Return remarks on rock salt whose ions are this far from one another."""
    atoms = bulk("NaCl", "rocksalt", a=2 * distance)
    return smoothness_remarks(potential, atoms)


def test_neighbours_near_a_jump_are_warned_of() -> None:
    potential = variant("rotations alone")
    for distance, warned in ((2.115, True), (2.085, True), (2.13, False), (2.9, False)):
        remarks = " ".join(salt(potential, distance))
        assert ("2.1 Å, where the second derivative" in remarks) == warned
    assert "of 3 Å" in salt(potential, 3.01)[0]  # beyond the cutoff, but moving atoms come inside
    # a polynomial envelope is smooth enough for force constants, not for Grüneisen parameters
    smooth = random_potential(small_config(**TRAINED), seed=1)
    atoms = bulk("NaCl", "rocksalt", a=6.01)
    assert smoothness_remarks(smooth, atoms) == []
    assert "third derivative" in smoothness_remarks(smooth, atoms, derivative=3)[0]


def test_radii_of_pairs() -> None:
    """The pair term of MACE and the cutoffs of NequIP's pairs belong to two elements each."""
    mace = MACEConfig((11, 17), cutoff=5.0, covalent_radii=(1.66, 1.02), pair_repulsion=True)
    radii = {kink.pair: kink.radius for kink in mace.kinks({17})}
    assert radii == {None: 5.0, (17, 17): 2.04}
    potential = variant("numbers of species")  # 11-17 ends at 3.0 and 2.6 Å
    atoms = bulk("NaCl", "rocksalt", a=2 * 3.06)
    assert smoothness_remarks(potential, atoms, derivative=3) == []
    atoms = bulk("NaCl", "rocksalt", a=2 * 2.61)
    assert "2.6 Å" in smoothness_remarks(potential, atoms, derivative=3)[0]

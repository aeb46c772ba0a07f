"""Structures that are symmetric within a tolerance only: numbers are those of the structure given.

Sites off by 1e-6 to 1e-2 Å, searches for symmetry from 1e-5 to 1e-1 Å.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal as ase_crystal
from phonopy import Phonopy
from phonopy.harmonic.force_constants import compact_fc_to_full_fc
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.phonons.cells import (
    phonopy_operations,
    primitive_operations,
    supercell_images,
    supercell_of_primitive,
)
from phonopy_equivariant.phonons.exact import use_exact_dynamical_matrix
from phonopy_equivariant.phonons.residuals import permutation_residual, sum_rule_residual
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.autodiff.hessian import structure_hessian_rows
from phonopy_equivariant.response.symmetry.operations import obeyed, search, symmetrised
from phonopy_equivariant.response.symmetry.star import equivalent_q, real_q
from phonopy_equivariant.structure import as_structure

pytestmark = pytest.mark.filterwarnings(
    "ignore:primitive_matrix defaulted to 'auto'",
    "ignore:.*Point group symmetries of supercell",
    "ignore:Crystal structure is distorted in a tricky way",
)

AMPLITUDES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)  # Å
TOLERANCES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # Å

KINDS = ("all", "one", "bond", "cell")

CRYSTALS = {
    "silicon": bulk("Si"),
    "silicon, conventional": bulk("Si", cubic=True),
    "rutile": ase_crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0.3053, 0.3053, 0)],
        spacegroup=136,
        cellpar=[3.9, 3.9, 2.7] + [90] * 3,
    ),
    "quartz": ase_crystal(
        ["Si", "O"],
        [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.2144)],
        spacegroup=152,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    ),
    "rock salt, conventional": bulk("NaCl", "rocksalt", a=5.64, cubic=True),
}


def disturbed(atoms: Atoms, kind: str, amplitude: float, seed: int) -> Atoms:
    """Return a copy with all atoms, one atom, one atom along a bond, or the cell off."""
    rng = np.random.default_rng(seed)
    moved = atoms.copy()
    if kind == "all":
        moved.positions += rng.uniform(-amplitude, amplitude, (len(atoms), 3))
    elif kind == "one":
        direction = rng.normal(size=3)
        moved.positions[-1] += amplitude * direction / np.linalg.norm(direction)
    elif kind == "bond":
        bond = moved.positions[1] - moved.positions[0]
        moved.positions[1] += amplitude * bond / np.linalg.norm(bond)
    else:
        strain = amplitude / 5 * rng.uniform(-1, 1, (3, 3))
        moved.set_cell(moved.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return moved


def phonopy_of(
    atoms: Atoms, symprec: float, matrix: object = np.eye(3, dtype=int), primitive: object = "auto"
) -> Phonopy:
    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(), cell=atoms.cell.array, positions=atoms.positions
    )
    return Phonopy(cell, matrix, primitive_matrix=primitive, symprec=symprec, log_level=0)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("silicon", k) for k in KINDS] + [("silicon, conventional", "one"), ("rutile", "bond")],
)
def test_force_constants_are_those_of_the_structure_given(
    name: str, kind: str, one_layer: Potential
) -> None:
    """To 1e-9 eV/Å², or one line that names the distance; the Hessian knows no symmetry."""
    right = refused = 0
    for seed, (amplitude, tolerance) in enumerate(itertools.product(AMPLITUDES, TOLERANCES)):
        try:
            phonon = phonopy_of(disturbed(CRYSTALS[name], kind, amplitude, seed), tolerance)
            found = pe.force_constants(phonon, one_layer)
        except (RuntimeError, pe.PhonopyEquivariantError) as error:
            # phonopy itself folds no atoms that are too far from each other
            assert "trimming failed" in str(error) or "repeats only within" in str(error)
            refused += 1
            continue
        rows = np.array(phonon.primitive.p2s_map)
        expected = structure_hessian_rows(one_layer, as_structure(phonon.supercell), rows)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        right += 1
    # a smaller primitive cell cannot hold a structure that breaks its translations
    assert right + refused == 25 and (
        right >= 5 and refused >= 5 if "conv" in name else not refused
    )


def test_report_shows_the_distance_and_the_true_forces(one_layer: Potential) -> None:
    """Forces of a structure that is off are not averaged away; its distance is arithmetic."""
    for off, tolerance in ((4e-6, 1e-5), (5e-3, 1e-2)):
        atoms = CRYSTALS["silicon"].copy()
        atoms.positions[1] += [off, 0, 0]
        phonon = phonopy_of(atoms, tolerance)
        report = pe.set_force_constants(phonon, one_layer)
        # mmm is left. A twofold axis along y takes the bond (1/4 + off, 1/4, 1/4) to that with
        # 1/4 - off but for a lattice vector, and each atom misses by half of 2 off
        assert report.symmetry.operations == 48 and report.symmetry.used == 8
        assert report.deviation == pytest.approx(off, rel=1e-6)
        assert f"{report.deviation:.1e} Å" in "\n".join(report.lines())
        forces = np.linalg.norm(one_layer.evaluate(phonon.primitive).forces, axis=1)
        assert report.residual_force == pytest.approx(forces.max(), rel=1e-9)
        assert bool(report.symmetry.remarks()) == (off > 1e-5)


@pytest.mark.parametrize("name", CRYSTALS)
def test_operations_that_are_obeyed_are_a_group(name: str) -> None:
    """Whatever the noise, and a bound amid the deviations."""
    rng = np.random.default_rng(5)
    sizes = set()
    for kind, amplitude in itertools.product(KINDS, (1e-12, 1e-6, 1e-3)):
        atoms = disturbed(CRYSTALS[name], kind, amplitude, seed=int(1e6 * rng.random()))
        every = search(as_structure(atoms), 1e-2)
        bounds = [1e-11, *rng.choice(every.deviation, 5), *(1.01 * rng.choice(every.deviation, 5))]
        for bound in bounds:
            group = obeyed(every, bound)
            assert group.deviation.max() <= bound or len(group.deviation) == 1
            # an operation is told by its rotation and its images of atoms
            weights = rng.integers(1, 2**40, 9 + len(atoms))
            names = np.hstack([group.rotations.reshape(-1, 9), group.image]) @ weights
            rotations = group.rotations[:, None] @ group.rotations
            images = group.image[:, group.image]
            flat = np.concatenate([rotations.reshape(*rotations.shape[:2], 9), images], axis=2)
            assert np.isin(flat @ weights, names).all()
            sizes.add(len(names))
    assert len(sizes) > 1


@pytest.mark.parametrize("name", CRYSTALS)
def test_symmetrised_structures_have_the_group_exactly(name: str) -> None:
    """spglib finds the group at 1e-9 Å in a crystal that had it within 1e-2 Å only."""
    ideal = CRYSTALS[name]
    group = spglib.get_symmetry_dataset(
        (ideal.cell.array, ideal.get_scaled_positions(), ideal.numbers)
    )
    for seed in range(3):
        atoms = disturbed(disturbed(ideal, "all", 2e-3, seed), "cell", 2e-3, seed)
        structure = as_structure(atoms)
        exact = symmetrised(structure, search(structure, 3e-2))
        fractions = exact.positions @ np.linalg.inv(exact.cell)
        found = spglib.get_symmetry_dataset((exact.cell, fractions, exact.numbers), symprec=1e-9)
        assert found.number == group.number
        assert np.linalg.norm(exact.positions - structure.positions, axis=1).max() < 1e-2
        assert search(exact, 1e-5).deviation.max() < 1e-13
        kept = symmetrised(structure, search(structure, 3e-2), cell=False)
        np.testing.assert_array_equal(kept.cell, structure.cell)


def test_exact_mode_is_that_of_the_structure_given(one_layer: Potential) -> None:
    atoms = disturbed(CRYSTALS["silicon"], "one", 5e-3, seed=1)
    phonon = phonopy_of(atoms, 1e-2)
    report = use_exact_dynamical_matrix(phonon, one_layer, tolerance=1e-5)
    assert report.symmetry.used < report.symmetry.operations == 48
    qpoints = np.random.default_rng(1).uniform(-1, 1, (5, 3))
    expected = pe.dynamical_matrices(one_layer, phonon.primitive, qpoints)
    phonon.run_qpoints(qpoints, with_dynamical_matrices=True)
    squares = np.linalg.eigvalsh(np.stack([expected, phonon.qpoints.dynamical_matrices]))
    found = np.sign(squares) * np.sqrt(np.abs(squares)) * phonon.unit_conversion_factor
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_residuals_of_compact_force_constants() -> None:
    """As from the full array, for force constants that obey neither law."""
    rng = np.random.default_rng(2)
    for name, matrix in (
        ("silicon", [[-1, 1, 1], [1, -1, 1], [1, 1, -1]]),
        ("silicon, conventional", np.diag([2, 1, 1])),
        ("rutile", [[2, 0, 0], [1, 2, 0], [0, 0, 1]]),
        ("rock salt, conventional", np.diag([1, 2, 3])),
    ):
        phonon = phonopy_of(CRYSTALS[name], 1e-5, matrix)
        owner, cells = supercell_images(phonon)
        rows = np.array(phonon.primitive.p2s_map)
        shape = supercell_of_primitive(phonon)
        compact = rng.normal(size=(len(rows), len(owner), 3, 3))
        full = compact_fc_to_full_fc(phonon.primitive, compact)
        sums = max(np.abs(full.sum(axis=axis)).max() for axis in (0, 1))
        assert sum_rule_residual(compact, owner) == pytest.approx(sums, rel=1e-12)
        expected = np.abs(full - full.transpose(1, 0, 3, 2)).max()
        found = permutation_residual(compact, cells, owner, rows, shape)
        assert found == pytest.approx(expected, rel=1e-12)
        symmetric = (full + full.transpose(1, 0, 3, 2))[rows] / 2
        assert permutation_residual(symmetric, cells, owner, rows, shape) < 1e-14


def test_equivalent_q() -> None:
    rng = np.random.default_rng(3)
    q = rng.uniform(-2, 2, (50, 3))
    lattice = rng.integers(-5, 6, (50, 3))
    assert equivalent_q(q + lattice, q).all()
    assert not equivalent_q(q + lattice + 1e-10 * np.sign(q), q).any()
    assert real_q(lattice / 2).all() and real_q(lattice / 2 + 1e-14).all()
    assert not real_q(lattice / 2 + [0, 1e-8, 0]).any()
    assert real_q(np.zeros((0, 3))).shape == (0,)


def test_operations_of_phonopy_are_used_where_they_are_exact() -> None:
    for name, count in (("silicon", 48), ("rutile", 16), ("quartz", 6)):
        phonon = phonopy_of(CRYSTALS[name], 1e-2)
        assert len(primitive_operations(phonon).rotations) == count
        assert phonopy_operations(phonon).deviation.max() < 1e-13

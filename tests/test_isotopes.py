"""Isotopes on equivalent sites: force constants keep the group, D(q) and its modes do not."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import phonopy
import pytest
import spglib
import yaml
from ase.build import bulk
from ase.spacegroup import crystal as ase_crystal
from cli_helpers import command, model, rutile
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from vesin import NeighborList

import phonopy_equivariant as pe
from phonopy_equivariant.phonons.cells import masses_break_symmetry
from phonopy_equivariant.phonons.exact import use_exact_dynamical_matrix
from phonopy_equivariant.phonons.gamma_modes import gamma_modes
from phonopy_equivariant.phonons.report import ISOTOPES
from phonopy_equivariant.potential import Potential

ONE = np.eye(3, dtype=int)

CRYSTALS = {
    "quartz": ase_crystal(
        ["Si", "O"],
        [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.2144)],
        spacegroup=152,
        cellpar=[4.91, 4.91, 5.40, 90, 90, 120],
    ),
    "rutile": ase_crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0.3053, 0.3053, 0)],
        spacegroup=136,
        cellpar=[4.59, 4.59, 2.96, 90, 90, 90],
    ),
    # translations are broken by most choices of masses: the group is that of a larger crystal
    "silicon, conventional": bulk("Si", cubic=True),
}


def with_springs(name: str, masses: np.ndarray) -> Phonopy:
    """Return a crystal of springs between neighbours: they have all of its symmetry."""
    atoms = CRYSTALS[name]
    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(), cell=atoms.cell.array, positions=atoms.positions
    )
    phonon = Phonopy(cell, ONE, primitive_matrix="P", log_level=0)
    phonon.masses = masses
    i, j, distance, vectors = NeighborList(cutoff=4.2, full_list=True).compute(
        atoms.positions, atoms.cell.array, True, "ijdD"
    )
    unit = vectors / distance[:, None]
    strength = 10 * (1 - (distance / 4.2) ** 2) ** 3
    block = strength[:, None, None] * unit[:, :, None] * unit[:, None, :]
    values = np.zeros((len(atoms), len(atoms), 3, 3))
    np.add.at(values, (i, i), block)
    np.add.at(values, (i, j), -block)
    phonon.force_constants = values
    return phonon


def symmetric_tensors(name: str, masses: np.ndarray, rank: int) -> np.ndarray:
    """Return tensors ∂t/∂u of each atom, generic but for the group that spglib finds of isotopes.

    t is a vector (rank 1: Born charges) or a symmetric tensor (rank 2: Raman tensors).
    """
    atoms = CRYSTALS[name]
    kinds = np.unique([atoms.numbers, masses], axis=1, return_inverse=True)[1].ravel() + 1
    fractions, lattice = atoms.get_scaled_positions(), atoms.cell.array.T
    found = spglib.get_symmetry((atoms.cell.array, fractions, kinds))
    raw = np.random.default_rng(1).normal(size=(len(atoms), *[3] * (rank + 1)))
    if rank == 2:
        raw = raw + raw.transpose(0, 2, 1, 3)
    subscripts = {1: "ax,by,ixy->iab", 2: "ax,by,cz,ixyz->iabc"}[rank]
    total = np.zeros(raw.shape)
    for rotation, shift in zip(found["rotations"], found["translations"], strict=True):
        turn = lattice @ rotation @ np.linalg.inv(lattice)
        offset = (fractions @ rotation.T + shift)[:, None] - fractions
        image = np.linalg.norm(offset - np.rint(offset), axis=2).argmin(axis=1)
        total[image] += np.einsum(subscripts, *(turn,) * (rank + 1), raw)
    return total


@pytest.mark.parametrize("name", CRYSTALS)
def test_activities_are_those_of_the_group_that_masses_keep(name: str) -> None:
    """A mode is active if a generic tensor with the symmetry of the isotopes changes along it."""
    rng = np.random.default_rng(7)
    seen = set()
    for heavy in range(4):
        masses = CRYSTALS[name].get_masses()
        masses[rng.permutation(len(masses))[:heavy]] += 1.5
        phonon = with_springs(name, masses)
        try:
            table = gamma_modes(phonon)
        except pe.PhonopyEquivariantError as error:
            # masses leave a translation, and phonopy's irreps refuse a cell that is not primitive
            assert "holds several" in str(error) and name == "silicon, conventional"
            continue
        seen.add(table.point_group)
        phonon.run_qpoints([[0, 0, 0]], with_eigenvectors=True)
        vectors = phonon.qpoints.eigenvectors[0]
        moves = (vectors.T / np.repeat(masses, 3) ** 0.5).reshape(len(vectors), -1, 3)
        for rank, active in ((1, "infrared"), (2, "raman")):
            tensors = symmetric_tensors(name, masses, rank)
            change = np.einsum("mia,i...a->m...", moves, tensors)
            size = np.linalg.norm(change.reshape(len(vectors), -1), axis=1)
            for mode in table.modes:
                strength = np.linalg.norm(size[list(mode.bands)])
                assert (strength > 1e-6 * size.max()) == getattr(mode, active), (mode, strength)
    assert len(seen) > 1


def test_masses_that_a_translation_breaks_are_refused(one_layer: Potential) -> None:
    """phonopy takes the mass of the first image for all; so do D(q) and its modes."""
    atoms = bulk("Si", cubic=True)
    masses = atoms.get_masses()
    masses[5] = 30.0
    cell = PhonopyAtoms(
        symbols=["Si"] * 8, cell=atoms.cell.array, positions=atoms.positions, masses=masses
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        phonon = Phonopy(cell, ONE, primitive_matrix="auto", log_level=0)
    assert len(phonon.primitive) == 2
    for call in (pe.set_force_constants, use_exact_dynamical_matrix):
        with pytest.raises(
            pe.PhonopyEquivariantError, match="different masses; .*primitive_matrix=.P"
        ):
            call(phonon, one_layer)


def test_python_warns_of_isotopes(one_layer: Potential) -> None:
    atoms = bulk("Na", "diamond", a=5.6)
    cell = PhonopyAtoms(symbols=["Na", "Na"], cell=atoms.cell.array, positions=atoms.positions)
    phonon = Phonopy(cell, ONE, primitive_matrix="P", log_level=0)
    report = pe.set_force_constants(phonon, one_layer)  # no warning: one is an error here
    assert not report.symmetry.isotopes and not report.symmetry.remarks()
    phonon.masses = [23.0, 24.0]
    assert masses_break_symmetry(phonon)
    before = np.array(phonon.force_constants)
    with pytest.warns(UserWarning, match="isotopes on equivalent sites"):
        pe.set_force_constants(phonon, one_layer)
    np.testing.assert_array_equal(phonon.force_constants, before)
    plain = Phonopy(cell, ONE, primitive_matrix="P", is_symmetry=False, log_level=0)
    plain.masses = [23.0, 24.0]
    pe.set_force_constants(plain, one_layer)
    np.testing.assert_allclose(plain.force_constants, before, atol=1e-11)


def test_run_gives_the_mesh_of_the_isotopes(tmp_path: Path) -> None:
    """As from all q of the mesh: phonopy would reduce them by the group without masses."""
    rutile(tmp_path)
    masses = [28, 29, 16, 18, 16, 17]
    done = command(
        *("run", "rutile.vasp", "--dim", 1, "--mass", *masses, "--mesh", 3, 3, 3, "--gv"),
        *("--model", model()),
        cwd=tmp_path,
    )
    assert ISOTOPES[:30] in done.stderr
    content = yaml.safe_load((tmp_path / "mesh.yaml").read_text())
    weights = np.array([q["weight"] for q in content["phonon"]])
    found = [[band["frequency"] for band in q["band"]] for q in content["phonon"]]
    speeds = [[band["group_velocity"] for band in q["band"]] for q in content["phonon"]]
    phonon = phonopy.load(tmp_path / "phonopy_params.yaml", is_symmetry=False, log_level=0)
    np.testing.assert_allclose(phonon.primitive.masses, masses)
    mesh = phonon.run_mesh([3, 3, 3], is_mesh_symmetry=False, with_group_velocities=True)
    mesh = phonon.mesh if mesh is None else mesh
    for power in (1, 4):  # the second moment does not tell
        total = np.average((np.array(found) ** power).sum(axis=1), weights=weights)
        assert total == pytest.approx((mesh.frequencies**power).sum(axis=1).mean(), rel=1e-6)
    size = np.average(np.linalg.norm(speeds, axis=2).sum(axis=1), weights=weights)
    expected = np.linalg.norm(mesh.group_velocities, axis=2).sum(axis=1).mean()
    assert size == pytest.approx(expected, rel=1e-4)


def test_kinds_of_masses_decide() -> None:
    """A mass changes nothing where its whole orbit has it."""
    for masses, broken in (([50.0] * 2 + [17.0] * 4, False), ([48.0, 50.0] + [16.0] * 4, True)):
        assert masses_break_symmetry(with_springs("rutile", np.array(masses))) == broken
    groups = {
        tuple(m): gamma_modes(with_springs("rutile", np.array([48.0, 48.0, *m]))).point_group
        for m in itertools.product((16.0, 18.0), repeat=4)
    }
    assert groups[(16.0,) * 4] == groups[(18.0,) * 4] == "4/mmm"
    assert groups[(18.0, 16.0, 16.0, 16.0)] == "mm2"

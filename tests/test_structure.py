"""Structures: conversion loses nothing, and bad input is refused by name."""

from __future__ import annotations

import re

import ase.build
import ase.collections
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import chemical_symbols, covalent_radii
from ase.spacegroup import crystal
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.structure import (
    Structure,
    as_structure,
    check_distances,
    masses_of,
    to_ase,
    to_phonopy,
)


def _equal(one: Structure, other: Structure) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_ase_round_trip_keeps_every_bit(crystal, molecule):
    for structure in (crystal, molecule):
        assert _equal(as_structure(to_ase(structure)), structure)


def test_phonopy_round_trip_keeps_the_structure(crystal):
    back = as_structure(to_phonopy(crystal))
    # phonopy stores scaled positions: a solve and a product in between, a few ulp of 4 Å
    np.testing.assert_allclose(back.positions, crystal.positions, rtol=0, atol=1e-14)
    assert np.array_equal(back.numbers, crystal.numbers)
    assert np.array_equal(back.cell, crystal.cell)
    assert back.pbc.all()


def test_a_structure_is_a_copy_of_what_it_was_made_from():
    atoms = ase.build.bulk("NaCl", "rocksalt", a=5.64)
    structure = as_structure(atoms)
    atoms.positions += 1.0
    atoms.cell[:] = 0.0
    assert np.array_equal(structure.positions[0], np.zeros(3))
    assert structure.volume == pytest.approx(5.64**3 / 4, rel=1e-14)


def test_volume_of_a_left_handed_cell_is_positive(crystal):
    mirrored = crystal._replace(cell=crystal.cell[[1, 0, 2]])
    assert mirrored.volume == pytest.approx(crystal.volume, rel=1e-14) and mirrored.volume > 0


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "no atoms"),
        (Atoms("NaCl", [[0, 0, 0], [0, 0, np.nan]], cell=[5, 5, 5], pbc=True), "atom 2"),
        (Atoms("NaCl", [[0, np.inf, 0], [0, 0, 0]]), "atom 1"),
        (Atoms("Na", cell=[5, np.nan, 5], pbc=True), "cell has entries"),
        (Atoms("Na", pbc=True), "no volume"),
        (Atoms("Na", cell=[[5, 0, 0], [0, 5, 0], [5, 5, 0]], pbc=True), "no volume"),
        (Atoms("Na", cell=[5, 0, 0], pbc=(True, True, False)), "no volume"),
        ("NaCl.cif", "got str"),
    ],
)
def test_bad_structures_are_refused_in_one_line(atoms, message):
    # whatever the run-time check of the signature says of a str, the message is ours without it
    function = getattr(as_structure, "__wrapped__", as_structure)
    with pytest.raises(PhonopyEquivariantError, match=message) as caught:
        function(atoms)
    assert "\n" not in str(caught.value)


def test_a_molecule_is_no_phonopy_cell(molecule):
    with pytest.raises(PhonopyEquivariantError, match="pbc=True"):
        to_phonopy(molecule)


def test_phonopy_cells_are_periodic():
    cell = PhonopyAtoms(symbols=["Na"], scaled_positions=[[0, 0, 0]], cell=np.eye(3) * 3)
    assert as_structure(cell).pbc.all()


def test_elements_without_a_mass_in_phonopy_have_one() -> None:
    fluorite = crystal(
        ["Pu", "O"], [(0, 0, 0), (0.25, 0.25, 0.25)], spacegroup=225, cellpar=[5.4] * 3 + [90] * 3
    )
    masses = to_phonopy(as_structure(fluorite)).masses
    np.testing.assert_allclose(masses[[0, -1]], [244.06, 15.999], atol=0.01)


def test_atoms_inside_each_other_are_refused_by_their_radii():
    """At 0.49 times the sum of covalent radii, not at 0.51: molecules, and images in crystals."""
    rng = np.random.default_rng(4)
    for _ in range(40):
        numbers = rng.integers(1, 96, 2)
        radii = covalent_radii[numbers].sum()
        axis = rng.normal(size=3)
        step = axis / np.linalg.norm(axis)
        far = np.diag(rng.uniform(9.0, 15.0, 3))
        for factor in (0.49, 0.51):
            bond = factor * radii * step
            pair = Atoms(numbers, positions=[[0, 0, 0], bond])
            # the second atom's image in the next cell is the neighbour of the first
            images = Atoms(numbers, positions=[[0, 0, 0], bond - far[0]], cell=far, pbc=True)
            for atoms in (pair, images):
                if factor > 0.5:
                    check_distances(atoms)
                    continue
                with pytest.raises(PhonopyEquivariantError, match="overlapping atoms") as caught:
                    check_distances(atoms)
                said = re.search(r"are ([\d.]+) Å apart", str(caught.value))
                assert said is not None
                assert float(said[1]) == pytest.approx(factor * radii, abs=6e-4)  # three decimals
                assert all(chemical_symbols[z] in str(caught.value) for z in numbers)


def test_the_shortest_bonds_there_are_pass():
    """Of ASE's G2 set: experimental and computed geometries, H2 and HF included."""
    for name in ase.collections.g2.names:
        check_distances(ase.build.molecule(name))
    own_image = Atoms("Cs", cell=[[2.0, 0, 0], [0, 9, 0], [0, 0, 9]], pbc=True)
    with pytest.raises(PhonopyEquivariantError, match=r"Atoms 1 \(Cs\) and 1 \(Cs\)"):
        check_distances(own_image)


def test_masses_are_those_of_phonopy() -> None:
    """Of ASE, of phonopy and of our own record; ASE gives chlorine 35.45, phonopy 35.453."""
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    expected = [22.98976928, 35.453]
    for structure in (atoms, as_structure(atoms), to_phonopy(as_structure(atoms))):
        np.testing.assert_allclose(masses_of(structure), expected, rtol=1e-12)
    atoms.set_masses([23.0, 37.0])
    np.testing.assert_allclose(masses_of(atoms), [23.0, 37.0])
    np.testing.assert_allclose(masses_of(as_structure(bulk("Pu", "fcc", a=4.6))), 244.06421)

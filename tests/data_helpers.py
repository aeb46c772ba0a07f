"""Made-up records and files that the tests of the data readers share."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.data import ForceConstantsData, Record, Spectrum
from phonopy_equivariant.structure import Structure

CELL = np.array([[3.9, 0.0, 0.0], [0.7, 4.1, 0.0], [-0.4, 0.9, 3.3]])
FRACTIONS = np.array([[0.02, 0.0, 0.0], [0.52, 0.5, 0.03], [0.48, 0.07, 0.5]])


def low_symmetry_phonon(supercell: tuple[int, int, int] = (3, 2, 1)) -> Phonopy:
    """Return phonopy with made-up force constants that obey permutation and translation only."""
    cell = PhonopyAtoms(symbols=["Na", "O", "Cl"], cell=CELL, scaled_positions=FRACTIONS)
    phonon = Phonopy(cell, np.diag(supercell), primitive_matrix="P", log_level=0)
    rng = np.random.default_rng(5)
    atoms, copies = len(phonon.supercell), int(np.prod(supercell))
    full = rng.normal(size=(atoms, atoms, 3, 3))
    # average over the translations of the supercell, then symmetrise
    scaled = phonon.supercell.scaled_positions
    averaged = np.zeros_like(full)
    for shift in np.ndindex(*supercell):
        moved = scaled + np.array(shift) / supercell
        away = moved[:, None] - scaled
        image = np.abs(away - np.rint(away)).max(axis=2).argmin(axis=1)
        averaged += full[np.ix_(image, image)] / copies
    phonon.force_constants = averaged + averaged.transpose(1, 0, 3, 2)
    return phonon


def emt_atoms(seed: int, strain: float = 0.0, size: int = 1, move: float = 0.05) -> Atoms:
    """Return a copper-gold crystal off equilibrium with its EMT energy, forces and stress."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True).repeat((size, 1, 1))
    atoms.symbols[0] = "Au"
    atoms.set_cell(atoms.cell @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(scale=move, size=(len(atoms), 3))
    atoms.calc = EMT()
    return atoms


def emt_record(seed: int, strain: float = 0.0, size: int = 1, move: float = 0.05) -> Record:
    atoms = emt_atoms(seed, strain, size, move)
    return Record(
        Structure(atoms.numbers, atoms.positions, atoms.cell.array, np.ones(3, bool)),
        energy=float(atoms.get_potential_energy()),
        forces=atoms.get_forces(),
        stress=atoms.get_stress(voigt=False),
        level="EMT",
        source=f"made up:{seed}",
    )


def every_kind() -> list[Record]:
    """Return records that between them have all labels, and lack them."""
    rng = np.random.default_rng(7)
    molecule = Structure(
        np.array([8, 1, 1]),
        rng.normal(size=(3, 3)),
        np.zeros((3, 3)),
        np.zeros(3, bool),
    )
    hessian = rng.normal(size=(1, 9, 9))
    phi = rng.normal(size=(2, 12, 12)) + 1j * rng.normal(size=(2, 12, 12))
    q = np.array([[0.0, 0.0, 0.0], [1 / 3, 0.0, -0.25]])
    slab = emt_record(3).structure._replace(pbc=np.array([True, True, False]))
    return [
        emt_record(1),
        Record(molecule, energy=-76.4, forces=rng.normal(size=(3, 3)), level='RPA "exact"'),
        Record(
            molecule,
            force_constants=ForceConstantsData(np.zeros((1, 3)), hessian + 0j),
            spectrum=Spectrum(np.zeros((1, 3)), np.sort(rng.normal(size=(1, 9)))),
        ),
        Record(
            emt_record(2).structure,
            force_constants=ForceConstantsData(q, phi + phi.conj().transpose(0, 2, 1)),
            spectrum=Spectrum(q, np.sort(rng.normal(size=(2, 12)))),
            level="PBE",
        ),
        Record(slab, stress=None, forces=rng.normal(size=(4, 3)) * 1e-30),
        Record(slab),
        emt_record(4, size=3),
    ]


def assert_same(got: Record, expected: Record) -> None:
    """Compare to the bit; the source is where a record was read from."""
    assert got.labels == expected.labels
    for name in Structure._fields:
        np.testing.assert_array_equal(
            getattr(got.structure, name), getattr(expected.structure, name), strict=False
        )
    for name in ("energy", "forces", "stress"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    if expected.force_constants is not None:
        assert got.force_constants is not None
        np.testing.assert_array_equal(got.force_constants.qpoints, expected.force_constants.qpoints)
        np.testing.assert_array_equal(got.force_constants.values, expected.force_constants.values)
    if expected.spectrum is not None:
        assert got.spectrum is not None
        np.testing.assert_array_equal(got.spectrum.qpoints, expected.spectrum.qpoints)
        np.testing.assert_array_equal(got.spectrum.frequencies, expected.spectrum.frequencies)

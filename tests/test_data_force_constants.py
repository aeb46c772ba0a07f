"""Force constants as Φ(q): there and back, against phonopy's own dynamical matrix, from files."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_close
from data_helpers import CELL, FRACTIONS, low_symmetry_phonon
from phonopy import Phonopy
from phonopy.file_IO import (
    write_FORCE_CONSTANTS,
    write_force_constants_to_hdf5,
    write_FORCE_SETS,
)
from phonopy.harmonic.force_constants import full_fc_to_compact_fc
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant import PhonopyEquivariantError
from phonopy_equivariant.data import read_records
from phonopy_equivariant.data.phonopyfiles import commensurate_force_constants
from phonopy_equivariant.phonons.cells import (
    primitive_operations,
    supercell_images,
    supercell_of_primitive,
)
from phonopy_equivariant.response.symmetry.star import commensurate_grid, compact_force_constants

# supercells that break the point group are wanted here
pytestmark = pytest.mark.filterwarnings("ignore:.*Point group symmetries of supercell:UserWarning")

ESPRESSO = Path(__file__).parent / "data" / "espresso"


def rock_salt(matrix: object) -> Phonopy:
    """Return a conventional cell of 8 atoms whose primitive cell has 2, with forces of springs."""
    from ase.build import bulk
    from ase.calculators.lj import LennardJones

    atoms = bulk("NaCl", "rocksalt", a=5.0, cubic=True)
    cell = PhonopyAtoms(numbers=atoms.numbers, cell=atoms.cell.array, positions=atoms.positions)
    phonon = Phonopy(cell, matrix, primitive_matrix="F", log_level=0)
    phonon.generate_displacements(distance=0.03)
    calculator = LennardJones(sigma=2.2, epsilon=0.5, rc=4.0)
    forces = []
    for displaced in phonon.supercells_with_displacements:
        supercell = bulk("NaCl", "rocksalt", a=5.0, cubic=True).repeat(np.diag(matrix))
        supercell = supercell[[0] * len(displaced)]
        supercell.numbers, supercell.positions = displaced.numbers, displaced.positions
        supercell.calc = calculator
        forces.append(supercell.get_forces())
    phonon.forces = forces
    phonon.produce_force_constants()
    return phonon


PHONONS = {
    "low symmetry": low_symmetry_phonon,
    "conventional cell, centred": lambda: rock_salt(np.diag([1, 1, 2])),
}


@pytest.fixture(params=PHONONS, scope="module")
def phonon(request: pytest.FixtureRequest) -> Phonopy:
    return PHONONS[request.param]()


def compact(phonon: Phonopy) -> np.ndarray:
    values = phonon.force_constants
    if len(values) == len(phonon.primitive):
        return values
    return full_fc_to_compact_fc(phonon.primitive, values)


def test_back_to_the_supercell(phonon: Phonopy) -> None:
    """The transform that the package's own force constants take, on the same grid."""
    data = commensurate_force_constants(phonon, phonon.force_constants)
    grid = commensurate_grid(supercell_of_primitive(phonon), primitive_operations(phonon))
    np.testing.assert_allclose(grid.qpoints % 1, data.qpoints % 1, atol=1e-12)
    atoms = len(phonon.primitive)
    owner, cells = supercell_images(phonon)
    again = compact_force_constants(
        grid,
        data.values.reshape(-1, atoms, 3, atoms, 3),
        cells,
        owner,
        np.array(phonon.primitive.p2s_map),
    )
    assert_close(again, compact(phonon), 1e-13)
    assert_close(data.values, data.values.conj().transpose(0, 2, 1), 1e-13)


def test_equal_to_phonopys_dynamical_matrix(phonon: Phonopy) -> None:
    """D_ij(q) = e^{2πi q·(x_j - x_i)} Φ_ij(q) / √(m_i m_j), docs/theory.md."""
    data = commensurate_force_constants(phonon, phonon.force_constants)
    x, masses = phonon.primitive.scaled_positions, np.repeat(phonon.primitive.masses, 3)
    assert len(data.qpoints) > 3
    for q, values in zip(data.qpoints, data.values, strict=True):
        phonon.dynamical_matrix.run(q)
        phase = np.repeat(np.exp(2j * np.pi * x @ q), 3)
        mine = phase.conj()[:, None] * values * phase / np.sqrt(np.outer(masses, masses))
        assert_close(mine, phonon.dynamical_matrix.dynamical_matrix)


def test_phonopys_files_give_the_same(phonon: Phonopy, tmp_path: Path) -> None:
    expected = commensurate_force_constants(phonon, phonon.force_constants)
    phonon.save(tmp_path / "phonopy.yaml", settings={"force_constants": False, "force_sets": False})
    write_FORCE_CONSTANTS(compact(phonon), tmp_path / "FORCE_CONSTANTS", phonon.primitive.p2s_map)
    write_force_constants_to_hdf5(
        compact(phonon), tmp_path / "force_constants.hdf5", phonon.primitive.p2s_map
    )
    phonon.save(tmp_path / "phonopy_params.yaml", settings={"force_constants": True})
    with lzma.open(tmp_path / "phonopy_params.yaml.xz", "wb") as file:
        file.write((tmp_path / "phonopy_params.yaml").read_bytes())
    (tmp_path / "phonopy_params.yaml").unlink()
    for name in ("FORCE_CONSTANTS", "force_constants.hdf5", "phonopy_params.yaml.xz"):
        record = read_records(tmp_path / name, kind="force_constants")[0]
        np.testing.assert_array_equal(record.structure.numbers, phonon.primitive.numbers)
        assert_close(record.structure.positions, phonon.primitive.positions)
        np.testing.assert_allclose(record.force_constants.qpoints, expected.qpoints)
        # files keep 15 decimals
        assert_close(record.force_constants.values, expected.values, 1e-12)


def test_forces_of_displaced_supercells(tmp_path: Path) -> None:
    phonon = rock_salt(np.diag([1, 1, 2]))
    phonon.save(tmp_path / "phonopy_params.yaml")
    phonon.save(tmp_path / "phonopy_disp.yaml", settings={"force_sets": False})
    write_FORCE_SETS(phonon.dataset, tmp_path / "FORCE_SETS")
    for name in ("phonopy_params.yaml", "FORCE_SETS"):
        records = read_records(tmp_path / name, kind="forces", level="LJ")
        assert len(records) == len(phonon.supercells_with_displacements) > 1
        for record, cell, forces in zip(
            records, phonon.supercells_with_displacements, phonon.forces, strict=True
        ):
            np.testing.assert_allclose(record.structure.positions, cell.positions, atol=1e-10)
            np.testing.assert_allclose(record.forces, forces, atol=1e-9)
    produced = read_records(
        tmp_path / "FORCE_SETS", kind="force_constants", produce_force_constants=True
    )[0]
    phonon.symmetrize_force_constants(use_symfc_projector=True)
    assert_close(
        produced.force_constants.values,
        commensurate_force_constants(phonon, phonon.force_constants).values,
        1e-7,  # FORCE_SETS keeps ten decimals of the forces, divided by 0.03 Å
    )
    with pytest.raises(PhonopyEquivariantError, match="has no force_constants"):
        read_records(tmp_path / "phonopy_params.yaml", kind="force_constants")
    (tmp_path / "phonopy_disp.yaml").unlink()
    (tmp_path / "phonopy_params.yaml").unlink()
    with pytest.raises(PhonopyEquivariantError, match="FORCE_SETS: the cells are missing"):
        read_records(tmp_path / "FORCE_SETS")


def test_energies_and_units_of_another_calculator(tmp_path: Path) -> None:
    """phonopy stores bohr and Ry for Quantum ESPRESSO; 1 Ry/bohr² = 48.587 eV/Å²."""
    cell = PhonopyAtoms(symbols=["Na", "O", "Cl"], cell=CELL, scaled_positions=FRACTIONS)
    phonon = Phonopy(cell, np.diag([2, 1, 1]), primitive_matrix="P", calculator="qe")
    rng = np.random.default_rng(1)
    moves, forces = rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 6, 3))
    phonon.dataset = {
        "displacements": moves, "forces": forces, "supercell_energies": np.array([-1.0, -2.0])
    }  # fmt: skip
    phonon.save(tmp_path / "phonopy_params.yaml")
    first, second = read_records(tmp_path / "phonopy_params.yaml")
    bohr, rydberg = 0.529177, 13.605693
    np.testing.assert_allclose(first.structure.cell, phonon.supercell.cell * bohr, rtol=1e-6)
    np.testing.assert_allclose(second.forces, forces[1] * rydberg / bohr, rtol=1e-6)
    assert second.energy == pytest.approx(-2.0 * rydberg, rel=1e-6)
    np.testing.assert_allclose(
        first.structure.positions, (phonon.supercell.positions + moves[0]) * bohr, rtol=1e-6
    )
    values = low_symmetry_phonon((2, 1, 1)).force_constants
    phonon.force_constants = values
    phonon.save(tmp_path / "phonopy_fc.yaml", settings={"force_constants": True})
    data = read_records(tmp_path / "phonopy_fc.yaml", kind="force_constants")[0].force_constants
    expected = commensurate_force_constants(low_symmetry_phonon((2, 1, 1)), values)
    assert_close(data.values, expected.values * rydberg / bohr**2, 1e-6)


@pytest.mark.parametrize(
    ("calculator", "unit"),
    [("siesta", 1.0), ("abacus", 1.0), ("cp2k", 27.211386), ("abinit", 27.211386)],
)
def test_energies_of_calculators_with_mixed_units(
    calculator: str, unit: float, tmp_path: Path
) -> None:
    """eV/Å beside bohr, hartree/bohr beside Å: force times length is no unit of energy there."""
    cell = PhonopyAtoms(symbols=["Na", "O", "Cl"], cell=CELL, scaled_positions=FRACTIONS)
    phonon = Phonopy(cell, np.diag([2, 1, 1]), primitive_matrix="P", calculator=calculator)
    moves, forces = np.random.default_rng(1).normal(size=(2, 1, 6, 3))
    phonon.dataset = {
        "displacements": moves, "forces": forces, "supercell_energies": np.array([-2.0])
    }  # fmt: skip
    phonon.save(tmp_path / "phonopy_params.yaml")
    (record,) = read_records(tmp_path / "phonopy_params.yaml")
    assert record.energy == pytest.approx(-2.0 * unit, rel=2e-6)


def test_ph_and_q2r_agree() -> None:
    """Φ(q) of ph.x, and of q2r.x through phonopy's PH_Q2R: real output, q with complex Φ."""
    grid = read_records(ESPRESSO / "sic.fc.gz")[0]
    star = read_records(ESPRESSO / "sic.dyn2.gz", level="LDA")[0]
    assert star.level == "LDA"
    np.testing.assert_array_equal(star.structure.numbers, [14, 6])
    assert len(grid.force_constants.qpoints) == 27 and len(star.force_constants.qpoints) == 8
    for q, values in zip(star.force_constants.qpoints, star.force_constants.values, strict=True):
        away = grid.force_constants.qpoints - q
        nearest = np.abs(away - np.rint(away)).max(axis=1)
        assert nearest.min() < 1e-8
        # eight decimals of Ry/bohr² in both files
        assert_close(values, grid.force_constants.values[nearest.argmin()], 1e-9)
        assert np.abs(values.imag).max() > 1.0


def test_frequencies_that_ph_printed() -> None:
    path = ESPRESSO / "sic.dyn2.gz"
    with gzip.open(path, "rt") as file:
        printed = [float(line.split("[THz]")[0].split("=")[1]) for line in file if "THz" in line]
    data = read_records(path)[0].force_constants
    masses = np.repeat([28.0855, 12.011], 3)
    squares = np.linalg.eigvalsh(data.values[0] / np.sqrt(np.outer(masses, masses)))
    # phonopy's factor, and constants of QE 6.7 that differ from it in the seventh digit
    np.testing.assert_allclose(np.sqrt(squares) * 15.633302, printed, rtol=1e-6)


def test_dielectric_section_and_removed_dipoles() -> None:
    (record,) = read_records(ESPRESSO / "sic.dyn1.gz")
    np.testing.assert_array_equal(record.force_constants.qpoints, np.zeros((1, 3)))
    assert not record.force_constants.values.imag.any()
    with pytest.raises(PhonopyEquivariantError, match="dipole-dipole part has been taken out"):
        read_records(ESPRESSO / "sic_polar.fc.gz")


def test_forces_and_energy_of_pw() -> None:
    (record,) = read_records(ESPRESSO / "sic.pwo", level="LDA")
    text = (ESPRESSO / "sic.pwo").read_text()
    rydberg = float(next(x for x in text.splitlines() if x.startswith("!")).split()[4])
    assert record.energy == pytest.approx(rydberg * 13.605693, rel=1e-6)
    kbar = float(text.split("P=")[1].split()[0])
    assert np.trace(record.stress) / 3 == pytest.approx(-kbar / 1602.1766, abs=1e-4)


@pytest.mark.parametrize(
    ("ibrav", "lengths", "angles"),
    [
        (1, (1, 1, 1), (90, 90, 90)),
        (2, (0.5**0.5,) * 3, (60, 60, 60)),
        (3, (0.75**0.5,) * 3, (70.528779, 109.471221, 70.528779)),
        (-3, (0.75**0.5,) * 3, (109.471221,) * 3),
        (4, (1, 1, 1.7), (90, 90, 120)),
        (5, (1, 1, 1), (69.512685,) * 3),
        (6, (1, 1, 1.7), (90, 90, 90)),
        (8, (1, 1.3, 1.7), (90, 90, 90)),
    ],
)
def test_lattices_of_espresso(ibrav: int, lengths: tuple, angles: tuple, tmp_path: Path) -> None:
    """As the description of pw.x's input says; all nine were compared with pw.x 6.7's output."""
    from ase.geometry import cell_to_cellpar

    celldm = "10.0 1.3 1.7 0.35 0.0 0.0"
    zeros = "\n".join(["0.0 0.0  0.0 0.0  0.0 0.0"] * 3)
    (tmp_path / "a.dyn").write_text(
        f"Dynamical matrix file\n\n 1 1 {ibrav} {celldm}\n 1 'Si ' 25598.3\n 1 1 0.0 0.0 0.0\n\n"
        f"     Dynamical  Matrix in cartesian axes\n\n     q = ( 0.000000000 0.000000000 "
        f"0.000000000 )\n\n 1 1\n{zeros}\n\n     Diagonalizing the dynamical matrix\n"
    )
    cell = read_records(tmp_path / "a.dyn")[0].structure.cell / (10 * 0.529177249)
    np.testing.assert_allclose(cell_to_cellpar(cell), (*lengths, *angles), rtol=1e-6)


def test_lattice_that_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "a.dyn").write_text("Dynamical matrix file\n\n 1 1 14 10 1 1 0 0 0\n")
    with pytest.raises(PhonopyEquivariantError, match=r"a.dyn: ibrav = 14 .* ibrav = 0"):
        read_records(tmp_path / "a.dyn")

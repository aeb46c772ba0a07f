"""Files of molecules, the command, and data that others computed."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.units import Bohr, Hartree
from ase.vibrations import VibrationsData
from cli_helpers import assert_refused, command, leftovers, model, poscar
from cli_helpers import potential as small_potential
from phonopy import Phonopy
from phonopy.file_IO import write_FORCE_CONSTANTS, write_force_constants_to_hdf5
from phonopy.structure.atoms import PhonopyAtoms
from test_molecules import DATA, analysed, atoms_of, data, textbook_row

import phonopy_equivariant as pe
from phonopy_equivariant import molecules
from phonopy_equivariant.molecules.intensities import KM_PER_MOL
from phonopy_equivariant.molecules.relaxation import NewtonStep
from phonopy_equivariant.molecules.remarks import remarks
from phonopy_equivariant.molecules.tables import table_rows

SUFFIXES = (".yaml", ".xyz", ".molden", ".png", ".json")

# Na2Cl2 as a ring: a minimum of the small model of the tests, which knows O, Na, Si and Cl
RING = Atoms("NaClNaCl", [[2, 0, 0], [0, 2, 0], [-2, 0, 0], [0, -2, 0]])


@pytest.fixture
def water(tmp_path: Path) -> Path:
    path = tmp_path / "H2O.extxyz"
    atoms_of("H2O").write(path)
    return path


def in_a_box(name: str) -> PhonopyAtoms:
    values = data(name)
    return PhonopyAtoms(
        numbers=values["numbers"], positions=values["positions"] + 5, cell=np.eye(3) * 10
    )


def write_as(form: str, folder: Path, name: str) -> Path:
    hessian = data(name)["hessian"]
    constants = hessian.transpose(0, 2, 1, 3).copy()
    count = len(hessian)
    path = folder / form
    if form == "water.json":
        VibrationsData(atoms_of(name), hessian).write(path)
    elif form == "water.npz":
        np.savez(path, hessian=hessian)
    elif form == "flat.npz":
        np.savez(path, hessian=hessian.reshape(3 * count, 3 * count), numbers=[8, 1, 1],
                 positions=data(name)["positions"])  # fmt: skip
    elif form == "FORCE_CONSTANTS":
        write_FORCE_CONSTANTS(constants, filename=path)
    elif form == "force_constants.hdf5":
        write_force_constants_to_hdf5(constants, filename=str(path))
    else:
        phonon = Phonopy(in_a_box(name), np.eye(3), primitive_matrix="P")
        phonon.force_constants = constants
        phonon.save(path, settings={"force_constants": True})
    return path


FORMS = ("water.json", "water.npz", "flat.npz", "FORCE_CONSTANTS", "force_constants.hdf5",
         "phonopy_params.yaml")  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_hessian_of_every_format(form: str, tmp_path: Path) -> None:
    path = write_as(form, tmp_path, "H2O")
    atoms = molecules.read_molecule(path) if form.endswith("yaml") else atoms_of("H2O")
    hessian = molecules.read_hessian(path, atoms)
    # FORCE_CONSTANTS has 15 digits after the point; phonopy symmetrises what its loader reads
    atol = 1e-3 if form.endswith("yaml") else 1e-12
    np.testing.assert_allclose(hessian, data("H2O")["hessian"], atol=atol)
    atoms.set_masses(data("H2O")["masses"])
    result = molecules.analyse_hessian(atoms, hessian)
    np.testing.assert_allclose(result.frequencies, analysed("H2O").frequencies, atol=0.05)


def test_units_and_positions_of_phonopys_files(tmp_path: Path) -> None:
    """Quantum ESPRESSO's bohr and Ry/bohr², of which 1 is 48.587 eV/Å²."""
    unit, bohr = 13.605693 / 0.52917721**2, 0.52917721
    expected = molecules.read_hessian(
        write_as("phonopy_params.yaml", tmp_path, "H2O"), atoms_of("H2O")
    )
    box = in_a_box("H2O")
    box.cell = box.cell / bohr
    phonon = Phonopy(box, np.eye(3), primitive_matrix="P", calculator="qe")
    phonon.force_constants = expected.transpose(0, 2, 1, 3) / unit
    phonon.save(tmp_path / "qe.yaml", settings={"force_constants": True})
    read = molecules.read_hessian(tmp_path / "qe.yaml", atoms_of("H2O"))
    np.testing.assert_allclose(read, expected, atol=1e-3)
    path = tmp_path / "force_constants.hdf5"
    constants = data("H2O")["hessian"].transpose(0, 2, 1, 3) / unit
    write_force_constants_to_hdf5(constants, filename=str(path), physical_unit="Ry/au^2")
    read = molecules.read_hessian(path, atoms_of("H2O"))
    np.testing.assert_allclose(read, data("H2O")["hessian"], rtol=1e-6, atol=1e-9)
    moved = atoms_of("H2O")
    moved.positions[1] += 0.5
    with pytest.raises(pe.PhonopyEquivariantError, match="other positions"):
        molecules.read_hessian(tmp_path / "phonopy_params.yaml", moved)


def test_a_molecule_across_its_box(tmp_path: Path) -> None:
    """Whole in one file, wrapped in the other: the same molecule."""
    atoms = molecules.read_molecule(write_as("phonopy_params.yaml", tmp_path, "H2O"))
    atoms.positions -= atoms.positions[0]
    atoms.wrap()
    assert np.ptp(atoms.positions, axis=0).max() > 5
    hessian = molecules.read_hessian(write_as("water.json", tmp_path, "H2O"), atoms)
    np.testing.assert_array_equal(hessian, data("H2O")["hessian"])


@pytest.mark.parametrize("first", ["14.4", "# epsilon and Z* of atoms 1 2 3"])
def test_the_first_line_of_born_is_no_data(first: str, tmp_path: Path) -> None:
    rows = [np.eye(3), *data("H2O")["dipole_derivatives"]]
    lines = [first, *(" ".join(f"{x:.12f}" for x in row.ravel()) for row in rows)]
    (tmp_path / "BORN").write_text("\n".join(lines))
    read = molecules.read_dipole_derivatives(tmp_path / "BORN", atoms_of("H2O"))
    np.testing.assert_allclose(read, rows[1:], atol=1e-10)


def test_born_charges_of_a_file(tmp_path: Path) -> None:
    charges = data("H2O")["dipole_derivatives"]
    rows = [np.eye(3), *charges]
    text = "14.4\n" + "\n".join(" ".join(f"{x:.12f}" for x in row.ravel()) for row in rows)
    (tmp_path / "BORN").write_text(text)
    read = molecules.read_dipole_derivatives(tmp_path / "BORN", atoms_of("H2O"))
    np.testing.assert_allclose(read, charges, atol=1e-10)
    np.testing.assert_array_equal(
        molecules.read_dipole_derivatives(DATA / "H2O.npz", atoms_of("H2O")), charges
    )
    (tmp_path / "BORN").write_text("\n".join(text.splitlines()[:3]))
    with pytest.raises(pe.PhonopyEquivariantError, match="charges of 1 atoms"):
        molecules.read_dipole_derivatives(tmp_path / "BORN", atoms_of("H2O"))


def test_files_of_another_molecule_are_refused(tmp_path: Path) -> None:
    methane, water = atoms_of("CH4"), atoms_of("H2O")
    for name, phrase in (("FORCE_CONSTANTS", "atoms"), ("water.json", "other atoms")):
        path = write_as(name, tmp_path, "H2O")
        with pytest.raises(pe.PhonopyEquivariantError, match=phrase):
            molecules.read_hessian(path, methane)
    stretched = water.copy()
    stretched.positions[1] *= 1.1
    with pytest.raises(pe.PhonopyEquivariantError, match="other positions"):
        molecules.read_hessian(tmp_path / "water.json", stretched)
    with pytest.raises(pe.PhonopyEquivariantError, match="other positions"):
        molecules.read_hessian(DATA / "H2O.npz", stretched)
    with pytest.raises(pe.PhonopyEquivariantError, match="no array polarizability_derivatives"):
        molecules.read_polarizability_derivatives(DATA / "HCN.npz", atoms_of("HCN"))
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(pe.PhonopyEquivariantError, match="numpy.savez"):
        molecules.read_hessian(tmp_path / "bad.npz", water)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", hessian=np.array([{"a": 1}], dtype=object))
    with pytest.raises(pe.PhonopyEquivariantError, match="cannot be read"):
        molecules.read_hessian(tmp_path / "evil.npz", atoms_of("H2O"))


# --- what is written -----------------------------------------------------------------------------


def test_files_that_viewers_read(tmp_path: Path) -> None:
    result = analysed("CO2")
    molecules.write_xyz(result, tmp_path / "modes.xyz")
    frames = ase.io.read(tmp_path / "modes.xyz", ":")
    assert len(frames) == 4
    for k, frame in enumerate(frames):
        moved = frame.arrays["vibration"]
        assert np.linalg.norm(moved, axis=1).max() == pytest.approx(1, abs=1e-6)
        # no mode moves the centre of mass
        np.testing.assert_allclose(result.modes.masses @ moved, 0, atol=1e-5)
        assert float(frame.info["wavenumber"]) == pytest.approx(result.frequencies[k], abs=0.01)
    assert [frame.info["irrep"] for frame in frames] == ["Πu", "Πu", "Σg+", "Σu+"]
    molecules.write_molden(result, tmp_path / "modes.molden")
    sections = read_molden(tmp_path / "modes.molden")
    np.testing.assert_allclose(sections["FREQ"], result.frequencies[:, None], atol=1e-4)
    np.testing.assert_allclose(sections["INT"], result.infrared[:, None], atol=1e-6)
    np.testing.assert_allclose(sections["FR-COORD"] * Bohr, result.atoms.positions, atol=1e-7)
    modes = sections["FR-NORM-COORD"].reshape(4, 3, 3)
    np.testing.assert_allclose(modes, [f.arrays["vibration"] for f in frames], atol=1e-6)
    assert leftovers(tmp_path) == []


def read_molden(path: Path) -> dict[str, np.ndarray]:
    """Read as the format's description says: free format, symbols before coordinates."""
    sections: dict[str, list[list[float]]] = {}
    lines = path.read_text().splitlines()
    assert lines[0] == "[Molden Format]"
    for line in lines[1:]:
        if line.startswith("["):
            rows = sections.setdefault(line.strip("[]"), [])
        elif not line.startswith("vibration"):
            words = line.split()
            rows.append([float(word) for word in words[words[0].isalpha() :]])
    return {name: np.array(rows) for name, rows in sections.items()}


def test_spectrum_keeps_intensity() -> None:
    """A Lorentzian of full width w has the area of its stick, and half of its height at w/2."""
    infrared, raman = molecules.spectra(analysed("CH4"))
    assert infrared.labels == ("T2", "T2")
    assert raman.labels == ("T2", "E", "A1", "T2")
    assert infrared.heights.sum() == pytest.approx(analysed("CH4").infrared.sum(), rel=1e-6)
    grid = np.linspace(-60000, 60000, 1_200_001)
    curve = molecules.broadened(infrared, grid, 8.0)
    # tails beyond ±60000 cm⁻¹ hold 1e-4
    assert np.trapezoid(curve, grid) == pytest.approx(infrared.heights.sum(), rel=3e-4)
    lone = infrared._replace(frequencies=np.array([100.0]), heights=np.array([1.0]))
    top, half = molecules.broadened(lone, np.array([100.0, 104.0]), 8.0)
    assert half == pytest.approx(top / 2)


def test_command_with_a_hessian(water: Path, tmp_path: Path) -> None:
    source = DATA / "H2O.npz"
    done = command("molecule", water, "--hessian", source, "--born", source, "--raman", source,
                   "-o", "w", cwd=tmp_path)  # fmt: skip
    rows = [line.split() for line in done.stdout.splitlines()]
    frequencies = analysed("H2O").frequencies
    for row, frequency, irrep in zip(rows[1:4], frequencies, ("A1", "A1", "B2"), strict=True):
        assert row[:5] == [f"{frequency:.2f}", "1", irrep, "yes", "yes"]
    assert "2 A1 + B2" in done.stdout
    assert "C2v" in done.stdout
    for suffix in SUFFIXES:
        assert (tmp_path / f"w{suffix}").stat().st_size > 200
    content = yaml.safe_load((tmp_path / "w.yaml").read_text())
    read = [mode["frequency"] for mode in content["modes"]]
    np.testing.assert_allclose(read, frequencies, atol=1e-3)
    assert content["point_group"] == "C2v"
    assert content["ideal_gas"]["symmetry_number"] == 2
    # what it wrote goes in again
    again = command("molecule", water, "--hessian", "w.json", "-o", "x", cwd=tmp_path)
    assert again.stdout.splitlines()[1].split()[0] == rows[1][0]
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (("H2O.extxyz", "--hessian", "nowhere.npz"), ["nowhere.npz", "does not exist"]),
        (("nowhere.xyz",), ["nowhere.xyz", "does not exist"]),
        (("POSCAR",), ["crystal", "phonopy-equivariant run"]),
        (("garbage.xyz",), ["garbage.xyz", "cannot be read"]),
        (("H2O.extxyz", "--mass", "1", "2"), ["--mass has 2 values", "3 atoms"]),
        (("gold.xyz",), ["Au", "such as pe-crystal-3, nequix-oam-1-pft"]),
        (("overlap.xyz",), ["overlapping atoms"]),
        (("H2O.extxyz", "--hessian", "h.npz", "--symmetry-tolerance", "0"), ["positive"]),
        (("H2O.extxyz", "--hessian", "h.npz", "--temperature", "-3"), ["temperature"]),
        (("H2O.extxyz", "--hessian", "h.npz", "-o", "no/such"), ["no/such"]),
    ],
)
def test_wrong_input(words: tuple[str, ...], phrases: list[str], water: Path) -> None:
    folder = water.parent
    poscar(folder)
    np.savez(folder / "h.npz", hessian=data("H2O")["hessian"])
    (folder / "garbage.xyz").write_text("no\nstructure\n")
    Atoms("Au2", [[0, 0, 0], [0, 0, 2.5]]).write(folder / "gold.xyz")
    Atoms("O2", [[0, 0, 0], [0, 0, 0.1]]).write(folder / "overlap.xyz")
    before = sorted(path.name for path in folder.iterdir())
    result = command("molecule", *words, "--model", model(), cwd=folder, status=1)
    assert_refused(result, *phrases)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_options_that_contradict(water: Path) -> None:
    for words in (("--fmax", "1e-3"), ("--relax", "--hessian", "x.npz")):
        result = command("molecule", water, *words, cwd=water.parent, status=2)
        assert_refused(result, "contradictory options", "--relax")


# --- with a potential ----------------------------------------------------------------------------


def test_relaxation_by_newton_steps() -> None:
    """Forces fall quadratically; at the end translations and rotations cost nothing."""
    steps: list[NewtonStep] = []
    relaxed = molecules.relax(RING, small_potential(), callback=steps.append)
    forces = [step.max_force for step in steps]
    assert forces[-1] < 1e-7
    assert len(forces) < 15
    assert forces[-1] < 1e-2 * forces[-2]
    assert all(b.energy <= a.energy + 1e-9 for a, b in zip(steps, steps[1:], strict=False))
    result = molecules.vibrations(relaxed, small_potential())
    assert result.symmetry.group == "D2h"
    assert np.abs(result.modes.external).max() < 1.0
    assert len(result.modes.external) == 6
    with pytest.raises(pe.PhonopyEquivariantError, match="did not reach"):
        molecules.relax(RING, small_potential(), max_steps=1)


def test_a_single_atom_and_two_atoms_of_a_potential() -> None:
    atom = molecules.vibrations(Atoms("O"), small_potential())
    assert atom.symmetry.group == "Kh"
    assert table_rows(atom) == []
    pair = molecules.relax(Atoms("NaCl", [[0, 0, 0], [0, 0, 2.3]]), small_potential())
    result = molecules.vibrations(pair, small_potential())
    assert textbook_row(result) == ("Cinfv", "Σ+", "Σ+", "Σ+")
    assert np.abs(result.modes.external).max() < 1.0


def test_remarks() -> None:
    moved = RING.copy()
    moved.positions[0] += [0.3, 0.1, 0.0]
    result = molecules.vibrations(moved, small_potential())
    assert any("use relax=True" in remark for remark in remarks(result))
    apart = Atoms("NaClNaCl", [[0, 0, 0], [0, 0, 2.3], [0, 30, 0], [0, 30, 2.3]])
    result = molecules.vibrations(apart, small_potential())
    assert any("2 fragments" in remark for remark in remarks(result))


def test_command_with_a_potential(tmp_path: Path) -> None:
    RING.write(tmp_path / "ring.xyz")
    done = command("molecule", "ring.xyz", "--relax", "--model", model(), cwd=tmp_path)
    assert "D2h" in done.stdout
    assert "Newton steps" in done.stderr
    content = yaml.safe_load((tmp_path / "vibrations.yaml").read_text())
    assert content["max_force"] < 1e-7
    assert len(content["modes"]) == 6
    assert content["source"]["potential"] == "small"


# --- what others computed ------------------------------------------------------------------------


def test_methane_of_pbe(shared: Path) -> None:
    """PySCF, PBE/def2-SVP, with dipole and polarizability derivatives of its own."""
    with np.load(shared / "molecules" / "CH4_PBE_def2svp.npz") as archive:
        values = dict(archive)
    atoms = Atoms(values["numbers"], values["positions_A"])
    hessian = values["hessian_hartree_bohr2"].reshape(5, 3, 5, 3) * Hartree / Bohr**2
    result = molecules.analyse_hessian(atoms, hessian)
    assert textbook_row(result) == ("Td", "A1 + E + 2 T2", "T2", "A1 E T2")
    np.testing.assert_allclose(result.frequencies, np.sort(values["freq_cm"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("Benzene", "D6h"),
        ("Benzonitrile", "C2v"),
        ("Aniline", "Cs"),
        ("Benzaldehyde", "Cs"),
        ("Benzoic-Acid", "Cs"),
        ("Toluene", "C1"),
    ],
)
def test_infrared_tables_of_aromatic_molecules(name: str, group: str, shared: Path) -> None:
    """Published tables (e²/amu) from the same forces and charges, with raw modes: the rotations
    among them have up to 13 cm⁻¹ and mix with a torsion of 17 cm⁻¹."""
    folder = shared / "molecules" / name
    atoms = molecules.read_molecule(folder / "phonopy_params.yaml.xz")
    hessian = molecules.read_hessian(folder / "phonopy_params.yaml.xz", atoms)
    charges = molecules.read_dipole_derivatives(folder / "BORN", atoms)
    result = molecules.analyse_hessian(atoms, hessian, 0.02, charges)
    assert result.symmetry.group == group
    table = np.loadtxt(folder / "IR-PeakTable.dat", skiprows=1)[6:]
    np.testing.assert_allclose(result.frequencies, table[:, 0], rtol=0, atol=0.06)
    np.testing.assert_allclose(result.infrared / KM_PER_MOL, table[:, 1], rtol=0, atol=2.2e-5)


@pytest.mark.slow
def test_methane_of_the_bundled_model() -> None:
    potential = pe.load_potential()
    relaxed = molecules.relax(atoms_of("CH4"), potential)
    result = molecules.vibrations(relaxed, potential)
    assert textbook_row(result) == ("Td", "A1 + E + 2 T2", "T2", "A1 E T2")
    assert result.max_force < 1e-7
    assert np.abs(result.modes.external).max() < 1.0

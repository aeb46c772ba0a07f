"""What is written is read back to the bit; what others wrote is read with the right units."""

from __future__ import annotations

import json
import lzma
import os
import pickle
import sys
import types
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from data_helpers import assert_same, emt_atoms, emt_record, every_kind

from phonopy_equivariant import PhonopyEquivariantError
from phonopy_equivariant.data import iter_records, read_records, write_records
from phonopy_equivariant.data.formats import READERS, detect_format
from phonopy_equivariant.data.hdf5 import RecordFile
from phonopy_equivariant.data.selection import Selection


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz.xz", "a.extxyz.gz", "a.h5"])
def test_everything_is_read_back_to_the_bit(name: str, tmp_path: Path) -> None:
    records = every_kind()
    assert write_records(records, tmp_path / name) == len(records)
    again = read_records(tmp_path / name)
    for index, (got, expected) in enumerate(zip(again, records, strict=True)):
        assert_same(got, expected)
        assert got.source == f"{tmp_path / name}:{index}"
        assert got.level.replace('"', "'") == expected.level.replace('"', "'")


def test_hdf5_is_read_in_any_order(tmp_path: Path) -> None:
    records = every_kind() * 200  # more than a block
    write_records(records, tmp_path / "many.h5")
    with RecordFile(tmp_path / "many.h5") as file:
        assert len(file) == len(records)
        for k in (0, 3, -1, 1024, 511, 512):
            assert_same(file[k], records[k])
        assert [len(r.structure.numbers) for r in file] == [
            len(r.structure.numbers) for r in records
        ]
        assert_same(file[1398:][0], records[1398])
        with pytest.raises(IndexError):
            file[len(records)]
        # a selection reads blocks, whatever its order
        order = np.random.default_rng(0).permutation(len(records))[:99]
        for places in (np.sort(order), order, np.array([3, 3, 2])):
            selection = Selection(Selection(file, np.arange(len(file))), places)
            for got, k in zip(selection, places.tolist(), strict=True):
                assert_same(got, records[k])
                assert got.source == f"{tmp_path / 'many.h5'}:{k}"


def test_ase_writes_extended_xyz_that_is_read(tmp_path: Path) -> None:
    """ASE keeps eight decimals of positions and forces."""
    atoms = [emt_atoms(seed) for seed in range(3)]
    for a in atoms:
        a.get_forces(), a.get_stress()
    ase.io.write(tmp_path / "ase.extxyz", atoms)
    for got, expected in zip(read_records(tmp_path / "ase.extxyz"), atoms, strict=True):
        np.testing.assert_allclose(got.forces, expected.get_forces(), atol=1e-8, rtol=0)
        np.testing.assert_allclose(got.stress, expected.get_stress(voigt=False), rtol=1e-12)
        assert got.energy == expected.get_potential_energy()


def test_what_we_write_ase_reads(tmp_path: Path) -> None:
    record = emt_record(1)
    write_records([record], tmp_path / "ours.extxyz")
    atoms = ase.io.read(tmp_path / "ours.extxyz")
    np.testing.assert_array_equal(atoms.get_forces(), record.forces)
    np.testing.assert_array_equal(atoms.get_stress(voigt=False), record.stress)
    np.testing.assert_array_equal(atoms.cell.array, record.structure.cell)


def test_other_names_and_virials(tmp_path: Path) -> None:
    path = tmp_path / "mace.xyz"
    path.write_text(
        '1\nLattice="2 0 0 0 3 0 0 0 4" Properties=species:S:1:pos:R:3:REF_forces:R:3 '
        'REF_energy=-3.5 other=7.0 virial="24 0 0 0 -48 0 0 0 0"\nSi 0 0 0 0.1 0.2 0.3\n'
    )
    (record,) = read_records(path)
    assert record.energy == -3.5
    np.testing.assert_array_equal(record.forces, [[0.1, 0.2, 0.3]])
    np.testing.assert_allclose(record.stress, np.diag([-1.0, 2.0, 0.0]))
    assert read_records(path, energy_key="other", level="PBE")[0].energy == 7.0
    assert read_records(path, level="PBE")[0].level == "PBE"
    with pytest.raises(PhonopyEquivariantError, match=r"mace.xyz:0: no 'nothing' for the energy"):
        read_records(path, energy_key="nothing")


def test_ase_databases_and_trajectories(tmp_path: Path) -> None:
    hessian = np.arange(144.0).reshape(12, 12)
    with ase.db.connect(tmp_path / "a.db") as database:
        for seed in range(3):
            atoms = emt_atoms(seed)
            atoms.get_forces(), atoms.get_stress()
            data = {"hessian": hessian} if seed == 1 else {}
            database.write(atoms, level="EMT", number=seed, data=data)
    records = read_records(tmp_path / "a.db")
    assert [record.labels for record in records] == [
        ("energy", "forces", "stress"),
        ("energy", "forces", "stress", "force_constants"),
        ("energy", "forces", "stress"),
    ]
    np.testing.assert_array_equal(records[1].force_constants.values[0], hessian)
    np.testing.assert_allclose(records[2].forces, emt_record(2).forces, atol=1e-12)
    np.testing.assert_allclose(records[2].stress, emt_record(2).stress, atol=1e-15)
    assert records[0].level == "EMT"
    assert len(read_records(tmp_path / "a.db", selection="number>0")) == 2
    ase.io.write(tmp_path / "a.traj", [emt_atoms(5)])
    np.testing.assert_array_equal(
        read_records(tmp_path / "a.traj")[0].structure.positions, emt_record(5).structure.positions
    )


def test_molecular_archives(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    positions, forces = rng.normal(size=(4, 3, 3)), rng.normal(size=(4, 3, 3))
    energies, z = rng.normal(size=4) - 1e4, np.array([8, 1, 1])
    np.savez(
        tmp_path / "md.npz", nuclear_charges=z, coords=positions, energies=energies, forces=forces
    )
    records = read_records(tmp_path / "md.npz")
    # 1 kcal/mol = 4184 J / N_A = 0.0433641 eV
    assert records[3].energy == pytest.approx(energies[3] * 0.04336410, rel=1e-6)
    np.testing.assert_allclose(records[3].forces, forces[3] * 0.04336410, rtol=1e-6)
    assert not records[3].structure.pbc.any()
    np.savez(
        tmp_path / "sgdml.npz", z=z, R=positions, E=energies[:, None], F=forces, theory="PBE",
        e_unit="Ha", r_unit="bohr", lattice=np.diag([10.0, 11.0, 12.0]), odd=np.array([{}]),
    )  # fmt: skip
    record = read_records(tmp_path / "sgdml.npz")[0]
    np.testing.assert_allclose(record.forces, forces[0] * units.Hartree / units.Bohr)
    np.testing.assert_allclose(record.structure.cell, np.diag([10, 11, 12]) * units.Bohr)
    assert record.level == "PBE" and record.structure.pbc.all()
    np.savez(tmp_path / "bad.npz", z=z, R=positions, F=forces[:2])
    with pytest.raises(PhonopyEquivariantError, match=r"bad.npz: forces have the shape"):
        read_records(tmp_path / "bad.npz")


def pymatgen_dictionary() -> dict:
    return {
        "lattice": {"matrix": [[0, 2.8, 2.8], [2.8, 0, 2.8], [2.8, 2.8, 0]]},
        "sites": [
            {"species": [{"element": "Na+", "occu": 1}], "abc": [0, 0, 0]},
            {"species": [{"element": "Cl", "occu": 1}], "abc": [0.5, 0.5, 0.5]},
        ],
    }


def test_mptrj(tmp_path: Path) -> None:
    frame = {
        "structure": pymatgen_dictionary(),
        "uncorrected_total_energy": -6.5,
        "corrected_total_energy": -7.0,
        "force": [[0, 0, 0.5], [0, 0, -0.5]],
        "stress": [[10, 0, 0], [0, 20, 0], [0, 0, 30]],
    }
    content = {f"mp-{m}": {f"{m}-{f}": frame for f in range(3)} for m in range(40)}
    (tmp_path / "MPtrj.json").write_text(json.dumps(content, indent=1))
    records = read_records(tmp_path / "MPtrj.json")
    assert len(records) == 120
    np.testing.assert_allclose(records[-1].structure.positions[1], [2.8, 2.8, 2.8])
    # 10 kbar of VASP is 1 GPa of pressure
    np.testing.assert_allclose(records[0].stress[0, 0], -units.GPa)
    assert records[5].energy == -6.5
    assert next(iter_records(tmp_path / "MPtrj.json", energy="corrected")).energy == -7.0
    (tmp_path / "cut.json").write_text(json.dumps(content)[:2000])
    with pytest.raises(PhonopyEquivariantError, match=r"cut.json: the JSON is damaged or cut"):
        read_records(tmp_path / "cut.json")


@pytest.fixture
def fake_pymatgen(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Stand in for pymatgen while a pickle is written: classes with its names and states."""
    module = types.ModuleType("pymatgen.core.structure")
    for name in ("Structure", "PeriodicSite", "Lattice", "Composition", "Element"):
        kind = type(name, (), {"__module__": module.__name__})
        setattr(module, name, kind)
    module.Element.__reduce__ = lambda self: (module.Element, (self.symbol,))
    module.Element.__init__ = lambda self, symbol: setattr(self, "symbol", symbol)
    for name in ("pymatgen", "pymatgen.core"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def made(module: types.ModuleType, name: str, **state: object) -> object:
    instance = getattr(module, name).__new__(getattr(module, name))
    instance.__dict__.update(state)
    return instance


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_blocks_are_read_without_executing_them(
    protocol: int, tmp_path: Path, fake_pymatgen: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = np.array([[4.0, 0, 0], [0, 5, 0], [0.3, 0, 6]])
    lattice = made(fake_pymatgen, "Lattice", _matrix=cell)
    sites = [
        made(
            fake_pymatgen, "PeriodicSite", _lattice=lattice, _frac_coords=np.array(fraction),
            _species=made(fake_pymatgen, "Composition", _data={fake_pymatgen.Element(symbol): 1}),
        )
        for symbol, fraction in (("Na", [0.0, 0, 0]), ("Cl", [0.5, 0.4, 0.3]))
    ]  # fmt: skip
    structure = made(fake_pymatgen, "Structure", _lattice=lattice, _sites=sites)
    block = {
        f"mp-{k}": {
            "structure": [structure, structure],
            "energy": [-1.0, np.float64(-2.0)],
            "force": [[[0, 0, 1.5], [0, 0, -1.5]], np.array([[0, 0, 2.5], [0, 0, -2.5]])],
            "stress": [np.diag([10.0, 0, 0]).tolist(), np.diag([0, 0, 10.0])],
        }
        for k in range(1100)  # pickle writes a thousand items together
    }
    path = tmp_path / "block_0.p"
    path.write_bytes(pickle.dumps(block, protocol=protocol))
    for name in [name for name in sys.modules if name.startswith("pymatgen")]:
        monkeypatch.delitem(sys.modules, name)
    records = read_records(path)
    assert len(records) == 2200
    last = records[-1]
    np.testing.assert_array_equal(last.structure.numbers, [11, 17])
    np.testing.assert_allclose(last.structure.positions[1], [0.5 * 4 + 0.3 * 0.3, 2.0, 1.8])
    assert last.energy == -2.0 and last.source == f"{path}:2199"
    np.testing.assert_array_equal(last.forces, [[0, 0, 2.5], [0, 0, -2.5]])
    np.testing.assert_allclose(last.stress, np.diag([0, 0, -units.GPa]))


class Dangerous:
    def __reduce__(self) -> tuple:
        return os.mkdir, (Dangerous.folder,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_do_something_does_nothing(protocol: int, tmp_path: Path) -> None:
    Dangerous.folder = str(tmp_path / "made by the pickle")
    frames = {"structure": [Dangerous()], "energy": [Dangerous()]}
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"mp-1": frames}, protocol=protocol))
    with pytest.raises(PhonopyEquivariantError, match=r"bad.pkl:0: a structure is <.*mkdir"):
        read_records(tmp_path / "bad.pkl")
    assert not (tmp_path / "made by the pickle").exists()


def test_no_reader_imports_pickle() -> None:
    """Arrays of objects in .npz would need it; ASE and h5py have no such road here."""
    folder = Path(sys.modules["phonopy_equivariant"].__file__).parent / "data"
    for path in folder.glob("*.py"):
        assert "import pickle\n" not in path.read_text()
        assert "allow_pickle=True" not in path.read_text()


VASPRUN = """<?xml version="1.0"?>
<modeling>
 <generator><i name="version" type="string">6.4.2</i></generator>
 <kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray>
 </kpoints>
 <parameters><i name="PSTASS">0</i><i name="GGA" type="string">PS</i></parameters>
 <atominfo>
  <array name="atoms"><set><rc><c>Na</c><c>1</c></rc><rc><c>Cl</c><c>2</c></rc></set></array>
  <array name="atomtypes"><set>
   <rc><c>1</c><c>Na</c><c>22.99</c><c>1.0</c><c>PAW</c></rc>
   <rc><c>1</c><c>Cl</c><c>35.45</c><c>7.0</c><c>PAW</c></rc>
  </set></array>
 </atominfo>
 <structure name="initialpos"><crystal><varray name="basis">
  <v>4 0 0</v><v>0 4 0</v><v>0 0 4</v></varray></crystal>
  <varray name="positions"><v>0 0 0</v><v>0.5 0.5 0.5</v></varray></structure>
 %s
</modeling>
"""
STEP = """<calculation>
  <scstep><energy><i name="e_fr_energy">-7.1</i><i name="e_0_energy">-7.0</i></energy></scstep>
  <structure><crystal><varray name="basis"><v>4 0 0</v><v>0 4 0</v><v>0 0 4</v></varray></crystal>
   <varray name="positions"><v>0 0 %s</v><v>0.5 0.5 0.5</v></varray></structure>
  <varray name="forces"><v>0 0 -0.3</v><v>0 0 0.3</v></varray>
  <varray name="stress"><v>10 0 0</v><v>0 20 0</v><v>0 0 30</v></varray>
  <energy><i name="e_fr_energy">-7.1</i><i name="e_0_energy">-7.0</i></energy>
  %s
 </calculation>"""


def test_vasp(tmp_path: Path) -> None:
    """VASP 6 stores -Φ/√(mm') in THz²: one spring of 2 eV/Å² between the atoms."""
    spring = np.kron(np.array([[2.0, -2.0], [-2.0, 2.0]]), np.eye(3))
    masses = np.repeat([22.99, 35.45], 3)
    factor = 15.633302**2  # eV/(Å² amu) in (2π THz)², phonopy's constant
    stored = -spring / np.sqrt(np.outer(masses, masses)) * factor
    rows = "".join(f"<v>{' '.join(map(repr, row.tolist()))}</v>" for row in stored)
    dynmat = (
        f'<dynmat><varray name="hessian">{rows}</varray><i name="unit" type="string">THz^2</i>'
        "</dynmat>"
    )
    text = VASPRUN % (STEP % ("0.01", dynmat) + STEP % ("0.02", ""))
    with lzma.open(tmp_path / "vasprun.xml.xz", "wt") as file:
        file.write(text)
    first, second = read_records(tmp_path / "vasprun.xml.xz")
    assert first.energy == -7.1  # the free energy, whose derivative the forces are
    np.testing.assert_allclose(first.stress, -0.1 * units.GPa * np.diag([10, 20, 30]))
    np.testing.assert_allclose(second.structure.positions[0], [0, 0, 0.08])
    np.testing.assert_array_equal(second.forces, [[0, 0, -0.3], [0, 0, 0.3]])
    np.testing.assert_allclose(first.force_constants.values[0], spring, atol=1e-6)
    assert second.force_constants is None
    assert first.level == "PBEsol" and second.source.endswith("vasprun.xml.xz:1")
    (tmp_path / "vasprun.xml").write_text(text[:1200])
    with pytest.raises(PhonopyEquivariantError, match=r"vasprun.xml:?\d?: "):
        read_records(tmp_path / "vasprun.xml")


def test_formats_are_recognised(tmp_path: Path) -> None:
    names = {
        "vasprun.xml.gz": "vasp", "phonopy_disp.yaml": "phonopy", "FORCE_SETS_1": "phonopy",
        "FORCE_CONSTANTS": "phonopy", "force_constants.hdf5": "phonopy", "set.hdf5": "hdf5",
        "OUTCAR": "ase", "relax.pwo": "ase", "block_1.p": "mpf", "train.xyz.bz2": "extxyz",
    }  # fmt: skip
    for name, expected in names.items():
        assert detect_format(tmp_path / name) == expected
    assert set(names.values()) <= set(READERS)
    ase.io.write(tmp_path / "a.json", Atoms("H"))
    assert detect_format(tmp_path / "a.json") == "ase"
    assert len(read_records(tmp_path / "a.json")) == 1

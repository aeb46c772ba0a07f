"""CIF: any setting of any space group, given in any way, is the crystal or is refused in one line.

What is expected comes from operations written out by spglib's database and applied here.
"""

from __future__ import annotations

import numpy as np
import pytest
import spglib
from ase import Atoms
from cif_helpers import (
    Setting,
    all_settings,
    expected_crystal,
    random_crystal,
    same_atoms,
    ways,
    write_cif,
)

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.cif import read_cif

# Every so many settings are tried in a run, beginning with another one in each of the five ways;
# STEP = 1 tries all 1094 in all ways and takes three minutes.
STEP = 43
WAYS = ("operations", "Hall", "H-M", "extended H-M", "number and setting")

CUBE = "_cell_length_a 5.64(1)\n_cell_length_b 5.64\n_cell_length_c 5.64\n" + "".join(
    f"_cell_angle_{angle} 90.\n" for angle in ("alpha", "beta", "gamma")
)
SITES = "loop_\n_atom_site_label\n_atom_site_type_symbol\n" + "".join(
    f"_atom_site_fract_{axis}\n" for axis in "xyz"
)
SALT = "Na1 Na 0 0 0\nCl1 Cl 0.5 0.5 0.5\n"
DIAMOND = "Si1 Si 0.125 0.125 0.125\n"
FCC = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def cif(symmetry: str, sites: str = SALT, cell: str = CUBE, more: str = "") -> str:
    return f"data_x\n{symmetry}\n{more}\n{cell}{SITES}{sites}"


def cell_lines(*parameters: float) -> str:
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    return "".join(f"_cell_{n} {p}\n" for n, p in zip(names, parameters, strict=True))


def name(symbol: str) -> str:
    return f"_symmetry_space_group_name_H-M '{symbol}'"


def read(text: str, index: int | None = None) -> tuple[Atoms, list[str]]:
    notes: list[str] = []
    return read_cif(text, index, notes.append), notes


def refused(text: str) -> str:
    with pytest.raises(PhonopyEquivariantError) as caught:
        read(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def settings() -> list[Setting]:
    found = all_settings()
    assert {setting.number for setting in found} == set(range(1, 231))
    return found


@pytest.mark.parametrize("way", WAYS)
def test_all_settings_of_all_groups(way: str, settings: list[Setting]) -> None:
    """A symbol that leaves the origin open may be refused, never read as another crystal."""
    given = [(setting, ways(setting)[way]) for setting in settings if way in ways(setting)]
    equal = 0
    for k in range(WAYS.index(way), len(given), STEP):
        setting, symmetry = given[k]
        parameters, sites = random_crystal(setting, np.random.default_rng(k))
        expected = expected_crystal(setting, parameters, sites)
        try:
            atoms, _ = read(write_cif(parameters, sites, symmetry))
        except PhonopyEquivariantError as error:
            assert "leaves open" in str(error), (setting, str(error))
            assert way in ("H-M", "extended H-M"), setting
            continue
        assert same_atoms(atoms, expected), setting
        equal += 1
    assert equal > 5


def test_formula_tells_origins_apart(settings: list[Setting]) -> None:
    """The symbol without origin, with the formula and Z: the crystal, or a refusal."""
    rng = np.random.default_rng(5)
    two = [s for s in settings[:530] if s.code[:1] in ("1", "2")]
    read_in_full = 0
    for k in rng.permutation(len(two))[:6]:
        parameters, sites = random_crystal(two[k], rng)
        expected = expected_crystal(two[k], parameters, sites)
        count = expected.symbols.formula.count()
        more = f"_chemical_formula_sum 'C{count['C']} N{count['N']}'\n_cell_formula_units_Z 1"
        text = write_cif(parameters, sites, f"_space_group_IT_number {two[k].number}", more)
        try:
            atoms, _ = read(text)
        except PhonopyEquivariantError as error:
            assert "leaves open" in str(error)
            continue
        assert same_atoms(atoms, expected)
        read_in_full += 1
    assert read_in_full


@pytest.mark.parametrize(
    ("symbol", "atoms"),
    [
        ("F d -3 m :2", 8),
        ("F d -3 m Z", 8),
        ("Fd-3mZ", 8),
        ("F d -3 m (origin choice 2)", 8),
        ("F 41/d -3 2/m :2", 8),
        ("F d -3 m :1", 16),
        ("F d -3 m S", 16),
    ],
)
def test_names_of_two_origins(symbol: str, atoms: int) -> None:
    assert len(read(cif(name(symbol), DIAMOND))[0]) == atoms


@pytest.mark.parametrize(
    ("symbol", "number"),
    [
        ("F m 3 m", 225),
        ("Fm-3m", 225),
        ("F_m_-3_m", 225),
        ("F 4/m -3 2/m", 225),
        ("P n -3 m :2", 224),
        ("P 4(2)/m m c", 131),
        ("P 42/m 2/m 2/c", 131),
        ("C m c e", 64),
        ("C m c a", 64),
        ("A e m 2", 39),
        ("P 21212(a)", 18),
    ],
)
def test_forms_of_names(symbol: str, number: int) -> None:
    sites = "C1 C 0.13 0.31 0.42\nN1 N 0.05 0.18 0.36\n"
    atoms, _ = read(cif(name(symbol), sites, CUBE.replace("5.64", "20")))
    dataset = spglib.get_symmetry_dataset(
        (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    )
    assert dataset is not None and dataset.number == number


def test_hexagonal_and_rhombohedral_axes() -> None:
    """The metric tells them apart where the symbol does not."""
    long, short = cell_lines(4.307, 4.307, 11.273, 90, 90, 120), cell_lines(*[4.5] * 3, *[57.1] * 3)
    for symbol in ("R -3 m", "R -3 m :H", "R -3 m H", "R-3m (hexagonal axes)"):
        assert len(read(cif(name(symbol), "Sb1 Sb 0 0 0.2336\n", long))[0]) == 6
    for symbol in ("R -3 m", "R -3 m :R", "R-3mR"):
        assert len(read(cif(name(symbol), "Sb1 Sb .2336 .2336 .2336\n", short))[0]) == 2
    number = "_symmetry_Int_Tables_number 166"
    assert len(read(cif(number, "Sb1 Sb 0 0 0.2336\n", long))[0]) == 6
    assert "4.307" in refused(cif(name("R -3 m :R"), "Sb1 Sb 0 0 0.2336\n", long))
    assert "R -3 m:H" in refused(cif(name("R -3 m :H"), "Sb1 Sb 0 0 0.2336\n", short))


def test_what_leaves_the_crystal_open_is_refused_with_the_candidates() -> None:
    for symmetry in (name("F d -3 m"), "_space_group_IT_number 227"):
        line = refused(cif(symmetry, DIAMOND))
        assert "F d -3 m:1 (16 atoms), F d -3 m:2 (8 atoms)" in line
        assert "_space_group_name_H-M_alt" in line
        more = "_chemical_formula_sum Si\n_cell_formula_units_Z 8"
        assert len(read(cif(symmetry, DIAMOND, more=more))[0]) == 8
    perovskite = (
        "Ca1 Ca -0.0068 0.0360 0.25\nTi1 Ti 0 0.5 0\nO1 O 0.0714 0.4838 0.25\n"
        "O2 O 0.7108 0.2888 0.0371\n"
    )
    box = cell_lines(5.38, 5.44, 7.639, 90, 90, 90)
    assert "P n m a (28 atoms)" in refused(cif("_space_group_IT_number 62", perovskite, box))
    assert len(read(cif(name("P b n m"), perovskite, box))[0]) == 20


@pytest.mark.parametrize(("place", "origin"), [("0.125", 2), ("0", 1)])
def test_multiplicities_tell_origins_apart(place: str, origin: int) -> None:
    text = cif(name("F d -3 m"), f"Si1 Si {place} {place} {place} 8\n")
    tag = "_atom_site_symmetry_multiplicity"
    atoms, notes = read(text.replace("fract_z\n", f"fract_z\n{tag}\n"))
    assert len(atoms) == 8
    assert f"read as F d -3 m:{origin}" in notes[0] and "multiplicities" in notes[0]


def test_a_number_alone_is_the_standard_setting_where_nothing_speaks_against_it() -> None:
    box = cell_lines(7, 8, 9, 90, 100, 90)
    atoms, notes = read(cif("_space_group_IT_number 14", "C1 C 0.1 0.2 0.3\n", box))
    standard, _ = read(cif(name("P 1 21/c 1"), "C1 C 0.1 0.2 0.3\n", box))
    assert same_atoms(atoms, standard)
    assert len(notes) == 1 and "read as P 1 21/c 1, the standard setting" in notes[0]


@pytest.mark.parametrize(
    "symmetry",
    [
        "_symmetry_space_group_name_Hall '-F 4 2 3'",
        "_space_group_name_Hall '-F 4 2 3'\n" + name("F m -3 m"),
        name("?").replace("'", "") + "\n_space_group_IT_number 225",
        name("no such group") + "\n_space_group_IT_number 225",
        "_space_group.name_H-M_alt 'F m -3 m'",
        "loop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n-x,-y,-z\n'1/2+x, y+1/2, z'\nx+.5,y,z+0.5",
        # moments that some operations turn round
        "loop_\n_space_group_symop_magn_operation.xyz\nx,y,z,+1\n-x,-y,-z,+1\n"
        "loop_\n_space_group_symop_magn_centering.xyz\nx,y,z,+1\n'x+1/2,y+1/2,z,-1'\n"
        "'x+1/2,y,z+1/2,+1'",
        # the operations are those of the sites listed
        name("F m -3 m") + "\nloop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\nx+1/2,y+1/2,z\n"
        "x+1/2,y,z+1/2\nx,y+1/2,z+1/2",
    ],
)
def test_salt(symmetry: str) -> None:
    expected = Atoms("Na4Cl4", cell=[5.64] * 3, pbc=True)
    expected.set_scaled_positions(np.vstack([FCC, np.array(FCC) + 0.5]))
    assert same_atoms(read(cif(symmetry))[0], expected)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        (cif(name("F m -3 m") + "\n_space_group_IT_number 221"), ["'F m -3 m' and the number 221"]),
        (
            cif("_space_group_name_Hall '-P 4 2 3'\n" + name("F m -3 m")),
            ["'-P 4 2 3' and the symbol 'F m -3 m'"],
        ),
        (
            cif("_space_group_name_Hall '-F 4vw 2vw 3'\n" + name("F d -3 m :1"), DIAMOND),
            ["different crystals"],
        ),
        (
            cif(name("F m -3 m") + "\nloop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n"),
            ["list of operations (P1)"],
        ),
        (cif(name("F q -3 m")), ["'F q -3 m' is not known", "_space_group_symop_operation_xyz"]),
        (cif("_space_group_IT_number 231"), ["231 is the number of no space group"]),
        (
            cif(name("F m -3 m"), cell=cell_lines(5.64, 5.7, 5.64, 90, 90, 90)),
            ["5.64 5.7 5.64", "F m -3 m"],
        ),
        (
            cif(name("F m -3 m"), more="_chemical_formula_sum 'Na Cl2'"),
            ["'Na Cl2' but Cl4 Na4 in the cell"],
        ),
        (
            cif(name("P m -3 m"), more="_chemical_formula_sum 'Cl Na'\n_cell_formula_units_Z 4"),
            ["Z = 4 but Cl1 Na1", "Z = 1"],
        ),
        (
            cif(name("F m -3 m"), more="_chemical_formula_sum 'Cl H3 Na'"),
            ["no sites of H3", "add their coordinates"],
        ),
        (cif(name("F m -3 m"), "Na1 Na 0.02 0 0\n"), ["Na1 0.16 Å apart", "split position"]),
        (cif(name("F m -3 m"), "Na1 Na 0 0 0\nK1 K 0 0 0\n"), ["Na1 and K1", "partly occupied"]),
        (cif(name("F m -3 m"), "M1 Fe0.5Co0.5 0 0 0\n"), ["Fe0.5Co0.5", "partly occupied"]),
        (cif(name("F m -3 m"), "M1 Fe,Co 0 0 0\n"), ["Fe,Co", "partly occupied"]),
        (cif(name("F m -3 m"), "M1 (Fe/Co) 0 0 0\n"), ["(Fe/Co)", "partly occupied"]),
        (cif(name("F m -3 m"), "O1 OH 0 0 0\n"), ["groups of atoms"]),
        (cif(name("F m -3 m"), "X1 Wat 0 0 0\n"), ["'Wat'", "no element"]),
        (cif(name("F m -3 m"), "Na1 Na 0 0 ?\n"), ["no coordinates of Na1"]),
        (cif(name("F m -3 m"), "Na1 Na 0 0 z\n"), ["'z' where a number is due"]),
        (cif("loop_\n_symmetry_equiv_pos_as_xyz\n'x+y,y,z'\n"), ["'x+y,y,z'", "no group"]),
        (cif("loop_\n_symmetry_equiv_pos_as_xyz\n'x+y,x+y,z'\n"), ["no symmetry operation"]),
        (cif("loop_\n_symmetry_equiv_pos_as_xyz\n'x+1/2,y'\n"), ["cannot be read"]),
        (cif(name("F m -3 m"), cell=CUBE.replace("5.64\n", "?\n")), ["lacks a cell length"]),
        ("no cif at all", ["is no CIF"]),
        ("data_x\n_cell_length_a 3\n", ["lists no atoms"]),
        (cif(name("F m -3 m")) + "_cell_modulation_dimension 1\n", ["modulated"]),
    ],
)
def test_refusals(text: str, phrases: list[str]) -> None:
    line = refused(text)
    assert all(phrase in line for phrase in phrases), line


def test_occupancies_and_disorder() -> None:
    def with_column(tag: str, *values: str) -> str:
        rows = [f"{row} {value}\n" for row, value in zip(SALT.splitlines(), values, strict=True)]
        text = cif(name("F m -3 m"), "".join(rows))
        return text.replace("_atom_site_fract_z\n", f"_atom_site_fract_z\n{tag}\n")

    for values in (("?", "1."), (".", "1.000(5)"), ("1", "1.0")):
        assert len(read(with_column("_atom_site_occupancy", *values))[0]) == 8
    assert "Cl1: 0.95" in refused(with_column("_atom_site_occupancy", "1", "0.95(1)"))
    assert "disorder" in refused(with_column("_atom_site_disorder_group", ".", "2"))
    assert "hydrogen" in refused(with_column("_atom_site_attached_hydrogens", "0", "1"))


@pytest.mark.parametrize(
    ("sites", "formula", "symbols"),
    [
        ("Fe1 Fe2+ 0 0 0\nO1 O2- 0.5 0.5 0.5\n", "", "FeO"),
        ("FE1 FE2+ 0 0 0\nO1 O-2 0.5 0.5 0.5\n", "", "FeO"),
        ("Si1 ? 0 0 0\nOW ? 0.5 0.5 0.5\n", "", "SiO"),
        ("CA1 ? 0 0 0\nOW ? 0.5 0.5 0.5\n", "Ca O", "CaO"),
        ("CA1 ? 0 0 0\nOB ? 0.5 0.5 0.5\n", "C O", "CO"),
        ("Cm1 ? 0 0 0\nO1 ? 0.5 0.5 0.5\n", "C O", "CO"),
        ("Wat ? 0 0 0\nW1 ? 0.5 0.5 0.5\n", "W", "WW"),
        ("K ? 0 0 0\nF ? 0.5 0.5 0.5\n", "", "KF"),  # labels of one letter
        ("K1 'K ' 0 0 0\nF1 F 0.5 0.5 0.5\n", "", "KF"),
    ],
)
def test_elements(sites: str, formula: str, symbols: str) -> None:
    more = f"_chemical_formula_sum '{formula}'" if formula else ""
    atoms, _ = read(cif(name("F m -3 m"), sites, more=more))
    assert atoms.symbols.formula.reduce()[0] == Atoms(symbols).symbols.formula.reduce()[0]
    assert "CA1, which may be Ca or C" in refused(cif(name("P 1"), "CA1 ? 0 0 0\n"))


@pytest.mark.parametrize(
    "label", ["Wat", "Ow1", "T1", "Du1", "X1", "Va", "Me", "Q1", "1Na", "(Na)"]
)
def test_labels_that_are_no_element_are_refused(label: str) -> None:
    """Water, tetrahedral sites, dummies, vacancies: W, tritium and deuterium, ASE's X, vanadium."""
    line = refused(cif(name("P 1"), f"{label} ? 0 0 0\n"))
    assert label in line and "add _atom_site_type_symbol" in line
    assert "X" in refused(cif(name("P 1"), "A1 X 0 0 0\n"))


@pytest.mark.parametrize("word", ["nan", "inf", "1/2", "0,5"])
def test_coordinates_are_numbers(word: str) -> None:
    assert f"{word!r} where a number is due" in refused(cif(name("P 1"), f"Na1 Na 0 {word} 0\n"))


def test_formulas_of_whole_cells() -> None:
    for more in (
        "_chemical_formula_sum 'Na4 Cl4'\n_cell_formula_units_Z 4",
        "_chemical_formula_sum 'Na4 Cl4'\n_cell_formula_units_Z 1",
        "_chemical_formula_sum 'NaCl'\n_cell_formula_units_Z 4",
        "_chemical_formula_sum ?",
    ):
        assert len(read(cif(name("F m -3 m"), more=more))[0]) == 8


def test_isotopes_have_their_masses() -> None:
    more = "_chemical_formula_sum 'D Li'"
    atoms, _ = read(cif(name("F m -3 m"), "Li1 Li 0 0 0\nD1 D .5 .5 .5\n", more=more))
    assert atoms.symbols.formula.count() == {"Li": 4, "H": 4}
    np.testing.assert_allclose(atoms.get_masses()[4:], 2.014102, atol=1e-6)


def test_no_symmetry_at_all_is_said() -> None:
    atoms, notes = read(cif(""))
    assert len(atoms) == 2 and "says nothing of symmetry" in notes[0]


def test_special_positions_are_exact_and_cells_have_their_metric() -> None:
    """Digits of 1/3 and of a cell that was refined freely do not lower the symmetry."""
    box = cell_lines(3.2495, 3.2496, 5.2069, 90, 90, 120)
    for third in ("0.33 0.67", "0.333 0.667", "0.3333 0.6666"):
        sites = f"Zn1 Zn {third} 0\nO1 O {third} 0.3819\n"
        atoms, _ = read(cif(name("P 63 m c"), sites, box))
        assert len(atoms) == 4
        cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
        dataset = spglib.get_symmetry_dataset(cell, symprec=1e-9)
        assert dataset is not None and dataset.number == 186


def test_more_symmetry_than_the_file_says_is_told() -> None:
    atoms, notes = read(cif(name("P 4/m m m")))
    assert len(atoms) == 2
    assert notes == ["The file says P 4/m m m (123); its atoms have Pm-3m (221)."]


def test_several_blocks() -> None:
    text = cif(name("F m -3 m")) + cif(name("P m -3 m")).replace("data_x", "data_y")
    atoms, notes = read(text)
    assert len(atoms) == 2 and "2 structures; the last is taken" in notes[0]
    assert len(read(text, 0)[0]) == 8 and not read(text, 0)[1]
    with pytest.raises(PhonopyEquivariantError, match="2 structures, none of index=2"):
        read(text, 2)

"""Normal modes, irreps, selection rules and intensities of molecules.

The molecules of tests/data/molecules were computed with PySCF (make.py there); their irreps and
activities are those of textbooks (G. Herzberg, Infrared and Raman Spectra, 1945).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.build import molecule as ase_molecule
from conftest import IMPROPER

import phonopy_equivariant as pe
from phonopy_equivariant.molecules import MolecularVibrations, analyse_hessian, as_molecule
from phonopy_equivariant.molecules.intensities import KM_PER_MOL, raman_activities
from phonopy_equivariant.molecules.multiplets import reduction
from phonopy_equivariant.molecules.relaxation import newton_step
from phonopy_equivariant.molecules.structure import count_fragments

DATA = Path(__file__).parent / "data" / "molecules"

# point group, vibrations, infrared active, Raman active
TEXTBOOK = {
    "CH4": ("Td", "A1 + E + 2 T2", "T2", "A1 E T2"),
    "H2O": ("C2v", "2 A1 + B2", "A1 B2", "A1 B2"),
    "NH3": ("C3v", "2 A1 + 2 E", "A1 E", "A1 E"),
    "CO2": ("Dinfh", "Σg+ + Σu+ + Πu", "Σu+ Πu", "Σg+"),
    "C2H2": ("Dinfh", "2 Σg+ + Πg + Σu+ + Πu", "Σu+ Πu", "Σg+ Πg"),
    "HCN": ("Cinfv", "2 Σ+ + Π", "Σ+ Π", "Σ+ Π"),
    "C6H6": (
        "D6h",
        "2 A1g + A2g + 2 B2g + E1g + 4 E2g + A2u + 2 B1u + 2 B2u + 3 E1u + 2 E2u",
        "A2u E1u",
        "A1g E1g E2g",
    ),
    "SF6": ("Oh", "A1g + Eg + T2g + 2 T1u + T2u", "T1u", "A1g Eg T2g"),
    "CH3CH2OH": ("Cs", "13 A' + 8 A''", "A' A''", "A' A''"),
    "CHFClBr": ("C1", "9 A", "A", "A"),
}
WITH_SPECTRA = ("CH4", "H2O", "CO2", "NH3")


@functools.cache
def data(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as archive:
        return dict(archive)


def atoms_of(name: str) -> Atoms:
    values = data(name)
    return Atoms(values["numbers"], values["positions"], masses=values["masses"])


@functools.cache
def analysed(name: str) -> MolecularVibrations:
    values = data(name)
    return analyse_hessian(
        atoms_of(name),
        values["hessian"],
        dipole_derivatives=values.get("dipole_derivatives"),
        polarizability_derivatives=values.get("polarizability_derivatives"),
    )


def textbook_row(result: MolecularVibrations) -> tuple[str, str, str, str]:
    assert result.table is not None
    order = {label: k for k, label in enumerate(result.table.labels)}
    infrared = sorted({m.irrep for m in result.multiplets if m.infrared}, key=order.__getitem__)
    raman = sorted({m.irrep for m in result.multiplets if m.raman}, key=order.__getitem__)
    return (
        result.symmetry.group,
        reduction(result.table, result.multiplets),
        " ".join(infrared),
        " ".join(raman),
    )


@pytest.mark.parametrize("name", TEXTBOOK)
def test_irreps_and_activities_of_textbooks(name: str) -> None:
    assert textbook_row(analysed(name)) == TEXTBOOK[name]


@pytest.mark.parametrize("name", TEXTBOOK)
def test_frequencies_are_pyscfs(name: str) -> None:
    """PySCF's harmonic analysis projects too; constants differ in the eighth digit."""
    expected = np.sort(data(name)["frequencies"])
    np.testing.assert_allclose(analysed(name).frequencies, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", TEXTBOOK)
def test_ase_agrees_on_masses_and_units(name: str) -> None:
    """ASE projects nothing, but where raw translations and rotations are near zero (1 cm⁻¹ in
    PySCF's Hessians) their mixing with vibrations is of second order."""
    result = analysed(name)
    frequencies = result.to_ase().get_frequencies()
    signed = np.sort(frequencies.real - np.abs(frequencies.imag))
    count = len(result.frequencies)
    np.testing.assert_allclose(signed[-count:], result.frequencies, atol=1e-2)
    assert np.abs(result.modes.external).max() < 1.5


def test_vibrations_without_translations_and_rotations_of_methane() -> None:
    """All 15 displacements of CH4 are A1 + E + T1 + 3 T2: one T2 moves it, T1 turns it."""
    result = analysed("CH4")
    table = result.table
    assert table is not None
    fixed = [(o.permutation == np.arange(5)).sum() * np.trace(o.matrix) for o in table.operations]
    everything = dict(zip(table.labels, table.multiplicities(np.array(fixed)), strict=True))
    assert everything == pytest.approx({"A1": 1, "A2": 0, "E": 1, "T1": 1, "T2": 3})
    axial = [np.linalg.det(o.matrix) * np.trace(o.matrix) for o in table.operations]
    np.testing.assert_allclose(table.vector, [0, 0, 0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(table.multiplicities(np.array(axial)), [0, 0, 0, 1, 0], atol=1e-9)


@pytest.mark.parametrize("name", ["C6H6", "C2H2", "NH3", "H2O"])
def test_orientation_order_and_handedness_do_not_matter(name: str) -> None:
    values, count = data(name), len(data(name)["numbers"])
    order = np.random.default_rng(2).permutation(count)
    hessian = np.einsum("ab,ibjd,cd->iajc", IMPROPER, values["hessian"], IMPROPER)
    moved = Atoms(
        values["numbers"][order],
        (values["positions"] @ IMPROPER.T + [3.0, -1.0, 2.0])[order],
        masses=values["masses"][order],
    )
    result = analyse_hessian(moved, hessian[order][:, :, order])
    assert textbook_row(result) == TEXTBOOK[name]
    np.testing.assert_allclose(result.frequencies, analysed(name).frequencies, atol=1e-5)


@pytest.mark.parametrize("name", ["CH4", "CO2", "SF6", "C6H6"])
def test_irreps_of_modes_that_all_coincide(name: str) -> None:
    """Irreps come from symmetry alone, so accidental degeneracy does not blur them."""
    result = analysed(name)
    roots = np.sqrt(np.repeat(result.modes.masses, 3))
    flat = result.modes.vectors.reshape(len(result.frequencies), -1)
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(len(flat), len(flat))))[0] @ flat
    hessian = (roots[:, None] * (turned.T @ turned) * roots).reshape(result.hessian.shape)
    same = analyse_hessian(result.atoms, hessian)
    assert np.ptp(same.frequencies) < 1e-6 * same.frequencies.max()
    assert textbook_row(same) == TEXTBOOK[name]


@pytest.mark.parametrize("name", TEXTBOOK)
def test_modes_stay_eigenvectors(name: str) -> None:
    result = analysed(name)
    flat = result.modes.vectors.reshape(len(result.frequencies), -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(len(flat)), atol=1e-10)
    roots = np.sqrt(np.repeat(result.modes.masses, 3))
    dynamical = result.hessian.reshape(len(roots), -1) / np.outer(roots, roots)
    expected = np.sign(result.frequencies) * result.frequencies**2
    # ν² in units of (1 cm⁻¹)²; raw translations of 1 cm⁻¹ and noise of PySCF's Hessian
    value = np.sqrt(units._e * 1e20 / units._amu) / (200 * np.pi * units._c)
    np.testing.assert_allclose(
        np.diag(flat @ dynamical @ flat.T) * value**2, expected, rtol=1e-6, atol=1
    )


# --- intensities ---------------------------------------------------------------------------------


def over_multiplets(result: MolecularVibrations, values: np.ndarray) -> np.ndarray:
    return np.array([values[list(m.modes)].sum() for m in result.multiplets])


@pytest.mark.parametrize("name", WITH_SPECTRA)
def test_infrared_intensities_by_displacement_along_modes(name: str) -> None:
    """PySCF has no infrared module: dipoles at the ends of ±Q. Steps leave 1e-4 of the largest."""
    result = analysed(name)
    assert result.infrared is not None
    direct = KM_PER_MOL * (data(name)["mode_dipoles"] ** 2).sum(axis=1)
    expected = over_multiplets(result, direct)
    atol = 1e-4 * expected.max()
    np.testing.assert_allclose(over_multiplets(result, result.infrared), expected, atol=atol)


@pytest.mark.parametrize("name", WITH_SPECTRA)
def test_raman_activities_by_displacement_along_modes(name: str) -> None:
    result = analysed(name)
    assert result.raman is not None
    alpha = data(name)["mode_polarizabilities"]
    x, y, z = alpha[:, 0, 0], alpha[:, 1, 1], alpha[:, 2, 2]
    off = alpha[:, 0, 1] ** 2 + alpha[:, 1, 2] ** 2 + alpha[:, 2, 0] ** 2
    gamma = ((x - y) ** 2 + (y - z) ** 2 + (z - x) ** 2 + 6 * off) / 2
    expected = over_multiplets(result, 45 * ((x + y + z) / 3) ** 2 + 7 * gamma)
    got = over_multiplets(result, result.raman.activities)
    np.testing.assert_allclose(got, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("name", WITH_SPECTRA)
def test_what_is_forbidden_has_no_intensity(name: str) -> None:
    result = analysed(name)
    assert result.infrared is not None
    assert result.raman is not None
    infrared = over_multiplets(result, result.infrared)
    raman = over_multiplets(result, result.raman.activities)
    for k, multiplet in enumerate(result.multiplets):
        assert (infrared[k] > 1e-5 * infrared.max()) == multiplet.infrared
        assert (raman[k] > 1e-5 * raman.max()) == multiplet.raman


def test_depolarization_of_textbooks() -> None:
    """3/4 for all but totally symmetric modes, 0 for those of cubic groups."""
    for name in ("CH4", "NH3", "H2O"):
        result = analysed(name)
        assert result.raman is not None
        for multiplet in result.multiplets:
            ratio = result.raman.depolarization[list(multiplet.modes)]
            if multiplet.irrep != "A1":
                np.testing.assert_allclose(ratio, 0.75, atol=1e-6)
            else:
                assert (ratio < 0.75).all()
    breathing = next(m for m in analysed("CH4").multiplets if m.irrep == "A1").modes[0]
    assert analysed("CH4").raman.depolarization[breathing] < 1e-8


def test_units_of_intensities() -> None:
    """Published factor: 42.2561 km/mol for 1 (D/Å)²/amu; 974.88 for 1 e²/amu."""
    debye = 0.2081943  # e Å
    assert pytest.approx(42.2561, rel=1e-5) == KM_PER_MOL * debye**2
    # one atom of 1 amu whose isotropic polarizability grows by 1 Å² per axis: 45 Å⁴/amu
    derivative = np.zeros((1, 3, 3, 3))
    derivative[0, :, :, 0] = np.eye(3)
    activity = raman_activities(np.eye(3)[:1, None], derivative)
    np.testing.assert_allclose(activity.activities, [45])


# --- what a molecule is, and thermochemistry -----------------------------------------------------


def test_one_and_two_atoms() -> None:
    argon = analyse_hessian(Atoms("Ar"), np.zeros((1, 3, 1, 3)))
    assert argon.geometry == "monatomic"
    assert len(argon.frequencies) == 0
    assert argon.multiplets == ()
    # Sackur and Tetrode; CODATA: 154.846 J/(mol K) at 1 bar
    entropy = argon.thermochemistry(298.15, 1e5).entropy * units.mol / units.J
    assert entropy == pytest.approx(154.846, abs=0.01)
    spring = 30.0  # eV/Å²
    along = np.zeros((3, 3))
    along[2, 2] = spring
    hessian = np.block([[along, -along], [-along, along]]).reshape(2, 3, 2, 3)
    nitrogen = analyse_hessian(Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]), hessian)
    (multiplet,) = nitrogen.multiplets
    assert (multiplet.irrep, multiplet.infrared, multiplet.raman) == ("Σg+", False, True)
    mass = nitrogen.modes.masses[0] * units._amu
    by_hand = np.sqrt(2 * spring * units._e * 1e20 / mass) / (200 * np.pi * units._c)
    assert multiplet.frequency == pytest.approx(by_hand)
    assert nitrogen.modes.reduced_masses[0] == pytest.approx(nitrogen.modes.masses[0])
    assert len(nitrogen.modes.external) == 5


@pytest.mark.parametrize(
    ("name", "entropy"), [("CH4", 186.25), ("H2O", 188.84), ("CO2", 213.79), ("HCN", 201.83)]
)
def test_entropies_of_tables(name: str, entropy: float) -> None:
    """NIST-JANAF, J/(mol K) at 298.15 K and 1 bar: rotations dominate, so the symmetry number
    counts (R ln 12 = 20.7), and Hartree-Fock frequencies matter by about one unit."""
    gas = analysed(name).thermochemistry(298.15, 1e5)
    assert gas.entropy * units.mol / units.J == pytest.approx(entropy, abs=1.5)
    assert gas.gibbs == pytest.approx(gas.enthalpy - 298.15 * gas.entropy)


def test_molecule_in_a_box_is_made_whole() -> None:
    water = ase_molecule("H2O")
    boxed = water.copy()
    boxed.set_cell([9.0, 9.0, 9.0])
    boxed.pbc = True
    boxed.wrap()
    assert np.ptp(boxed.positions, axis=0).max() > 5
    whole = as_molecule(boxed)
    assert not whole.pbc.any()
    np.testing.assert_allclose(whole.get_all_distances(), water.get_all_distances(), atol=1e-9)


@pytest.mark.parametrize("name", ["salt", "argon", "ice"])
def test_crystals_are_no_molecules(name: str) -> None:
    crystals = {
        "salt": bulk("NaCl", "rocksalt", a=5.64),
        "argon": bulk("Ar", "sc", a=3.8),
        "ice": ase_molecule("H2O", vacuum=4).repeat((2, 1, 1)),
    }
    crystals["ice"].pbc = True
    with pytest.raises(pe.PhonopyEquivariantError, match="phonopy-equivariant run"):
        as_molecule(crystals[name])


def test_fragments() -> None:
    pair = ase_molecule("H2O") + Atoms("Ar", [[8.0, 0, 0]])
    assert count_fragments(pair) == 2
    assert count_fragments(ase_molecule("C6H6")) == 1


def test_hessian_of_other_symmetry_and_of_other_molecules() -> None:
    values = data("CH4")
    skewed = values["hessian"].copy()
    skewed[1, :, 1, :] *= 1.5  # one of four bonds is stiffer
    result = analyse_hessian(atoms_of("CH4"), skewed)
    assert (result.symmetry.group, result.followed, len(result.frequencies)) == ("Td", "C3v", 9)
    with pytest.raises(pe.PhonopyEquivariantError, match="shape"):
        analyse_hessian(atoms_of("H2O"), values["hessian"])
    wrong = values["hessian"].copy()
    wrong[0, 0, 1, 1] += 10
    with pytest.raises(pe.PhonopyEquivariantError, match="not symmetric"):
        analyse_hessian(atoms_of("CH4"), wrong)


@pytest.mark.parametrize("name", ["CH4", "CO2", "C6H6"])
def test_newton_step_of_a_quadratic_energy(name: str) -> None:
    """One step undoes a small displacement that neither moves nor turns the molecule."""
    values = data(name)
    result = analysed(name)
    # combinations of vibrations, without their translations and rotations in unit masses
    modes = result.modes.displacements
    displacement = 1e-4 * np.einsum("k,kia->ia", np.linspace(1, 2, len(modes)), modes)
    forces = -np.einsum("iajb,jb->ia", values["hessian"], displacement)
    step = newton_step(values["positions"], forces, values["hessian"])
    left = np.einsum("iajb,jb->ia", values["hessian"], displacement + step)
    # PySCF's Hessian has 1e-5 of itself along translations and rotations
    assert np.abs(left).max() < 1e-4 * np.abs(forces).max()

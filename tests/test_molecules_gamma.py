"""Optical modes of crystals at Γ: representations and activities of textbooks.

Irreps follow from symmetry, so springs whose strength depends on the distance serve as well as a
potential.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal as ase_crystal
from cli_helpers import command, model, rutile
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.phonons.gamma_modes import GammaModes, gamma_modes

CRYSTALS = {
    "silicon": bulk("Si", a=5.43),
    "salt": bulk("NaCl", "rocksalt", a=5.64),
    "quartz": ase_crystal(
        ["Si", "O"],
        [(0.4697, 0, 1 / 3), (0.4135, 0.2669, 0.2144)],
        spacegroup=152,
        cellpar=[4.916, 4.916, 5.405, 90, 90, 120],
    ),
    "rutile": ase_crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0.305, 0.305, 0)],
        spacegroup=136,
        cellpar=[4.594, 4.594, 2.959, 90, 90, 90],
    ),
    "wurtzite": bulk("GaN", "wurtzite", a=3.19, c=5.19),
    # Cc, no symmetry but a glide: 3 A' + 3 A'' for each atom, translations are 2 A' + A''
    "monoclinic": ase_crystal(
        ["Na", "O"],
        [(0.1, 0.2, 0.3), (0.4, 0.15, 0.05)],
        spacegroup=9,
        cellpar=[6.1, 5.3, 7.2, 90, 104, 90],
        primitive_cell=True,
    ),
}

# point group, optical representation, infrared active, Raman active
TEXTBOOK = {
    "silicon": ("m-3m", "T2g", "", "T2g"),
    "salt": ("m-3m", "T1u", "T1u", ""),
    "quartz": ("32", "4 A1 + 4 A2 + 8 E", "A2 E", "A1 E"),
    "rutile": (
        "4/mmm",
        "A1g + A2g + A2u + B1g + 2 B1u + B2g + Eg + 3 Eu",
        "A2u Eu",
        "A1g B1g B2g Eg",
    ),
    "wurtzite": ("6mm", "A1 + 2 B1 + E1 + 2 E2", "A1 E1", "A1 E1 E2"),
    "monoclinic": ("m", "4 A' + 5 A''", "A' A''", "A' A''"),
}


def phonopy_of(
    atoms: Atoms, primitive: str = "auto", symprec: float = 1e-5, moments: object = None
) -> Phonopy:
    cell = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
        magnetic_moments=moments,
    )
    return Phonopy(cell, np.eye(3), primitive_matrix=primitive, symprec=symprec)


def with_springs(atoms: Atoms, primitive: str = "auto", **options: object) -> Phonopy:
    """Set force constants of springs between all atoms within 6 Å, stiff along and across."""
    phonon = phonopy_of(atoms, primitive, **options)
    supercell = phonon.supercell
    count = len(supercell)
    constants = np.zeros((count, count, 3, 3))
    images = np.array(list(np.ndindex(7, 7, 7))) - 3
    for i in range(count):
        for j in range(count):
            shift = supercell.scaled_positions[j] - supercell.scaled_positions[i] + images
            vectors = shift @ supercell.cell
            distance = np.linalg.norm(vectors, axis=1)
            near = (distance > 0.1) & (distance < 6.0)
            r, d = vectors[near], distance[near]
            kind = 1 + 0.1 * abs(int(supercell.numbers[i]) - int(supercell.numbers[j]))
            along = kind * np.exp(-d) / d**2
            block = np.einsum("k,ka,kb->ab", along, r, r) + 0.3 * np.exp(-1.7 * d).sum() * np.eye(3)
            constants[i, j] -= block
            constants[i, i] += block
    phonon.force_constants = constants[phonon.primitive.p2s_map]
    return phonon


def textbook_row(result: GammaModes) -> tuple[str, str, str, str]:
    infrared = " ".join(sorted({mode.irrep for mode in result.modes if mode.infrared}))
    raman = " ".join(sorted({mode.irrep for mode in result.modes if mode.raman}))
    return result.point_group, result.representation(), infrared, raman


@pytest.mark.parametrize("name", CRYSTALS)
def test_optical_representations_of_textbooks(name: str) -> None:
    phonon = with_springs(CRYSTALS[name])
    result = gamma_modes(phonon)
    assert textbook_row(result) == TEXTBOOK[name]
    bands = [band for mode in result.modes for band in mode.bands]
    assert len(bands) == 3 * len(phonon.primitive) - 3


def test_acoustic_modes_are_known_by_their_vectors() -> None:
    """They are left out though imaginary optical modes lie below them."""
    phonon = with_springs(CRYSTALS["salt"])
    phonon.force_constants = -np.asarray(phonon.force_constants)
    result = gamma_modes(phonon)
    assert textbook_row(result) == TEXTBOOK["salt"]
    assert result.modes[0].bands == (0, 1, 2)
    assert result.modes[0].frequency < -0.1


@pytest.mark.parametrize(("name", "group"), [("silicon", "mmm"), ("quartz", "1")])
def test_modes_of_a_structure_off_its_symmetry(name: str, group: str) -> None:
    """The table is that of a search within 1e-5 Å: selection rules of the ideal are broken."""
    for off, tolerance in ((2e-2, 1e-1), (5e-2, 2e-1)):
        atoms = CRYSTALS[name].copy()
        if group == "1":
            atoms.positions += np.random.default_rng(3).uniform(-off, off, (len(atoms), 3))
        else:
            atoms.positions[1, 0] += off
        loose, tight = (gamma_modes(with_springs(atoms, "P", symprec=t)) for t in (tolerance, 1e-5))
        assert loose.point_group == tight.point_group == group
        assert loose.rows() == tight.rows()
        assert "?" not in loose.representation() and loose.deviation < 1e-8
    barely = CRYSTALS[name].copy()
    barely.positions += np.random.default_rng(3).uniform(-1e-6, 1e-6, (len(barely), 3))
    found = gamma_modes(with_springs(barely, "P", symprec=1e-4))
    assert textbook_row(found) == TEXTBOOK[name] and 1e-8 < found.deviation < 1e-5


def test_magnetic_moments_do_not_change_the_table() -> None:
    """Potentials know none; phonopy has no irreps of magnetic groups."""
    moments = (None, [1.0, 1.0], [[0, 0, 1.0], [0, 0, 1.0]])
    tables = [gamma_modes(with_springs(CRYSTALS["salt"], "P", moments=m)) for m in moments]
    assert tables[0].rows() == tables[1].rows() == tables[2].rows()


def test_free_parts_stand_in_the_table_without_the_translations() -> None:
    """Two layers out of reach of each other: three zero modes of nine, activities by parity."""
    atoms = Atoms(
        "SiOSiO",
        cell=[2.6, 2.6, 20.0],
        pbc=True,
        positions=[(0, 0, 0), (1.3, 1.3, 0.4), (0, 0, 10.4), (1.3, 1.3, 10)],
    )
    result = gamma_modes(with_springs(atoms))
    assert sorted(band for mode in result.modes for band in mode.bands) == list(range(3, 12))
    free = [mode for mode in result.modes if abs(mode.frequency) < 1e-4]
    assert sum(len(mode.bands) for mode in free) == 3
    # inversion exchanges the layers: their gliding apart is even
    assert all(mode.raman and not mode.infrared for mode in free)


def test_oscillator_strength_of_salt() -> None:
    """Three modes that move the sublattices against each other: 3 Z² (1/m + 1/M)."""
    phonon = with_springs(CRYSTALS["salt"])
    charge = 1.1
    phonon.nac_params = {
        "born": np.array([charge * np.eye(3), -charge * np.eye(3)]),
        "dielectric": 2.4 * np.eye(3),
        "factor": 14.4,
    }
    (mode,) = gamma_modes(phonon).modes
    expected = 3 * charge**2 * (1 / phonon.primitive.masses).sum()
    assert mode.oscillator_strength == pytest.approx(expected, rel=1e-6)


def test_strength_is_where_infrared_activity_is() -> None:
    """Charges of quartz that obey its symmetry and the sum rule: isotropic per element."""
    phonon = with_springs(CRYSTALS["quartz"])
    charges = [3.0 if s == "Si" else -1.5 for s in phonon.primitive.symbols]
    phonon.nac_params = {
        "born": np.array([z * np.eye(3) for z in charges]),
        "dielectric": 2.4 * np.eye(3),
        "factor": 14.4,
    }
    for mode in gamma_modes(phonon).modes:
        assert mode.oscillator_strength is not None
        assert (mode.oscillator_strength > 1e-8) == mode.infrared


def test_cells_and_objects_that_have_no_table() -> None:
    cubic = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    with pytest.raises(pe.PhonopyEquivariantError, match='primitive_matrix="auto"'):
        gamma_modes(with_springs(cubic, primitive="P"))
    with pytest.raises(pe.PhonopyEquivariantError, match="no force constants"):
        gamma_modes(phonopy_of(CRYSTALS["silicon"]))


def test_command(tmp_path: Path) -> None:
    rutile(tmp_path)
    done = command("run", "rutile.vasp", "--dim", "1", "--model", model(), "--irreps-table",
                   cwd=tmp_path)  # fmt: skip
    assert TEXTBOOK["rutile"][1] in done.stdout
    content = yaml.safe_load((tmp_path / "gamma_modes.yaml").read_text())
    assert content["point_group"] == "4/mmm"
    bands = [band for mode in content["modes"] for band in mode["bands"]]
    assert len(bands) == 15

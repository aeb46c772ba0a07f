"""CIF of random crystals in any setting of any space group, and the crystals they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import gemmi
import numpy as np
import spglib
from ase import Atoms
from ase.geometry import cell_to_cellpar, cellpar_to_cell

SYMBOLS = ("C", "N")


@dataclass(frozen=True)
class Setting:
    """A space group in one setting, under its names, with its operations as text."""

    number: int
    hall: str
    name: str
    extended: str
    code: str
    triplets: tuple[str, ...]

    def operations(self) -> tuple[np.ndarray, np.ndarray]:
        """Return rotations and translations, parsed here."""
        parsed = [parse_triplet(triplet) for triplet in self.triplets]
        return np.array([r for r, _ in parsed]), np.array([t for _, t in parsed])


def parse_triplet(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return rotation and translation of ``x-y,x,z+1/3``."""
    rotation, translation = np.zeros((3, 3), int), np.zeros(3)
    for row, part in enumerate(text.split(",")):
        for term in part.replace("-", "+-").split("+"):
            if term and term[-1] in "xyz":
                rotation[row, "xyz".index(term[-1])] = -1 if term[0] == "-" else 1
            elif term:
                above, below = term.split("/")
                translation[row] += int(above) / int(below)
    return rotation, translation


def all_settings() -> list[Setting]:
    """Return the 530 settings of spglib, with operations of its own database, and gemmi's."""
    settings = []
    for hall_number in range(1, 531):
        kind = spglib.get_spacegroup_type(hall_number)
        database = spglib.get_symmetry_from_database(hall_number)
        triplets = [
            triplet_of(r, t)
            for r, t in zip(database["rotations"], database["translations"], strict=True)
        ]
        # "P 2_1/c = P 1 1 2_1/b = P 2_1/b": the first is of the standard setting
        full = kind.international.split("=")[min(1, kind.international.count("="))]
        origin = kind.choice[:1] if kind.choice[:1] in ("1", "2", "H", "R") else ""
        settings.append(
            Setting(
                kind.number,
                kind.hall_symbol,
                full.strip(),
                full.strip() + (f" :{origin}" if origin else ""),
                kind.choice,
                tuple(triplets),
            )
        )
    for group in gemmi.spacegroup_table():
        triplets = [operation.triplet() for operation in group.operations()]
        settings.append(
            Setting(group.number, group.hall, group.hm, group.xhm(), "", tuple(triplets))
        )
    return settings


def triplet_of(rotation: np.ndarray, translation: np.ndarray) -> str:
    """Return an operation as CIF has it."""
    parts = []
    for row, shift in zip(rotation, translation, strict=True):
        terms = "".join("+-"[int(v < 0)] + axis for v, axis in zip(row, "xyz", strict=True) if v)
        fraction = round(shift * 24) % 24
        parts.append(terms.removeprefix("+") + (f"+{fraction}/24" if fraction else ""))
    return ",".join(parts)


def random_crystal(setting: Setting, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return cell parameters and one general and one special site, as written: six decimals."""
    rotations, _ = setting.operations()
    while True:
        lattice = np.diag(rng.uniform(9, 14, 3)) + rng.uniform(-1.5, 1.5, (3, 3))
        metric = np.mean([r.T @ lattice @ lattice.T @ r for r in rotations], axis=0)
        parameters = cell_to_cellpar(np.linalg.cholesky(metric)).round(6)
        special = rng.choice([0, 0.125, 0.25, 1 / 3, 0.375, 0.5, 2 / 3, 0.75, rng.random()], 3)
        sites = np.array([rng.random(3), special]).round(6)
        atoms = expected_crystal(setting, parameters, sites)
        apart = atoms.get_scaled_positions()[:, None] - atoms.get_scaled_positions()
        distances = np.linalg.norm((apart - np.rint(apart)) @ atoms.cell.array, axis=2)
        if (distances + 9 * np.eye(len(atoms))).min() > 1.0:
            return parameters, sites


def expected_crystal(setting: Setting, parameters: np.ndarray, sites: np.ndarray) -> Atoms:
    """Return all atoms by the operations, one after the other."""
    lattice = cellpar_to_cell(parameters)
    symbols: list[str] = []
    placed: list[np.ndarray] = []
    rotations, translations = setting.operations()
    for symbol, site in zip(SYMBOLS, sites, strict=True):
        own: list[np.ndarray] = []
        for image in rotations @ site + translations:
            apart = image - np.array(own).reshape(-1, 3)
            lengths = np.linalg.norm((apart - np.rint(apart)) @ lattice, axis=1)
            if lengths.min(initial=9.0) > 1e-3:
                own.append(image)
        placed += own
        symbols += [symbol] * len(own)
    return Atoms(symbols, cell=lattice, scaled_positions=np.array(placed), pbc=True)


def write_cif(parameters: np.ndarray, sites: np.ndarray, symmetry: str, more: str = "") -> str:
    """Return a CIF with the lines of its symmetry given."""
    names = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_random", symmetry.strip(), more.strip()]
    lines += [f"_cell_{name} {value:.6f}" for name, value in zip(names, parameters, strict=True)]
    lines += ["loop_", "_atom_site_label", "_atom_site_type_symbol"]
    lines += [f"_atom_site_fract_{axis}" for axis in "xyz"]
    for symbol, site in zip(SYMBOLS, sites, strict=True):
        lines.append(f"{symbol}1 {symbol} " + " ".join(f"{x:.6f}" for x in site))
    return "\n".join(line for line in lines if line) + "\n"


def ways(setting: Setting) -> dict[str, str]:
    """Return the lines of a CIF for five ways to give a symmetry."""
    triplets = "\n".join(f"'{triplet}'" for triplet in setting.triplets)
    given = {
        "operations": f"loop_\n_space_group_symop_operation_xyz\n{triplets}",
        "Hall": f"_space_group_name_Hall {quoted(setting.hall)}",
        "H-M": f"_symmetry_space_group_name_H-M '{setting.name}'",
        "extended H-M": f"_space_group_name_H-M_alt '{setting.extended}'",
    }
    if setting.code:
        given["number and setting"] = (
            f"_space_group_IT_number {setting.number}\n"
            f"_space_group_IT_coordinate_system_code {setting.code.lower()}"
        )
    return given


def quoted(word: str) -> str:
    """Return a string of a CIF; Hall symbols may have either quotation mark."""
    return f"'{word}'" if '"' in word else f'"{word}"'


def same_atoms(first: Atoms, second: Atoms) -> bool:
    """Tell whether two crystals have the same cell parameters and the same atoms in any order."""
    if len(first) != len(second):
        return False
    apart = first.get_scaled_positions()[:, None] - second.get_scaled_positions()
    apart = np.linalg.norm((apart - np.rint(apart)) @ second.cell.array, axis=2)
    near = (apart < 1e-3) & (first.numbers[:, None] == second.numbers)
    cells = np.allclose(first.cell.cellpar(), second.cell.cellpar(), atol=1e-4)
    return bool(cells and near.any(axis=0).all() and near.any(axis=1).all())

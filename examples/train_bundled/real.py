"""Structures of real crystals, and the same with like elements in their place.

Where they come from: the AFLOW library of prototypes as pymatgen ships it (M. J. Mehl et al.,
doi:10.1016/j.commatsci.2017.01.017), and the examples that seekpath ships. An element gives way to
one of its family (the same charge), so a formula stays neutral.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pymatgen.analysis.prototypes
import seekpath
import spglib
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.io import read
from fill import listed

MAX_ATOMS = 24
COPIES = 3  # with other elements, of each structure
# Elements of one charge, small ones first.
FAMILIES = tuple(
    words.split()
    for words in (
        "Li Cu Na Ag K Rb Cs",
        "Be Mg Zn Cd Ca Sr Pb Ba",
        "Ni Co Mn Fe Cr V",
        "B Al Ga Fe Cr In Y La",
        "C Si Ge Ti Sn Hf Zr",
        "N P As Sb Bi",
        "V Nb Ta Sb",
        "Mo W Cr",
        "O S Se Te",
        "F Cl Br I",
        "Au Ag Cu",
    )
)
# What stands for elements that the potential does not know.
UNKNOWN = {
    "Sc": "Y", "Tl": "In", "Hg": "Cd", "Pd": "Ni", "Pt": "Ni", "Rh": "Co", "Ir": "Co", "Ru": "Fe",
    "Os": "Fe", "Tc": "Mn", "Re": "Mn", "Po": "Te", "U": "Zr", "Th": "Zr", "Ce": "Zr", "Pu": "Zr",
    "Ho": "Y", "Lu": "Y", "Pr": "La", "Sm": "La",
}  # fmt: skip


def originals() -> Iterator[tuple[str, Atoms]]:
    """Yield (structure type, primitive cell), ``MAX_ATOMS`` at most, two elements at least."""
    for name, atoms in (*_aflow(), *_seekpath()):
        cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
        lattice, positions, numbers = spglib.find_primitive(cell)
        if len(numbers) <= MAX_ATOMS and len(set(numbers)) > 1:
            yield (
                name,
                _replaced(
                    Atoms(numbers, cell=lattice, scaled_positions=positions, pbc=True), UNKNOWN
                ),
            )


def _aflow() -> Iterator[tuple[str, Atoms]]:
    path = Path(pymatgen.analysis.prototypes.__file__).with_name("aflow_prototypes.json.gz")
    for entry in json.loads(gzip.decompress(path.read_bytes())):
        sites = entry["snl"]["sites"]
        if any(len(site["species"]) > 1 for site in sites):
            continue
        yield (
            entry["tags"]["aflow"],
            Atoms(
                [site["species"][0]["element"] for site in sites],
                cell=entry["snl"]["lattice"]["matrix"],
                scaled_positions=[site["abc"] for site in sites],
                pbc=True,
            ),
        )


def _seekpath() -> Iterator[tuple[str, Atoms]]:
    folder = Path(seekpath.__file__).parent / "hpkot" / "band_path_data"
    for path in sorted(folder.glob("*/POSCAR_*inversion")):
        yield f"{path.parent.name}_{path.name[7:]}", read(path, format="vasp")


def _replaced(atoms: Atoms, elements: dict[str, str]) -> Atoms:
    """Return a structure with other elements, and the volume that their radii ask for."""
    found = atoms.copy()
    found.symbols[:] = [elements.get(symbol, symbol) for symbol in atoms.symbols]
    volumes = [float(np.sum(covalent_radii[a.numbers] ** 3)) for a in (atoms, found)]
    found.set_cell(atoms.cell * (volumes[1] / volumes[0]) ** (1 / 3), scale_atoms=True)
    return found


def _like(symbol: str, rng: np.random.Generator) -> str:
    """Return an element of a family of this one, itself now and then, a neighbour more often."""
    families = [family for family in FAMILIES if symbol in family]
    if not families:
        return symbol
    family = families[int(rng.integers(len(families)))]
    away = np.abs(np.arange(len(family)) - family.index(symbol))
    weights = np.exp(-away / 2.0)
    return str(rng.choice(family, p=weights / weights.sum()))


def crystals(seed: int = 0) -> list[tuple[str, Atoms]]:
    """Return (group, structure): those of elements that the potential knows, and like ones."""
    rng = np.random.default_rng(seed)
    known = {atomic_numbers[symbol] for symbol in listed("elements").split()}
    found: dict[str, Atoms] = {}
    for name, atoms in originals():
        present = sorted(set(atoms.symbols))
        tries = [{}] + [{symbol: _like(symbol, rng) for symbol in present} for _ in range(COPIES)]
        for elements in tries:
            some = _replaced(atoms, elements)
            if set(some.numbers) <= known and len(set(some.numbers)) == len(present):
                group = f"{name}:{some.get_chemical_formula(empirical=True)}"
                found.setdefault(group, some)
    return list(found.items())

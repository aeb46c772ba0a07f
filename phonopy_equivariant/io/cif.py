"""Crystals from CIF, whatever way the file gives its symmetry.

Every statement of the file allows some settings of a space group: its list of operations and its
Hall symbol one, a Hermann-Mauguin symbol all origins and axes that the symbol leaves open, a number
all settings. The crystal is the one that fits all statements, the metric of the cell, the chemical
formula and the number of formula units; where there is none, or more than one, the file is refused.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from math import gcd
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import cell_to_cellpar, cellpar_to_cell
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.cif_items import Items, read_blocks
from phonopy_equivariant.io.cif_sites import Orbits, Site, expand, read_sites, same_crystal
from phonopy_equivariant.io.cif_symmetry import (
    Setting,
    Statement,
    no_symmetry,
    same_group,
    stated_symmetry,
)
from phonopy_equivariant.io.frames import take_frame
from phonopy_equivariant.io.rounded import Digits, as_meant, half_unit, space_group
from phonopy_equivariant.io.species import element, make_atoms

# A cell that an operation changes by more than this, relative to products of two lengths, has
# another symmetry; below, its parameters are rounded or were refined freely.
_METRIC = 1e-3
# Atoms closer than this times the sum of their covalent radii tell that a setting is wrong.
_OVERLAP = 0.6
_LENGTHS = ("_cell_length_a", "_cell_length_b", "_cell_length_c")
_ANGLES = ("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma")
_FEW = 6  # settings that a message names


class _Reading(NamedTuple):
    """The crystal that a setting makes of the sites."""

    setting: Setting
    lattice: Float[ndarray, "3 3"]
    orbits: Orbits


def read_cif(text: str, index: int | None, report: Callable[[str], None]) -> Atoms:
    """Return the crystal of one block of a CIF.

    Raises
    ------
    PhonopyEquivariantError
        No CIF, no ordered crystal, or statements that contradict each other.

    """
    items = take_frame(read_blocks(text), index, report)
    if items.first("_cell_modulation_dimension"):
        raise PhonopyEquivariantError("is a modulated structure; give a commensurate one.")
    words = [items.first(tag) for tag in (*_LENGTHS, *_ANGLES)]
    lattice, rounding = _lattice(words)
    formula = _formula(items)
    sites = read_sites(items, formula)
    statements = stated_symmetry(items)
    if not statements:
        report("The CIF says nothing of symmetry: its atoms are taken for all of the cell.")
    reading = _decide(items, sites, lattice, statements, formula, report)
    atoms = _atoms([site.symbol for site in sites], reading)
    digits = np.full((len(atoms), 3), np.inf)
    listed = np.unique(reading.orbits.site, return_index=True)
    digits[listed[1]] = [sites[site].half_unit for site in listed[0]]
    atoms = as_meant(atoms, Digits(digits, rounding), report)
    _compare_group(atoms, reading.setting, report)
    return atoms


def _lattice(words: list[str | None]) -> tuple[Float[ndarray, "3 3"], Float[ndarray, "3 3"]]:
    """Return lattice vectors, and what half a unit of the last digits is worth (Å)."""
    try:
        parameters = np.array([float(re.sub(r"\(\d*\)$", "", str(word))) for word in words])
    except ValueError as error:
        raise PhonopyEquivariantError(
            "lacks a cell length or angle, or has one that is no number; mend it."
        ) from error
    lattice = cellpar_to_cell(parameters)
    if not (parameters > 0).all() or not np.isfinite(lattice).all():
        raise PhonopyEquivariantError("The cell has no volume; check its lengths and angles.")
    half = np.array([half_unit(re.sub(r"\(.*", "", str(word))) for word in words])
    of_angles = np.array([half[4] + half[5], half[3] + half[5], half[3] + half[4]])
    rounding = half[:3] + parameters[:3] * np.radians(of_angles)
    return lattice, np.repeat(rounding[:, None], 3, axis=1)


def _decide(
    items: Items,
    sites: list[Site],
    lattice: Float[ndarray, "3 3"],
    statements: list[Statement],
    formula: dict[str, float],
    report: Callable[[str], None],
) -> _Reading:
    """Return the reading of the file that its statements, formula and multiplicities allow."""
    first, *further_statements = statements or [Statement("no symmetry", (no_symmetry(),))]
    readings, faults = _readings(first.settings, sites, lattice)
    if not readings:
        raise faults[0]
    for statement in further_statements:
        agreeing = [r for r in readings if _agrees(r, first, statement, sites, lattice)]
        if not agreeing:
            raise PhonopyEquivariantError(
                f"contradicts itself: {first.text} and {statement.text} make different crystals; "
                "remove the wrong one."
            )
        readings = agreeing
    symbols = [site.symbol for site in sites]
    errors = [_formula_error(items, formula, symbols, reading) for reading in readings]
    fitting = [r for r, error in zip(readings, errors, strict=True) if error is None]
    if not fitting:
        raise PhonopyEquivariantError(str(errors[0]))
    different = [
        reading
        for k, reading in enumerate(fitting)
        if not any(same_crystal(reading.orbits, r.orbits, sites, lattice) for r in fitting[:k])
    ]
    if len(different) == 1:
        return different[0]
    possible = [reading for reading in different if not _overlaps(symbols, reading)]
    fewest = min(len(reading.orbits.site) for reading in different)
    usual = [r for r in different if r.setting.name == first.standard]
    counted = [reading for reading in different if _has_multiplicities(items, reading)]
    if len(counted) == 1:
        accepted, why = counted[0], "because of the multiplicities of its sites"
    elif len(possible) == 1:
        accepted, why = possible[0], "because atoms would overlap otherwise"
    elif usual and len(usual[0].orbits.site) == fewest:
        accepted, why = usual[0], "the standard setting"
    else:
        raise PhonopyEquivariantError(
            f"leaves open which crystal it means: {first.text} allows {_names(different)}; write "
            "the one that is meant as _space_group_name_H-M_alt, or the symmetry operations."
        )
    report(f"{first.text} allows {_names(different)}: read as {accepted.setting.name}, {why}.")
    return accepted


def _readings(
    settings: Iterable[Setting], sites: list[Site], lattice: Float[ndarray, "3 3"]
) -> tuple[list[_Reading], list[PhonopyEquivariantError]]:
    """Return the crystals that settings make, and why others make none."""
    readings, faults = [], []
    for setting in settings:
        try:
            invariant = _invariant(lattice, setting)
            readings.append(_Reading(setting, invariant, expand(sites, setting, invariant)))
        except PhonopyEquivariantError as error:
            faults.append(error)
    return readings, faults


def _invariant(lattice: Float[ndarray, "3 3"], setting: Setting) -> Float[ndarray, "3 3"]:
    """Return the lattice with the exact metric of a setting.

    Raises
    ------
    PhonopyEquivariantError
        The operations of the setting do not leave the cell as it is.

    """
    metric = lattice @ lattice.T
    mean = np.mean([r.T @ metric @ r for r in setting.rotations], axis=0)
    lengths = np.sqrt(np.diag(metric))
    change = np.abs(mean - metric) / np.outer(lengths, lengths)
    if change.max() < 1e-14:
        return lattice
    if change.max() > _METRIC:
        cell_text = " ".join(f"{value:g}" for value in cell_to_cellpar(lattice))
        raise PhonopyEquivariantError(
            f"has a cell ({cell_text}) that {setting.name} does not leave as it is; correct the "
            "cell or the symmetry."
        )
    return cellpar_to_cell(cell_to_cellpar(np.linalg.cholesky(mean)))


def _agrees(
    reading: _Reading,
    first: Statement,
    statement: Statement,
    sites: list[Site],
    lattice: Float[ndarray, "3 3"],
) -> bool:
    """Tell whether a reading of the first statement agrees with another statement."""
    for setting in statement.settings:
        if same_group(setting, reading.setting):
            return True
        # names beside a list of operations often are of the standard setting
        if first.is_list and setting.number == reading.setting.number:
            return True
    readings, _ = _readings(statement.settings, sites, lattice)
    return any(same_crystal(reading.orbits, r.orbits, sites, lattice) for r in readings)


def _formula(items: Items) -> dict[str, float]:
    """Return the numbers of _chemical_formula_sum; none where it is absent or no plain sum."""
    text = items.first("_chemical_formula_sum") or ""
    tokens = re.findall(r"([A-Z][a-z]?)\s*([\d.]*)", text)
    if re.sub(r"[A-Z][a-z]?\s*[\d.]*[\s,]*", "", text):
        return {}
    counts: defaultdict[str, float] = defaultdict(float)
    for symbol, number in tokens:
        counts[element(symbol)] += float(number or 1)
    return {symbol: count for symbol, count in counts.items() if count}


def _formula_error(
    items: Items, formula: dict[str, float], symbols: list[str], reading: _Reading
) -> str | None:
    """Return what the cell has against the formula and the number of formula units."""
    if not formula:
        return None
    cell = Counter(element(symbols[k]) for k in reading.orbits.site)
    text = items.first("_chemical_formula_sum")
    has = " ".join(f"{symbol}{count}" for symbol, count in sorted(cell.items()))
    missing = [f"{symbol}{count:g}" for symbol, count in formula.items() if symbol not in cell]
    if missing:
        return (
            f"has the formula {text!r} but no sites of {' '.join(missing)}; add their coordinates."
        )
    units = [count / formula.get(symbol, np.nan) for symbol, count in cell.items()]
    if not np.ptp(units) < 1e-3 * max(units):
        return (
            f"has the formula {text!r} but {has} in the cell in {reading.setting.name}; correct "
            "the formula, the sites or the symmetry."
        )
    word = items.first("_cell_formula_units_z") or ""
    # some programs write the formula of the whole cell, and Z of the reduced one
    whole = gcd(*(int(count) for count in formula.values()))
    if word.isdigit() and not np.isclose(units[0], (int(word), int(word) / whole)).any():
        return (
            f"has Z = {word} but {has} in the cell in {reading.setting.name}, which is Z = "
            f"{units[0]:g} of {text!r}; correct Z, the sites or the symmetry."
        )
    return None


def _has_multiplicities(items: Items, reading: _Reading) -> bool:
    """Tell whether each site has as many images as the file says.

    This only chooses between settings: some programs write the order of the site symmetry there.
    """
    stated = items.column("_atom_site_symmetry_multiplicity")
    counts = np.bincount(reading.orbits.site)
    return stated == [str(count) for count in counts]


def _overlaps(symbols: list[str], reading: _Reading) -> bool:
    """Tell whether atoms are closer than any bond."""
    atoms = _atoms(symbols, reading)
    from ase.neighborlist import natural_cutoffs, neighbor_list  # scipy.sparse.csgraph

    return len(neighbor_list("i", atoms, natural_cutoffs(atoms, mult=_OVERLAP))) > 0


def _atoms(symbols: list[str], reading: _Reading) -> Atoms:
    return make_atoms(
        [symbols[site] for site in reading.orbits.site],
        cell=reading.lattice,
        scaled_positions=reading.orbits.fractions,
        pbc=True,
    )


def _names(readings: list[_Reading]) -> str:
    parts = [f"{r.setting.name} ({len(r.orbits.site)} atoms)" for r in readings[:_FEW]]
    return ", ".join(parts) + (" and others" if len(readings) > _FEW else "")


def _compare_group(atoms: Atoms, setting: Setting, report: Callable[[str], None]) -> None:
    """Check that spglib finds the operations of the file; report if the atoms have more."""
    group = space_group(atoms)
    if group is None or len(group.rotations) < len(setting.rotations):
        raise PhonopyEquivariantError(
            f"has {len(setting.rotations)} operations in {setting.name}, of which spglib finds "
            f"{0 if group is None else len(group.rotations)}; check the sites and the cell."
        )
    if setting.number > 1 and group.number != setting.number:
        report(f"The file says {setting.name} ({setting.number}); its atoms have {group.name}.")

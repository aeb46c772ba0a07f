"""Sites of a CIF and the crystal that symmetry operations make of them."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.cif_items import Items
from phonopy_equivariant.io.cif_symmetry import Setting
from phonopy_equivariant.io.rounded import half_unit
from phonopy_equivariant.io.species import element, element_of, is_symbol

# Images of a site this close (Å) are one atom, its coordinates being rounded or refined freely.
_SAME_PLACE = 0.02
# Closer than this (Å) no two atoms are.
_TOO_CLOSE = 0.4


class Site(NamedTuple):
    """An atom of the asymmetric unit."""

    label: str
    symbol: str
    fraction: Float[ndarray, "3"]
    # half a unit of the last digit written
    half_unit: Float[ndarray, "3"]


class Orbits(NamedTuple):
    """All atoms of a cell: of which site they are, and where."""

    site: Int[ndarray, " atoms"]
    fractions: Float[ndarray, "atoms 3"]


def read_sites(items: Items, formula: dict[str, float]) -> list[Site]:
    """Return the sites of a block.

    Raises
    ------
    PhonopyEquivariantError
        A site that is partly occupied, disordered, without coordinates or of no known element.

    """
    columns = {
        name: items.column(f"_atom_site_{name}")
        for name in ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
        + ("disorder_group", "calc_flag", "attached_hydrogens")
    }
    count = len(columns["fract_x"])
    rows = [
        {name: values[k] for name, values in columns.items() if len(values) == count}
        for k in range(count)
    ]
    rows = [row for row in rows if row.get("calc_flag") != "dum"]
    sites = [_site(row, formula) for row in rows]
    if not sites:
        raise PhonopyEquivariantError("The structure has no atoms.")
    attached = any(_number(row.get("attached_hydrogens")) for row in rows)
    if attached and not any(element(site.symbol) == "H" for site in sites):
        raise PhonopyEquivariantError(
            "has hydrogen atoms attached to sites (_atom_site_attached_hydrogens) but none with "
            "coordinates; add them."
        )
    return sites


def expand(sites: list[Site], setting: Setting, lattice: Float[ndarray, "3 3"]) -> Orbits:
    """Return all atoms of the cell.

    A site near a special position is moved onto it: it becomes the mean of those of its images
    that its digits do not tell apart. So the crystal has the operations of the setting to rounding.

    Raises
    ------
    PhonopyEquivariantError
        Images of a site are closer than atoms can be, or two kinds of atoms share a place.

    """
    orbits: list[ndarray] = []
    for number, site in enumerate(sites):
        orbit = _orbit(site, setting, lattice)
        for earlier, placed in zip(sites[:number], orbits, strict=True):
            reach = max(_reach(site, lattice), _reach(earlier, lattice))
            if not (_distances(placed, orbit[:1], lattice) < reach).any():
                continue
            if earlier.symbol != site.symbol:
                raise PhonopyEquivariantError(
                    f"has {earlier.label} and {site.label} in one place: partly occupied sites; "
                    "give an ordered structure."
                )
            orbit = orbit[:0]  # the file lists an equivalent atom as well
            break
        orbits.append(orbit)
    owners = np.repeat(np.arange(len(sites)), [len(orbit) for orbit in orbits])
    return Orbits(owners, np.concatenate(orbits))


def same_crystal(
    first: Orbits, second: Orbits, sites: list[Site], lattice: Float[ndarray, "3 3"]
) -> bool:
    """Tell whether two expansions of the same sites have the same atoms in the same places."""
    if len(first.site) != len(second.site):
        return False
    symbols = np.array([site.symbol for site in sites])
    reach = max(_reach(site, lattice) for site in sites)
    coincide = _distances(first.fractions, second.fractions, lattice) < reach
    coincide &= symbols[first.site][:, None] == symbols[second.site]
    return bool(coincide.any(axis=1).all() and coincide.any(axis=0).all())


def _orbit(site: Site, setting: Setting, lattice: Float[ndarray, "3 3"]) -> ndarray:
    fraction = site.fraction[None]
    images = setting.rotations @ site.fraction + setting.translations
    stays = _distances(images, fraction, lattice)[:, 0] < _reach(site, lattice)
    special = fraction[0] + _nearest(images[stays] - fraction).mean(axis=0)
    images = setting.rotations @ special + setting.translations
    images -= np.floor(images + 1e-9)
    distances = _distances(images, images, lattice)
    distinct = (distances < 1e-6).argmax(axis=1) == np.arange(len(images))
    closest = distances[distances > 1e-6].min(initial=np.inf)
    if distinct.sum() * stays.sum() != len(images) or closest < _TOO_CLOSE:
        raise PhonopyEquivariantError(
            f"has images of {site.label} {closest:.2g} Å apart in {setting.name}: a split position "
            "or coordinates with too few digits; mend them."
        )
    return images[distinct]


def _reach(site: Site, lattice: Float[ndarray, "3 3"]) -> float:
    """Return how far apart (Å) images of a site may lie that are one atom."""
    rounding = np.linalg.norm(site.half_unit * np.linalg.norm(lattice, axis=1))
    return max(_SAME_PLACE, 4.0 * float(rounding))


def _distances(first: ndarray, second: ndarray, lattice: ndarray) -> Float[ndarray, "first second"]:
    """Return distances (Å) modulo the lattice, right for those that are short."""
    return np.linalg.norm(_nearest(first[:, None] - second) @ lattice, axis=2)


def _nearest(fractions: ndarray) -> ndarray:
    return fractions - np.rint(fractions)


def _site(row: dict[str, str | None], formula: dict[str, float]) -> Site:
    label = row.get("label") or row.get("type_symbol") or "a site"
    occupancy = _number(row.get("occupancy"))
    if occupancy is not None and abs(occupancy - 1) > 1e-6:
        raise PhonopyEquivariantError(
            f"has partly occupied sites ({label}: {occupancy:g}); give an ordered structure."
            if occupancy < 1
            else f"has the occupancy {occupancy:g} of {label}, which is more than 1; mend it."
        )
    if row.get("disorder_group") not in (None, "0", "1"):
        raise PhonopyEquivariantError(f"has disorder ({label}); give an ordered structure.")
    words = [row.get(f"fract_{axis}") for axis in "xyz"]
    numbers = [_number(word) for word in words]
    if None in numbers:
        raise PhonopyEquivariantError(f"has no coordinates of {label}; add them.")
    written = [re.sub(r"\(.*", "", str(word)) for word in words]
    return Site(
        label,
        _symbol(row, label, formula),
        np.array(numbers, float),
        np.array([half_unit(word) for word in written]),
    )


def _symbol(row: dict[str, str | None], label: str, formula: dict[str, float]) -> str:
    word = (row.get("type_symbol") or "").strip()
    if not word:
        return _symbol_of_label(label, formula)
    symbol = element_of(word)
    suffix = word[len(symbol) :] if symbol else word
    if symbol is None or not re.fullmatch(r"\d*|\d*\.?\d*[+-]|[+-]\d*\.?\d*", suffix):
        if re.search(r"[A-Z][a-z]?[\d.]*[^A-Za-z]*[A-Z]|\d\.\d", word):
            raise PhonopyEquivariantError(
                f"has sites of several kinds ({label}: {word}), that is, partly occupied or "
                "groups of atoms; give an ordered structure of single atoms."
            )
        raise PhonopyEquivariantError(f"has {label} of type {word!r}, no element; mend it.")
    return symbol


def _symbol_of_label(label: str, formula: dict[str, float]) -> str:
    """Return the element that a label such as ``Fe1``, ``OW`` or ``CA2`` begins with.

    Without a formula that has it ``Wat`` is no tungsten, and ``T1`` (tetrahedral) no tritium.
    """
    match = re.match("[A-Za-z]*", label.strip())
    letters = match.group() if match else ""
    two_letters, one_letter = letters[:2].capitalize(), letters[:1].upper()
    candidates = [
        symbol for symbol in dict.fromkeys((two_letters, one_letter)) if is_symbol(symbol)
    ]
    named = [symbol for symbol in candidates if element(symbol) in formula]
    if named:
        return named[0]
    if len(candidates) == 2 and letters[1].isupper():
        raise PhonopyEquivariantError(
            f"has {label}, which may be {two_letters} or {one_letter}; add _atom_site_type_symbol."
        )
    symbol = candidates[0] if candidates else ""
    if not symbol or symbol == "T" or letters[len(symbol) :][:1].islower():
        raise PhonopyEquivariantError(f"has {label}, no element; add _atom_site_type_symbol.")
    return symbol


def _number(word: str | None) -> float | None:
    """Return a number without its standard uncertainty; None where there is none."""
    if word is None:
        return None
    try:
        number = float(re.sub(r"\(\d*\)$", "", word))
    except ValueError:
        number = np.nan
    if not np.isfinite(number):
        raise PhonopyEquivariantError(f"has {word!r} where a number is due; mend it.")
    return number

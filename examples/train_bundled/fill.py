"""Prototypes filled: known compounds, and others by charge neutrality and ionic radii."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.formula import Formula
from ions import ANIONS, CATIONS, WEIGHTS
from prototypes import PROTOTYPES, Prototype, Radii


@functools.cache
def listed(kind: str) -> Any:
    """Return a part of compositions.yaml."""
    return yaml.safe_load(Path(__file__).with_name("compositions.yaml").read_text("utf-8"))[kind]


def _words(kind: str) -> tuple[str, ...]:
    return tuple(listed(kind).split())


def of_compounds(prototype: Prototype) -> Iterator[tuple[dict[str, str], Radii]]:
    """Yield the known compounds of a prototype: elements and radii by role.

    A formula goes where its charges and radii fit best; A-B-X says it, in the order of the roles.
    """
    counts = prototype.multiplicities()
    for word in listed("crystals").get(prototype.name, "").split():
        orders = [word.split("-")]
        if len(orders[0]) < len(prototype.roles):
            composition = Formula(word).count()
            orders = [
                list(order)
                for order in itertools.permutations(composition)
                if _formula(counts, order) == reduced(composition)
            ]
        choices = [_best(prototype, counts, order) for order in orders]
        if not choices:
            raise ValueError(f"compositions.yaml: {word} is no composition of {prototype.name}")
        _, elements, radii = max(choices, key=lambda choice: choice[0])
        yield elements, radii


def _best(
    prototype: Prototype, counts: dict[str, int], order: Sequence[str]
) -> tuple[int, dict[str, str], Radii]:
    """Return how well elements fit the roles (3: charges and radii), and the radii."""
    elements = dict(zip(prototype.roles, order, strict=True))
    found = (0, elements, _covalent(prototype.roles, order))
    if prototype.kind != "ionic":
        return (int(prototype.fits(found[2])), *found[1:])
    tables = [CATIONS if role in _CATION_ROLES else ANIONS for role in prototype.roles]
    ions = [table.get(symbol, {}).items() for table, symbol in zip(tables, order, strict=True)]
    for chosen in itertools.product(*ions):
        radii = {role: ion[1] for role, ion in zip(prototype.roles, chosen, strict=True)}
        charges = [ion[0] for ion in chosen]
        neutral = not np.dot(list(counts.values()), charges)
        score = 1 + neutral + (neutral and prototype.fits(radii))
        if score > found[0]:
            found = (score, elements, radii)
    return found


def _covalent(roles: tuple[str, ...], symbols: Iterable[str]) -> Radii:
    return {
        role: float(covalent_radii[atomic_numbers[symbol]])
        for role, symbol in zip(roles, symbols, strict=True)
    }


def reduced(counts: dict[str, int]) -> frozenset[tuple[str, int]]:
    """Return a formula without common factors and without order."""
    common = int(np.gcd.reduce(list(counts.values())))
    return frozenset((symbol, number // common) for symbol, number in counts.items())


# What stands on the site X of structures that are neither ionic nor all metal.
PARTNERS = {"metal+B": ("B",), "metal+Si": ("Si", "Ge"), "metal+CN": ("C", "N")}
_CATION_ROLES = "ABC"


@functools.cache
def assignments(prototype: Prototype) -> list[tuple[dict[str, str], Radii]]:
    """Return all compositions that a prototype takes: elements and radii by role."""
    if prototype.kind == "listed":
        return []
    return list((_ionic if prototype.kind == "ionic" else _metallic)(prototype))


def _metallic(prototype: Prototype) -> Iterator[tuple[dict[str, str], Radii]]:
    choices = [_choices(prototype, role) for role in prototype.roles]
    for symbols in itertools.product(*choices):
        radii = _covalent(prototype.roles, symbols)
        if len(set(symbols)) == len(symbols) and prototype.fits(radii):
            yield dict(zip(prototype.roles, symbols, strict=True)), radii


def _choices(prototype: Prototype, role: str) -> tuple[str, ...]:
    if prototype.kind == "element":
        some = {
            "diamond": ("C", "Si", "Ge", "Sn"),
            "beta-tin": ("Sn", "Ge", "Si"),
            "A7": ("As", "Sb", "Bi", "P"),
            "gamma-Se": ("Se", "Te", "S"),
            "black-P": ("P", "As"),
            "graphite": ("C",),
        }
        return some.get(prototype.name, _words("metals"))
    return PARTNERS[prototype.kind] if role == "X" else _words("metals")


def _ionic(prototype: Prototype) -> Iterator[tuple[dict[str, str], Radii]]:
    counts = prototype.multiplicities()
    tables = [CATIONS if role in _CATION_ROLES else ANIONS for role in prototype.roles]
    ions = [[(s, q, r) for s, some in table.items() for q, r in some.items()] for table in tables]
    seen = set()
    for chosen in itertools.product(*ions):
        ions_of = dict(zip(prototype.roles, chosen, strict=True))
        charge = sum(counts[role] * ion[1] for role, ion in ions_of.items())
        symbols = tuple(ion[0] for ion in chosen)
        if charge or len(set(symbols)) < len(symbols) or symbols in seen:
            continue
        radii = {role: ion[2] for role, ion in ions_of.items()}
        if prototype.fits(radii):
            seen.add(symbols)
            yield dict(zip(prototype.roles, symbols, strict=True)), radii


def start(prototype: Prototype, elements: dict[str, str], radii: Radii) -> Atoms:
    """Return the structure in which the closest pair of atoms touches."""
    atoms = prototype.build(elements)
    by_symbol = {elements[role]: radius for role, radius in radii.items()}
    reach = np.array([by_symbol[symbol] for symbol in atoms.get_chemical_symbols()])
    repeated = atoms.repeat(3)
    centre = len(atoms) * 13 + np.arange(len(atoms))
    vectors = repeated.positions[centre][:, None] - repeated.positions[None]
    distances = np.linalg.norm(vectors, axis=-1)
    distances[distances < 1e-6] = np.inf
    cations = {role for role in prototype.roles if role in _CATION_ROLES}
    sums = reach[:, None] + np.tile(reach, 27)[None]
    if prototype.kind == "ionic":  # ions of one sign touch no sooner than they must
        sign = {elements[role]: role in cations for role in prototype.roles}
        signs = np.array([sign[symbol] for symbol in atoms.get_chemical_symbols()])
        sums = np.where(signs[:, None] == np.tile(signs, 27)[None], 0.6 * sums, sums)
    scale = float((sums / distances).max())
    atoms.set_cell(atoms.cell * scale, scale_atoms=True)
    return atoms


def draw(seed: int = 0, times: int = 1) -> Iterator[tuple[str, dict[str, str], Atoms]]:
    """Yield (prototype, elements by role, structure): elements drawn so that all come up often.

    ``times`` multiplies the number of compositions of each prototype; 0 leaves the known ones.
    """
    rng = np.random.default_rng(seed)
    used: Counter[str] = Counter()
    for prototype in PROTOTYPES:
        chosen = list(of_compounds(prototype))
        wanted = max(0, times * prototype.count - len(chosen) // 2) if times else 0
        some = assignments(prototype) if wanted else []
        for elements, radii in chosen + _rare(rng, some, used, wanted):
            used.update(set(elements.values()))
            yield prototype.name, elements, start(prototype, elements, radii)


def _formula(counts: dict[str, int], symbols: Sequence[str]) -> frozenset[tuple[str, int]]:
    """Return the reduced formula of elements in the order of the roles."""
    total: Counter[str] = Counter()
    for symbol, count in zip(symbols, counts.values(), strict=True):
        total[symbol] += count
    return reduced(dict(total))


def _rare(
    rng: np.random.Generator,
    some: list[tuple[dict[str, str], Radii]],
    used: Counter[str],
    count: int,
) -> list[tuple[dict[str, str], Radii]]:
    """Return compositions drawn the likelier the rarer their elements have been so far."""
    keys = np.empty(len(some))
    for k, (elements, _) in enumerate(some):
        rarity = [WEIGHTS.get(s, 1.0) / (10.0 + used[s]) for s in elements.values()]
        keys[k] = np.prod(rarity) ** (2 / len(rarity))
    # without replacement: the largest u^(1/w)
    order = np.argsort(-np.log(rng.random(len(some))) / np.maximum(keys, 1e-300))
    return [some[int(k)] for k in order[:count]]

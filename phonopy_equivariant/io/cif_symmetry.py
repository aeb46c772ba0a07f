"""What a CIF says of its symmetry: operations, Hall symbol, Hermann-Mauguin symbol, number.

Each of them is a statement with the settings that it allows. Symbols and numbers come from
gemmi's table of space groups with spglib's names of the same settings; Hall symbols and operations
are read by gemmi.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import gemmi
import numpy as np
import spglib
from jaxtyping import Float, Int
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.cif_items import Items

_OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop_magn_operation_xyz",
)
_CENTRINGS = "_space_group_symop_magn_centering_xyz"
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_NAMES = (
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m",
    "_space_group_name_h-m_full",
)
_NUMBERS = ("_space_group_it_number", "_symmetry_int_tables_number")
_CODE = "_space_group_it_coordinate_system_code"

# ICSD's letters for origins and axes
_SUFFIXES = {"s": "1", "z": "2", "h": "h", "hr": "h", "r": "r", "rs": "r"}
_MOST_OPERATIONS = 192 * 64  # of a supercell of a face-centred cubic cell


class Setting(NamedTuple):
    """A space group with the axes and the origin that its coordinates refer to.

    Operations map fractions x to ``rotations @ x + translations``.
    """

    name: str
    number: int
    rotations: Int[ndarray, "operations 3 3"]
    translations: Float[ndarray, "operations 3"]


class Statement(NamedTuple):
    """One thing that a file says of its symmetry, and the settings that this allows."""

    text: str
    settings: tuple[Setting, ...]
    # a list of operations is a setting by itself, whatever name is written beside it
    is_list: bool = False
    # the setting that a number alone usually means
    standard: str = ""


class _Entry(NamedTuple):
    """A setting of the tables, under all its names and codes."""

    group: gemmi.SpaceGroup
    names: frozenset[str]
    codes: frozenset[str]
    tabulated: bool  # in International Tables A, as far as spglib lists them


def stated_symmetry(items: Items) -> list[Statement]:
    """Return what a block says of its symmetry, in the order of trust.

    Raises
    ------
    PhonopyEquivariantError
        Operations that are none, an unknown number, or only names that nobody knows.

    """
    statements = [*_listed(items), *_by_hall(items), *_by_name(items), *_by_number(items)]
    understood = [statement for statement in statements if statement.settings]
    if statements and not understood:
        raise PhonopyEquivariantError(
            f"{statements[0].text} is not known; write the symmetry operations "
            "(_space_group_symop_operation_xyz) or the Hall symbol."
        )
    return understood


def no_symmetry() -> Setting:
    """Return P 1."""
    return _setting("P 1", 1, gemmi.symops_from_hall("P 1"))


def same_group(first: Setting, second: Setting) -> bool:
    """Tell whether two settings have the same operations."""
    return _keys(first) == _keys(second)


def _listed(items: Items) -> list[Statement]:
    for tag in _OPERATIONS:
        triplets = [value for value in items.column(tag) if value is not None]
        if triplets:
            centrings = [value for value in items.column(_CENTRINGS) if value is not None]
            operations = _closed(_operation(text) for text in (*triplets, *centrings))
            setting = _typed(_setting("the group of the operations", 0, operations))
            text = f"the list of operations ({setting.name})"
            return [Statement(text, (setting,), is_list=True)]
    return []


def _operation(text: str) -> gemmi.Op:
    # magnetic CIF: x,y,z,-1 turns moments round, which positions do not feel
    triplet = re.sub(r",\s*[+-]?1\s*$", "", text)
    try:
        operation = gemmi.Op(triplet.replace(" ", ""))
    except (RuntimeError, ValueError) as error:
        raise PhonopyEquivariantError(
            f"the symmetry operation {text!r} cannot be read ({error}); mend it."
        ) from error
    if operation.det_rot() not in (gemmi.Op.DEN**3, -(gemmi.Op.DEN**3)):
        raise PhonopyEquivariantError(f"{text!r} is no symmetry operation of a crystal; mend it.")
    return operation


def _closed(operations: Iterable[gemmi.Op]) -> list[gemmi.Op]:
    """Return the group that operations generate: lists without all products exist."""
    identity = gemmi.Op("x,y,z")
    group = {identity.triplet(): identity}
    generators: list[gemmi.Op] = []
    for operation in operations:
        operation = operation.wrap()
        if operation.triplet() in group:
            continue
        generators.append(operation)
        latest = list(group.values())
        while latest:
            products = [(a * b).wrap() for a in latest for b in generators]
            latest = [p for p in products if group.setdefault(p.triplet(), p) is p]
            if len(group) > _MOST_OPERATIONS:
                raise PhonopyEquivariantError(
                    f"the symmetry operation {operation.triplet()!r} makes no group with those "
                    "before it; mend it."
                )
    return list(group.values())


def _typed(setting: Setting) -> Setting:
    """Return a setting with the name and the number of its space-group type."""
    try:
        kind = spglib.get_spacegroup_type_from_symmetry(setting.rotations, setting.translations)
    except Exception:  # no type is found, which later versions raise
        kind = None
    if kind is None:
        return setting
    return setting._replace(name=kind.international_short, number=kind.number)


def _by_hall(items: Items) -> list[Statement]:
    symbol = items.first(*_HALL)
    if symbol is None:
        return []
    try:
        operations = _closed(gemmi.symops_from_hall(symbol))
    except (RuntimeError, ValueError):
        return [Statement(f"the Hall symbol {symbol!r}", ())]
    setting = _typed(_setting(f"Hall {symbol}", 0, operations))
    return [Statement(f"the Hall symbol {symbol!r}", (setting,))]


def _by_name(items: Items) -> list[Statement]:
    code = items.first(_CODE)
    statements = []
    for tag in _NAMES:
        name = items.first(tag)
        if name is not None:
            settings = settings_of_name(name)
            if code is not None and len(settings) > 1:
                settings = _with_code(settings, code) or settings
            statements.append(Statement(f"the symbol {name!r}", settings))
    return statements


def _by_number(items: Items) -> list[Statement]:
    text = items.first(*_NUMBERS)
    if text is None:
        return []
    number = int(text) if text.isdigit() else 0
    # unusual settings, F 4/m m m for one, have names but are not meant by a number
    entries = [entry for entry in _table() if entry.group.number == number and entry.tabulated]
    if not entries:
        raise PhonopyEquivariantError(f"{text} is the number of no space group; mend it.")
    code = items.first(_CODE)
    if code is None:
        usual = [entry.group.xhm() for entry in entries if entry.group.is_reference_setting()]
        standard = "".join(name for name in usual if ":" not in name)
        return [Statement(f"the number {number}", _settings(entries), standard=standard)]
    settings = _with_code(_settings(entries), code)
    return [Statement(f"the number {number} with the code {code!r}", settings)]


def settings_of_name(name: str) -> tuple[Setting, ...]:
    """Return the settings that a Hermann-Mauguin symbol may stand for; none if it is unknown."""
    key, code = _split_name(name)
    settings = _settings(entry for entry in _table() if key in entry.names)
    if not code:
        return settings
    origin = (f":{code}", f":{code.upper()}")
    ending = tuple(setting for setting in settings if setting.name.endswith(origin))
    return ending or _with_code(settings, code)


def _split_name(name: str) -> tuple[str, str]:
    """Return a symbol without blanks, and the code of its setting or nothing.

    >>> _split_name("F d -3 m :2"), _split_name("R-3mH"), _split_name("P n n n (origin choice 1)")
    (('Fd-3m', '2'), ('R-3m', 'h'), ('Pnnn', '1'))
    """
    text = re.sub(r"[\s_]", "", name).lower()
    text = re.sub(r"\((\d)\)", r"\1", text)  # P2(1)/c
    text, _, code = text.partition(":")
    for ending in (
        r"\(?o(?:rigin)?(?:choice)?([12])\)?",
        r"\(?(h)ex[a-z]*\)?",
        r"\(?(r)homb[a-z]*\)?",
        r"(hr|rs|[szhr])",  # ICSD: origins 1 and 2, hexagonal and rhombohedral axes
    ):
        match = re.fullmatch(rf"(.+?){ending}", text)
        if match and not code:
            text, code = match.groups()
    return text[:1].upper() + text[1:], _SUFFIXES.get(code, code)


def _with_code(settings: Iterable[Setting], code: str) -> tuple[Setting, ...]:
    """Return the settings that have a code such as ``2``, ``h``, ``b1`` or ``2cab``."""
    code = code.strip().lower()
    code = code.removesuffix("abc") if code in ("abc", "1abc", "2abc") else code
    entries = {entry.group.xhm(): entry for entry in _table()}
    return tuple(setting for setting in settings if code in entries[setting.name].codes)


def _settings(entries: Iterable[_Entry]) -> tuple[Setting, ...]:
    return tuple(
        _setting(entry.group.xhm(), entry.group.number, entry.group.operations())
        for entry in entries
    )


def _setting(name: str, number: int, operations: Iterable[gemmi.Op]) -> Setting:
    listed = list(operations)
    rotations = np.array([operation.rot for operation in listed]) // gemmi.Op.DEN
    translations = np.array([operation.tran for operation in listed], float) / gemmi.Op.DEN
    return Setting(name, number, rotations, translations)


def _keys(setting: Setting) -> frozenset[tuple[int, ...]]:
    shifts = np.rint(setting.translations * gemmi.Op.DEN).astype(int) % gemmi.Op.DEN
    rows = np.hstack([setting.rotations.reshape(-1, 9), shifts])
    return frozenset(map(tuple, rows.tolist()))


@functools.cache
def _table() -> tuple[_Entry, ...]:
    """Return gemmi's settings, with spglib's names and codes added where spglib has the setting."""
    kinds = defaultdict(list)
    for hall_number in range(1, 531):
        kind: Any = spglib.get_spacegroup_type(hall_number)
        kinds[_triplets(gemmi.symops_from_hall(kind.hall_symbol))].append(kind)
    entries = []
    for group in gemmi.spacegroup_table():
        names, origin = [group.hm, group.short_name()], group.ext.strip("\0").lower()
        codes = [origin + group.qualifier]
        spglib_kinds = kinds[_triplets(group.operations())]
        for kind in spglib_kinds:
            # "P 2_1/c = P 1 1 2_1/b = P 2_1/b": the first is of the standard setting
            symbols = kind.international.split("=")
            names += [kind.international_full, *(symbols[1:] or symbols)]
            choice = kind.choice.lower()
            # where there is one choice of the cell, its number may stand all the same
            codes += [choice, f"{choice}1"] if choice in ("a", "b", "c") else [choice]
        if group.number >= 195:  # cubic groups once had no bar: F m 3 m
            names.append(group.hm.replace("-3", "3"))
        keys = frozenset(re.sub(r"[\s_]", "", name).capitalize() for name in names)
        entries.append(_Entry(group, keys, frozenset(codes), bool(spglib_kinds)))
    return tuple(entries)


def _triplets(operations: Iterable[gemmi.Op]) -> frozenset[str]:
    return frozenset(operation.triplet() for operation in operations)

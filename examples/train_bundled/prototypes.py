"""Crystal structures of known prototypes, filled by charge neutrality and ionic radii.

A prototype is a space group with the sites of its asymmetric unit. Every site has a role, a
letter; a composition gives every role an element. Coordinates and axial ratios are where a
relaxation starts.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from ase import Atoms
from ase.spacegroup import crystal

Radii = dict[str, float]


class Site(NamedTuple):
    """One orbit of atoms: role and a representative's fractional coordinates."""

    role: str
    x: float
    y: float
    z: float


@dataclasses.dataclass(frozen=True)
class Prototype:
    """A structure type.

    Parameters
    ----------
    name
        Group of structures that training and held-out data do not share, with the composition.
    number
        Space group.
    sites
        The asymmetric unit.
    cell
        b/a, c/a and the three angles (degrees).
    kind
        ``ionic``: roles A, B, C are cations and X, Y anions, neutral together; ``metal``: all
        roles metals; ``element``: one role.
    fits
        Which radii (Å, by role) the prototype takes.
    setting
        Of the space group, as ASE counts them.
    count
        Compositions to draw.

    """

    name: str
    number: int
    sites: tuple[Site, ...]
    cell: tuple[float, float, float, float, float] = (1.0, 1.0, 90.0, 90.0, 90.0)
    kind: str = "ionic"
    fits: Callable[[Radii], bool] = lambda r: True
    setting: int = 1
    count: int = 30

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles in the order of the alphabet."""
        return tuple(sorted({site.role for site in self.sites}))

    def build(self, elements: dict[str, str], a: float = 10.0) -> Atoms:
        """Return the primitive cell with lattice parameter ``a``."""
        ratio_b, ratio_c, *angles = self.cell
        return crystal(
            [elements[site.role] for site in self.sites],
            [site[1:] for site in self.sites],
            spacegroup=self.number,
            setting=self.setting,
            cellpar=[a, a * ratio_b, a * ratio_c, *angles],
            primitive_cell=True,
            symprec=1e-4,
            onduplicates="keep",
        )

    def multiplicities(self) -> dict[str, int]:
        """Return how many atoms of each role the primitive cell has."""
        stand_ins = dict(zip(self.roles, ("H", "He", "Li", "Be", "B"), strict=False))
        counts = Counter(self.build(stand_ins).get_chemical_symbols())
        return {role: counts[symbol] for role, symbol in stand_ins.items()}


def S(role: str, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Site:
    """Return a site."""
    return Site(role, x, y, z)


HEXAGONAL = (90.0, 90.0, 120.0)
T, H, Q = 1 / 3, 0.5, 0.25


def hexagonal(ratio: float) -> tuple[float, float, float, float, float]:
    """Return a hexagonal cell of c/a = ``ratio``."""
    return (1.0, ratio, *HEXAGONAL)


def box(b: float, c: float, beta: float = 90.0) -> tuple[float, float, float, float, float]:
    """Return a cell of b/a, c/a and the monoclinic angle."""
    return (b, c, 90.0, beta, 90.0)


def tolerance(r: Radii) -> float:
    """Return Goldschmidt's factor of ABX3."""
    return (r["A"] + r["X"]) / (2**0.5 * (r["B"] + r["X"]))


def ratio(low: float, high: float) -> Callable[[Radii], bool]:
    """Return the condition low <= r_A/r_X < high."""
    return lambda r: low <= r["A"] / r["X"] < high


def small(role: str, limit: float) -> Callable[[Radii], bool]:
    """Return the condition that a role's ion is at most so large (Å)."""
    return lambda r: r[role] <= limit


PROTOTYPES: tuple[Prototype, ...] = (
    # elements
    Prototype("fcc", 225, (S("A"),), kind="element", count=40),
    Prototype("bcc", 229, (S("A"),), kind="element", count=40),
    Prototype("hcp", 194, (S("A", T, 2 * T, Q),), hexagonal(1.62), "element", count=40),
    Prototype("diamond", 227, (S("A"),), kind="element", count=8),
    Prototype("beta-tin", 141, (S("A"),), box(1, 0.55), "element", count=6),
    Prototype("A7", 166, (S("A", 0, 0, 0.23),), hexagonal(2.6), "element", count=6),
    Prototype("gamma-Se", 152, (S("A", 0.22, 0, T),), hexagonal(1.14), "element", count=4),
    Prototype("black-P", 64, (S("A", 0, 0.1, 0.08),), box(3.2, 1.32), "element", count=4),
    Prototype("graphite", 194, (S("A", 0, 0, Q), S("A", T, 2 * T, Q)), hexagonal(2.7), "element"),
    # AX
    Prototype("rocksalt", 225, (S("A"), S("X", H, H, H)), fits=ratio(0.2, 1.2), count=70),
    Prototype("CsCl", 221, (S("A"), S("X", H, H, H)), fits=ratio(0.4, 1.5), count=25),
    Prototype("zincblende", 216, (S("A"), S("X", Q, Q, Q)), fits=ratio(0.05, 0.6), count=50),
    Prototype(
        "wurtzite",
        186,
        (S("A", T, 2 * T, 0), S("X", T, 2 * T, 0.375)),
        hexagonal(1.62),
        fits=ratio(0.05, 0.6),
        count=45,
    ),
    Prototype(
        "NiAs", 194, (S("A"), S("X", T, 2 * T, Q)), hexagonal(1.45), fits=ratio(0.25, 0.5), count=20
    ),
    Prototype("BN", 194, (S("A", T, 2 * T, Q), S("X", T, 2 * T, 0.75)), hexagonal(2.6), count=8,
              fits=small("A", 0.6)),
    Prototype("PbO", 129, (S("A", 0, H, 0.24), S("X")), box(1, 1.26), count=15),
    Prototype(
        "GeS", 62, (S("A", 0.12, Q, 0.12), S("X", 0.85, Q, 0.5)), box(0.38, 0.41), count=15,
        fits=ratio(0.3, 0.7),
    ),
    # AX2 and A2X
    Prototype("fluorite", 225, (S("A"), S("X", Q, Q, Q)), fits=ratio(0.4, 1.5), count=40),
    Prototype("antifluorite", 225, (S("X"), S("A", Q, Q, Q)), fits=ratio(0.1, 1.1), count=35),
    Prototype(
        "rutile", 136, (S("A"), S("X", 0.305, 0.305, 0)), box(1, 0.65), fits=ratio(0.25, 0.7),
        count=45,
    ),
    Prototype("anatase", 141, (S("A"), S("X", 0, 0, 0.208)), box(1, 2.5), fits=ratio(0.3, 0.6),
              count=15),
    Prototype("CdI2", 164, (S("A"), S("X", T, 2 * T, Q)), hexagonal(1.62), fits=ratio(0.2, 0.6),
              count=40),
    Prototype("CdCl2", 166, (S("A"), S("X", 0, 0, 0.257)), hexagonal(4.8), fits=ratio(0.25, 0.6),
              count=20),
    Prototype("MoS2", 194, (S("A", T, 2 * T, Q), S("X", T, 2 * T, 0.621)), hexagonal(3.9),
              fits=ratio(0.2, 0.5), count=15),
    Prototype("pyrite", 205, (S("A"), S("X", 0.385, 0.385, 0.385)), fits=ratio(0.2, 0.6), count=15),
    Prototype("cristobalite", 227, (S("A"), S("X", 0.125, 0.125, 0.125)), fits=ratio(0.05, 0.42),
              count=10),
    Prototype("quartz", 152, (S("A", 0.47, 0, T), S("X", 0.4135, 0.2669, 0.2144)), hexagonal(1.1),
              fits=ratio(0.05, 0.42), count=15),
    Prototype("alpha-cristobalite", 92, (S("A", 0.3, 0.3, 0), S("X", 0.239, 0.104, 0.179)),
              box(1, 1.39), fits=ratio(0.05, 0.42), count=8),
    Prototype("cuprite", 224, (S("X"), S("A", Q, Q, Q)), fits=ratio(0.3, 1.1), count=8),
    # A2X3, AX3, A3X
    Prototype("corundum", 167, (S("A", 0, 0, 0.35), S("X", 0.306, 0, Q)), hexagonal(2.73),
              fits=ratio(0.3, 0.65), count=25),
    Prototype("Bi2Te3", 166, (S("A", 0, 0, 0.4), S("X"), S("X", 0, 0, 0.21)), hexagonal(6.9),
              fits=ratio(0.2, 0.7), count=25),
    Prototype("La2O3", 164, (S("A", T, 2 * T, 0.245), S("X"), S("X", T, 2 * T, 0.645)),
              hexagonal(1.56), fits=ratio(0.4, 0.8), count=20),
    Prototype("ReO3", 221, (S("A"), S("X", H, 0, 0)), fits=ratio(0.2, 0.7), count=15),
    Prototype("AlF3", 167, (S("A"), S("X", 0.43, 0, Q)), hexagonal(2.5), fits=ratio(0.25, 0.7),
              count=15),
    Prototype("BiI3", 148, (S("A", 0, 0, 0.167), S("X", 0.34, 0, 0.08)), hexagonal(2.75),
              fits=ratio(0.2, 0.6), count=12),
    Prototype("Li3N", 191, (S("X"), S("A", 0, 0, H), S("A", T, 2 * T, 0)), hexagonal(1.06),
              count=6),
    Prototype("Na3As", 194, (S("X", T, 2 * T, Q), S("A", 0, 0, Q), S("A", T, 2 * T, 0.583)),
              hexagonal(1.78), count=10),
    Prototype("beta-Si3N4", 176,
              (S("A", 0.174, 0.768, Q), S("X", 0.33, 0.03, Q), S("X", T, 2 * T, Q)),
              hexagonal(0.383), fits=ratio(0.05, 0.55), count=6),
    # ABX3
    Prototype("perovskite", 221, (S("A"), S("B", H, H, H), S("X", H, H, 0)),
              fits=lambda r: 0.8 < tolerance(r) < 1.12 and r["A"] > 0.9, count=70),
    Prototype("perovskite-P4mm", 99, (S("A"), S("B", H, H, 0.52), S("X", H, H, 0.97),
              S("X", H, 0, 0.47)), box(1, 1.04),
              fits=lambda r: 0.85 < tolerance(r) < 1.15 and r["A"] > 1.0 and r["B"] < 0.75,
              count=20),
    Prototype("perovskite-Pnma", 62,
              (S("A", 0.04, Q, 0.99), S("B", 0, 0, H), S("X", 0.48, Q, 0.08),
               S("X", 0.29, 0.04, 0.71)), box(1.42, 0.98),
              fits=lambda r: 0.78 < tolerance(r) < 0.98 and r["A"] > 0.9, count=20),
    Prototype("LaAlO3", 167, (S("A", 0, 0, Q), S("B"), S("X", 0.46, 0, Q)), hexagonal(2.42),
              fits=lambda r: 0.85 < tolerance(r) < 1.02 and r["A"] > 0.9, count=20),
    Prototype("LiNbO3", 161, (S("A", 0, 0, 0.28), S("B"), S("X", 0.05, 0.34, 0.065)),
              hexagonal(2.69), fits=lambda r: tolerance(r) < 0.9 and r["B"] < 0.75, count=20),
    Prototype("ilmenite", 148, (S("A", 0, 0, 0.355), S("B", 0, 0, 0.147),
              S("X", 0.317, 0.02, 0.245)), hexagonal(2.77),
              fits=lambda r: tolerance(r) < 0.9 and r["A"] < 0.9 and r["B"] < 0.75, count=20),
    Prototype("calcite", 167, (S("A"), S("B", 0, 0, Q), S("X", 0.257, 0, Q)), hexagonal(3.42),
              fits=lambda r: r["B"] < 0.28 and r["A"] > 0.45, count=22),
    Prototype("aragonite", 62, (S("A", 0.759, Q, 0.585), S("B", 0.914, Q, 0.238),
              S("X", 0.911, Q, 0.078), S("X", 0.913, 0.474, 0.319)), box(0.864, 1.388),
              fits=lambda r: r["B"] < 0.28 and r["A"] > 0.95, count=8, setting=1),
    Prototype("hexagonal-perovskite", 194, (S("A", T, 2 * T, 0.75), S("B"), S("X", 0.155, 0.31, Q)),
              hexagonal(0.84), fits=lambda r: tolerance(r) > 1.0 and r["A"] > 1.2, count=15),
    Prototype("antiperovskite", 221, (S("Y"), S("X", H, H, H), S("A", H, H, 0)), count=12),
    # ABX2
    Prototype("delafossite", 166, (S("A"), S("B", 0, 0, H), S("X", 0, 0, 0.11)), hexagonal(5.8),
              fits=lambda r: r["B"] < 0.9 and r["A"] > 0.7, count=15),
    Prototype("NaFeO2", 166, (S("A", 0, 0, H), S("B"), S("X", 0, 0, 0.24)), hexagonal(5.2),
              fits=lambda r: r["B"] < 0.95 and r["A"] > 0.65, count=30),
    Prototype("chalcopyrite", 122, (S("A"), S("B", 0, 0, H), S("X", 0.24, Q, 0.125)),
              box(1, 1.97), fits=lambda r: max(r["A"], r["B"]) < 0.65 * r["X"], count=30),
    Prototype("LiGaO2", 33, (S("A", 0.42, 0.13, 0.49), S("B", 0.08, 0.13, 0),
              S("X", 0.41, 0.14, 0.89), S("X", 0.07, 0.11, 0.37)), box(1.18, 0.93),
              fits=lambda r: max(r["A"], r["B"]) < 0.6 * r["X"], count=10),
    # AB2X4 and the like
    Prototype("spinel", 227, (S("A", 0.125, 0.125, 0.125), S("B", H, H, H),
              S("X", 0.262, 0.262, 0.262)), fits=lambda r: max(r["A"], r["B"]) < 0.9, setting=2,
              count=30),
    Prototype("olivine", 62, (S("A"), S("A", 0.28, Q, 0.98), S("B", 0.095, Q, 0.43),
              S("X", 0.09, Q, 0.76), S("X", 0.45, Q, 0.22), S("X", 0.165, 0.035, 0.28)),
              box(0.59, 0.47), fits=lambda r: r["B"] < 0.5 and r["A"] > 0.5, count=8),
    Prototype("K2NiF4", 139, (S("A", 0, 0, 0.355), S("B"), S("X", 0, H, 0), S("X", 0, 0, 0.155)),
              box(1, 3.3), fits=lambda r: 0.8 < tolerance(r) < 1.1 and r["A"] > 0.9, count=25),
    Prototype("zircon", 141, (S("A", 0, 0.75, 0.125), S("B", 0, Q, 0.375),
              S("X", 0, 0.066, 0.195)), box(1, 0.9), fits=lambda r: r["B"] < 0.55 < r["A"],
              setting=2, count=15),
    Prototype("scheelite", 88, (S("A", 0, Q, 0.625), S("B", 0, Q, 0.125),
              S("X", 0.15, 0.01, 0.21)), box(1, 2.17), fits=lambda r: r["B"] < 0.62 < r["A"],
              setting=2, count=20),
    Prototype("berlinite", 152, (S("A", 0.466, 0, T), S("B", 0.467, 0, 5 / 6),
              S("X", 0.416, 0.292, 0.398), S("X", 0.415, 0.258, 0.884)), hexagonal(2.21),
              fits=lambda r: max(r["A"], r["B"]) < 0.66, count=8),
    Prototype("phosphate-BPO4", 82, (S("A", 0, H, Q), S("B"), S("X", 0.26, 0.14, 0.13)),
              box(1, 1.53), fits=lambda r: max(r["A"], r["B"]) < 0.5, count=6),
    Prototype("elpasolite", 225, (S("A", Q, Q, Q), S("B", H, H, H), S("C"), S("X", 0.24, 0, 0)),
              fits=lambda r: r["A"] > 1.0 and r["A"] > r["B"] > r["C"], count=45),
    Prototype("K2PtCl6", 225, (S("A", Q, Q, Q), S("B"), S("X", 0.24, 0, 0)),
              fits=lambda r: r["A"] > 1.0 and r["B"] < 0.8, count=25),
    # several anions
    Prototype("PbFCl", 129, (S("A", 0, H, 0.2), S("X"), S("Y", 0, H, 0.65)), box(1, 1.75),
              fits=lambda r: r["A"] > 0.7 and r["Y"] > r["X"], count=30),
    Prototype("half-Heusler", 216, (S("A", Q, Q, Q), S("B", H, H, H), S("X")), count=35),
    Prototype("anti-fluoride-nitride", 166, (S("A", 0, 0, H), S("B"), S("X", 0, 0, 0.25)),
              hexagonal(5.4), fits=lambda r: r["B"] < 0.75 and r["X"] > 1.4, count=10),
    Prototype("sulphohalide", 166, (S("A", 0, 0, 0.12), S("X", 0, 0, 0.28), S("Y", 0, 0, 0.39)),
              hexagonal(7.5), fits=lambda r: r["Y"] > r["X"], count=15),
    Prototype("La2O2S", 164, (S("A", T, 2 * T, 0.28), S("X", T, 2 * T, 0.63), S("Y")),
              hexagonal(1.72), fits=lambda r: r["A"] > 0.75 and r["Y"] > r["X"], count=12),
    # metals
    Prototype("B2", 221, (S("A"), S("B", H, H, H)), kind="metal", count=40),
    Prototype("L10", 123, (S("A"), S("B", H, H, H)), box(1, 1.35), "metal", count=30),
    Prototype("L12", 221, (S("A"), S("B", H, H, 0)), kind="metal", count=40),
    Prototype("C15", 227, (S("A", 0.125, 0.125, 0.125), S("B", H, H, H)), kind="metal",
              fits=lambda r: 1.05 < r["A"] / r["B"] < 1.6, setting=2, count=25),
    Prototype("AlB2", 191, (S("A"), S("X", T, 2 * T, H)), hexagonal(1.1), "metal+B", count=25),
    Prototype("Heusler", 225, (S("A", Q, Q, Q), S("B"), S("C", H, H, H)), kind="metal", count=40),
    Prototype("ZrNiAl", 189, (S("A", 0.59, 0, 0), S("B", 0.25, 0, H), S("C", T, 2 * T, 0),
              S("C", 0, 0, H)), hexagonal(0.51), "metal",
              fits=lambda r: r["A"] > r["B"], count=15),
    Prototype("C11b", 139, (S("A"), S("B", 0, 0, T)), box(1, 2.5), "metal", count=12),
    Prototype("A15", 223, (S("A"), S("B", Q, 0, H)), kind="metal", count=12),
    Prototype("B20", 198, (S("A", 0.14, 0.14, 0.14), S("X", 0.84, 0.84, 0.84)), kind="metal+Si",
              count=15),
    Prototype("MAX", 194, (S("A", T, 2 * T, 0.085), S("B", T, 2 * T, 0.75), S("X")),
              hexagonal(4.3), "metal+CN", count=15),
    # of which compounds are known rather than drawn
    Prototype("wolframite", 13, (S("A", H, 0.68, Q), S("B", 0, 0.18, Q), S("X", 0.22, 0.11, 0.94),
              S("X", 0.26, 0.38, 0.39)), box(1.22, 1.055, 90.8),
              fits=lambda r: r["A"] < 0.9 and 0.5 < r["B"] < 0.7, count=8),
    Prototype("dolomite", 148, (S("A"), S("B", 0, 0, H), S("C", 0, 0, 0.243),
              S("X", 0.248, -0.035, 0.244)), hexagonal(3.33),
              fits=lambda r: r["C"] < 0.28 and r["A"] > r["B"] > 0.5, count=8),
    Prototype("huntite", 155, (S("A"), S("B", 0.556, 0, 0), S("C", 0, 0, H), S("C", 0.447, 0, H),
              S("X", 0.854, 0, H), S("X", 0.59, 0, H), S("X", 0.451, 0.147, 0.518)),
              hexagonal(0.78), fits=lambda r: r["C"] < 0.28 and r["A"] > r["B"] > 0.5, count=4),
    Prototype("anhydrite", 63, (S("A", 0, 0.347, 0.75), S("B", 0, 0.156, Q),
              S("X", 0.17, 0.016, Q), S("X", 0, 0.298, 0.082)), box(0.892, 1.0),
              fits=lambda r: r["B"] < 0.45 and r["A"] > 0.9, count=8),
    Prototype("Li3PO4", 31, (S("A", 0.248, 0.328, 0.986), S("A", 0, 0.157, 0.489),
              S("B", 0, 0.824, 0), S("X", 0.209, 0.686, 0.897), S("X", 0, 0.105, 0.9),
              S("X", 0, 0.815, 0.31)), box(0.857, 0.794),
              fits=lambda r: max(r["A"], r["B"]) < 0.8, count=6),
    Prototype("pyrochlore", 227, (S("A", H, H, H), S("B"), S("X", 0.33, 0.125, 0.125),
              S("X", 0.375, 0.375, 0.375)), setting=2,
              fits=lambda r: r["A"] > 0.9 and r["B"] < 0.8, count=6),
    Prototype("perovskite-I4mcm", 140, (S("A", 0, H, Q), S("B"), S("X", 0, 0, Q),
              S("X", 0.23, 0.73, 0)), box(1, 1.414),
              fits=lambda r: 0.8 < tolerance(r) < 1.02 and r["A"] > 0.9, count=15),
    Prototype("CaAl2Si2", 164, (S("A"), S("B", T, 2 * T, 0.63), S("X", T, 2 * T, 0.27)),
              hexagonal(1.7), fits=lambda r: r["A"] > 0.7 and r["B"] < 1.0, count=20),
    Prototype("ThCr2Si2", 139, (S("A"), S("B", 0, H, Q), S("X", 0, 0, 0.365)), box(1, 2.7),
              kind="listed"),
    Prototype("half-Heusler-metal", 216, (S("A", Q, Q, Q), S("B", H, H, H), S("C")),
              kind="listed"),
)  # fmt: skip

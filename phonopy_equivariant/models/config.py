"""Configurations of potentials: what all have in common, and NequIP's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from ase.data import chemical_symbols

from phonopy_equivariant.errors import PhonopyEquivariantError, nearest
from phonopy_equivariant.models.representations import format_irreps, parse_irreps


class ModelConfig:
    """What every configuration has: plain values, checked, to and from a mapping.

    A subclass is a frozen dataclass with at least the fields below.
    """

    kind: ClassVar[str]  # how messages call it

    species: tuple[int, ...]  # atomic numbers, sorted
    cutoff: float  # Å
    num_interactions: int
    hidden_irreps: str

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Make a configuration from plain values; an unknown key raises with the nearest one."""
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for key in values:
            if key not in names:
                near = nearest(key, names)
                hint = f" Did you mean {near!r}?" if near else f" Known: {', '.join(names)}."
                raise PhonopyEquivariantError(
                    f"{cls.kind} configuration: unknown key {key!r}.{hint}"
                )
        if "species" not in values:
            raise PhonopyEquivariantError(
                f"{cls.kind} configuration: incomplete, species is missing."
            )
        return cls(**{**values, "species": tuple(values["species"])})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_dict` takes, fit for YAML."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {key: list(x) if isinstance(x, tuple) else x for key, x in values.items()}

    def _check_types(self) -> None:
        """Refuse a number, flag or word of another type than the field's."""
        types = {"float": (int, float), "int": (int,), "bool": (bool,), "str": (str,)}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            allowed: tuple[type, ...] = types.get(str(field.type), ())
            value = getattr(self, field.name)
            if allowed and (
                not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed)
            ):
                raise self._error(field.name, f"is not of type {field.type}")

    def _check(self, requirements: Mapping[str, bool]) -> None:
        """Refuse the first field whose requirement is not met."""
        for name, satisfied in requirements.items():
            if not satisfied:
                raise self._error(name, "is out of range")

    def _error(self, name: str, problem: str) -> PhonopyEquivariantError:
        value = getattr(self, name)
        return PhonopyEquivariantError(f"{self.kind} configuration: {name}={value!r} {problem}.")

    def _parse_irreps(self, name: str) -> dict[str, int]:
        """Return a field's irreps and channels, each once and in e3nn's order."""
        try:
            return parse_irreps(getattr(self, name))
        except ValueError as error:
            raise self._error(name, "is not a list like '64x0e + 32x1o'") from error


def known_species(species: tuple[int, ...]) -> bool:
    """Tell whether these are atomic numbers, at least one and none twice."""
    known = range(1, len(chemical_symbols))
    return len(set(species)) == len(species) > 0 and all(z in known for z in species)


@dataclasses.dataclass(frozen=True)
class NequIPConfig(ModelConfig):
    """Architecture of a NequIP potential (arXiv:2101.03164) in the form Nequix gave it.

    Parameters
    ----------
    species
        Atomic numbers the potential knows; stored sorted.
    cutoff
        Radius of a neighbourhood (Å).
    num_interactions
        Number of layers T: a site energy sees atoms within T·cutoff.
    hidden_irreps
        Features of an atom between layers, e.g. ``"128x0e + 64x1o + 32x2e"``; both parities
        are allowed, each irrep counts once, and ``0e`` must be among them.
    l_max
        Highest degree of the spherical harmonics on an edge.
    num_radial_basis, radial_width, radial_depth
        Bessel functions, width of a hidden layer, number of hidden layers of the network that
        gives the radial functions.
    envelope_exponent
        p >= 2 of the polynomial envelope; C² at the cutoff (arXiv:2003.03123, eq. 8).
    species_skip
        Whether the skip connection has weights of its own for each species.
    layer_norm
        Whether features pass an equivariant RMS norm before the gate.
    avg_num_neighbors
        Sums over neighbours are divided by its square root.
    scale, shift
        Site energy = scale · readout + shift + energy of the free atom (eV).

    Raises
    ------
    PhonopyEquivariantError
        A value outside its range.

    """

    kind: ClassVar[str] = "NequIP"

    species: tuple[int, ...]
    cutoff: float = 5.0
    num_interactions: int = 3
    hidden_irreps: str = "64x0e + 32x1o + 16x2e"
    l_max: int = 2
    num_radial_basis: int = 8
    radial_width: int = 64
    radial_depth: int = 2
    envelope_exponent: float = 6.0
    species_skip: bool = True
    layer_norm: bool = False
    avg_num_neighbors: float = 1.0
    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        """Normalise the species and the irreps, and refuse values out of range."""
        self._check_types()
        object.__setattr__(self, "species", tuple(sorted(int(z) for z in self.species)))
        irreps = self._parse_irreps("hidden_irreps")
        object.__setattr__(self, "hidden_irreps", format_irreps(irreps))
        requirements = {
            "species": known_species(self.species),
            "cutoff": self.cutoff > 0,
            "num_interactions": self.num_interactions >= 1,
            "hidden_irreps": "0e" in irreps,
            "l_max": 0 <= self.l_max <= 8,
            "num_radial_basis": self.num_radial_basis >= 1,
            "radial_width": self.radial_width >= 1,
            "radial_depth": self.radial_depth >= 0,
            "envelope_exponent": self.envelope_exponent >= 2,
            "avg_num_neighbors": self.avg_num_neighbors > 0,
            "scale": math.isfinite(self.scale),
            "shift": math.isfinite(self.shift),
        }
        self._check(requirements)

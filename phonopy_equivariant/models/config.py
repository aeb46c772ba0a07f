"""Configurations of potentials: what all have in common, and NequIP's."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, NamedTuple

from ase.data import chemical_symbols

from phonopy_equivariant.errors import PhonopyEquivariantError, require_known_keys
from phonopy_equivariant.models.representations import format_irreps, parse_irreps

# forms of the envelope, and kinds of weights of a skip connection
ENVELOPES = ("polynomial", "xplor")
SKIPS = {"species", "shared", "none"}


class Kink(NamedTuple):
    """A distance (Å) at which derivatives of the energy of a bond jump."""

    radius: float
    derivative: int  # the lowest one that jumps
    pair: tuple[int, int] | None = None  # atomic numbers; None: any pair


class ModelConfig:
    """What every configuration has: plain values, checked, to and from a mapping.

    A subclass is a frozen dataclass with at least the fields below.
    """

    kind: ClassVar[str]  # how messages call it

    species: tuple[int, ...]  # atomic numbers, sorted
    cutoff: float  # Å
    num_interactions: int
    hidden_irreps: str
    # whether energies are invariant under reflections: O(3); False: under rotations alone
    parity: bool = True

    def kinks(self, numbers: Collection[int]) -> tuple[Kink, ...]:
        """Return where derivatives of bonds between some elements jump, by construction.

        The polynomial envelope and two of its derivatives vanish at the cutoff. Where the radial
        basis vanishes there as well, so does a third derivative of their product.
        """
        return (Kink(self.cutoff, 4 if self._basis_ends else 3),)

    @property
    def _basis_ends(self) -> bool:
        """Whether the radial basis is zero at the cutoff."""
        return False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Make a configuration from plain values; an unknown key raises with the nearest one."""
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        require_known_keys(values, names, subject=f"{cls.kind} configuration: ")
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


def are_species(species: tuple[int, ...]) -> bool:
    """Tell whether these are atomic numbers, at least one and none twice."""
    elements = range(1, len(chemical_symbols))
    return len(set(species)) == len(species) > 0 and all(z in elements for z in species)


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
    parity
        Whether features have a parity. False: they and the harmonics of an edge all count as
        even, e.g. ``"128x0e + 64x1e"``, and energies are invariant under rotations but not under
        reflections, as in SevenNet (arXiv:2402.03789).
    embedding_width
        Scalars that the first layer reads for each species; 0: the one-hot vector of the species.
    frequencies
        ω of the radial basis sin(ω r)/r (Å⁻¹); empty: kπ / cutoff.
    envelope, envelope_onset
        ``polynomial``, or ``xplor`` from this radius (Å) on, which is only C¹ there and at the
        cutoff.
    solid_harmonics
        Whether harmonics of degree l come with the factor (r / Å)^l.
    skips
        For each layer the weights of its skip connection: ``species`` (of its own for each),
        ``shared`` or ``none``; empty: as ``species_skip`` says.
    biases
        Whether scalars get a constant before and after each convolution.
    sender_norms, receiver_norms
        Whether messages, or the sums over neighbours, are multiplied by a number for each species.
    readout_widths
        Widths of the hidden SiLU layers of the readout; empty: it is linear.
    species_scales
        Whether readouts are multiplied by a number for each species.
    pair_cutoffs
        Radius (Å) of each pair of species, receivers by rows, for the radial basis and the pair
        term; empty: the cutoff for all.
    pair_repulsion
        Whether a Ziegler-Biersack-Littmark term, within the envelope, is added to the energy.

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
    parity: bool = True
    embedding_width: int = 0
    frequencies: tuple[float, ...] = ()
    envelope: str = "polynomial"
    envelope_onset: float = 0.0
    solid_harmonics: bool = False
    skips: tuple[str, ...] = ()
    biases: bool = False
    sender_norms: bool = False
    receiver_norms: bool = False
    readout_widths: tuple[int, ...] = ()
    species_scales: bool = False
    pair_cutoffs: tuple[float, ...] = ()
    pair_repulsion: bool = False

    def __post_init__(self) -> None:
        """Normalise the species and the irreps, and refuse values out of range."""
        self._check_types()
        object.__setattr__(self, "species", tuple(sorted(int(z) for z in self.species)))
        irreps = self._parse_irreps("hidden_irreps")
        object.__setattr__(self, "hidden_irreps", format_irreps(irreps))
        requirements = {
            "species": are_species(self.species),
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
        self._check(self._requirements_of_variants(irreps))

    def _requirements_of_variants(self, irreps: dict[str, int]) -> dict[str, bool]:
        """Return which of the fields that Nequix's form leaves at their defaults are in range."""
        pairs = len(self.species) ** 2
        onset = 0 < self.envelope_onset < self.cutoff
        return {
            "parity": self.parity or all(key.endswith("e") for key in irreps),
            "embedding_width": self.embedding_width >= 0,
            "frequencies": len(self.frequencies) in (0, self.num_radial_basis)
            and all(math.isfinite(w) for w in self.frequencies),
            "envelope": self.envelope in ENVELOPES,
            "envelope_onset": onset if self.envelope == "xplor" else self.envelope_onset == 0,
            "skips": len(self.skips) in (0, self.num_interactions) and set(self.skips) <= SKIPS,
            "readout_widths": all(width >= 1 for width in self.readout_widths),
            "pair_cutoffs": len(self.pair_cutoffs) in (0, pairs)
            and all(0 < radius <= self.cutoff for radius in self.pair_cutoffs)
            and not (self.pair_cutoffs and self.envelope == "xplor"),
        }

    def kinks(self, numbers: Collection[int]) -> tuple[Kink, ...]:
        """Return where derivatives of bonds between some elements jump, by construction."""
        at_end = 3 if self._basis_ends and not self.pair_repulsion else 2
        if self.envelope == "xplor":
            return Kink(self.envelope_onset, 2), Kink(self.cutoff, at_end)
        if not self.pair_cutoffs:
            return (Kink(self.cutoff, at_end + 1),)
        pairs = itertools.product(self.species, repeat=2)
        return tuple(
            Kink(radius, at_end + 1, (a, b))
            for (a, b), radius in zip(pairs, self.pair_cutoffs, strict=True)
            if {a, b} <= set(numbers)
        )

    @property
    def _basis_ends(self) -> bool:
        """Whether the radial basis is zero at the cutoff: frequencies are multiples of π/cutoff."""
        waves = [w * self.cutoff / math.pi for w in self.frequencies]
        return all(abs(wave - round(wave)) < 1e-6 for wave in waves)

    @property
    def symmetric_radial(self) -> bool:
        """Whether radial functions are the same for an edge and its reverse."""
        count = len(self.species)
        rows = [self.pair_cutoffs[k * count : (k + 1) * count] for k in range(count)]
        return not self.pair_cutoffs or rows == list(zip(*rows, strict=True))

"""Configuration of a MACE potential."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection
from typing import ClassVar

from ase.data import covalent_radii

from phonopy_equivariant.models.config import Kink, ModelConfig, are_species
from phonopy_equivariant.models.representations import format_irreps, parse_irrep, parse_irreps

INTERACTIONS = ("plain", "residual", "density", "density-residual", "nonlinear")
READOUTS = ("none", "linear", "silu", "tanh", "silu-bias", "tanh-bias")
# constants of a distance transform: a, q, p of Agnesi's, the steepness of the soft one
TRANSFORMS = {"none": (), "agnesi": (1.0805, 0.9183, 4.5791), "soft": (4.0,)}
# coefficients c of the four exponentials, exponent and prefactor of the screening length
ZBL = (0.1818, 0.5099, 0.2802, 0.02817, 0.3, 0.4543)


@dataclasses.dataclass(frozen=True)
class MACEConfig(ModelConfig):
    """Architecture of a MACE potential (arXiv:2206.07697) with the options of mace-torch.

    Tuples with one entry for each layer may be given with a single entry that serves all.

    Parameters
    ----------
    species
        Atomic numbers the potential knows; stored sorted.
    cutoff
        Radius of a neighbourhood (Å).
    num_interactions
        Number of layers T: a site energy sees atoms within T·cutoff.
    hidden_irreps
        Features of an atom between layers, e.g. ``"128x0e + 128x1o"``: the same number of
        channels for each irrep, ``0e`` among them, all of the parity of harmonics.
    l_max
        Highest degree of the harmonics on an edge and of the features that are multiplied.
    correlation
        For each layer the order of its products: 3 couples an atom with three neighbours.
    interactions
        For each layer one of ``plain``, ``residual``, ``density``, ``density-residual`` and
        ``nonlinear`` (mace-torch: RealAgnosticInteractionBlock, RealAgnosticResidual...,
        RealAgnosticDensity..., RealAgnosticDensityResidual..., RealAgnosticResidualNonLinear...).
    message_irreps
        For each layer the irreps that neighbours send, ``""`` for those of the features.
    num_radial_basis, radial_widths
        Bessel functions, and widths of the hidden layers of the radial networks.
    density_width
        Width of the hidden layer of the density's network in ``nonlinear`` interactions.
    frequencies
        ω of the radial basis sin(ω r)/r (Å⁻¹); empty: kπ / cutoff.
    envelope_exponent
        p of the polynomial envelope (arXiv:2003.03123, eq. 8).
    apply_cutoff
        Whether the envelope multiplies the radial basis, or else what the networks make of it.
    distance_transform, transform_constants
        ``none``, ``agnesi`` (a, q, p; doi:10.1063/5.0158783) or ``soft`` (steepness).
    covalent_radii
        For each species (Å), for the transforms and the pair term; empty: those of ASE.
    pair_repulsion, zbl_constants
        Whether a Ziegler-Biersack-Littmark term is added to the readouts, and its constants.
    agnostic_product
        Whether products have the same weights for all species.
    readouts, readout_width
        For each layer ``none``, ``linear``, a network of one hidden layer (``silu``, ``tanh``),
        or of two with biases (``silu-bias``, ``tanh-bias``).
    avg_num_neighbors
        Sums over neighbours are divided by it, but where a density takes its place.
    scale, shift
        Site energy = scale · (readouts + pair term) + shift + energy of the free atom (eV).

    Raises
    ------
    PhonopyEquivariantError
        A value outside its range.

    """

    kind: ClassVar[str] = "MACE"

    species: tuple[int, ...]
    cutoff: float = 5.0
    num_interactions: int = 2
    hidden_irreps: str = "64x0e + 64x1o"
    l_max: int = 3
    correlation: tuple[int, ...] = (3,)
    interactions: tuple[str, ...] = ("residual",)
    message_irreps: tuple[str, ...] = ("",)
    num_radial_basis: int = 8
    radial_widths: tuple[int, ...] = (64, 64, 64)
    density_width: int = 64
    frequencies: tuple[float, ...] = ()
    envelope_exponent: int = 5
    apply_cutoff: bool = True
    distance_transform: str = "none"
    transform_constants: tuple[float, ...] = ()
    covalent_radii: tuple[float, ...] = ()
    pair_repulsion: bool = False
    zbl_constants: tuple[float, ...] = ZBL
    agnostic_product: bool = False
    readouts: tuple[str, ...] = ()
    readout_width: int = 16
    avg_num_neighbors: float = 1.0
    scale: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        """Fill in defaults, one value for each layer, and refuse values out of range."""
        self._check_types()
        object.__setattr__(self, "species", tuple(sorted(int(z) for z in self.species)))
        self._check({"species": are_species(self.species)})
        irreps = self._parse_irreps("hidden_irreps")
        defaults = {
            "hidden_irreps": format_irreps(irreps),
            "readouts": ("linear",) * (self.num_interactions - 1) + ("silu",),
            "transform_constants": TRANSFORMS.get(self.distance_transform, ()),
            "covalent_radii": tuple(float(covalent_radii[z]) for z in self.species),
            "frequencies": tuple(
                k * math.pi / self.cutoff for k in range(1, self.num_radial_basis + 1)
            ),
        }
        for name, value in defaults.items():
            if name == "hidden_irreps" or not getattr(self, name):
                object.__setattr__(self, name, value)
        for name in ("correlation", "interactions", "message_irreps", "readouts"):
            values = getattr(self, name)
            if len(values) == 1:
                object.__setattr__(self, name, values * self.num_interactions)
        self._check(self._requirements(irreps))

    def _requirements(self, irreps: dict[str, int]) -> dict[str, bool]:
        """Return which fields are as they must be."""
        layers, species = self.num_interactions, len(self.species)
        constants = len(TRANSFORMS.get(self.distance_transform, ()))
        return {
            "cutoff": self.cutoff > 0,
            "num_interactions": layers >= 1,
            "hidden_irreps": "0e" in irreps
            and len(set(irreps.values())) == 1
            and all(x.parity == (-1) ** x.degree for x in map(parse_irrep, irreps)),
            "l_max": 0 <= self.l_max <= 6,
            "correlation": len(self.correlation) == layers
            and all(isinstance(n, int) and 1 <= n <= 4 for n in self.correlation),
            "interactions": len(self.interactions) == layers
            and set(self.interactions) <= set(INTERACTIONS),
            "message_irreps": len(self.message_irreps) == layers,
            "num_radial_basis": self.num_radial_basis >= 1,
            "radial_widths": all(width >= 1 for width in self.radial_widths),
            "density_width": self.density_width >= 1,
            "frequencies": len(self.frequencies) == self.num_radial_basis,
            "envelope_exponent": self.envelope_exponent >= 2,
            "distance_transform": self.distance_transform in TRANSFORMS,
            "transform_constants": len(self.transform_constants) == constants,
            "covalent_radii": len(self.covalent_radii) == species,
            "zbl_constants": len(self.zbl_constants) == len(ZBL),
            "readouts": len(self.readouts) == layers and set(self.readouts) <= set(READOUTS),
            "readout_width": self.readout_width >= 1,
            "avg_num_neighbors": self.avg_num_neighbors > 0,
            "scale": math.isfinite(self.scale),
            "shift": math.isfinite(self.shift),
        }

    def kinks(self, numbers: Collection[int]) -> tuple[Kink, ...]:
        """Return where derivatives of bonds between some elements jump, by construction.

        The pair term ends at the sum of the covalent radii.
        """
        kinks = super().kinks(numbers)
        if not self.pair_repulsion:
            return kinks
        radii = dict(zip(self.species, self.covalent_radii, strict=True))
        pairs = itertools.combinations_with_replacement(sorted(set(numbers) & set(radii)), 2)
        return kinks + tuple(Kink(radii[a] + radii[b], 3, (a, b)) for a, b in pairs)

    @property
    def _basis_ends(self) -> bool:
        """Whether the radial basis is zero at the cutoff, and not of another distance."""
        waves = [w * self.cutoff / math.pi for w in self.frequencies]
        multiples = all(abs(wave - round(wave)) < 1e-6 for wave in waves)
        return multiples and self.distance_transform == "none" and self.apply_cutoff

    @property
    def channels(self) -> int:
        """Number of channels of every irrep."""
        return parse_irreps(self.hidden_irreps).get("0e", 0)

    @property
    def symmetric_radial(self) -> bool:
        """Whether radial functions are the same for an edge and its reverse."""
        return "nonlinear" not in self.interactions

"""The edges of a crystal, and which of its atoms are computed."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Float, Int

from phonopy_equivariant.response.bloch.arrays import Array, Features, contract, segment_sum
from phonopy_equivariant.response.symmetry.little_group import Orbits, irrep_of


class Network(NamedTuple):
    """Edges of a structure; padding edges lie beyond the cutoff.

    Without ``orbits`` all atoms are receivers. With them only edges into some atoms are given:
    features of the other atoms follow by rotation, sums over all edges by a mean over the group.
    """

    vectors: Float[Array, "edges 3"]
    senders: Int[Array, " edges"]  # atoms
    receivers: Int[Array, " edges"]  # positions among the receivers
    species: Int[Array, " atoms"]
    orbits: Orbits | None = None

    @property
    def own_species(self) -> Int[Array, " receivers"]:
        """Species of the receivers."""
        return self.own(self.species)

    def own(self, values: Any) -> Any:
        """Return the rows of the receivers from rows of all atoms."""
        return values if self.orbits is None else values[self.orbits.receivers]

    def edge_species(self) -> tuple[Int[Array, " edges"], Int[Array, " edges"]]:
        """Return the species (z_i, z_j) of every edge."""
        return self.own_species[self.receivers], self.species[self.senders]

    def at_all_atoms(self, features: Features) -> Features:
        """Return features of all atoms from those of the receivers."""
        if self.orbits is None:
            return features
        orbits = self.orbits
        return {
            key: contract(
                "imn,inu->imu",
                orbits.turn[irrep_of(key)].astype(x.dtype),
                x[orbits.source],
            )
            for key, x in features.items()
        }

    def sum_at_senders(self, values: Features) -> Features:
        """Return, at the receivers, sums over all edges that an atom sends."""
        return {key: self._sum_at_senders(key, x) for key, x in values.items()}

    def _sum_at_senders(self, key: str, values: Array) -> Array:
        orbits, atoms = self.orbits, len(self.species)
        if orbits is None:
            return segment_sum(values, self.senders, atoms)
        weight = orbits.weight.astype(values.dtype)[self.receivers]
        sums = segment_sum(values * weight[:, None, None], self.senders, atoms)
        collect = orbits.collect[irrep_of(key)].astype(sums.dtype)
        receivers, _, m, n = collect.shape
        matrix = collect.transpose(0, 2, 1, 3).reshape(receivers * m, atoms * n)
        return (matrix @ sums.reshape(atoms * n, -1)).reshape(receivers, m, -1)

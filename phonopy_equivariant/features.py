"""How far the features of a structure are from those of a potential's training structures.

Each atom has a vector f of the scalar features of all layers. The reference keeps the mean μ_z of
the training structures for each species z and one covariance C of all differences f - μ_z. The
distance of an atom is Mahalanobis', d² = (f - μ_z)ᵀ C⁻¹ (f - μ_z); a structure's distance is that
of its farthest atom. Means of classes with one covariance are those of arXiv:1807.03888.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


class FeatureReference(NamedTuple):
    """What a potential remembers of the features of its training structures, in float32."""

    counts: Float[ndarray, " species"]  # atoms seen of each species
    means: Float[ndarray, "species features"]
    whitening: Float[ndarray, "features features"]  # W with W·Wᵀ = C⁻¹
    threshold: float  # `quantile` of the held-out structures lie below it
    quantile: float


class Familiarity(NamedTuple):
    """Distances of one structure from the training structures, in standard deviations."""

    distances: Float[ndarray, " atoms"]  # infinite for a species never seen
    threshold: float
    quantile: float

    @property
    def distance(self) -> float:
        """Distance of the farthest atom."""
        return float(self.distances.max())

    @property
    def is_far(self) -> bool:
        """Whether the structure is farther than nearly all held-out ones."""
        return self.distance > self.threshold


def compare(
    reference: FeatureReference,
    features: Float[ndarray, "atoms features"],
    species: Int[ndarray, " atoms"],
) -> Familiarity:
    """Return the distances of atoms from the training data.

    ``species`` gives each atom's position in the potential's table of elements. An element that
    the training data lack is infinitely far.
    """
    whitened = (features - reference.means[species]) @ reference.whitening
    distances = np.linalg.norm(whitened, axis=1)
    in_training = reference.counts[species] > 0
    return Familiarity(
        np.where(in_training, distances, np.inf), reference.threshold, reference.quantile
    )

"""Potentials in the forms of NequIP that other projects publish, with no weight at its start."""

from __future__ import annotations

import jax
import numpy as np
from conftest import small_config

from phonopy_equivariant.potential import Potential, make_potential, random_potential

VARIANTS = {
    # as SevenNet's
    "rotations alone": {
        "parity": False,
        "hidden_irreps": "4x0e + 3x1e + 2x2e",
        "l_max": 2,
        "num_interactions": 3,
        "embedding_width": 3,
        "frequencies": (0.7, 2.1, 2.9, 4.4),
        "envelope": "xplor",
        "envelope_onset": 2.1,
        "solid_harmonics": True,
        "skips": ("shared", "species", "shared"),
        "biases": True,
    },
    # as those of the nequip framework
    "numbers of species": {
        "hidden_irreps": "4x0e + 3x1o + 2x2e",
        "l_max": 2,
        "embedding_width": 3,
        "skips": ("none", "species"),
        "sender_norms": True,
        "receiver_norms": True,
        "readout_widths": (5,),
        "species_scales": True,
        "pair_cutoffs": (3.0, 2.7, 2.9, 2.5, 2.8, 3.0, 2.9, 2.6, 2.4),
        "pair_repulsion": True,
    },
}


def variant(name: str, seed: int = 3, **changes: object) -> Potential:
    """Return a potential with random weights; biases, drawn as zero, are random as well."""
    start = random_potential(small_config(**(VARIANTS[name] | changes)), seed)
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda x: np.asarray(x) + 0.1 * rng.standard_normal(np.shape(x)), start.params
    )
    return make_potential(start.config, params, name=name)

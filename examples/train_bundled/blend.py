"""The weighted mean of two potentials, one of which was fine-tuned to the other.

    python blend.py BEFORE.npz AFTER.npz 0.6 OUT.npz

Between the two, what fine-tuning gained and what it forgot are traded (arXiv:2109.01903).
"""

from __future__ import annotations

import argparse

import jax
import numpy as np

import phonopy_equivariant as pe
from phonopy_equivariant.potential import make_potential


def main() -> None:
    """Write (1 - w) BEFORE + w AFTER."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("weight", type=float, help="of AFTER, 0 to 1")
    parser.add_argument("out")
    options = parser.parse_args()
    before, after = (
        pe.load_potential(path, dtype="float32") for path in (options.before, options.after)
    )
    if before.config != after.config:
        parser.error("the two potentials have different architectures")
    weight = options.weight
    params = jax.tree.map(
        lambda x, y: (1 - weight) * np.asarray(x) + weight * np.asarray(y),
        before.params,
        after.params,
    )
    pe.save_checkpoint(make_potential(after.config, params, "float32", name="blend"), options.out)


if __name__ == "__main__":
    main()

"""Frequencies from eigenvalues ω² of a dynamical matrix."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def signed_root(squares: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """Return sign(ω²)·√|ω²|: imaginary frequencies are negative, as in phonopy."""
    return np.asarray(np.sign(squares) * np.sqrt(np.abs(squares)))

"""Arrays in a zip archive, as checkpoints and the states of a training hold them: no pickle."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Array, PyTree
from numpy import ndarray


def named_leaves(tree: PyTree) -> Iterator[tuple[str, Array]]:
    """Yield ("layers/0/up/0e", array) for each array of a tree, in JAX's order."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def write_array(archive: zipfile.ZipFile, name: str, array: ndarray) -> None:
    """Add an array as the member ``name.npy``; equal arrays give equal bytes."""
    member = io.BytesIO()
    np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)
    archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())


def read_array(archive: zipfile.ZipFile, name: str) -> ndarray:
    """Return the array of the member ``name.npy``."""
    with archive.open(f"{name}.npy") as member:
        array: ndarray = np.lib.format.read_array(member, allow_pickle=False)
    return array

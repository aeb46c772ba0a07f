"""Checkpoints of our own: one ``.npz`` file, readable by NumPy, exact to the bit, no pickle.

A zip archive with one ``.npy`` member for each array, named by its place in the parameters
(``layers/0/up/0e.npy``), and a member ``model.yaml``:

    format: 1
    architecture: nequip
    config: {species: [11, 17], cutoff: 5.0, ...}
    labels: {name: my-model, licence: CC-BY-4.0, theory: PBE}
    familiarity: {features: 128, threshold: 9.8, quantile: 0.99}

The last line, and the members ``familiarity/*.npy``, are there if :mod:`..familiarity` was fitted.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import yaml
from jaxtyping import Array
from numpy import ndarray

from phonopy_equivariant.checkpoints.archive import named_leaves, read_array, write_array
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.features import FeatureReference
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.models.architectures import ARCHITECTURES, architecture_of
from phonopy_equivariant.models.config import ModelConfig
from phonopy_equivariant.models.layered import Params
from phonopy_equivariant.models.weights import shapes_only
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.results import plain

FORMAT_VERSION = 1
HEADER = "model.yaml"
FAMILIARITY = "familiarity"
_REFERENCE = ("counts", "means", "whitening")  # its arrays


class Checkpoint(NamedTuple):
    """What a file contains; parameters are NumPy arrays in the precision they were saved in."""

    config: ModelConfig
    params: Params
    labels: dict[str, str]
    reference: FeatureReference | None = None


class _Header(NamedTuple):
    config: ModelConfig
    labels: dict[str, str]
    template: Params  # shapes of all parameters
    features: int  # in the familiarity's reference; 0: there is none
    threshold: float
    quantile: float


def save_checkpoint(
    potential: Potential,
    path: str | os.PathLike[str],
    labels: Mapping[str, str] | None = None,
) -> Path:
    """Write a potential to ``path``, which always holds either the old file or the whole new one.

    Parameters
    ----------
    potential
        Its parameters are stored in the precision they have, and its reference with them.
    path
        Ends in ``.npz``; an existing file is replaced.
    labels
        Free text such as ``name``, ``licence``, ``theory``, ``training_data``. The name is the
        potential's unless it is given.

    Raises
    ------
    PhonopyEquivariantError
        Another suffix, a folder that does not exist or cannot be written, or weights that are
        not finite.

    """
    path = Path(path).expanduser()
    if path.suffix != ".npz":
        raise PhonopyEquivariantError(f"{path}: the name of a checkpoint must end in .npz.")
    content = _encode(potential, {"name": potential.name} | dict(labels or {}))
    write_atomically(path, content)
    return path


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Return the contents of a file that :func:`save_checkpoint` wrote.

    Raises
    ------
    PhonopyEquivariantError
        The file is not such a checkpoint, is cut short or damaged, is of a newer format or of an
        unknown architecture, or its arrays are not those of its configuration.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_arrays(path, archive, _read_header(path, archive))
    except KeyError as error:  # a zip archive without a header
        raise PhonopyEquivariantError(
            f"{path}: neither a checkpoint of phonopy_equivariant (no {HEADER} inside) nor a file "
            "of torch with a model inside; of a compiled model give the file it was made from."
        ) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise PhonopyEquivariantError(
            f"{path}: cannot be read as a checkpoint; the file is cut short, damaged or of "
            "another kind: write or fetch it again."
        ) from error


def _encode(potential: Potential, labels: dict[str, str]) -> bytes:
    """Return the archive; the same potential gives the same bytes, hence the same hash."""
    header = {
        "format": FORMAT_VERSION,
        "architecture": architecture_of(potential.config),
        "config": plain(potential.config.to_dict()),
        "labels": {str(key): str(value) for key, value in labels.items()},
    }
    arrays: dict[str, Array | ndarray] = dict(named_leaves(potential.params))
    if potential.reference is not None:
        counts, means, whitening, threshold, quantile = potential.reference
        header[FAMILIARITY] = {
            "features": len(whitening),
            "threshold": float(threshold),
            "quantile": float(quantile),
        }
        named = zip(_REFERENCE, (counts, means, whitening), strict=True)
        arrays |= {f"{FAMILIARITY}/{name}": array for name, array in named}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        text = yaml.safe_dump(header, sort_keys=False, default_flow_style=None, allow_unicode=True)
        archive.writestr(zipfile.ZipInfo(HEADER), text)
        for key, leaf in arrays.items():
            array = np.asarray(leaf)
            if not np.isfinite(array).all():
                raise PhonopyEquivariantError(
                    f"The weights {key} are not finite numbers; the potential is not worth saving "
                    "(a training that diverged?)."
                )
            write_array(archive, key, array)
    return buffer.getvalue()


def _read_header(path: str | os.PathLike[str], archive: zipfile.ZipFile) -> _Header:
    content = archive.read(HEADER)  # a missing one is the caller's KeyError
    try:
        header = yaml.safe_load(content)
        version, architecture = header["format"], header["architecture"]
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise PhonopyEquivariantError(
            f"{path}: {HEADER} inside is unreadable; not a checkpoint of phonopy_equivariant."
        ) from error
    if version != FORMAT_VERSION:
        raise PhonopyEquivariantError(
            f"{path}: format {version!r}, this version reads {FORMAT_VERSION}; "
            "upgrade phonopy_equivariant."
        )
    if architecture not in ARCHITECTURES:
        raise PhonopyEquivariantError(
            f"{path}: unknown architecture {architecture!r}, this version knows "
            f"{', '.join(ARCHITECTURES)}; upgrade phonopy_equivariant."
        )
    try:
        return _parse_header(header, architecture)
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PhonopyEquivariantError(
            f"{path}: the configuration in {HEADER} is incomplete or has a value of the wrong "
            "type; write the checkpoint again with save_checkpoint."
        ) from error


def _parse_header(header: dict[str, Any], architecture: str) -> _Header:
    kind = ARCHITECTURES[architecture]
    # YAML has lists only, a configuration tuples only
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in header["config"].items()}
    config = kind.config.from_dict(values)
    labels = {str(key): str(value) for key, value in header.get("labels", {}).items()}
    familiarity = header.get(FAMILIARITY, {"features": 0, "threshold": 0.0, "quantile": 0.0})
    features = int(familiarity["features"])
    threshold, quantile = float(familiarity["threshold"]), float(familiarity["quantile"])
    if features < 0 or not math.isfinite(threshold):
        raise ValueError(FAMILIARITY)
    template = kind.build(config).init(shapes_only)
    return _Header(config, labels, template, features, threshold, quantile)


def _read_arrays(
    path: str | os.PathLike[str], archive: zipfile.ZipFile, header: _Header
) -> Checkpoint:
    shapes = {key: leaf.shape for key, leaf in named_leaves(header.template)}
    parameters = list(shapes)
    if header.features:
        species, width = len(header.config.species), header.features
        reference_shapes = ((species,), (species, width), (width, width))
        named = zip(_REFERENCE, reference_shapes, strict=True)
        shapes |= {f"{FAMILIARITY}/{name}": shape for name, shape in named}
    members = {name.removesuffix(".npy") for name in archive.namelist()} - {HEADER}
    for problem, names in (
        ("lacks", shapes.keys() - members),
        ("has a surplus", members - shapes.keys()),
    ):
        if names:
            raise PhonopyEquivariantError(
                f"{path}: the checkpoint {problem} array {min(names)} for its configuration; "
                "write it again with save_checkpoint."
            )
    arrays = {key: _read_array(path, archive, key, shape) for key, shape in shapes.items()}
    structure = jax.tree.structure(header.template)
    params: Params = jax.tree.unflatten(structure, [arrays.pop(key) for key in parameters])
    reference = None
    if header.features:
        counts, means, whitening = arrays.values()
        reference = FeatureReference(counts, means, whitening, header.threshold, header.quantile)
    return Checkpoint(header.config, params, header.labels, reference)


def _read_array(
    path: str | os.PathLike[str], archive: zipfile.ZipFile, key: str, shape: tuple[int, ...]
) -> ndarray:
    try:
        array = read_array(archive, key)
    except (ValueError, EOFError, MemoryError) as error:
        raise PhonopyEquivariantError(
            f"{path}: the array {key} is damaged; write or fetch the file again."
        ) from error
    if array.shape != shape or array.dtype not in (np.float32, np.float64):
        raise PhonopyEquivariantError(
            f"{path}: the array {key} is {array.dtype} of shape {array.shape}, where its "
            f"configuration needs floating-point numbers of shape {shape}."
        )
    return array

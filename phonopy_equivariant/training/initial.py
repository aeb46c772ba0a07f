"""Where a training starts: a potential to fine-tune, or random weights scaled by the data."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from jaxtyping import Array, Float, Int
from numpy import ndarray

from phonopy_equivariant.checkpoints.load import load_potential
from phonopy_equivariant.data.record import Record
from phonopy_equivariant.data.selection import Selection
from phonopy_equivariant.data.statistics import average_neighbours, reference_energies, summarise
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.models.architectures import ARCHITECTURES
from phonopy_equivariant.models.layered import LayeredModel, Params
from phonopy_equivariant.potential import Potential, graph_of_node, node_energies, random_potential
from phonopy_equivariant.runtime.compilation import compiled, x64_mode
from phonopy_equivariant.training.batches import Graphs, budget, fill, pack
from phonopy_equivariant.training.config import TrainingConfig

# Leaf of the parameters that holds energies of free atoms.
ATOMIC_ENERGIES = "atomic_energies"

# Structures whose neighbours are counted.
_COUNTED = 200


def initial_potential(
    config: TrainingConfig, records: Sequence[Record], held_out: Sequence[Record] = ()
) -> Potential:
    """Return the potential before its energies are fitted to the data.

    Parameters
    ----------
    config
        The training.
    records, held_out
        Of training and validation: a potential from scratch knows the elements of both.

    Raises
    ------
    PhonopyEquivariantError
        An unknown architecture or key of ``model``, or a potential that cannot be loaded or does
        not know an element of the data.

    """
    if config.finetune_from:
        return load_potential(config.finetune_from, config.dtype)
    all_records = itertools.chain(records, held_out)
    numbers = set().union(*(record.structure.numbers.tolist() for record in all_records))
    values = {"species": sorted(numbers)} | dict(config.model or {})
    return _from_scratch(values, config, records)


def refit_energies(
    potential: Potential, sets: Sequence[tuple[Sequence[Record], Graphs]]
) -> Potential:
    """Return the potential with energies of free atoms shifted to suit records with energies.

    The shifts x_z are the :func:`.reference_energies` of E - E_model. An element with isolated
    atoms in the data gets the shift of these atoms. The shifts of the other elements minimise
    sum |E - E_model - sum_z n_z x_z|²; if the data leave a choice, as a single compound does, the
    shifts of smallest norm are taken. Forces do not change. A set is its records and their graphs.
    """
    labelled = [(records, graphs, np.flatnonzero(graphs.has["energy"])) for records, graphs in sets]
    if not any(len(places) for _, _, places in labelled):
        return potential
    shift_of_element = reference_energies(
        dataclasses.replace(record, energy=(record.energy or 0.0) - value)
        for records, graphs, places in labelled
        for record, value in zip(
            Selection(records, places), _predicted(potential, graphs, places), strict=True
        )
    )
    shifts = np.array([shift_of_element.get(z, 0.0) for z in potential.species])
    return dataclasses.replace(potential, params=_shifted(potential, shifts))


def _predicted(potential: Potential, graphs: Graphs, places: Int[ndarray, " k"]) -> list[float]:
    """Return the energies (eV) that a potential gives to the structures at places."""
    if not len(places):
        return []
    size = budget(graphs.sizes, 4)
    predicted: list[float] = []
    for batch in fill(places.tolist(), graphs.sizes, size):
        structures = [graphs[k] for k in batch.tolist()]
        packed = pack(structures, size, structures[0])
        values = np.asarray(_energies(potential.model, potential.params, packed), float)
        predicted += values[: len(structures)].tolist()
    return predicted


def _from_scratch(
    values: dict[str, Any], config: TrainingConfig, records: Sequence[Record]
) -> Potential:
    name = values.pop("architecture", "nequip")
    if name not in ARCHITECTURES:
        raise PhonopyEquivariantError(
            f"model.architecture: {name!r} is not one of {', '.join(ARCHITECTURES)}."
        )
    kind = ARCHITECTURES[name].config
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    # YAML has lists only, a configuration tuples only
    values = {key: tuple(x) if isinstance(x, list) else x for key, x in values.items()}
    without_data = kind.from_dict(values)  # refuses unknown keys
    sample = records[:: max(1, len(records) // _COUNTED)]
    if "avg_num_neighbors" in fields:
        values.setdefault(
            "avg_num_neighbors", max(average_neighbours(sample, without_data.cutoff), 1.0)
        )
    if "scale" in fields:
        values.setdefault("scale", summarise(records).force_rms or 1.0)
    return random_potential(kind.from_dict(values), config.seed, config.dtype)


def _shifted(potential: Potential, shifts: Float[ndarray, " species"]) -> Params:
    """Return the parameters with energies of free atoms shifted."""
    shapes = []

    def shift(path: tuple[Any, ...], leaf: Array) -> Array:
        if jax.tree_util.keystr(path[-1:], simple=True) != ATOMIC_ENERGIES:
            return leaf
        shapes.append(leaf.shape)
        with x64_mode():
            return jnp.asarray(np.asarray(leaf, float) + shifts.reshape(leaf.shape), leaf.dtype)

    params: Params = jax.tree_util.tree_map_with_path(shift, potential.params)
    if len(shapes) != 1:
        raise PhonopyEquivariantError(
            "This architecture has no energies of free atoms to fit; set energies: keep."
        )
    return params


@compiled(static_argnums=(0,))
def _energies(model: LayeredModel, params: Params, graph: jraph.GraphsTuple) -> Array:
    site = node_energies(model, params, graph, jnp.asarray(graph.nodes["positions"]))
    return jax.ops.segment_sum(site, graph_of_node(graph), len(graph.n_node))

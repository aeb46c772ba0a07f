"""A potential: architecture, parameters and precision; its energy and the derivatives of it.

Energy is the only primitive; forces, stress and Hessian rows are transforms of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Array, Float, Int
from numpy import ndarray

from phonopy_equivariant.catalogue.cards import models_covering
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.features import Familiarity, FeatureReference, compare
from phonopy_equivariant.graph import build_graph, graph_sizes, pad_graph
from phonopy_equivariant.models.architectures import build_model
from phonopy_equivariant.models.config import ModelConfig
from phonopy_equivariant.models.layered import LayeredModel, Params, site_outputs
from phonopy_equivariant.models.weights import normal_numbers
from phonopy_equivariant.results import one_line
from phonopy_equivariant.runtime.compilation import compiled, x64_mode
from phonopy_equivariant.runtime.notes import note
from phonopy_equivariant.structure import Structure, StructureLike, as_structure

DTYPES = ("float64", "float32")

# Edges of structures that are evaluated in one call.
_BATCH_EDGES = 32768


class Evaluation(NamedTuple):
    """Results for one structure, as NumPy float64."""

    energy: float  # eV
    energies: Float[ndarray, " atoms"]  # eV, they sum to the energy
    forces: Float[ndarray, "atoms 3"]  # eV/Å
    stress: Float[ndarray, "3 3"]  # eV/Å³, dE/dε / V; zero without three periodic directions
    features: Float[ndarray, "atoms features"]  # scalars of all layers, no unit

    def __repr__(self) -> str:
        return one_line(self, self._asdict())


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Potential:
    """A layered E(3)-equivariant potential, ready to evaluate.

    Made by :func:`phonopy_equivariant.load_potential` or ``make_potential``. Immutable.
    """

    config: ModelConfig
    params: Params
    dtype: str = "float64"
    name: str = "unnamed"
    sha256: str = ""
    # what its training structures look like, if that was measured
    reference: FeatureReference | None = None

    def __repr__(self) -> str:
        kind = type(self.config).__name__.removesuffix("Config")
        return (
            f"Potential({self.name!r}, {kind}, {len(self.species)} elements, "
            f"{self.num_interactions} × {self.cutoff:g} Å, {self.dtype})"
        )

    @property
    def model(self) -> LayeredModel:
        """The pure functions of the architecture."""
        return build_model(self.config)

    @property
    def cutoff(self) -> float:
        """Radius of a neighbourhood (Å)."""
        return self.config.cutoff

    @property
    def num_interactions(self) -> int:
        """Number of message-passing layers."""
        return self.config.num_interactions

    @property
    def species(self) -> tuple[int, ...]:
        """Atomic numbers the potential knows, sorted."""
        return self.config.species

    @property
    def parity(self) -> bool:
        """Whether energies are invariant under reflections, and not under rotations alone.

        Where False, the symmetry of a crystal's force constants is that of its proper operations.
        """
        return self.config.parity

    @property
    def hessian_range(self) -> float:
        """Largest distance (Å) between atoms with a non-zero force constant, 2·T·cutoff."""
        return 2 * self.num_interactions * self.cutoff

    def species_index(self, numbers: Int[ndarray, " atoms"]) -> Int[ndarray, " atoms"]:
        """Return positions in :attr:`species`; an element outside it raises."""
        present = {int(z) for z in numbers}
        if not present <= set(self.species):
            raise PhonopyEquivariantError(_unknown_elements(self, present))
        return np.searchsorted(self.species, numbers)

    def require_finite(self, force_constants: ndarray) -> ndarray:
        """Return second derivatives of this potential if all are finite numbers.

        Raises
        ------
        PhonopyEquivariantError
            One is not: no search for symmetry, eigenvalue or sum would say so.

        """
        if not np.isfinite(force_constants).all():
            raise PhonopyEquivariantError(
                f"The potential {self.name} gives force constants that are not finite numbers; "
                "check the structure, or choose another model."
            )
        return force_constants

    def graph(self, structure: StructureLike) -> jraph.GraphsTuple:
        """Return the unpadded graph of an ASE, phonopy or own structure."""
        return self._checked_graph(as_structure(structure))

    def evaluate(self, structure: StructureLike) -> Evaluation:
        """Return energy, forces and stress of an ASE, phonopy or own structure."""
        return self._evaluate_checked(as_structure(structure))

    def evaluate_many(self, structures: Sequence[StructureLike]) -> list[Evaluation]:
        """Return energies, forces and stresses of similar structures, many in one call.

        Batches have equal sizes: those of one set of displaced supercells run one program.
        """
        checked = [as_structure(structure) for structure in structures]
        graphs = [self._checked_graph(structure) for structure in checked]
        if not graphs:
            return []
        nodes = max(len(structure.numbers) for structure in checked)
        edges = max(int(graph.n_edge[0]) for graph in graphs)
        count = min(len(graphs), max(1, _BATCH_EDGES // max(edges, 1)))
        n_node, n_edge = graph_sizes(count * nodes, count * edges)
        evaluations = []
        for first in range(0, len(graphs), count):
            batch = graphs[first : first + count]
            filled = [*batch, *[batch[-1]] * (count - len(batch))]
            joined = pad_graph(jraph.batch_np(filled), n_node, n_edge)
            evaluations += self._evaluate_batch(joined)[: len(batch)]
            note(f"forces of {len(evaluations)} of {len(graphs)} structures")
        note("")
        return [
            one if structure.pbc.all() else one._replace(stress=np.zeros((3, 3)))
            for one, structure in zip(evaluations, checked, strict=True)
        ]

    def familiarity(self, structure: StructureLike) -> Familiarity:
        """Return how far a structure is from those the potential was trained on.

        The features come out of the program that :meth:`evaluate` runs: nothing else compiles.

        Raises
        ------
        PhonopyEquivariantError
            The potential has no ``reference``, or does not know an element.

        """
        if self.reference is None:
            raise PhonopyEquivariantError(
                f"The potential {self.name} does not say what its training structures look like; "
                "pe.fit_familiarity measures them."
            )
        structure = as_structure(structure)
        species = self.species_index(structure.numbers)
        return compare(self.reference, self._evaluate_checked(structure).features, species)

    def _checked_graph(self, structure: Structure) -> jraph.GraphsTuple:
        """Return the unpadded graph of a checked structure."""
        return build_graph(structure, self.cutoff, self.species_index(structure.numbers))

    def _evaluate_checked(self, structure: Structure) -> Evaluation:
        """Return energy, forces and stress of a checked structure."""
        evaluation = self.evaluate_graph(self._checked_graph(structure))
        if structure.pbc.all():
            return evaluation
        return evaluation._replace(stress=np.zeros((3, 3)))

    def evaluate_graph(
        self, graph: jraph.GraphsTuple, n_node: int | None = None, n_edge: int | None = None
    ) -> Evaluation:
        """Return energy, forces and stress of an unpadded graph, padded to the given sizes.

        The stress has no meaning unless the cell is periodic in three directions.
        """
        return self._evaluate_batch(pad_graph(graph, n_node, n_edge))[0]

    def _evaluate_batch(self, padded: jraph.GraphsTuple) -> list[Evaluation]:
        """Return what the graphs before the padding give."""
        results = _evaluate(self.model, self.params, padded)
        energies, forces, virials, features = (np.asarray(values, float) for values in results)
        ends = np.cumsum(padded.n_node)
        evaluations = []
        for index, end in enumerate(ends[:-1]):
            atoms = slice(int(end - padded.n_node[index]), int(end))
            volume = abs(np.linalg.det(padded.globals["cell"][index])) or 1.0
            site = energies[atoms]
            evaluations.append(
                Evaluation(
                    float(site.sum()), site, forces[atoms], virials[index] / volume, features[atoms]
                )
            )
        return evaluations


def make_potential(
    config: ModelConfig, params: Params, dtype: str = "float64", name: str = "unnamed"
) -> Potential:
    """Return a potential whose parameters are cast to ``dtype``.

    Raises
    ------
    PhonopyEquivariantError
        ``dtype`` is neither ``"float64"`` nor ``"float32"``.

    """
    if dtype not in DTYPES:
        raise PhonopyEquivariantError(f"dtype={dtype!r}: choose one of {', '.join(DTYPES)}.")
    with x64_mode():
        # cast on the host: JAX would compile a conversion, even a copy, for each shape
        cast = jax.device_put(jax.tree.map(lambda x: np.asarray(x, dtype), params))
    return Potential(config, cast, dtype, name)


def random_potential(config: ModelConfig, seed: int = 0, dtype: str = "float64") -> Potential:
    """Return a potential with random weights, where training starts."""
    params = build_model(config).init(normal_numbers(seed))
    return make_potential(config, params, dtype, name="random")


def _unknown_elements(potential: Potential, present: set[int]) -> str:
    """Return the message for a structure with an element that the potential does not know."""
    symbols = [chemical_symbols[z] for z in sorted(present)]
    unknown = ", ".join(chemical_symbols[z] for z in sorted(present - set(potential.species)))
    names = models_covering(symbols, but=(potential.name,))[:3]
    remedy = (
        f"choose a model that covers the whole structure, such as {', '.join(names)}"
        if names
        else "no published model covers the whole structure, see phonopy-equivariant models list"
    )
    return f"The potential {potential.name} does not know {unknown}; {remedy}."


def edge_vectors(
    graph: jraph.GraphsTuple, positions: Float[Array, "nodes 3"], cell: Float[Array, "graphs 3 3"]
) -> Float[Array, "edges 3"]:
    """Return r_e = x_j + S·L - x_i; edges of the padding graph get a vector beyond any cutoff.

    A padding edge of length zero would make derivatives of its direction undefined.
    """
    owner = graph_of_node(graph)[graph.receivers]
    offsets = jnp.einsum("es,esv->ev", graph.edges["shifts"].astype(positions.dtype), cell[owner])
    vectors = positions[graph.senders] + offsets - positions[graph.receivers]
    real = owner < len(graph.n_node) - 1 if has_padding(graph) else jnp.ones_like(owner, bool)
    return jnp.where(real[:, None], vectors, jnp.array([1e3, 0.0, 0.0], vectors.dtype))


def has_padding(graph: jraph.GraphsTuple) -> bool:
    """Tell whether the last graph is padding: graphs of this package are padded or single."""
    return len(graph.n_node) > 1


def graph_of_node(graph: jraph.GraphsTuple) -> Int[Array, " nodes"]:
    """Return the index of the graph that each node belongs to."""
    nodes = graph.nodes["species"].shape[0]
    index = jnp.arange(len(graph.n_node))
    return jnp.repeat(index, jnp.asarray(graph.n_node), total_repeat_length=nodes)


def node_energies(
    model: LayeredModel,
    params: Params,
    graph: jraph.GraphsTuple,
    positions: Float[Array, "nodes 3"],
    strain: Float[Array, "graphs 3 3"] | None = None,
) -> Float[Array, " nodes"]:
    """Return float64 site energies (eV), zero on padding, at the given positions.

    As :func:`node_outputs`, without the features.
    """
    return node_outputs(model, params, graph, positions, strain)[0]


def node_outputs(
    model: LayeredModel,
    params: Params,
    graph: jraph.GraphsTuple,
    positions: Float[Array, "nodes 3"],
    strain: Float[Array, "graphs 3 3"] | None = None,
) -> tuple[Float[Array, " nodes"], Float[Array, "nodes features"]]:
    """Return float64 site energies (eV), zero on padding, and the features of all nodes.

    Vectors are differences of float64 positions and are rounded to the model's precision
    afterwards. A strain ε, symmetrised, takes every vector r to r·(1 + ε).
    """
    vectors = edge_vectors(graph, positions, graph.globals["cell"])
    owner = graph_of_node(graph)
    if strain is not None:
        symmetric = (strain + jnp.swapaxes(strain, 1, 2)) / 2
        vectors = vectors + jnp.einsum("ev,evw->ew", vectors, symmetric[owner[graph.receivers]])
    dtype = jax.tree.leaves(params)[0].dtype
    site, features = site_outputs(
        model,
        params,
        vectors.astype(dtype),
        graph.nodes["species"],
        graph.senders,
        graph.receivers,
    )
    energies = site.astype(positions.dtype)
    if has_padding(graph):
        energies = jnp.where(owner < len(graph.n_node) - 1, energies, 0.0)
    return energies, features


@compiled(static_argnums=(0,), keep=True)
def _evaluate(
    model: LayeredModel, params: Params, graph: jraph.GraphsTuple
) -> tuple[Array, Array, Array, Array]:
    """Return site energies, forces, the virial dE/dε of each graph, and features."""

    def total(positions: Array, strain: Array) -> tuple[Array, tuple[Array, Array]]:
        energies, features = node_outputs(model, params, graph, positions, strain)
        return energies.sum(), (energies, features)

    cell = jnp.asarray(graph.globals["cell"])
    (minus_forces, virial), (energies, features) = jax.grad(total, (0, 1), has_aux=True)(
        jnp.asarray(graph.nodes["positions"]), jnp.zeros_like(cell)
    )
    return energies, -minus_forces, virial, features

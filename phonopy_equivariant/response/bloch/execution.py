"""How the local functions of a response are run: block by block from the host, or traced.

From the host every local function is a program over a block of fixed size, compiled once for a
potential; a loop fills the blocks. How many programs there are does not depend on the crystal.
Inside ``jax.jit`` the same functions become part of one program: for derivatives of the response
(training, Grüneisen parameters) and for devices that a host would keep waiting.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from phonopy_equivariant.models.convolution import Edges, convolve, edge_blocks, pick
from phonopy_equivariant.models.irreps import expand_paths
from phonopy_equivariant.models.layered import LayeredModel, Params, bind_radial
from phonopy_equivariant.response.bloch import local
from phonopy_equivariant.response.bloch.arrays import Array, Features, segment_sum
from phonopy_equivariant.response.bloch.network import Network
from phonopy_equivariant.runtime.compilation import Compiled, compiled, generation

# Rows of one block. Larger blocks waste more on small crystals, smaller ones spend more on calls.
EDGES, ATOMS, ROWS = 32, 8, 48

Function = Callable[..., Any]


def host_driven() -> bool:
    """Tell whether blocks are driven from the host: on a processor, whose memory is the host's."""
    return jax.default_backend() == "cpu"


@runtime_checkable
class EdgeValues(Protocol):
    """What a convolution needs of the edges: harmonics, and the radial basis with derivatives."""

    @property
    def harmonics(self) -> Array:
        """Harmonics of each edge, (edges, m)."""

    @property
    def basis(self) -> Array:
        """Radial basis of each edge, its value first, (edges, orders, k)."""


class Execution(abc.ABC):
    """A model with its parameters, and how its local functions are run.

    ``edges``, ``atoms`` and ``rows`` run a function of :mod:`.local`: with a static argument,
    arrays that all items share, and arrays whose first axis counts items.
    """

    @abc.abstractmethod
    def edges(self, function: Function, static: Any, shared: Any, items: Any) -> Any:
        """Return a function of all edges."""

    @abc.abstractmethod
    def atoms(self, function: Function, static: Any, shared: Any, items: Any) -> Any:
        """Return a function of all atoms."""

    @abc.abstractmethod
    def rows(
        self, function: Function, static: Any, shared: Any, items: Any, zero: Array | None
    ) -> Any:
        """Return a function of all rows; of those that ``zero`` says to be zero, zero."""

    @abc.abstractmethod
    def pick(self, values: Array, index: Int[Array, " edges"]) -> Array:
        """Return values[index]."""

    @abc.abstractmethod
    def convolve(self, t: int, network: Network, edges: EdgeValues, messages: Features) -> Features:
        """Return A_i of layer t at the receivers, {input irrep: (receivers, a, u)}."""

    @abc.abstractmethod
    def kernel(
        self, t: int, key: str, radial: Array, angular: Array, index: Int[Array, " slots"]
    ) -> Array:
        """Return K of some edges for one input irrep, (slots, a, b, u)."""

    @abc.abstractmethod
    def over_receivers(
        self, function: Function, at_atom: Any, at_q: Any, shared: Any, weight: Array
    ) -> tuple[Any, Any]:
        """Return the first results of every receiver on a leading axis, and summed second ones.

        ``function(at_atom, at_q, shared)`` is of one receiver: ``at_atom`` are its rows, ``at_q``
        its rows, whose next axis counts q; ``shared`` serves all receivers and starts with q, as
        both results do. Where ``weight`` (q, receivers) is zero, results may be left zero.
        """

    def __init__(self, model: LayeredModel, params: Params):
        self.model = model
        self.shared = params["global"]
        self.params = params
        self.layers = params["layers"]
        self.kinds = local.kinds(model)

    def of_layer(self, t: int) -> tuple[Params, Params]:
        """Return the parameters of layer t and of the next message, none after the last."""
        following = self.kinds[t].following
        if following is None:
            return self.layers[t], {}
        return self.layers[t], following.message_params(self.layers[t + 1])


class Traced(Execution):
    """Local functions inside a program that JAX traces."""

    def edges(self, function: Function, static: Any, shared: Any, items: Any) -> Any:
        """Return a function of all edges; block by block where there are many."""
        count = edge_blocks(len(jax.tree.leaves(items)[0]))
        if count == 1:
            return function(static, *shared, *items)
        blocks = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), items)
        mapped = jax.lax.map(lambda block: function(static, *shared, *block), blocks)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), mapped)

    def atoms(self, function: Function, static: Any, shared: Any, items: Any) -> Any:
        """Return a function of all atoms."""
        return function(static, *shared, *items)

    def rows(
        self, function: Function, static: Any, shared: Any, items: Any, zero: Array | None
    ) -> Any:
        """Return a function of all rows."""
        return function(static, *shared, *items)

    def pick(self, values: Array, index: Int[Array, " edges"]) -> Array:
        """Return values[index]."""
        return pick(values, index)

    def convolve(self, t: int, network: Network, edges: EdgeValues, messages: Features) -> Features:
        """Return A_i of layer t at the receivers, {input irrep: (receivers, a, u)}."""
        layer, orbits = self.kinds[t].layer, network.orbits
        receivers: Any = network.receivers
        if orbits is not None:
            receivers = orbits.receivers[receivers]
        sums = convolve(
            layer.layout,
            bind_radial(layer, self.layers[t]),
            messages,
            Edges(edges.basis[:, 0], edges.harmonics, network.senders, receivers),
            network.species,
        )
        return {key: network.own(x) for key, x in sums.items()}

    def kernel(
        self, t: int, key: str, radial: Array, angular: Array, index: Int[Array, " slots"]
    ) -> Array:
        """Return K of some edges for one input irrep, (slots, a, b, u)."""
        # the factors are gathered into the slots, not the ten times larger kernel
        groups = self.kinds[t].layer.layout.groups[key]
        return expand_paths(groups, radial[index])[:, :, None, :] * angular[index][:, :, :, None]

    def over_receivers(
        self, function: Function, at_atom: Any, at_q: Any, shared: Any, weight: Array
    ) -> tuple[Any, Any]:
        """Return the first results of every receiver on a leading axis, and summed second ones."""

        def step(total: Any, one: Any) -> tuple[Any, Any]:
            each, part = function(*one, shared)
            return total + part, each

        inputs = at_atom, at_q
        first = jax.tree.map(lambda x: x[0], inputs)
        shape = jax.eval_shape(function, *first, shared)[1]
        total, each = jax.lax.scan(step, jnp.zeros(shape.shape, shape.dtype), inputs)
        return each, total


class Host(Execution):
    """Local functions as programs over blocks, driven from the host; all arrays are NumPy's.

    To be used in 64-bit mode. ``tell`` is called after every receiver of every layer.
    """

    def __init__(self, model: LayeredModel, params: Params, tell: Callable[[], None] | None = None):
        super().__init__(model, params)
        self._tell = tell
        self.dtype = str(jax.tree.leaves(params)[0].dtype)
        self._programs = _programs_of(model, self.dtype, generation())

    def edges(self, function: Function, static: Any, shared: Any, items: Any) -> Any:
        """Return a function of all edges."""
        return self._in_blocks(function, EDGES, static, shared, items)

    def atoms(self, function: Function, static: Any, shared: Any, items: Any) -> Any:
        """Return a function of all atoms."""
        return self._in_blocks(function, ATOMS, static, shared, items)

    def rows(
        self, function: Function, static: Any, shared: Any, items: Any, zero: Array | None
    ) -> Any:
        """Return a function of all rows; of those that ``zero`` says to be zero, zero."""
        if zero is None:
            return self._in_blocks(function, ROWS, static, shared, items)
        others = np.flatnonzero(~zero)
        picked = jax.tree.map(lambda x: x[others], items)
        result = self._in_blocks(function, ROWS, static, shared, picked)
        return jax.tree.map(lambda x: _spread(x, others, len(zero)), result)

    def pick(self, values: Array, index: Int[Array, " edges"]) -> Array:
        """Return values[index]."""
        return values[index]

    def convolve(self, t: int, network: Network, edges: EdgeValues, messages: Features) -> Features:
        """Return A_i of layer t at the receivers, {input irrep: (receivers, a, u)}."""
        layout = self.kinds[t].layer.layout
        sent = {key: messages[key][network.senders] for key in layout.groups}
        items = (edges.harmonics, edges.basis[:, 0], *network.edge_species(), sent)
        parts = self.edges(local.convolution, self.kinds[t], (self.layers[t],), items)
        count = len(network.own_species)
        return {key: segment_sum(x, network.receivers, count) for key, x in parts.items()}

    def kernel(
        self, t: int, key: str, radial: Array, angular: Array, index: Int[Array, " slots"]
    ) -> Array:
        """Return K of some edges for one input irrep, (slots, a, b, u)."""
        paths = self.kinds[t].layer.layout.path_of_component(key)
        return radial[index][:, paths][:, :, None, :] * angular[index][:, :, :, None]

    def over_receivers(
        self, function: Function, at_atom: Any, at_q: Any, shared: Any, weight: Array
    ) -> tuple[Any, Any]:
        """Return the first results of every receiver on a leading axis, and summed second ones."""
        results, total = [], None
        for i in range(weight.shape[1]):
            needed = np.flatnonzero(weight[:, i])
            every = len(needed) == len(weight)
            rows = slice(None) if every else needed
            own_q, shared_q = jax.tree.map(lambda x, r=rows: x[r], (_row(at_q, i), shared))
            each, part = function(_row(at_atom, i), own_q, shared_q)
            if not every:
                each, part = jax.tree.map(
                    lambda x, r=rows: _spread(x, r, len(weight)), (each, part)
                )
            results.append(each)
            total = part if total is None else total + part
            if self._tell is not None:
                self._tell()
        return jax.tree.map(lambda *x: np.stack(x), *results), total

    def _in_blocks(
        self, function: Function, size: int, static: Any, shared: Any, items: Any
    ) -> Any:
        """Return a function of all items from a program over ``size`` of them."""
        leaves, structure = jax.tree.flatten(items)
        count = len(leaves[0])
        results = []
        for first in range(0, count, size):
            rows = [_block(x, first, size) for x in leaves]
            arguments = (static, *shared, *jax.tree.unflatten(structure, rows))
            results.append(self._run(function, (structure, size), arguments))
        if len(results) == 1:
            return jax.tree.map(lambda x: np.asarray(x)[:count], results[0])
        return jax.tree.map(lambda *x: np.concatenate(x)[:count], *results)

    def _run(self, function: Function, shape: Any, arguments: tuple[Any, ...]) -> Any:
        """Return the result of a program; what it returns may still be computed."""
        # a kind and the number of rows say which shapes all arguments that are there have
        key = function, arguments[0], shape
        program = self._programs.get(key)
        if program is None:
            program = PROGRAMS[function].begin(arguments).program()
            self._programs[key] = program
        return program(*arguments[1:])


PROGRAMS: dict[Function, Compiled] = {
    function: compiled(static_argnums=(0,), keep=True, once_for="all crystals")(function)
    for function in (
        local.start,
        local.geometry,
        local.pair_terms,
        local.convolution,
        local.forward,
        local.backward,
        local.edge_terms,
        local.respond,
    )
}


@functools.lru_cache(maxsize=4)
def _programs_of(model: LayeredModel, dtype: str, generation: int) -> dict[Any, Callable[..., Any]]:
    """Return the programs of a potential that were used since all were forgotten last."""
    return {}


def _row(values: Any, i: int) -> Any:
    """Return row i of all arrays."""
    return jax.tree.map(lambda x: x[i], values)


def _spread(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` rows, zero but for some."""
    result = np.zeros((count, *values.shape[1:]), values.dtype)
    result[rows] = values
    return result


def _block(values: np.ndarray, first: int, size: int) -> np.ndarray:
    """Return a block of rows, filled up with the last row: what is computed there is sound."""
    rows = values[first : first + size]
    if len(rows) == size:
        return rows
    filled = np.empty((size, *values.shape[1:]), values.dtype)
    filled[: len(rows)] = rows
    filled[len(rows) :] = rows[-1]
    return filled

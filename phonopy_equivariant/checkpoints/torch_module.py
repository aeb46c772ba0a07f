"""Read a whole torch module from its file, without torch and without executing anything of it.

``torch.save(module)`` writes a pickle that names the classes of the module and of its parts. Here
each becomes a record of its tensors, parts and plain attributes. Code inside is not read: e3nn
keeps compiled functions as archives of their own, in which only tensors are of interest.
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from phonopy_equivariant.checkpoints.torch_file import Loader, byte_order, reading
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.inert import Name, Node, pickled_object
from phonopy_equivariant.models.representations import Irrep

# Packages whose classes become records: their names say what they are, and nothing is called.
_PACKAGES = ("mace.", "nequip.", "e3nn.", "torch.nn.", "torch.fx.", "__torch__.")
_BUILTINS = ("builtins", "__builtin__")
# What the class Module of torch keeps in every object.
_OF_TORCH = re.compile(
    r"training|call_super_init|_is_full_backward_hook|_non_persistent_buffers_set|_\w+_hooks(_\w+)?"
)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks")  # called with what a module takes and gives
_FUNCTIONS = "torch._C._VariableFunctionsClass"  # where tanh of torch is looked up
_PLAIN_NAMES = re.compile(rf"{re.escape(_FUNCTIONS)}|torch\.(float|int|uint|bool)\d*")


@dataclasses.dataclass(frozen=True, repr=False)
class TorchModule:
    """A module or another object: its class without the package, and its contents."""

    kind: str
    tensors: dict[str, ndarray]  # parameters and buffers
    parts: dict[str, TorchModule]
    attributes: dict[str, Any]

    def __repr__(self) -> str:
        return f"<{self.kind}>"

    def walk(self, path: str = "") -> Iterator[tuple[str, TorchModule]]:
        """Yield the dotted name of each module inside, and the module; this one has none."""
        yield path, self
        for name, part in self.parts.items():
            yield from part.walk(f"{path}.{name}" if path else name)

    def attribute(self, name: str) -> Any:
        """Return an attribute; one that is missing raises."""
        if name not in self.attributes:
            raise PhonopyEquivariantError(f"A {self.kind} of the file has no {name}.")
        return self.attributes[name]

    def tensor(self, name: str) -> ndarray:
        """Return a parameter or buffer, in double precision unless it has integers."""
        if name not in self.tensors:
            raise PhonopyEquivariantError(f"A {self.kind} of the file has no tensor {name}.")
        array = self.tensors[name]
        return array.astype(float) if np.issubdtype(array.dtype, np.floating) else array


class LinearInstruction(NamedTuple):
    """A path of e3nn's ``Linear``; ``i_in`` is -1 for a bias."""

    i_in: int
    i_out: int
    path_shape: tuple[int, ...]
    path_weight: float


class ProductInstruction(NamedTuple):
    """A path of e3nn's ``TensorProduct``."""

    i_in1: int
    i_in2: int
    i_out: int
    connection_mode: str
    has_weight: bool
    path_weight: float
    path_shape: tuple[int, ...]


def read_torch_module(source: Path | bytes) -> TorchModule:
    """Return the module that a file of torch holds.

    Irreps are tuples such as ``((128, "0e"), (64, "1o"))``; functions are their names.

    Parameters
    ----------
    source
        The path of the file, or its content.

    Raises
    ------
    PhonopyEquivariantError
        Not a file of torch, cut short or damaged, or its pickle names anything that modules of
        mace-torch, e3nn and torch do not need.

    """
    with reading(source) as (archive, folder):
        numbers = (lambda key: archive.read(f"{folder}data/{key}"), byte_order(archive, folder))
        return _module_in(archive.read(f"{folder}data.pkl"), ModuleLoader(*numbers))


def read_torch_package(path: Path, member: str) -> TorchModule:
    """Return a module that ``torch.package`` wrote, with the code it needs, to an archive.

    The code is not read. Parameters and errors are those of :func:`read_torch_module`; ``member``
    is the place of the module's pickle in the package, ``"model/eager_model.pkl"``.
    """
    with reading(path, f"/{member}") as (archive, folder):
        order = byte_order(archive, folder)
        loader = ModuleLoader(lambda key: archive.read(f"{folder}.data/{key}.storage"), order)
        return _module_in(archive.read(f"{folder}{member}"), loader)


def compiled_tensors(module: TorchModule) -> dict[str, ndarray]:
    """Return the tensors that the compiled functions of a module of e3nn use, by name.

    Versions of e3nn kept TorchScript or a pickled graph.
    """
    tensors: dict[str, ndarray] = {}
    for content in dict(module.attributes.get("__codegen__") or {}).values():
        form, code = content if isinstance(content, tuple) else ("torchscript", content)
        if form not in ("torchscript", "fx") or not isinstance(code, bytes):
            raise PhonopyEquivariantError(f"a {module.kind} has functions of an unknown kind.")
        if form == "fx":
            tensors |= _module_in(code, ModuleLoader(_no_storage)).tensors
        else:
            attributes = read_torch_module(code).attributes
            tensors |= {key: x for key, x in attributes.items() if isinstance(x, ndarray)}
    return tensors


def _module_in(program: bytes, loader: ModuleLoader) -> TorchModule:
    root = pickled_object(io.BytesIO(program), loader.allow, persistent=True)
    try:
        module = loader.value(root)
    except (TypeError, IndexError, AttributeError) as error:
        raise PhonopyEquivariantError(f"its pickle is damaged ({error}).") from error
    if not isinstance(module, TorchModule):
        raise PhonopyEquivariantError(
            f"a {type(module).__name__} is inside, not a whole model: save it with "
            "torch.save(model, ...)."
        )
    return module


def _no_storage(key: str) -> bytes:
    raise PhonopyEquivariantError(f"its pickle refers to numbers {key!r:.40} outside of it.")


def _old_storage(content: bytes) -> Node:
    """Return the numbers that torch's format before 2020 holds: five pickles, then bytes."""
    file = io.BytesIO(content)
    for _ in range(3):  # a magic number, the version, sizes of types
        pickled_object(file)
    node = pickled_object(file, persistent=True)
    keys = pickled_object(file)
    count = int.from_bytes(file.read(8), "little")
    if not isinstance(node, Node) or len(keys) != 1 or node.arguments[4] != count:
        raise PhonopyEquivariantError("numbers inside its pickle are damaged; fetch it again.")
    return Node("", (*node.arguments[:5], file.read()))


class ModuleLoader(Loader):
    """What the nodes of a module's pickle stand for."""

    needed_by = "no model of mace-torch or nequip needs"

    def __init__(self, read: Callable[[str], bytes], order: str = "<"):
        super().__init__(read, order)
        self.meanings |= {
            "e3nn.o3._irreps.Irrep": lambda node: str(Irrep(*self.value(node.arguments[0]))),
            "e3nn.o3._irreps._MulIr": lambda node: tuple(self.value(node.arguments[0])),
            "e3nn.o3._irreps.Irreps": lambda node: tuple(self.value(node.arguments[0])),
            "e3nn.o3._linear.Instruction": lambda node: LinearInstruction(
                *self.value(node.arguments)
            ),
            "e3nn.o3._tensor_product._instruction.Instruction": lambda node: ProductInstruction(
                *self.value(node.arguments)
            ),
            "torch.fx.graph_module.reduce_graph_module": self._graph,
            "torch.storage._load_from_bytes": self._storage,
            "builtins.slice": lambda node: slice(*node.arguments),
            "torch._utils._rebuild_parameter_with_state": lambda node: self.value(
                node.arguments[0]
            ),
            # a list or dictionary of compiled code with the names of its types
            "torch.jit._pickle.restore_type_tag": lambda node: self.value(node.arguments[0]),
            **{f"{place}.set": self._set for place in _BUILTINS},
            **{f"{place}.getattr": self._function for place in _BUILTINS},
        }

    def allow(self, name: Name) -> None:
        """Refuse a name that modules do not need."""
        if not name.startswith(_PACKAGES) and not _PLAIN_NAMES.fullmatch(name):
            super().allow(name)

    def _new_value(self, item: Any) -> Any:
        if (
            isinstance(item, Node)
            and item.name not in self.meanings
            and isinstance(item.name, Name)
            and item.name.startswith(_PACKAGES)
        ):
            return self._module(item)
        return super()._new_value(item)

    def _module(self, node: Node) -> TorchModule:
        state = dict(self.value(node.state)) if isinstance(node.state, dict) else {}
        kind = str(node.name).rpartition(".")[2]
        hooks = [name for name in _HOOKS if state.get(name)]
        if hooks:
            raise PhonopyEquivariantError(f"a {kind} has {hooks[0]}, which may change its results.")
        tensors = dict(state.pop("_parameters", {})) | dict(state.pop("_buffers", {}))
        return TorchModule(
            kind,
            _all_of(ndarray, tensors, kind),
            _all_of(TorchModule, dict(state.pop("_modules", {})), kind),
            {name: x for name, x in state.items() if not _OF_TORCH.fullmatch(name)},
        )

    def _graph(self, node: Node) -> TorchModule:
        """Return the tensors of a graph; its code is not read."""
        buffers = self.value(dict(node.arguments[0]).get("_buffers") or {})
        return TorchModule("GraphModule", _all_of(ndarray, dict(buffers), "graph"), {}, {})

    def _storage(self, node: Node) -> ndarray:
        if node.name != "torch.storage._load_from_bytes":
            return super()._storage(node)
        kind, name, key, place, count, content = _old_storage(node.arguments[0]).arguments
        inner = ModuleLoader(lambda _: content)
        return Loader._storage(inner, Node(Name(), (kind, name, key, place, count)))

    def _set(self, node: Node) -> set[Any]:
        return set(self.value(node.arguments[0])) if node.arguments else set()

    def _function(self, node: Node) -> str:
        place, name = node.arguments
        if place != _FUNCTIONS or not isinstance(name, str):
            raise PhonopyEquivariantError(f"its pickle looks up {name!r:.40} in {place!r:.40}.")
        return f"torch.{name}"


def _all_of(kind: type, values: dict[str, Any], owner: str) -> dict[str, Any]:
    """Return the values that are not None, all of one type; torch keeps None for what is unset."""
    for name, value in values.items():
        if value is not None and not isinstance(value, kind):
            raise PhonopyEquivariantError(f"{name} of a {owner} is a {type(value).__name__}.")
    return {name: value for name, value in values.items() if value is not None}

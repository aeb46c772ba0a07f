"""Nothing of a foreign model is overlooked: every module, tensor and attribute is accounted for.

A reader takes what it uses. What is left when it says it is done, and every module of a class it
does not know, is refused by name: a setting that nobody read could change the energies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from numpy import ndarray

from phonopy_equivariant.checkpoints.torch_module import TorchModule
from phonopy_equivariant.errors import PhonopyEquivariantError


class Ledger:
    """The parts of a torch module by their dotted names, and which of them have been read."""

    def __init__(self, model: TorchModule):
        self.model = model
        self._modules = dict(model.walk())
        self._read: set[str] = set()
        self._read_modules: set[str] = set()

    def has(self, path: str) -> bool:
        """Tell whether there is a module of this name."""
        return path in self._modules

    def module(self, path: str) -> TorchModule:
        """Return a module; nothing of it counts as read."""
        if path not in self._modules:
            raise PhonopyEquivariantError(f"The model has no module {path}.")
        return self._modules[path]

    def kind(self, path: str) -> str:
        """Return the name of a module's class."""
        return self.module(path).kind

    def tensor(self, path: str) -> ndarray:
        """Return a parameter or buffer, in double precision unless it has integers."""
        place, _, name = path.rpartition(".")
        if place not in self._modules or name not in self._modules[place].tensors:
            raise PhonopyEquivariantError(f"The model has no tensor {path}.")
        self._read.add(path)
        return self._modules[place].tensor(name)

    def attribute(self, path: str, name: str, default: Any = None) -> Any:
        """Return a plain attribute of a module; older versions may lack it."""
        self._read.add(f"{path}.{name}")
        return self.module(path).attributes.get(name, default)

    def read_module(self, path: str, kinds: Iterable[str]) -> TorchModule:
        """Return a module and count all its contents as read."""
        module = self.module(path)
        if module.kind not in kinds:
            raise PhonopyEquivariantError(
                f"The module {path} is a {module.kind}; known here: {', '.join(kinds)}."
            )
        self._read_modules.add(path)
        return module

    def close(self, ignorable: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse a model with modules, attributes or tensors that the conversion has not read.

        ``ignorable`` lists, by class, the attributes that the conversion need not read. An
        attribute has no effect on energies as long as it has the value given here; ``...`` stands
        for any value.
        """
        for path, module in self._modules.items():
            if self._is_inside(path):
                continue
            if module.kind not in ignorable:
                raise PhonopyEquivariantError(
                    f"The module {path or 'model'} of class {module.kind} is not supported."
                )
            for name, value in module.attributes.items():
                place = f"{path}.{name}"
                if place not in self._read:
                    _require(ignorable[module.kind], module.kind, place.lstrip("."), name, value)
            for name in module.tensors:
                place = f"{path}.{name}".lstrip(".")
                if place not in self._read:
                    raise PhonopyEquivariantError(f"The tensor {place} is not known.")

    def _is_inside(self, path: str) -> bool:
        parts = path.split(".")
        return any(".".join(parts[:end]) in self._read_modules for end in range(1, len(parts) + 1))


def _require(known: Mapping[str, Any], kind: str, place: str, name: str, value: Any) -> None:
    """Refuse an attribute that is not known, or has another value than is supported."""
    if name not in known:
        raise PhonopyEquivariantError(
            f"The attribute {place}={value!r:.60} of a {kind} is not known."
        )
    required = known[name]
    if required is not ... and (isinstance(value, ndarray) or value != required):
        raise PhonopyEquivariantError(f"{place}={value!r:.60} is not supported, only {required!r}.")

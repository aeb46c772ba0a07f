"""Nothing of a foreign model is overlooked: every module, tensor and attribute is accounted for.

A reader takes what it uses. What is left when it says it is done, and every module of a class it
does not know, is refused by name: a setting that nobody read could change the energies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError


class Ledger:
    """The parts of a torch module by their dotted names, and which of them have been read."""

    def __init__(self, model: Any):
        self.model = model
        self._modules: dict[str, Any] = dict(model.named_modules())
        tensors = [*model.named_parameters(), *model.named_buffers()]
        self._tensors: dict[str, Any] = dict(tensors)
        self._read: set[str] = set()
        self._read_modules: set[str] = set()

    def has(self, path: str) -> bool:
        """Tell whether there is a module of this name."""
        return path in self._modules

    def kind(self, path: str) -> str:
        """Return the name of a module's class."""
        return type(self._modules[path]).__name__

    def tensor(self, path: str) -> ndarray:
        """Return a parameter or buffer, in double precision unless it has integers."""
        if path not in self._tensors:
            raise PhonopyEquivariantError(f"The model has no tensor {path}.")
        self._read.add(path)
        array: ndarray = self._tensors[path].detach().cpu().numpy()
        return array.astype(float) if np.issubdtype(array.dtype, np.floating) else array

    def attribute(self, path: str, name: str, default: Any = None) -> Any:
        """Return a plain attribute of a module; older versions may lack it."""
        self._read.add(f"{path}.{name}")
        return vars(self._modules[path]).get(name, default)

    def read_module(self, path: str, kinds: Iterable[str]) -> Any:
        """Return a module and count all its contents as read."""
        if path not in self._modules:
            raise PhonopyEquivariantError(f"The model has no module {path}.")
        if self.kind(path) not in kinds:
            raise PhonopyEquivariantError(
                f"The module {path} is a {self.kind(path)}; known here: {', '.join(kinds)}."
            )
        self._read_modules.add(path)
        return self._modules[path]

    def close(self, ignorable: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse a model with modules, attributes or tensors that the conversion has not read.

        ``ignorable`` lists, by class, the attributes that the conversion need not read. An
        attribute has no effect on energies as long as it has the value given here; ``...`` stands
        for any value.
        """
        import torch

        module_attributes = vars(torch.nn.Module())
        for path, module in self._modules.items():
            if self._is_inside(path):
                continue
            kind = type(module).__name__
            if kind not in ignorable:
                raise PhonopyEquivariantError(
                    f"The module {path or 'model'} of class {kind} is not supported."
                )
            for name, value in vars(module).items():
                place = f"{path}.{name}"
                if name in module_attributes or place in self._read:
                    continue
                if name not in ignorable[kind]:
                    raise PhonopyEquivariantError(
                        f"The attribute {place.lstrip('.')}={value!r} of a {kind} is not known."
                    )
                required = ignorable[kind][name]
                if required is not ... and value != required:
                    raise PhonopyEquivariantError(
                        f"{place.lstrip('.')}={value!r} is not supported, only {required!r}."
                    )
        for path in self._tensors:
            if path not in self._read and not self._is_inside(path):
                raise PhonopyEquivariantError(f"The tensor {path} is not known.")

    def _is_inside(self, path: str) -> bool:
        parts = path.split(".")
        return any(".".join(parts[:end]) in self._read_modules for end in range(1, len(parts) + 1))

"""Read a file that ``torch.save`` wrote, without torch and without executing anything of it.

Such a file is a zip archive: a pickle, ``data.pkl``, and one member for each storage of numbers.
The pickle is followed (see :mod:`phonopy_equivariant.inert`), not run. The few names that
dictionaries, tensors and NumPy arrays need have the meaning given here; every other name is
refused.
"""

from __future__ import annotations

import contextlib
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.inert import Name, Node, pickled_items

# torch's name of a storage's type, NumPy's
_STORAGES = {
    "torch.DoubleStorage": "f8",
    "torch.FloatStorage": "f4",
    "torch.HalfStorage": "f2",
    "torch.LongStorage": "i8",
    "torch.IntStorage": "i4",
    "torch.ShortStorage": "i2",
    "torch.CharStorage": "i1",
    "torch.ByteStorage": "u1",
    "torch.BoolStorage": "b1",
}
_PLAIN_DTYPE = re.compile(r"[fiu][1248]|b1")
_ORDERS = {b"": "<", b"little": "<", b"big": ">"}


def read_torch(path: Path, keys: Collection[str], ignore: Collection[str] = ()) -> dict[str, Any]:
    """Return entries of the dictionary that a file of torch holds.

    Parameters
    ----------
    path
        What ``torch.save`` wrote: a dictionary of dictionaries, lists, numbers, text and tensors.
    keys
        The entries to return. One that the file lacks is missing from the result.
    ignore
        Names of classes, or of modules with a dot at the end, whose objects may be in the file;
        each becomes None.

    Returns
    -------
    dict
        Tensors are NumPy arrays.

    Raises
    ------
    PhonopyEquivariantError
        Not a file of torch, cut short or damaged, or its pickle names anything that a dictionary
        of tensors does not need.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise PhonopyEquivariantError("there is no pickle of torch inside")
            loader = _Loader(archive, pickles[0].removesuffix("data.pkl"), tuple(ignore))
            with archive.open(pickles[0]) as file:
                entries = dict(pickled_items(file, allow=loader.allow, persistent=True))
            return {key: loader.value(entries[key]) for key in keys if key in entries}
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{path}: {error}") from error
    except RecursionError as error:
        raise PhonopyEquivariantError(f"{path}: its pickle is nested too deeply.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, ValueError) as error:
        raise PhonopyEquivariantError(
            f"{path}: cannot be read as a file of torch; it is cut short, damaged or of another "
            "kind: fetch it again."
        ) from error


def names_in(path: Path) -> frozenset[str]:
    """Return the names of classes and functions in the pickle of a file of torch.

    Raises
    ------
    PhonopyEquivariantError
        Not a file of torch.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            place = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            names: set[str] = set()
            # the names alone: whether the program makes sense is up to those who read it
            with contextlib.suppress(PhonopyEquivariantError), archive.open(place) as file:
                for _ in pickled_items(file, allow=names.add, persistent=True):
                    pass
            return frozenset(names)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, StopIteration) as error:
        raise PhonopyEquivariantError(f"{path}: not a file of torch.") from error


class _Loader:
    """What the nodes of a file's pickle stand for."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, ignore: tuple[str, ...]):
        self._archive, self._folder = archive, folder
        self._ignore = ignore
        self._meanings: dict[str, Callable[[Node], Any]] = {
            "collections.OrderedDict": self._ordered,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": lambda node: self.value(node.arguments[0]),
            "torch.device": lambda node: str(node.arguments[0]),
            "torch.Size": lambda node: tuple(self.value(node.arguments[0])),
            "numpy.core.multiarray._reconstruct": self._array,
            "numpy._core.multiarray._reconstruct": self._array,
            "numpy.core.multiarray.scalar": self._scalar,
            "numpy._core.multiarray.scalar": self._scalar,
            "numpy.dtype": self._dtype,
            "_codecs.encode": lambda node: node.arguments[0].encode("latin1"),
        }
        self._values: dict[int, tuple[Any, Any]] = {}  # what a node is kept alive with its value
        self._storages: dict[str, ndarray] = {}
        order = f"{folder}byteorder"
        names = set(archive.namelist())
        self._order = _ORDERS[archive.read(order).strip() if order in names else b""]

    def allow(self, name: Name) -> None:
        """Refuse a name that tensors and plain values do not need."""
        if name in self._meanings or name in _STORAGES or name == "numpy.ndarray":
            return
        if not self._ignored(name):
            raise PhonopyEquivariantError(
                f"its pickle names {name}, which no dictionary of tensors needs; the file is "
                "refused, and nothing of it was executed."
            )

    def _ignored(self, name: str) -> bool:
        return any(name.startswith(x) if x.endswith(".") else name == x for x in self._ignore)

    def value(self, item: Any) -> Any:
        """Return an object with plain values and arrays in place of nodes."""
        if not isinstance(item, (Node, dict, list, tuple, set)):
            return str(item) if isinstance(item, Name) else item
        if id(item) not in self._values:
            self._values[id(item)] = (item, None)  # for an object that contains itself
            self._values[id(item)] = (item, self._new_value(item))
        return self._values[id(item)][1]

    def _new_value(self, item: Any) -> Any:
        if isinstance(item, dict):
            return {key: self.value(x) for key, x in item.items()}
        if isinstance(item, (list, tuple, set)):
            return type(item)([self.value(x) for x in item])
        if item.name in self._meanings:
            return self._meanings[item.name](item)
        if isinstance(item.name, Name) and self._ignored(item.name):
            return None
        raise PhonopyEquivariantError(f"its pickle calls {item.name!r:.80}; the file is refused.")

    def _ordered(self, node: Node) -> dict[Any, Any]:
        pairs = self.value(node.arguments[0]) if node.arguments else []
        return dict(pairs) | {key: self.value(x) for key, x in node.items}

    def _tensor(self, node: Node) -> ndarray:
        storage, offset, shape, strides = node.arguments[:4]
        numbers = self._storage(storage)
        size = math.prod(shape)
        integers = all(isinstance(x, int) and x >= 0 for x in (offset, *shape, *strides))
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if not integers or size > len(numbers) or (size and last >= len(numbers)):
            raise PhonopyEquivariantError("a tensor reaches beyond its storage; file damaged.")
        if not size:
            return np.zeros(shape, numbers.dtype)
        steps = tuple(step * numbers.itemsize for step in strides)
        view = np.lib.stride_tricks.as_strided(numbers[offset:], shape, steps, writeable=False)
        return np.array(view)

    def _storage(self, node: Node) -> ndarray:
        kind, name, key, _, count = node.arguments
        if kind != "storage" or name not in _STORAGES:
            raise PhonopyEquivariantError(f"its pickle refers to {kind!r:.40} {name!r:.40}.")
        if key not in self._storages:
            dtype = np.dtype(self._order + _STORAGES[name])
            content = self._archive.read(f"{self._folder}data/{key}")
            if len(content) != count * dtype.itemsize:
                raise PhonopyEquivariantError(f"the numbers {key} are cut short; fetch it again.")
            self._storages[key] = np.frombuffer(content, dtype)
        return self._storages[key]

    def _dtype(self, node: Node) -> np.dtype:
        name = str(node.arguments[0])
        if not _PLAIN_DTYPE.fullmatch(name):
            raise PhonopyEquivariantError(f"an array of type {name!r:.40} is not of numbers.")
        order = str(node.state[1]) if node.state else "|"
        return np.dtype(f"{order}{name}")

    def _array(self, node: Node) -> ndarray:
        _, shape, dtype, fortran, content = node.state
        array = np.frombuffer(self.value(content), self.value(dtype))
        return array.reshape(shape, order="F" if fortran else "C").copy()

    def _scalar(self, node: Node) -> Any:
        dtype, content = node.arguments
        return np.frombuffer(self.value(content), self.value(dtype))[0].item()

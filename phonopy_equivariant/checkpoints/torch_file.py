"""Read a file that ``torch.save`` wrote, without torch and without executing anything of it.

Such a file is a zip archive: a pickle, ``data.pkl``, and one member for each storage of numbers.
The pickle is followed (see :mod:`phonopy_equivariant.inert`), not run. The few names that
dictionaries, tensors and NumPy arrays need have the meaning given here; every other name is
refused.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.inert import Name, Node, pickled_items, pickled_object

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
# Files of torch are not compressed: members that unpack to more than this were made to fill memory.
_LARGEST_RATIO = 20
_PICKLE = b"\x80"  # what files began with before torch 1.6 made them archives


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
    with reading(path) as (archive, folder):
        numbers = (lambda key: archive.read(f"{folder}data/{key}"), byte_order(archive, folder))
        loader = Loader(*numbers, tuple(ignore))
        with archive.open(f"{folder}data.pkl") as file:
            entries = dict(pickled_items(file, allow=loader.allow, persistent=True))
        return {key: loader.value(entries[key]) for key in keys if key in entries}


@contextlib.contextmanager
def reading(
    source: Path | bytes, member: str = "/data.pkl"
) -> Iterator[tuple[zipfile.ZipFile, str]]:
    """Open a file of torch; yield the archive, and the folder in it where the pickle lies.

    Parameters
    ----------
    source
        The path of the file, or its content.
    member
        End of the pickle's name, from the folder on.

    Raises
    ------
    PhonopyEquivariantError
        Not a file of torch, cut short or damaged; or whatever goes wrong while it is read.

    """
    place = f"{source}: " if isinstance(source, Path) else ""
    try:
        _require_archive(source)
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
            pickles = [name for name in file.namelist() if name.endswith(member)]
            if len(pickles) != 1:
                raise PhonopyEquivariantError("there is no pickle of torch inside.")
            _require_size(file)
            yield file, pickles[0].removesuffix(member[1:])
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{place}{error}") from error
    except RecursionError as error:
        raise PhonopyEquivariantError(f"{place}its pickle is nested too deeply.") from error
    except Exception as error:  # a damaged file fails anywhere
        raise PhonopyEquivariantError(
            f"{place}cannot be read as a file of torch; it is cut short, damaged or of another "
            "kind: fetch it again."
        ) from error


def _require_archive(source: Path | bytes) -> None:
    """Refuse a file of torch before 1.6, which is a sequence of pickles."""
    if isinstance(source, Path):
        with open(source, "rb") as file:
            start = file.read(1)
    else:
        start = source[:1]
    if start == _PICKLE:
        raise PhonopyEquivariantError(
            "it is a pickle, as torch wrote before version 1.6: load it with torch "
            "(weights_only=True runs none of its code) and save it again."
        )


def _require_size(archive: zipfile.ZipFile) -> None:
    unpacked = sum(member.file_size for member in archive.infolist())
    packed = sum(member.compress_size for member in archive.infolist())
    if unpacked > _LARGEST_RATIO * packed:
        raise PhonopyEquivariantError(
            f"it would unpack to {unpacked / 2**20:.0f} MiB, more than {_LARGEST_RATIO} times its "
            "size; files of torch are not compressed, and this one is refused."
        )


def member_names(path: Path) -> list[str]:
    """Return the names in a zip archive; none for a file of another kind."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return []


def byte_order(archive: zipfile.ZipFile, folder: str) -> str:
    """Return the byte order of the numbers in a file of torch, "<" or ">"."""
    name = f"{folder}byteorder"
    return _ORDERS[archive.read(name).strip() if name in archive.namelist() else b""]


def names_in(path: Path) -> frozenset[str]:
    """Return the names of classes and functions in the pickle of a file of torch.

    Raises
    ------
    PhonopyEquivariantError
        Not a file of torch.

    """
    names: set[str] = set()
    with reading(path) as (archive, folder):
        program = io.BytesIO(archive.read(f"{folder}data.pkl"))
    # the names alone: whether the program makes sense is up to those who read it
    with contextlib.suppress(PhonopyEquivariantError):
        pickled_object(program, names.add, persistent=True)
    return frozenset(names)


class Loader:
    """What the nodes of a file's pickle stand for; a subclass may know more of them."""

    needed_by = "no dictionary of tensors needs"

    def __init__(
        self, read: Callable[[str], bytes], order: str = "<", ignore: tuple[str, ...] = ()
    ):
        """``read`` returns the bytes of a storage by its key, in the byte order ``order``."""
        self._read, self._order = read, order
        self._ignore = ignore
        self.meanings: dict[str, Callable[[Node], Any]] = {
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

    def allow(self, name: Name) -> None:
        """Refuse a name that tensors and plain values do not need."""
        if name in self.meanings or name in _STORAGES or name == "numpy.ndarray":
            return
        if not self._ignored(name):
            raise PhonopyEquivariantError(
                f"its pickle names {name}, which {self.needed_by}; the file is "
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
        if item.name in self.meanings:
            return self.meanings[item.name](item)
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
        kind, name, key, _, count = node.arguments[:5]
        if kind != "storage" or name not in _STORAGES:
            raise PhonopyEquivariantError(f"its pickle refers to {kind!r:.40} {name!r:.40}.")
        if key not in self._storages:
            dtype = np.dtype(self._order + _STORAGES[name])
            content = self._read(key)
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

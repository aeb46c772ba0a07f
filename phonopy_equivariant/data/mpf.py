"""MPF.2021.2.8, the data of M3GNet (doi:10.1038/s43588-022-00349-3): its two block files.

They are published as pickles (doi:10.6084/m9.figshare.19470599), which as such may do anything
when they are loaded. :mod:`phonopy_equivariant.inert` follows them without executing what
they ask for; here the names of pymatgen's and NumPy's classes are given the one meaning that
data can have. ``{material: {"structure": [...], "energy": [...], "force": [...], "stress":
[...]}}``: eV, eV/Å, kbar with VASP's sign (m3gnet pull request 57).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase.data import atomic_numbers
from numpy import ndarray

from phonopy_equivariant.data.labels import full_stress
from phonopy_equivariant.data.mptrj import KBAR
from phonopy_equivariant.data.record import Record
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.inert import Node, pickled_items
from phonopy_equivariant.structure import Structure

_DTYPE = re.compile(r"[fiu][1248]|b1")


class _Site(NamedTuple):
    number: int
    fraction: ndarray


def read(path: Path, level: str = "PBE(+U)") -> Iterator[Record]:
    """Yield the records of a block file, executing nothing of it.

    Parameters
    ----------
    path
        ``block_0.p`` or ``block_1.p``.
    level
        Level of theory.

    Raises
    ------
    PhonopyEquivariantError
        Another kind of pickle, or a frame that cannot be read, by its index.

    """
    index = 0
    source = f"{path}:0"
    try:
        with open(path, "rb") as file:
            for material, content in pickled_items(file, _finished):
                if not isinstance(content, dict) or "structure" not in content:
                    raise PhonopyEquivariantError(f"{material!r} has no structures; is this MPF?")
                for k in range(len(content["structure"])):
                    source = f"{path}:{index}"
                    yield _record(content, k, level, source)
                    index += 1
    except OSError as error:
        raise PhonopyEquivariantError(f"{path}: {error.strerror}; check the file.") from error
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{source}: {error}") from error
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise PhonopyEquivariantError(
            f"{source}: cannot be read ({type(error).__name__}: {error}); is this a block of MPF?"
        ) from error


def _record(content: dict[str, Any], k: int, level: str, source: str) -> Record:
    structure = content["structure"][k]
    if not isinstance(structure, Structure):
        raise PhonopyEquivariantError(f"a structure is {structure!r:.80}, not pymatgen's.")
    forces, stress = content.get("force"), content.get("stress")
    return Record(
        structure,
        energy=float(_number(content["energy"][k])),
        forces=None if forces is None else np.array(_plain(forces[k]), float).reshape(-1, 3),
        stress=None if stress is None else full_stress(_plain(stress[k])) * KBAR,
        level=level,
        source=source,
    )


def _finished(node: Node) -> Any:
    """Give a node its meaning as soon as its state is known."""
    name = node.name
    if str(name).endswith("._reconstructor"):  # protocols 0 and 1
        name = node.arguments[0]
    kind = str(name).rpartition(".")[2]
    if kind == "_reconstruct":
        return _array(node.state)
    if kind in ("PeriodicSite", "Site") and isinstance(node.state, dict):
        state = node.state
        return _Site(_atomic_number(state["_species"]), np.array(_plain(state["_frac_coords"])))
    if kind == "Lattice" and isinstance(node.state, dict):
        return np.array(_plain(node.state["_matrix"]), float).reshape(3, 3)
    if kind in ("Structure", "IStructure") and isinstance(node.state, dict):
        cell, sites = node.state["_lattice"], node.state["_sites"]
        fractions = np.array([site.fraction for site in sites], float)
        numbers = np.array([site.number for site in sites])
        return Structure(numbers, fractions @ cell, cell, np.ones(3, bool))
    return node


def _atomic_number(species: Any) -> int:
    """Return the one element of pymatgen's Composition."""
    state = species.state if isinstance(species, Node) else species
    if isinstance(state, dict) and "_data" in state:
        state = state["_data"]
    if isinstance(state, Node):  # a subclass of dict keeps its items beside its state
        state = dict(state.items) or state.state or {}
    if not isinstance(state, dict) or len(state) != 1:
        raise PhonopyEquivariantError("has partly occupied sites; leave the material out.")
    (element,) = state
    while isinstance(element, Node):  # Species has its Element in its state
        inner = element.state.get("_el") if isinstance(element.state, dict) else None
        element = inner if inner is not None else element.arguments[0]
    return int(atomic_numbers[str(element)])


def _array(state: Any) -> ndarray:
    """Return the array of NumPy's (version, shape, dtype, in Fortran order, bytes)."""
    _, shape, dtype, fortran, data = state
    name = str(dtype.arguments[0])
    if isinstance(data, Node):  # Python 2 wrote bytes as encoded text
        data = data.arguments[0].encode("latin1")
    if isinstance(data, str):
        data = data.encode("latin1")
    if not _DTYPE.fullmatch(name) or not isinstance(data, bytes):
        raise PhonopyEquivariantError(f"an array of {name!r}, which is no number; is this MPF?")
    order = dtype.state[1] if dtype.state and dtype.state[1] in "<>" else "="
    values = np.frombuffer(data, np.dtype(f"{order}{name}"))
    return values.reshape(shape, order="F" if fortran else "C").astype(values.dtype.kind + "8")


def _number(value: Any) -> Any:
    """Return a plain number, also from a NumPy scalar."""
    if isinstance(value, Node) and str(value.name).endswith(".scalar"):
        dtype, data = value.arguments
        return _array((1, (), dtype, False, data)).item()
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Node) and str(value.name).endswith("._frombuffer"):  # protocol 5
        data, dtype, shape, order = value.arguments
        return _array((1, shape, dtype, order == "F", bytes(data)))
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return _number(value)

"""Records in HDF5: many of them, read one at a time and in any order.

Attributes ``format`` = "phonopy_equivariant records", ``version`` = 2. N records, M atoms of all
records one after another; eV, Å:

==================== =============== =============================================================
``offsets``          (N + 1,)        record k has the atoms offsets[k] : offsets[k + 1]
``numbers``          (M,)            atomic numbers
``positions``        (M, 3)
``masses``           (M,)            amu; NaN stands for the mass of the element; not in version 1
``cell``, ``pbc``    (N, 3, 3), (N, 3)
``has``              (N, 3)          whether there are energy, forces, stress
``energy``           (N,)
``forces``           (M, 3)
``stress``           (N, 3, 3)
``level``            (N,)            text
==================== =============== =============================================================

The groups ``force_constants`` and ``spectrum`` have K entries: ``record`` (K,), the record each
belongs to, ascending; ``q_offsets`` (K + 1,) into ``qpoints`` (Q, 3); ``offsets`` (K + 1,) into
``values``, all (q, 3n, 3n) complex or (q, 3n) arrays one after another.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import h5py
import numpy as np
from numpy import ndarray
from numpy.typing import DTypeLike

from phonopy_equivariant.data.record import ForceConstantsData, Record, Spectrum
from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.structure import Structure

FORMAT = "phonopy_equivariant records"
VERSION = 2
_BLOCK = 512  # records written or iterated over together
_PER_ATOM = ("numbers", "positions", "forces", "masses")
_PER_RECORD = ("cell", "stress")
_GROUPS = {"force_constants": complex, "spectrum": float}


def read(path: Path, level: str = "") -> Iterator[Record]:
    """Yield the records of a file, a block of them in memory at a time.

    Parameters
    ----------
    path
        Written by :func:`write`.
    level
        Level of theory of records that name none.

    """
    with RecordFile(path, level) as records:
        yield from records


class RecordFile(Sequence[Record]):
    """The records of an HDF5 file, read when they are asked for.

    Raises
    ------
    PhonopyEquivariantError
        No HDF5 file, or of another layout.

    """

    def __init__(self, path: Path, level: str = ""):
        self.path = path
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise PhonopyEquivariantError(
                f"{path}: cannot be opened as HDF5 ({reason_of(error)})."
            ) from error
        self._check()
        file = self._file
        # the few bytes of each record that need not be looked for in the file again
        self._offsets, self._has = file["offsets"][:], file["has"][:]
        self._energies, self._pbc = file["energy"][:], file["pbc"][:].astype(bool)
        levels, self._level_of = np.unique(file["level"].asstr()[:], return_inverse=True)
        self._levels = [str(text) or level for text in levels]
        self._places = {name: file[name]["record"][:] for name in _GROUPS}
        # h5py takes longer to find an array by its name than to read a record of it
        self._arrays = {name: file[name] for name in (*_PER_ATOM, *_PER_RECORD) if name in file}

    def _check(self) -> None:
        """Refuse a file of another layout."""
        kind, version = (self._file.attrs.get(name) for name in ("format", "version"))
        if kind == FORMAT and version in range(1, VERSION + 1):
            return
        names = ", ".join(sorted(self._file)[:8]) or "nothing"
        self._file.close()
        raise PhonopyEquivariantError(
            f"{self.path}: version {version} of these files is not known here; update the package."
            if kind == FORMAT
            else f"{self.path}: HDF5 of another program (it has {names}); write its structures and "
            "labels as extended XYZ, with ASE for instance, or say --format phonopy for force "
            "constants of phonopy."
        )

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        k = range(len(self))[index]  # negative ones, and IndexError
        return next(self._block([k]))

    def __iter__(self) -> Iterator[Record]:
        return self.at(range(len(self)))

    def at(self, places: Iterable[int]) -> Iterator[Record]:
        """Yield the records at places; neighbours in ascending order are read together."""
        for _, in_block in itertools.groupby(places, lambda place: place // _BLOCK):
            run: list[int] = []
            for place in in_block:
                if run and place <= run[-1]:
                    yield from self._block(run)
                    run = []
                run.append(place)
            yield from self._block(run)

    def _block(self, places: Sequence[int]) -> Iterator[Record]:
        """Yield the records at ascending places, with all between them read at once."""
        start, stop = places[0], places[-1] + 1
        first, last = self._offsets[start], self._offsets[stop]
        per_atom = {n: self._arrays[n][first:last] for n in _PER_ATOM if n in self._arrays}
        per_record = {name: self._arrays[name][start:stop] for name in _PER_RECORD}
        for k in places:
            atoms = slice(self._offsets[k] - first, self._offsets[k + 1] - first)
            # copies, so that a record that is kept does not keep its block
            array = {name: values[atoms].copy() for name, values in per_atom.items()}
            masses = array.get("masses", np.array([np.nan]))
            has = self._has[k]
            yield Record(
                Structure(
                    array["numbers"].astype(int),
                    array["positions"],
                    per_record["cell"][k - start].copy(),
                    self._pbc[k],
                    None if np.isnan(masses).all() else masses,
                ),
                energy=float(self._energies[k]) if has[0] else None,
                forces=array["forces"] if has[1] else None,
                stress=per_record["stress"][k - start].copy() if has[2] else None,
                force_constants=self._force_constants(k),
                spectrum=self._spectrum(k),
                level=self._levels[self._level_of[k]],
                source=f"{self.path}:{k}",
            )

    def _force_constants(self, record: int) -> ForceConstantsData | None:
        arrays = self._second_order("force_constants", record)
        if arrays is None:
            return None
        qpoints, values, columns = arrays
        return ForceConstantsData(qpoints, values.reshape(len(qpoints), columns, columns))

    def _spectrum(self, record: int) -> Spectrum | None:
        arrays = self._second_order("spectrum", record)
        if arrays is None:
            return None
        qpoints, values, columns = arrays
        return Spectrum(qpoints, values.reshape(len(qpoints), columns))

    def _second_order(self, name: str, record: int) -> tuple[ndarray, ndarray, int] | None:
        """Return q, flat values and the number of coordinates, if the record has such data."""
        places = self._places[name]
        k = int(np.searchsorted(places, record))
        if k == len(places) or places[k] != record:
            return None
        group = self._file[name]
        first, last = group["q_offsets"][k : k + 2]
        qpoints = group["qpoints"][first:last]
        start, stop = group["offsets"][k : k + 2]
        columns = 3 * int(self._offsets[record + 1] - self._offsets[record])
        return qpoints, group["values"][start:stop], columns


def write(records: Iterable[Record], path: Path) -> None:
    """Write records to a new file, a block of them in memory at a time."""
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["version"] = FORMAT, VERSION
        _create(file)
        iterator = iter(records)
        while block := list(itertools.islice(iterator, _BLOCK)):
            _append_block(file, block)


def _create(file: h5py.File) -> None:
    text = h5py.string_dtype()
    shapes: dict[str, tuple[Any, ...]] = {
        "numbers": (np.int16,),
        "positions": (float, 3),
        "masses": (float,),
        "cell": (float, 3, 3),
        "pbc": (bool, 3),
        "has": (bool, 3),
        "energy": (float,),
        "forces": (float, 3),
        "stress": (float, 3, 3),
        "level": (text,),
    }
    for name, (kind, *row_shape) in shapes.items():
        _dataset(file, name, kind, *row_shape)
    _dataset(file, "offsets", np.int64)
    _append(file["offsets"], np.zeros(1, np.int64))
    for name, kind in _GROUPS.items():
        group = file.create_group(name)
        _dataset(group, "record", np.int64)
        _dataset(group, "qpoints", float, 3)
        _dataset(group, "values", kind)
        for offsets in ("offsets", "q_offsets"):
            _dataset(group, offsets, np.int64)
            _append(group[offsets], np.zeros(1, np.int64))


def _dataset(group: h5py.Group, name: str, kind: DTypeLike, *row_shape: int) -> h5py.Dataset:
    # the matrices of one record have thousands of elements
    chunk = 16 * _BLOCK if name == "values" else _BLOCK
    return group.create_dataset(
        name,
        (0, *row_shape),
        kind,
        maxshape=(None, *row_shape),
        chunks=(chunk, *row_shape),
        compression="lzf",
    )


def _append(dataset: h5py.Dataset, values: ndarray) -> None:
    start = len(dataset)
    dataset.resize(start + len(values), axis=0)
    dataset[start:] = values


def _append_block(file: h5py.File, records: list[Record]) -> None:
    start = len(file["offsets"]) - 1
    structures = [record.structure for record in records]
    counts = np.array([len(structure.numbers) for structure in structures])
    _append(file["offsets"], int(file["offsets"][-1]) + np.cumsum(counts))
    _append(file["numbers"], np.concatenate([s.numbers for s in structures]))
    _append(file["positions"], np.concatenate([s.positions for s in structures]))
    unset = [np.full(count, np.nan) for count in counts]
    masses = [m if s.masses is None else s.masses for m, s in zip(unset, structures, strict=True)]
    _append(file["masses"], np.concatenate(masses))
    _append(file["cell"], np.array([s.cell for s in structures]))
    _append(file["pbc"], np.array([s.pbc for s in structures]))
    labels = [(r.energy is not None, r.forces is not None, r.stress is not None) for r in records]
    _append(file["has"], np.array(labels))
    _append(file["energy"], np.array([np.nan if r.energy is None else r.energy for r in records]))
    none = [np.full(structure.positions.shape, np.nan) for structure in structures]
    forces = [n if r.forces is None else r.forces for n, r in zip(none, records, strict=True)]
    _append(file["forces"], np.concatenate(forces))
    empty = np.full((3, 3), np.nan)
    _append(file["stress"], np.array([empty if r.stress is None else r.stress for r in records]))
    _append(file["level"], np.array([r.level for r in records], dtype=object))
    for k, record in enumerate(records, start):
        if record.force_constants is not None:
            constants = record.force_constants
            _append_second_order(file["force_constants"], k, constants.qpoints, constants.values)
        if record.spectrum is not None:
            spectrum = record.spectrum
            _append_second_order(file["spectrum"], k, spectrum.qpoints, spectrum.frequencies)


def _append_second_order(group: h5py.Group, record: int, qpoints: ndarray, values: ndarray) -> None:
    _append(group["record"], np.array([record]))
    _append(group["qpoints"], qpoints)
    _append(group["values"], values.ravel())
    _append(group["q_offsets"], np.array([len(group["qpoints"])]))
    _append(group["offsets"], np.array([len(group["values"])]))

"""Structures and a teacher's labels: HDF5 files of records for training and for judging.

    python generate.py TEACHER FOLDER [--worker 0/2] [--trial]

First known compounds (``compositions.yaml``), then real structures with like elements in place of
theirs (``real.py``), then rounds of compositions: all relaxed and labelled with Hessians; then wide
rounds of ``WIDER`` times as many compositions, brought near their rest only, with energies, forces
and stresses of perturbed copies; then molecules with many copies each. Work is done in chunks of a
few structures, each a file named by what is in it; what is there is not done again. About an eighth
of the groups of prototype and composition, drawn by hash, is held out; formulas of known compounds
never are.
``--trial`` does a few structures of each kind, to see that all programs run.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.build import molecule
from fill import draw, listed
from labels import (
    GLANCES,
    OF_MOLECULES,
    Teacher,
    copies,
    labelled,
    load_teacher,
    relaxed,
    settled,
    sound,
    use_cache,
)
from real import crystals

from phonopy_equivariant.data import Record, write_records
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.files import write_atomically

CHUNK = 20
HELD_OUT = 0.12
ROUNDS = 3
WIDER = (8, 24)
OF_TRIAL = 4  # structures of each kind

Kind = Literal["known", "rest", "wide", "molecules"]
Items = list[tuple[str, Atoms]]


class Chunk(NamedTuple):
    """Structures with their groups, what is done with them, and a seed of what is random."""

    items: Items
    kind: Kind
    salt: str

    @property
    def name(self) -> str:
        """A name that other work does not have."""
        words = repr((self.kind, self.salt, [group for group, _ in self.items]))
        return f"{self.kind}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"


def chunks(rounds: int = ROUNDS, wider: tuple[int, ...] = WIDER) -> Iterator[Chunk]:
    """Yield all work, always in the same order, mixed within a round.

    A round draws other compositions than those before it, which takes minutes for the wide ones;
    molecules come again, to be perturbed anew.
    """
    seen: set[str] = set()
    molecules = [(f"molecule:{name}", molecule(name)) for name in listed("molecules").split()]
    yield from split(_new(known(), seen), "known", "known")
    yield from split(_new(crystals(), seen), "rest", "")
    for seed, times in enumerate((1,) * rounds + wider):
        wide = times > 1
        new = _new(drawn(seed, times), seen) + ([] if wide else molecules)
        new.sort(key=lambda item: hash_of(item[0]))
        yield from split(new, "wide" if wide else "rest", str(seed or ""))
    yield from split(molecules, "molecules", "molecules")


def trial() -> Iterator[Chunk]:
    """Yield a small chunk of each kind, held-out groups first."""
    done = set()
    for chunk in chunks(1, (2,)):
        if chunk.kind not in done:
            few = sorted(chunk.items, key=lambda item: _lot(item[0]))[:OF_TRIAL]
            yield chunk._replace(items=few)
        done.add(chunk.kind)


@functools.cache
def known() -> Items:
    """Return the known compounds."""
    return drawn(0, 0)


def drawn(seed: int, times: int) -> Items:
    """Return filled prototypes with their groups."""
    return [
        (f"{prototype}:{atoms.get_chemical_formula(empirical=True)}", atoms)
        for prototype, _, atoms in draw(seed, times)
    ]


def _new(items: Items, seen: set[str]) -> Items:
    """Return one of each group that has not been seen, in the order of their hashes."""
    some = {group: atoms for group, atoms in reversed(items) if group not in seen}
    seen.update(some)
    return sorted(some.items(), key=lambda item: hash_of(item[0]))


def split(items: Items, kind: Kind, salt: str) -> list[Chunk]:
    """Return chunks of a size that takes about as long for all kinds."""
    size = 3 * CHUNK if kind == "wide" else CHUNK
    return [Chunk(items[k : k + size], kind, salt) for k in range(0, len(items), size)]


def hash_of(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def held_out(group: str) -> bool:
    """Tell whether a group is kept for judging."""
    return _lot(group) < HELD_OUT and not is_known(group)


def _lot(group: str) -> float:
    return hash_of("held out " + group)


def is_known(group: str) -> bool:
    """Tell whether a group has the formula of a known compound, in whatever structure."""
    return group.split(":")[1] in _known_formulas()


@functools.cache
def _known_formulas() -> set[str]:
    return {group.split(":")[1] for group, _ in known()}


def records(teachers: dict[str, Teacher], chunk: Chunk) -> Iterator[Record]:
    """Yield the records of some structures; those that relax to nothing sound are reported."""
    for group, start in chunk.items:
        try:
            yield from records_of(teachers, chunk, group, start)
        except (PhonopyEquivariantError, ValueError, RuntimeError) as error:
            print(f"left out: {group}: {str(error)[:90]}", flush=True)


def records_of(
    teachers: dict[str, Teacher], chunk: Chunk, group: str, start: Atoms
) -> Iterator[Record]:
    """Yield the records of one structure; raise where it relaxes to nothing sound."""
    teacher = teachers["float32"]
    rng = np.random.default_rng(int(hash_of(group + chunk.salt) * 2**31))
    if chunk.kind == "wide":
        yield from copies(teacher, settled(teacher, start), group, rng, GLANCES)
        return
    rest = relaxed(teachers["float64" if not start.pbc.any() else "float32"], start)
    problem = sound(rest, start)
    if problem:
        raise PhonopyEquivariantError(problem)
    if chunk.kind == "molecules":
        yield from copies(teacher, rest, group, rng, OF_MOLECULES)
    else:
        yield from labelled(teacher, rest, group, rng, known=chunk.kind == "known")


def same_teacher(path: Path, teacher: Teacher) -> None:
    """End where the folder has labels of another teacher; chunks do not name theirs."""
    if not path.exists():
        write_atomically(path, f"{teacher.sha256}\n".encode())
    if path.read_text("ascii").strip() != teacher.sha256:
        sys.exit(f"{path.parent} has labels of another teacher; give another folder.")


def main() -> None:
    """Generate what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("teacher")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--worker", default="0/1")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--trial", action="store_true", help="a few structures of each kind")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    use_cache(str(options.folder / "compiled"))
    teachers = {dtype: load_teacher(options.teacher, dtype) for dtype in ("float32", "float64")}
    worker, workers = map(int, options.worker.split("/"))
    (options.folder / "chunks").mkdir(parents=True, exist_ok=True)
    same_teacher(options.folder / "teacher.sha256", teachers["float32"])
    for index, chunk in enumerate(trial() if options.trial else chunks(options.rounds)):
        path = options.folder / "chunks" / f"{chunk.name}.h5"
        if index % workers != worker or path.exists():
            continue
        begin = time.perf_counter()
        found = list(records(teachers, chunk))
        # sources are not kept in HDF5: the groups stand beside the file
        groups = "".join(f"{record.source}\n" for record in found)
        path.with_suffix(".txt").write_text(groups, "utf-8")
        write_records(found, path)
        seconds = time.perf_counter() - begin
        print(f"{index}, {chunk.name}: {len(found)} records in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())

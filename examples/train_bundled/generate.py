"""Structures and a teacher's labels: HDF5 files of records for training and for judging.

    python generate.py TEACHER FOLDER [--worker 0/2]

Work is done in chunks of a few structures, each a file; what is there is not done again. Every
tenth group of prototype and composition, drawn by hash, is held out.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms
from ase.build import molecule
from labels import Teacher, labelled, load_teacher, relaxed, sound, use_cache
from prototypes import draw, listed

from phonopy_equivariant.data import Record, write_records
from phonopy_equivariant.errors import PhonopyEquivariantError

CHUNK = 20
HELD_OUT = 0.12
ROUNDS = 3


def structures(rounds: int) -> list[list[tuple[str, Atoms]]]:
    """Return (group, structure) of each round, always in the same order, mixed.

    A round draws other compositions than those before it; molecules come again, to be perturbed
    anew.
    """
    seen: set[str] = set()
    found = []
    for seed in range(rounds):
        some = [
            (f"{prototype}:{atoms.get_chemical_formula(empirical=True)}", atoms)
            for prototype, _, atoms in draw(seed)
        ]
        new = [(group, atoms) for group, atoms in some if group not in seen]
        seen |= {group for group, _ in some}
        new += [(f"molecule:{name}", molecule(name)) for name in listed("molecules").split()]
        found.append(sorted(new, key=lambda item: hash_of(item[0])))
    return found


def hash_of(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def held_out(group: str) -> bool:
    """Tell whether a group is kept for judging."""
    return hash_of("held out " + group) < HELD_OUT


def records(
    teachers: dict[str, Teacher], items: list[tuple[str, Atoms]], salt: str
) -> Iterator[Record]:
    """Yield the records of some structures; those that relax to nothing sound are reported."""
    for group, start in items:
        try:
            rest = relaxed(teachers["float64" if not start.pbc.any() else "float32"], start)
            problem = sound(rest, start)
            if problem:
                raise PhonopyEquivariantError(problem)
            seed = int(hash_of(group + salt) * 2**31)
            yield from labelled(teachers["float32"], rest, group, seed)
        except (PhonopyEquivariantError, ValueError, RuntimeError) as error:
            print(f"left out: {group}: {str(error)[:90]}", flush=True)


def main() -> None:
    """Generate what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("teacher")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--worker", default="0/1")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    use_cache(str(options.folder / "compiled"))
    teachers = {dtype: load_teacher(options.teacher, dtype) for dtype in ("float32", "float64")}
    worker, workers = map(int, options.worker.split("/"))
    chunks = [
        (some[k : k + CHUNK], str(number or ""))
        for number, some in enumerate(structures(options.rounds))
        for k in range(0, len(some), CHUNK)
    ]
    (options.folder / "chunks").mkdir(parents=True, exist_ok=True)
    for index in range(worker, len(chunks), workers):
        path = options.folder / "chunks" / f"{index:04d}.h5"
        if path.exists():
            continue
        begin = time.perf_counter()
        found = list(records(teachers, *chunks[index]))
        # sources are not kept in HDF5: the groups stand beside the file
        groups = "\n".join(record.source for record in found)
        path.with_suffix(".txt").write_text(groups + "\n", "utf-8")
        write_records(found, path)
        seconds = time.perf_counter() - begin
        print(f"{index}/{len(chunks)}: {len(found)} records in {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())

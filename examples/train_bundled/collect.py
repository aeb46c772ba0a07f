"""Join the chunks of generate.py: records for training and held-out ones, by group.

    python collect.py FOLDER

Writes ``train.h5`` and ``held_out.h5`` (all records), ``rest.h5`` and ``rest_held_out.h5`` (those
with Hessians, for a set of their own).
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from ase.data import chemical_symbols
from generate import held_out

from phonopy_equivariant.data import Record, read_records, write_records


def chunks(folder: Path) -> list[tuple[str, Record]]:
    """Return all records with their groups."""
    found = []
    for path in sorted((folder / "chunks").glob("*.h5")):
        sources = path.with_suffix(".txt").read_text("utf-8").split("\n")[:-1]
        groups = [":".join(source.split(":")[:2]) for source in sources]
        found += zip(groups, read_records(path), strict=True)
    return found


def main() -> None:
    """Write the four files and say what is in them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    everything = chunks(folder)
    parts = {
        "train": [r for g, r in everything if not held_out(g)],
        "held_out": [r for g, r in everything if held_out(g)],
    }
    for name, source in {"rest": "train", "rest_held_out": "held_out"}.items():
        parts[name] = [r for r in parts[source] if r.force_constants is not None]
    elements = Counter(
        symbol
        for record in parts["rest"]
        for symbol in {chemical_symbols[z] for z in record.structure.numbers}
    )
    for name, records in parts.items():
        write_records(records, folder / f"{name}.h5")
        atoms = sum(len(record.structure.numbers) for record in records)
        print(f"{name}: {len(records)} records, {atoms} atoms")
    print("groups:", len({g for g, _ in everything}))
    print("structures at rest by element:", dict(elements.most_common()))


if __name__ == "__main__":
    main()

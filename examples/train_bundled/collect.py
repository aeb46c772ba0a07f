"""Join the chunks of generate.py: records for training and held-out ones, by group.

    python collect.py FOLDER

Writes ``train.h5`` and ``held_out.h5`` (all records), ``rest.h5`` and ``rest_held_out.h5`` (those
with Hessians), and ``training.h5``: all for training, and structures of ``rest.h5`` with small
random displacements u and the energies and forces that the Hessian H gives, E - F·u + u·H·u/2 and
F - H·u. A step on one of them costs a fraction of one on columns of its Hessian (README.md), and
sees a product with H. Every other u of a crystal is wider along soft modes, which are what free
energies depend on and what white noise hardly shows.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from ase.data import chemical_symbols
from generate import held_out, is_known

from phonopy_equivariant.data import Record, read_records, write_records
from phonopy_equivariant.structure import Structure

COPIES = 6
OF_KNOWN = 16
WIDTH = 0.007  # Å, standard deviation of each component of u
WIDEST = 4.0  # along the softest modes, in WIDTH


def chunks(folder: Path) -> list[tuple[str, Record]]:
    """Return all records with their groups."""
    found = []
    for path in sorted((folder / "chunks").glob("*.h5")):
        sources = path.with_suffix(".txt").read_text("utf-8").split("\n")[:-1]
        groups = [":".join(source.split(":")[:2]) for source in sources]
        found += zip(groups, read_records(path), strict=True)
    return found


def displaced(record: Record, rng: np.random.Generator, even: bool = False) -> Record:
    """Return a structure at rest with random displacements, labelled by its Hessian.

    ``even``: as much energy in each mode as in any other, λ_i <u_i²> = WIDTH² rms(λ), where that
    does not make u_i wider than WIDEST times WIDTH. Not for molecules: a turn stretches bonds.
    """
    structure, data = record.structure, record.force_constants
    assert data is not None and record.energy is not None and record.forces is not None
    hessian = data.values[0].real
    noise = WIDTH * rng.standard_normal(len(hessian))
    if even:
        stiffness, modes = np.linalg.eigh((hessian + hessian.T) / 2)
        ratio = np.sqrt(np.mean(stiffness**2)) / np.maximum(np.abs(stiffness), 1e-9)
        noise = modes @ (np.minimum(np.sqrt(ratio), WIDEST) * noise)
    moves = noise.reshape(structure.positions.shape)
    change = (hessian @ noise).reshape(moves.shape)
    return Record(
        Structure(structure.numbers, structure.positions + moves, structure.cell, structure.pbc),
        energy=record.energy - float(np.sum(record.forces * moves) - np.sum(moves * change) / 2),
        forces=record.forces - change,
        level=record.level,
    )


def main() -> None:
    """Write the five files and say what is in them."""
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
    rng = np.random.default_rng(0)
    harmonic = [
        displaced(record, rng, even=bool(copy % 2 and record.structure.pbc.all()))
        for group, record in everything
        if record.force_constants is not None and not held_out(group)
        for copy in range(OF_KNOWN if is_known(group) else COPIES)
    ]
    parts["training"] = parts["train"] + harmonic
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

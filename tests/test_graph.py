"""Neighbour lists against a brute-force count, the order of edges, padding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.graph import (
    bucket_size,
    build_graph,
    edge_bucket,
    extended_graph,
    graph_sizes,
    neighbour_pairs,
    pad_graph,
)
from phonopy_equivariant.models.convolution import EDGE_BLOCK, edge_blocks
from phonopy_equivariant.structure import Structure

ALL, NONE = (True, True, True), (False, False, False)
SKEWED = [[1.2, 0.0, 0.0], [5.1, 1.3, 0.0], [-4.7, 3.9, 1.25]]
ORIGIN = [[0.0, 0.0, 0.0]]
THREE = [[0.1, 0.2, 0.3], [1.7, 0.4, 1.1], [0.6, 1.9, 2.2]]


def _structure(positions, cell, pbc) -> Structure:
    return Structure(
        np.full(len(positions), 11), np.array(positions), np.array(cell, float), np.array(pbc)
    )


TRICLINIC = [[3.1, 0.0, 0.0], [0.4, 2.9, 0.0], [0.3, -0.8, 3.3]]
OUTSIDE = np.array(THREE) + [[40.0, -3.0, 0.0], [0.0, 0.0, -17.0], [0.2, 0.1, 0.0]]

# name: (positions, cell, pbc, cutoff)
CASES = {
    "one atom, many images": (ORIGIN, np.eye(3) * 1.1, ALL, 4.3),
    "one atom, skewed": (ORIGIN, SKEWED, ALL, 3.1),
    "one atom, left-handed": (ORIGIN, np.array(SKEWED)[[1, 0, 2]], ALL, 3.1),
    "three atoms": (THREE, TRICLINIC, ALL, 4.7),
    "three atoms, left-handed": (THREE, np.array(TRICLINIC) * [[1], [1], [-1]], ALL, 4.7),
    "atoms outside the cell": (OUTSIDE, TRICLINIC, ALL, 3.6),
    "slab, zero third vector": (THREE, np.diag([2.6, 2.4, 0]), (True, True, False), 5.3),
    "slab thicker than its cell": (THREE, np.diag([2.6, 2.4, 1]), (True, True, False), 5.3),
    "slab across the first axis": (
        THREE,
        [[0, 0, 0], [0.3, 2.4, 0], [0.2, 0, 2.7]],
        (False, True, True),
        4.1,
    ),
    "wire": (THREE, [[0, 0, 0], [0.3, 2.1, 0.1], [0, 0, 0]], (False, True, False), 4.1),
    "molecule, zero cell": (THREE, np.zeros((3, 3)), NONE, 2.5),
    "molecule in a small box": (THREE, np.eye(3) * 1.5, NONE, 2.5),
    "far apart": ([[0.0, 0, 0], [9.0, 0, 0]], np.zeros((3, 3)), NONE, 4.0),
}


def _brute_force(structure: Structure, cutoff: float) -> set[tuple[int, ...]]:
    """Return (i, j, S) of all edges, image by image."""
    reach = np.zeros(3, int)
    # a pair further apart than this along the reciprocal vector of axis k is beyond the cutoff
    span = cutoff + np.ptp(structure.positions, axis=0).sum()
    inverse = np.linalg.pinv(structure.cell * structure.pbc[:, None])
    reach[structure.pbc] = np.ceil(span * np.linalg.norm(inverse, axis=0))[structure.pbc]
    shifts = np.array(list(itertools.product(*(range(-n, n + 1) for n in reach))))
    edges = set()
    for i, x_i in enumerate(structure.positions):
        for j, x_j in enumerate(structure.positions):
            distances = np.linalg.norm(x_j + shifts @ structure.cell - x_i, axis=1)
            near = shifts[(distances < cutoff) & ((i != j) | np.any(shifts, axis=1))]
            edges |= {(i, j, *shift) for shift in near.tolist()}
    return edges


@pytest.mark.parametrize("case", CASES)
def test_edges_are_those_of_a_brute_force_count(case):
    positions, cell, pbc, cutoff = CASES[case]
    structure = _structure(positions, cell, pbc)
    graph = build_graph(structure, cutoff, np.zeros(len(positions), int))
    rows = zip(graph.receivers, graph.senders, *graph.edges["shifts"].T, strict=True)
    edges = [tuple(int(x) for x in row) for row in rows]
    assert len(edges) == len(set(edges)) == graph.n_edge[0]
    assert set(edges) == _brute_force(structure, cutoff)


@pytest.mark.parametrize("case", ["three atoms", "one atom, skewed", "slab, zero third vector"])
def test_edges_come_in_mutual_pairs(case):
    positions, cell, pbc, cutoff = CASES[case]
    graph = build_graph(_structure(positions, cell, pbc), cutoff, np.zeros(len(positions), int))
    assert np.array_equal(graph.senders[::2], graph.receivers[1::2])
    assert np.array_equal(graph.receivers[::2], graph.senders[1::2])
    assert np.array_equal(graph.edges["shifts"][::2], -graph.edges["shifts"][1::2])


def test_pairs_do_not_depend_on_where_in_space_the_crystal_lies(crystal):
    moved = crystal._replace(positions=crystal.positions + [13.1, -7.7, 0.3])
    for one, other in zip(neighbour_pairs(crystal, 4.0), neighbour_pairs(moved, 4.0), strict=True):
        assert np.array_equal(one, other)


def test_overlapping_atoms_are_named(crystal):
    positions = crystal.positions.copy()
    # on top of an image of the other atom, not of the atom itself
    positions[4] = positions[1] + crystal.cell[2] + [0.0, 0.0, 0.1]
    with pytest.raises(PhonopyEquivariantError, match=r"Atoms (2 and 5|5 and 2) .* 0\.100 Å"):
        neighbour_pairs(crystal._replace(positions=positions), 3.0)
    with pytest.raises(PhonopyEquivariantError, match="Atoms 1 and 1"):
        neighbour_pairs(_structure(ORIGIN, np.diag([0.2, 3, 3]), ALL), 3.0)


def test_buckets_hold_what_they_are_for_and_waste_little():
    for count in range(1, 3000):
        size = bucket_size(count)
        assert size % 2 == 0 and size >= count
        # ratio 2^(1/4) between buckets, and rounding up to an even number
        assert count <= 16 or size < 2**0.25 * count + 2
        edges = edge_bucket(count)
        blocks = edge_blocks(edges)
        assert size <= edges < 1.07 * size and edges <= EDGE_BLOCK * blocks and edges % 2 == 0
    # four sizes an octave: few shapes to compile
    assert len({bucket_size(count) for count in range(1, 1024)}) <= 4 * 6 + 1


def test_sizes_of_graphs_are_few_and_hold_a_padding_atom():
    """Crystals of 1 to 40 atoms with 10 to 80 edges an atom; one block of edges: few programs."""
    sizes = set()
    for atoms in range(1, 41):
        for degree in (10, 18, 26, 46, 60, 80):
            nodes, edges = graph_sizes(atoms, atoms * degree)
            assert nodes > atoms and edges >= atoms * degree and edges % 2 == 0
            assert nodes <= 2 * (atoms + 1) + 1
            assert edges <= max(32, 2 * atoms * degree)
            assert edges <= 1.3 * atoms * degree or edges <= EDGE_BLOCK
            if edges <= EDGE_BLOCK:
                sizes.add((nodes, edges))
    assert len(sizes) <= 30
    nodes, edges = graph_sizes(0, 0), graph_sizes(200, 0)
    assert nodes[0] > 0 and edges[0] > 200  # atoms without neighbours


def test_padding_keeps_atoms_and_edges_in_place_and_fits_the_bucket(crystal):
    graph = build_graph(crystal, 3.0, np.zeros(5, int))
    padded = pad_graph(graph)
    edges = int(graph.n_edge[0])
    assert (len(padded.nodes["species"]), len(padded.senders)) == graph_sizes(5, edges)
    assert list(padded.n_node)[0] == 5
    assert np.array_equal(padded.senders[:edges], graph.senders)
    assert np.array_equal(padded.receivers[:edges], graph.receivers)
    assert np.array_equal(padded.nodes["positions"][:5], graph.nodes["positions"])
    assert np.all(padded.receivers[edges:] == 5) and np.all(padded.senders[edges:] == 5)


def test_extended_graph_has_all_atoms_within_the_receptive_field(crystal):
    cutoff, layers = 2.2, 2
    graph, owner, image = extended_graph(crystal, cutoff, layers, np.arange(5))
    assert np.array_equal(owner[:5], np.arange(5)) and not image[:5].any()
    expected = {(j, *shift) for _, j, *shift in _brute_force(crystal, cutoff * layers)}
    nodes = {tuple(int(x) for x in row) for row in np.column_stack([owner, image])}
    assert nodes == expected | {(j, 0, 0, 0) for j in range(5)}
    assert len(nodes) == len(owner) == graph.n_node[0]
    assert np.array_equal(graph.nodes["species"], owner)
    vectors = graph.nodes["positions"][graph.senders] - graph.nodes["positions"][graph.receivers]
    # the same edges as the periodic graph has at the home atoms
    at_home = np.bincount(graph.receivers, minlength=5)[:5]
    periodic = build_graph(crystal, cutoff, np.arange(5))
    assert np.array_equal(at_home, np.bincount(periodic.receivers, minlength=5))
    assert np.linalg.norm(vectors, axis=1).max() < cutoff

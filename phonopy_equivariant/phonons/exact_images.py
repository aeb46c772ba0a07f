"""Force constants on a grid of cells as an object of phonopy's own kernels.

A grid of N_1×N_2×N_3 primitive cells is to phonopy what a supercell is: Φ(q) at its commensurate
q, transformed to real space, each force constant shared among the nearest images of its atom. No
supercell is built: phonopy would search its symmetry, 17 s for 1024 atoms.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy import ndarray
from phonopy import Phonopy
from phonopy.harmonic.dynamical_matrix import DynamicalMatrix
from phonopy.structure.cells import Primitive, get_smallest_vectors

from phonopy_equivariant.response.symmetry.star import Grid


class ImageTable(Primitive):
    """A primitive cell whose "supercell" is a list of images of its atoms.

    Image j·C + S is atom j in cell S of C. Everything of the list is kept where phonopy keeps it
    of a supercell (private attributes of ``Primitive``, the same in phonopy 4.7 to 4.10).

    Parameters
    ----------
    primitive
        The primitive cell.
    cells
        Number of cells C.
    vectors, multiplicity
        x_image - x_i, fractional coordinates of the primitive cell, (vectors, 3); for image s
        and atom i the number of equally near images and the first of them, (n·C, n, 2).

    """

    def __init__(
        self,
        primitive: Primitive,
        cells: int,
        vectors: Float[ndarray, "vectors 3"],
        multiplicity: Int[ndarray, "images atoms 2"],
    ):
        self.__dict__.update(primitive.__dict__)
        home = np.arange(len(primitive)) * cells
        self._p2s_map = home
        self._s2p_map = np.repeat(home, cells)
        self._p2p_map = {int(s): i for i, s in enumerate(home)}
        self._smallest_vectors = np.array(vectors, dtype="double", order="C")
        self._multiplicity = np.array(multiplicity, dtype="int64", order="C")
        self._store_dense_svecs = True


def image_matrix(
    phonon: Phonopy,
    counts: Int[ndarray, "3"],
    grid: Grid,
    values: Complex[ndarray, "q atoms 3 atoms 3"],
    kind: Callable[..., DynamicalMatrix] = DynamicalMatrix,
) -> DynamicalMatrix:
    """Return phonopy's dynamical matrix of Φ(q) given on a grid of q.

    Exact at the q of the grid, Fourier interpolation between them.

    Parameters
    ----------
    phonon
        Its primitive cell and masses are taken; its supercell is only named.
    counts
        Cells along each primitive vector.
    grid, values
        The q commensurate with ``counts``; Φ(q) in the lattice gauge, eV/Å².
    kind
        Class of the dynamical matrix, made from supercell, primitive cell and force constants.

    """
    primitive = phonon.primitive
    atoms, cells = len(primitive), int(np.prod(counts))
    shifts = np.array(list(np.ndindex(*counts)))
    positions = primitive.scaled_positions
    images = (positions[:, None] + shifts).reshape(-1, 3) / counts
    vectors, multiplicity = get_smallest_vectors(
        primitive.cell * counts[:, None], images, positions / counts, store_dense_svecs=True
    )
    table = ImageTable(primitive, cells, vectors * counts, multiplicity)
    real = cell_force_constants(counts, grid, values)
    compact = real.transpose(1, 3, 0, 2, 4).reshape(atoms, atoms * cells, 3, 3)
    return kind(phonon.supercell, table, compact)


def cell_force_constants(
    counts: Int[ndarray, "3"], grid: Grid, values: Complex[ndarray, "q atoms 3 atoms 3"]
) -> Float[ndarray, "cells atoms 3 atoms 3"]:
    """Return Φ(0i, Sj) = 1/C sum_q Φ_ij(q) e^{-2πi q·S} for all cells S of the grid, eV/Å²."""
    index = np.rint(grid.qpoints * counts).astype(int) % counts
    box = np.empty((*counts, *values.shape[1:]), complex)
    box[tuple(index.T)] = values
    force_constants: ndarray = np.fft.fftn(box, axes=(0, 1, 2)).real / len(values)
    return force_constants.reshape(-1, *values.shape[1:])

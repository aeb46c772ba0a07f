"""Order parameters: the distortions that a degenerate set of modes gives, by symmetry.

Modes at q are waves of displacements in the smallest supercell that they fit into. Operations of
the space group that take q to q or -q, with the translations of that supercell, act on the real
space V of these waves. The points of V that a subgroup leaves where they are form a subspace. The
one-dimensional ones are the directions of highest symmetry, (100), (110) and (111) of a vector say.
The gradient of the energy has no component across such a direction (Michel, Rev. Mod. Phys. 52,
617 (1980), doi:10.1103/RevModPhys.52.617). One of each kind is returned.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import spglib
from ase import Atoms
from jaxtyping import Complex, Float, Int
from numpy import ndarray
from phonopy.phonon.irreps import IrRepLabels

from phonopy_equivariant.phonons.unstable_modes import ImaginaryModes, SmallQ
from phonopy_equivariant.response.symmetry.operations import Operations, choose
from phonopy_equivariant.response.symmetry.star import equivalent_q
from phonopy_equivariant.structure import Structure, masses_of

# Matrices of a representation and their projectors have elements of order one, right to 1e-6.
_ROUNDING = 1e-4


class CommensurateCell(NamedTuple):
    """The smallest supercell that a q fits into, as images of the primitive cell."""

    basis: Int[ndarray, "3 3"]  # rows: lattice vectors, upper triangular
    images: Int[ndarray, "cells 3"]

    def image_of(self, vectors: Int[ndarray, "... 3"]) -> Int[ndarray, "..."]:
        """Return which image a primitive cell is, modulo the lattice of the supercell."""
        reduced = np.array(vectors)
        for axis, row in enumerate(self.basis):
            reduced -= (reduced[..., axis] // row[axis])[..., None] * row
        return np.ravel_multi_index(np.moveaxis(reduced, -1, 0), tuple(np.diag(self.basis)))


@dataclasses.dataclass(frozen=True, eq=False)
class OrderParameter:
    """A degenerate set of imaginary modes as distortions of a supercell.

    Parameters
    ----------
    modes
        The modes.
    cell
        The supercell.
    waves
        Basis of V: mass-weighted displacements of the atoms of the supercell, image by image.
    label
        Mulliken symbol in the point group of q; empty where it has none.
    directions
        Vectors of V, one of each kind of direction, in both senses where these differ.

    """

    modes: ImaginaryModes
    cell: CommensurateCell
    waves: Float[ndarray, "atoms 3 waves"]
    label: str
    directions: tuple[Float[ndarray, " waves"], ...]


def commensurate_cell(place: SmallQ) -> CommensurateCell:
    """Return the smallest supercell that a q fits into: the lattice vectors T with integer q·T."""
    order = place.order
    for a, d in np.ndindex(order, order):
        f = order // ((a + 1) * (d + 1))
        if (a + 1) * (d + 1) * f != order:
            continue
        for b, c, e in np.ndindex(d + 1, f, f):
            basis = np.array([[a + 1, b, c], [0, d + 1, e], [0, 0, f]])
            if not (basis @ place.numerators % order).any():
                images = np.array(list(np.ndindex(a + 1, d + 1, f)))
                return CommensurateCell(basis, images)
    raise AssertionError("every q of order n has a lattice of index n")


def order_parameter(
    primitive: Structure, symmetry: Operations, modes: ImaginaryModes
) -> OrderParameter:
    """Return the distortions that a set of degenerate modes gives, and its symbol.

    Parameters
    ----------
    primitive, symmetry
        The primitive cell and its space group, which it obeys to rounding.
    modes
        Degenerate modes of that cell.

    """
    cell = commensurate_cell(modes.place)
    bloch = _bloch_waves(primitive, cell, modes)
    flat = bloch.reshape(-1, bloch.shape[-1])
    left, sizes, _ = np.linalg.svd(np.hstack([flat.real, flat.imag]), full_matrices=False)
    waves = left[:, sizes > 1e-3 * sizes[0]].reshape(*bloch.shape[:2], -1)
    q = modes.place.qpoint
    moved = np.linalg.inv(symmetry.rotations).transpose(0, 2, 1) @ q
    keeps = np.array([bool(equivalent_q(image, q)) for image in moved])
    reverses = np.array([bool(equivalent_q(image, -q)) for image in moved])
    group = choose(symmetry, keeps | reverses)
    matrices = np.concatenate([_representation(group, cell, waves, shift) for shift in cell.images])
    label = _label(primitive, choose(symmetry, keeps), cell, bloch, q)
    return OrderParameter(modes, cell, waves, label, tuple(_directions(_distinct(matrices))))


def distorted(
    primitive: Structure, parameter: OrderParameter, direction: Float[ndarray, " waves"]
) -> tuple[Atoms, Float[ndarray, "atoms 3"]]:
    """Return the supercell undistorted, and displacements of which the largest is 1 Å."""
    images = parameter.cell.images
    positions = primitive.positions[None] + (images @ primitive.cell)[:, None]
    lattice = parameter.cell.basis @ primitive.cell
    reduced = spglib.niggli_reduce(lattice)
    atoms = Atoms(
        numbers=np.tile(primitive.numbers, len(images)),
        positions=positions.reshape(-1, 3),
        cell=lattice if reduced is None else reduced,
        masses=np.tile(masses_of(primitive), len(images)),
        pbc=True,
    )
    moves = parameter.waves @ direction / np.sqrt(atoms.get_masses())[:, None]
    return atoms, moves / np.linalg.norm(moves, axis=1).max()


def _bloch_waves(
    primitive: Structure, cell: CommensurateCell, modes: ImaginaryModes
) -> Complex[ndarray, "atoms 3 modes"]:
    """Return the mass-weighted waves e exp(2πi q·(x + T)) on the supercell, of length one."""
    fractions = primitive.positions @ np.linalg.inv(primitive.cell)
    places = (cell.images[:, None] + fractions).reshape(-1, 3)
    phases = np.exp(2j * np.pi * places @ modes.place.qpoint)
    vectors = modes.vectors.reshape(len(fractions), 3, -1)
    waves = np.tile(vectors, (len(cell.images), 1, 1)) * phases[:, None, None]
    return waves / np.sqrt(len(cell.images))


def _turned(
    group: Operations, cell: CommensurateCell, waves: ndarray, shift: Int[ndarray, "3"]
) -> ndarray:
    """Return the waves that operations, followed by a translation, make: (ops, atoms, 3, waves)."""
    atoms = group.image.shape[1]
    images = np.einsum("oab,tb->ota", group.rotations, cell.images)
    images = images[:, :, None] + group.translation[:, None] + shift
    target = cell.image_of(images) * atoms + group.image[:, None]
    turned = np.einsum("oab,nbw->onaw", group.cartesian, waves)
    result = np.zeros_like(turned)
    for index, places in enumerate(target.reshape(len(group.rotations), -1)):
        result[index, places] = turned[index]
    return result


def _representation(
    group: Operations, cell: CommensurateCell, waves: ndarray, shift: Int[ndarray, "3"]
) -> Float[ndarray, "ops waves waves"]:
    return np.einsum("naw,onav->owv", waves, _turned(group, cell, waves, shift))


def _distinct(matrices: Float[ndarray, "ops n n"]) -> Float[ndarray, "distinct n n"]:
    rounded = np.rint(matrices / _ROUNDING).astype(int).reshape(len(matrices), -1)
    _, first = np.unique(rounded, axis=0, return_index=True)
    return matrices[np.sort(first)]


def _directions(matrices: Float[ndarray, "ops n n"]) -> list[Float[ndarray, " n"]]:
    """Return a vector of every kind of fixed subspace of lowest dimension above zero.

    For one-dimensional subspaces it is their direction. Where a group leaves none of them, a plane
    say stays as a whole, and any vector of it will do: a relaxation finds the lowest one.
    """
    subspaces = _fixed_subspaces(matrices)
    dimensions = [round(float(np.trace(projector))) for projector in subspaces]
    lowest = min(dimensions)
    vectors: list[Float[ndarray, " n"]] = []
    for projector, dimension in zip(subspaces, dimensions, strict=True):
        if dimension > lowest:
            continue
        column = int(np.argmax(np.diag(projector) > 1e-3))
        vector = projector[:, column] / np.linalg.norm(projector[:, column])
        for signed in (vector, -vector):
            images = matrices @ signed
            if not any(_are_related(images, other, lowest) for other in vectors):
                vectors.append(signed)
    return vectors


def _are_related(images: Float[ndarray, "ops n"], other: Float[ndarray, " n"], dim: int) -> bool:
    """Tell whether an operation takes a direction to another; planes have no sense of their own."""
    return bool((images @ other > 1 - _ROUNDING).any()) if dim == 1 else bool(len(other))


def _fixed_subspaces(matrices: Float[ndarray, "ops n n"]) -> list[Float[ndarray, "n n"]]:
    """Return projectors on all subspaces but zero that a subgroup leaves where they are."""
    identity = np.eye(matrices.shape[1])
    known = {_key(identity): identity}
    generators = [_kernel(identity - matrix) for matrix in matrices]
    generators = list({_key(projector): projector for projector in generators}.values())
    fresh = [identity]
    while fresh:
        projector = fresh.pop()
        for other in generators:
            common = _kernel(2 * identity - projector - other)
            if np.trace(common) > 0.5 and _key(common) not in known:
                known[_key(common)] = common
                fresh.append(common)
    return [known[key] for key in sorted(known)]


def _kernel(matrix: Float[ndarray, "n n"]) -> Float[ndarray, "n n"]:
    """Return the projector on the vectors that a matrix takes to zero."""
    _, sizes, rows = np.linalg.svd(matrix)
    kernel = rows[sizes < 1e-3]
    return kernel.T @ kernel


def _key(projector: Float[ndarray, "n n"]) -> tuple[int, ...]:
    return tuple(np.rint(projector / 1e-2).astype(int).ravel().tolist())


def _label(
    primitive: Structure,
    little: Operations,
    cell: CommensurateCell,
    bloch: Complex[ndarray, "atoms 3 modes"],
    q: Float[ndarray, "3"],
) -> str:
    """Return phonopy's symbol of the irrep in the point group of q; empty where it has none.

    On the surface of the zone, operations with fractional translations may multiply with factors.
    Their representations are then not those of a point group.
    """
    turned = _turned(little, cell, bloch, np.zeros(3, int))
    fractions = primitive.positions @ np.linalg.inv(primitive.cell)
    rotated = np.einsum("oab,jb->oja", little.rotations, fractions)
    shifts = (fractions[little.image] + little.translation - rotated).mean(axis=1)
    characters = np.einsum("naw,onaw->o", bloch.conj(), turned) * np.exp(2j * np.pi * shifts @ q)
    point_group = spglib.get_pointgroup(little.rotations)
    if point_group is None:
        return ""
    symbol, _, transformation = point_group
    basis = np.asarray(transformation, float)
    rotations = np.rint(np.linalg.inv(basis) @ little.rotations @ basis).astype(int)
    try:
        labels = IrRepLabels(characters[None], rotations, symbol.strip(), False)
    except (RuntimeError, KeyError, ValueError):
        return ""
    return (labels.irrep_labels or [None])[0] or ""

"""Grüneisen parameters on a mesh and along a band path, their means, plot and files.

Every q is computed exactly (:mod:`.response.gruneisen`): no three volumes, no supercell. The files
have the keys of phonopy's ``gruneisen.yaml``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import spglib
from ase.units import kB
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath
from phonopy.physical_units import get_physical_units
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.defaults import BAND_POINTS, GRUNEISEN_MESH, PHONOPY_SYMPREC
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.files import replacing
from phonopy_equivariant.phonons.cells import vibrational_operations
from phonopy_equivariant.phonons.labels import staggered
from phonopy_equivariant.response.gruneisen import gruneisen_parameters
from phonopy_equivariant.results import Result
from phonopy_equivariant.structure import StructureLike, as_structure, to_phonopy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours saturate at this quantile of |γ|: a few soft modes have very large ones.
_SATURATION = 0.98


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GruneisenMesh(Result):
    """Mode Grüneisen parameters on a mesh.

    Parameters
    ----------
    mesh
        Numbers of the mesh, which contains Γ.
    qpoints, weights
        One of each set of equivalent q, and how many they are.
    frequencies, parameters
        THz, imaginary ones negative; γ, nan where rounding hides it (acoustic modes at Γ).

    """

    mesh: tuple[int, int, int]
    qpoints: Float[ndarray, "q 3"]
    weights: Int[ndarray, " q"]
    frequencies: Float[ndarray, "q modes"]
    parameters: Float[ndarray, "q modes"]

    def mean(self, temperatures: Float[ndarray, " n"] | Sequence[float]) -> Float[ndarray, " n"]:
        """Return Σγ·C/ΣC over modes with a γ and a real frequency, C their heat capacity.

        nan at 0 K, where no mode has a heat capacity.
        """
        capacities = self.heat_capacities(temperatures)
        sums = np.einsum("q,tqm->t", self.weights, capacities)
        weighted = np.einsum("q,tqm,qm->t", self.weights, capacities, self.counted_parameters)
        with np.errstate(invalid="ignore"):
            return np.asarray(weighted / sums)

    def heat_capacities(
        self, temperatures: Float[ndarray, " n"] | Sequence[float]
    ) -> Float[ndarray, "n q modes"]:
        """Return the heat capacity of each mode in units of k_B.

        0 for modes without γ, for imaginary ones, and at 0 K.
        """
        kelvin = np.asarray(temperatures, float)[:, None, None]
        energies = np.where(self._counted, self.frequencies, 1.0) * get_physical_units().THzToEv
        with np.errstate(divide="ignore"):
            x = np.minimum(energies / (kB * np.maximum(kelvin, 0.0)), 500.0)
        return np.where(self._counted & (kelvin > 0), (x / (2 * np.sinh(x / 2))) ** 2, 0.0)

    @property
    def counted_parameters(self) -> Float[ndarray, "q modes"]:
        """The γ, 0 in place of those that rounding hides and those of imaginary modes."""
        return np.where(self._counted, self.parameters, 0.0)

    @property
    def _counted(self) -> Bool[ndarray, "q modes"]:
        return np.asarray((self.frequencies > 0) & np.isfinite(self.parameters))

    def columns(self) -> list[str]:
        """Return the headings of :meth:`rows`."""
        return ["T (K)", "MEAN GRÜNEISEN"]

    def rows(self) -> list[list[str]]:
        """Return the mean parameter at some temperatures."""
        temperatures = [50.0, 100.0, 200.0, 300.0, 600.0, 1000.0]
        return [
            [f"{t:g}", f"{mean:.4f}"]
            for t, mean in zip(temperatures, self.mean(temperatures), strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return what phonopy's ``gruneisen.yaml`` of a mesh has."""
        points = zip(self.qpoints, self.weights, self.frequencies, self.parameters, strict=True)
        return {
            "mesh": list(self.mesh),
            "nqpoint": len(self.qpoints),
            "phonon": [
                {"q-position": q.tolist(), "multiplicity": int(weight), "band": _band(*modes)}
                for q, weight, *modes in points
            ],
        }


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class GruneisenBands(Result):
    """Mode Grüneisen parameters along a band path.

    Parameters
    ----------
    qpoints, distances
        Of each segment of the path; distances (1/Å) along the whole path.
    labels
        Of the two ends of each segment.
    frequencies, parameters
        Of each segment: THz, imaginary ones negative; γ, nan where rounding hides it.

    """

    qpoints: tuple[Float[ndarray, "q 3"], ...]
    distances: tuple[Float[ndarray, " q"], ...]
    labels: tuple[tuple[str, str], ...]
    frequencies: tuple[Float[ndarray, "q modes"], ...]
    parameters: tuple[Float[ndarray, "q modes"], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what phonopy's ``gruneisen.yaml`` of bands has."""
        segments = zip(self.qpoints, self.distances, self.frequencies, self.parameters, strict=True)
        return {
            "nqpoint": sum(map(len, self.qpoints)),
            "npath": len(self.qpoints),
            "segment_nqpoint": [len(q) for q in self.qpoints],
            "labels": [list(pair) for pair in self.labels],
            "path": [
                {
                    "nqpoint": len(segment[0]),
                    "phonon": [
                        {"q-position": q.tolist(), "distance": float(d), "band": _band(f, g)}
                        for q, d, f, g in zip(*segment, strict=True)
                    ],
                }
                for segment in segments
            ],
        }

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the bands coloured by γ; return the axes."""
        from matplotlib import pyplot as plt

        if axes is None:
            axes = plt.subplots(layout="constrained")[1]
        gammas = np.concatenate([g.ravel() for g in self.parameters])
        limit = float(np.nanquantile(np.abs(gammas), _SATURATION))
        scatter = None
        for x, frequencies, parameters in zip(
            self.distances, self.frequencies, self.parameters, strict=True
        ):
            axes.plot(x, frequencies, color="0.85", linewidth=0.8, zorder=1)
            scatter = axes.scatter(
                np.repeat(x, frequencies.shape[1]),
                frequencies.ravel(),
                c=parameters.ravel(),
                s=6,
                cmap="coolwarm",
                vmin=-limit,
                vmax=limit,
                zorder=2,
            )
        assert scatter is not None
        axes.figure.colorbar(scatter, ax=axes, label="mode Grüneisen parameter", extend="both")
        ticks, names = _ticks(self.distances, self.labels)
        rows = staggered(ticks, names, ticks[-1] - ticks[0])
        axes.set_xticks(ticks, ["\n" * row + name for name, row in zip(names, rows, strict=True)])
        for tick in ticks:
            axes.axvline(tick, color="0.8", linewidth=0.6, zorder=0)
        axes.axhline(0, color="0.8", linewidth=0.6, zorder=0)
        axes.set_xlim(ticks[0], ticks[-1])
        axes.set_ylabel("Frequency (THz)")
        return axes

    def write_plot(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`plot` as a picture, in the format of the file's name."""
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        self.plot(figure.add_subplot())
        with replacing(path) as temporary:
            figure.savefig(temporary, format=Path(path).suffix.lstrip(".") or "png", dpi=150)


def gruneisen_mesh(
    structure: StructureLike,
    potential: PotentialLike,
    mesh: Sequence[int] = GRUNEISEN_MESH,
    symprec: float = PHONOPY_SYMPREC,
    strain: Float[ndarray, "3 3"] | None = None,
) -> GruneisenMesh:
    """Return mode Grüneisen parameters on a Γ-centred mesh.

    Parameters
    ----------
    structure
        The primitive cell of a crystal at rest.
    potential
        A potential, or the name of a model.
    mesh
        Three positive numbers.
    symprec
        Distance (Å) within which the symmetry that reduces the mesh is recognised.
    strain
        As in :func:`.gruneisen_parameters`; it must have the symmetry of the crystal.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`.gruneisen_parameters`; a mesh of other numbers.

    """
    numbers = [int(n) for n in mesh]
    if len(numbers) != 3 or min(numbers) < 1 or list(mesh) != numbers:
        raise PhonopyEquivariantError(
            f"mesh={' '.join(map(str, mesh))}: give three positive whole numbers."
        )
    potential = as_potential(potential)
    rotations = vibrational_operations(structure, symprec, potential.parity).rotations
    grid = spglib.get_stabilized_reciprocal_mesh(numbers, np.unique(rotations, axis=0))
    assert grid is not None
    representatives, addresses = grid
    irreducible, weights = np.unique(representatives, return_counts=True)
    qpoints = addresses[irreducible] / np.array(numbers, float)
    gruneisen = gruneisen_parameters(structure, potential, qpoints, strain)
    sizes = (numbers[0], numbers[1], numbers[2])
    return GruneisenMesh(sizes, qpoints, weights, gruneisen.frequencies, gruneisen.parameters)


def gruneisen_bands(
    structure: StructureLike, potential: PotentialLike, points: int = BAND_POINTS
) -> GruneisenBands:
    """Return mode Grüneisen parameters along the path of SeeK-path.

    Parameters
    ----------
    structure
        The primitive cell of a crystal at rest.
    potential
        A potential, or the name of a model.
    points
        Number of q of each segment.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`.gruneisen_parameters`; fewer than two points.

    """
    if points < 2:
        raise PhonopyEquivariantError(f"points={points}: a segment has two points at least.")
    cell = to_phonopy(as_structure(structure))
    paths, names, connections = get_band_qpoints_by_seekpath(cell, points)
    segments = [np.array(path) for path in paths]
    gruneisen = gruneisen_parameters(structure, potential, np.concatenate(segments))
    count = len(segments)
    shape = (count, points, -1)
    return GruneisenBands(
        tuple(segments),
        tuple(_distances(cell, segments)),
        tuple(_segment_labels(names, connections)),
        tuple(gruneisen.frequencies.reshape(shape)),
        tuple(gruneisen.parameters.reshape(shape)),
    )


def _band(frequencies: ndarray, parameters: ndarray) -> list[dict[str, float]]:
    return [
        {"gruneisen": float(gamma), "frequency": float(frequency)}
        for frequency, gamma in zip(frequencies, parameters, strict=True)
    ]


def _distances(cell: PhonopyAtoms, segments: Sequence[ndarray]) -> list[Float[ndarray, " q"]]:
    reciprocal = np.linalg.inv(cell.cell)
    distances, start = [], 0.0
    for segment in segments:
        steps = np.linalg.norm(np.diff(segment, axis=0) @ reciprocal.T, axis=1)
        distances.append(start + np.concatenate([[0.0], np.cumsum(steps)]))
        start = float(distances[-1][-1])
    return distances


def _segment_labels(names: Sequence[str], connections: Sequence[bool]) -> list[tuple[str, str]]:
    """Return the labels of both ends of each segment from phonopy's list of labels."""
    labels, index = [], 0
    for connected in connections:
        labels.append((names[index], names[index + 1]))
        index += 1 if connected else 2
    return labels


def _ticks(
    distances: Sequence[ndarray], labels: Sequence[tuple[str, str]]
) -> tuple[list[float], list[str]]:
    """Return ends of segments and their labels, ``A|B`` where the path jumps."""
    ticks, names = [float(distances[0][0])], [labels[0][0]]
    for k, (start, end) in enumerate(labels):
        if start != names[-1] and k:
            names[-1] += f"|{start}"
        ticks.append(float(distances[k][-1]))
        names.append(end)
    return ticks, names

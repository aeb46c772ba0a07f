"""A crystal at several volumes, as phonopy's quasi-harmonic functions take it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from phonopy import Phonopy
from phonopy.phonon.grid import length2mesh
from phonopy.phonon.mesh import Mesh

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.files import replacing
from phonopy_equivariant.phonons.cells import masses_break_symmetry
from phonopy_equivariant.phonons.stability import Stability

_TABLE_TEMPERATURES = (0.0, 50.0, 100.0, 200.0, 300.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0)  # K


class SampledPhonopy(Phonopy):
    """phonopy's object whose meshes contain Γ and use no symmetry that masses break.

    phonopy's quasi-harmonic functions have no options for either.
    """

    def run_mesh(self, mesh: Any = 100.0, **options: Any) -> Mesh:  # type: ignore[override]
        """Run phonopy's mesh sampling with Γ in the mesh.

        The last mesh is kept if it has the same numbers and the same dynamical matrix, because the
        search for imaginary modes and the free energies sample the same one.
        """
        symmetric = not masses_break_symmetry(self)
        settings = {"is_gamma_center": True, "is_mesh_symmetry": symmetric}
        last = self.mesh
        if (
            options.keys() <= settings.keys()
            and isinstance(last, Mesh)
            and last.dynamical_matrix is self.dynamical_matrix
            and np.array_equal(last.mesh_numbers, mesh)
        ):
            return last
        return super().run_mesh(mesh, **(options | settings))


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """The crystal at one volume or one shape of its cell.

    Parameters
    ----------
    phonon
        With force constants or the exact D(q).
    energy
        Of the primitive cell at rest, eV.
    stability
        Its imaginary modes; a crystal that has some is left out.

    """

    phonon: Phonopy
    energy: float
    stability: Stability

    @property
    def volume(self) -> float:
        """Volume of the primitive cell, Å³."""
        return float(self.phonon.primitive.volume)

    def remark(self) -> str:
        """Return why the crystal is left out; empty if it is not."""
        if not self.stability.imaginary:
            return ""
        place = " ".join(f"{component:.3g}" for component in self.stability.qpoint)
        cause = (
            f"an artefact of the supercell: {self.stability.remedy}"
            if self.stability.unstable is False
            else "the crystal is unstable there"
        )
        lengths = ", ".join(f"{x:.4f}" for x in np.linalg.norm(self.phonon.unitcell.cell, axis=1))
        return (
            f"V = {self.volume:.3f} Å³ (lattice vectors of {lengths} Å) is left out: imaginary "
            f"modes, lowest {self.stability.lowest:.3g} THz at q = ({place}); {cause}."
        )


def fitted(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples without imaginary modes."""
    return [sample for sample in samples if not sample.stability.imaginary]


def table_temperatures(highest: float, extrapolated_from: float | None) -> list[float]:
    """Return the temperatures (K) of a result's table: none where the fit is extrapolated."""
    end = np.inf if extrapolated_from is None else extrapolated_from
    return [t for t in _TABLE_TEMPERATURES if t <= highest and t < end]


def mesh_numbers(phonon: Phonopy, mesh: float | Sequence[int]) -> tuple[int, int, int]:
    """Return the numbers of a mesh, given as three, or as a length (Å) as in phonopy.

    One set of numbers serves all volumes: numbers that a length gives jump between volumes, and
    F(V) would with them.

    Raises
    ------
    PhonopyEquivariantError
        A mesh of other numbers.

    """
    sizes = np.atleast_1d(np.asarray(mesh, float))
    if sizes.size == 1 and 0 < sizes[0] < np.inf:
        rotations = phonon.primitive_symmetry.pointgroup_operations
        sizes = length2mesh(float(sizes[0]), phonon.primitive.cell, rotations)
    if len(sizes) != 3 or not ((sizes >= 1) & (sizes == np.rint(sizes))).all():
        raise PhonopyEquivariantError(
            f"mesh={' '.join(map(str, np.atleast_1d(mesh)))}: give three positive whole numbers, "
            "or a length in Å."
        )
    a, b, c = (int(size) for size in sizes)
    return a, b, c


@contextlib.contextmanager
def remarks_of(subject: str) -> Iterator[list[str]]:
    """Yield a list that gets phonopy's warnings, once each; its errors become one line.

    Warnings of extrapolation are left out: results tell from which temperature on.

    Raises
    ------
    PhonopyEquivariantError
        phonopy refuses what it was given.

    """
    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield remarks
        except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
            if isinstance(error, PhonopyEquivariantError):
                raise
            reason = reason_of(error).rstrip(".")
            raise PhonopyEquivariantError(
                f"{subject} fails ({reason}); look at E(V) in another range of volumes "
                "(volume_range=)."
            ) from error
    texts = dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught)
    remarks += [text for text in texts if "extrapolated" not in text]


def save_plots(
    folder: str | os.PathLike[str], plots: dict[str, Callable[..., Any]], result: Any
) -> list[str]:
    """Write what phonopy's plotters draw of a result as PDF; return the names."""
    from matplotlib import pyplot as plt

    for name, draw in plots.items():
        with plt.rc_context({"pdf.fonttype": 42}), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of layouts, which nobody can act on
            drawn = draw(result)
        figure = drawn.gcf() if hasattr(drawn, "gcf") else drawn
        with replacing(Path(folder) / name) as temporary:
            figure.savefig(temporary, format="pdf")
        plt.close(figure)
    return list(plots)

"""The figure and the report of ``run``: what phonopy's script computed, drawn and explained."""

from __future__ import annotations

import copy
import io
import math
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from phonopy import Phonopy
from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath
from phonopy.phonon.mesh import Mesh

from phonopy_equivariant._version import __version__
from phonopy_equivariant.catalogue.cards import list_models
from phonopy_equivariant.defaults import PHONON_MESH
from phonopy_equivariant.evaluation.crystal_page import CrystalPage
from phonopy_equivariant.evaluation.spectrum import (
    BandPath,
    DensityOfStates,
    Spectrum,
    ThermalFunctions,
    spectrum_figure,
)
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.io.outputs import FIGURE_FILE, PAGE_FILE
from phonopy_equivariant.phonons.cells import masses_break_symmetry
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.workflows.run import CrystalPhonons

# Larger primitive cells get no bands or density of states that were not asked for: they take time.
SMALL_CELL = 8
BAND_POINTS = 31
# Width of the Gaussians of a density of states, and the distance of its points, in parts of the
# range of frequencies.
_SMEARING, _PITCH = 1 / 150, 1 / 400
_CAPTION = (
    "Bands and density of states, imaginary frequencies below zero; thermal properties, if they "
    "were asked for, per mole of primitive cells."
)
# phonopy's files by name
_FILES = {
    FIGURE_FILE: "the figure above",
    PAGE_FILE: "this page",
    "phonopy_params.yaml": "cells and force constants: phonopy continues from here",
    "band.yaml": "bands",
    "band.hdf5": "bands",
    "mesh.yaml": "frequencies on the mesh",
    "mesh.hdf5": "frequencies on the mesh",
    "total_dos.dat": "density of states",
    "projected_dos.dat": "density of states of each atom",
    "thermal_properties.yaml": "free energy, entropy, heat capacity",
    "thermal_displacements.yaml": "mean square displacements",
    "thermal_displacement_matrices.yaml": "mean square displacement matrices",
    "qpoints.yaml": "frequencies at chosen q",
    "irreps.yaml": "irreducible representations",
    "gamma_modes.yaml": "optical modes at Γ with irreps and activities",
    "phonopy.yaml": "phonopy's record of the run",
    "band.pdf": "phonopy's plot of the bands",
    "band_dos.pdf": "phonopy's plot of bands and density of states",
    "total_dos.pdf": "phonopy's plot of the density of states",
    "thermal_properties.pdf": "phonopy's plot of thermal properties",
}


class Recorder:
    """Keeps what the calculations of phonopy's script computed."""

    def __init__(self) -> None:
        self.started = time.time()
        self.bands: BandPath | None = None
        self.dos: DensityOfStates | None = None
        self.thermal: ThermalFunctions | None = None

    def __call__(self, phonon: Phonopy) -> None:
        """Take what the object of the script has; what it lacks stays as it was."""
        self.bands = _band_path(phonon) or self.bands
        self.dos = _density_of_states(phonon) or self.dos
        self.thermal = _thermal_functions(phonon) or self.thermal

    def spectrum(self, phonon: Phonopy) -> Spectrum:
        """Return what was kept; of a small crystal with bands and density of states in any case.

        Parameters
        ----------
        phonon
            Our own object, which computes what is missing. It is not changed.

        """
        bands, dos = self.bands, self.dos
        if len(phonon.primitive) <= SMALL_CELL:
            phonon = copy.copy(phonon)
            if bands is None:
                paths, labels, connected = get_band_qpoints_by_seekpath(
                    phonon.primitive, BAND_POINTS
                )
                phonon.run_band_structure(paths, path_connections=connected, labels=labels)
                bands = _band_path(phonon)
            if dos is None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)  # a mesh of no symmetry
                    phonon.run_mesh(PHONON_MESH, is_mesh_symmetry=not masses_break_symmetry(phonon))
                dos = _density_of_states(phonon)
        return Spectrum(bands, dos, self.thermal)


def write_pictures(
    result: CrystalPhonons,
    potential: Potential,
    recorder: Recorder,
    command: str,
    remarks: Sequence[str],
    wording: Callable[[str], str] = str,
) -> None:
    """Draw ``phonons.png`` and write ``report.html``.

    There is no figure of a large crystal if neither bands nor a mesh were asked for.

    Parameters
    ----------
    result, potential
        The phonons and their model.
    recorder
        What phonopy's script computed.
    command
        The command as it was typed.
    remarks
        Warnings of the run.
    wording
        Turns names of parameters in texts into what the reader calls them.

    """
    phonon = result.phonon
    formula = _formula(phonon)
    spectrum = recorder.spectrum(phonon)
    picture = b""
    if not spectrum.is_empty:
        picture = _png(spectrum_figure(spectrum, f"{formula}, {potential.name}"))
        write_atomically(Path(FIGURE_FILE), picture)
    rows = [*result.report.rows(), *result.stability.rows()]
    modes = result.modes
    content = CrystalPage(
        f"Phonons of {formula}",
        _crystal_rows(phonon),
        [[label, wording(text)] for label, text in rows],
        _potential_rows(potential),
        [["command", command], *_versions()],
        remarks,
        None if modes is None else (modes.columns(), [list(map(str, row)) for row in modes.rows()]),
        [(name, _FILES[name]) for name in new_files(recorder.started) if name != PAGE_FILE],
    )
    write_atomically(Path(PAGE_FILE), content.html(picture, _CAPTION).encode())


def _png(figure: Any) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    return picture.getvalue()


def _band_path(phonon: Phonopy) -> BandPath | None:
    bands: Any = phonon.band_structure
    if bands is None:
        return None
    connections = tuple(bool(c) for c in bands.path_connections)
    labels = tuple(bands.labels or ())
    ends = 1 + len(connections) + sum(not c for c in connections[:-1])
    return BandPath(
        tuple(np.array(x) for x in bands.distances),
        tuple(np.array(x) for x in bands.frequencies),
        labels if len(labels) == ends else (),
        connections,
    )


def _density_of_states(phonon: Phonopy) -> DensityOfStates | None:
    """Return phonopy's density of states: the one it has, or else Gaussians on its mesh."""
    mesh: Any = phonon.mesh
    dos: Any = phonon.total_dos
    if dos is None and isinstance(mesh, Mesh):
        width = float(np.ptp(mesh.frequencies))
        if width > 0:
            phonon = copy.copy(phonon)
            dos = phonon.run_total_dos(
                sigma=_SMEARING * width, freq_pitch=_PITCH * width, use_tetrahedron_method=False
            )
    return None if dos is None else DensityOfStates(dos.frequency_points, dos.dos)


def _thermal_functions(phonon: Phonopy) -> ThermalFunctions | None:
    thermal: Any = phonon.thermal_properties
    if thermal is None or len(thermal.temperatures) < 2:
        return None
    fields = ("temperatures", "free_energy", "entropy", "heat_capacity")
    return ThermalFunctions(*(np.array(getattr(thermal, field)) for field in fields))


def _formula(phonon: Phonopy) -> str:
    """Return the formula with the smallest whole numbers, such as Si for a cell of two atoms."""
    symbols = phonon.primitive.symbols
    counts = {symbol: symbols.count(symbol) for symbol in dict.fromkeys(symbols)}
    common = math.gcd(*counts.values())
    counts = {symbol: count // common for symbol, count in counts.items()}
    return "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in counts.items())


def _crystal_rows(phonon: Phonopy) -> list[list[str]]:
    primitive, supercell, unitcell = phonon.primitive, phonon.supercell, phonon.unitcell
    whole = [["cell of the file", _lattice_text(unitcell.cell)]]
    matrix = "; ".join(" ".join(map(str, row)) for row in np.asarray(phonon.supercell_matrix))
    return [
        ["formula", _formula(phonon)],
        ["space group", str(phonon.primitive_symmetry.get_international_table())],
        *(whole if len(unitcell) != len(primitive) else []),
        ["primitive cell", _lattice_text(primitive.cell)],
        ["volume of the primitive cell, Å³", f"{primitive.volume:.3f}"],
        ["atoms of the primitive cell", str(len(primitive))],
        ["atoms of the supercell", str(len(supercell))],
        ["supercell matrix", matrix],
        ["Born charges", "yes" if phonon.nac_params is not None else "no"],
    ]


def _lattice_text(cell: Float[ndarray, "3 3"]) -> str:
    lengths = np.linalg.norm(cell, axis=1)
    directions = cell / lengths[:, None]
    cosines = (directions @ directions.T)[[1, 0, 0], [2, 2, 1]]
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return f"{', '.join(f'{x:.4f}' for x in lengths)} Å; {', '.join(f'{x:.2f}' for x in angles)}°"


def _potential_rows(potential: Potential) -> list[list[str]]:
    rows = [["name", potential.name], ["SHA-256", potential.sha256], ["precision", potential.dtype]]
    card = next((card for card in list_models() if card.name == potential.name), None)
    if card is not None:
        rows += [
            ["licence", card.licence],
            ["level of theory", card.theory],
            ["training data", ", ".join(card.training_data)],
            ["cite", ", ".join(card.citation)],
            *(["good for", text] for text in card.good_for),
            *(["not good for", text] for text in card.not_good_for),
        ]
    return rows


def _versions() -> list[list[str]]:
    libraries = [[name, version(name)] for name in ("phonopy", "jax", "numpy", "spglib")]
    ours = ["phonopy_equivariant", __version__]
    return [ours, *libraries, ["Python", platform.python_version()]]


def new_files(since: float) -> list[str]:
    """Return the names of results in the working folder, ours and phonopy's, of a time or later."""
    return [name for name in _FILES if _is_new(name, since)]


def _is_new(name: str, since: float) -> bool:
    path = Path(name)
    # clocks of file systems are coarse
    return path.is_file() and path.stat().st_mtime >= since - 2

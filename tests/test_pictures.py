"""The figure and the report of ``run``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from cli_helpers import LATTICE, command, model, poscar, potential
from phonopy import Phonopy

import phonopy_equivariant as pe
from phonopy_equivariant.evaluation.spectrum import (
    BandPath,
    DensityOfStates,
    Spectrum,
    spectrum_figure,
)
from phonopy_equivariant.structure import as_structure, to_phonopy
from phonopy_equivariant.workflows.pictures import Recorder, _crystal_rows


@pytest.fixture(scope="module")
def rock_salt() -> Phonopy:
    from ase.build import bulk

    return pe.phonons(bulk("NaCl", "rocksalt", a=LATTICE), potential(), supercell=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with bands, mesh, thermal properties and the table of modes."""
    folder = tmp_path_factory.mktemp("pictures")
    poscar(folder)
    options = ("--dim", 2, 2, 2, "--band", "auto", "--mesh", 7, 7, 7, "-t", "--irreps-table")
    command("run", "POSCAR", "--model", model(), *options, cwd=folder)
    return folder


def bands(lowest: float) -> BandPath:
    frequencies = np.linspace(lowest, 5.0, 12).reshape(4, 3)
    return BandPath((np.linspace(0, 1, 4),), (frequencies,), ("A", "B"), (False,))


def test_the_density_of_states_has_three_modes_for_each_atom(rock_salt: Phonopy) -> None:
    dos = Recorder().spectrum(rock_salt).dos
    assert dos is not None
    # the tails of the Gaussians end within the grid; the sum is of a smooth function
    np.testing.assert_allclose(np.trapezoid(dos.density, dos.frequencies), 6, rtol=1e-3)


def test_bands_that_were_not_asked_for_are_those_of_phonopy(rock_salt: Phonopy) -> None:
    path = Recorder().spectrum(rock_salt).bands
    assert path is not None
    assert rock_salt.band_structure is None  # the object is not changed
    rock_salt.run_qpoints([[0, 0, 0]])
    at_gamma = rock_salt.qpoints
    assert at_gamma is not None
    assert path.labels[0] == r"$\Gamma$"
    # acoustic modes at Γ are square roots of rounding
    np.testing.assert_allclose(path.frequencies[0][0], at_gamma.frequencies[0], atol=1e-6)


def test_lines_of_the_figure_are_the_bands_it_was_given() -> None:
    path = bands(1.0)
    dos = DensityOfStates(np.linspace(0, 6, 20), np.ones(20))
    axis, beside = spectrum_figure(Spectrum(path, dos)).subfigs[0].axes[:2]
    drawn = [line.get_ydata() for line in axis.lines[:3]]
    np.testing.assert_array_equal(np.transpose(drawn), path.frequencies[0])
    assert [label.get_text() for label in axis.get_xticklabels()] == ["A", "B"]
    assert axis.get_ylim() == beside.get_ylim()


@pytest.mark.parametrize(("lowest", "shaded"), [(-2.0, 1), (0.0, 0)])
def test_imaginary_frequencies_are_in_view_and_shaded(lowest: float, shaded: int) -> None:
    axis = spectrum_figure(Spectrum(bands(lowest))).subfigs[0].axes[0]
    assert axis.get_ylim()[0] < lowest
    assert len(axis.patches) == shaded
    assert [text.get_text() for text in axis.texts] == ["imaginary"] * shaded


def test_run_draws_what_phonopy_computed(folder: Path) -> None:
    assert (folder / "phonons.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_is_one_page_that_needs_nothing_else(folder: Path) -> None:
    page = (folder / "report.html").read_text("utf-8")
    sources = re.findall(r"(?:src|href)='([^']*)'", page)
    links = [source for source in sources if not source.startswith("data:image/png;base64,")]
    assert len(links) == len(sources) - 1
    assert all((folder / link).is_file() for link in links)
    names = {"phonons.png", "band.yaml", "mesh.yaml", "thermal_properties.yaml", "phonopy.yaml"}
    assert names | {"phonopy_params.yaml", "gamma_modes.yaml"} == set(links)


def test_the_report_says_how_to_repeat_and_how_good_it_is(folder: Path) -> None:
    page = (folder / "report.html").read_text("utf-8")
    assert f"phonopy-equivariant run POSCAR --model {model()} --dim 2 2 2 --band auto" in page
    source = yaml.safe_load((folder / "phonopy_params.yaml").read_text())["phonopy"]
    assert source["configuration"]["potential_sha256"] in page
    for words in ("sum rule residual", "Fm-3m (225)", "T1u", "add --relax", "numpy", "--dim"):
        assert words in page
    assert "supercell=" not in page  # options, not parameters of the library


def test_no_plots_writes_neither(tmp_path: Path) -> None:
    poscar(tmp_path)
    result = command(
        *("run", "POSCAR", "--model", model(), "--dim", 2, "--mesh", 3, 3, 3, "--no-plots"),
        cwd=tmp_path,
    )
    assert not (tmp_path / "phonons.png").exists()
    assert not (tmp_path / "report.html").exists()
    assert "report" not in result.stderr


def test_exact_mode_and_several_calculations_are_drawn_too(tmp_path: Path) -> None:
    poscar(tmp_path)
    options = ("--exact", "--mesh", 5, 5, 5, "-t", "--dos")
    result = command("run", "POSCAR", "--model", model(), *options, cwd=tmp_path)
    assert "phonons.png, report.html" in result.stderr
    assert "total_dos.dat" in (tmp_path / "report.html").read_text("utf-8")


def test_the_report_has_the_cell_of_the_file_and_the_primitive_cell() -> None:
    """Lengths of a centred crystal's primitive cell are none that its user knows."""
    from ase.build import bulk

    cubic = Phonopy(
        to_phonopy(as_structure(bulk("NaCl", "rocksalt", a=5.6, cubic=True))),
        np.eye(3, dtype=int),
        primitive_matrix="F",
    )
    rows = dict(_crystal_rows(cubic))
    assert rows["cell of the file"] == "5.6000, 5.6000, 5.6000 Å; 90.00, 90.00, 90.00°"
    assert rows["primitive cell"] == "3.9598, 3.9598, 3.9598 Å; 60.00, 60.00, 60.00°"


def test_labels_that_would_overlap_stand_in_rows() -> None:
    path = BandPath(
        tuple(np.array([x, y]) for x, y in ((0, 0.5), (0.5, 0.52), (0.52, 1.0))),
        (np.ones((2, 3)),) * 3,
        ("Γ", "X", "U", "K", "Γ"),
        (True, False, False),
    )
    axis = spectrum_figure(Spectrum(path)).subfigs[0].axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["Γ", "X", "\nU|K", "Γ"]

"""Potentials judged by reference phonons."""

import csv
import html.parser
import re
import shutil
import subprocess
import warnings

import numpy as np
import phonopy
import pytest
from ase.build import bulk
from phonopy import Phonopy
from phonopy.physical_units import get_calculator_physical_units
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.cli import run_command
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.evaluation.references import find_references, read_reference
from phonopy_equivariant.workflows import evaluation as workflow
from phonopy_equivariant.workflows.options import RelaxationOptions

OPTIONS = pe.EvaluationOptions(mesh=(3, 3, 3), bands=True)
FACTOR = 1.21  # of force constants: frequencies grow by 1.1


def phonon_of(atoms, factor=1.0):
    cell = PhonopyAtoms(symbols=atoms.symbols, cell=atoms.cell[:], positions=atoms.positions)
    phonon = Phonopy(cell, np.diag([2, 2, 2]), primitive_matrix=np.eye(3))
    pe.set_force_constants(phonon, "pe-crystal-3")
    phonon.force_constants = phonon.force_constants * factor
    return phonon


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of references made by the bundled model, some with scaled constants."""
    place = tmp_path_factory.mktemp("references")
    for name, factor in (("same", 1.0), ("scaled", FACTOR)):
        (place / name).mkdir()
        phonon = phonon_of(bulk("MgO", "rocksalt", a=4.21), factor)
        phonon.save(place / name / "phonopy_params.yaml", settings={"force_constants": True})
    return place


@pytest.fixture(scope="module")
def evaluation(folder):
    return pe.evaluate(folder, "pe-crystal-3", OPTIONS)


def test_a_model_agrees_with_itself(evaluation):
    same = next(c for c in evaluation.comparisons if c.name == "same")
    errors = same.errors()
    assert errors.pop("dos_overlap") == pytest.approx(1, abs=1e-9)
    # acoustic frequencies at Γ are roots of rounding
    assert max(abs(errors.pop(key)) for key in ("lowest", "mean", "frequencies")) < 1e-6
    assert max(map(abs, errors.values())) < 1e-9
    assert (same.atoms, same.supercell, same.formula) == (2, 16, "MgO")


def test_scaled_force_constants_have_the_errors_of_the_scale(evaluation):
    scaled = next(c for c in evaluation.comparisons if c.name == "scaled")
    np.testing.assert_allclose(scaled.matrix_errors, 1 - 1 / FACTOR, rtol=1e-9)
    errors = scaled.errors()
    assert errors["highest_relative"] == pytest.approx(1 / FACTOR**0.5 - 1, rel=1e-9)
    mean = scaled.reference.mean
    assert errors["frequencies"] == pytest.approx(mean * (1 - 1 / FACTOR**0.5), rel=1e-6)
    assert errors["mean"] == pytest.approx(-errors["frequencies"], rel=1e-6)
    assert 0.3 < errors["dos_overlap"] < 0.9


def test_thermal_properties_and_frequencies_are_those_of_phonopy(evaluation, folder):
    reference = phonopy.load(folder / "scaled" / "phonopy_params.yaml", log_level=0)
    reference.run_mesh((3, 3, 3))
    reference.run_thermal_properties(
        temperatures=[300], cutoff_frequency=0.0, exclude_gamma_acoustic=True
    )
    scaled = next(c for c in evaluation.comparisons if c.name == "scaled").reference
    thermal = reference.thermal_properties
    assert scaled.free_energy == pytest.approx(thermal.free_energy[0], abs=1e-9)
    assert scaled.entropy == pytest.approx(thermal.entropy[0], abs=1e-9)
    assert scaled.heat_capacity == pytest.approx(thermal.heat_capacity[0], abs=1e-9)
    assert scaled.highest == pytest.approx(reference.mesh.frequencies.max(), abs=1e-9)


def test_means_are_of_absolute_errors_and_stability_is_scored(evaluation):
    summary = evaluation.summary()["pe-crystal-3"]
    assert summary["crystals"] == 2
    assert summary["matrix"] == pytest.approx((1 - 1 / FACTOR) / 2, rel=1e-6)
    assert summary["highest"] > 0
    assert np.isnan(summary["f1"])  # none is unstable


def test_an_unstable_reference_that_the_model_finds_stable_scores_zero(folder, tmp_path):
    phonon = phonon_of(bulk("MgO", "rocksalt", a=4.21), -1.0)
    phonon.save(tmp_path / "phonopy_params.yaml", settings={"force_constants": True})
    result = pe.evaluate(tmp_path, "pe-crystal-3", pe.EvaluationOptions(mesh=(2, 2, 2)))
    (comparison,) = result.comparisons
    assert comparison.reference.imaginary > 0.8
    assert not comparison.reference.stable
    assert comparison.predicted.stable
    assert result.summary()["pe-crystal-3"]["f1"] == 0


def test_the_models_own_structure_on_request(folder):
    options = pe.EvaluationOptions(mesh=(2, 2, 2), relaxation=RelaxationOptions())
    (relaxed,) = pe.evaluate(folder / "same", "pe-crystal-3", options).comparisons
    (fixed,) = pe.evaluate(
        folder / "same", "pe-crystal-3", pe.EvaluationOptions(mesh=(2, 2, 2))
    ).comparisons
    assert relaxed.residual_stress < 0.01 < fixed.residual_stress
    assert relaxed.predicted.highest != pytest.approx(fixed.predicted.highest, abs=1e-4)


def test_forces_of_the_working_folder_are_not_taken(folder, tmp_path, monkeypatch):
    phonon = phonon_of(bulk("MgO", "rocksalt", a=4.21))
    constants = phonon.force_constants
    phonon.generate_displacements()  # forgets them
    bare = tmp_path / "bare"
    bare.mkdir()
    phonon.save(bare / "phonopy_disp.yaml", settings={"force_constants": False})
    shutil.copy(folder / "scaled" / "phonopy_params.yaml", tmp_path)
    phonopy.file_IO.write_FORCE_CONSTANTS(
        constants, tmp_path / "FORCE_CONSTANTS", p2s_map=phonon.primitive.p2s_map
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PhonopyEquivariantError, match="neither forces nor force constants"):
        read_reference(bare / "phonopy_disp.yaml")
    shutil.move(tmp_path / "FORCE_CONSTANTS", bare)
    assert read_reference(bare / "phonopy_disp.yaml").force_constants is not None


@pytest.mark.parametrize("calculator", ["qe", "turbomole", "wien2k"])
def test_references_of_other_calculators_are_in_their_units(calculator, folder, tmp_path):
    original = phonopy.load(folder / "scaled" / "phonopy_params.yaml", log_level=0)
    units = get_calculator_physical_units(calculator)
    cell = original.unitcell.copy()
    cell.cell = cell.cell / units.distance_to_A
    other = Phonopy(cell, np.diag([2, 2, 2]), np.eye(3), calculator=calculator)
    per_unit = units.force_to_eVperA / units.distance_to_A
    other.force_constants = original.force_constants / per_unit
    other.save(tmp_path / "phonopy_params.yaml", settings={"force_constants": True})
    converted = read_reference(tmp_path / "phonopy_params.yaml")
    np.testing.assert_allclose(converted.unitcell.cell, original.unitcell.cell, rtol=1e-9)
    (comparison,) = pe.evaluate(tmp_path, "pe-crystal-3", OPTIONS).comparisons
    np.testing.assert_allclose(comparison.matrix_errors, 1 - 1 / FACTOR, rtol=1e-6)
    with pytest.raises(PhonopyEquivariantError, match="units of"):
        pe.stability(other, "pe-crystal-3")


@pytest.mark.parametrize(
    ("factor", "reason"), [(np.nan, "not numbers"), (0.0, "no force acts|not numbers")]
)
def test_a_crystal_that_cannot_be_compared_does_not_end_the_others(
    factor, reason, folder, tmp_path, monkeypatch
):
    """Where the model gives nothing; and where neither side has a force."""
    (tmp_path / "bad").mkdir()
    phonon = phonon_of(bulk("NaCl", "rocksalt", a=5.7), 1.0 if np.isnan(factor) else factor)
    phonon.save(tmp_path / "bad" / "phonopy_params.yaml", settings={"force_constants": True})

    def spoilt(phonon, potential):
        report = pe.set_force_constants(phonon, potential)
        if "Na" in phonon.primitive.formula:
            phonon.force_constants = phonon.force_constants * factor
        return report

    monkeypatch.setattr(workflow, "set_force_constants", spoilt)
    options = pe.EvaluationOptions(mesh=(2, 2, 2))
    with pytest.warns(UserWarning, match="^bad"):
        result = pe.evaluate([tmp_path / "bad", folder / "same"], "pe-crystal-3", options)
    assert [comparison.name for comparison in result.comparisons] == ["same"]
    (failure,) = result.failures
    assert failure.name == "bad" and re.search(reason, failure.reason)


def test_isotopes_of_a_reference_break_the_symmetry_of_its_mesh(tmp_path):
    atoms = bulk("MgO", "rocksalt", a=4.21, cubic=True)
    cell = PhonopyAtoms(symbols=atoms.symbols, cell=atoms.cell[:], positions=atoms.positions)
    masses = np.array(cell.masses)
    masses[np.flatnonzero(cell.numbers == 12)[:2]] = 60.0
    cell.masses = masses
    phonon = Phonopy(cell, np.eye(3), primitive_matrix=np.eye(3))
    with pytest.warns(UserWarning, match="masses"):
        pe.set_force_constants(phonon, "pe-crystal-3")
    phonon.save(tmp_path / "phonopy_params.yaml", settings={"force_constants": True})
    phonon.run_mesh((3, 3, 3), is_mesh_symmetry=False, is_gamma_center=True)
    expected = phonon.mesh.frequencies.mean()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = pe.EvaluationOptions(mesh=(3, 3, 3))
        (comparison,) = pe.evaluate(tmp_path, "pe-crystal-3", options).comparisons
    assert comparison.reference.mean == pytest.approx(expected, abs=1e-9)
    assert comparison.predicted.mean == pytest.approx(expected, abs=1e-6)


def test_files_are_found_and_named(folder, tmp_path):
    names = [reference.name for reference in find_references([folder])]
    assert names == ["same", "scaled"]
    file = folder / "same" / "phonopy_params.yaml"
    other = shutil.copy(file, tmp_path / "MgO_PBE.yaml")
    assert [r.name for r in find_references([file, other])] == ["same", "MgO_PBE"]
    for path, words in ((tmp_path / "none", "no such file"), (tmp_path, "has no phonopy_params")):
        with pytest.raises(PhonopyEquivariantError, match=words):
            find_references([path])


def test_good_crystals_are_compared_and_bad_ones_named(folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(folder / "scaled", tmp_path / "good")
    (tmp_path / "garbage").mkdir()
    (tmp_path / "garbage" / "phonopy_params.yaml").write_text("no: [phonopy")
    (tmp_path / "unknown").mkdir()
    text = (folder / "same" / "phonopy_params.yaml").read_text()
    text = text.replace("symbol: Mg", "symbol: Am").replace("24.305", "243.0")
    (tmp_path / "unknown" / "phonopy_params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", str(tmp_path), "--model", "pe-crystal-3", "--mesh", "2", "2", "2"]
    assert run_command([*words, "-o", "out"]) == 1
    output = capsys.readouterr().err
    assert re.search(r"garbage, reference: .*phonopy cannot read it", output)
    assert re.search(r"unknown, pe-crystal-3: .*Am", output)
    with open("out.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["crystal"] for row in rows] == ["good"]
    assert float(rows[0]["matrix"]) == pytest.approx(1 - 1 / FACTOR, rel=1e-6)
    page = (tmp_path / "out.html").read_text("utf-8")
    assert all(word in page for word in ("garbage", "unknown", "sha256", "Tertile".lower()))


class Page(html.parser.HTMLParser):
    """What a page would fetch, and which elements are open."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.open, self.counts = [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.fetched += [v for k, v in attrs if k in ("src", "href") and not v.startswith("#")]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_sound_file(evaluation, tmp_path):
    evaluation.write_html(tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    assert not page.open
    assert not page.fetched
    assert page.counts["svg"] == 4  # parity, histogram, two crystals with bands


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium")
def test_a_click_sorts_the_table_in_a_browser(evaluation, tmp_path):
    evaluation.write_html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    click = "<script>[...document.querySelectorAll('table.sortable th')][0].click();"
    click += "[...document.querySelectorAll('table.sortable th')][0].click();</script>"
    (tmp_path / "report.html").write_text(text.replace("</body>", f"{click}</body>"), "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/user"]
    flags += ["--disable-background-networking", "--dump-dom"]
    dumped = subprocess.run(
        ["chromium", *flags, f"file://{tmp_path}/report.html"], capture_output=True, timeout=60
    ).stdout.decode()
    table = dumped[dumped.index('class="sortable"') :]
    assert re.findall(r"<tr><td>(same|scaled)</td>", table) == ["scaled", "same"]

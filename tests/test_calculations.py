"""What ``run`` asks phonopy's script for: everything that was asked, and nothing it cannot do."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from phonopy import Phonopy
from phonopy.cui import phonopy_script
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant.cli.options import Parser, add_dim_option, dim_last
from phonopy_equivariant.cli.run import main as run
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.build import build_phonon, check_indices
from phonopy_equivariant.io.crystals import Crystal
from phonopy_equivariant.io.outputs import write_params
from phonopy_equivariant.workflows.calculations import Calculations, plan_calculations
from phonopy_equivariant.workflows.handover import UsageError
from phonopy_equivariant.workflows.script import run_phonopy

ONE = np.eye(3, dtype=int)


def planned(words: str) -> Calculations:
    return plan_calculations(words.split())


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of phonopy for rock salt with springs between neighbours; work beside it."""
    lattice = 2.8 * (1 - np.eye(3))
    cell = PhonopyAtoms(symbols=["Na", "Cl"], cell=lattice, scaled_positions=[[0] * 3, [0.5] * 3])
    phonon = Phonopy(cell, 2 * ONE, primitive_matrix="P")
    apart = phonon.supercell.positions - phonon.primitive.positions[:, None]
    fractions = apart @ np.linalg.inv(phonon.supercell.cell)
    apart = (fractions - np.rint(fractions)) @ phonon.supercell.cell
    springs = -np.exp(-np.linalg.norm(apart, axis=2))
    rows = np.arange(2)
    springs[rows, phonon.primitive.p2s_map] = 0
    springs[rows, phonon.primitive.p2s_map] = -springs.sum(axis=1)
    phonon.force_constants = springs[:, :, None, None] * np.eye(3)
    monkeypatch.chdir(tmp_path)
    write_params(phonon, "phonopy_params.yaml", {})
    return "phonopy_params.yaml"


def results(folder: Path) -> dict[str, str]:
    """Return the files of numbers, and take them away."""
    found = {}
    for path in folder.iterdir():
        if path.name not in ("phonopy_params.yaml", "phonopy.yaml"):
            found[path.name] = path.read_text() if path.suffix != ".pdf" else ""
            path.unlink()
    return found


def test_every_calculation_is_done_as_if_it_were_the_only_one(params: str, tmp_path: Path) -> None:
    """-t, --dos and --irreps in one run, of which phonopy alone takes one."""
    common = ["-q", "--mesh", "3", "3", "3", "--exclude-gamma-acoustic"]
    parts = (
        [*common, "-t", "--tmax", "300"],
        [*common, "--td", "--tmax", "300"],
        [*common, "--pdos", "1", "2"],
        [*common, "--dos"],
        ["-q", "--irreps", "0", "0", "0"],
    )
    expected: dict[str, str] = {}
    for part in parts:
        assert run_phonopy(params, part) == 0
        expected |= results(tmp_path)
    words = "-t --tmax 300 --dos --irreps 0 0 0 -q --pdos 1 2 --mesh 3 3 3 --td"
    plan = planned(words)
    assert len(plan.settings) == len(parts) and not plan.warnings and not plan.remarks
    before = phonopy_script._run_calculation
    assert run_phonopy(params, plan.options, plan.settings[1:]) == 0
    assert phonopy_script._run_calculation is before
    found = results(tmp_path)
    assert found == expected
    assert {"thermal_properties.yaml", "total_dos.dat", "irreps.yaml"} <= set(found)


def test_bands_and_a_mesh_are_not_lost_beside_irreps() -> None:
    plan = planned("--irreps 0 0 0 --band auto --mesh 2 2 2")
    modes = [settings.run_mode for settings in plan.settings]
    assert modes == ["band_mesh", "irreps"]


@pytest.mark.parametrize("words", ["-t", "--dos", "--td", "--tdm", "--moment", "--pdos 1", "-t -p"])
def test_a_mesh_is_chosen(words: str) -> None:
    """phonopy alone calculates nothing and ends with success."""
    plan = planned(words)
    assert any("--mesh 50" in remark for remark in plan.remarks)
    assert plan.first.run_mode == "mesh" and plan.mesh.mesh_numbers == 50.0
    assert planned(f"{words} --band auto").first.run_mode == "band_mesh"
    assert not any("--mesh" in remark for remark in planned(f"{words} --mesh 3 3 3").remarks)


def test_acoustic_modes_at_gamma_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    assert plan_calculations(["-t"]).first.exclude_gamma_acoustic
    assert not plan_calculations(["-t", "--no-exclude-gamma-acoustic"]).first.exclude_gamma_acoustic
    (tmp_path / "c.conf").write_text("EXCLUDE_GAMMA_ACOUSTIC = .FALSE.\n")
    plan = plan_calculations(["-t", "--config", str(tmp_path / "c.conf")])
    assert not plan.first.exclude_gamma_acoustic


def test_notices_of_phonopy_on_meshes_are_for_v(
    params: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even numbers and a centred cell: phonopy uses less symmetry, and the result is the same."""
    options = ["--mesh", "4", "4", "4"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert run_phonopy(params, options) == 0
        assert "WARNING" not in capsys.readouterr().err
        assert run_phonopy(params, [*options, "-v"]) == 0
    assert "reduction is" in capsys.readouterr().err


def test_what_a_configuration_file_makes_phonopy_drop_is_said(tmp_path: Path) -> None:
    (tmp_path / "c.conf").write_text("TPROP = .TRUE.\nMESH = 4 4 4\n")
    config = ["--config", str(tmp_path / "c.conf")]
    assert not plan_calculations(config).warnings
    (warning,) = plan_calculations([*config, "--dos"]).warnings
    assert "TPROP" in warning and "DOS" in warning and "--config" in warning


def test_plots_without_a_display_are_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setattr("matplotlib.get_backend", lambda: "agg")
    plan = plan_calculations(["--band", "auto", "-p"])
    assert "-s" in plan.options and "-p" in plan.remarks[0]
    assert not plan_calculations(["--band", "auto", "-p", "-s"]).remarks
    monkeypatch.setattr("matplotlib.get_backend", lambda: "QtAgg")
    assert "-s" not in plan_calculations(["--band", "auto", "-p"]).options


@pytest.mark.parametrize(
    "words",
    [
        *("--mesh 0 0 0", "--mesh 4 4 -1", "--mesh 0", "--mesh -5"),
        *("--mesh 1 0 0 0 1 0 0 0 0", "-t --tstep -10", "-t --tmin 500 --tmax 100"),
        *("-t --tmin -5", "--band auto --band-points 1", "--qpoints 0 0 0 --q-direction 0 0 0"),
        *("--dos --fpitch -1", "--dos --fmin 5 --fmax 1"),
        # phonopy takes its defaults for these zeros
        *(
            "-t --tstep 0",
            "-t --tmax 0",
            "--dos --fpitch 0",
            "--tolerance 0",
            "--gv --gv-delta-q 0",
        ),
        *("--factor 0", "--dos --sigma 0", "--dos --sigma -0.1"),
        *("--mesh 1e9", "--mesh 100000 100000 100000"),
    ],
)
def test_numbers_are_refused_before_the_work(words: str) -> None:
    """phonopy ends some of them with success and empty files, others long after the start."""
    option = next(word for word in reversed(words.split()) if word.startswith("--"))
    with pytest.raises(UsageError, match=option):
        planned(words)


@pytest.mark.parametrize("value", ["nan", "INF"])
@pytest.mark.parametrize(
    ("option", "before", "after"),
    [
        *[(f"--{name}", "", "") for name in ("tmax", "tmin", "tstep", "fmin", "fmax", "fpitch")],
        *[(f"--{name}", "", "") for name in ("sigma", "tolerance", "factor", "cutoff-freq")],
        *[(f"--{name}", "", "") for name in ("gv-delta-q", "tdm-cif", "rd-temperature", "mesh")],
        *[(f"--{name}", "", "0 0") for name in ("qpoints", "q-direction", "pd")],
        ("--irreps", "0 0 0", ""),
        ("--mass", "23", ""),
        ("--magmom", "1", ""),
        ("--band", "0 0 0", "1/2 0"),
        ("--modulation", "1 1 1,", "0 0 1 2"),
    ],
)
def test_options_that_are_no_finite_numbers(
    option: str, before: str, value: str, after: str
) -> None:
    """phonopy writes files of nan, takes its defaults, or fails in the end."""
    words = f"{before} {value} {after}".split()
    with pytest.raises(UsageError, match=f"(?i){value} is not a finite number"):
        plan_calculations([f"{option}={value}"] if words == [value] else [option, *words])


@pytest.mark.parametrize("line", ["TSTEP = 0", "FPITCH = 0", "SIGMA = 0.1 nan", "TMAX = inf"])
def test_numbers_of_a_configuration_file(line: str, tmp_path: Path) -> None:
    (tmp_path / "run.conf").write_text(f"DOS = .TRUE.\n{line}\n")
    with pytest.raises(UsageError, match=f"(?i){line.split()[0]}"):
        plan_calculations(["--config", str(tmp_path / "run.conf")])


def test_labels_of_bands_are_words() -> None:
    plan_calculations(["--band", "0 0 0 1/2 0 0", "--band-labels", "NaN", "I"])


def test_a_panic_of_rust_is_one_line(params: str) -> None:
    with pytest.raises(PhonopyEquivariantError, match="phonopy fails on these options"):
        run_phonopy(params, ["-q", "--mesh", "4", "4", "-1"])


def test_atoms_and_bands_that_are_not_there() -> None:
    cell = PhonopyAtoms(symbols=["Si"], cell=2.5 * np.eye(3), scaled_positions=[[0] * 3])
    silicon = Crystal(Path("POSCAR"), cell)
    for words, phrase in (
        ("--pdos 2", "--pdos: the primitive cell has 1 atoms"),
        ("--pdos 0", "--pdos"),
        ("--bi 4 -t", "--band-indices: the primitive cell has 3 bands"),
        ("--mass 28 28", r"masses=: the primitive cell has 1 atoms \(Si\), .* not 2"),
    ):
        settings = planned(words).first
        with pytest.raises(PhonopyEquivariantError, match=phrase):
            check_indices(build_phonon(silicon, ONE, settings), settings)
    for words in ("--pdos 1", "--pdos auto", "--bi 1 3 -t", "--mass 28", "--xyz-projection"):
        settings = planned(words).first
        check_indices(build_phonon(silicon, ONE, settings), settings)


@pytest.mark.parametrize(
    ("words", "dim", "structure"),
    [
        (["--dim", "2", "2", "2", "FILE"], ["2", "2", "2"], "FILE"),
        (["FILE", "--dim", "2 2 2"], ["2 2 2"], "FILE"),
        (["--dim", "2 2 2", "FILE", "-q"], ["2 2 2"], "FILE"),
        (["--dim=3", "FILE"], ["3"], "FILE"),
        (["--dim", "-1", "1", "1", "1", "-1", "1", "1", "1", "-1", "2H.cif"], None, "2H.cif"),
        (["--dim", "2x2x2", "FILE"], ["2x2x2"], "FILE"),
    ],
)
def test_the_structure_may_follow_dim(
    words: list[str], dim: list[str] | None, structure: str
) -> None:
    parser = Parser()
    parser.add_argument("structure")
    parser.add_argument("-q", action="store_true")
    add_dim_option(parser)
    found = parser.parse_args(words)
    assert found.structure == structure and (dim is None or found.dim == dim)
    assert dim_last(dim_last(words)) == dim_last(words)
    with pytest.raises(PhonopyEquivariantError, match=f"structure file {structure} does not exist"):
        run(words)


def test_a_missing_structure_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(["--mesh", "20", "20", "20", "POSCAR"])
    assert end.value.code == 2
    assert "STRUCTURE is missing" in capsys.readouterr().err

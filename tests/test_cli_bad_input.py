"""Bad input: one line with the remedy, status 1 or 2, no traceback, nothing written."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_helpers import (
    COMMAND,
    assert_refused,
    command,
    displaced,
    environment,
    installed,
    leftovers,
    model,
    poscar,
)

import phonopy_equivariant as pe
from phonopy_equivariant.errors import unknown_option

Write = Callable[[Path], object]


def _missing(folder: Path) -> None:
    pass


def _garbage(folder: Path) -> None:
    (folder / "POSCAR").write_bytes(b"\x00\xffnot a crystal\n" * 40)


def _truncated(folder: Path) -> None:
    path = poscar(folder)
    path.write_text(path.read_text()[:60])


def _flat(folder: Path) -> None:
    path = poscar(folder)
    path.write_text(path.read_text().replace("0.5 0.5 0\n", "0 0 0\n", 1))


def _overlapping(folder: Path) -> None:
    path = poscar(folder)
    path.write_text(path.read_text().replace("0.5 0.5 0.5\n", "0.001 0 0\n"))


def _not_a_number(folder: Path) -> None:
    path = poscar(folder)
    path.write_text(path.read_text().replace("0.5 0.5 0.5\n", "0.5 nan 0.5\n"))


def _silver(folder: Path) -> None:
    poscar(folder, symbols="Ag Cl")


def _empty(folder: Path) -> None:
    (folder / "POSCAR").touch()


@pytest.mark.parametrize(
    ("write", "phrases"),
    [
        (_missing, ("does not exist", "give an existing file")),
        (_garbage, ("cannot be read as a structure", "give a file that ASE reads")),
        (_truncated, ("has 0 of the 2 positions that it announces",)),
        (_empty, ("cannot be read as a structure",)),
        (_flat, ("no volume", "check the lattice vectors")),
        (_overlapping, ("overlapping atoms", "remove the duplicate")),
        (_not_a_number, ("atom 2 is not a finite number", "mend the structure file")),
        (
            _silver,
            (
                "does not know Ag",
                "covers the whole structure, such as pe-crystal-3, nequix-oam-1-pft",
            ),
        ),
    ],
)
def test_bad_structures(tmp_path: Path, write: Write, phrases: tuple[str, ...]) -> None:
    write(tmp_path)
    before = sorted(tmp_path.iterdir())
    result = command("run", "POSCAR", "--model", model(), "--dim", 2, cwd=tmp_path, status=1)
    assert_refused(result, *phrases)
    assert sorted(tmp_path.iterdir()) == before


def test_bad_yaml_files(tmp_path: Path) -> None:
    for content, phrase in (
        ("phonopy: [1, 2\n", "is no phonopy YAML file"),
        ("supercell_matrix: 3\nunit_cell: {lattice: what, points: [1]}\n", "cannot be read"),
        ("energy: 3\n", "is no phonopy YAML file with unit_cell and supercell_matrix"),
    ):
        (tmp_path / "disp.yaml").write_text(content)
        result = command("fc", "disp.yaml", "--model", model(), cwd=tmp_path, status=1)
        assert_refused(result, "disp.yaml", phrase)


def test_partly_occupied_sites_and_molecules(tmp_path: Path) -> None:
    (tmp_path / "alloy.cif").write_text(
        "data_x\n_symmetry_space_group_name_H-M 'P 1'\n"
        + "".join(f"_cell_length_{x} 3\n" for x in "abc")
        + "".join(f"_cell_angle_{x} 90\n" for x in ("alpha", "beta", "gamma"))
        + "loop_\n_atom_site_label\n_atom_site_type_symbol\n_atom_site_fract_x\n"
        "_atom_site_fract_y\n_atom_site_fract_z\n_atom_site_occupancy\n"
        "Na1 Na 0 0 0 0.5\nSi1 Si 0 0 0 0.5\n"
    )
    result = command("fc", "alloy.cif", "--model", model(), cwd=tmp_path, status=1)
    assert_refused(result, "partly occupied", "give an ordered structure")
    (tmp_path / "water.xyz").write_text("3\n\nO 0 0 0\nO 0 0 1\nO 0 1 0\n")
    result = command("fc", "water.xyz", "--model", model(), cwd=tmp_path, status=1)
    assert_refused(result, "periodic in three directions")


def test_models_that_cannot_be_had(tmp_path: Path) -> None:
    poscar(tmp_path)
    run = ("run", "POSCAR", "--dim", 2, "--model")
    small = Path(model()).read_bytes()
    (tmp_path / "cut.npz").write_bytes(small[: len(small) // 2])
    (tmp_path / "noise.npz").write_bytes(b"noise" * 100)
    damaged = bytearray(small)
    damaged[len(small) // 2] ^= 255
    (tmp_path / "damaged.npz").write_bytes(damaged)
    (tmp_path / "cut.nqx").write_text('{"cutoff": 5.0')
    for name, phrases in {
        "nequix-mp-1-ptf": ("did you mean nequix-mp-1-pft?",),
        "no/such/file.npz": ("does not exist", "models list"),
        "cut.npz": ("cut short",),
        "noise.npz": ("is no checkpoint", "models list"),
        "damaged.npz": ("damaged",),
        "cut.nqx": ("not a .nqx checkpoint",),
    }.items():
        with pytest.raises(pe.PhonopyEquivariantError) as caught:
            pe.load_potential(name if name.startswith("nequix") else tmp_path / name)
        assert all(phrase in str(caught.value) for phrase in (name, *phrases))
    result = command(*run, "cut.npz", cwd=tmp_path, status=1)
    assert_refused(result, "cut.npz", "cut short")
    assert not (tmp_path / "phonopy_params.yaml").exists()


def test_no_network_and_wrong_hash(tmp_path: Path) -> None:
    poscar(tmp_path)
    run = ("run", "POSCAR", "--model", "nequix-mp-1")
    result = command(*run, cwd=tmp_path, status=1)
    assert_refused(result, "Cannot download nequix-mp-1", "put the file at")
    (tmp_path / "nequix-mp-1.nqx").write_text("{}\n")
    result = command(*run, cwd=tmp_path, status=1, PHONOPY_EQUIVARIANT_MODELS=str(tmp_path))
    assert_refused(result, "is not the published nequix-mp-1", "sha256")


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (("--relax-fmax", "1e-5"), ("--relax-fmax without --relax", "add --relax")),
        (("--exact-tolerance", "1e-3"), ("--exact-tolerance without --exact", "add --exact")),
        (("-q", "-v"), ("not allowed with",)),
        (("--noreadfc",), ("contradictory", "leave it away")),
        (("-d",), ("contradictory", "leave it away")),
        (("--pypolymlp",), ("contradictory", "another potential")),
        (("--relx",), ("unknown option --relx", "did you mean --relax?")),
        (("--mesh", "4", "4", "x"), ("phonopy refuses",)),
        (("--mesh", "4", "4"), ("--mesh 4 4: give three whole numbers",)),
        (("--irreps", "0", "0"), ("--irreps 0 0: give a q-point",)),
        (("--band", "0", "0"), ("phonopy refuses",)),
        (("-f", "vasprun.xml"), ("phonopy refuses", "phonopy-init")),
        (("--config", "nowhere.conf"), ("phonopy refuses", "nowhere.conf")),
        (("--dtype", "float16"), ("invalid choice",)),
        (("other.cif",), ("unrecognized arguments: other.cif",)),
    ],
)
def test_options_that_contradict_or_do_not_exist(
    tmp_path: Path, words: tuple[str, ...], phrases: tuple[str, ...]
) -> None:
    poscar(tmp_path)
    result = command("run", "POSCAR", *words, "--model", model(), cwd=tmp_path, status=2)
    assert_refused(result, *phrases)


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (("run", "POSCAR", "--supercell", "2"), ("unknown option --supercell", "mean --dim?")),
        (("qha", "POSCAR", "--temperature", "3"), ("equivariant qha: error", "mean --tmax?")),
        (("batch", "POSCAR", "-o", "x", "--relaxx"), ("did you mean --relax?", "batch --help")),
        (("dataset", "perturb", "POSCAR", "-o", "x", "-n", "5"), ("unknown option -n", "perturb")),
        (("POSCAR",), ("no command", "did you mean 'phonopy-equivariant run POSCAR'?")),
    ],
)
def test_guesses_of_a_newcomer_are_answered(
    tmp_path: Path, words: tuple[str, ...], phrases: tuple[str, ...]
) -> None:
    poscar(tmp_path)
    assert_refused(command(*words, cwd=tmp_path, status=2), *phrases)


def test_dashes_alone_make_no_likeness() -> None:
    assert unknown_option("--relax", ["--help", "--dim"]) == "unknown option --relax"
    assert unknown_option("--relx", ["--help", "--relax"]).endswith("did you mean --relax?")


def test_dim_that_makes_no_supercell(tmp_path: Path) -> None:
    poscar(tmp_path)
    for dim, phrase in {
        "2 2": "one number, three, or nine",
        "0 1 1": "give positive numbers",
        "2 2.5 2": "give whole numbers",
        "1 0 0 1 0 0 0 0 1": "needs a positive volume",
    }.items():
        words = ("fc", "POSCAR", "--model", model(), "--dim", *dim.split())
        assert_refused(command(*words, cwd=tmp_path, status=1), f"--dim {dim}", phrase)


def test_a_supercell_that_does_not_fit_memory(tmp_path: Path) -> None:
    poscar(tmp_path)
    words = ("run", "POSCAR", "--model", model(), "--dim", 5000, 5000, 5000)
    result = command(*words, cwd=tmp_path, status=1)
    assert_refused(result, "250000000000 atoms needs at least", "choose a smaller --dim")


def test_displaced_cells_and_dim_disagree(tmp_path: Path) -> None:
    poscar(tmp_path)
    words = ("fc", "POSCAR", "--force-sets", "--model", model(), "--dim", 1)
    result = command(*words, cwd=tmp_path, status=1)
    assert_refused(result, "has no displacements", "phonopy-init -d")
    result = command("fc", "POSCAR", "--force-sets", "--format", "hdf5", cwd=tmp_path, status=2)
    assert_refused(result, "not allowed with")


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    poscar(tmp_path)
    fc = ("fc", tmp_path / "POSCAR", "--dim", 1, "--model", model(), "-o")
    for output, phrase in (
        ("nowhere/fc.yaml", "Cannot write nowhere/fc.yaml"),
        (str(tmp_path), "is a folder"),
        ("/dev/null", "is a device"),
    ):
        assert_refused(command(*fc, output, cwd=tmp_path, status=1), phrase)
    run = ("run", tmp_path / "POSCAR", "--dim", 1, "--model", model())
    # nobody writes there, not even the superuser
    result = command(*run, cwd=Path("/proc"), status=1)
    assert_refused(result, "Cannot write phonopy_params.yaml", "work in another folder")
    relax = ("relax", "POSCAR", "--model", model(), "-o")
    result = command(*relax, "relaxed.what", cwd=tmp_path, status=1)
    assert_refused(result, "no format that ASE writes", "POSCAR")


def test_disk_full(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: both fail in the middle."""
    poscar(tmp_path)
    old = tmp_path / "phonopy_params.yaml"
    old.write_text("old: file\n")
    words = ("fc", "POSCAR", "--model", model(), "--dim", 2, "-q")
    installed(*words, "-o", "warm.yaml", cwd=tmp_path)
    result = subprocess.run(
        ["bash", "-c", "ulimit -f 4; exec " + shlex.join(map(str, [*COMMAND, *words]))],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1
    assert "Cannot write" in result.stderr.splitlines()[-1]
    assert "free space" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert old.read_text() == "old: file\n"
    assert not leftovers(tmp_path)


def test_forces_of_a_first_principles_code_are_not_overwritten(tmp_path: Path) -> None:
    poscar(tmp_path)
    (tmp_path / "phonopy_params.yaml").write_text("displacements:\n- atom: 1\n  forces:\n")
    result = command("run", "POSCAR", "--model", model(), cwd=tmp_path, status=1)
    assert_refused(result, "contains forces", "rename it")


def test_force_sets_are_not_overwritten_unless_named(tmp_path: Path) -> None:
    displaced(tmp_path, 1)
    (tmp_path / "FORCE_SETS").touch()
    words = ("fc", "phonopy_disp.yaml", "--force-sets", "--model", model())
    result = command(*words, cwd=tmp_path, status=1)
    assert_refused(result, "FORCE_SETS exists", "-o FORCE_SETS")


def test_born_of_another_crystal(tmp_path: Path) -> None:
    poscar(tmp_path)
    (tmp_path / "BORN").write_text("14.4\n1 0 0 0 1 0 0 0 1\n")
    result = command("run", "POSCAR", "--model", model(), "--dim", 1, cwd=tmp_path, status=1)
    assert "BORN in this folder cannot be used" in result.stderr.splitlines()[-1]
    assert "--nonac" in result.stderr.splitlines()[-1]


def test_a_bare_command_and_a_wrong_one(tmp_path: Path) -> None:
    assert_refused(installed(cwd=tmp_path, status=2), "COMMAND")
    assert_refused(installed("run", "no.cif", cwd=tmp_path, status=1), "no.cif does not exist")
    assert_refused(command("rum", cwd=tmp_path, status=2), "rum")
    assert_refused(command("run", "--mesh", 4, 4, 4, cwd=tmp_path, status=2), "STRUCTURE")

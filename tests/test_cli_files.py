"""``fc``, ``relax``, ``models`` and help: files that phonopy reads, and answers at once."""

from __future__ import annotations

import importlib.metadata
import resource
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import phonopy
import pytest
from ase.spacegroup.symmetrize import check_symmetry
from cli_helpers import (
    command,
    environment,
    installed,
    leftovers,
    model,
    poscar,
    potential,
    rutile,
    shell,
)
from conftest import SMALL
from phonopy.interface.phonopy_yaml import PhonopyYaml

import phonopy_equivariant as pe
from phonopy_equivariant.potential import Potential

QPOINTS = [[0.5, 0.5, 0.5], [0.1, 0.2, 0.3]]


@pytest.fixture(scope="module")
def displaced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a frozen-phonon run stands after phonopy-init -d."""
    folder = tmp_path_factory.mktemp("displaced")
    poscar(folder)
    shell("phonopy-init -d --dim 2 2 2 -c POSCAR", folder)
    return folder


@pytest.fixture(scope="module")
def analytic(displaced: Path) -> np.ndarray:
    """Frequencies (THz) from phonopy_params.yaml that ``fc phonopy_disp.yaml`` writes."""
    result = installed("fc", "phonopy_disp.yaml", "--model", model(), cwd=displaced)
    assert "(from phonopy_disp.yaml), 16 atoms" in result.stderr
    assert "sum rule residual" in result.stdout
    return frequencies(displaced / "phonopy_params.yaml")


def frequencies(file: Path, **options: object) -> np.ndarray:
    """Return what plain phonopy makes of a file."""
    phonon = phonopy.load(file, symmetrize_fc=False, **options)
    return np.array(phonon.run_qpoints(QPOINTS).frequencies)


@pytest.mark.parametrize(
    ("name", "file"), [("FORCE_CONSTANTS", "FORCE_CONSTANTS"), ("hdf5", "force_constants.hdf5")]
)
def test_force_constants_in_phonopys_other_files(
    displaced: Path, analytic: np.ndarray, name: str, file: str
) -> None:
    command("fc", "phonopy_disp.yaml", "--model", model(), "--format", name, "-q", cwd=displaced)
    path = displaced / file
    result = frequencies(displaced / "phonopy_disp.yaml", force_constants_filename=path)
    # FORCE_CONSTANTS has 15 decimals
    np.testing.assert_allclose(result, analytic, rtol=0, atol=1e-9)
    path.unlink()
    assert not leftovers(displaced)


def test_force_sets_give_the_frozen_phonons(displaced: Path, analytic: np.ndarray) -> None:
    words = ("fc", "phonopy_disp.yaml", "--force-sets", "--model", model())
    result = command(*words, cwd=displaced)
    assert "Forces of 2 displaced supercells" in result.stderr
    path = displaced / "FORCE_SETS"
    frozen = frequencies(displaced / "phonopy_disp.yaml", force_sets_filename=path)
    path.unlink()
    # displacements of 0.01 Å: third and fourth derivatives enter
    assert 0 < np.abs(frozen - analytic).max() < 0.02


def test_units_of_the_calculator(displaced: Path, analytic: np.ndarray, tmp_path: Path) -> None:
    """phonopy's files of Quantum ESPRESSO are in bohr and rydberg; so are ours for them."""
    phonon = phonopy.load(displaced / "phonopy_disp.yaml")
    cell = phonon.unitcell
    bohr = phonopy.physical_units.get_calculator_physical_units("qe").distance_to_A
    cell.cell = cell.cell / bohr
    other = phonopy.Phonopy(cell, [2, 2, 2], primitive_matrix="auto", calculator="qe")
    other.generate_displacements()
    other.save(tmp_path / "phonopy_disp.yaml")
    assert PhonopyYaml().read(tmp_path / "phonopy_disp.yaml").calculator == "qe"
    fc = ("fc", "phonopy_disp.yaml", "--model", model(), "-q")
    command(*fc, cwd=tmp_path)
    np.testing.assert_allclose(frequencies(tmp_path / "phonopy_params.yaml"), analytic, rtol=1e-7)
    command(*fc, "--format", "FORCE_CONSTANTS", cwd=tmp_path)
    command(*fc, "--force-sets", cwd=tmp_path)
    disp = tmp_path / "phonopy_disp.yaml"
    same = frequencies(disp, force_constants_filename=tmp_path / "FORCE_CONSTANTS")
    np.testing.assert_allclose(same, analytic, rtol=1e-6)
    (tmp_path / "FORCE_CONSTANTS").unlink()
    frozen = frequencies(disp, force_sets_filename=tmp_path / "FORCE_SETS")
    assert np.abs(frozen - analytic).max() < 0.02


def test_compiled_functions_are_found_again(displaced: Path, tmp_path: Path) -> None:
    """Python orders sets by a hash that differs between processes; what is compiled may not."""
    cache = tmp_path / "jax"  # of its own: other tests run at the same time
    found = []
    for seed in "012":
        words = ("fc", "phonopy_disp.yaml", "--model", model(), "-q", "-o", "again.yaml")
        variables = {"PYTHONHASHSEED": seed, "JAX_COMPILATION_CACHE_DIR": str(cache)}
        log = installed(*words, cwd=displaced, **variables).stderr
        assert "cpu_aot_loader" not in log  # what XLA says of programs that it loads
        # programs kept by this package, and those in JAX's own cache
        kept = {path.name for path in (cache / "phonopy_equivariant").iterdir()}
        found.append(kept | {path.name for path in cache.glob("*-cache")})
    assert found[0] == found[1] == found[2] != set()


def test_dim_beside_displaced_cells_is_refused(displaced: Path) -> None:
    words = ("fc", "phonopy_disp.yaml", "--dim", 3, "--model", model())
    result = command(*words, cwd=displaced, status=1)
    assert "has displaced supercells of --dim 2 2 2, not of --dim 3 3 3" in result.stderr


def test_relax_keeps_the_space_group(tmp_path: Path) -> None:
    file = rutile(tmp_path)
    before = ase.io.read(file)
    words = ("relax", file.name, "-o", "POSCAR_out", "--fixed-cell", "--model", model())
    result = command(*words, "--fmax", "1e-5", cwd=tmp_path)
    after = ase.io.read(tmp_path / "POSCAR_out")
    assert check_symmetry(after).number == check_symmetry(before).number == 136
    np.testing.assert_allclose(after.cell.array, before.cell.array, atol=1e-12)
    assert np.abs(after.positions - before.positions).max() > 1e-3
    assert np.abs(potential().evaluate(after).forces).max() < 1e-5
    assert "steps" in result.stdout
    assert not leftovers(tmp_path)


def test_relax_that_does_not_converge_says_so(tmp_path: Path) -> None:
    atoms = ase.io.read(poscar(tmp_path))
    with pytest.raises(pe.PhonopyEquivariantError, match="did not reach 1e-12 eV/Å in 1 steps"):
        pe.relax(atoms, potential(), fmax=1e-12, max_steps=1)
    assert atoms.calc is None
    assert not atoms.constraints


def test_models(tmp_path: Path) -> None:
    table = command("models", "list", cwd=tmp_path).stdout.splitlines()
    assert table[0].split() == ["NAME", "THEORY", "ELEMENTS", "LICENCE", "HERE"]
    assert any(line.split() == ["nequix-mp-1", "PBE(+U)", "89", "MIT", "no"] for line in table)
    card = command("models", "show", "nequix-mp-1-pft", cwd=tmp_path).stdout
    for word in ("MIT", "PBE", "arXiv:2508.16067", "Cl", "sha256", "accuracy"):
        assert word in card
    assert "cutoff           4 Å" in command("models", "show", model(), cwd=tmp_path).stdout
    assert "was not in" in command("models", "remove", "nequix-mp-1", cwd=tmp_path).stdout
    result = command("models", "fetch", "nequix-mp-2", cwd=tmp_path, status=1)
    assert "did you mean nequix-mp-1?" in result.stderr


def test_models_fetch_and_remove(tmp_path: Path, shared: Path) -> None:
    variables = {"PHONOPY_EQUIVARIANT_MODELS": str(shared / "models")}
    words = ("models", "fetch", "nequix-mp-1")
    assert "nequix-mp-1.nqx" in command(*words, cwd=tmp_path, **variables).stdout
    result = command("models", "remove", "nequix-mp-1", cwd=tmp_path, **variables)
    assert "is yours" in result.stdout
    assert (shared / "models" / "nequix-mp-1.nqx").is_file()


@pytest.mark.parametrize("words", [(), ("run",), ("fc",), ("relax",), ("models",)])
def test_help_teaches_and_answers_at_once(tmp_path: Path, words: tuple[str, ...]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = installed(*words, "--help", cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # 0.05 s; heavy imports would take more than 0.5 s. Processor time: others may use the computer
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert "examples:" in result.stdout
    assert f"phonopy-equivariant {' '.join(words)}".strip() in result.stdout


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from phonopy_equivariant.cli import main; main(['run', '--help']); "
        "print(sorted({'jax', 'numpy', 'phonopy', 'ase', 'rich'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_version_and_the_installed_command(tmp_path: Path) -> None:
    assert "phonopy 4" in installed("--version", cwd=tmp_path).stdout
    assert "phonopy-equivariant 0" in shell("python -m phonopy_equivariant --version", tmp_path)
    script = "set +o pipefail; phonopy-equivariant models list 2>&1 | head -n 1"
    assert "Traceback" not in shell(script, tmp_path)


def test_compilation_cache_has_a_folder_for_each_kind_of_processor(tmp_path: Path) -> None:
    code = (
        "import phonopy_equivariant as pe; print(pe.enable_compilation_cache()); "
        "import jax; print(jax.config.jax_compilation_cache_dir)"
    )

    def folders(**changes: str | None) -> list[str]:
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(**changes),
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.split()

    chosen = folders(JAX_COMPILATION_CACHE_DIR=None, XDG_CACHE_HOME=str(tmp_path / "home"))
    assert chosen[0] == chosen[1]
    jax_version = importlib.metadata.version("jax")
    assert Path(chosen[0]).parent == tmp_path / "home" / "phonopy_equivariant" / "jax"
    assert Path(chosen[0]).name.startswith(f"{jax_version}-")
    own = tmp_path / "own"
    assert folders(JAX_COMPILATION_CACHE_DIR=str(own)) == [str(own)] * 2
    assert folders(JAX_COMPILATION_CACHE_DIR="/proc/no")[0] == "None"


def test_python_keeps_compiled_functions_by_itself(tmp_path: Path) -> None:
    """Unless the user has turned the cache off, or JAX's log would tell of every function."""
    smallest = SMALL | {"num_interactions": 1, "hidden_irreps": "2x0e", "l_max": 0}
    code = (
        "import phonopy_equivariant as pe; from ase.build import bulk; "
        f"pe.random_potential(pe.NequIPConfig(**{smallest!r})).evaluate(bulk('Na', a=4.2))"
    )

    def kept(code: str, home: str, **changes: str | None) -> int:
        folder = tmp_path / home
        changes = {
            "JAX_COMPILATION_CACHE_DIR": None,
            "TF_CPP_MIN_LOG_LEVEL": None,
            "XDG_CACHE_HOME": str(folder),
            **changes,
        }
        result = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(**changes),
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert (result.returncode, result.stderr) == (0, "")
        return sum(path.is_file() for path in folder.rglob("*"))

    assert kept(code, "on") > 0
    assert kept(code, "off", JAX_ENABLE_COMPILATION_CACHE="false") == 0
    assert kept("import jax; " + code, "late") == 0


def test_models_prepare(tmp_path: Path, one_layer: Potential) -> None:
    """Programs are compiled and kept; what is cleared is gone."""
    pe.save_checkpoint(one_layer, tmp_path / "small.npz")
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    folder = tmp_path / "programs" / "phonopy_equivariant"
    said = installed("models", "prepare", "small.npz", cwd=tmp_path, **cache).stdout
    # start, geometry, and five for the only layer
    assert ": 7 programs, " in said and len(list(folder.iterdir())) == 7
    cleared = installed("models", "prepare", "--clear", cwd=tmp_path, **cache).stdout
    assert cleared.startswith("removed 7 programs, ") and not list(folder.iterdir())
    refused = command("models", "prepare", cwd=tmp_path, status=None)
    assert refused.returncode and "--clear" in refused.stderr

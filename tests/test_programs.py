"""Compiled programs kept on disk: found again, never trusted blindly, never needed."""

import dataclasses
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from phonopy_equivariant import potential as potential_module
from phonopy_equivariant.checkpoints.native import save_checkpoint
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.potential import random_potential
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
from phonopy_equivariant.response.bloch.rehearsal import rehearse
from phonopy_equivariant.runtime import compilation, programs, source

CONFIG = NequIPConfig(
    species=(14,),
    cutoff=3.0,
    num_interactions=2,
    hidden_irreps="4x0e + 2x1o",
    l_max=1,
    num_radial_basis=4,
    radial_width=8,
    radial_depth=1,
)
QPOINTS = np.array([[0.1, 0.2, 0.3]])


@pytest.fixture
def folder(tmp_path):
    if jax.default_backend() != "cpu":
        pytest.skip("programs are kept on the CPU only")
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    old = [getattr(jax.config, name) for name in names]
    compilation.forget()
    for name, value in zip(names, (str(tmp_path), 0), strict=True):
        jax.config.update(name, value)
    yield tmp_path / "phonopy_equivariant"
    for name, value in zip(names, old, strict=True):
        jax.config.update(name, value)


@pytest.fixture
def traced(monkeypatch):
    """Return how often the energy was traced since the test began."""
    monkeypatch.setattr(potential_module._evaluate, "traced", 0)
    return lambda: potential_module._evaluate.traced


def test_a_kept_program_is_not_traced_again(folder, traced):
    potential = random_potential(CONFIG)
    first = potential.evaluate(bulk("Si"))
    assert traced() == 1
    assert len(list(folder.iterdir())) == 1
    compilation.forget()  # as in a new process
    again = potential.evaluate(bulk("Si"))
    assert traced() == 1
    np.testing.assert_array_equal(again.forces, first.forces)
    assert again.energy == first.energy


def test_a_folder_that_is_cleared_fills_again(folder, traced):
    potential = random_potential(CONFIG)
    first = potential.evaluate(bulk("Si"))
    shutil.rmtree(folder)
    compilation.forget()
    np.testing.assert_array_equal(potential.evaluate(bulk("Si")).forces, first.forces)
    assert traced() == 2
    assert len(list(folder.iterdir())) == 1


def test_results_are_those_without_a_cache(folder):
    potential = random_potential(CONFIG)
    kept = potential.evaluate(bulk("Si").repeat(2))
    phi = lattice_force_constants(potential, bulk("Si"), QPOINTS)
    kept_names = {path.name.split("-")[0] for path in folder.iterdir()}
    assert {"evaluate", "geometry", "respond"} <= kept_names
    jax.config.update("jax_compilation_cache_dir", None)
    compilation.forget()
    plain = potential.evaluate(bulk("Si").repeat(2))
    np.testing.assert_array_equal(kept.forces, plain.forces)
    np.testing.assert_array_equal(phi, lattice_force_constants(potential, bulk("Si"), QPOINTS))


def test_other_models_and_sizes_have_programs_of_their_own(folder, traced):
    random_potential(CONFIG).evaluate(bulk("Si"))
    random_potential(dataclasses.replace(CONFIG, cutoff=3.1)).evaluate(bulk("Si"))
    random_potential(CONFIG).evaluate(bulk("Si").repeat(2))
    random_potential(CONFIG, seed=1).evaluate(bulk("Si"))  # weights are arguments
    assert traced() == len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"x" * 5000])
def test_a_damaged_file_is_traced_again_and_replaced(folder, traced, damage):
    potential = random_potential(CONFIG)
    first = potential.evaluate(bulk("Si"))
    (path,) = folder.iterdir()
    path.write_bytes(damage)
    compilation.forget()  # as in a new process
    np.testing.assert_array_equal(potential.evaluate(bulk("Si")).forces, first.forces)
    assert traced() == 2
    assert programs._read(path)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes of POSIX")
def test_what_others_may_have_written_is_not_read(folder, traced, monkeypatch):
    """Whoever writes a program's file runs code: of another owner, or open to a group."""
    potential = random_potential(CONFIG)
    before = os.umask(0o002)  # of many systems: what is new may be written by the group
    try:
        potential.evaluate(bulk("Si"))
    finally:
        os.umask(before)
    (path,) = folder.iterdir()
    assert not (path.stat().st_mode | folder.stat().st_mode) & 0o022
    assert programs._read(path)
    for place in (path, folder):
        mode = place.stat().st_mode
        place.chmod(mode | 0o020)
        assert programs._read(path) is None
        place.chmod(mode)
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    assert (programs._read(path) is None) == (uid != 0)  # the administrator's are trusted
    compilation.forget()
    potential.evaluate(bulk("Si"))
    assert traced() == (1 if uid == 0 else 2)


def test_a_folder_that_cannot_be_made_is_no_error(folder, traced):
    folder.write_text("a file stands where the folder should be", "utf-8")
    assert np.isfinite(random_potential(CONFIG).evaluate(bulk("Si")).energy)
    assert traced() == 1


@pytest.mark.parametrize("change", ["name", "structure", "options", "source"])
def test_all_that_a_program_depends_on_is_part_of_its_name(change):
    words = {"name": "f", "structure": (3,), "options": {}, "source": "a" * 64}
    assert programs._file_name(**words) == programs._file_name(**words)
    assert programs._file_name(**words) != programs._file_name(**words | {change: "b" * 64})


@dataclasses.dataclass(frozen=True)
class Kind:
    """Stands for a model: what a kept program depends on beside its arguments."""

    key: str = "sines"


calls: list[int] = []


@compilation.compiled(static_argnums=(0,), keep=True)
def sines(kind, x):
    """Compile fast, into many memory maps."""
    calls.append(len(x))
    for _ in range(20):
        x = jnp.sin(x @ x.T)[:, : x.shape[1]]
    return x


def run(size):
    calls.clear()
    return np.asarray(sines(Kind(), np.full((size, size), 0.1)))


def test_programs_of_imported_source_are_not_filed_under_newer_source(folder, monkeypatch):
    """An upgrade under a running process: its modules are old, or old and new ones mixed."""
    first = run(3)
    compilation.forget()
    path = next(path for path in source._AT_IMPORT if path.endswith("graph.py"))
    before = source._AT_IMPORT | {path: (0, 0, 0)}  # the file has changed since
    monkeypatch.setattr(source, "_AT_IMPORT", before)
    np.testing.assert_array_equal(run(3), first)
    assert calls == [3]  # the filed one is not used, it may be of newer source by now
    run(4)
    assert len(list(folder.iterdir())) == 1


def test_what_jax_has_in_its_own_cache_is_not_kept(folder, monkeypatch):
    """Programs from there lack functions when they are written again."""
    potential = random_potential(CONFIG)
    with monkeypatch.context() as changed:
        path = next(path for path in source._AT_IMPORT if path.endswith("graph.py"))
        changed.setattr(source, "_AT_IMPORT", source._AT_IMPORT | {path: (0, 0, 0)})
        first = lattice_force_constants(potential, bulk("Si"), QPOINTS)  # cached by JAX
    assert not folder.exists()
    for _ in range(2):  # kept, and read
        compilation.forget()
        again = lattice_force_constants(potential, bulk("Si"), QPOINTS)
        np.testing.assert_array_equal(again, first)
    assert list(folder.iterdir())


def test_a_change_of_the_source_is_seen(tmp_path, monkeypatch):
    path = tmp_path / "room" / "module.py"
    path.parent.mkdir()

    def install(text):
        """Replace the file as pip does; the times may be those of an archive."""
        (tmp_path / "new").write_text(text, "utf-8")
        os.utime(tmp_path / "new", (1e9, 1e9))
        os.replace(tmp_path / "new", path)

    def begin():
        monkeypatch.setattr(source, "_AT_IMPORT", source._states())
        source._digest.cache_clear()
        return source.imported_source()

    monkeypatch.setattr(source, "_PACKAGE", tmp_path)
    assert begin() is None  # a package without files, as in a zip archive
    install("x = 1")
    first = begin()
    assert first is not None
    assert source.imported_source() == first
    install("x = 2")
    assert source.imported_source() is None
    second = begin()
    assert second not in (None, first)
    path.write_text("x = 3", "utf-8")
    assert source.imported_source() is None
    assert begin() is not None
    path.unlink()
    assert source.imported_source() is None
    monkeypatch.undo()
    source._digest.cache_clear()
    assert source.imported_source() is not None


@pytest.mark.skipif(sys.platform != "linux", reason="memory maps are counted on Linux only")
def test_kept_programs_that_come_back_after_clearing_are_counted(folder, monkeypatch):
    """Programs are forgotten before memory maps run out, however often they come from disk."""
    sizes = range(3, 9)
    expected = [run(size) for size in sizes]  # all are filed now
    full = compilation.memory_maps()
    compilation.forget()
    empty = compilation.memory_maps()
    assert full - empty > 3 * len(sizes)
    allowed = (full + empty) // 2
    monkeypatch.setattr(compilation, "maps_allowed", lambda: allowed / compilation._MAPS_SHARE)
    before = compilation.generation()
    for _ in range(3):
        for size, values in zip(sizes, expected, strict=True):
            np.testing.assert_array_equal(run(size), values)
            assert calls == []  # from its file
    assert compilation.generation() >= before + 2
    assert compilation.memory_maps() < full


def test_the_files_used_longest_ago_go_first(tmp_path):
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    programs.trim(tmp_path, limit=25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    programs.trim(tmp_path / "none", limit=0)  # no folder, no error


def test_a_program_that_is_used_stays_when_room_is_made(folder):
    run(3)
    run(4)
    old, new = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    os.utime(old, (1e9, 1e9))
    os.utime(new, (2e9, 2e9))
    compilation.forget()
    run(3)
    run(4)
    assert min(path.stat().st_mtime for path in folder.iterdir()) > 1.5e9
    assert programs.stored().files == 2
    assert programs.clear().files == 2
    assert programs.stored() == (0, 0)


def test_programs_begun_together_are_those_that_the_response_needs(folder):
    """A rehearsal with zeros asks for the programs of a computation, and for no others."""
    potential = random_potential(CONFIG)
    compilation.forget()
    begun = rehearse(potential)
    for program in begun:
        program.executable.result()
    before = compilation.count_programs()
    lattice_force_constants(potential, bulk("Si"), QPOINTS)
    assert compilation.count_programs() == before
    assert len(list(folder.iterdir())) == len({id(program) for program in begun}) == 12


def test_where_programs_are_found_e3nn_is_not_imported(folder):
    script = (
        "import sys\n"
        "import phonopy_equivariant as pe\n"
        "pe.phonons(*sys.argv[1:], supercell=[1, 1, 1])\n"
        "print(sorted({'e3nn_jax', 'sympy', 'ase.io', 'scipy.stats'} & set(sys.modules)))"
    )
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder.parent)}
    write(folder.parent / "POSCAR", bulk("Si"))
    save_checkpoint(random_potential(CONFIG), folder.parent / "small.npz")
    imported = [
        subprocess.run(
            [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                script,
                *(str(folder.parent / name) for name in ("POSCAR", "small.npz")),
            ],
            env=environment,
            capture_output=True,
            check=True,
        ).stdout.decode()
        for _ in range(2)
    ]
    assert "e3nn_jax" in imported[0]
    assert imported[1].strip() == "[]"

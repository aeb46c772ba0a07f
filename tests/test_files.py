"""Files are whole whoever writes them, and nothing else is left behind."""

import concurrent.futures
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phonopy_equivariant import files
from phonopy_equivariant.errors import PhonopyEquivariantError

WRITERS = 10
ROUNDS = 10


def content(writer: int) -> bytes:
    """Return what one writer writes: every byte says who wrote it, and each has its own size."""
    return bytes([writer]) * (200_000 + 1000 * writer)


def write_again_and_again(path: Path, writer: int, wait: Callable[[], object]) -> None:
    wait()
    for _ in range(ROUNDS):
        files.check_writable(path)
        files.write_atomically(path, content(writer))


def watch(path: Path, busy: Callable[[], bool]) -> None:
    """Check that a file is one writer's whole one for as long as there are writers."""
    whole = {content(writer) for writer in range(WRITERS)}
    while busy():
        assert path.read_bytes() in whole
    assert path.read_bytes() in whole
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_ten_threads_write_one_path(tmp_path: Path) -> None:
    path = tmp_path / "result.bin"
    files.write_atomically(path, content(0))
    start = threading.Barrier(WRITERS)
    with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
        tasks = [pool.submit(write_again_and_again, path, k, start.wait) for k in range(WRITERS)]
        watch(path, lambda: not all(task.done() for task in tasks))
        for task in tasks:
            task.result()


def write_with_a_common_number(path: Path, writer: int, wait: Callable[[], object]) -> None:
    """Be one of several computers whose processes happen to have the same number."""
    os.getpid = lambda: 4711
    write_again_and_again(path, writer, wait)


def ten_processes(path: Path) -> None:
    """Write with ten forked processes; this one must have no threads."""
    files.write_atomically(path, content(0))
    context = multiprocessing.get_context("fork")
    start = context.Barrier(WRITERS)
    children = [
        context.Process(target=write_with_a_common_number, args=(path, k, start.wait))
        for k in range(WRITERS)
    ]
    for child in children:
        child.start()
    watch(path, lambda: any(child.is_alive() for child in children))
    assert [child.exitcode for child in children] == [0] * WRITERS


def test_ten_processes_write_one_path(tmp_path: Path) -> None:
    """Forked in a process of their own: this one may have threads of JAX."""
    code = "import pathlib, sys, test_files; test_files.ten_processes(pathlib.Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "result.bin")],
        cwd=Path(__file__).parent,
        check=True,
        timeout=120,
    )


def test_threads_write_structures_through_ase(tmp_path: Path) -> None:
    """The temporary file has the name of the path, from which ASE may tell the format."""
    import ase.io
    from ase.build import bulk

    path = tmp_path / "POSCAR"
    cells = [bulk("Si").repeat(k) for k in range(1, 6)]

    def write(atoms: Any) -> None:
        for _ in range(5):
            with files.replacing(path) as temporary:
                ase.io.write(temporary, atoms)

    with concurrent.futures.ThreadPoolExecutor(len(cells)) as pool:
        list(pool.map(write, cells))
    assert len(ase.io.read(path)) in {len(atoms) for atoms in cells}
    assert [entry.name for entry in tmp_path.iterdir()] == ["POSCAR"]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_permissions_are_those_that_open_gives(tmp_path: Path, umask: int) -> None:
    path, plain = tmp_path / "ours", tmp_path / "plain"
    old = os.umask(umask)
    try:
        files.write_atomically(path, b"new")
        plain.write_bytes(b"new")
        assert mode(path) == mode(plain)
        for given in (0o640, 0o755):  # writing into an existing file keeps its permissions
            path.chmod(given)
            files.write_atomically(path, b"newer")
            assert mode(path) == given
    finally:
        os.umask(old)


def test_content_is_on_the_disk_before_the_name_and_then_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut cannot be had here; the order of the system calls can."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "content")
        fsync(handle)

    def renamed(old: Path, new: Path) -> None:
        calls.append("name")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    with files.replacing(tmp_path / "array.npy") as temporary:
        np.save(temporary, np.arange(3))  # a writer that knows nothing of this
    assert calls == ["content", "name", "folder"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result"
    path.write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to(path)
    for error, expected in (
        (OSError(28, "No space left on device"), PhonopyEquivariantError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        with pytest.raises(expected), files.replacing(link) as temporary:
            temporary.write_bytes(b"half")
            raise error
        assert path.read_bytes() == b"old"
    files.write_atomically(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "result"]


def test_a_name_as_long_as_the_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".npz")
    files.check_writable(path)
    files.write_atomically(path, b"long")
    assert path.read_bytes() == b"long"
    with pytest.raises(PhonopyEquivariantError, match="Cannot write"):
        files.check_writable(tmp_path / ("x" * 300))

"""The queue and the inputs of examples/paper, without the first-principles programs."""

from __future__ import annotations

import fcntl
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from phonopy_equivariant.data import Record, read_records, write_records
from phonopy_equivariant.structure import Structure

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "examples" / "paper"))

import jobs  # noqa: E402
import silicon_dft  # noqa: E402

PRIMITIVE = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])  # of a cubic cell of 1
CUBIC_GROUP = [  # the 48 signed permutations of x, y, z
    np.diag(signs)[list(order)]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def record(seed: int) -> Record:
    positions, forces = np.random.default_rng(seed).normal(size=(2, 2, 3))
    structure = Structure(np.array([14, 14]), positions, 9.0 * np.eye(3), np.ones(3, bool))
    return Record(structure, energy=float(seed), forces=forces, level="PBEsol")


def points_modulo(points: np.ndarray, size: int) -> set[tuple[int, ...]]:
    """k points in units of 2π/a, modulo a supercell's reciprocal vectors, as integers."""
    components = points @ (size * PRIMITIVE).T
    return {tuple(row) for row in np.round(24 * components).astype(int) % 24}


def cartesian(size: int, divisions: int) -> np.ndarray:
    """The k points of special_points with their opposites, in units of 2π/a."""
    numerators = np.array([point for point, _ in silicon_dft.special_points(size, divisions)])
    points = np.linalg.solve(size * PRIMITIVE, numerators.T / (2 * divisions)).T
    return np.vstack([points, -points])


@pytest.mark.parametrize(("size", "divisions"), [(1, 3), (1, 4), (2, 4), (3, 3), (2, 6), (3, 6)])
def test_k_points_have_the_symmetry_of_the_crystal_and_fold(size: int, divisions: int) -> None:
    weights = [weight for _, weight in silicon_dft.special_points(size, divisions)]
    points = points_modulo(cartesian(size, divisions), size)
    assert sum(weights) * size**3 == 4 * divisions**3
    assert len(points) * size**3 == 4 * divisions**3
    for rotation in CUBIC_GROUP:
        assert points_modulo(cartesian(size, divisions) @ rotation.T, size) == points
    assert points_modulo(cartesian(1, divisions), size) == points


@pytest.mark.parametrize("divisions", [3, 4])
def test_k_points_are_the_images_of_the_monkhorst_pack_grid(divisions: int) -> None:
    """So displaced cells and DFPT, which uses the symmetry, are at one level."""
    steps = np.array(list(itertools.product(range(divisions), repeat=3)))
    grid = (steps + 0.5) / divisions @ np.linalg.inv(PRIMITIVE).T
    images = set().union(*(points_modulo(grid @ rotation.T, 1) for rotation in CUBIC_GROUP))
    assert images == points_modulo(cartesian(1, divisions), 1)


def test_k_points_that_do_not_fold_are_refused() -> None:
    with pytest.raises(ValueError, match="2 does not divide 3"):
        silicon_dft.special_points(2, 3)


def test_done_jobs_are_skipped_and_failed_ones_leave_nothing(tmp_path: Path) -> None:
    calls = []

    def fail(scratch: Path, path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    def make(scratch: Path) -> Record:
        calls.append(sorted(path.name for path in scratch.iterdir()))
        (scratch / "temporary").touch()
        return record(1)

    first = jobs.record_job("a", make)
    with pytest.raises(KeyboardInterrupt):
        jobs.run(tmp_path, [first, jobs.Job("b.extxyz", fail)])
    assert not (tmp_path / "b.extxyz").exists()
    (tmp_path / "scratch-b.extxyz" / "of the ended job").touch()
    jobs.run(tmp_path, [first, jobs.record_job("b", make)])
    assert calls == [[], []]  # the first once, and each in an empty folder
    visible = sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".")
    assert visible == ["a.extxyz", "b.extxyz"]


def test_a_job_of_another_process_is_left_to_it(tmp_path: Path) -> None:
    queue = [jobs.record_job(name, lambda scratch: record(2)) for name in "ab"]
    with open(tmp_path / ".a.extxyz.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        jobs.run(tmp_path, queue)
    assert not (tmp_path / "a.extxyz").exists()
    assert (tmp_path / "b.extxyz").exists()
    jobs.run(tmp_path, queue)
    assert (tmp_path / "a.extxyz").exists()


def test_only_complete_sets_are_collected(tmp_path: Path) -> None:
    work, data = tmp_path / "work", tmp_path / "data"
    work.mkdir()
    for index in range(3):
        write_records([record(index)], work / f"x_{index}.extxyz")
    sets = {"whole": ["x_2", "x_0"], "partial": ["x_1", "x_3"]}
    assert not jobs.collect(work, data, sets)
    assert [path.name for path in data.iterdir()] == ["whole.extxyz.xz"]
    collected = read_records(data / "whole.extxyz.xz")
    assert [one.energy for one in collected] == [2.0, 0.0]
    assert np.array_equal(collected[0].structure.positions, record(2).structure.positions)
    assert jobs.collect(work, data, {"whole": sets["whole"]})


def fake_pw(folder: Path, monkeypatch: pytest.MonkeyPatch, last_lines: int) -> None:
    """Put a pw.x on the path that prints a stored output without its last lines."""
    stored = ROOT / "tests" / "data" / "espresso" / "sic.pwo"
    folder.mkdir()
    (folder / "pw.x").write_text(f"#!/bin/sh\nhead -n -{last_lines} {stored}\n")
    (folder / "pw.x").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_labels_are_those_of_the_output_and_positions_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pw(tmp_path / "bin", monkeypatch, last_lines=0)
    structure = silicon_dft.displaced(5.43, 1, 7)
    solved = silicon_dft.solved(structure, silicon_dft.explicit_k(1, 4), False, 1, tmp_path)
    (printed,) = [
        float(line.split()[-2])
        for line in (tmp_path / "pw.pwo").read_text().splitlines()
        if line.startswith("!")
    ]
    assert solved.energy == pytest.approx(printed * 13.605693, rel=1e-7)
    assert np.array_equal(solved.structure.positions, structure.positions)
    text = (tmp_path / "pw.in").read_text()
    assert "nosym = .true." in text
    assert all(f"{x:.10f}" in text for x in structure.positions.ravel())


def test_an_output_that_is_cut_short_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_pw(tmp_path / "bin", monkeypatch, last_lines=10)
    with pytest.raises(RuntimeError, match="pw.x did not finish"):
        silicon_dft.call("pw.x", "", tmp_path)


def test_displacements_depend_on_size_and_index_only() -> None:
    moves = [
        silicon_dft.displaced(a, 2, 3).positions - silicon_dft.ideal(a, 2).positions
        for a in (5.4, 5.5)
    ]
    # positions are rounded to 1e-10 Å
    np.testing.assert_allclose(moves[0], moves[1], rtol=0, atol=2e-10)
    assert np.std(moves[0]) == pytest.approx(silicon_dft.SIGMA, rel=0.3)

"""Many crystals: what is recorded, and that nothing is lost, repeated or mixed."""

import csv
import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from cli_helpers import COMMAND, assert_refused, command, environment, model, thermal_table
from test_evaluation import Page

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints.fetch import file_sha256
from phonopy_equivariant.workflows.batch.folder import BatchFolder, manifest_of, opened
from phonopy_equivariant.workflows.batch.records import Outcome, Setup, Task, compute
from phonopy_equivariant.workflows.batch.run import _listed

pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

DIM = ["--dim", "2", "--mesh", "3", "3", "3"]
OPTIONS = pe.BatchOptions(
    pe.PhononOptions(2 * np.eye(3, dtype=int)),
    (3, 3, 3),
    force_constants=True,
    bands=True,
    dos=True,
)


@pytest.fixture(scope="module")
def salts(tmp_path_factory):
    """Return a folder: four rock salts in a file, one in another, and what cannot be computed."""
    folder = tmp_path_factory.mktemp("structures")
    frames = [bulk("NaCl", "rocksalt", a) for a in (5.5, 5.6, 5.7, 5.8)]
    ase.io.write(folder / "salts.extxyz", frames)
    ase.io.write(folder / "cubic.vasp", bulk("NaCl", "rocksalt", 5.6, cubic=True))
    ase.io.write(folder / "unknown.vasp", bulk("MgO", "rocksalt", 4.2))
    (folder / "garbage.cif").write_text("no CIF")
    return folder


@pytest.fixture(scope="module")
def computed(salts, tmp_path_factory):
    """Return the folder of a run with everything kept, and its result."""
    folder = tmp_path_factory.mktemp("batch")
    return folder, pe.batch(salts, folder, model(), OPTIONS, workers=1)


def test_paths_without_structures_leave_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(pe.PhonopyEquivariantError, match=path.name):
            pe.batch(path, tmp_path / "results", model(), OPTIONS, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def lines(folder):
    text = (folder / "records.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def without_time(record):
    return {key: value for key, value in record.items() if key not in ("seconds", "files")}


def setup_of(options=OPTIONS):
    return Setup(model(), file_sha256(Path(model())), "float64", "auto", options)


def test_a_plain_loop_gives_the_same_numbers_to_the_last_digit(salts, computed):
    recorded = {record["key"]: record for record in lines(computed[0])}
    compared = 0
    for key, named in _listed(salts):
        if named.crystal is not None:
            outcome = compute(Task(key, named.name, named.label, named.crystal), setup_of())
            assert without_time(outcome.record) == without_time(recorded[key])
            compared += 1
    assert compared == 6


def test_good_ones_are_done_and_bad_ones_named(computed):
    _, result = computed
    states = {record["name"].rpartition("/")[2]: record["state"] for record in result.records}
    good = {"cubic.vasp", *(f"salts.extxyz#{k}" for k in range(4))}
    assert {name for name, state in states.items() if state == "done"} == good
    reasons = {r["name"].rpartition("/")[2]: r["reason"] for r in result.failures}
    assert "Mg" in reasons["unknown.vasp"]
    assert reasons["garbage.cif"]
    assert all("\n" not in reason for reason in reasons.values())


def test_a_record_says_what_run_and_phonopy_say(salts, computed, tmp_path):
    folder, result = computed
    record = next(r for r in result.records if r["name"].endswith("cubic.vasp"))
    command("run", salts / "cubic.vasp", "--model", model(), *DIM, "-t", cwd=tmp_path)
    table = thermal_table(tmp_path)
    row = table[table[:, 0] == 300][0]
    keys = ("free_energy", "entropy", "heat_capacity")
    np.testing.assert_allclose([record[key][0] for key in keys], row[1:], atol=2e-7)
    assert (record["space_group"], record["atoms"], record["supercell_atoms"]) == (
        "Fm-3m (225)",
        2,
        64,
    )
    # plain phonopy goes on from the file
    import phonopy

    phonon = phonopy.load(folder / "crystals" / record["key"] / "phonopy_params.yaml.xz")
    phonon.run_mesh((3, 3, 3))
    # the file has force constants with 15 decimals, cells with 15, and phonopy symmetrises them
    assert record["highest"] == pytest.approx(phonon.mesh.frequencies.max(), abs=1e-6)
    assert {name.rpartition("/")[2] for name in record["files"]} == {
        "phonopy_params.yaml.xz",
        "band.yaml.xz",
        "total_dos.dat.xz",
    }


def test_the_same_again_computes_nothing_and_other_options_are_refused(salts, computed):
    folder, result = computed
    before = (folder / "records.jsonl").read_bytes()
    again = pe.batch(salts, folder, model(), OPTIONS, scheduler="nobody is asked")
    assert (folder / "records.jsonl").read_bytes() == before
    assert again.records == result.records
    other = pe.BatchOptions(OPTIONS.phonons, (3, 3, 4), bands=True, dos=True)
    with pytest.raises(pe.PhonopyEquivariantError, match=r"options\.mesh \[3, 3, 3\] -> \[3, 3, 4"):
        pe.batch(salts, folder, model(), other)
    with pytest.raises(pe.PhonopyEquivariantError, match="sha256"):
        pe.batch(salts, folder, "pe-crystal-3", OPTIONS)


def test_a_killed_command_goes_on_where_it_was(salts, tmp_path):
    """By SIGKILL; a torn last line, as of a power cut, counts for nothing."""
    words = ["batch", str(salts), "-o", "out", "--model", model(), *DIM, "--workers", "1"]
    process = subprocess.Popen(
        [*COMMAND, *words],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    records, limit = tmp_path / "out" / "records.jsonl", time.monotonic() + 120
    while not records.exists() or records.read_bytes().count(b"\n") < 3:
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with open(records, "a", encoding="utf-8") as file:
        file.write('{"key": "torn')
    result = command(*words, cwd=tmp_path, status=1)
    assert re.search(r"computed +5\n", result.stdout)
    keys = [record["key"] for record in lines(tmp_path / "out")]
    assert len(keys) == len(set(keys)) == 7
    with open(tmp_path / "out" / "table.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7
    assert sum(float(row["free_energy_300K"] or 0) != 0 for row in rows) == 5


def test_relaxed_and_exact(salts):
    phonons = pe.PhononOptions(relaxation=pe.RelaxationOptions(), exact=True)
    options = pe.BatchOptions(phonons, (3, 3, 3), (100.0, 300.0), force_constants=True)
    crystal = next(n.crystal for _, n in _listed(salts / "cubic.vasp"))
    record, files = compute(Task("key", "salt", "", crystal), setup_of(options))
    assert record["reason"] == ""
    assert record["residual_stress"] < 0.01
    assert record["sum_rule"] is None
    assert record["supercell_suffices"]
    assert record["entropy"][0] < record["entropy"][1]
    assert list(files) == ["phonopy_params.yaml.xz"]
    expected = pe.phonons(crystal, model(), relax=True, exact=True)
    expected.run_mesh((3, 3, 3))
    assert record["highest"] == pytest.approx(expected.mesh.frequencies.max(), rel=1e-9)
    assert record["volume"] == pytest.approx(expected.primitive.volume, rel=1e-9)
    assert record["volume"] != pytest.approx(crystal.unitcell.volume / 4, rel=1e-4)


def test_one_run_a_folder(tmp_path):
    refused = pytest.raises(pe.PhonopyEquivariantError, match="Another run")
    with opened(tmp_path), refused, opened(tmp_path):
        pass
    with opened(tmp_path):
        pass


def test_a_full_disk_leaves_whole_records(tmp_path):
    folder = BatchFolder(tmp_path)
    folder.append(Outcome({"key": "a", "name": "a"}, {}))
    before = (tmp_path / "records.jsonl").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(pe.PhonopyEquivariantError, match=r"Cannot write .*records.jsonl"):
            folder.append(Outcome({"key": "b", "name": "b" * 100}, {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_failures_are_tried_again_on_request(salts, computed, tmp_path):
    shutil.copytree(computed[0], tmp_path / "copy")
    result = pe.batch(
        salts / "garbage.cif", tmp_path / "copy", model(), OPTIONS, retry=True, workers=1
    )
    assert len(lines(tmp_path / "copy")) == 8
    assert len(result.records) == 7  # the last record of a name counts


def test_a_manifest_has_all_that_a_repetition_needs(computed):
    manifest = json.loads((computed[0] / "manifest.json").read_text("utf-8"))
    assert manifest == json.loads(json.dumps(manifest_of(setup_of())))
    assert manifest["sha256"] == file_sha256(Path(model()))
    assert manifest["options"]["phonons"]["supercell"] == (2 * np.eye(3, dtype=int)).tolist()


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (["--scheduler", "tcp://127.0.0.1:9"], ["No Dask scheduler answers at tcp://127.0.0.1:9"]),
        (["--model", "none-such"], ["none-such"]),
    ],
)
def test_what_stops_everything_is_one_line(words, phrases, salts, tmp_path, monkeypatch):
    from phonopy_equivariant.workflows.batch import cluster

    monkeypatch.setattr(cluster, "_ANSWER", 1)
    given = ["--model", model(), *words]
    result = command("batch", salts / "cubic.vasp", "-o", "out", *given, cwd=tmp_path, status=1)
    assert_refused(result, *phrases)


def test_a_folder_that_cannot_be_written(salts, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["batch", salts, "-o", tmp_path / "file" / "inside", "--model", model()]
    assert_refused(command(*words, cwd=tmp_path, status=1), "Cannot write")


@pytest.mark.parametrize(
    "words",
    [["--mesh", "4", "4"], ["--exact-tolerance", "1"], ["--workers", "0"], ["--fmax", "1"]],
)
def test_wrong_usage(words, salts, tmp_path):
    command("batch", salts, "-o", "out", *words, cwd=tmp_path, status=2)


def test_tables_hold_all_records(computed, tmp_path):
    _, result = computed
    parquet = pytest.importorskip("pyarrow.parquet")
    result.write_parquet(tmp_path / "table.parquet")
    table = parquet.read_table(tmp_path / "table.parquet").to_pylist()
    assert [row["name"] for row in table] == [record["name"] for record in result.records]
    done = [row for row in table if row["state"] == "done"]
    expected = [r["free_energy"][0] for r in result.records if r["state"] == "done"]
    assert [row["free_energy_300K"] for row in done] == expected


def test_the_report_is_one_sound_file(computed, tmp_path):
    _, result = computed
    result.write_html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    page = Page(text)
    assert not page.open and not page.fetched
    assert page.counts["svg"] == 1
    assert all(word in text for word in ("garbage.cif", "Fm-3m (225)", file_sha256(Path(model()))))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium")
def test_a_click_sorts_the_crystals_in_a_browser(computed, tmp_path):
    _, result = computed
    result.write_html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    heads = "document.querySelectorAll('table.sortable th')"
    click = f"<script>{heads}[6].click();{heads}[6].click();</script>"
    (tmp_path / "report.html").write_text(text.replace("</body>", f"{click}</body>"), "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/user"]
    flags += ["--disable-background-networking", "--dump-dom"]
    dumped = subprocess.run(
        ["chromium", *flags, f"file://{tmp_path}/report.html"], capture_output=True, timeout=60
    ).stdout.decode()
    table = dumped[dumped.index('class="sortable"') : dumped.index("Failures")]
    rows = re.findall("<tr>(<td>.*?)</tr>", table)
    shown = [float(re.findall("<td>(.*?)</td>", row)[6]) for row in rows]
    assert len(set(shown)) >= 4
    assert shown == sorted(shown, reverse=True)


def test_absent_dask_is_said_before_anything_is_written(salts, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(pe.PhonopyEquivariantError, match="need Dask: pip install"):
        pe.batch(salts, tmp_path / "out", model(), OPTIONS)
    assert not (tmp_path / "out").exists()

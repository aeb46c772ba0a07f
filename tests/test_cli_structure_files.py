"""Structure files through the command: read, or one line with the remedy and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import phonopy
import pytest
from ase import Atoms
from ase.build import bulk
from cli_helpers import assert_refused, command, environment, model

# Files of ../shared/cases: atoms and cell volume (Å³) that are right, or phrases of the refusal.
CASES = {
    "cif_origin_choice_2_no_symops_diamond.cif": ("Si8", 5.43**3),
    "cif_rhombohedral_axes_no_symops_Sb.cif": ("Sb", 4.746**3 / 2**0.5),
    "cif_hall_symbol_only_NaCl.cif": ("Na4Cl4", 5.64**3),
    "cif_nonstandard_setting_Pbnm_no_symops.cif": ("Ca4Ti4O12", 5.38 * 5.44 * 7.639),
    "cif_symops_without_space_group_name.cif": ("Mg4O4", 4.2**3),
    "cif_space_group_name_question_mark.cif": ("Mg4O4", 4.2**3),
    "cif_occupancy_question_mark.cif": ("Fe4O4", 4.3**3),
    "cif_four_digit_thirds_ZnO.cif": ("Zn2O2", 3.2495**2 * 5.2069 * 0.75**0.5),
    "cif_hydrogens_missing_from_sites.cif": ("'Ca H2 O2'", "no sites of H2"),
    "at_sign/POSCAR@0": ("Si8", 5.43**3),
    "at_sign/POSCAR": ("Si8", 5.6**3),
    "POSCAR_deuterium_LiD": ("Li4H4", 4.08**3),
    "left_handed_NaCl.vasp": ("Na4Cl4", 5.667**3),
    "latin1_comment.vasp": ("Si8", 5.43**3),
    "vasp4_without_species.vasp": ("names no species", "write a line with the symbols"),
    "quantum_espresso_scf.in": ("Na4Cl4", (10.7095 * 0.529177210903) ** 3),
    "selective_dynamics_all_fixed.vasp": ("Zn2O2", 3.2495**2 * 5.2069 * 0.75**0.5),
}


# The command's entry point for one file after the other, each with its status and messages.
ALL = """
import contextlib, io, json, sys
from phonopy_equivariant.cli import main
for number, name in enumerate(sys.argv[2:]):
    words = f"--positions 0 --cell 0 --count 1 -q -o {number}.extxyz".split()
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        status = main(["dataset", "perturb", f"{sys.argv[1]}/{name}", *words])
    print(json.dumps([status, errors.getvalue()]))
"""


def test_known_cases(tmp_path: Path, shared: Path) -> None:
    """One unperturbed copy of each, which needs no potential."""
    cases = shared / "cases"
    if not cases.is_dir():
        pytest.skip("the folder ../shared/cases is absent")
    result = subprocess.run(
        [sys.executable, "-c", ALL, str(cases), *CASES],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (result.returncode, result.stderr) == (0, "")
    for number, (name, line) in enumerate(zip(CASES, result.stdout.splitlines(), strict=True)):
        status, errors = json.loads(line)
        output = tmp_path / f"{number}.extxyz"
        first, second = CASES[name]
        if isinstance(second, str):
            assert status == 1 and not output.exists(), name
            assert len(errors.splitlines()) == 1 and first in errors and second in errors
            continue
        assert (status, errors) == (0, ""), name
        atoms = ase.io.read(output)
        assert isinstance(atoms, Atoms)
        assert atoms.symbols.formula.count() == Atoms(first).symbols.formula.count(), name
        assert atoms.get_volume() == pytest.approx(second, rel=1e-6), name


def test_frames_and_left_handed_cells(tmp_path: Path) -> None:
    """The last structure is taken and turned round; its frequencies are those of the first."""
    atoms = bulk("NaCl", "rocksalt", a=5.7)
    left = Atoms(atoms.symbols, cell=atoms.cell.array[[1, 0, 2]], pbc=True)
    left.positions = atoms.positions
    ase.io.write(tmp_path / "NaCl.extxyz", [atoms, left])
    frequencies = []
    for words, said in (
        ((), ["the last is taken, the first with --index 0", "left-handed"]),
        (("--index", -2), []),
    ):
        words = ("fc", "NaCl.extxyz", *words, "--dim", 2, "--model", model())
        result = command(*words, cwd=tmp_path)
        lines = result.stderr.splitlines()[: len(said)]
        assert all(phrase in line for phrase, line in zip(said, lines, strict=True))
        assert "Warning" not in result.stderr
        phonon = phonopy.load(tmp_path / "phonopy_params.yaml", symmetrize_fc=False)
        q = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0.5]]
        frequencies.append(phonon.run_qpoints(q).frequencies)
    np.testing.assert_allclose(frequencies[1], frequencies[0], rtol=0, atol=1e-5)
    words = ("relax", "NaCl.extxyz", "--index", 5, "-o", "POSCAR")
    result = command(*words, cwd=tmp_path, status=1)
    assert_refused(result, "NaCl.extxyz: has no structure --index 5")

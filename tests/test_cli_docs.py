"""The blocks of docs/frozen_phonon_to_one_line.md are executed; pairs of them agree."""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import CONFIG, model, poscar, scratch, shell, thermal_table

import phonopy_equivariant as pe

PAGE = Path(__file__).resolve().parents[1] / "docs" / "frozen_phonon_to_one_line.md"
PUBLISHED = "nequix-mp-1-pft"

# Stands for VASP: reads POSCAR, writes what phonopy-init -f reads of vasprun.xml. The first of two
# sessions with the same displaced cells computes, the second finds the files.
VASP = """\
#!/bin/bash
computed={folder}/$(sha256sum < POSCAR | cut -c -64).xml
[ -e $computed ] || {python} {folder}/forces.py $computed
cp $computed vasprun.xml
"""

FORCES = """\
import sys
import ase.io
import phonopy_equivariant as pe

pe.enable_compilation_cache()
atoms = ase.io.read("POSCAR")
result = pe.load_potential(MODEL).evaluate(atoms)

def rows(values):
    return "".join("<v>%.12f %.12f %.12f</v>" % tuple(row) for row in values)

structure = (
    f'<structure><crystal><varray name="basis">{rows(atoms.cell)}</varray></crystal>'
    f'<varray name="positions">{rows(atoms.get_scaled_positions())}</varray></structure>'
)
forces = f'<varray name="forces">{rows(result.forces)}</varray>'
names = ("e_fr_energy", "e_wo_entrp", "e_0_energy")
energy = "".join(f'<i name="{name}">{result.energy}</i>' for name in names)
with open(sys.argv[1], "w") as file:
    file.write(
        '<?xml version="1.0" encoding="ISO-8859-1"?><modeling><generator><i name="version" '
        f'type="string">6.4.2</i></generator><calculation>{structure}{forces}<energy>{energy}</energy>'
        '</calculation></modeling>'
    )
"""


def blocks() -> dict[str, str]:
    """Return the page's code blocks by the name in the comment before each."""
    found = re.findall(r"<!-- test: (.+?) -->\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return dict(found)


def changed_lines(before: str, after: str) -> int:
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return sum(line.startswith("- ") for line in lines)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Thermal properties after each block of bash, run in a folder of its own."""
    programs = scratch() / "bin"
    programs.mkdir()
    vasp = programs / "vasp_std"
    vasp.write_text(VASP.format(folder=programs, python=sys.executable))
    vasp.chmod(0o755)
    (programs / "forces.py").write_text(FORCES.replace("MODEL", repr(model())))
    result = {}
    for name in ("session before", "session after", "vasp before", "vasp after", "vasp better"):
        folder = tmp_path_factory.mktemp("docs")
        poscar(folder)
        script = blocks()[name].replace(PUBLISHED, model())
        shell(f'export PATH="{programs}:$PATH"\n{script}', folder)
        result[name] = thermal_table(folder)
    return result


def test_frozen_phonons_and_the_one_line_agree(tables: dict[str, np.ndarray]) -> None:
    frozen, ours = tables["session before"], tables["session after"]
    # anharmonicity within 0.01 Å; the first rows have entropies near zero, where the rounding of
    # the acoustic modes at Gamma enters; the free energy (kJ/mol) crosses zero
    np.testing.assert_allclose(ours[10:, 2:], frozen[10:, 2:], rtol=0.01)
    np.testing.assert_allclose(ours[:, 1], frozen[:, 1], rtol=0, atol=0.1)


def test_one_changed_line_gives_the_same_frozen_phonons(tables: dict[str, np.ndarray]) -> None:
    text = blocks()
    assert changed_lines(text["vasp before"], text["vasp after"]) == 1
    # forces through a file of VASP with 12 decimals, and through FORCE_SETS with 10
    after, before = tables["vasp after"], tables["vasp before"]
    np.testing.assert_allclose(after[10:, 2:], before[10:, 2:], rtol=5e-3)


def test_one_changed_line_gives_analytic_force_constants(tables: dict[str, np.ndarray]) -> None:
    text = blocks()
    assert changed_lines(text["vasp before"], text["vasp better"]) == 1
    # plain phonopy projects and run does not: that is rounding, at most the last of seven decimals
    np.testing.assert_allclose(tables["vasp better"], tables["session after"], rtol=0, atol=2e-7)


def test_every_line_of_the_session_is_in_the_table() -> None:
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    text = "\n".join(table)
    for words in ("phonopy-init -d --dim 2 2 2 -c POSCAR", "vasp_std", "phonopy-init -f"):
        assert words in text
    assert "--mesh 11 11 11 -t" in text


def test_scripts_of_ase(tmp_path: Path) -> None:
    text = blocks()
    assert changed_lines(text["ase before"], text["ase after"]) == 1
    changes = {"species": (29,), "num_interactions": 1}
    copper = pe.random_potential(pe.NequIPConfig(**(CONFIG | changes)), seed=0)
    path = pe.save_checkpoint(copper, scratch() / "copper.npz")
    values = {}
    for name in ("ase before", "ase after", "ase better"):
        file = tmp_path / f"{name.replace(' ', '_')}.py"
        file.write_text(text[name].replace(PUBLISHED, str(path)))
        values[name] = float(shell(f"{sys.executable} -W ignore {file.name}", tmp_path))
    assert values["ase before"] > 20
    assert abs(values["ase after"] - values["ase better"]) < 0.05

"""Options that mean nothing are refused at once: before the structure is read or JAX starts."""

import shlex
from pathlib import Path
from unittest import mock

import pytest
from cli_helpers import command

WRONG = {
    "qha POSCAR --volumes 4": "--volumes 4: an equation of state needs 5",
    "qha POSCAR --volume-range 3 -3": "--volume-range 3 -3",
    "qha POSCAR --pressure 1e6": "--pressure 1e+06: give GPa, 1000 at most",
    "qha POSCAR --eos vinnet": "--eos vinnet: phonopy has no such; take vinet",
    "qha POSCAR --tstep 0": "--tstep 0",
    "qha POSCAR --anisotropic --grid 3": "--grid 3",
    "sscha POSCAR --temperature 300 -5": "--temperature 300 -5",
    "sscha POSCAR --snapshots 1": "--snapshots 1",
    "sscha POSCAR --seed -1": "--seed -1",
    "unstable POSCAR --max-cells 9": "--max-cells 9: supercells of up to 8",
    "unstable POSCAR --threshold 0": "--threshold 0",
    "converge POSCAR --tolerance 2": "--tolerance 2",
    "converge POSCAR --max-atoms 0": "--max-atoms 0",
}


@pytest.mark.parametrize("words", WRONG)
def test_refused_before_anything_starts(words: str, tmp_path: Path) -> None:
    with mock.patch("phonopy_equivariant.cli.start.start_crystal") as start:
        done = command(*shlex.split(words), cwd=tmp_path, status=1)
    assert WRONG[words] in done.stderr and done.stderr.count("\n") == 1
    assert not start.called and not list(tmp_path.iterdir())

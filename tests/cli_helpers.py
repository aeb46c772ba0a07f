"""What the tests of the command line share: a small model, structures, and the command itself."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import yaml
from phonopy import Phonopy
from phonopy.interface.vasp import read_vasp

from phonopy_equivariant.checkpoints.native import save_checkpoint
from phonopy_equivariant.cli import run_command
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.potential import Potential, random_potential

COMMAND = [str(Path(sys.executable).parent / "phonopy-equivariant")]
# With these weights rock salt has a minimum of the energy near LATTICE and no imaginary modes.
SEED = 110
LATTICE = 5.6
CONFIG = {
    "species": (8, 11, 14, 17),
    "cutoff": 4.0,
    "num_interactions": 2,
    "hidden_irreps": "4x0e + 3x1o",
    "l_max": 1,
    "num_radial_basis": 4,
    "radial_width": 8,
    "radial_depth": 1,
    "avg_num_neighbors": 12.0,
    "shift": -1.5,
    "scale": 20.0,
}


@functools.cache
def scratch() -> Path:
    """Return a folder that goes when the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="phonopy_equivariant_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def potential() -> Potential:
    """Return the small model's potential."""
    return random_potential(NequIPConfig(**CONFIG), seed=SEED)


@functools.cache
def model() -> str:
    """Return the path of a small model's checkpoint."""
    return str(save_checkpoint(potential(), scratch() / "small.npz", labels={"name": "small"}))


def environment(**changes: str | None) -> dict[str, str]:
    """Return the environment of the command: a cache of its own, no models, no network.

    Compiled functions are shared by all tests, see conftest.py.
    """
    values: dict[str, str | None] = dict(os.environ) | {
        "JAX_PLATFORMS": "cpu",
        "XDG_CACHE_HOME": str(scratch() / "cache"),
        "PHONOPY_EQUIVARIANT_MODELS": None,
        "TF_CPP_MIN_LOG_LEVEL": None,  # JAX set it for this process
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9"),
        **dict.fromkeys(("NO_PROXY", "no_proxy")),
    }
    values |= changes
    return {name: value for name, value in values.items() if value is not None}


def command(
    *words: object, cwd: Path, status: int | None = 0, **changes: str | None
) -> subprocess.CompletedProcess[str]:
    """Run the command in this process and check its exit status, unless that is None."""
    arguments, output, error = [str(word) for word in words], io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, environment(**changes), clear=True),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(error),
        warnings.catch_warnings(),
    ):
        # as in a process of its own: phonopy warns users, and leaves a file to the collector
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", category=ResourceWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        code = run_command(arguments)
    return _checked(
        subprocess.CompletedProcess(arguments, code, output.getvalue(), error.getvalue()), status
    )


def installed(
    *words: object, cwd: Path, status: int | None = 0, **changes: str | None
) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own: as :func:`command`, in seconds more."""
    result = subprocess.run(
        [*COMMAND, *map(str, words)],
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=300,
    )
    return _checked(result, status)


def _checked(
    result: subprocess.CompletedProcess[str], status: int | None
) -> subprocess.CompletedProcess[str]:
    if status is not None:
        assert result.returncode == status, result.stdout + result.stderr
    return result


def shell(script: str, cwd: Path) -> str:
    """Run lines of bash, stopping at the first that fails, and return what they print."""
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def assert_refused(result: subprocess.CompletedProcess[str], *phrases: str) -> None:
    """Check that the command said one line with these phrases, and no traceback."""
    lines = [line for line in result.stderr.splitlines() if not line.endswith(" ...")]
    assert len(lines) == 1, result.stderr
    assert "error: " in lines[0]
    assert "unexpected" not in lines[0], lines[0]
    for phrase in phrases:
        assert phrase in lines[0], lines[0]


def poscar(
    folder: Path, name: str = "POSCAR", lattice: float = LATTICE, symbols: str = "Na Cl"
) -> Path:
    """Write rock salt's primitive cell and return the file's path."""
    path = folder / name
    path.write_text(
        f"rock salt\n{lattice}\n0 0.5 0.5\n0.5 0 0.5\n0.5 0.5 0\n{symbols}\n1 1\nDirect\n"
        "0 0 0\n0.5 0.5 0.5\n"
    )
    return path


def displaced(folder: Path, size: int = 2, lattice: float = LATTICE) -> Path:
    """Write rock salt and what phonopy-init -d makes of it, and return the latter's path."""
    phonon = Phonopy(read_vasp(poscar(folder, lattice=lattice)), size * np.eye(3, dtype=int))
    phonon.generate_displacements()
    phonon.save(folder / "phonopy_disp.yaml")
    return folder / "phonopy_disp.yaml"


def rutile(folder: Path, u: float = 0.31) -> Path:
    """Write a tetragonal crystal with a free coordinate u and return the file's path."""
    path = folder / "rutile.vasp"
    path.write_text(
        "rutile\n1.0\n4.9 0 0\n0 4.9 0\n0 0 3.3\nSi O\n2 4\nDirect\n0 0 0\n0.5 0.5 0.5\n"
        f"{u} {u} 0\n{-u} {-u} 0\n{0.5 + u} {0.5 - u} 0.5\n{0.5 - u} {0.5 + u} 0.5\n"
    )
    return path


def thermal_table(folder: Path) -> np.ndarray:
    """Return temperature, free energy, entropy and heat capacity as phonopy wrote them."""
    content = yaml.safe_load((folder / "thermal_properties.yaml").read_text())
    keys = ("temperature", "free_energy", "entropy", "heat_capacity")
    return np.array([[row[key] for key in keys] for row in content["thermal_properties"]], float)


def leftovers(folder: Path) -> list[str]:
    """Return names of temporary files."""
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]

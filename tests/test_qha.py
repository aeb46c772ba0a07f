"""Quasi-harmonic approximation: phonopy's numbers on our volumes, what is left out, the command."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import phonopy
import pytest
import yaml
from ase.build import bulk
from cli_helpers import LATTICE, assert_refused, command, model, poscar
from cli_helpers import potential as small_potential
from phonopy import PhonopyQHA
from phonopy.physical_units import get_physical_units

import phonopy_equivariant as pe
from phonopy_equivariant.phonons.expansion_comparison import compare_expansions
from phonopy_equivariant.workflows import volumes as workflow

MESH = (6, 6, 6)
SALT = bulk("NaCl", "rocksalt", a=LATTICE)

# phonopy-qha's files, each with a plot of that name
NAMES = [
    "helmholtz-volume",
    "volume-temperature",
    "thermal_expansion",
    "gibbs-temperature",
    "bulk_modulus-temperature",
    "Cp-temperature",
    "gruneisen-temperature",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("volumes")


@pytest.fixture(scope="module")
def result(folder: Path) -> pe.QuasiHarmonic:
    return pe.qha(
        SALT,
        small_potential(),
        2,
        volumes=7,
        volume_range=(-3, 3),
        mesh=MESH,
        tmax=300,
        keep=folder,
    )


def test_the_same_volumes_by_hand(result: pe.QuasiHarmonic, folder: Path) -> None:
    """phonopy's older class on phonopy's own thermal properties of the files that were kept."""
    files = sorted(folder.glob("phonopy_params-*.yaml"))
    assert len(files) == 7
    temperatures = np.arange(32) * 10.0
    volumes, energies, tables = [], [], []
    for file in files:
        phonon = phonopy.load(file, log_level=0)
        phonon.run_mesh(MESH, is_gamma_center=True)
        phonon.run_thermal_properties(temperatures=temperatures, exclude_gamma_acoustic=True)
        table: Any = phonon.thermal_properties
        tables.append([table.free_energy, table.heat_capacity, table.entropy])
        volumes.append(phonon.primitive.volume)
        energies.append(small_potential().evaluate(phonon.primitive).energy)
    free_energy, capacity, entropy = np.moveaxis(np.array(tables), 0, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        by_hand = PhonopyQHA(
            volumes,
            energies,
            temperatures=temperatures,
            free_energy=free_energy,
            cv=capacity,
            entropy=entropy,
            t_max=300,
        )
    ours, units = result.phonopy, get_physical_units()
    # the least-squares fit of the equation of state ends at 1e-8 or so; files have 15 digits
    for theirs, value in (
        (by_hand.volume_temperature, ours.equilibrium_volumes),
        (by_hand.gibbs_temperature, ours.gibbs_free_energies),
        (by_hand.bulk_modulus_temperature, ours.bulk_moduli * units.EVAngstromToGPa),
        (by_hand.thermal_expansion, ours.thermal_expansion),
        (by_hand.gruneisen_temperature, ours.gruneisen_parameters),
        (
            by_hand.heat_capacity_P_polyfit,
            ours.heat_capacity_P.heat_capacities * units.EvTokJmol * 1000,
        ),
    ):
        expected = np.asarray(theirs)[: len(value)]
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_volumes_agree_with_derivatives_at_one_volume(result: pe.QuasiHarmonic) -> None:
    """(∂S/∂V)/B at V0 from seven volumes, and from Grüneisen parameters and elastic constants."""
    comparison = compare_expansions(result)
    assert comparison is not None
    roads = comparison.roads
    # same mesh on both sides; what is left are a fit of E(V) and the folding of the supercell
    np.testing.assert_allclose(roads["VOLUMES, V0"][1:], roads["ANALYTIC, V0"][1:], rtol=0.02)
    moduli = list(comparison.bulk_moduli.values())
    assert moduli[1] == pytest.approx(moduli[0], rel=0.01)
    assert len(comparison.rows()[0]) == len(comparison.columns()) == 4


def test_volumes_are_those_asked_for(result: pe.QuasiHarmonic) -> None:
    relaxed = pe.relax(SALT, small_potential(), fmax=1e-5).get_volume()
    found = [sample.volume for sample in result.samples]
    np.testing.assert_allclose(found, relaxed * np.linspace(0.97, 1.03, 7), rtol=1e-6)
    assert result.at(300)["volume"] == pytest.approx(result.phonopy.equilibrium_volumes[-1])
    with pytest.raises(pe.PhonopyEquivariantError, match="tmax="):
        result.at(301)
    assert len(result.rows()[0]) == len(result.columns())
    assert yaml.safe_load(yaml.dump(result.to_dict()))["mesh"] == list(MESH)


def test_exact_mode_is_the_limit_of_supercells() -> None:
    """Force constants reach 16 Å: a supercell that holds them gives what exact mode gives."""
    options: dict[str, Any] = {"volumes": 5, "volume_range": (-2, 2), "tmax": 100, "compare": False}
    exact, wide = (
        pe.qha(SALT, small_potential(), supercell, is_exact, mesh=(4, 4, 4), **options)
        for supercell, is_exact in ((1, True), (8, False))
    )
    np.testing.assert_allclose(
        exact.phonopy.thermal_expansion, wide.phonopy.thermal_expansion, rtol=1e-4, atol=1e-9
    )


def test_pressure_moves_the_volumes() -> None:
    """At p the volume at rest has the stress p, and phonopy's volumes are around it."""
    compressed = pe.relax(SALT, small_potential(), fmax=1e-6, pressure=1.0)
    stress = small_potential().evaluate(compressed).stress * get_physical_units().EVAngstromToGPa
    np.testing.assert_allclose(stress, -np.eye(3), atol=1e-4)
    result = pe.qha(
        SALT,
        small_potential(),
        2,
        volumes=5,
        volume_range=(-2, 2),
        mesh=(4, 4, 4),
        tmax=100,
        pressure=1.0,
    )
    middle = result.samples[2].volume
    assert middle == pytest.approx(compressed.get_volume(), rel=1e-6)
    assert abs(result.at(0)["volume"] / middle - 1) < 0.02
    assert result.expansion is not None
    # the bulk modulus at p, p·V included, against that of the fit of E + pV
    comparison = compare_expansions(result)
    assert comparison is not None
    moduli = list(comparison.bulk_moduli.values())
    assert moduli[1] == pytest.approx(moduli[0], rel=0.01)


def test_unstable_volumes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below a volume that is called unstable nothing is used; five must remain."""
    real = workflow.stability

    def unstable_below(limit: float) -> None:
        def found(phonon: Any, *arguments: Any, **options: Any) -> Any:
            modes = real(phonon, *arguments, **options)
            if phonon.primitive.volume < limit:
                object.__setattr__(modes, "lowest", -0.5)
            return modes

        monkeypatch.setattr(workflow, "stability", found)

    def computed() -> pe.QuasiHarmonic:
        return pe.qha(
            SALT,
            small_potential(),
            2,
            volumes=6,
            volume_range=(-3, 3),
            mesh=(4, 4, 4),
            tmax=100,
            compare=False,
        )

    middle = pe.relax(SALT, small_potential(), fmax=1e-5).get_volume()
    unstable_below(0.98 * middle)
    with pytest.warns(UserWarning, match=r"left out: imaginary modes, lowest -0.5 THz"):
        result = computed()
    assert len(result.phonopy.volumes) == 5 and len(result.samples) == 6
    assert [s.stability.imaginary for s in result.samples] == [True] + [False] * 5
    unstable_below(middle)
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(pe.PhonopyEquivariantError, match=r"3 of 6 volumes.*volume_range="),
    ):
        computed()


def test_options_that_mean_nothing_are_refused() -> None:
    for options, words in (
        ({"volumes": 4}, "volumes=4.*5 volumes"),
        ({"volume_range": (3, -3)}, "volume_range=3 -3"),
        ({"volume_range": (-60, 3)}, "volume_range=-60 3"),
        ({"eos": "vinnet"}, "eos=vinnet.*vinet"),
        ({"tmax": -1}, "tmax=-1"),
        ({"tstep": 0}, "tstep=0"),
        ({"pressure": np.inf}, "pressure=inf"),
    ):
        with pytest.raises(pe.PhonopyEquivariantError, match=words):
            pe.qha(SALT, small_potential(), **options)  # type: ignore[arg-type]
    with pytest.raises(pe.PhonopyEquivariantError, match="mesh=0 4 4"):
        pe.qha(SALT, small_potential(), 1, mesh=(0, 4, 4))
    with pytest.raises(pe.PhonopyEquivariantError, match=r"cubic.*anisotropic=True"):
        pe.anisotropic_qha(SALT, small_potential())


def test_the_command(tmp_path: Path) -> None:
    poscar(tmp_path)
    words = ("qha", "POSCAR", "--model", model(), "--dim", 1, "--mesh", 4, 4, 4)
    few = ("--volumes", 5, "--volume-range", -2, 2, "--tmax", 300, "--tstep", 20)
    done = command(*words, *few, "--keep", "-o", "salt", cwd=tmp_path)
    assert "ALPHA_V" in done.stdout and "ANALYTIC, V0" in done.stdout
    names = {path.name for path in (tmp_path / "salt").iterdir()}
    assert {f"{name}.dat" for name in NAMES} | {f"{name}.pdf" for name in NAMES} <= names
    assert {"e-v.dat", "qha.yaml", "phonopy_params-01.yaml", "phonopy_params-05.yaml"} <= names
    content = yaml.safe_load((tmp_path / "salt" / "qha.yaml").read_text("utf-8"))
    expansion = np.loadtxt(tmp_path / "salt" / "thermal_expansion.dat")
    assert expansion[:, 0].tolist() == content["temperatures"] == list(range(0, 301, 20))
    np.testing.assert_allclose(expansion[:, 1], content["thermal_expansion"], atol=1e-14)
    table = [line.split() for line in done.stdout.splitlines() if re.match(r"300 ", line)]
    assert float(table[0][2]) == pytest.approx(1e6 * expansion[-1, 1], abs=1e-3)
    for options, words_said in (
        (("--volumes", 3), ("--volumes 3", "5 volumes")),
        (("--volume-range", 2, 1), ("--volume-range 2 1",)),
        (("--eos", "x"), ("--eos x", "vinet")),
        (("--anisotropic",), ("cubic", "--anisotropic")),
    ):
        assert_refused(command(*words, *options, cwd=tmp_path, status=1), *words_said)
    command(*words, "--grid", 4, cwd=tmp_path, status=2)
    command(*words, "--anisotropic", "--volumes", 7, cwd=tmp_path, status=2)

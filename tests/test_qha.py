"""Quasi-harmonic approximation: phonopy's numbers on our volumes, what is left out, the command."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import phonopy
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from cli_helpers import CONFIG, LATTICE, SEED, assert_refused, command, poscar
from phonopy import PhonopyQHA
from phonopy.physical_units import get_physical_units

import phonopy_equivariant as pe
from phonopy_equivariant.models.config import NequIPConfig
from phonopy_equivariant.phonons.expansion_comparison import (
    compare_axial_expansions,
    compare_expansions,
)
from phonopy_equivariant.phonons.qha import quasi_harmonic
from phonopy_equivariant.potential import Potential, make_potential, random_potential
from phonopy_equivariant.workflows import volumes as workflow

COARSE: dict[str, Any] = {"mesh": (4, 4, 4), "tmax": 300.0, "tstep": 10.0}
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

small_supercell = pytest.mark.filterwarnings("ignore:the supercell does not suffice")


def stiff_potential(seed: int) -> Potential:
    """Return the model of other tests with 20 times its energy: bulk moduli of some 300 GPa.

    Its programs are the same.
    """
    soft = random_potential(NequIPConfig(**CONFIG), seed)
    *layers, last = soft.params["layers"]
    readout = {key: 20 * np.asarray(weights) for key, weights in last["readout"].items()}
    params = soft.params | {"layers": (*layers, last | {"readout": readout})}
    return make_potential(soft.config, params, name="stiff")


@pytest.fixture(scope="module")
def potential() -> Potential:
    """Return a potential in which rock salt has a minimum of the energy near LATTICE."""
    return stiff_potential(SEED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("volumes")


@pytest.fixture(scope="module")
def result(folder: Path, potential: Potential) -> pe.QuasiHarmonic:
    options = COARSE | {"volumes": 7, "volume_range": (-3.0, 3.0), "keep": folder}
    with pytest.warns(UserWarning, match=r"supercell does not suffice.*supercell= or exact=True"):
        return pe.qha(SALT, potential, 2, **options)


TEMPERATURES = np.arange(32) * 10.0


def thermal_functions(phonons: list[Any]) -> np.ndarray:
    """Return phonopy's F (kJ/mol), S and Cv (J/K/mol) by temperature and volume."""
    tables = []
    for phonon in phonons:
        phonon.run_mesh(COARSE["mesh"], is_gamma_center=True)
        found = phonon.run_thermal_properties(
            temperatures=TEMPERATURES, exclude_gamma_acoustic=True
        )
        tables.append([found.free_energy, found.entropy, found.heat_capacity])
    return np.moveaxis(np.array(tables), 0, 2)


def test_files_of_volumes_have_their_free_energies(
    result: pe.QuasiHarmonic, folder: Path, potential: Potential
) -> None:
    """Plain phonopy on the files that were kept, and the energy of their cells."""
    phonons = [phonopy.load(file, log_level=0) for file in sorted(folder.glob("*.yaml"))]
    assert len(phonons) == 7
    free_energy = thermal_functions(phonons)[0] / get_physical_units().EvTokJmol
    free_energy += [potential.evaluate(phonon.primitive).energy for phonon in phonons]
    # eV: files have masses of six decimals
    expected = result.phonopy.helmholtz_volume
    np.testing.assert_allclose(free_energy[: len(expected)], expected, rtol=0, atol=2e-9)


def test_the_same_volumes_by_hand(result: pe.QuasiHarmonic) -> None:
    """phonopy's older class on the same phonons and energies: the same to rounding."""
    samples = result.samples
    free_energy, entropy, capacity = thermal_functions([sample.phonon for sample in samples])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        by_hand = PhonopyQHA(
            [sample.volume for sample in samples],
            [sample.energy for sample in samples],
            temperatures=TEMPERATURES,
            free_energy=free_energy,
            cv=capacity,
            entropy=entropy,
            t_max=300,
        )
    ours, units = result.phonopy, get_physical_units()
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
        # sums of polynomials in V lose some digits
        np.testing.assert_allclose(value, theirs, rtol=0, atol=1e-9 * np.abs(theirs).max())


def test_a_volume_that_costs_nothing_is_refused(result: pe.QuasiHarmonic) -> None:
    """A layer in vacuum: F(V) is flat but for rounding, and phonopy fits that."""
    samples = result.samples
    at_rest = thermal_functions([sample.phonon for sample in samples])[0][0]
    at_rest = at_rest / get_physical_units().EvTokJmol
    volumes = np.array([sample.volume for sample in samples])
    flat = 1e-7 * (volumes - volumes.mean()) ** 2 - at_rest
    vacuum = [
        dataclasses.replace(sample, energy=float(energy))
        for sample, energy in zip(samples, flat, strict=True)
    ]
    with pytest.raises(pe.PhonopyEquivariantError, match="bulk modulus at 0 K .* in vacuum"):
        quasi_harmonic(vacuum, TEMPERATURES, COARSE["mesh"], 0.0, "vinet")


def test_volumes_are_those_asked_for(result: pe.QuasiHarmonic, potential: Potential) -> None:
    relaxed = pe.relax(SALT, potential, fmax=1e-5).get_volume()
    found = [sample.volume for sample in result.samples]
    np.testing.assert_allclose(found, relaxed * np.linspace(0.97, 1.03, 7), rtol=1e-8)
    assert result.at(300.0)["volume"] == pytest.approx(result.phonopy.equilibrium_volumes[-1])
    with pytest.raises(pe.PhonopyEquivariantError, match="tmax="):
        result.at(301.0)
    assert len(result.rows()[0]) == len(result.columns())
    assert yaml.safe_load(yaml.dump(result.to_dict()))["mesh"] == [4, 4, 4]


def test_volumes_agree_with_derivatives_at_one_volume(potential: Potential) -> None:
    """(∂S/∂V)/B at V0 from seven volumes, and from Grüneisen parameters and elastic constants."""
    options = COARSE | {"volumes": 7, "volume_range": (-1.2, 1.2)}
    comparison = compare_expansions(pe.qha(SALT, potential, exact=True, **options))
    assert comparison is not None
    roads = comparison.roads
    # same q on both sides, no supercell; what is left is the curvature of F(V) that fits miss
    np.testing.assert_allclose(roads["VOLUMES, V0"], roads["ANALYTIC, V0"], rtol=5e-3)
    moduli = list(comparison.bulk_moduli.values())
    assert moduli[1] == pytest.approx(moduli[0], rel=2e-3)
    assert len(comparison.rows()[0]) == len(comparison.columns()) == 4


def test_axes_agree_with_derivatives_in_one_cell() -> None:
    """A hexagonal crystal on a grid of a and c; the analytic tensor has no other cell."""
    potential = stiff_potential(5)
    atoms = Atoms(
        "NaCl",
        scaled_positions=[[0, 0, 0], [1 / 3, 2 / 3, 0.5]],
        cell=[3.4, 3.4, 3.63, 90, 90, 120],
        pbc=True,
    )
    options = COARSE | {"grid": 4, "volume_range": (-2.0, 2.0)}
    result = pe.anisotropic_qha(atoms, potential, exact=True, **options)
    assert len(result.samples) == 16
    rest = pe.relax(atoms, potential, fmax=1e-6).cell.lengths()
    grid = np.array([s.phonon.unitcell.cell for s in result.samples])
    strains = np.log(np.linalg.norm(grid, axis=2) / rest)[:, [0, 2]]
    np.testing.assert_allclose(strains.min(axis=0), np.log(0.98) / 3, rtol=1e-4)
    # α = S·∂S/∂ε in the cell at rest, from polynomials of third degree over all cells
    powers = [(i, j) for i in range(4) for j in range(4 - i)]
    design = np.array([strains[:, 0] ** i * strains[:, 1] ** j for i, j in powers]).T
    energies = np.array([s.energy for s in result.samples])
    entropies = np.array([_entropies(s.phonon) for s in result.samples])
    terms = np.linalg.lstsq(design, np.column_stack([energies, entropies]), rcond=None)[0]
    of = {power: term for power, term in zip(powers, terms, strict=True)}
    costs = np.array([[2 * of[2, 0][0], of[1, 1][0]], [of[1, 1][0], 2 * of[0, 2][0]]])
    expected = np.linalg.solve(costs, np.array([of[1, 0][1:], of[0, 1][1:]]))
    comparison = compare_axial_expansions(result)
    assert comparison is not None
    roads = comparison.roads
    found = np.array([roads["a: ANALYTIC, V0"], roads["c: ANALYTIC, V0"]])
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * np.abs(expected).max())
    # and phonopy's at V(T): a and c go opposite ways
    assert roads["a: QHA"][-1] == pytest.approx(found[0, -1], rel=0.05)
    assert roads["c: QHA"][-1] < -2e-6 < roads["a: QHA"][-1]


def _entropies(phonon: Any) -> np.ndarray:
    """Return the entropies (eV/K) that phonopy has from its last mesh, at 50 to 300 K."""
    found = phonon.run_thermal_properties(
        temperatures=[50, 100, 200, 300], exclude_gamma_acoustic=True
    )
    return np.asarray(found.entropy) / get_physical_units().EvTokJmol / 1000


@small_supercell
def test_exact_mode_is_the_limit_of_supercells(potential: Potential) -> None:
    """Force constants reach 16 Å: a supercell that holds them gives what exact mode gives."""
    options = COARSE | {"volumes": 5, "volume_range": (-2.0, 2.0), "compare": False}
    exact, wide, narrow = (
        pe.qha(SALT, potential, supercell, is_exact, **options).phonopy.thermal_expansion
        for supercell, is_exact in ((1, True), (6, False), (2, False))
    )
    scale = np.abs(exact).max()
    np.testing.assert_allclose(wide, exact, rtol=0, atol=1e-3 * scale)
    assert np.abs(narrow - exact).max() > 1e-2 * scale


@small_supercell
def test_pressure_moves_the_volumes(potential: Potential) -> None:
    """At p the volume at rest has the stress p, and the volumes are around it."""
    pressure = 10.0
    compressed = pe.relax(SALT, potential, fmax=1e-6, pressure=pressure)
    stress = potential.evaluate(compressed).stress * get_physical_units().EVAngstromToGPa
    np.testing.assert_allclose(stress, -pressure * np.eye(3), atol=1e-3)
    options = COARSE | {"volumes": 5, "volume_range": (-2.0, 2.0), "pressure": pressure}
    result = pe.qha(SALT, potential, 2, **options)
    middle = result.samples[2].volume
    assert middle == pytest.approx(compressed.get_volume(), rel=1e-6)
    assert abs(result.at(0.0)["volume"] / middle - 1) < 0.01
    # the bulk modulus at p, p·V included, against that of the fit of E + pV
    comparison = compare_expansions(result)
    assert comparison is not None
    moduli = list(comparison.bulk_moduli.values())
    assert moduli[1] == pytest.approx(moduli[0], rel=0.01)


@small_supercell
def test_unstable_volumes_are_left_out(
    monkeypatch: pytest.MonkeyPatch, potential: Potential
) -> None:
    """Below a volume that is called unstable nothing is used; five must remain."""
    real = workflow.stability

    def unstable_below(limit: float) -> None:
        def found(phonon: Any, *arguments: Any, **options: Any) -> Any:
            modes = real(phonon, *arguments, **options)
            if phonon.primitive.volume < limit:
                object.__setattr__(modes, "lowest", -0.5)
            return modes

        monkeypatch.setattr(workflow, "stability", found)

    options = COARSE | {"volumes": 6, "volume_range": (-3.0, 3.0), "compare": False}
    middle = pe.relax(SALT, potential, fmax=1e-5).get_volume()
    unstable_below(0.98 * middle)
    with pytest.warns(UserWarning, match=r"left out: imaginary modes, lowest -0.5 THz"):
        result = pe.qha(SALT, potential, 2, **options)
    assert len(result.phonopy.volumes) == 5 and len(result.samples) == 6
    assert [s.stability.imaginary for s in result.samples] == [True] + [False] * 5
    unstable_below(middle)
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(pe.PhonopyEquivariantError, match=r"3 of 6 volumes.*volume_range="),
    ):
        pe.qha(SALT, potential, 2, **options)


@small_supercell
def test_volumes_that_do_not_hold_the_crystal_are_said(potential: Potential) -> None:
    """All volumes above V0: phonopy extrapolates, and the table has no row for it."""
    options = COARSE | {"volumes": 5, "volume_range": (0.8, 3.0), "compare": False}
    with pytest.warns(UserWarning, match=r"from 0 K on .*volume_range="):
        result = pe.qha(SALT, potential, 2, **options)
    assert result.rows() == []


def test_options_that_mean_nothing_are_refused(potential: Potential) -> None:
    for options, words in (
        ({"volumes": 4}, "volumes=4.*5 volumes"),
        ({"volume_range": (3.0, -3.0)}, "volume_range=3 -3"),
        ({"volume_range": (-60.0, 3.0)}, "volume_range=-60 3"),
        ({"eos": "vinnet"}, "eos=vinnet.*vinet"),
        ({"tmax": -1.0}, "tmax=-1"),
        ({"tstep": 0.0}, "tstep=0"),
        ({"pressure": np.inf}, "pressure=inf"),
        ({"pressure": 1e6}, "pressure=1e.06: give GPa, 1000"),
    ):
        with pytest.raises(pe.PhonopyEquivariantError, match=words):
            pe.qha(SALT, potential, **options)  # type: ignore[arg-type]
    with pytest.raises(pe.PhonopyEquivariantError, match="mesh=0 4 4"):
        pe.qha(SALT, potential, 1, mesh=(0, 4, 4))
    with pytest.raises(pe.PhonopyEquivariantError, match=r"cubic.*anisotropic=True"):
        pe.anisotropic_qha(SALT, potential)
    with pytest.raises(pe.PhonopyEquivariantError, match=r"grid=3.*4 lengths"):
        pe.anisotropic_qha(SALT, potential, grid=3)


def test_the_command(tmp_path: Path, potential: Potential) -> None:
    poscar(tmp_path)
    model = pe.save_checkpoint(potential, tmp_path / "stiff.npz")
    words = ("qha", "POSCAR", "--model", model, "--dim", 1, "--mesh", 4, 4, 4)
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
    table = next(line.split() for line in done.stdout.splitlines() if line.startswith("200 "))
    assert float(table[2]) == pytest.approx(1e6 * expansion[10, 1], abs=1e-3)
    for options, words_said in (
        (("--volumes", 3), ("--volumes 3", "5 volumes")),
        (("--volume-range", 2, 1), ("--volume-range 2 1",)),
        (("--eos", "x"), ("--eos x", "vinet")),
        (("--anisotropic",), ("cubic", "--anisotropic")),
    ):
        assert_refused(command(*words, *options, cwd=tmp_path, status=1), *words_said)
    command(*words, "--grid", 4, cwd=tmp_path, status=2)
    command(*words, "--anisotropic", "--volumes", 7, cwd=tmp_path, status=2)


def test_a_mesh_is_kept_until_the_phonons_change(result: pe.QuasiHarmonic) -> None:
    phonon: Any = result.samples[0].phonon
    kept = phonon.run_mesh([4, 4, 4])
    assert phonon.run_mesh([4, 4, 4]) is kept
    assert phonon.run_mesh([3, 3, 3]) is not kept
    before = phonon.run_mesh([4, 4, 4])
    masses = phonon.masses
    phonon.masses = 4 * np.asarray(masses)
    np.testing.assert_allclose(
        phonon.run_mesh([4, 4, 4]).frequencies, before.frequencies / 2, atol=1e-5
    )
    phonon.masses = masses


@small_supercell
def test_born_charges_are_the_same_at_every_volume(tmp_path: Path, potential: Potential) -> None:
    """LO-TO splitting next to Γ at every volume, from BORN; --nonac leaves it away."""
    poscar(tmp_path)
    (tmp_path / "BORN").write_text(
        "14.4\n2.4 0 0 0 2.4 0 0 0 2.4\n1.1 0 0 0 1.1 0 0 0 1.1\n-1.1 0 0 0 -1.1 0 0 0 -1.1\n"
    )
    model = pe.save_checkpoint(potential, tmp_path / "stiff.npz")
    words = ("qha", "POSCAR", "--model", model, "--dim", 2, "--mesh", 2, 2, 2, "--keep")
    few = ("--volumes", 5, "--volume-range", -2, 2, "--tmax", 50, "--no-comparison")
    with_charges = command(*words, *few, "-o", "polar", cwd=tmp_path)
    assert "from BORN, the same at every volume" in with_charges.stderr
    command(*words, *few, "--nonac", "-o", "plain", cwd=tmp_path)
    for name in ("phonopy_params-01.yaml", "phonopy_params-05.yaml"):
        polar, plain = (
            phonopy.load(tmp_path / folder / name, log_level=0, is_nac=True, born_filename=None)
            for folder in ("polar", "plain")
        )
        assert polar.nac_params is not None
        near = [[1e-4, 1e-4, 0.0]]
        splitting = [
            phonon.run_qpoints(near).frequencies[0, -1] - phonon.run_qpoints(near).frequencies[0, 3]
            for phonon in (polar, plain)
        ]
        assert splitting[0] > 0.5 > 0.01 > splitting[1]

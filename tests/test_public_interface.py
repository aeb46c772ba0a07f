"""What a phonopy user guesses: names at the top, structures and models of any kind, results."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.cli.wording import as_options
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.structure import as_structure, to_phonopy

QPOINTS = [[0.1, 0.2, 0.3], [0.5, 0.0, 0.5]]


@pytest.fixture(scope="module")
def saved(potential: Potential, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in a file: its path stands for it everywhere."""
    path = tmp_path_factory.mktemp("models") / "small.npz"
    pe.save_checkpoint(potential, path)
    return path


def salt() -> Atoms:
    return bulk("NaCl", "rocksalt", a=5.7)


def test_every_public_name_is_there_and_documented() -> None:
    for name in pe.__all__:
        assert getattr(pe, name).__doc__ or name == "__version__", name
    with pytest.raises(AttributeError, match="no attribute 'phonon'"):
        pe.phonon  # noqa: B018


def test_the_function_phonons_is_not_the_room() -> None:
    """Whatever is imported first: both have the name."""
    script = (
        "import phonopy_equivariant.phonons.cells\n"
        "import phonopy_equivariant as pe\n"
        "from phonopy_equivariant.phonons.residuals import sum_rule_residual\n"
        "assert pe.phonons.__module__ == 'phonopy_equivariant.workflows.phonons', pe.phonons\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.filterwarnings("ignore:residual")
def test_phonons_of_any_structure_and_any_model(potential: Potential, saved: Path) -> None:
    """The same force constants from ASE, phonopy, our own record and a file, model or its path."""
    atoms = salt()
    reference = Phonopy(to_phonopy(as_structure(atoms)), 2 * np.eye(3, dtype=int))
    pe.set_force_constants(reference, potential)
    for structure in (atoms, to_phonopy(as_structure(atoms)), as_structure(atoms)):
        for model in (potential, saved, str(saved)):
            phonon = pe.phonons(structure, model, supercell=2)
            np.testing.assert_allclose(
                phonon.force_constants, reference.force_constants, atol=1e-10
            )
            assert isinstance(phonon, Phonopy)
            assert phonon.report.sum_rule < 1e-10


@pytest.mark.filterwarnings("ignore:residual")
def test_phonons_from_a_file_relaxed_exact(saved: Path, tmp_path: Path) -> None:
    salt().write(tmp_path / "POSCAR")
    phonon = pe.phonons(tmp_path / "POSCAR", saved, exact=True, relax=True)
    assert isinstance(phonon.report, pe.ExactReport)
    assert phonon.report.residual_force < 1e-4
    expected = pe.dynamical_matrices(saved, phonon.primitive, QPOINTS)
    phonon.run_qpoints(QPOINTS, with_dynamical_matrices=True)
    found: Any = phonon.qpoints
    np.testing.assert_allclose(found.dynamical_matrices, expected, atol=1e-6)


@pytest.mark.skipif(
    "PHONOPY_EQUIVARIANT_CHECK_SHAPES" in os.environ, reason="wrong types are found before"
)
def test_wrong_types_are_said_in_one_line(potential: Potential) -> None:
    with pytest.raises(pe.PhonopyEquivariantError, match="Expected a structure.* got int"):
        pe.phonons(3, potential)  # type: ignore[arg-type]
    with pytest.raises(pe.PhonopyEquivariantError, match="Expected a potential or.* got Atoms"):
        pe.phonons(salt(), salt())  # type: ignore[arg-type]
    for function in (pe.force_constants, pe.set_force_constants, pe.use_exact_dynamical_matrix):
        with pytest.raises(pe.PhonopyEquivariantError, match=r"Expected .*Phonopy.*pe.phonons"):
            function(salt(), potential)  # type: ignore[arg-type]


def test_phonons_say_what_is_wrong(potential: Potential) -> None:
    for supercell in ((2, 2), 0, [[1, 0, 0], [0, 1, 0], [0, 0, 0]]):
        with pytest.raises(pe.PhonopyEquivariantError, match="supercell="):
            pe.phonons(salt(), potential, supercell)  # type: ignore[arg-type]
    with pytest.raises(pe.PhonopyEquivariantError, match="periodic in three directions"):
        pe.phonons(molecule("H2O"), potential)
    with pytest.warns(UserWarning, match=r"residual (forces|stress).*relax=True"):
        pe.phonons(bulk("NaCl", "rocksalt", a=4.0), potential, supercell=1)


def test_structure_first_and_a_model_by_its_file(potential: Potential, saved: Path) -> None:
    for structure in (salt(), as_structure(salt()), to_phonopy(as_structure(salt()))):
        hessian = pe.hessian(structure, saved)
        assert hessian.shape == (2, 3, 2, 3)
        np.testing.assert_array_equal(hessian, pe.hessian(salt(), potential))
        matrices = pe.dynamical_matrices(saved, structure, QPOINTS)
        assert matrices.shape == (2, 6, 6)
    relaxed = [pe.relax(each, saved) for each in (salt(), to_phonopy(as_structure(salt())))]
    assert isinstance(relaxed[0], Atoms) and isinstance(relaxed[1], PhonopyAtoms)
    np.testing.assert_allclose(relaxed[0].cell.array, relaxed[1].cell, atol=1e-12)
    tensor = pe.elastic_tensor(relaxed[1], saved)
    # a cubic crystal: Voigt's and Reuss's bulk modulus are the same
    c11, c12 = tensor.relaxed[0, 0], tensor.relaxed[0, 1]
    assert tensor.bulk_modulus == pytest.approx((c11 + 2 * c12) / 3, rel=1e-9)
    parameters = pe.gruneisen_parameters(relaxed[0], saved, QPOINTS)
    assert parameters.parameters.shape == (2, 6)
    atoms = salt()
    atoms.calc = pe.EquivariantCalculator(saved)
    energies, _, _ = pe.PhonopyMLP(saved).evaluate([to_phonopy(as_structure(atoms))])
    assert atoms.get_potential_energy() == pytest.approx(energies[0], abs=1e-12)


def test_a_named_model_is_loaded_once(saved: Path) -> None:
    first, again = (pe.EquivariantCalculator(saved).potential for _ in range(2))
    assert first is again


def test_moduli_of_a_polycrystal() -> None:
    """An isotropic tensor has its own moduli; Hill's mean of copper is 54.7/40.1 by hand."""
    bulk_modulus, shear = 140.0, 40.0
    isotropic = np.zeros((6, 6))
    isotropic[:3, :3] = bulk_modulus - 2 * shear / 3
    isotropic[range(3), range(3)] += 2 * shear
    isotropic[range(3, 6), range(3, 6)] = shear
    tensor = pe.ElasticTensor(isotropic, isotropic, np.zeros((3, 6)), 0.0, 0.0, 8.96, 0.0847)
    assert tensor.bulk_modulus == pytest.approx(bulk_modulus)
    assert tensor.shear_modulus == pytest.approx(shear)
    # copper, GPa: G_Voigt = (c11 - c12 + 3 c44)/5, G_Reuss = 5/(4/(c11 - c12) + 3/c44)
    c11, c12, c44 = 168.4, 121.4, 75.4
    copper = np.zeros((6, 6))
    copper[:3, :3] = c12
    copper[range(3), range(3)] = c11
    copper[range(3, 6), range(3, 6)] = c44
    voigt, reuss = (c11 - c12 + 3 * c44) / 5, 5 / (4 / (c11 - c12) * 1.0 + 3 / c44)
    found = pe.ElasticTensor(copper, copper, np.zeros((3, 6)), 0.0, 0.0, 8.96, 0.0847)
    assert found.shear_modulus == pytest.approx((voigt + reuss) / 2)


@pytest.fixture(scope="module")
def results(potential: Potential) -> list[Any]:
    phonon = Phonopy(to_phonopy(as_structure(salt())), 2 * np.eye(3, dtype=int))
    report = pe.set_force_constants(phonon, potential)
    water = molecule("H2O")
    hessian = np.eye(9).reshape(3, 3, 3, 3)
    return [
        report,
        pe.gamma_modes(phonon),
        pe.stability(phonon, potential, mesh=10.0),
        pe.elastic_tensor(salt(), potential),
        pe.gruneisen_parameters(salt(), potential, QPOINTS),
        pe.molecules.analyse_hessian(water, hessian),
    ]


def test_results_are_immutable_plain_and_short(results: list[Any], tmp_path: Path) -> None:
    for result in results:
        name = dataclasses.fields(result)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, name, None)
        assert "\n" not in repr(result) and len(repr(result)) < 1000
        assert repr(result).startswith(type(result).__name__)
        content = result.to_dict()
        json.dumps(content)  # nothing but Python's own kinds of values
        result.write_yaml(tmp_path / "result.yaml")
        again = yaml.safe_load((tmp_path / "result.yaml").read_text("utf-8"))
        assert again.keys() == content.keys()
        html = result._repr_html_()
        assert html.startswith("<table>") and html.count("<tr>") == html.count("</tr>") > 1


def test_one_line_for_potentials_and_structures(potential: Potential) -> None:
    for thing in (potential, as_structure(salt()), potential.evaluate(salt())):
        assert "\n" not in repr(thing) and len(repr(thing)) < 300
    assert potential.name in repr(potential) and potential.dtype in repr(potential)


@pytest.mark.parametrize(
    ("said", "command", "printed"),
    [
        ("lower symprec= below that", "run", "lower --tolerance below that"),
        ("supercell=2 2: give", "run", "--dim 2 2: give"),
        ('take primitive_matrix="P".', "run", "take --pa P."),
        ("fmax=-1.0: positive", "run", "--relax-fmax -1.0: positive"),
        ("(fmax=), start", "relax", "(--fmax), start"),
        ("give a positive tolerance=.", "run", "give a positive --exact-tolerance."),
        ("lower symmetry_tolerance=, or", "molecule", "lower --symmetry-tolerance, or"),
        ("use relax=True.", "fc", "use phonopy-equivariant relax."),
        ("dtype='bfloat16'", "run", "--dtype bfloat16"),
    ],
)
def test_parameters_become_options(said: str, command: str, printed: str) -> None:
    assert as_options(said, command) == printed


TEN_LINES = Path(__file__).resolve().parents[1] / "docs" / "ten_lines.md"


def test_ten_lines_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page runs as it stands, and its comments say what it gives."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    page = TEN_LINES.read_text("utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, names)
    assert (tmp_path / "bands.png").stat().st_size > 10_000
    crystal, phonon, model = (names[key] for key in ("crystal", "phonon", "model"))
    heat = phonon.thermal_properties.heat_capacity
    np.testing.assert_allclose(heat, [0, 9.03, 28.06, 37.77], atol=0.01)
    assert f"{pe.elastic_tensor(crystal, model).bulk_modulus:.1f} GPa" in page
    parameters = pe.gruneisen_parameters(crystal, model, [[0.5, 0.0, 0.5]]).parameters[0]
    assert f"{parameters[0]:.3f} ... {parameters[-1]:.3f}" in page
    frequencies = pe.molecules.vibrations(names["water"], model).frequencies
    assert ", ".join(f"{x:.1f}" for x in frequencies) in page
    assert pe.gamma_modes(phonon).representation() == "T1u"
    assert not pe.stability(phonon, model).imaginary

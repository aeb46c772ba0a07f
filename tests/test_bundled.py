"""Potentials inside the package, models named for unknown elements, and familiarity."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
import tomllib
import zipfile
from pathlib import Path

import jax
import numpy as np
import pooch
import pytest
import yaml
from ase.build import bulk
from ase.data import chemical_symbols
from cli_helpers import command, displaced, model, poscar
from cli_helpers import potential as small_potential
from conftest import IMPROPER, small_config
from phonopy import Phonopy

import phonopy_equivariant as pe
from phonopy_equivariant.catalogue import bundled
from phonopy_equivariant.catalogue.bundled import DEFAULT_MODEL
from phonopy_equivariant.catalogue.cards import (
    MODELS_VARIABLE,
    STRONG_MODEL,
    list_models,
    local_path,
    model_card,
    models_covering,
)
from phonopy_equivariant.checkpoints.fetch import file_sha256, remove
from phonopy_equivariant.checkpoints.load import fetch
from phonopy_equivariant.checkpoints.native import read_checkpoint
from phonopy_equivariant.checkpoints.summary import familiarity_remarks
from phonopy_equivariant.cli import run_command
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import make_potential
from phonopy_equivariant.structure import as_structure, to_phonopy

ROOT = Path(__file__).parents[1]
NAME = "tiny-1"


@pytest.fixture
def nothing_at_hand(tmp_path, monkeypatch):
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, fitted: pe.Potential) -> Path:
    """Return a folder with a model in single precision and its card."""
    folder = tmp_path_factory.mktemp("bundled")
    single = make_potential(fitted.config, fitted.params, "float32", name=NAME)
    single = dataclasses.replace(single, reference=fitted.reference)
    path = pe.save_checkpoint(single, folder / f"{NAME}.npz", {"name": NAME})
    card = {
        "sha256": file_sha256(path),
        "licence": "BSD-3-Clause",
        "citation": ["phonopy_equivariant"],
        "theory": "none",
        "training_data": ["none: random weights"],
        "elements": [chemical_symbols[z] for z in single.species],
        "good_for": ["tests"],
        "not_good_for": ["phonons"],
    }
    (folder / f"{NAME}.yaml").write_text(yaml.safe_dump(card))
    return folder


@pytest.fixture
def inside(nothing_at_hand, folder, monkeypatch) -> None:
    """Put that model into the package."""
    monkeypatch.setattr(bundled, "FOLDER", folder)


def test_the_default_is_a_model_of_the_registry():
    assert model_card(DEFAULT_MODEL).name == DEFAULT_MODEL
    default = inspect.signature(pe.load_potential).parameters["name_or_path"].default
    assert default == DEFAULT_MODEL


def test_models_in_the_package_have_card_and_file():
    """Those that are there, which may be none."""
    cards = [card for card in list_models() if card.bundled]
    files = {path.stem for path in bundled.FOLDER.glob("*.npz")}
    assert {card.name for card in cards} == files
    for card in cards:
        assert not card.url
        assert fetch(card.name).stat().st_size < 8e6
        potential = pe.load_potential(card.name)
        assert potential.reference is not None
        assert [chemical_symbols[z] for z in potential.species] == list(card.elements)


def test_it_loads_without_network(inside, folder, tmp_path):
    loaded = pe.load_potential(NAME)
    assert (loaded.name, loaded.dtype) == (NAME, "float64")
    card = model_card(NAME)
    assert card.bundled and not card.url
    assert card == list_models()[0]
    assert loaded.sha256 == card.sha256
    assert loaded.reference is not None and loaded.reference.quantile == 0.95
    assert fetch(NAME) == local_path(NAME) == folder / f"{NAME}.npz"
    assert not (tmp_path / "cache").exists()
    checkpoint = read_checkpoint(local_path(NAME))
    assert {leaf.dtype for leaf in jax.tree.leaves(checkpoint.params)} == {np.dtype("float32")}


def test_a_damaged_or_absent_file_asks_for_a_new_installation(
    inside, folder, tmp_path, monkeypatch
):
    other = shutil.copytree(folder, tmp_path / "other")
    monkeypatch.setattr(bundled, "FOLDER", other)
    with open(other / f"{NAME}.npz", "ab") as file:
        file.write(b"more")
    with pytest.raises(PhonopyEquivariantError, match="missing or damaged.*install the package"):
        pe.load_potential(NAME)
    (other / f"{NAME}.npz").unlink()
    with pytest.raises(PhonopyEquivariantError, match="missing or damaged"):
        pe.load_potential(NAME)


def test_it_cannot_be_removed(inside):
    with pytest.raises(PhonopyEquivariantError, match="part of phonopy_equivariant"):
        remove(NAME)
    assert local_path(NAME).is_file()


def test_the_command_lists_shows_and_fetches_it(inside, capsys):
    assert run_command(["models", "list"]) == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert (row[0], row[-1]) == (NAME, "bundled")
    assert run_command(["models", "show", NAME]) == 0
    shown = capsys.readouterr().out
    assert "part of this package" in shown and "sha256" in shown and "url" not in shown
    assert "not good for     phonons" in shown
    assert run_command(["models", "fetch", NAME]) == 0
    assert f"{NAME}.npz" in capsys.readouterr().out


def test_the_remark_names_another_model_to_check_with(inside):
    loaded = pe.load_potential(NAME)
    assert familiarity_remarks(loaded, bulk("NaCl", "rocksalt", a=5.2, cubic=True)) == []
    (remark,) = familiarity_remarks(loaded, next(_rattled(1, 2, amplitude=0.5)))
    assert f"this structure is far from what {NAME} was trained on (distance" in remark
    assert "95 % of held-out structures lie below" in remark
    assert remark.endswith(f"check with another model, e.g. model={STRONG_MODEL}.")


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    """Return the path of a checkpoint that knows rock salt."""
    fitted = pe.fit_familiarity(small_potential(), _rattled(20, 0), _rattled(10, 1))
    path = tmp_path_factory.mktemp("known") / "known.npz"
    return pe.save_checkpoint(fitted, path, {"name": "known"})


@pytest.mark.slow
def test_all_commands_warn(tmp_path: Path, known: Path) -> None:
    poscar(tmp_path, lattice=5.2)
    (tmp_path / "odd.xyz").write_text("2\n\nNa 0 0 0\nCl 0 0 1.5\n")
    poscar(tmp_path, "crushed.vasp", lattice=4.0)
    for words, far in (
        (("relax", "POSCAR", "-o", "POSCAR_out", "--fixed-cell"), False),
        (("fc", "crushed.vasp", "--dim", 1), True),
        (("run", "crushed.vasp", "--dim", 1, "--mesh", 1, 1, 1, "-q"), True),
        (("molecule", "odd.xyz"), True),
    ):
        stderr = command(*words, "--model", known, cwd=tmp_path).stderr
        assert stderr.count("is far from what known was trained on") == far, words
    # a checkpoint without a reference says nothing
    words = ("relax", "POSCAR", "-o", "POSCAR_out", "--fixed-cell", "--model", model())
    result = command(*words, cwd=tmp_path)
    assert "trained on" not in result.stderr


def test_displaced_supercells_warn(tmp_path: Path, known: Path) -> None:
    displaced(tmp_path, 1, lattice=4.0)
    words = ("fc", "phonopy_disp.yaml", "--force-sets", "--model", known)
    assert "is far from what known was trained on" in command(*words, cwd=tmp_path).stderr


def test_an_unknown_element_names_models_that_know_it(inside, potential, monkeypatch, tmp_path):
    with pytest.raises(PhonopyEquivariantError) as caught:
        potential.evaluate(bulk("PuN", "rocksalt", a=4.9))
    message = str(caught.value)
    assert "\n" not in message
    assert f"The potential {potential.name} does not know N, Pu; choose" in message
    names = message.partition("such as ")[2].removesuffix(".").split(", ")
    assert len(names) == 3 and names[0] == STRONG_MODEL
    assert all({"Pu", "N"} <= set(model_card(name).elements) for name in names)
    # what is at hand comes first
    silicon = dataclasses.replace(potential, config=small_config(species=(14,)))
    with pytest.raises(PhonopyEquivariantError, match=f"know Na, Cl; .*such as {NAME}, "):
        silicon.evaluate(bulk("NaCl", "rocksalt", a=5.6))
    (tmp_path / "nequix-mp-1.nqx").touch()
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    with pytest.raises(PhonopyEquivariantError, match=f"such as nequix-mp-1, {STRONG_MODEL}, "):
        potential.evaluate(bulk("PuN", "rocksalt", a=4.9))
    with pytest.raises(PhonopyEquivariantError, match="know Po; no published model covers"):
        potential.evaluate(bulk("Po", "sc", a=3.3))


def test_models_covering_is_about_all_elements(inside):
    names = models_covering(["Na", "Cl"])
    assert names[:2] == (NAME, STRONG_MODEL)
    assert "mace-off23-small" in models_covering(["C", "H"])
    assert "mace-off23-small" not in models_covering(["C", "Na"])
    assert NAME not in models_covering(["Na"], but=(NAME,))
    assert models_covering(["C", "Po"]) == ()


def _rattled(count: int, seed: int, amplitude: float = 0.05):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        atoms = bulk("NaCl", "rocksalt", a=5.2 + 0.02 * rng.normal(), cubic=True)
        atoms.rattle(amplitude, rng=rng)
        yield atoms


@pytest.fixture(scope="module")
def fitted(potential) -> pe.Potential:
    return pe.fit_familiarity(potential, _rattled(30, 0), _rattled(20, 1), quantile=0.95)


def test_features_are_the_scalars_of_all_layers(potential, crystal):
    features = potential.evaluate(crystal).features
    assert features.shape == (len(crystal.numbers), 2 * 4)
    moved = crystal._replace(positions=crystal.positions @ IMPROPER, cell=crystal.cell @ IMPROPER)
    np.testing.assert_allclose(potential.evaluate(moved).features, features, atol=1e-10)


def test_distances_are_those_of_the_definition(potential, fitted):
    """Mean and pooled covariance from all features at once, and the inverse matrix."""
    samples = [potential.evaluate(atoms).features for atoms in _rattled(30, 0)]
    species = np.tile(potential.species_index(next(_rattled(1, 0)).numbers), len(samples))
    features = np.concatenate(samples)
    means = {z: features[species == z].mean(axis=0) for z in set(species)}
    centred = features - np.array([means[z] for z in species])
    covariance = centred.T @ centred / (len(features) - len(means))
    covariance += 1e-3 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    new = next(_rattled(1, 5))
    found = fitted.familiarity(new)
    other = potential.evaluate(new).features
    index = potential.species_index(new.numbers)
    difference = other - np.array([means[z] for z in index])
    squares = np.einsum("ai,ij,aj->a", difference, np.linalg.inv(covariance), difference)
    # the reference is kept in single precision
    np.testing.assert_allclose(found.distances, np.sqrt(squares), rtol=1e-3)
    assert found.distance == found.distances.max()


def test_the_threshold_passes_its_share_of_held_out_structures(fitted):
    far = [fitted.familiarity(atoms).is_far for atoms in _rattled(20, 1)]
    assert sum(far) == 1  # 5 % of 20
    odd = fitted.familiarity(next(_rattled(1, 2, amplitude=0.5)))
    assert odd.is_far and odd.distance > 2 * odd.threshold


def test_a_species_absent_from_training_is_infinitely_far(fitted):
    oxide = bulk("NaO", "rocksalt", a=5.2, cubic=True)
    assert (np.isinf(fitted.familiarity(oxide).distances) == (oxide.numbers == 8)).all()
    assert fitted.familiarity(oxide).is_far


def test_what_cannot_be_fitted_is_refused(potential):
    salt = [bulk("NaCl", "rocksalt", a=5.6)]
    with pytest.raises(PhonopyEquivariantError, match="too few or all alike"):
        pe.fit_familiarity(potential, salt * 5, _rattled(2, 1))
    with pytest.raises(PhonopyEquivariantError, match="too few or all alike"):
        pe.fit_familiarity(potential, salt, _rattled(2, 1))
    with pytest.raises(PhonopyEquivariantError, match="too few or all alike"):
        pe.fit_familiarity(potential, [], _rattled(2, 1))
    with pytest.raises(PhonopyEquivariantError, match="held-out structures give no threshold"):
        pe.fit_familiarity(potential, _rattled(4, 0), [])
    with pytest.raises(PhonopyEquivariantError, match="quantile=99"):
        pe.fit_familiarity(potential, _rattled(4, 0), _rattled(2, 1), quantile=99.0)
    with pytest.raises(PhonopyEquivariantError, match="fit_familiarity"):
        potential.familiarity(salt[0])


def test_the_wheel_takes_models_along():
    """By the patterns of pyproject.toml: building a wheel needs setuptools from the network."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    patterns = {f"catalogue/bundled/*.{suffix}" for suffix in ("npz", "yaml")}
    assert patterns <= set(tool["package-data"]["phonopy_equivariant"])
    # a package of its own, which setuptools finds
    assert (bundled.FOLDER / "__init__.py").is_file()
    assert tool["packages"]["find"]["include"] == ["phonopy_equivariant*"]


def test_a_reference_is_kept_in_the_checkpoint(fitted, potential, tmp_path):
    path = pe.save_checkpoint(fitted, tmp_path / "fitted.npz")
    loaded = pe.load_potential(path)
    for ours, theirs in zip(loaded.reference, fitted.reference, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    salt = next(_rattled(1, 3))
    assert loaded.familiarity(salt).distance == fitted.familiarity(salt).distance
    # one without is what it was before
    plain = pe.save_checkpoint(potential, tmp_path / "plain.npz")
    assert pe.load_potential(plain).reference is None
    with zipfile.ZipFile(plain) as archive:
        assert "familiarity" not in str(archive.namelist()) + archive.read("model.yaml").decode()


def test_a_reference_of_another_shape_is_refused(fitted, tmp_path):
    cut = fitted.reference._replace(means=fitted.reference.means[:, :-1])
    path = pe.save_checkpoint(dataclasses.replace(fitted, reference=cut), tmp_path / "cut.npz")
    with pytest.raises(PhonopyEquivariantError, match="familiarity/means is float32 of shape"):
        pe.load_potential(path)


def test_single_precision_gives_the_same_distances(fitted):
    single = make_potential(fitted.config, fitted.params, "float32")
    single = dataclasses.replace(single, reference=fitted.reference)
    salt = next(_rattled(1, 3))
    ours, theirs = fitted.familiarity(salt).distances, single.familiarity(salt).distances
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)


def test_the_default_gives_phonons_of_silicon():
    """The optical mode at Γ lies at 15.5 THz (Raman, 520 cm⁻¹); nothing is unstable."""
    phonon = Phonopy(
        to_phonopy(as_structure(bulk("Si", "diamond", a=5.431))),
        supercell_matrix=[2, 2, 2],
        primitive_matrix="P",
    )
    report = pe.set_force_constants(phonon, pe.load_potential())
    assert report.model == DEFAULT_MODEL
    phonon.run_mesh([9, 9, 9])
    frequencies = phonon.mesh.frequencies
    assert abs(frequencies.max() / 15.5 - 1) < 0.05
    assert frequencies.min() > -1e-3

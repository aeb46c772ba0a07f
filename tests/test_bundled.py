"""The potential inside the package: found without network, its card, elements, familiarity."""

from __future__ import annotations

import dataclasses
import tomllib
import zipfile
from pathlib import Path

import jax
import numpy as np
import pooch
import pytest
from ase.build import bulk
from ase.data import chemical_symbols
from cli_helpers import assert_refused, command, model, poscar, shell
from cli_helpers import potential as small_potential
from conftest import IMPROPER, small_config

import phonopy_equivariant as pe
from phonopy_equivariant.checkpoints import registry
from phonopy_equivariant.checkpoints.bundled import DEFAULT_MODEL
from phonopy_equivariant.checkpoints.native import read_checkpoint
from phonopy_equivariant.checkpoints.registry import (
    MODELS_VARIABLE,
    STRONG_MODEL,
    fetch,
    list_models,
    local_path,
    model_card,
    models_covering,
    remove,
)
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.potential import make_potential, random_potential

ROOT = Path(__file__).parents[1]


@pytest.fixture
def nothing_at_hand(tmp_path, monkeypatch):
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)


@pytest.fixture(scope="module")
def default() -> pe.Potential:
    return pe.load_potential()


def test_the_default_of_python_is_the_bundled_model(nothing_at_hand, default, tmp_path):
    assert default.name == DEFAULT_MODEL
    assert default.dtype == "float64"
    assert default.sha256 == model_card(DEFAULT_MODEL).sha256
    assert fetch(DEFAULT_MODEL) == local_path(DEFAULT_MODEL)
    assert not (tmp_path / "cache").exists()


def test_card_and_checkpoint_agree(default):
    card = model_card(DEFAULT_MODEL)
    assert card.bundled and not card.url
    assert card == list_models()[0]
    assert [chemical_symbols[z] for z in default.species] == list(card.elements)
    assert local_path(DEFAULT_MODEL).stat().st_size < 8e6
    assert default.reference is not None
    assert 0.9 <= default.reference.quantile < 1
    checkpoint = read_checkpoint(local_path(DEFAULT_MODEL))
    assert {leaf.dtype for leaf in jax.tree.leaves(checkpoint.params)} == {np.dtype("float32")}


def test_a_damaged_or_absent_file_asks_for_a_new_installation(monkeypatch):
    card = dataclasses.replace(model_card(DEFAULT_MODEL), sha256="0" * 64)
    monkeypatch.setattr(registry, "_cards", lambda: {card.name: card})
    with pytest.raises(PhonopyEquivariantError, match="missing or damaged.*install the package"):
        pe.load_potential()
    monkeypatch.setattr(registry, "_bundled_path", lambda card: Path("nowhere.npz"))
    with pytest.raises(PhonopyEquivariantError, match="missing or damaged"):
        pe.load_potential()


def test_it_cannot_be_removed():
    with pytest.raises(PhonopyEquivariantError, match="part of phonopy_equivariant"):
        remove(DEFAULT_MODEL)
    assert local_path(DEFAULT_MODEL).is_file()


def test_the_command_shows_fetches_and_keeps_it(tmp_path: Path) -> None:
    table = command("models", "list", cwd=tmp_path).stdout.splitlines()
    assert table[1].split()[0] == DEFAULT_MODEL and table[1].split()[-1] == "bundled"
    shown = command("models", "show", DEFAULT_MODEL, cwd=tmp_path).stdout
    assert "part of this package" in shown and "sha256" in shown and "url" not in shown
    assert f"{DEFAULT_MODEL}.npz" in command("models", "fetch", DEFAULT_MODEL, cwd=tmp_path).stdout
    result = command("models", "remove", DEFAULT_MODEL, cwd=tmp_path, status=1)
    assert_refused(result, "cannot be removed")


@pytest.mark.slow
def test_run_needs_no_network(tmp_path: Path) -> None:
    poscar(tmp_path, lattice=5.64)
    result = command(
        *("run", "POSCAR", "--dim", 1, "--mesh", 2, 2, 2),
        cwd=tmp_path,
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    )
    assert f"potential            {DEFAULT_MODEL} (sha256" in result.stdout
    assert not (tmp_path / "cache" / "phonopy_equivariant" / "models").exists()
    assert "trained on" not in result.stderr


def test_the_default_warns_of_a_crushed_crystal(tmp_path: Path) -> None:
    poscar(tmp_path, lattice=2.4)  # neighbours at 1.2 Å
    result = command("relax", "POSCAR", "-o", "POSCAR_out", "--fixed-cell", cwd=tmp_path)
    (line,) = [line for line in result.stderr.splitlines() if "trained on" in line]
    assert f"this structure is far from what {DEFAULT_MODEL} was trained on (distance" in line
    assert "% of held-out structures lie below" in line
    assert line.endswith(f"check with another model, e.g. --model {STRONG_MODEL}.")


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> Path:
    """Return the path of a checkpoint that knows rock salt."""
    fitted = pe.fit_familiarity(small_potential(), _rattled(20, 0), _rattled(10, 1))
    path = tmp_path_factory.mktemp("known") / "known.npz"
    return pe.save_checkpoint(fitted, path, {"name": "known"})


@pytest.mark.slow
def test_all_commands_warn(tmp_path: Path, known: Path) -> None:
    poscar(tmp_path, lattice=5.2)
    (tmp_path / "odd.xyz").write_text("2\n\nNa 0 0 0\nCl 0 0 0.8\n")
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
    poscar(tmp_path, lattice=4.0)
    shell("phonopy-init -d --dim 1 1 1 -c POSCAR", tmp_path)
    words = ("fc", "phonopy_disp.yaml", "--force-sets", "--model", known)
    assert "is far from what known was trained on" in command(*words, cwd=tmp_path).stderr


def test_an_unknown_element_names_models_that_know_it(
    nothing_at_hand, default, monkeypatch, tmp_path
):
    with pytest.raises(PhonopyEquivariantError) as caught:
        default.evaluate(bulk("PuN", "rocksalt", a=4.9))
    message = str(caught.value)
    assert "\n" not in message
    assert f"The potential {DEFAULT_MODEL} does not know Pu; choose" in message
    names = message.partition("such as ")[2].removesuffix(".").split(", ")
    assert len(names) == 3 and names[0] == STRONG_MODEL
    assert all({"Pu", "N"} <= set(model_card(name).elements) for name in names)
    # what is at hand comes first
    small = random_potential(small_config())
    with pytest.raises(PhonopyEquivariantError, match=f"know Si; .*such as {DEFAULT_MODEL}, "):
        small.evaluate(bulk("Si"))
    (tmp_path / "nequix-mp-1.nqx").touch()
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    with pytest.raises(PhonopyEquivariantError, match=f"such as nequix-mp-1, {STRONG_MODEL}, "):
        default.evaluate(bulk("PuN", "rocksalt", a=4.9))
    with pytest.raises(PhonopyEquivariantError, match="know Po; no published model covers"):
        default.evaluate(bulk("Po", "sc", a=3.3))


def test_models_covering_is_about_all_elements(nothing_at_hand):
    names = models_covering(["C", "H"])
    assert names[0] == DEFAULT_MODEL and names[1] == STRONG_MODEL
    assert "mace-off23-small" in names
    assert "mace-off23-small" not in models_covering(["C", "Na"])
    assert DEFAULT_MODEL not in models_covering(["C"], but=(DEFAULT_MODEL,))
    assert models_covering(["C", "Po"]) == ()


def test_the_command_names_them_before_it_compiles(tmp_path: Path) -> None:
    poscar(tmp_path, symbols="U N")
    result = command("run", "POSCAR", "--dim", 1, cwd=tmp_path, status=1)
    assert_refused(result, "does not know U", STRONG_MODEL)


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
    oxide = bulk("NaO", "rocksalt", a=5.0)
    assert fitted.familiarity(oxide).distances[1] == np.inf
    assert fitted.familiarity(oxide).is_far


def test_what_cannot_be_fitted_is_refused(potential):
    salt = [bulk("NaCl", "rocksalt", a=5.6)]
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


def test_the_wheel_has_the_model():
    """By the patterns of pyproject.toml: building a wheel needs setuptools from the network."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    package = ROOT / "phonopy_equivariant"
    patterns = tool["package-data"][package.name]
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    folder = package / "checkpoints" / "bundled"
    assert {folder / f"{DEFAULT_MODEL}.npz", folder / f"{DEFAULT_MODEL}.yaml"} <= packed
    # a package of its own, which setuptools finds
    assert (folder / "__init__.py").is_file()
    assert tool["packages"]["find"]["include"] == [f"{package.name}*"]


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

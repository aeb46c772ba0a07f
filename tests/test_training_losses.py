"""Losses of training: gradients, unbiased estimators, invariance, degenerate spectra."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import IMPROPER
from training_helpers import (
    Q,
    computed_record,
    gamma_record,
    lattice_record,
    rock_salt,
    tiny_potential,
)

from phonopy_equivariant.data import ForceConstantsData, Record
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.response.autodiff.hessian import hessian
from phonopy_equivariant.response.bloch.lattice import lattice_force_constants
from phonopy_equivariant.structure import Structure
from phonopy_equivariant.training.config import (
    HessianTerm,
    LossConfig,
    SetConfig,
    SpectrumTerm,
    Term,
)
from phonopy_equivariant.training.gradients import loss_alone, loss_and_gradient
from phonopy_equivariant.training.samples import Microbatch, Samples
from phonopy_equivariant.training.spectral import group_means, make_batch, make_cell


@pytest.fixture(scope="module")
def student() -> Potential:
    return tiny_potential(1)


@pytest.fixture(scope="module")
def shallow() -> Potential:
    """One layer: where only the loss is new, not what it differentiates."""
    return tiny_potential(1, num_interactions=1)


def batches(
    student: Potential, records: list[Record], loss: LossConfig, seed: int = 0
) -> list[Microbatch]:
    options = SetConfig("none", batch_size=len(records))
    return list(Samples(student, records, options, loss, seed, 0).all())


def value(student: Potential, some: list[Microbatch]) -> float:
    model, params = student.model, student.params
    return sum(float(loss_alone(model, loss, None, params, batch)[0]) for loss, batch in some)


def slope_and_difference(student: Potential, part: Microbatch, step: float) -> tuple[float, float]:
    """Return the derivative along a random direction of all weights, and its central difference."""
    rng = np.random.default_rng(5)
    direction = jax.tree.map(lambda p: rng.normal(size=p.shape), student.params)

    def moved(distance: float) -> Any:
        with jax.enable_x64(True):
            return jax.tree.map(
                lambda p, d: p + distance * jnp.asarray(d), student.params, direction
            )

    def evaluate(params: Any) -> Any:
        return loss_and_gradient(student.model, part.loss, None, params, part.batch)

    _, gradient = evaluate(student.params)
    products = jax.tree.map(lambda g, d: float(np.sum(np.asarray(g) * d)), gradient, direction)
    ends = [float(evaluate(moved(h))[0][0]) for h in (step, -step)]
    return sum(jax.tree.leaves(products)), (ends[0] - ends[1]) / (2 * step)


GRAPH_LOSSES = {
    "squared, columns": LossConfig(
        Term(), Term(weight=2.0), Term(weight=30.0), HessianTerm(samples=2)
    ),
    "huber, columns": LossConfig(
        Term(kind="huber", delta=0.1),
        Term(kind="huber", delta=0.2),
        Term(kind="mae"),
        HessianTerm(kind="huber", delta=0.5),
    ),
    "mae, columns": LossConfig(
        Term(kind="mae"), Term(kind="mae", weight=2.0), hessian=HessianTerm(kind="mae")
    ),
    "mae, over column": LossConfig(hessian=HessianTerm(kind="mae", over="column", samples=2)),
    "probes": LossConfig(hessian=HessianTerm(estimator="probes", samples=2)),
    "pairs": LossConfig(hessian=HessianTerm(estimator="pairs", samples=2)),
}


@pytest.mark.parametrize("name", GRAPH_LOSSES)
def test_gradients_are_those_of_finite_differences(
    name: str, student: Potential, shallow: Potential, gamma: list[Record]
) -> None:
    some = student if name == "squared, columns" else shallow
    [part] = batches(some, gamma, GRAPH_LOSSES[name])
    slope, difference = slope_and_difference(some, part, 1e-5)
    # central differences at 1e-5 in float64: truncation and rounding near 1e-9
    assert abs(slope) > 1e-3
    assert slope == pytest.approx(difference, rel=1e-7)


@pytest.mark.parametrize(
    ("kind", "over", "form", "layers"),
    [("mae", "block", "root", 2), ("huber", "column", "square", 1)],
)
def test_gradients_at_wave_vectors(
    kind: Any, over: Any, form: Any, layers: int, crystal: Structure
) -> None:
    student = tiny_potential(1, num_interactions=layers)
    loss = LossConfig(
        hessian=HessianTerm(kind=kind, over=over, delta=2.0), spectrum=SpectrumTerm(form=form)
    )
    part = lattice_batch(student, lattice_record(crystal), loss)
    slope, difference = slope_and_difference(student, part, 1e-5)
    assert abs(slope) > 1e-3
    assert slope == pytest.approx(difference, rel=1e-6)


def lattice_batch(student: Potential, record: Record, loss: LossConfig) -> Microbatch:
    """Return both terms at all q in one batch, so that one function is compiled."""
    assert record.force_constants is not None and record.spectrum is not None
    batch = make_batch(
        make_cell(student, record.structure),
        record.spectrum.qpoints,
        np.arange(len(record.spectrum.qpoints)),
        {"hessian": 1.0, "spectrum": 1.0},
        record.force_constants.values,
        group_means(record.spectrum.frequencies, 1e-3),
    )
    return Microbatch(loss, batch)


def test_the_gradient_of_a_spectrum_exists_at_degenerate_frequencies(shallow: Potential) -> None:
    teacher = tiny_potential(2, num_interactions=1)
    record = computed_record(teacher, rock_salt(), Q[:1])
    loss = LossConfig(spectrum=SpectrumTerm(form="square"))
    part = lattice_batch(shallow, record, loss)
    # rock salt at Γ: three acoustic and three optical modes, of the target and of the model
    assert np.ptp(part.batch.eigenvalues[0, 3:6]) == 0
    slope, difference = slope_and_difference(shallow, part, 1e-5)
    assert abs(slope) > 1e-3
    assert slope == pytest.approx(difference, rel=1e-6)


def test_a_spectrum_of_its_own_costs_nothing(shallow: Potential, crystal: Structure) -> None:
    loss = LossConfig(spectrum=SpectrumTerm(), hessian=HessianTerm())
    own = lattice_batch(shallow, computed_record(shallow, crystal, Q), loss)
    # the unit of the loss is (eV/Å²)² and THz²
    assert value(shallow, [own]) < 1e-18


def exact(student: Potential, records: list[Record], over: str = "") -> float:
    """Return the mean over structures of ‖ΔH‖²/n, or of (1/n) sum of the norms of blocks."""
    found = []
    for record in records:
        assert record.force_constants is not None
        atoms = len(record.structure.numbers)
        wanted = record.force_constants.values[0].real.reshape(atoms, 3, atoms, 3)
        blocks = np.linalg.norm(hessian(record.structure, student) - wanted, axis=(1, 3))
        if over == "block":
            found.append(np.sum(blocks) / atoms)
        elif over == "column":
            found.append(np.sum(np.sqrt(np.sum(blocks**2, axis=0))) / atoms)
        else:
            found.append(np.sum(blocks**2) / atoms)
    return float(np.mean(found))


@pytest.fixture(scope="module")
def gamma(crystal: Structure, molecule: Structure) -> list[Record]:
    """A small crystal and a small molecule with Hessians."""
    return [gamma_record(some, seed) for seed, some in enumerate((crystal, molecule))]


@pytest.mark.parametrize("over", ["", "block", "column"])
def test_columns_of_all_atoms_are_the_whole_hessian(
    over: Any, shallow: Potential, gamma: list[Record]
) -> None:
    term = HessianTerm(samples=5)  # drawn without repetition: every atom once
    if over:
        term = dataclasses.replace(term, kind="mae", over=over)
    found = value(shallow, batches(shallow, gamma, LossConfig(hessian=term)))
    assert found == pytest.approx(exact(shallow, gamma, over), rel=1e-11)


@pytest.mark.parametrize("estimator", ["columns", "probes", "pairs"])
def test_estimators_are_unbiased(estimator: Any, shallow: Potential, gamma: list[Record]) -> None:
    samples = 1 if estimator == "columns" else 50
    loss = LossConfig(hessian=HessianTerm(estimator=estimator, samples=samples))
    draws = 120
    values = [value(shallow, batches(shallow, gamma, loss, seed)) for seed in range(draws)]
    error = np.std(values, ddof=1) / draws**0.5
    wanted = exact(shallow, gamma)
    # four standard errors, which are small enough to see a factor that is missing
    assert error < 0.1 * wanted
    assert abs(np.mean(values) - wanted) < 4 * error


def test_the_loss_at_wave_vectors_is_that_of_the_matrix(
    shallow: Potential, crystal: Structure
) -> None:
    record = lattice_record(crystal)
    assert record.force_constants is not None
    found = value(shallow, batches(shallow, [record], LossConfig(hessian=HessianTerm())))
    difference = lattice_force_constants(shallow, crystal, Q) - record.force_constants.values
    wanted = np.sum(np.abs(difference) ** 2) / len(Q) / len(crystal.numbers)
    assert found == pytest.approx(wanted, rel=1e-11)


def test_means_run_over_structures_and_atoms(shallow: Potential, gamma: list[Record]) -> None:
    loss = LossConfig(Term(), Term(weight=3.0), Term(weight=20.0))
    found = value(shallow, batches(shallow, gamma, loss))
    energy, forces, stress = [], [], []
    for record in gamma:
        own = shallow.evaluate(record.structure)
        energy.append(((own.energy - record.energy) / len(own.forces)) ** 2)
        forces.extend(np.sum((own.forces - record.forces) ** 2, axis=1))
        if record.stress is not None:  # the molecule has none and does not count
            stress.append(np.sum((own.stress - record.stress) ** 2))
    assert len(stress) == 1
    wanted = np.mean(energy) + 3 * np.mean(forces) + 20 * np.mean(stress)
    assert found == pytest.approx(wanted, rel=1e-11)


def turned(record: Record) -> Record:
    """Return a record and its labels after an improper rotation."""
    structure, constants, turn = record.structure, record.force_constants, IMPROPER
    assert record.forces is not None and record.stress is not None and constants is not None
    atoms = len(structure.numbers)
    blocks = constants.values[0].reshape(atoms, 3, atoms, 3)
    matrix = np.einsum("ab,ibjc,dc->iajd", turn, blocks, turn).reshape(1, 3 * atoms, 3 * atoms)
    return dataclasses.replace(
        record,
        structure=structure._replace(
            positions=structure.positions @ turn.T, cell=structure.cell @ turn.T
        ),
        forces=record.forces @ turn.T,
        stress=turn @ record.stress @ turn.T,
        force_constants=ForceConstantsData(constants.qpoints, matrix),
    )


def test_losses_do_not_depend_on_the_orientation(shallow: Potential, crystal: Structure) -> None:
    loss = LossConfig(
        forces=Term(kind="mae"),
        stress=Term(kind="huber", delta=1e-3),
        hessian=HessianTerm(kind="mae", samples=5),
    )
    record = gamma_record(crystal)
    values = [value(shallow, batches(shallow, [some], loss)) for some in (record, turned(record))]
    assert values[0] == pytest.approx(values[1], rel=1e-10)


def test_groups_of_degenerate_targets() -> None:
    frequencies = np.array([[3.0, -1.0, 3.001, 3.0015, 5.0, 5.5]])
    means = group_means(frequencies, 0.01)[0]
    triple = (3.0**2 + 3.001**2 + 3.0015**2) / 3
    np.testing.assert_allclose(means, [-1.0, triple, triple, triple, 25.0, 30.25], rtol=1e-14)

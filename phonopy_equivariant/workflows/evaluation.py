"""Judge potentials by reference phonons: what ``phonopy-equivariant evaluate`` does."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from phonopy_equivariant._version import __version__
from phonopy_equivariant.calculators.relax import relax
from phonopy_equivariant.catalogue.bundled import DEFAULT_MODEL
from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.evaluation.metrics import (
    Comparison,
    compared_bands,
    matrix_errors,
    mesh_phonons,
)
from phonopy_equivariant.evaluation.references import Reference, find_references, read_reference
from phonopy_equivariant.evaluation.report import evaluation_page
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.phonons.force_constants import set_force_constants
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.results import Result, plain
from phonopy_equivariant.workflows.options import EvaluationOptions
from phonopy_equivariant.workflows.progress import Progress, Silent

# label, key of Comparison.errors, factor, digits
_ERRORS = (
    ("D(q), %", "matrix", 100, 1),
    ("frequencies, THz", "frequencies", 1, 3),
    ("highest, THz", "highest", 1, 2),
    ("highest, %", "highest_relative", 100, 1),
    ("lowest, THz", "lowest", 1, 2),
    ("mean, THz", "mean", 1, 3),
    ("F, kJ/mol atoms", "free_energy", 1, 3),
    ("S, J/K/mol atoms", "entropy", 1, 3),
    ("Cv, J/K/mol atoms", "heat_capacity", 1, 3),
    ("DOS overlap", "dos_overlap", 1, 2),
)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Failure(Result):
    """A crystal that a model has no phonons for, and why."""

    name: str
    model: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PhononEvaluation(Result):
    """Errors of potentials against reference phonons.

    Parameters
    ----------
    comparisons
        One for each crystal and model.
    failures
        What could not be compared.
    options
        Mesh, temperature, relaxation.
    models
        Name and SHA-256 of each potential.

    """

    comparisons: tuple[Comparison, ...]
    failures: tuple[Failure, ...]
    options: EvaluationOptions
    models: dict[str, str]

    def columns(self) -> list[str]:
        """Return the headings of :meth:`rows`."""
        return ["crystal", "formula", "model", "atoms", *(label for label, *_ in _ERRORS), "stable"]

    def rows(self) -> list[list[str]]:
        """Return the errors of each crystal, smallest error of D(q) first."""
        ordered = sorted(self.comparisons, key=lambda x: (x.model, x.matrix_error))
        return [_row(comparison) for comparison in ordered]

    def summary(self) -> dict[str, dict[str, float]]:
        """Return, for each model, mean absolute errors over its crystals and F1 of stability.

        ``f1`` is that of the class "unstable": the harmonic mean of the shares of predicted and of
        actual unstable crystals that agree; nan where there is none.
        """
        return {name: self._summary(name) for name in self.models}

    def lines(self) -> list[str]:
        """Return the summary as lines of text."""
        lines = []
        for name, values in self.summary().items():
            lines += [name, f"  {'crystals':<20} {values['crystals']:.0f}"]
            for label, key, factor, digits in _ERRORS:
                if key in values:
                    lines.append(f"  {label:<20} {factor * values[key]:.{digits}f}")
            lines.append(f"  {'unstable, F1':<20} {values['f1']:.2f}")
        lines += [f"{f.name}, {f.model}: {f.reason}" for f in self.failures]
        return lines

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the errors of every crystal and model as CSV, thermal properties of both beside."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        sides = ["highest", "lowest", "mean", "imaginary", "stable"]
        sides += ["free_energy", "entropy", "heat_capacity"]
        heads = [f"{side}_{of}" for side in sides for of in ("reference", "model")]
        keys = [key for _, key, *_ in _ERRORS]
        first = ["crystal", "formula", "model", "atoms", "supercell"]
        further = ["residual_force", "residual_stress", "seconds"]
        writer.writerow([*first, *keys, *heads, *further])
        for c in self.comparisons:
            errors = c.errors()
            values = [getattr(x, side) for side in sides for x in (c.reference, c.predicted)]
            last = [c.residual_force, c.residual_stress, c.seconds]
            head = [c.name, c.formula, c.model, c.atoms, c.supercell]
            writer.writerow([*head, *(errors[key] for key in keys), *values, *last])
        write_atomically(Path(path), text.getvalue().encode())

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report with figures as one HTML file; nothing outside of it is needed."""
        tables = (self.columns(), self.rows())
        failures = [[f.name, f.model, f.reason] for f in self.failures]
        text = evaluation_page(
            self.comparisons, self.summary_rows(), tables, failures, self.manifest()
        )
        write_atomically(Path(path), text.encode())

    def summary_rows(self) -> list[list[str]]:
        """Return the summary with a column for each model, headings first."""
        summary = self.summary()
        rows = [["mean absolute error", *summary]]
        rows.append(["crystals", *(f"{v['crystals']:.0f}" for v in summary.values())])
        for label, key, factor, digits in _ERRORS:
            cells = [f"{factor * v.get(key, np.nan):.{digits}f}" for v in summary.values()]
            rows.append([label, *cells])
        return [*rows, ["unstable, F1", *(f"{v['f1']:.2f}" for v in summary.values())]]

    def manifest(self) -> list[list[str]]:
        """Return what a repetition needs: versions, models and their hashes, options."""
        versions = [[name, version(name)] for name in ("phonopy", "jax", "numpy")]
        models = [[f"model {name}", f"sha256 {sha}"] for name, sha in self.models.items()]
        options = [[key, str(value)] for key, value in plain(self.options).items()]
        return [["phonopy_equivariant", __version__], *versions, *models, *options]

    def _summary(self, model: str) -> dict[str, float]:
        of_model = [c for c in self.comparisons if c.model == model]
        if not of_model:
            return {"crystals": 0.0, "f1": float("nan")}
        errors = [c.errors() for c in of_model]
        means = {key: float(np.mean([abs(e[key]) for e in errors])) for _, key, *_ in _ERRORS}
        predicted = np.array([not c.predicted.stable for c in of_model])
        actual = np.array([not c.reference.stable for c in of_model])
        both, either = np.sum(predicted & actual), predicted.sum() + actual.sum()
        return {
            "crystals": float(len(of_model)),
            **means,
            "f1": float(2 * both / either) if either else float("nan"),
        }


def evaluate(
    references: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    models: PotentialLike | Sequence[PotentialLike] = DEFAULT_MODEL,
    options: EvaluationOptions | None = None,
    progress: Progress | None = None,
) -> PhononEvaluation:
    """Return the errors of potentials against reference phonons, crystal by crystal.

    The model gets the reference's primitive cell and supercell; force constants of forces are those
    that phonopy fits and symmetrises. Neither side has a non-analytical term correction.

    Parameters
    ----------
    references
        phonopy's files with forces or force constants (``phonopy_params.yaml``, ``.xz`` and the
        like), folders with one, folders of such folders.
    models
        Potentials or their names.
    options
        Mesh, temperature, relaxation; see :class:`.EvaluationOptions`.
    progress
        Whom to tell; default: warnings only.

    Raises
    ------
    PhonopyEquivariantError
        A path without references, or a model that cannot be loaded. What goes wrong with one
        crystal is recorded among the failures.

    """
    options = EvaluationOptions() if options is None else options
    progress = Silent() if progress is None else progress
    paths = [references] if isinstance(references, str | os.PathLike) else list(references)
    files = find_references(paths)
    listed: Sequence[PotentialLike] = models if isinstance(models, list | tuple) else [models]  # type: ignore[list-item]
    potentials = [as_potential(model) for model in listed]
    comparisons: list[Comparison] = []
    failures: list[Failure] = []
    for file in progress.track("Crystals", files):
        for outcome in _of_reference(file, potentials, options):
            if isinstance(outcome, Failure):
                progress.warn(f"{outcome.name}, {outcome.model}: {outcome.reason}")
                failures.append(outcome)
            else:
                comparisons.append(outcome)
    shas = {potential.name: potential.sha256 or "" for potential in potentials}
    return PhononEvaluation(tuple(comparisons), tuple(failures), options, shas)


def _of_reference(
    file: Reference, potentials: Sequence[Potential], options: EvaluationOptions
) -> Iterable[Comparison | Failure]:
    """Yield the comparison of each potential with one reference."""
    try:
        reference = read_reference(file.path)
    except PhonopyEquivariantError as error:
        yield Failure(file.name, "reference", str(error))
        return
    for potential in potentials:
        try:
            comparison = compare(file.name, reference, potential, options)
        except PhonopyEquivariantError as error:
            yield Failure(file.name, potential.name, str(error))
            continue
        if comparison.finite:
            yield comparison
        else:
            yield Failure(file.name, potential.name, "frequencies that are not numbers")


def compare(
    name: str, reference: Phonopy, potential: Potential, options: EvaluationOptions
) -> Comparison:
    """Return the phonons of one crystal from reference and potential in the same cells.

    Raises
    ------
    PhonopyEquivariantError
        The potential cannot compute the crystal, or its relaxation does not converge.

    """
    cell = reference.unitcell
    if options.relaxation is not None:
        cell = _relaxed(cell, potential, options)
    phonon = Phonopy(
        cell,
        supercell_matrix=reference.supercell_matrix,
        primitive_matrix=reference.primitive_matrix,
    )
    if not _same_cells(phonon, reference, options.relaxation is not None):
        raise PhonopyEquivariantError("its supercell has another order of atoms than phonopy's.")
    report = set_force_constants(phonon, potential)
    both = (reference, phonon)
    grid, sides = mesh_phonons(both, options.mesh, options.temperature)
    return Comparison(
        name,
        potential.name,
        reference.primitive.formula,
        len(phonon.primitive),
        len(phonon.supercell),
        *sides,
        grid,
        matrix_errors(*both),
        report.residual_force,
        report.residual_stress,
        report.seconds,
        compared_bands(*both) if options.bands else None,
    )


def _same_cells(phonon: Phonopy, reference: Phonopy, relaxed: bool) -> bool:
    """Tell whether two supercells list the same atoms; a relaxation keeps their order."""
    if not np.array_equal(phonon.supercell.numbers, reference.supercell.numbers):
        return False
    shift = phonon.supercell.scaled_positions - reference.supercell.scaled_positions
    return relaxed or bool(np.abs(shift - np.round(shift)).max() < 1e-6)


def _relaxed(cell: PhonopyAtoms, potential: Potential, options: EvaluationOptions) -> PhonopyAtoms:
    assert options.relaxation is not None
    how = options.relaxation
    return relax(cell, potential, how.fmax, how.cell, how.symprec)


def _row(comparison: Comparison) -> list[str]:
    errors = comparison.errors()
    sides = (comparison.reference.stable, comparison.predicted.stable)
    stable = " / ".join("yes" if side else "no" for side in sides)
    numbers = [f"{factor * errors[key]:.{digits}f}" for _, key, factor, digits in _ERRORS]
    first = [comparison.name, comparison.formula, comparison.model, str(comparison.atoms)]
    return [*first, *numbers, stable]

"""The training loop: from a configuration to a checkpoint."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import yaml

from phonopy_equivariant.checkpoints.load import load_potential
from phonopy_equivariant.checkpoints.native import save_checkpoint
from phonopy_equivariant.data import Record
from phonopy_equivariant.data.selection import Union
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.files import write_atomically
from phonopy_equivariant.models.layered import Params
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.training import gradients, optimiser
from phonopy_equivariant.training.ahead import Ahead
from phonopy_equivariant.training.config import TrainingConfig, read_config
from phonopy_equivariant.training.contents import check_terms, contents
from phonopy_equivariant.training.initial import initial_potential, refit_energies
from phonopy_equivariant.training.logs import Logs
from phonopy_equivariant.training.losses import Metrics
from phonopy_equivariant.training.optimiser import TrainState
from phonopy_equivariant.training.samples import (
    Cursor,
    Microbatch,
    Samples,
)
from phonopy_equivariant.training.sources import read_set, set_names
from phonopy_equivariant.training.state import (
    Origin,
    Progress,
    load_origin,
    load_state,
    require_same,
    save_state,
)

# "set/term" -> sums of residuals and their numbers, one for each microbatch
MetricSums = dict[str, list[jax.Array]]

STATE, BEST, LAST = "state.npz", "best.npz", "last.npz"


class Report(NamedTuple):
    """What a callback sees after every step that is logged or validated."""

    step: int
    steps: int
    values: dict[str, float]


class TrainingResult(NamedTuple):
    """What a training leaves behind."""

    potential: Potential  # the best on validation; the last without
    checkpoint: Path  # its file
    step: int
    best: float  # its validation loss; infinite without validation
    stopped: bool  # whether patience ended it early


def _log(line: str) -> None:
    logging.getLogger("phonopy_equivariant").warning(line)


def train(
    config: TrainingConfig | str | os.PathLike[str],
    callback: Callable[[Report], None] | None = None,
    restart: bool = False,
    report: Callable[[str], None] = _log,
) -> TrainingResult:
    """Train a potential; continue a run that was interrupted, as if it had not been.

    Parameters
    ----------
    config
        A YAML file, or the configuration that
        ``training.config.read_config`` returns.
    callback
        Called with a :class:`Report` after steps that are logged or validated.
    restart
        Begin anew where the output folder holds an unfinished run.
    report
        Called with one line for each record that is left out and each oddity of the data; by
        default the line goes to the logger ``phonopy_equivariant``.

    Returns
    -------
    TrainingResult
        The best potential and its checkpoint. The output folder has ``best.npz`` and
        ``last.npz`` for ``load_potential``, ``state.npz`` to go on from, ``config.yaml`` and
        ``log.csv``.

    Raises
    ------
    PhonopyEquivariantError
        Data cannot be read or used, a term of the loss has no data, the output folder holds
        another training, or the loss is no longer a number.

    """
    settings = config if isinstance(config, TrainingConfig) else read_config(config)
    trainer = Trainer(settings, restart, report)
    try:
        return trainer.run(callback or (lambda report: None))
    finally:
        trainer.close()


class Trainer:
    """A training in progress; :func:`train` is its life.

    Parameters
    ----------
    config, restart
        As of :func:`train`.
    report
        Is told, in one line each, of records that are left out and of what is odd in the data.

    Attributes
    ----------
    contents
        A line for each set: how many records have data for each term of its loss.

    """

    def __init__(
        self,
        config: TrainingConfig,
        restart: bool = False,
        report: Callable[[str], None] = lambda line: None,
    ):
        self.config = config
        self._folder = Path(config.output)
        self._mesh = gradients.device_mesh()
        self._names = set_names(config.sets)
        self._devices = 1 if self._mesh is None else self._mesh.size
        record_sets = [
            read_set(set_config, config.loss.terms, config.seed, k, report)
            for k, set_config in enumerate(config.sets)
        ]
        fingerprints = tuple(record_set.fingerprint for record_set in record_sets)
        self._origin = Origin(config.to_dict(), fingerprints, self._devices)
        resumed = (self._folder / STATE).exists() and not restart
        if resumed:
            require_same(load_origin(self._folder / STATE), self._origin, self._folder)
        training_records = Union([record_set.training for record_set in record_sets])
        held_out = Union([record_set.validation for record_set in record_sets])
        self._potential = initial_potential(config, training_records, held_out)
        self._sets = [
            self._samples(k, record_set.training) for k, record_set in enumerate(record_sets)
        ]
        self._validation = {
            self._names[k]: self._samples(k, record_set.validation, held_out=True)
            for k, record_set in enumerate(record_sets)
            if len(record_set.validation)
        }
        training = dict(zip(self._names, self._sets, strict=True))
        self.contents = contents(training, self._validation)
        check_terms(config, training, self._validation, report)
        if not resumed and config.energies == "refit" and config.loss.energy is not None:
            labelled = [(samples.records, samples.graphs) for samples in self._sets]
            self._potential = refit_energies(self._potential, labelled)
        self._levels = sorted({record.level for record in training_records} - {""})
        self._columns = _columns("train", training) + _columns("valid", self._validation)
        if not self._validation and (config.patience or config.optimiser.schedule == "plateau"):
            raise PhonopyEquivariantError(
                "patience and the plateau schedule need validation data; give a set valid: 0.1."
            )
        self.state = optimiser.start(config.optimiser, self._potential.params)
        self.progress = Progress(0, tuple(Cursor() for _ in self._sets))
        self._open(resumed)
        self._ahead = Ahead(self._sets)

    def run(self, callback: Callable[[Report], None]) -> TrainingResult:
        """Take the steps that are left; save the state on the way out, whatever the reason."""
        saved = logged = self.progress.step
        logged_at = time.perf_counter()
        try:
            while self.progress.step < self.config.steps and not self._impatient():
                # state and progress change together, so that what is saved belongs together
                state, progress, row = self._advance()
                if row is not None:
                    now = time.perf_counter()
                    speed = (progress.step - logged) / (now - logged_at)
                    self._logs.write(row | {"steps_per_second": speed})
                    callback(Report(progress.step, self.config.steps, row))
                    logged, logged_at = progress.step, now
                self.state, self.progress = state, progress
                if progress.step % self.config.checkpoint_every == 0:
                    self._save()
                    saved = progress.step
        finally:
            if self.progress.step != saved:
                self._save()
        return self._result()

    def close(self) -> None:
        """Close the logs, and end the thread that makes batches."""
        self._ahead.close()
        self._logs.close()

    def _advance(self) -> tuple[TrainState, Progress, dict[str, float] | None]:
        """Return state, progress and, where they are logged, numbers after one more step."""
        config, step = self.config, self.progress.step + 1
        drawn = self._ahead.draw(self.progress.cursors)
        progress = dataclasses.replace(
            self.progress, step=step, cursors=tuple(cursor for _, cursor in drawn)
        )
        batches = [batches for batches, _ in drawn]
        loss, metrics, gradient = self._gradient(batches)
        factor = np.asarray(config.optimiser.plateau_factor**progress.reductions)
        state, norm, rate = optimiser.update(
            config.optimiser, config.steps, self.state, gradient, factor
        )
        is_last = step == config.steps
        validated = bool(self._validation) and (step % config.validate_every == 0 or is_last)
        if not (validated or is_last or step % config.log_every == 0):
            return state, progress, None
        row = {"step": float(step), "learning_rate": float(rate), "gradient_norm": float(norm)}
        row |= {"train_loss": float(loss)} | _readable("train", metrics)
        if validated:
            row |= self._validate(state)
            progress = self._judged(progress, row["valid_loss"], state)
        if not all(map(math.isfinite, row.values())):
            raise PhonopyEquivariantError(
                f"The loss is no longer a finite number at step {step}; lower "
                "optimiser.learning_rate, or check the data (dataset). The state before is kept."
            )
        return state, progress, row

    def _gradient(self, batches: list[list[Microbatch]]) -> tuple[jax.Array, MetricSums, Params]:
        """Return loss, metrics by set and term, and gradient, summed over all sets."""
        total: gradients.LossGradient | None = None
        metrics: MetricSums = {}
        for name, set_batches in zip(self._names, batches, strict=True):
            for loss, batch in set_batches:
                (value, sums), gradient = gradients.loss_and_gradient(
                    self._potential.model, loss, self._mesh, self.state.params, batch
                )
                addend = (value, gradient)
                total = addend if total is None else gradients.accumulate(total, addend)
                _add(metrics, name, sums)
        assert total is not None  # every set has a term
        return total[0], metrics, total[1]

    def _validate(self, state: TrainState) -> dict[str, float]:
        """Return loss and metrics of the averaged weights on the validation sets."""
        metrics: MetricSums = {}
        value = 0.0
        for name, samples in self._validation.items():
            for loss, batch in samples.all():
                batch_loss, sums = gradients.loss_alone(
                    self._potential.model, loss, self._mesh, state.average, batch
                )
                value += float(batch_loss)
                _add(metrics, name, sums)
        return {"valid_loss": value} | _readable("valid", metrics)

    def _judged(self, progress: Progress, loss: float, state: TrainState) -> Progress:
        """Return the progress after a validation; a better potential is written."""
        if loss < progress.best:
            self._write(BEST, state)
            return dataclasses.replace(progress, best=loss, waiting=0, stale=0)
        waiting, stale = progress.waiting + 1, progress.stale + 1
        reductions = progress.reductions
        options = self.config.optimiser
        if options.schedule == "plateau" and stale >= options.plateau_patience:
            reductions, stale = reductions + 1, 0
        return dataclasses.replace(progress, waiting=waiting, stale=stale, reductions=reductions)

    def _impatient(self) -> bool:
        return 0 < self.config.patience <= self.progress.waiting

    def _samples(self, index: int, records: Sequence[Record], held_out: bool = False) -> Samples:
        config, set_config = self.config, self.config.sets[index]
        if held_out and set_config.valid_path:
            set_config = dataclasses.replace(set_config, path=set_config.valid_path)
        return Samples(
            self._potential,
            records,
            set_config,
            config.loss,
            config.seed,
            index,
            self._devices,
        )

    def _open(self, resumed: bool) -> None:
        """Make the output folder; a resumed run takes up the state of an earlier run in it."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PhonopyEquivariantError(
                f"Cannot make {self._folder}: {error.strerror}; choose another output."
            ) from error
        if resumed:
            self.state, self.progress = load_state(self._folder / STATE, self.state)
        else:
            for name in (STATE, BEST, LAST):
                (self._folder / name).unlink(missing_ok=True)
        text = yaml.safe_dump(self._origin.config, sort_keys=False)
        write_atomically(self._folder / "config.yaml", text.encode())
        leading = ["step", "learning_rate", "gradient_norm", "train_loss", "valid_loss"]
        columns = [*leading, *self._columns, "steps_per_second"]
        self._logs = Logs(self._folder, columns, self.progress.step, self.config.tensorboard)

    def _save(self) -> None:
        """Write state and last potential, unless the weights have diverged."""
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(self.state.params)):
            return
        self._write(LAST, self.state)
        save_state(self._folder / STATE, self.state, self.progress, self._origin)

    def _write(self, name: str, state: TrainState) -> None:
        """Write a potential with the averaged weights."""
        potential = self._trained(state)
        labels = {
            "training_sets": ", ".join(self._names),
            "steps": str(int(state.step)),
            "theory": ", ".join(self._levels),
            "started_from": self.config.finetune_from or f"random weights, seed {self.config.seed}",
        }
        save_checkpoint(potential, self._folder / name, labels)

    def _trained(self, state: TrainState) -> Potential:
        # a reference belongs to the weights it was fitted with
        return dataclasses.replace(
            self._potential,
            params=state.average,
            name=self._folder.name,
            sha256="",
            reference=None,
        )

    def _result(self) -> TrainingResult:
        path = self._folder / (BEST if self._validation else LAST)
        return TrainingResult(
            load_potential(path, self.config.dtype),
            path,
            self.progress.step,
            self.progress.best,
            self._impatient(),
        )


def _add(metrics: MetricSums, name: str, sums: Metrics) -> None:
    for term, value in sums.items():
        metrics.setdefault(f"{name}/{term}", []).append(value)


def _readable(prefix: str, metrics: MetricSums) -> dict[str, float]:
    """Return mean absolute errors, and for Hessians the root of the mean square."""
    result = {}
    for key, values in metrics.items():
        total, count = np.sum([np.asarray(value) for value in values], axis=0)
        if count:
            mean = float(total / count)
            result[f"{prefix}/{key}"] = mean**0.5 if key.endswith("/hessian") else mean
    return result


def _columns(kind: str, sets: dict[str, Samples]) -> list[str]:
    """Return the columns of the log for the terms of each set."""
    return [
        f"{kind}/{name}/{term}" for name, samples in sets.items() for term in samples.loss.terms
    ]

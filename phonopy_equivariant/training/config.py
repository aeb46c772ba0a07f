"""Options of a training, as frozen dataclasses, and the YAML file they come from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from phonopy_equivariant.errors import PhonopyEquivariantError, reason_of
from phonopy_equivariant.results import plain
from phonopy_equivariant.training.parsing import build

Kind = Literal["squared", "mae", "huber"]


def _at_least(least: int, values: Mapping[str, int]) -> None:
    """Refuse smaller values by name."""
    for name, value in values.items():
        if value < least:
            raise PhonopyEquivariantError(f"{name}={value}: must be at least {least}.")


@dataclasses.dataclass(frozen=True)
class Term:
    """Loss on energies per atom (eV), forces (eV/Å) or stresses (eV/Å³).

    Parameters
    ----------
    weight
        Factor of the term in the loss.
    kind
        ρ(x) of the norm x of a residual (a number, a force vector, a stress tensor): ``squared``
        x², ``mae`` x, ``huber`` x²/2 below ``delta`` and δ(x - δ/2) above.
    delta
        δ of Huber's loss, in the unit of the residual.

    """

    weight: float = 1.0
    kind: Kind = "squared"
    delta: float = 0.01


@dataclasses.dataclass(frozen=True)
class HessianTerm:
    """Loss on second derivatives (eV/Å²), per atom: ‖ΔH‖²/n if squared.

    Parameters
    ----------
    weight, kind, delta
        As of :class:`Term`; ``mae`` and ``huber`` need the estimator ``columns``.
    estimator
        What a step sees of a molecule or of a crystal at Γ: ``columns`` (the three columns of a
        random atom), ``probes`` (the Hessian times a random vector), ``pairs`` (one random
        element between random directions at two random atoms). At q ≠ 0 the whole Φ(q).
    samples
        Samples of the estimator for each structure and step.
    over
        The norm in ``mae`` and ``huber``: of each 3×3 ``block``, or of the whole ``column`` of
        blocks of an atom.
    qpoints
        Wave vectors drawn for each structure and step where there are several.

    """

    weight: float = 1.0
    kind: Kind = "squared"
    delta: float = 0.1
    estimator: Literal["columns", "probes", "pairs"] = "columns"
    samples: int = 1
    over: Literal["block", "column"] = "block"
    qpoints: int = 4

    def __post_init__(self) -> None:
        """Refuse empty samples, and norms that random directions do not estimate without bias."""
        counts = {"loss.hessian.samples": self.samples, "loss.hessian.qpoints": self.qpoints}
        _at_least(1, counts)
        if self.kind != "squared" and self.estimator != "columns":
            raise PhonopyEquivariantError(
                f"loss.hessian: kind {self.kind!r} is biased with random {self.estimator}; choose "
                "estimator: columns, or kind: squared."
            )


@dataclasses.dataclass(frozen=True)
class SpectrumTerm:
    """Loss on phonon frequencies, as symmetric functions within degenerate groups.

    Parameters
    ----------
    weight
        Factor of the term in the loss.
    form
        ``root``: a smooth signed root of ω², λ/(λ² + s⁴)^¼, in THz; ``square``: λ = ω², in THz².
    smoothing
        s (THz): below it ``root`` is linear in ω².
    degeneracy
        Target frequencies closer than this (THz) form a group.
    qpoints
        Wave vectors drawn for each structure and step where there are several.

    """

    weight: float = 1.0
    form: Literal["root", "square"] = "root"
    smoothing: float = 0.5
    degeneracy: float = 0.02
    qpoints: int = 4

    def __post_init__(self) -> None:
        """Refuse to draw no wave vectors."""
        _at_least(1, {"loss.spectrum.qpoints": self.qpoints})


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Terms of the loss; a term left out does not count."""

    energy: Term | None = None
    forces: Term | None = None
    stress: Term | None = None
    hessian: HessianTerm | None = None
    spectrum: SpectrumTerm | None = None

    def __post_init__(self) -> None:
        """Refuse a loss without terms."""
        if not self.terms:
            raise PhonopyEquivariantError(
                "loss: no term; name at least one of energy, forces, stress, hessian, spectrum."
            )

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the terms that count."""
        return tuple(f.name for f in dataclasses.fields(self) if getattr(self, f.name) is not None)


@dataclasses.dataclass(frozen=True)
class SetConfig:
    """One set of records.

    Parameters
    ----------
    path
        File that ``read_records`` takes, relative to the YAML file's folder.
    weight
        Factor of this set's loss; each step sees one batch of every set.
    batch_size
        Structures in a batch.
    valid
        Share of the set held out for validation, drawn with the seed.
    valid_path
        File of records to validate on, in place of a share.
    limit
        Use only this many records for training (0: all), the first of the seeded order.
    terms
        Terms of the loss this set takes part in; empty: all it has data for.
    check
        What happens where units, signs or sizes of the whole set look wrong: ``stop`` or ``warn``.
    options
        Options of ``read_records``.

    """

    path: str
    weight: float = 1.0
    batch_size: int = 4
    valid: float = 0.0
    valid_path: str = ""
    limit: int = 0
    terms: tuple[str, ...] = ()
    check: Literal["stop", "warn"] = "stop"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse counts and shares that mean nothing."""
        _at_least(1, {f"batch_size of {self.path}": self.batch_size})
        _at_least(0, {f"limit of {self.path}": self.limit})
        if not 0 <= self.valid < 1:
            raise PhonopyEquivariantError(
                f"valid={self.valid} of {self.path} is not a share in [0, 1)."
            )


@dataclasses.dataclass(frozen=True)
class OptimiserConfig:
    """AdamW with warm-up, schedule, clipping and moving average.

    Parameters
    ----------
    learning_rate
        Its highest value.
    schedule
        ``cosine`` down to ``final`` times the rate, ``plateau`` (times ``plateau_factor`` after
        ``plateau_patience`` validations without improvement), or ``constant``.
    warmup_steps
        Linear rise from zero.
    weight_decay
        Of matrices only, not of vectors.
    clip
        Largest norm of the gradient; 0: none.
    ema
        Decay of the moving average of the weights, which is validated and saved; 0: none.

    """

    learning_rate: float = 1e-3
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    final: float = 0.01
    warmup_steps: int = 100
    plateau_factor: float = 0.5
    plateau_patience: int = 5
    weight_decay: float = 0.0
    clip: float = 10.0
    ema: float = 0.99


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """A whole training.

    Parameters
    ----------
    output
        Folder of the checkpoints and logs, relative to the YAML file's folder.
    sets, loss, optimiser
        The data, what is compared, how it is minimised.
    steps
        Optimiser steps in all.
    model
        ``architecture`` and its options, to start from random weights. Species, mean energies,
        number of neighbours and force scale come from the data unless they are given.
    finetune_from
        Name or path of a potential to start from, in place of ``model``.
    energies
        ``refit``: before the first step, energies of free atoms are fitted to the data by least
        squares, which changes no force; ``keep``: leave them as they are.
    dtype
        Precision of the weights.
    validate_every, checkpoint_every, log_every
        In steps.
    patience
        Stop after this many validations without improvement; 0: never.
    tensorboard
        Write TensorBoard's event files too.

    """

    output: str
    sets: tuple[SetConfig, ...]
    loss: LossConfig
    steps: int = 1000
    model: Mapping[str, Any] | None = None
    finetune_from: str = ""
    energies: Literal["refit", "keep"] = "refit"
    optimiser: OptimiserConfig = OptimiserConfig()
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    validate_every: int = 100
    checkpoint_every: int = 100
    log_every: int = 10
    patience: int = 0
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Refuse a configuration that cannot be trained."""
        if (self.model is None) == (not self.finetune_from):
            raise PhonopyEquivariantError(
                "Give either model (random weights) or finetune_from (a potential), not both."
            )
        if not self.sets:
            raise PhonopyEquivariantError("sets: empty; name at least one file of records.")
        for set_config in self.sets:
            unknown = set(set_config.terms) - set(self.loss.terms)
            if unknown:
                raise PhonopyEquivariantError(
                    f"sets: {set_config.path} takes part in {min(unknown)!r}, which loss does not "
                    f"have; its terms are {', '.join(self.loss.terms)}."
                )
        _at_least(0, {name: getattr(self, name) for name in ("seed", "patience")})
        intervals = ("steps", "validate_every", "checkpoint_every", "log_every")
        _at_least(1, {name: getattr(self, name) for name in intervals})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for YAML."""
        values: dict[str, Any] = plain(dataclasses.asdict(self))
        return values


def read_config(path: str | os.PathLike[str]) -> TrainingConfig:
    """Return the training a YAML file describes; its paths become absolute.

    Raises
    ------
    PhonopyEquivariantError
        No such file, not YAML, an unknown key (the nearest one is named), a missing or wrong
        value.

    """
    path = Path(path).expanduser()
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise PhonopyEquivariantError(
            f"Cannot read {path}: {error.strerror}; give the YAML file of a training."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = reason_of(error, 300)
        raise PhonopyEquivariantError(f"{path}: not valid YAML ({reason}).") from error
    try:
        return make_config(values, path.absolute().parent)
    except PhonopyEquivariantError as error:
        raise PhonopyEquivariantError(f"{path}: {error}") from error


def make_config(values: Any, folder: Path) -> TrainingConfig:
    """Return the training that plain values describe, its paths relative to ``folder``."""
    config: TrainingConfig = build(TrainingConfig, values, "")
    sets = tuple(
        dataclasses.replace(
            set_config,
            path=str(folder / Path(set_config.path).expanduser()),
            valid_path=str(folder / Path(set_config.valid_path).expanduser())
            if set_config.valid_path
            else "",
        )
        for set_config in config.sets
    )
    start = config.finetune_from
    if start and (folder / Path(start).expanduser()).exists():
        start = str(folder / Path(start).expanduser())
    output = str(folder / Path(config.output).expanduser())
    return dataclasses.replace(config, sets=sets, output=output, finetune_from=start)

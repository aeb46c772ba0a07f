"""Report how many records of a training have data for each term of the loss, and check this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from phonopy_equivariant.data.formats import data_names
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.training.config import SetConfig, TrainingConfig

if TYPE_CHECKING:
    from phonopy_equivariant.training.samples import Samples

# Terms whose data have names in a file that can be chosen.
_KEYS = {"energy": "energy_key", "forces": "forces_key", "stress": "stress_key"}


def contents(training: Mapping[str, Samples], validation: Mapping[str, Samples]) -> list[str]:
    """Return a line for each set with the number of records that have data for each term."""
    lines = []
    for name, samples in training.items():
        line = f"{name}: {_counted(samples)} for training"
        lines.append(
            f"{line}; {_counted(validation[name])} for validation" if name in validation else line
        )
    return lines


def _counted(samples: Samples) -> str:
    counts = ", ".join(f"{term} {count}" for term, count in samples.counts.items())
    return f"{len(samples.records)} records ({counts})"


def check_terms(
    config: TrainingConfig,
    training: Mapping[str, Samples],
    validation: Mapping[str, Samples],
    report: Callable[[str], None],
) -> None:
    """Refuse a term of the loss that no record has data for.

    ``report`` gets a line if only validation records have data for a term, or if a set that names
    the term has none.

    Raises
    ------
    PhonopyEquivariantError
        No record has data for a term; the message gives the files and the names of their data.

    """
    for term in config.loss.terms:
        counts = {name: samples.counts.get(term, 0) for name, samples in training.items()}
        validated = sum(samples.counts.get(term, 0) for samples in validation.values())
        sets = [s for s in config.sets if term in (s.terms or config.loss.terms)]
        if not any(counts.values()) and not validated:
            raise PhonopyEquivariantError(_nothing(term, sets))
        if not any(counts.values()):
            report(f"loss.{term}: no training record has data for it; it is validated only.")
        for set_config, count in zip(config.sets, counts.values(), strict=True):
            if term in set_config.terms and not count and any(counts.values()):
                report(
                    f"{set_config.path}: named for {term}, but no training record has data for it."
                )


def _nothing(term: str, sets: list[SetConfig]) -> str:
    paths = ", ".join(set_config.path for set_config in sets) or "any set"
    text = f"loss.{term}: no record of {paths} has data for it; "
    for set_config in sets if term in _KEYS else ():
        reader_options = {k: v for k, v in set_config.options.items() if k != "unsound"}
        names = data_names(set_config.path, **reader_options)
        if names:
            return (
                f"{text}the names there are {', '.join(names)}: say which by options: "
                f"{{{_KEYS[term]}: NAME}} of the set, or take the term out."
            )
    return f"{text}take the term out, or add a set that has."

"""What the sets of a training have data for: told, and held against what the loss compares."""

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


def contents(training: Mapping[str, Samples], held: Mapping[str, Samples]) -> list[str]:
    """Return a line for each set: how many of its records have data for each term."""
    lines = []
    for name, samples in training.items():
        line = f"{name}: {_counted(samples)} for training"
        lines.append(f"{line}; {_counted(held[name])} for validation" if name in held else line)
    return lines


def _counted(samples: Samples) -> str:
    counts = ", ".join(f"{term} {count}" for term, count in samples.counts.items())
    return f"{len(samples.records)} records ({counts})"


def check_terms(
    config: TrainingConfig,
    training: Mapping[str, Samples],
    held: Mapping[str, Samples],
    report: Callable[[str], None],
) -> None:
    """Refuse a term of the loss that no record has data for.

    Where only records held out have data, or only some sets that name the term do, ``report`` is
    told.

    Raises
    ------
    PhonopyEquivariantError
        The term, the file, and the names in it.

    """
    for term in config.loss.terms:
        counts = {name: some.counts.get(term, 0) for name, some in training.items()}
        validated = sum(some.counts.get(term, 0) for some in held.values())
        sets = [s for s in config.sets if term in (s.terms or config.loss.terms)]
        if not any(counts.values()) and not validated:
            raise PhonopyEquivariantError(_nothing(term, sets))
        if not any(counts.values()):
            report(f"loss.{term}: no training record has data for it; it is validated only.")
        for some, count in zip(config.sets, counts.values(), strict=True):
            if term in some.terms and not count and any(counts.values()):
                report(f"{some.path}: named for {term}, but no training record has data for it.")


def _nothing(term: str, sets: list[SetConfig]) -> str:
    paths = ", ".join(some.path for some in sets) or "any set"
    text = f"loss.{term}: no record of {paths} has data for it; "
    for some in sets if term in _KEYS else ():
        reading = {k: v for k, v in some.options.items() if k != "unsound"}
        names = data_names(some.path, **reading)
        if names:
            return (
                f"{text}the names there are {', '.join(names)}: say which by options: "
                f"{{{_KEYS[term]}: NAME}} of the set, or take the term out."
            )
    return f"{text}take the term out, or add a set that has."

"""The one exception this package raises on bad input, and what its messages are made of."""

from __future__ import annotations

import difflib
import importlib.metadata
import re
from collections.abc import Collection, Iterable


class PhonopyEquivariantError(ValueError):
    """Bad input: the message is one line that names the input and the remedy.

    The command line prints the message without a traceback and exits with status 1.
    """


def reason_of(error: BaseException, length: int = 120) -> str:
    """Return the message of a foreign error in one line of at most ``length`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[: length - 3]}..."


def pip_install(extra: str) -> str:
    """Return the command that installs what an extra of this package adds.

    It names the packages themselves: that works from any folder, and before this package is
    published.

    Examples
    --------
    >>> pip_install("train")
    "pip install 'tensorboardX>=2.6'"

    """
    requirements = importlib.metadata.requires("phonopy-equivariant") or []
    ending = re.compile(rf"""\s*;\s*extra == ['"]{re.escape(extra)}['"]$""")
    packages = [ending.sub("", line) for line in requirements if ending.search(line)]
    return " ".join(["pip install", *(f"'{package}'" for package in packages)])


def nearest(name: object, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return which of the names a mistyped one may stand for."""
    return next(iter(difflib.get_close_matches(str(name), list(names), n=1, cutoff=cutoff)), None)


# What users call options that have phonopy's names here.
_SYNONYMS = {
    "--supercell": "--dim",
    "--symprec": "--tolerance",
    "--primitive-matrix": "--pa",
    "--temperatures": "--temperature",
    "--temperature": "--tmax",
}


def unknown_option(name: str, names: Collection[str]) -> str:
    """Return what is wrong with an option that is none of the names, with the nearest of them.

    Examples
    --------
    >>> unknown_option("--supercell", ["--dim", "--cell"])
    'unknown option --supercell; did you mean --dim?'

    """
    synonym = _SYNONYMS.get(name, "")
    words = {option.lstrip("-"): option for option in names}  # dashes are no likeness
    near = synonym if synonym in names else words.get(nearest(name.lstrip("-"), words) or "")
    return f"unknown option {name}; did you mean {near}?" if near else f"unknown option {name}"


def require_known_keys(
    keys: Iterable[object], names: Collection[str], subject: str = "", path: str = ""
) -> None:
    """Refuse a key that is none of the names.

    Parameters
    ----------
    keys, names
        Keys of a mapping, and those it may have.
    subject, path
        The beginning of the message, and what stands before the key in it: ``"sets[0]."``.

    Raises
    ------
    PhonopyEquivariantError
        With the nearest name, or with all names.

    """
    for key in keys:
        if key not in names:
            near = nearest(key, names)
            hint = f"did you mean {near!r}?" if near else f"known: {', '.join(names)}."
            raise PhonopyEquivariantError(f"{subject}unknown key {path + str(key)!r}; {hint}")

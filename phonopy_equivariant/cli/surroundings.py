"""What a command changes in its process and puts back: the environment, and how output is encoded.

Reports have Å, cm⁻¹ and Greek letters. Where the output is not UTF-8 (batch systems with
PYTHONIOENCODING=ascii, Latin-1 terminals) they are written as A, cm-1 and Gamma.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Iterator

_ERRORS = "phonopy_equivariant_plain"
# what Unicode does not take apart into ASCII
_SYMBOLS = {"−": "-", "–": "-", "—": "-", "·": ".", "×": "x", "±": "+-", "√": "sqrt", "∞": "inf"}
_SYMBOLS |= {"′": "'", "→": "->", "≤": "<=", "≥": ">=", "≠": "!=", "λ": "lambda", "Λ": "Lambda"}


@contextlib.contextmanager
def surroundings_kept() -> Iterator[None]:
    """Print what the output cannot encode as plain text inside; afterwards all is as before."""
    environment = dict(os.environ)
    given = sys.stdout  # --json puts standard error in its place
    # a shell closes them with >&-, and so do programs without a terminal
    absent = [name for name in ("stdout", "stderr") if getattr(sys, name) is None]
    for name in absent:
        setattr(sys, name, io.StringIO())
    streams = [s for s in (sys.stdout, sys.stderr) if isinstance(s, io.TextIOWrapper)]
    errors = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors=_ERRORS)
    try:
        yield
    finally:
        if absent.count("stdout") == 0:
            sys.stdout = given
        for stream, handler in zip(streams, errors, strict=True):
            stream.reconfigure(errors=handler)
        for name in absent:
            setattr(sys, name, None)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def plain(character: str) -> str:
    """Return what stands for a character in ASCII.

    Examples
    --------
    >>> "".join(map(plain, "5 Å⁻¹ × Γ"))
    '5 A-1 x Gamma'

    """
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    text = ""
    for component in unicodedata.normalize("NFKD", character):
        name = unicodedata.name(component, "")
        if component.isascii():
            text += component
        elif name.startswith("GREEK "):
            letter = name.split()[-1]
            text += letter.capitalize() if "CAPITAL" in name else letter.lower()
        elif not unicodedata.combining(component):
            text += _SYMBOLS.get(component, "?")
    return text


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(plain, error.object[error.start : error.end])), error.end


codecs.register_error(_ERRORS, _replace)

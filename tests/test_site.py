"""The site has every public name; Sphinx itself, in .ci/docs, checks links and pages."""

from __future__ import annotations

import re
from pathlib import Path

import phonopy_equivariant as pe

DOCS = Path(__file__).resolve().parents[1] / "docs"
# a package of functions with a section of its own, a text, and a type alias
WITHOUT_ENTRY = {"molecules", "__version__", "StructureLike"}

# of molecules: listed with its functions
RESULTS = {"MolecularVibrations", "Thermochemistry"}


def documented(module: str) -> set[str]:
    text = (DOCS / "api.md").read_text("utf-8")
    of_module = re.findall(rf"currentmodule:: {module}\n(.*?)```", text, re.DOTALL)
    return set(re.findall(r"auto(?:class|function):: (\w+)", "".join(of_module)))


def test_every_public_name_has_an_entry() -> None:
    molecules = set(pe.molecules.__all__)
    assert documented("phonopy_equivariant") == set(pe.__all__) - WITHOUT_ENTRY - RESULTS
    assert documented("phonopy_equivariant.molecules") == molecules

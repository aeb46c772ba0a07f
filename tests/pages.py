"""The pages of the documentation and their blocks of code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NOTES = [*sorted((ROOT / "docs" / "notes").glob("*.md")), ROOT / "examples" / "README.md"]
FENCE = re.compile(
    r"^((?:<!-- .*? -->\n)?)( *)```([\w{}-]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE
)


class Block(NamedTuple):
    page: str
    line: int
    language: str
    comment: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> Iterator[Block]:
    text = path.read_text("utf-8")
    for match in FENCE.finditer(text):
        comment, indent, language, code = match.groups()
        code = re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
        line = text.count("\n", 0, match.start()) + 1
        name = f"{path.parent.name}/{path.name}" if path in NOTES else path.name
        yield Block(name, line, language, comment.strip(), code)


ALL = [block for path in (*PAGES, *NOTES) for block in blocks(path)]
PYTHON = [block for block in ALL if block.language == "python"]

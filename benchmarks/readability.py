"""Words and reading grade of each page of the documentation, as a table.

    python benchmarks/readability.py                    # the pages of this folder
    python benchmarks/readability.py --before COMMIT    # beside those of an older commit

*words* are those of sentences, lists and headings; *all* counts tables and code as well. The grade
is the automated readability index: 4.71 letters per word + 0.5 words per sentence - 21.43, in years
of school. It needs no dictionary of syllables. Technical terms are long words, so compare a page
with its older form rather than with a novel.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Page(NamedTuple):
    """What was counted on a page."""

    words: int
    total: int
    letters: int
    sentences: int

    @property
    def grade(self) -> float:
        """Automated readability index."""
        words = max(self.words, 1)
        return 4.71 * self.letters / words + 0.5 * words / max(self.sentences, 1) - 21.43


def prose(text: str) -> str:
    """Return the sentences of a page: no code, tables, formulas, comments, link targets."""
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$\$.*?\$\$|<!--.*?-->|^\|.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    # headings and items of lists end like sentences
    text = re.sub(r"^#+ *(.*)$", r"\1.", text, flags=re.MULTILINE)
    text = re.sub(r"([^.:;,\n])\n+(?=[-*] |\d+\. )", r"\1.\n", text)
    return re.sub(r"[`*$]|^\s*[-*] ", "", text, flags=re.MULTILINE)


def measure(text: str) -> Page:
    """Return the numbers of a page."""
    sentences = prose(text)
    words = [word for word in sentences.split() if re.search(r"\w", word)]
    letters = sum(len(re.sub(r"\W", "", word)) for word in words)
    ends = len(re.findall(r"[.!?:](?=\s|$)", sentences))
    return Page(len(words), len(text.split()), letters, ends)


def pages_of(commit: str | None) -> dict[str, Page]:
    """Return the pages of the working tree, or of a commit."""
    if commit is None:
        paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        return {str(path.relative_to(ROOT)): measure(path.read_text("utf-8")) for path in paths}

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
        return done.stdout

    names = git("ls-tree", "--name-only", commit, "README.md", "docs/").split()
    pages = [name for name in names if name.endswith(".md")]
    return {name: measure(git("show", f"{commit}:{name}")) for name in pages}


def summary(pages: Iterable[Page]) -> str:
    """Return one line for all pages together."""
    counted = [page for page in pages if page.words > 100]
    words = sum(page.words for page in counted)
    grade = sum(page.words * page.grade for page in counted) / words
    length = words / sum(page.sentences for page in counted)
    longest = max(page.words for page in counted)
    return (
        f"{len(counted)} pages, {words} words, {length:.1f} words per sentence, grade {grade:.1f}, "
        f"longest page {longest} words"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--before", metavar="COMMIT", help="an older commit to compare with")
    args = parser.parse_args()
    now = pages_of(None)
    before = pages_of(args.before) if args.before else {}
    print("| page | words | all | grade | words before | grade before |\n|---|---|---|---|---|---|")
    for name in sorted(now.keys() | before.keys()):
        new, old = now.get(name), before.get(name)
        cells = ["", "", ""] if new is None else [new.words, new.total, f"{new.grade:.1f}"]
        cells += ["", ""] if old is None else [old.words, f"{old.grade:.1f}"]
        print(f"| {name} | {' | '.join(map(str, cells))} |")
    print("now:   ", summary(now.values()))
    if before:
        print("before:", summary(before.values()))


if __name__ == "__main__":
    main()

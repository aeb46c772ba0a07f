"""The report of one crystal: an HTML page with figure and tables, complete in itself."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence

from phonopy_equivariant.evaluation.report import page, picture_part, table

Rows = Sequence[Sequence[str]]

# What a row of the report on force constants says to a reader who meets it for the first time.
_MEANING = {
    "potential": "the model, and the first digits of the hash of its file",
    "method": "how the second derivatives were computed, and the time",
    "symmetry": "operations of the space group; the deviation says how far atoms are off them",
    "sum rule residual": "zero for exact second derivatives: what remains is rounding",
    "permutation residual": "zero for exact second derivatives: what remains is rounding",
    "residual force": "zero at the model's own minimum; add --relax if it matters",
    "residual stress": "zero at the model's own lattice parameters; add --relax if it matters",
    "inscribed radius": "of the supercell, beside the range of the model's force constants",
    "range found": "how far the force constants of the model reach",
    "imaginary modes": "modes with ω² below zero: with any, the crystal is not at a minimum",
    "lowest frequency": "the most unstable mode",
    "supercell": "how far frequencies between the wave vectors of the supercell are off",
}


@dataclasses.dataclass(frozen=True)
class CrystalPage:
    """What the page of one crystal says.

    Parameters
    ----------
    title
        Of the page.
    crystal, quality, potential, origin
        Rows of tables: the structure; the force constants; the model and its licence; the command
        and versions.
    warnings
        One sentence each, with the remedy.
    modes
        Headings and rows of the optical modes at Γ, if they were asked for.
    files
        Names of the files written beside the page, with their content.

    """

    title: str
    crystal: Rows
    quality: Rows
    potential: Rows
    origin: Rows
    warnings: Sequence[str] = ()
    modes: tuple[Sequence[str], Rows] | None = None
    files: Rows = ()

    def html(self, png: bytes, caption: str) -> str:
        """Return the page, with a picture in PNG and its caption on top unless it is empty."""
        parts = [picture_part(png, caption)] if png else []
        if self.warnings:
            items = "".join(f"<li>{html.escape(line)}</li>" for line in self.warnings)
            parts += ["<h2>Warnings</h2>", f"<ul>{items}</ul>"]
        parts += ["<h2>Crystal</h2>", table(self.crystal)]
        explained = [[*row, _MEANING.get(row[0], "")] for row in self.quality]
        parts += ["<h2>Force constants</h2>", table(explained, ("", "value", "meaning"), "text")]
        if self.modes is not None:
            headings, rows = self.modes
            parts += ["<h2>Optical modes at Γ</h2>", table(rows, headings)]
        parts += ["<h2>Potential</h2>", table(self.potential, kind="text")]
        parts += ["<h2>Files</h2>", _links(self.files), _VIEWER]
        parts += ["<h2>Repeat</h2>", table(self.origin, kind="text")]
        return page(self.title, parts)


_VIEWER = (
    "<p>To see atoms move: repeat with <code>--band auto --eigenvectors</code> and open "
    "<code>band.yaml</code> in a viewer of phonons such as phononwebsite.</p>"
)


def _links(files: Rows) -> str:
    items = [
        f"<li><a href='{html.escape(name, quote=True)}'>{html.escape(name)}</a>: "
        f"{html.escape(content)}</li>"
        for name, content in files
    ]
    return "<ul>" + "".join(items) + "</ul>"

"""Bands and DOS of a potential beside those of DFT, for :mod:`validate_dft`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from validate_dft import Comparison


def plot(comparison: Comparison, path: Path) -> None:
    """Draw bands and DOS of both into a small PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(6.4, 3.4), sharey=True, width_ratios=(4, 1), layout="constrained"
    )
    for data, colour, style, label in (
        (comparison.dft, "0.45", "-", "DFT"),
        (comparison.model, "tab:red", "--", comparison.report.model),
    ):
        for segment, (x, y) in enumerate(
            zip(data.bands.distances, data.bands.frequencies, strict=True)
        ):
            lines = left.plot(x, y, style, color=colour, linewidth=1.1)
            if segment == 0:
                lines[0].set_label(label)
        right.plot(data.dos, comparison.grid, style, color=colour, linewidth=1.1)
    ticks, labels = band_ticks(comparison.dft.bands)
    left.set_xticks(ticks, labels)
    for tick in ticks:
        left.axvline(tick, color="0.8", linewidth=0.6, zorder=0)
    left.set_xlim(ticks[0], ticks[-1])
    left.axhline(0, color="0.8", linewidth=0.6, zorder=0)
    left.set_ylabel("frequency (THz)")
    figure.suptitle(f"{comparison.name}, no NAC", fontsize="medium", x=0.02, ha="left")
    figure.legend(loc="outside upper right", ncols=2, fontsize="small", frameon=False)
    right.set_xlabel("DOS (1/THz)")
    right.set_xlim(left=0)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def band_ticks(bands: Any) -> tuple[list[float], list[str]]:
    """Return ends of the path's segments and their labels, ``A|B`` where the path jumps."""
    names, ticks, labels = list(bands.labels), [], []
    fresh = True
    for distances, connected in zip(bands.distances, bands.path_connections, strict=True):
        if fresh:
            start = names.pop(0)
            if ticks:
                labels[-1] += f"|{start}"
            else:
                ticks.append(float(distances[0]))
                labels.append(start)
        ticks.append(float(distances[-1]))
        labels.append(names.pop(0))
        fresh = not connected
    return ticks, labels

"""What phonopy's script is asked to calculate, and in which order it can.

The script takes one calculation on the mesh (-t, --dos, ...) or one of --irreps, --qpoints and so
on, and drops the others without a word. Each gets settings of its own here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from phonopy.cui.settings import PhonopySettings

from phonopy_equivariant.defaults import PHONON_MESH
from phonopy_equivariant.workflows.handover import grouped_options
from phonopy_equivariant.workflows.script import option_names, phonopy_settings, phonopy_tags

# Names of phonopy's parser: each line is one calculation. Of --tdm and --tdm-cif, which write the
# same file, the one with all temperatures comes last.
_ON_MESH = (
    ("is_thermal_properties",),
    ("is_thermal_displacements",),
    ("thermal_displacement_matrices_cif",),
    ("is_thermal_displacement_matrices",),
    ("pdos", "xyz_projection"),
    ("is_dos_mode",),
    ("is_moment",),
)
_BY_THEMSELVES = (("qpoints", "read_qpoints"), ("anime",), ("modulation",), ("irreps_qpoint",))
_SAMPLING = {"mesh_numbers", "band_paths"}
_SEPARATE = _SAMPLING.union(*_ON_MESH, *_BY_THEMSELVES)
# tags of a configuration file of which phonopy takes one
_TAGS = [
    *("tprop", "tdisp", "tdispmat", "pdos", "dos", "moment"),
    *("qpoints", "anime", "modulation", "irreps"),
]

# matplotlib's backends that write files only
_FILES_ONLY = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}


class Calculations(NamedTuple):
    """The calculations that phonopy's script runs, and what to tell the user about them."""

    options: list[str]  # of the first calculation
    settings: tuple[PhonopySettings, ...]  # of every calculation
    remarks: tuple[str, ...]  # choices made for the user
    warnings: tuple[str, ...]  # calculations that phonopy drops

    @property
    def first(self) -> PhonopySettings:
        """Settings of the first calculation, which decide the cells."""
        return self.settings[0]

    @property
    def mesh(self) -> PhonopySettings:
        """Settings of the first calculation on a mesh, or else of the first of all."""
        return next((s for s in self.settings if s.mesh_numbers is not None), self.first)


def plan_calculations(options: Sequence[str]) -> Calculations:
    """Return the calculations that the options ask for, in the order in which they run.

    A calculation that needs a mesh and has none gets the mesh that phonopy's script takes for
    ``--pdos auto``. Acoustic modes at Γ are left out of thermal properties unless the user decides
    otherwise, because analytic force constants give them zero frequency. Plots are saved if there
    is no display to show them on.

    Raises
    ------
    UsageError
        As :func:`phonopy_settings`.

    """
    options, remarks = list(options), []
    option_names = {name for name, _ in _named(options)}
    if "exclude_gamma_acoustic" not in phonopy_tags(options):
        options.append("--exclude-gamma-acoustic")
    if (
        "is_graph_plot" in option_names
        and "is_graph_save" not in option_names
        and not _shows_plots()
    ):
        options.append("-s")
        remarks.append("There is no display to show plots on (-p): they are saved as PDF (-s).")
    parts, settings = _one_at_a_time(options), list[PhonopySettings]()
    for part in parts:
        parsed = phonopy_settings(part)
        if (
            _needs_mesh(parsed)
            and parsed.mesh_numbers is None
            and parsed.run_mode in (None, "band")
        ):
            part += ["--mesh", f"{PHONON_MESH:g}"]
            parsed = phonopy_settings(part)
        settings.append(parsed)
    if "mesh_numbers" not in option_names and any("--mesh" in part for part in parts):
        remarks.append(f"No mesh is given: taking --mesh {PHONON_MESH:g}.")
    return Calculations(parts[0], tuple(settings), tuple(remarks), tuple(_dropped(options)))


def _named(options: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return each option with its values, after the name that phonopy's parser has for it."""
    names = option_names()
    return [(names[group[0].partition("=")[0]], group) for group in grouped_options(options)]


def _one_at_a_time(options: Sequence[str]) -> list[list[str]]:
    """Return the options of each calculation: the common options and its own."""
    named = _named(options)
    option_names = {name for name, _ in named}

    def only(additional: Iterable[str]) -> list[str]:
        groups = [group for name, group in named if name not in _SEPARATE or name in additional]
        return [word for group in groups for word in group]

    on_mesh = [_SAMPLING.union(names) for names in _ON_MESH if option_names & set(names)]
    by_themselves = [set(names) for names in _BY_THEMSELVES if option_names & set(names)]
    if not on_mesh and (option_names & _SAMPLING or not by_themselves):
        on_mesh = [_SAMPLING]
    return [only(additional) for additional in (*on_mesh, *by_themselves)]


def _needs_mesh(settings: PhonopySettings) -> bool:
    return (
        settings.is_thermal_properties
        or settings.is_thermal_displacements
        or settings.is_thermal_displacement_matrices
        or settings.is_dos_mode
        or settings.is_moment
        or settings.pdos_indices is not None
    )


def _dropped(options: Sequence[str]) -> list[str]:
    """Return a warning if a configuration file asks for more calculations than phonopy runs."""
    file = [word for name, group in _named(options) if name == "conf_filename" for word in group]
    in_file, requested_tags = (
        [tag for tag in _TAGS if str(tags.get(tag, ".false.")).lower() != ".false."]
        for tags in (phonopy_tags(file), phonopy_tags(options))
    )
    if not in_file or len(requested_tags) < 2:
        return []
    return [
        f"phonopy takes only one of {', '.join(map(str.upper, requested_tags))}, because "
        f"{', '.join(map(str.upper, in_file))} is in the file of --config; ask by options instead."
    ]


def _shows_plots() -> bool:
    import matplotlib

    return matplotlib.get_backend().lower() not in _FILES_ONLY
